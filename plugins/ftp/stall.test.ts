/** A server that takes no more bytes is given up, also where the source was silent before for as long as the server may be. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { Readable } from "node:stream";
import { after, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { Device } from "../../core/plugin.js";
import { parseIn } from "../../core/options.js";
import { calm, expectFault } from "../../test/conformance/clause.js";
import { bytes, context, upload } from "../../test/conformance/upload.js";
import { plugin } from "./plugin.js";

const servers: Server[] = [];
const devices: Device[] = [];
const sockets: Socket[] = [];
after(async () => {
  for (const device of devices) await device.close();
  for (const socket of sockets) socket.destroy();
  for (const server of servers) server.close();
});

async function listen(serve: (socket: Socket) => void): Promise<number> {
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => socket.destroy());
    serve(socket);
  });
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

for (const pauseMs of [0, 1500])
  test(`a server that takes no more bytes is given up${pauseMs > 0 ? ", also where the source paused before" : ""}`, async () => {
    // The system takes what it can, and nobody reads it: as behind a link that has gone.
    const data = await listen((socket) => socket.pause());
    const usual: Readonly<Record<string, string>> = {
      USER: "331 password",
      PASS: "230 in",
      FEAT: "211-Features:\r\n SIZE\r\n211 End",
      TYPE: "200 ok",
      CWD: "250 ok",
      NOOP: "200 ok",
      EPSV: `229 ok (|||${data}|)`,
      STOR: "150 go on",
      PWD: '257 "/"',
      SIZE: "550 no",
    };
    const port = await listen((socket) => {
      socket.write("220 hello\r\n");
      socket.on("data", (chunk) => {
        for (const line of chunk
          .toString()
          .split("\r\n")
          .filter((it) => it !== ""))
          socket.write(`${usual[line.split(" ")[0] ?? ""] ?? "502 unknown"}\r\n`);
      });
    });
    const parsed = parseIn({ baseDir: "/", env: {} }, plugin.options, { host: "127.0.0.1", port, user: "u", password: "p", timeout: "1s" });
    if (!parsed.success) throw new Error("options");
    const device = plugin.device?.(parsed.output, context()) ?? assert.fail();
    devices.push(device);
    const target = device.target ?? assert.fail();
    const content = bytes(40_000_000);
    const read = (): Readable =>
      Readable.from(
        (async function* () {
          yield content.subarray(0, 100_000);
          await delay(pauseMs);
          for (let at = 100_000; at < content.length; at += 500_000) yield content.subarray(at, at + 500_000);
        })(),
        { objectMode: true, highWaterMark: 1 },
      );
    await expectFault(
      target.write(upload("a.bin", content, { read }), 0, calm(), () => undefined),
      ["transient", "offline"],
      15_000,
    );
  });
