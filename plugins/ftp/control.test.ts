import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { unacknowledged } from "../../core/net.js";
import { Control } from "./control.js";

const timeoutMs = 30_000;

/** A server here, and its side of the connections to it. */
async function served(t: TestContext, welcome: (socket: Socket) => void): Promise<{ port: number; socket: Promise<Socket> }> {
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    t.after(() => socket.destroy());
    welcome(socket);
  }).listen(0, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, socket: once(server, "connection").then(([socket]) => socket as Socket) };
}

test(
  "a server whose last byte has just come has as long for its answer as any other, and not longer",
  { skip: process.platform === "linux" ? false : "only Linux tells what is on its way" },
  async (t) => {
    const asked = await served(t, (socket) => socket.write("220 here\r\n"));
    const files = await served(t, () => undefined);
    const made = t.mock.method(globalThis, "setTimeout");
    const opening = Control.open("127.0.0.1", asked.port, timeoutMs, new AbortController().signal);
    /** What it does after each such time without an answer. */
    const silent = made.mock.calls.find(({ arguments: [, ms] }) => ms === timeoutMs)?.arguments[0];
    made.mock.restore();
    assert.ok(silent !== undefined);
    const control = await opening;
    t.after(() => control.close());
    const data = connect(files.port, "127.0.0.1");
    data.on("error", () => undefined);
    control.moving(data);
    const answer = assert.rejects(control.ask("STOR a"), /no answer came/);
    await new Promise((resolve) => setImmediate(resolve));
    data.end(Buffer.alloc(200_000));
    await once(data, "finish");
    assert.ok(unacknowledged(data) > 0);
    silent();
    assert.equal(control.closed, false, "it still goes out");
    (await files.socket).resume();
    while (unacknowledged(data) > 0) await new Promise((resolve) => setImmediate(resolve));
    silent();
    assert.equal(control.closed, false, "the last of it has come just now");
    silent();
    assert.equal(control.closed, true);
    await answer;
  },
);
