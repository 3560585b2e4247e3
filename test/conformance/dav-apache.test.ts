/** The plugin "webdav" held to the contract on Apache's mod_dav. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { promises as fs } from "node:fs";
import http from "node:http";
import https from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, test } from "node:test";
import { calm } from "./clause.js";
import { davDevice, davHarness } from "./dav-harness.js";
import { target } from "./dav-scene.js";
import { apache } from "./dav-servers.js";
import { hasOpenssl, selfSigned } from "./ftp-servers.js";
import { sourceClauses } from "./source.js";
import { targetClauses } from "./target.js";
import { isReceipt, send } from "./target-under-test.js";
import { bytes, upload } from "./upload.js";

const promises = { exclusive: "directories", rmdirIsSafe: false } as const;
for (const harness of [
  davHarness({ kind: apache, promises }),
  davHarness({ kind: apache, promises, given: { verify: "readback" }, name: `${apache.name}, read back` }),
]) {
  targetClauses(harness.target);
  sourceClauses(harness.source);
  after(() => harness.stop());
}

test(
  "Apache behind a proxy that has the TLS, which takes no name that begins with https: files get theirs",
  { skip: apache.skip ?? (hasOpenssl ? false : "openssl is not installed") },
  async (t) => {
    const server = await apache.start();
    t.after(() => server.stop());
    const { hostname, port } = new URL(server.url);
    const keys = await fs.mkdtemp(join(server.dir, "..", "keys-"));
    const { cert, key, fingerprint } = selfSigned(keys);
    const proxy = https.createServer({ cert: await fs.readFile(cert), key: await fs.readFile(key) }, (asked, answer) => {
      const { method, url: path, headers } = asked;
      const behind = http.request({ hostname, port, method, path, headers }, (said) => {
        answer.writeHead(said.statusCode ?? 0, said.headers);
        said.pipe(answer);
      });
      asked.pipe(behind);
    });
    proxy.listen(0, "127.0.0.1");
    await once(proxy, "listening");
    t.after(() => proxy.close());
    const device = davDevice(`https://127.0.0.1:${(proxy.address() as AddressInfo).port}`, { tls: { fingerprint } });
    t.after(() => device.close());
    for (const [name, size] of [
      ["small.bin", 3000],
      ["large.bin", 3_000_000],
    ] as const) {
      assert.ok(isReceipt(await send(target(device), upload(name, bytes(size)))));
      assert.ok((await fs.readFile(join(server.dir, name))).equals(bytes(size)));
    }
    await device.tree?.move("small.bin", "moved.bin", { size: 3000 }, calm());
    assert.deepEqual((await fs.readdir(server.dir)).sort(), ["large.bin", "moved.bin"]);
  },
);
