/** What a WebDAV server may answer to who reads from it, and whom it may be: a listing, a GET, a certificate. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, promises as fs, readFileSync, utimesSync, writeFileSync } from "node:fs";
import type http from "node:http";
import https from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { responseOf } from "../doubles/dav.js";
import { Bench, FakeDevice, until as untilSo } from "../fake-device.js";
import { calm, expectFault, until } from "./clause.js";
import { davDevice } from "./dav-harness.js";
import { listed, plain, scene, source } from "./dav-scene.js";
import { apache } from "./dav-servers.js";
import { hasOpenssl, selfSigned } from "./ftp-servers.js";
import { bytes, context, realClock } from "./upload.js";

test("a source's GET: a range that is ignored is skipped, once known not asked for; what is something else is refused", async (t) => {
  const { double, device } = await scene(t, plain);
  const content = bytes(300_000);
  await fs.writeFile(join(double.dir, "a.bin"), content);
  const entry = (await source(device).stat("a.bin", calm())) ?? assert.fail();
  const answers = (status: number, body: Buffer, headers: http.OutgoingHttpHeaders = {}) => {
    double.instead = ({ method, response }) =>
      method === "GET" && (response.writeHead(status, { "content-length": body.length, ...headers }).end(body), true);
  };
  const read = async (offset: number) => buffer(await source(device).open(entry, offset, calm()));
  assert.equal(source(device).features.ranges, true);
  answers(200, content);
  assert.ok((await read(100_000)).equals(content.subarray(100_000)));
  assert.equal(source(device).features.ranges, false);
  answers(200, Buffer.from("<html>Log in</html>"));
  await expectFault(read(0), "transient");
  answers(206, content.subarray(5), { "content-range": "bytes 5-299999/300000" });
  await expectFault(read(0), "transient");
  answers(200, content, { "content-encoding": "gzip" });
  await expectFault(read(0), "transient");
  answers(206, content.subarray(0, 1000), { "content-range": "bytes 0-299999/300000" });
  await expectFault(read(0), "transient");
  double.instead = ({ method, response }) =>
    method === "GET" &&
    (response
      .writeHead(206, { "content-length": 300_000, "content-range": "bytes 0-299999/300000" })
      .write(content.subarray(0, 1000), () => response.destroy()),
    true);
  await expectFault(read(0), "transient");
  answers(416, Buffer.alloc(0));
  await expectFault(read(0), "changed");
});

test("a listing cannot lead out of its directory, nor take another's address for its own", async (t) => {
  const { double, device } = await scene(t, plain);
  const file = await fs.stat(new URL(import.meta.url).pathname);
  const own = responseOf("", await fs.stat(double.dir));
  double.instead = (exchange) => {
    if (exchange.method !== "PROPFIND") return false;
    const evil = ["/a%2Fb.bin", "/../up.bin", "/%2e%2e", "/sub/deep.bin", "/ok.bin", "/new%0Aline.bin"];
    double.multistatus(exchange, [own, ...evil.map((href) => responseOf("", file).replace("<d:href>", `<d:href>${href}`))]);
    return true;
  };
  assert.deepEqual(await listed(device), [`file ok.bin ${file.size}`, "unreadable new‛0Aline.bin 0"]);
  double.instead = (exchange) => exchange.method === "PROPFIND" && (double.multistatus(exchange, []), true);
  await expectFault(listed(device), "denied");
});

test("a list in which what is in the directory has other addresses than the directory is not that of an empty one", async (t) => {
  const { double, device } = await scene(t, plain, { root: "Box" });
  await fs.mkdir(join(double.dir, "Box/sub"), { recursive: true });
  const dir = await fs.stat(double.dir);
  const file = await fs.stat(new URL(import.meta.url).pathname);
  for (const wrong of ["/box/a.bin", "/dav/Box/a.bin", "/Box%2Fa.bin", "a.bin", "/Box%252Fa.bin"]) {
    double.instead = (exchange) => {
      if (exchange.method !== "PROPFIND" || exchange.path !== "/Box") return false;
      double.multistatus(exchange, [
        responseOf("/Box", dir),
        ...(exchange.request.headers.depth === "0" ? [] : [responseOf("", file).replace("<d:href>", `<d:href>${wrong}`)]),
      ]);
      return true;
    };
    assert.match(await expectFault(listed(device), "denied"), /other addresses than \/Box\//, wrong);
  }
});

test("a list that says of the directory itself that it cannot be told, or that it is none, is not that of an empty one", async (t) => {
  const { double, device } = await scene(t, plain);
  await fs.mkdir(join(double.dir, "sub"));
  const dir = responseOf("/sub", await fs.stat(double.dir));
  const whole = (status: string) => `<d:response><d:href>/sub/</d:href><d:status>HTTP/1.1 ${status}</d:status></d:response>`;
  const file = responseOf("/sub", await fs.stat(new URL(import.meta.url).pathname));
  for (const [what, own, kind] of [
    ["403", whole("403 Forbidden"), "denied"],
    ["500", whole("500 Internal Server Error"), "transient"],
    ["507", whole("507 Insufficient Storage"), "transient"],
    ["404", whole("404 Not Found"), "missing"],
    ["no property", dir.replace("200 OK", "403 Forbidden"), "denied"],
    ["a file", file, "denied"],
  ] as const) {
    double.instead = (exchange) =>
      exchange.method === "PROPFIND" && exchange.path === "/sub" && (double.multistatus(exchange, [own]), true);
    if (kind !== "missing") await assert.rejects((device.tree ?? assert.fail()).rmdir("sub", calm()), what);
    const read = (device.tree ?? assert.fail()).list("sub", calm())[Symbol.asyncIterator]().next();
    await expectFault(read, kind).catch((error: unknown) => assert.fail(`${what}: ${String(error)}`));
  }
  assert.ok((await fs.stat(join(double.dir, "sub"))).isDirectory());
});

test("a list may say of what is not there that it has gone", async (t) => {
  const { double, device } = await scene(t, plain);
  const gone = "<d:response><d:href>/a.bin</d:href><d:status>HTTP/1.1 410 Gone</d:status></d:response>";
  double.instead = (exchange) => exchange.path === "/a.bin" && (double.multistatus(exchange, [gone]), true);
  assert.equal(await source(device).stat("a.bin", calm()), undefined);
});

test("a file whose name holds control characters is left out by its name, with why: asked for by another name it would count as lost", async (t) => {
  const { double, device } = await scene(t, plain);
  for (const name of ["new\nline.bin", "tab\t.bin", "‛0A.bin", "plain.bin"]) await fs.writeFile(join(double.dir, name), "content");
  await fs.mkdir(join(double.dir, "dir\r"));
  const found = await listed(device);
  assert.deepEqual(found, [
    "file plain.bin 7",
    "file ‛0A.bin 7",
    "unreadable dir‛0D 0",
    "unreadable new‛0Aline.bin 0",
    "unreadable tab‛09.bin 0",
  ]);
});

test(
  "a directory that the server itself may not read is left out by its name, and the others are listed: a connection that breaks off there is not one that broke",
  { skip: apache.skip ?? false },
  async (t) => {
    const server = await apache.start();
    t.after(() => server.stop());
    for (const dir of ["a", "lost+found", "z"]) await fs.mkdir(join(server.dir, dir));
    for (const file of ["a/1.bin", "z/2.bin"]) await fs.writeFile(join(server.dir, file), "content");
    await fs.chmod(join(server.dir, "lost+found"), 0o700);
    const device = davDevice(server.url);
    t.after(() => device.close());
    assert.deepEqual(await listed(device), ["file a/1.bin 7", "file z/2.bin 7", "unreadable lost+found 0"]);
  },
);

test("of a listing that breaks off once nothing is left out", async (t) => {
  const { double, device } = await scene(t, plain);
  await fs.mkdir(join(double.dir, "d"));
  await fs.writeFile(join(double.dir, "d/a.bin"), "content");
  let cuts = 1;
  double.instead = ({ method, path, response }) => {
    if (method !== "PROPFIND" || !path.startsWith("/d") || cuts-- <= 0) return false;
    response
      .writeHead(207, { "content-type": "application/xml" })
      .write('<?xml version="1.0"?><d:multistatus xmlns:d="DAV:">', () => response.destroy());
    return true;
  };
  assert.deepEqual(await listed(device), ["file d/a.bin 7"]);
  assert.ok(cuts <= 0, "nothing was cut");
});

test("directories are listed several at once, and a question of another waits for none of them", async (t) => {
  const { double, device } = await scene(t, plain);
  for (let n = 0; n < 8; n++) await fs.mkdir(join(double.dir, `d${n}`));
  await device.probe(calm());
  const held: (() => void)[] = [];
  double.instead = async ({ method, path }) => {
    if (method === "PROPFIND" && path.startsWith("/d")) await new Promise<void>((resolve) => held.push(resolve));
    return false;
  };
  const all = listed(device);
  await until("four are asked for at once", () => held.length === 4);
  await source(device).stat("nowhere", calm());
  assert.equal(held.length, 4);
  double.instead = () => false;
  for (const go of held.splice(0)) go();
  assert.deepEqual(await all, []);
});

test(
  "a certificate that has expired: denied where the clock is trusted, else the clock is not set",
  { skip: hasOpenssl ? false : "openssl is not installed" },
  async (t) => {
    const dir = mkdtempSync(join(tmpdir(), "filesync-dav-"));
    t.after(() => fs.rm(dir, { recursive: true }));
    const { cert: valid, key } = selfSigned(dir);
    const cert = join(dir, "old.pem");
    execFileSync("openssl", ["x509", "-in", valid, "-signkey", key, "-days", "-1", "-out", cert], { stdio: "ignore" });
    const server = https.createServer({ cert: readFileSync(cert), key: readFileSync(key) }, (_, response) => response.writeHead(200).end());
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    t.after(() => server.close());
    for (const [trusted, kind] of [
      [true, "denied"],
      [false, "offline"],
    ] as const) {
      const ctx = context({ clock: realClock(trusted) });
      const device = davDevice(`https://127.0.0.1:${(server.address() as AddressInfo).port}`, { tls: { ca: cert } }, { ctx });
      assert.match(await expectFault(device.probe(calm()), kind), trusted ? /expired/ : /clock is not set/);
      await device.close();
    }
  },
);

for (const before of [false, true])
  test(`what a server without a clock (no Date in its answers${before ? ", as it had before" : ""}) still writes is not complete because its time is long ago by another`, async (t) => {
    const { double, device } = await scene(t, plain);
    if (before) await listed(device);
    double.instead = ({ response }) => {
      response.sendDate = false;
      return false;
    };
    const path = join(double.dir, "log.bin");
    let [writtenMs, text] = [0, ""];
    const write = (more: string) => {
      writeFileSync(path, (text += more));
      // Its clock begins anew at each start.
      utimesSync(path, 60, 60);
      writtenMs = performance.now();
    };
    const bench = new Bench(t);
    const out = new FakeDevice("out");
    const box = Object.assign(new FakeDevice("box"), { device: () => device });
    const settleMs = 1000;
    write("begun");
    await bench.start({ sources: [box], targets: [out] }, [{ from: "box", to: ["out"], afterDelivery: "delete" }], {
      device: { settleMs, intervalMs: 50 },
    });
    for (let n = 0; n < 8; n++) {
      // Of a machine that stood still for longer nobody knows what it was: it may have settled, and is begun anew.
      const stoodMs = performance.now() - writtenMs;
      if (!existsSync(path)) assert.ok(stoodMs >= settleMs, `deleted ${Math.round(stoodMs)} ms after it was written`);
      write(`, ${n}`);
      await sleep(settleMs / 4);
    }
    // It learns the time.
    double.instead = () => false;
    await untilSo(bench, "it is delivered, and deleted", () => !existsSync(path));
    assert.ok(performance.now() - writtenMs >= settleMs);
    const arrived = [...out.files.values()].map(({ bytes }) => bytes.toString());
    assert.ok(arrived.includes(text), arrived.join("\n"));
  });
