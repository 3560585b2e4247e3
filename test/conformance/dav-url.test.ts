/** A "url" whose path is not there at the server: as with the root of FTP and SFTP its directories are made, or one word says that there is none. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { DavDouble, type Exchange } from "../doubles/dav.js";
import { NextcloudDouble } from "../doubles/nextcloud.js";
import { calm, expectFault } from "./clause.js";
import { davDevice } from "./dav-harness.js";
import { listed, plain, scene, target } from "./dav-scene.js";
import { apache, nginx, password, rclone, user } from "./dav-servers.js";
import { send } from "./target-under-test.js";
import { bytes, upload } from "./upload.js";

for (const kind of [apache, nginx, rclone])
  test(`${kind.name}: the directories of the url's own path are made by the first upload`, { skip: kind.skip ?? false }, async (t) => {
    const server = await kind.start();
    t.after(() => server.stop());
    for (const [url, given] of [
      ["/not yet", {}],
      ["/new/one/", { root: "/below it" }],
    ] as const) {
      const device = davDevice(server.url + encodeURI(url), { user, password, ...given });
      t.after(() => device.close());
      await device.probe(calm());
      assert.match(await expectFault(listed(device), "denied"), /the root is not there/);
      assert.deepEqual(await fs.readdir(server.dir), url === "/not yet" ? [] : ["not yet"], "to look changes nothing");
      await send(target(device), upload("a.bin", bytes(100_000)));
      await send(target(device), upload("dir/b.bin", bytes(10)));
      assert.deepEqual(await listed(device), ["file a.bin 100000", "file dir/b.bin 10"]);
    }
    assert.ok((await fs.stat(join(server.dir, "new/one/below it/dir/b.bin"))).isFile());
  });

test(
  `${apache.name}: a directory that holds an index.html, and is shown to nobody, still takes files`,
  { skip: apache.skip ?? false },
  async (t) => {
    const server = await apache.start();
    t.after(() => server.stop());
    for (const name of ["index.html", "a.bin"]) {
      const device = davDevice(server.url, { user, password });
      t.after(() => device.close());
      await send(target(device), upload(`site/${name}`, bytes(100_000)));
    }
    assert.deepEqual((await fs.readdir(join(server.dir, "site"))).sort(), ["a.bin", "index.html"]);
  },
);

test("Nextcloud: so are those below its user's directory", async (t) => {
  const { double, device } = await scene(t, (dir) => new NextcloudDouble(dir));
  const below = davDevice(`${double.url}/remote.php/dav/files/tester-id/not/yet`);
  t.after(() => below.close());
  await device.probe(calm());
  await below.probe(calm());
  await send(target(below), upload("a.bin", bytes(100_000)));
  assert.ok((await fs.stat(join(double.files, "not/yet/a.bin"))).isFile());
});

/** WebDAV is below /dav alone; to what is above its user is shown nothing. */
class Below extends DavDouble {
  elsewhere = 404;
  /** Where it is another answer. */
  mkcol: number | undefined;

  protected override special(exchange: Exchange): Promise<boolean> {
    const inside = exchange.path === "/dav/me" || exchange.path.startsWith("/dav/me/");
    if (!inside)
      this.say(
        exchange,
        exchange.path === "/status.php" ? 404 : ((exchange.method === "MKCOL" ? this.mkcol : undefined) ?? this.elsewhere),
      );
    return Promise.resolve(!inside);
  }
}

test("a url beside the server's WebDAV is denied with what to do, by a probe and by an upload, and nothing is made", async (t) => {
  for (const [elsewhere, mkcol] of [[403], [404], [405], [404, 403], [404, 405], [404, 409], [404, 501]] as const) {
    const { double } = await scene(t, (dir) => new Below(dir));
    Object.assign(double, { elsewhere, mkcol });
    const device = davDevice(`${double.url}/dva/me`);
    t.after(() => device.close());
    const said = [
      await expectFault(device.probe(calm()), "denied"),
      await expectFault(
        target(device).write(upload("dir/a.bin", bytes(100_000)), 0, calm(), () => undefined),
        "denied",
      ),
    ];
    for (const text of said) assert.match(text, elsewhere === 404 ? /see whether another "url" or "root" is meant/ : /answers 40[35]/);
    assert.deepEqual(await fs.readdir(double.dir), []);
  }
});

test("above the url nothing need be shown: its own directory is made all the same, though nobody can say before whether it will be", async (t) => {
  for (const elsewhere of [401, 403, 405]) {
    const { double } = await scene(t, (dir) => new Below(dir));
    double.elsewhere = elsewhere;
    await fs.mkdir(join(double.dir, "dav"));
    for (const path of ["/dav/me", "/dav/me/not/yet"]) {
      const device = davDevice(double.url + path);
      t.after(() => device.close());
      if (path === "/dav/me")
        assert.match(
          await expectFault(device.probe(calm()), "denied"),
          new RegExp(`no directory at .*/dav/me/, and above it .* answers ${elsewhere}\\b.*"url"`),
        );
      else await device.probe(calm());
      await send(target(device), upload("dir/a.bin", bytes(100_000)));
    }
    assert.ok((await fs.stat(join(double.dir, "dav/me/not/yet/dir/a.bin"))).isFile());
  }
});

test("a file in the place of the url's own directory: denied, so no file is set aside for it", async (t) => {
  const { double } = await scene(t, plain);
  await fs.writeFile(join(double.dir, "logs"), "x");
  const device = davDevice(`${double.url}/logs`);
  t.after(() => device.close());
  await expectFault(device.probe(calm()), "denied");
  await expectFault(
    target(device).write(upload("a.bin", bytes(10)), 0, calm(), () => undefined),
    "denied",
  );
});

test("the url's own directory was removed meanwhile: it is made again at the next try", async (t) => {
  const { double } = await scene(t, plain);
  const device = davDevice(`${double.url}/logs`);
  t.after(() => device.close());
  await send(target(device), upload("dir/a.bin", bytes(10)));
  await fs.rm(join(double.dir, "logs"), { recursive: true });
  const it = upload("dir/b.bin", bytes(10));
  await expectFault(
    target(device).write(it, 0, calm(), () => undefined),
    "transient",
  );
  await send(target(device), it);
  assert.deepEqual(await listed(device), ["file dir/b.bin 10"]);
});
