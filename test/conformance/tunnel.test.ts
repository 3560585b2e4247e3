/** A server behind what takes its connections in its place (an ssh tunnel, a container's proxy), and hangs up where it is down: it is not there, and its files wait as for any other. */
import assert from "node:assert/strict";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { after, test } from "node:test";
import { isFault } from "../../core/errors.js";
import type { Device } from "../../core/plugin.js";
import { plugin as ftp } from "../../plugins/ftp/plugin.js";
import { plugin as sftp } from "../../plugins/sftp/plugin.js";
import { plugin as webdav } from "../../plugins/webdav/plugin.js";
import { calm } from "./clause.js";
import { deviceOf } from "./served.js";
import { context } from "./upload.js";

const servers: Server[] = [];
after(() => servers.forEach((server) => server.close()));

async function tunnel(hangUp: (socket: Socket) => unknown): Promise<number> {
  const server = createServer((socket) => hangUp(socket.on("error", () => undefined)));
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

const host = "127.0.0.1";
const login = { user: "u", password: "p-4711" };
const made: Readonly<Record<string, (port: number) => Device>> = {
  ftp: (port) => deviceOf(ftp, { host, port, ...login }, context()),
  "ftp, TLS asked for": (port) => deviceOf(ftp, { host, port, ...login, secure: true }, context()),
  "ftp, TLS from the first byte": (port) => deviceOf(ftp, { host, port, ...login, secure: "implicit" }, context()),
  "webdav with TLS": (port) => deviceOf(webdav, { url: `https://${host}:${port}/`, ...login }, context()),
  sftp: (port) => deviceOf(sftp, { host, port, ...login, hostKey: `SHA256:${"A".repeat(43)}` }, context()),
};
/** The server has the first word. */
const waits = new Set(["ftp", "ftp, TLS asked for"]);
const waysAtOnce: Readonly<Record<string, (socket: Socket) => unknown>> = {
  "ends it": (socket) => socket.end(),
  "resets it": (socket) => socket.resetAndDestroy(),
};
const ways: typeof waysAtOnce = {
  ...waysAtOnce,
  "resets it at the first byte": (socket) => socket.once("data", () => socket.resetAndDestroy()),
};

for (const [name, make] of Object.entries(made))
  for (const [how, hangUp] of Object.entries(waits.has(name) ? waysAtOnce : ways))
    test(`${name}: who takes the connection ${how}`, async (t) => {
      const device = make(await tunnel(hangUp));
      t.after(() => device.close());
      await assert.rejects(device.probe(calm()), (error) => isFault(error, "offline"));
    });
