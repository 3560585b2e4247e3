/** What a server calls itself, as it comes over a socket. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { test } from "node:test";
import { gatheringSocket, softwareOf } from "./socket.js";

test("what a server calls itself is known whatever comes before it, and however it is cut", async (t) => {
  for (const [parts, expected] of [
    [["SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n\x01\x02"], "OpenSSH_9.2p1"],
    [["Welcome to SSH-2.0-nothing\r\nSSH-2", ".0-SFTPGo_2.5", ".6\r\n"], "SFTPGo_2.5.6"],
    [["SSH-2.0-half"], undefined],
  ] as const) {
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      void (async () => {
        for (const part of parts) await new Promise((resolve) => socket.write(part, "latin1", resolve));
        socket.end();
      })();
    });
    t.after(() => server.close());
    await once(server.listen(0, "127.0.0.1"), "listening");
    const socket = gatheringSocket();
    const software = softwareOf(socket);
    assert.equal(software(), undefined);
    socket.connect((server.address() as AddressInfo).port, "127.0.0.1");
    await once(socket, "end");
    assert.equal(software(), expected);
  }
});
