import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../../core/errors.js";
import { Refusal, sftpFault } from "./faults.js";

const told = (code: number, text = "") => {
  const { kind, message } = sftpFault(new Refusal(code, Buffer.from(text)), { what: "cannot write a", clockTrusted: true });
  return `${kind}: ${message}`;
};

test("codes of refusal, also of later versions", () => {
  assert.equal(told(2, "No such file"), 'missing: cannot write a: there is no such file or directory (the server said "No such file")');
  assert.equal(told(3, "Permission denied"), "denied: cannot write a: permission denied");
  assert.equal(told(4, "Failure"), "transient: cannot write a: failure");
  assert.equal(told(4, "Disk quota exceeded"), 'full: cannot write a: failure (the server said "Disk quota exceeded")');
  assert.match(told(3, "open /srv/quota/a.part: permission denied"), /^denied: /);
  assert.match(told(4, "open quota.bin: input/output error"), /^transient: /);
  for (const words of [
    "write: quota exceeded",
    "Quota is used up: /srv/a",
    "User is over quota.",
    "/srv/a: over quota",
    "over-quota",
    "a.bin: QuotaExceeded",
  ])
    assert.match(told(4, words), /^full: /);
  assert.equal(told(14), "full: cannot write a: no space is left there");
  assert.equal(told(15), "full: cannot write a: the quota is used up");
  assert.equal(told(99, "x\ny"), 'transient: cannot write a: refused with code 99 (the server said "x\u201b0Ay")');
});

test("a Fault stays what it is; what a socket says becomes one", () => {
  const fault = new Fault("changed", "withdrawn");
  assert.equal(sftpFault(fault, { what: "x", clockTrusted: true }), fault);
  const refused = Object.assign(new Error("connect"), { code: "ECONNREFUSED" });
  assert.equal(sftpFault(refused, { what: "cannot log in", connecting: true, clockTrusted: true }).kind, "offline");
});
