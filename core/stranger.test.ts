/** Another kind of server at the port. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { setTimeout as wait } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import { abortedFault, Fault, isFault } from "./errors.js";
import { type Door, unlessStranger } from "./stranger.js";

async function doorTo(t: TestContext, serve: (socket: Socket) => void, timeoutMs = 3000): Promise<Door & { met: number }> {
  const door = {
    host: "127.0.0.1",
    port: 0,
    hello: "SSH-2.0-us\r\n",
    isMeant: (said: string) => said.startsWith("SSH-"),
    meant: { kind: "SSH", options: '"host" and "port"' },
    timeoutMs,
    met: 0,
  };
  const server = createServer((socket) => {
    door.met += 1;
    socket.on("error", () => undefined);
    serve(socket);
  });
  t.after(() => server.close());
  await once(server.listen(0, "127.0.0.1"), "listening");
  door.port = (server.address() as AddressInfo).port;
  return door;
}

const calm = () => new AbortController().signal;
const gone = () => Promise.reject(new Fault("offline", "nobody answers"));
const untilStopped = (signal: AbortSignal) =>
  new Promise<never>((_resolve, reject) => signal.addEventListener("abort", () => reject(abortedFault(signal)), { once: true }));

async function told(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => assert.fail("it went well"),
    (thrown: unknown) => thrown,
  );
  assert.ok(isFault(error));
  return `${error.kind}: ${error.message}`;
}

test("who speaks first, or when it is spoken to, is told with its first line, which fits a terminal", async (t) => {
  const first = "\u001b[2J220 (vsFTPd 3.0.3)";
  const speaks = await doorTo(t, (socket) => socket.write(`${first}${"x".repeat(100)}\r\n221 bye\r\n`));
  assert.equal(
    await told(unlessStranger(speaks, calm(), gone)),
    `denied: what answers there is no SSH server: "?[2J220 (vsFTPd 3.0.3)${"x".repeat(38)}…"; look at "host" and "port"`,
  );
  const answers = await doorTo(t, (socket) => socket.once("data", (said) => socket.end(`HTTP/1.1 400 of ${said.toString("latin1")}`)));
  assert.match(await told(unlessStranger(answers, calm(), gone)), /"HTTP\/1\.1 400 of SSH-2\.0-us"/);
  const alert = await doorTo(t, (socket) => socket.once("data", () => socket.end("\x15\x03\x01\0\x02\x02\x0a", "latin1")));
  assert.match(await told(unlessStranger(alert, calm(), gone)), /no SSH server: it speaks TLS;/);
});

test("what takes long is broken off as soon as a stranger is seen; who is meant, or says nothing, is waited for", async (t) => {
  const stranger = await doorTo(t, (socket) => socket.write("220 hello\r\n"), 600);
  assert.match(await told(unlessStranger(stranger, calm(), untilStopped)), /^denied: .*220 hello/);
  for (const said of ["SSH-2.0-OpenSSH\r\n", "SSH", ""]) {
    const door = await doorTo(t, (socket) => socket.write(said), 300);
    const late = wait(600).then(gone);
    assert.equal(await told(unlessStranger(door, calm(), () => late)), "offline: nobody answers");
    assert.equal(door.met, 1);
    assert.equal(await unlessStranger(door, calm(), () => wait(400, "in")), "in");
  }
});

test("nobody is looked at where the work goes well in time, says what is wrong, or is stopped", async (t) => {
  const door = await doorTo(t, (socket) => socket.write("220 hello\r\n"));
  assert.equal(await unlessStranger(door, calm(), () => Promise.resolve("in")), "in");
  assert.match(await told(unlessStranger(door, calm(), () => Promise.reject(new Fault("denied", "not you")))), /not you/);
  const stop = new AbortController();
  const working = told(unlessStranger(door, stop.signal, untilStopped));
  stop.abort(new Fault("aborted", "closed"));
  assert.equal(await working, "aborted: closed");
  assert.equal(door.met, 0);
});
