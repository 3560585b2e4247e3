/** What a side lists no more is asked for there by its name before it goes at the other: what that costs. */
import assert from "node:assert/strict";
import { once as event } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { vsftpd } from "../conformance/ftp-servers.js";
import { untimed } from "./servers.js";
import { once, shared } from "./shared.js";

/** Between a client and the server at that port: what the client said. */
async function overheard(t: TestContext, port: number): Promise<{ readonly port: number; readonly said: string[] }> {
  const said: string[] = [];
  const server = createServer((client) => {
    const there = connect(port, "127.0.0.1");
    for (const socket of [client, there]) socket.on("error", () => socket.destroy());
    client.on("data", (bytes) => said.push(...bytes.toString("latin1").split("\r\n")));
    client.pipe(there).pipe(client);
  });
  server.listen(0, "127.0.0.1");
  await event(server, "listening");
  t.after(() => server.close());
  return { port: (server.address() as AddressInfo).port, said };
}

test(
  "many files that are removed at an FTP server without MLST: no listing of their directory for each",
  { skip: vsftpd.skip ?? false },
  async (t) => {
    const both = await shared(t, untimed);
    const { port, said } = await overheard(t, Number(both.served.device.port));
    const config = both.config({ mode: "two-way", maxDeletes: 1000 }, {}, { port });
    for (let n = 0; n < 210; n++) both.put("here", `d/${n}`, `content ${n}`);
    await once(config);
    for (let n = 0; n < 200; n++) rmSync(join(both.nas, `d/${n}`));
    said.length = 0;
    await once(config);
    assert.equal(Object.keys(both.tree("here")).length, 11);
    assert.deepEqual(both.tree("there"), both.tree("here"));
    const count = (what: RegExp) => said.filter((line) => what.test(line)).length;
    assert.equal(count(/^SIZE .*\/d\/\d+$/), 200);
    const listed = count(/^CWD .*\/d$/);
    assert.ok(listed <= 5, String(listed));
  },
);
