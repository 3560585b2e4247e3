/** What an error of a connection means for whoever uses it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { hostAndPort, netFault } from "./net.js";

test("TLS that fails while it begins is refused by the other side; once it was begun, it was changed on the way, and that passes", () => {
  const told = (code: string, reason: string, connecting?: true) => {
    const error = Object.assign(new Error("long words of OpenSSL"), { code, reason });
    const { kind, message } = netFault(error, {
      what: "cannot write a.bin",
      clockTrusted: true,
      ...(connecting === true ? { connecting } : {}),
    });
    return `${kind}: ${message}`;
  };
  const record = ["ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "decryption failed or bad record mac"] as const;
  assert.equal(told(...record, true), `denied: cannot write a.bin: the server and this program find no TLS that both speak (${record[1]})`);
  assert.equal(told(...record), `transient: cannot write a.bin: what came is not the TLS that was begun (${record[1]})`);
  // With TLS 1.3 that is said only behind the handshake.
  const wanted = told("ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED", "tlsv13 alert certificate required");
  assert.match(wanted, /^denied: .*certificate required/);
});

test("what node's parser takes for no HTTP is told as that", () => {
  const error = Object.assign(new Error("Parse Error: Invalid header token"), { code: "HPE_INVALID_HEADER_TOKEN" });
  const { kind, message } = netFault(error, { what: "cannot post it", clockTrusted: true });
  assert.equal(`${kind}: ${message}`, "transient: cannot post it: what came is no answer of HTTP (Parse Error: Invalid header token)");
});

test("a port is told with its host, an IPv6 address in brackets", () => {
  assert.equal(hostAndPort("cam.local", 21), "cam.local:21");
  assert.equal(hostAndPort("fd00::1", 8022), "[fd00::1]:8022");
});
