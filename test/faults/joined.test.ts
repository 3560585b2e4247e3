import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type AddressInfo } from "node:net";
import { test } from "node:test";
import { reset } from "./joined.js";

for (const ended of [false, true])
  test(`a relay's reset closes a connection${ended ? " of which the end is on its way" : ""}`, async (t) => {
    const server = createServer((socket) => socket.on("error", () => undefined).resume()).listen(0, "127.0.0.1");
    t.after(() => server.close());
    await once(server, "listening");
    const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
    await once(socket, "connect");
    const errors: unknown[] = [];
    socket.on("error", (error) => errors.push(error));
    if (ended) socket.end("what is left");
    const closed = once(socket, "close");
    reset(socket);
    await closed;
    assert.deepEqual(errors, []);
  });
