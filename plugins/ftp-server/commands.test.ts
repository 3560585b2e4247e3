/** What the FTP server answers: resume only at the size, durable order of answers, names, listings, digests, arrivals. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, promises as fs } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { after, before, test, type TestContext as TestOf } from "node:test";
import { setImmediate } from "node:timers/promises";
import type { FileEntry } from "../../core/plugin.js";
import { calm, until } from "../../test/conformance/clause.js";
import { freePort, startOwn } from "../../test/conformance/ftp-servers.js";
import { RawFtp } from "../../test/conformance/raw-ftp.js";
import { bytes, context, type TestContext } from "../../test/conformance/upload.js";
import { mountSmall, unmount } from "../../test/small-disk.js";
import { Inbox } from "./inbox.js";
import { corePathOf, type Place, Root } from "./root.js";
import type { FtpServer } from "./server.js";
import { Writers } from "./shared.js";

let base = "";
let server: FtpServer;
let heard: TestContext;

before(async () => {
  base = await fs.mkdtemp(join(tmpdir(), "filesync-cmd-"));
  heard = context();
  server = await startOwn(
    {
      root: base,
      users: {
        u: { password: "p" },
        reader: { password: "p", root: "u", write: false },
        careful: { password: "p", root: "u", delete: false, rename: false },
        other: { password: "p", root: "u" },
      },
    },
    heard,
  );
});
after(async () => {
  await server.close();
  await fs.rm(base, { recursive: true });
});

const login = (user = "u"): Promise<RawFtp> => RawFtp.login(server.port ?? 0, user, "p");
const real = (path: string): string => join(base, "u", path);

/** Of an upload that broke, or runs. */
const partOf = (path: string, { memory } = heard) => memory.get(`broken u/${path}`) as { readonly bytes: number } | undefined;
const noPart = (path: string, of = heard): Promise<void> => until(`no part to be noted at ${path}`, () => partOf(path, of) === undefined);

async function listed(): Promise<FileEntry[]> {
  const entries: FileEntry[] = [];
  for await (const entry of server.source.list(calm())) entries.push(entry);
  return entries;
}

test("REST is taken only at exactly the size", async () => {
  const ftp = await login();
  assert.match(await ftp.store("STOR rest.bin", bytes(1000)), /^226/);
  for (const bad of [1, 999, 1001, 5_000_000_000]) {
    await ftp.ask(`REST ${bad}`);
    assert.match(await ftp.store("STOR rest.bin", bytes(10)), /^554 .*1000 bytes/);
    await ftp.ask(`REST ${bad}`);
    assert.match(await ftp.store("APPE rest.bin", bytes(10)), /^554/);
  }
  assert.deepEqual(await fs.readFile(real("rest.bin")), bytes(1000));
  await ftp.ask("REST 1000");
  assert.match(await ftp.store("STOR rest.bin", bytes(500, 2)), /^226/);
  assert.match(await ftp.store("APPE rest.bin", bytes(500, 3)), /^226/);
  assert.deepEqual(await fs.readFile(real("rest.bin")), Buffer.concat([bytes(1000), bytes(500, 2), bytes(500, 3)]));
  await ftp.ask("REST 0");
  assert.match(await ftp.store("STOR rest.bin", bytes(7)), /^226/);
  assert.equal((await fs.stat(real("rest.bin"))).size, 7);
  await ftp.ask("REST 100");
  assert.match(await ftp.ask("NOOP"), /^200/);
  assert.equal((await ftp.receive("RETR rest.bin").catch((error: unknown) => String(error))).toString().includes("554"), true);
  ftp.close();
});

test("commands in one packet are answered in order", async () => {
  const ftp = await login();
  assert.match(await ftp.store("STOR .one.part", bytes(10)), /^226/);
  ftp.send("RNFR .one.part\r\nRNTO one.bin\r\nEPSV\r\nSTOR .two.part\r\nSIZE .two.part\r\nNOOP\r\n");
  assert.match(await ftp.answer(), /^350/);
  assert.match(await ftp.answer(), /^250/);
  const port = Number(/\|\|\|(\d+)\|/.exec(await ftp.answer())?.[1]);
  assert.match(await ftp.answer(), /^150/);
  const data = connect(port, "127.0.0.1");
  await once(data, "connect");
  data.end(bytes(4321));
  assert.match(await ftp.answer(), /^226/);
  assert.equal(await ftp.answer(), "213 4321");
  assert.match(await ftp.answer(), /^200/);
  ftp.close();
});

test("a command that is refused before its data connection was seen ends that, and does not reset it", async () => {
  const ftp = await login();
  for (let n = 0; n < 5; n++) {
    const port = Number(/\|\|\|(\d+)\|/.exec(await ftp.ask("EPSV"))?.[1]);
    // The server hears of the command first, in the same round as of the connection.
    ftp.send(`RETR ${"n".repeat(300)}\r\n`);
    const data = connect({ port, host: "127.0.0.1" });
    const [received, answer] = await Promise.all([buffer(data), ftp.answer()]);
    assert.equal(received.length, 0);
    assert.match(answer, /^553 The name is too long/);
  }
  ftp.close();
});

test("a broken upload keeps what came, and is surely not settled until it goes on", async () => {
  const ftp = await login();
  const data = await ftp.data();
  assert.match(await ftp.ask("STOR broken.bin"), /^150/);
  data.write(bytes(100_000));
  await until("the bytes to be there", async () => (await fs.stat(real("broken.bin"))).size === 100_000);
  const whileWritten = await server.source.stat("u/broken.bin", calm());
  assert.deepEqual([whileWritten?.settled, whileWritten?.reason], [false, undefined]);
  data.resetAndDestroy();
  assert.match(await ftp.answer(), /^426/);
  assert.equal(await ftp.ask("SIZE broken.bin"), "213 100000");
  const torn = await server.source.stat("u/broken.bin", calm());
  assert.deepEqual([torn?.settled, torn?.reason], [false, "its upload broke off; its client may go on with it"]);
  assert.match(await ftp.store("APPE broken.bin", bytes(10)), /^226/);
  assert.equal((await server.source.stat("u/broken.bin", calm()))?.settled, true);
  ftp.close();
});

/** As Linux says it of pages that a medium did not take: once. */
async function refuseSync(t: TestOf, method: "sync" | "datasync", place: string): Promise<() => number> {
  const handle = await fs.open(base, "r");
  const prototype = Object.getPrototypeOf(handle) as fs.FileHandle;
  await handle.close();
  const itself: () => Promise<void> = Reflect.get(prototype, method);
  let refused = 0;
  t.mock.method(prototype, method, async function (this: fs.FileHandle) {
    const [mine, its] = [await this.stat(), await fs.stat(place).catch(() => undefined)];
    if (refused > 0 || mine.ino !== its?.ino || !mine.isFile()) return itself.call(this);
    refused += 1;
    throw Object.assign(new Error("EIO: i/o error"), { code: "EIO", syscall: method === "sync" ? "fsync" : "fdatasync" });
  });
  return () => refused;
}

test("what the medium did not take is not there: another sync would say that all is well, and the client would go on behind it", async (t) => {
  const ftp = await login();
  const content = bytes(5000);
  for (const name of [".unsynced.part", "unsynced.bin"]) {
    const refused = await refuseSync(t, "datasync", real(name));
    assert.match(await ftp.store(`STOR ${name}`, content), /^451/);
    assert.equal(existsSync(real(name)), false, name);
    t.mock.restoreAll();
    assert.equal(refused(), 1);
    assert.match(await ftp.store(`STOR ${name}`, content.subarray(0, 3000)), /^226/);
    await refuseSync(t, "datasync", real(name));
    assert.match(await ftp.store(`APPE ${name}`, content.subarray(3000)), /^451/);
    t.mock.restoreAll();
    assert.equal(await ftp.ask(`SIZE ${name}`), "213 3000");
    assert.match(await ftp.store(`APPE ${name}`, content.subarray(3000)), /^226/);
    assert.ok((await fs.readFile(real(name))).equals(content));
  }
  ftp.close();
});

test("a partial that came before this start, and may be in the system's cache alone, is synced before it gets its name, and goes where it cannot be", async (t) => {
  const ftp = await login();
  const place = real(".earlier.part");
  await fs.writeFile(place, bytes(5000));
  const refused = await refuseSync(t, "sync", place);
  assert.match(await ftp.ask("RNFR .earlier.part"), /^350/);
  assert.match(await ftp.ask("RNTO earlier.bin"), /^451/);
  assert.deepEqual([existsSync(place), existsSync(real("earlier.bin")), refused()], [false, false, 1]);
  t.mock.restoreAll();
  assert.match(await ftp.store("STOR .earlier.part", bytes(5000)), /^226/);
  // What this one took is synced.
  const again = await refuseSync(t, "sync", place);
  assert.match(await ftp.ask("RNFR .earlier.part"), /^350/);
  assert.match(await ftp.ask("RNTO earlier.bin"), /^250/);
  assert.equal(again(), 0);
  ftp.close();
});

test("an upload in whose middle this program is killed is known to be torn by the next: noted before the file is touched, until it goes on", async () => {
  const ftp = await login();
  const sizes: unknown[] = [];
  const set = heard.memory.set.bind(heard.memory);
  heard.memory.set = async (key, value) => {
    if (key === "broken u/killed.bin" && value !== undefined)
      sizes.push(existsSync(real("killed.bin")) ? (await fs.stat(real("killed.bin"))).size : "nothing");
    return set(key, value);
  };
  assert.match(await ftp.store("STOR killed.bin", bytes(5000)), /^226/);
  const data = await ftp.data();
  assert.match(await ftp.ask("STOR killed.bin"), /^150/);
  data.write(bytes(1000));
  await until("the bytes to be there", async () => (await fs.stat(real("killed.bin"))).size === 1000);
  heard.memory.set = set;
  assert.deepEqual(sizes, ["nothing", 5000]);
  const key = "broken u/killed.bin";
  const after = context();
  await after.memory.set(key, heard.memory.get(key));
  const next = await startOwn({ root: base, users: { u: { password: "p" } } }, after);
  const settled = async () => (await next.source.stat("u/killed.bin", calm()))?.settled;
  data.resetAndDestroy();
  assert.match(await ftp.answer(), /^426/);
  ftp.close();
  assert.equal(await settled(), false);
  const again = await RawFtp.login(next.port ?? 0, "u", "p");
  assert.match(await again.store("APPE killed.bin", bytes(4000)), /^226/);
  again.close();
  assert.equal(await settled(), true);
  await next.close();
});

test("an upload that leaves nothing, or is refused, leaves no word that something is torn", async () => {
  const ftp = await login();
  const empty = await ftp.data();
  assert.match(await ftp.ask("STOR nothing.bin"), /^150/);
  empty.resetAndDestroy();
  assert.match(await ftp.answer(), /^426/);
  await fs.mkdir(real("a-directory"), { recursive: true });
  assert.match(await ftp.store("STOR a-directory/to/x.bin", bytes(10)), /^5/);
  assert.match(await ftp.store("STOR a-directory", bytes(10)), /^5/);
  assert.match(await ftp.store("STOR copied.bin", bytes(10)), /^226/);
  await noPart("copied.bin");
  const [first = "", second = ""] = ["a-directory/to/x.bin", "copy.bin"].map((path) => `broken u/${path}`);
  const noted: [string, unknown][] = [];
  const set = heard.memory.set.bind(heard.memory);
  heard.memory.set = (key, value) => {
    if ([first, second].includes(key)) noted.push([key, value]);
    return set(key, value);
  };
  for (const [to, answer] of [
    ["a-directory", /^55/],
    ["a-directory/to/x.bin", /^55/],
    ["copy.bin", /^250/],
  ] as const) {
    assert.match(await ftp.ask("SITE CPFR copied.bin"), /^350/);
    assert.match(await ftp.ask(`SITE CPTO ${to}`), answer);
  }
  await noPart("copy.bin");
  heard.memory.set = set;
  // That nothing is torn there any more goes with the next.
  assert.deepEqual(noted, [
    [first, { bytes: -1 }],
    [first, undefined],
    [second, { bytes: -1 }],
    [second, undefined],
  ]);
  for (const path of ["nothing.bin", "a-directory/to/x.bin", "a-directory"]) assert.equal(partOf(path), undefined, path);
  ftp.close();
});

test("an upload that ends before it has changed anything leaves what is there as whole, or as torn, as it was", async () => {
  const ftp = await login();
  const settled = async (name: string) => (await server.source.stat(`u/${name}`, calm()))?.settled;
  const torn = async (name: string) => {
    const data = await ftp.data();
    assert.match(await ftp.ask(`STOR ${name}`), /^150/);
    data.write(bytes(1000));
    await until("the bytes to be there", async () => (await fs.stat(real(name))).size === 1000);
    data.resetAndDestroy();
    assert.match(await ftp.answer(), /^426/);
  };
  await torn("spared-torn.bin");
  assert.match(await ftp.store("STOR spared-whole.bin", bytes(1000)), /^226/);
  for (const command of ["STOR", "APPE"])
    for (const [name, is] of [
      ["spared-torn.bin", false],
      ["spared-whole.bin", true],
    ] as const) {
      // No data connection is made.
      assert.match(await ftp.ask("EPSV"), /^229/);
      assert.match(await ftp.ask(`${command} ${name}`), /^150/);
      assert.match(await ftp.ask("ABOR"), /^426/);
      assert.match(await ftp.answer(), /^226/);
      assert.equal((await fs.stat(real(name))).size, 1000);
      assert.equal(await settled(name), is, `${command} ${name}`);
      if (is) await noPart(name);
      else assert.equal(partOf(name)?.bytes, 1000, `${command} ${name}`);
    }
  ftp.close();
});

test("REST to where there is nothing makes nothing: an empty file would be delivered, over what has arrived", async () => {
  const ftp = await login();
  for (const command of ["STOR", "APPE"]) {
    await ftp.ask("REST 1000");
    assert.match(await ftp.store(`${command} gone.bin`, bytes(10)), /^554 .*0 bytes/);
    assert.equal(existsSync(real("gone.bin")), false);
    assert.equal(partOf("gone.bin"), undefined);
  }
  ftp.close();
});

test("what is whole is not noted as torn under the new name of its directory, also where it is not noted yet that it arrived", async () => {
  const ftp = await login();
  await ftp.ask("MKD slow");
  const set = heard.memory.set.bind(heard.memory);
  const held: (() => void)[] = [];
  // As while the journal takes nothing: one after the other.
  heard.memory.set = (key, value) =>
    value === undefined || held.length > 0 ? new Promise<void>((resolve) => held.push(() => resolve(set(key, value)))) : set(key, value);
  assert.match(await ftp.store("STOR slow/whole.bin", bytes(10)), /^226/);
  assert.match(await ftp.ask("RNFR slow"), /^350/);
  ftp.send("RNTO slower\r\n");
  const timer = setInterval(() => held.shift()?.(), 20);
  assert.match(await ftp.answer(), /^250/);
  clearInterval(timer);
  heard.memory.set = set;
  for (const go of held) go();
  assert.equal((await server.source.stat("u/slower/whole.bin", calm()))?.settled, true);
  for (const dir of ["slow", "slower"]) await noPart(`${dir}/whole.bin`);
  ftp.close();
});

test("what is put behind a file that is whole may be a piece: it is not settled by its answer", async () => {
  const ftp = await login();
  const settled = async () => (await server.source.stat("u/pieces.log", calm()))?.settled;
  for (let n = 1; n < 4; n++) {
    assert.match(await ftp.store("APPE pieces.log", bytes(10)), /^226/);
    assert.equal(await settled(), undefined);
  }
  assert.match(await ftp.store("STOR pieces.log", bytes(10)), /^226/);
  assert.equal(await settled(), true);
  assert.match(await ftp.store("APPE pieces.log", bytes(10)), /^226/);
  assert.equal(await settled(), undefined);
  ftp.close();
});

test("a file that was being written when its directory was listed is not settled, also where its upload has ended by the time that it is told", async () => {
  const ftp = await login();
  await ftp.ask("MKD told");
  await fs.writeFile(real("told/foreign.bin"), "x");
  for (const how of ["whole", "torn"]) {
    const data = await ftp.data();
    assert.match(await ftp.ask("STOR told/late.bin"), /^150/);
    data.write(bytes(1000));
    await until("the bytes to be there", async () => (await fs.stat(real("told/late.bin"))).size === 1000);
    const told: FileEntry[] = [];
    for await (const entry of server.tree.list("u/told", calm())) {
      if (told.length === 0) {
        data.write(bytes(1000));
        await until("more to be there", async () => (await fs.stat(real("told/late.bin"))).size === 2000);
        if (how === "whole") data.end();
        else data.resetAndDestroy();
        assert.match(await ftp.answer(), how === "whole" ? /^226/ : /^426/);
      }
      told.push(entry);
    }
    const late = told.find(({ path }) => path === "u/told/late.bin");
    assert.deepEqual([late?.size, late?.settled], [1000, false], how);
    assert.match(await ftp.ask("DELE told/late.bin"), /^250/);
  }
  ftp.close();
});

test("a reset right behind the bytes is no end of an upload", async () => {
  const ftp = await login();
  for (const size of [500, 100_000]) {
    const data = await ftp.data();
    assert.match(await ftp.ask("STOR reset.bin"), /^150/);
    data.write(bytes(size));
    data.resetAndDestroy();
    assert.match(await ftp.answer(), /^426/);
    assert.equal((await server.source.stat("u/reset.bin", calm()))?.settled, false);
  }
  ftp.close();
});

test("an upload that the disk has no room for is told, is surely not settled, and goes on once there is room", async (t) => {
  const disk = join(base, "small");
  await fs.mkdir(disk);
  const trouble = mountSmall(join(base, "image"), disk, 1, ["true"], (_, dir) => ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir]);
  if (trouble !== undefined) {
    t.skip(trouble);
    return;
  }
  t.after(() => unmount(disk));
  // So that its end comes in the middle of what is written at once.
  await fs.writeFile(join(disk, "others"), bytes(300_000));
  const full = await startOwn({ root: disk, users: { u: { password: "p" } } });
  const ftp = await RawFtp.login(full.port ?? 0, "u", "p");
  const content = bytes(900_000);
  assert.match(await ftp.store("STOR big.bin", content), /^552/);
  const torn = await full.source.stat("u/big.bin", calm());
  assert.equal(torn?.settled, false);
  await fs.rm(join(disk, "others"));
  await ftp.ask(`REST ${torn?.size}`);
  assert.match(await ftp.store("STOR big.bin", content.subarray(torn?.size)), /^226/);
  assert.ok((await fs.readFile(join(disk, "u", "big.bin"))).equals(content));
  assert.equal((await full.source.stat("u/big.bin", calm()))?.settled, true);
  ftp.close();
  await full.close();
});

test("what an upload broke is not settled under another name of its directory, and no directory is renamed while something in it is written", async () => {
  const ftp = await login();
  const second = await login();
  await ftp.ask("MKD flight");
  await ftp.ask("MKD flight/day");
  assert.match(await ftp.store("STOR flight/day/whole.bin", bytes(10)), /^226/);
  const data = await ftp.data();
  assert.match(await ftp.ask("STOR flight/day/torn.bin"), /^150/);
  data.write(bytes(1000));
  await until("the bytes to be there", async () => (await fs.stat(real("flight/day/torn.bin"))).size === 1000);
  assert.match(await second.ask("RNFR flight"), /^450/);
  data.resetAndDestroy();
  assert.match(await ftp.answer(), /^426/);
  assert.match(await second.ask("RNFR flight"), /^350/);
  assert.match(await second.ask("RNTO flown"), /^250/);
  const settled = async (path: string) => (await server.source.stat(path, calm()))?.settled;
  assert.equal(await settled("u/flown/day/torn.bin"), false);
  assert.equal(await settled("u/flown/day/whole.bin"), true);
  await server.tree.move("u/flown", "u/gone", "directory", calm());
  assert.equal(await settled("u/gone/day/torn.bin"), false);
  assert.equal(await settled("u/gone/day/whole.bin"), true);
  // What was noted goes along.
  await noPart("flown/day/torn.bin");
  for (const each of [ftp, second]) each.close();
});

test("what an upload broke is noted under the new name of its directory before that has it, and not when it does not get it", async () => {
  const ftp = await login();
  await ftp.ask("MKD cut");
  await ftp.ask("MKD taken");
  const data = await ftp.data();
  assert.match(await ftp.ask("STOR cut/torn.bin"), /^150/);
  data.write(bytes(1000));
  await until("the bytes to be there", async () => (await fs.stat(real("cut/torn.bin"))).size === 1000);
  data.resetAndDestroy();
  assert.match(await ftp.answer(), /^426/);
  assert.match(await ftp.store("STOR cut/whole.bin", bytes(10)), /^226/);
  // As a rename leaves it that power cut off.
  await heard.memory.set("broken u/kept/whole.bin", 10);
  await ftp.ask("RNFR cut");
  assert.match(await ftp.ask("RNTO taken"), /^550/);
  await ftp.ask("RNFR cut");
  assert.match(await ftp.ask("RNTO nowhere/cut"), /^550/);
  await noPart("taken/torn.bin");
  await noPart("nowhere/cut/torn.bin");
  assert.equal(partOf("cut/torn.bin")?.bytes, 1000);
  const old: boolean[] = [];
  const set = heard.memory.set.bind(heard.memory);
  heard.memory.set = (key, value) => {
    if (key === "broken u/kept/torn.bin") old.push(existsSync(real("cut")));
    return set(key, value);
  };
  await ftp.ask("RNFR cut");
  assert.match(await ftp.ask("RNTO kept"), /^250/);
  heard.memory.set = set;
  assert.deepEqual(old, [true]);
  await noPart("cut/torn.bin");
  assert.equal((await server.source.stat("u/kept/torn.bin", calm()))?.settled, false);
  // It would count as torn after a restart.
  await noPart("kept/whole.bin");
  ftp.close();
});

test("SITE CPFR and CPTO copy a file to a new name, over nothing, and nothing that is being written", async () => {
  const ftp = await login();
  const second = await login();
  const content = bytes(3_000_000);
  assert.match(await ftp.store("STOR whole.bin", content), /^226/);
  assert.match(await ftp.ask("SITE CPTO copy.bin"), /^503/);
  assert.match(await ftp.ask("SITE CPFR none.bin"), /^550/);
  assert.match(await ftp.ask("SITE CPFR ../../etc/passwd"), /^550/);
  assert.match(await ftp.ask("SITE CHMOD 777 whole.bin"), /^504/);
  assert.match(await ftp.ask("SITE CPFR whole.bin"), /^350/);
  assert.match(await ftp.ask("SITE CPTO copy of it.bin"), /^250 3000000 /);
  assert.ok((await fs.readFile(real("copy of it.bin"))).equals(content));
  assert.ok((await fs.readFile(real("whole.bin"))).equals(content));
  assert.equal((await server.source.stat("u/copy of it.bin", calm()))?.settled, true);
  for (const to of ["copy of it.bin", "whole.bin", "no/such/dir.bin"]) {
    assert.match(await ftp.ask("SITE CPFR whole.bin"), /^350/);
    assert.match(await ftp.ask(`SITE CPTO ${to}`), /^55[03]/, to);
  }
  assert.match(await ftp.ask("SITE CPFR whole.bin"), /^350/);
  await ftp.ask("NOOP");
  assert.match(await ftp.ask("SITE CPTO later.bin"), /^503/, "something else was asked between");
  const data = await second.data();
  assert.match(await second.ask("STOR now.bin"), /^150/);
  data.write(bytes(1000));
  await until("the bytes to be there", async () => (await fs.stat(real("now.bin"))).size === 1000);
  assert.match(await ftp.ask("SITE CPFR now.bin"), /^350/);
  assert.match(await ftp.ask("SITE CPTO torn.bin"), /^450/);
  data.end();
  assert.match(await second.answer(), /^226/);
  const reader = await login("reader");
  assert.match(await reader.ask("SITE CPFR whole.bin"), /^350/);
  assert.match(await reader.ask("SITE CPTO mine.bin"), /^550/);
  const found = await fs.readdir(real("."));
  assert.deepEqual(
    found.filter((name) => ["later.bin", "torn.bin", "mine.bin", "no"].includes(name)),
    [],
  );
  for (const each of [ftp, second, reader]) each.close();
});

test("SITE CPTO makes no copy of what begins to be written meanwhile: torn, it would count as whole", async () => {
  const [ftp, second] = [await login(), await login()];
  assert.match(await ftp.store("STOR from.bin", bytes(5000)), /^226/);
  const data = await second.data();
  const set = heard.memory.set.bind(heard.memory);
  heard.memory.set = async (key, value) => {
    // What earlier tests left to clear is cleared at its own time.
    if (key !== "broken u/to.bin") return set(key, value);
    heard.memory.set = set;
    assert.match(await second.ask("STOR from.bin"), /^150/);
    data.write(bytes(1000));
    await until("the bytes to be there", async () => (await fs.stat(real("from.bin"))).size === 1000);
    return set(key, value);
  };
  assert.match(await ftp.ask("SITE CPFR from.bin"), /^350/);
  assert.match(await ftp.ask("SITE CPTO to.bin"), /^450/);
  assert.equal(existsSync(real("to.bin")), false);
  await noPart("to.bin");
  data.end(bytes(1000));
  assert.match(await second.answer(), /^226/);
  assert.match(await ftp.ask("SITE CPFR from.bin"), /^350/);
  assert.match(await ftp.ask("SITE CPTO to.bin"), /^250 2000 /);
  for (const each of [ftp, second]) each.close();
});

test("nothing can be written where something is being renamed", async () => {
  const writers = new Writers();
  const release = writers.hold("u/day", "u/night");
  for (const path of ["u/day", "u/day/a.bin", "u/night/deep/a.bin"])
    await assert.rejects(
      writers.claim(path, "u", () => undefined),
      { code: 450 },
    );
  assert.equal(writers.hold("u"), undefined);
  assert.equal(writers.hold("u/day/a.bin"), undefined);
  const other = await writers.claim("u/days/a.bin", "u", () => undefined);
  assert.equal(writers.hold("u/days"), undefined);
  other();
  release?.();
  (await writers.claim("u/day/a.bin", "u", () => undefined))();
});

test("a client that vanishes behind its last byte has finished nothing", async () => {
  const ftp = await login();
  const data = await ftp.data();
  assert.match(await ftp.ask("STOR vanished.bin"), /^150/);
  const broke = heard.heard(/upload of u broke: u\/vanished.bin has 50000 bytes/);
  data.write(bytes(50_000));
  await until("the bytes to be there", async () => (await fs.stat(real("vanished.bin"))).size === 50_000);
  ftp.close();
  data.destroy();
  await broke;
  assert.equal((await server.source.stat("u/vanished.bin", calm()))?.settled, false);
});

/** Without what goes as urgent data, which node can neither send nor take. */
const interrupts: readonly (readonly [who: string, sends: readonly string[]])[] = [
  ["in one line", ["\xff\xf4\xff\xf2ABOR\r\n"]],
  ["whose first byte was urgent (lftp)", ["\xf4\xff\xf2", "ABOR\r\n"]],
  ["whose third byte was urgent (BSD's ftp)", ["\xff\xf4\xf2ABOR\r\n"]],
  ["all of it urgent (Python's ftplib)", ["ABOR\r"]],
  ["in pieces", ["ABOR\r", "\n"]],
];
for (const [who, sends] of interrupts) {
  test(`ABOR ${who} ends a transfer, keeps what came, and the session goes on`, async () => {
    const ftp = await login();
    const data = await ftp.data();
    data.on("error", () => data.destroy());
    assert.match(await ftp.ask("STOR abor.bin"), /^150/);
    data.write(bytes(1000));
    await until("the bytes to be there", async () => (await fs.stat(real("abor.bin"))).size === 1000);
    for (const send of sends) {
      ftp.send(Buffer.from(send, "latin1"));
      await setImmediate();
    }
    assert.match(await ftp.answer(), /^426/);
    assert.match(await ftp.answer(), /^226/);
    assert.equal(await ftp.ask("SIZE abor.bin"), "213 1000");
    assert.match(await ftp.ask("DELE abor.bin"), /^250/);
    ftp.close();
  });
}

test("a client that comes back ends its own old transfer, and asks the size again", async () => {
  const [old, now, other] = [await login(), await login(), await login("other")];
  const data = await old.data();
  assert.match(await old.ask("STOR busy.bin"), /^150/);
  data.write(bytes(3000));
  await until("the bytes to be there", async () => (await fs.stat(real("busy.bin"))).size === 3000);
  assert.match(await other.store("APPE busy.bin", bytes(1)), /^450 .*another user/);
  assert.match(await other.ask("DELE busy.bin"), /^450/);
  assert.match(await other.ask("RNFR busy.bin"), /^450/);
  assert.match(await now.store("APPE busy.bin", bytes(1)), /^450 .*size again/);
  assert.match(await old.answer(), /^426/);
  assert.equal(await now.ask("SIZE busy.bin"), "213 3000");
  assert.match(await now.store("APPE busy.bin", bytes(10)), /^226/);
  for (const it of [old, now, other]) it.close();
});

test("arrivals are told, hidden partials are not listed, a rename is an arrival", async () => {
  const ftp = await login();
  let hints = 0;
  const hint = server.source.changes$.subscribe(() => (hints += 1));
  assert.match(await ftp.store("STOR .log.bin.0a1b2c3d-00.part", bytes(100)), /^226/);
  assert.equal(hints, 0);
  assert.equal(
    (await listed()).some((it) => it.path.includes(".part")),
    false,
  );
  await ftp.ask("MFMT 20210517030405 .log.bin.0a1b2c3d-00.part");
  await ftp.ask("RNFR .log.bin.0a1b2c3d-00.part");
  assert.match(await ftp.ask("RNTO log.bin"), /^250/);
  assert.equal(hints, 1);
  const entry = (await listed()).find((it) => it.path === "u/log.bin");
  assert.deepEqual([entry?.settled, entry?.size, entry?.modifiedMs], [true, 100, Date.UTC(2021, 4, 17, 3, 4, 5)]);
  for (const time of ["19690720201740", "20220101000000"])
    assert.equal(await ftp.ask(`MFMT ${time} log.bin`), `213 Modify=${time}; /log.bin`);
  assert.equal((await server.source.stat("u/log.bin", calm()))?.settled, true, "a new time changes nothing");
  await fs.writeFile(real("foreign.bin"), "put there by another program");
  assert.equal((await server.source.stat("u/foreign.bin", calm()))?.settled, undefined);
  hint.unsubscribe();
  ftp.close();
});

test("HASH, MDTM, MLST, MLSD, LIST and NLST tell what is there", async () => {
  const ftp = await login();
  await ftp.ask("MKD facts");
  assert.match(await ftp.ask("CWD facts"), /^250/);
  const content = bytes(70_000, 9);
  assert.match(await ftp.store("STOR a b.bin", content), /^226/);
  await ftp.ask("MFMT 20200229235959.250 a b.bin");
  assert.match(await ftp.ask("FEAT"), /HASH SHA-256\*[\s\S]*MLST type\*;size\*;modify\*;unique\*;perm\*;/);
  assert.match(await ftp.ask("OPTS HASH SHA-256"), /^200/);
  assert.match(await ftp.ask("OPTS HASH MD5"), /^504/);
  const digest = createHash("sha256").update(content).digest("hex");
  assert.equal(await ftp.ask("HASH a b.bin"), `213 SHA-256 0-70000 ${digest} a b.bin`);
  assert.equal(await ftp.ask("MDTM a b.bin"), "213 20200229235959.250");
  assert.match(
    await ftp.ask("MLST a b.bin"),
    /^250-[^\n]*\n type=file;size=70000;modify=20200229235959.250;unique=\w+;perm=rawfd; \/facts\/a b.bin\r?\n250 End$/,
  );
  await ftp.ask("OPTS MLST type;size;");
  assert.equal((await ftp.receive("MLSD")).toString(), "type=file;size=70000; a b.bin\r\n");
  assert.match((await ftp.receive("LIST -la")).toString(), /^-rw-[-r]{6}\s+1 ftp\s+ftp\s+70000 Feb 29 {2}2020 a b.bin\r\n$/);
  assert.equal((await ftp.receive("NLST /facts")).toString(), "a b.bin\r\n");
  ftp.close();
});

test("names with quotes, newlines, 255 bytes and other bytes", async () => {
  const ftp = await login();
  assert.equal((await ftp.ask('MKD he said "so"')).trim(), '257 "/he said ""so""" was made.');
  await ftp.ask('CWD he said "so"');
  assert.match(await ftp.ask("PWD"), /^257 "\/he said ""so""" /);
  await ftp.ask("CDUP");
  assert.match(await ftp.ask(`MKD ${"x".repeat(256)}`), /^553/);
  assert.match(await ftp.ask(`MKD ${"x".repeat(255)}`), /^257/);
  assert.match(await ftp.store("STOR line\u201b0Abreak", bytes(1)), /^226/);
  await fs.access(real("line\nbreak"));
  const data = await ftp.data();
  assert.match(await ftp.ask(Buffer.from([...Buffer.from("STOR caf"), 0xe9])), /^150/);
  data.end("x");
  assert.match(await ftp.answer(), /^226/);
  await fs.access(Buffer.concat([Buffer.from(`${base}/u/caf`), Buffer.from([0xe9])]));
  assert.match((await ftp.receive("NLST")).toString(), /caf\u201bE9\r\n[\s\S]*line\u201b0Abreak\r\n/);
  assert.equal(await ftp.ask("SIZE caf\u201bE9"), "213 1");
  ftp.close();
});

test("rights: who may only read, who may neither delete nor rename", async () => {
  const [reader, careful] = [await login("reader"), await login("careful")];
  await fs.writeFile(real("kept.bin"), "kept");
  assert.equal((await reader.receive("RETR kept.bin")).toString(), "kept");
  for (const line of ["STOR x", "APPE kept.bin", "DELE kept.bin", "MKD d", "RNFR kept.bin", "MFMT 20200101000000 kept.bin"])
    assert.match(await reader.ask(line), /^550 No right/, line);
  assert.match(await careful.ask("DELE kept.bin"), /^550 No right/);
  assert.match(await careful.ask("RNFR kept.bin"), /^550 No right/);
  assert.match(await careful.store("STOR .p.part", bytes(5)), /^226/);
  assert.match(await careful.ask("RNFR .p.part"), /^350/);
  assert.match(await careful.ask("RNTO p.bin"), /^250/);
  assert.match(await careful.store("STOR .q.part", bytes(5)), /^226/);
  assert.match(await careful.ask("DELE .q.part"), /^250/);
  reader.close();
  careful.close();
});

test("ten thousand files are listed", async () => {
  await fs.mkdir(real("many"));
  for (let i = 0; i < 10_000; i += 500) await Promise.all(Array.from({ length: 500 }, (_, k) => fs.writeFile(real(`many/f${i + k}`), "")));
  const ftp = await login();
  assert.equal((await ftp.receive("MLSD many")).toString().split("\r\n").length, 10_001);
  assert.equal((await ftp.receive("LIST many")).toString().split("\r\n").length, 10_001);
  ftp.close();
});

test("with overwrite off nothing is replaced, and a resume goes on", async () => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-keep-"));
  const keeping = await startOwn({ root: dir, overwrite: false, users: { u: { password: "p" } } });
  const ftp = await RawFtp.login(keeping.port ?? 0, "u", "p");
  assert.match(await ftp.store("STOR a", bytes(10)), /^226/);
  assert.match(await ftp.store("STOR a", bytes(5)), /^553/);
  assert.match(await ftp.store("APPE a", bytes(5)), /^226/);
  assert.match(await ftp.store("STOR b", bytes(5)), /^226/);
  await ftp.ask("RNFR b");
  assert.match(await ftp.ask("RNTO a"), /^550 File exists/);
  assert.equal(await ftp.ask("SIZE a"), "213 15");
  ftp.close();
  await keeping.close();
  await fs.rm(dir, { recursive: true });
});

test("ports for data come from the range, and go back to it; ALLO and AVBL tell of the space", async () => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-ports-"));
  const only = await freePort();
  const narrow = await startOwn({ root: dir, passivePorts: `${only}-${only}`, users: { u: { password: "p" } } });
  const clients = await Promise.all([1, 2].map(() => RawFtp.login(narrow.port ?? 0, "u", "p")));
  assert.match(await clients[0]!.ask("EPSV"), new RegExp(`^229 .*\\|${only}\\|`));
  assert.match(await clients[1]!.ask("EPSV"), /^425/);
  clients[0]!.close();
  await until("the port to be free", async () => (await clients[1]!.ask("PASV")).startsWith("227"));
  assert.match(await clients[1]!.ask("ALLO 1000"), /^200/);
  assert.match(await clients[1]!.ask("ALLO 9000000000000000"), /^552/);
  assert.match(await clients[1]!.ask("FEAT"), /^ AVBL\r?$/m);
  await fs.mkdir(join(dir, "u", "below"), { recursive: true });
  await fs.writeFile(join(dir, "u", "file"), "");
  await fs.symlink("/", join(dir, "u", "link"));
  const { blocks, bsize } = await fs.statfs(dir);
  for (const command of ["AVBL", "AVBL /", "AVBL below", "AVBL /../.."]) {
    const free = Number(/^213 (\d+)$/.exec(await clients[1]!.ask(command))?.[1] ?? NaN);
    assert.ok(free > 0 && free <= blocks * bsize, `${command}: ${free}`);
  }
  for (const command of ["AVBL nothing", "AVBL file", "AVBL link"]) assert.match(await clients[1]!.ask(command), /^550/, command);
  for (const it of clients) it.close();
  await narrow.close();
  await fs.rm(dir, { recursive: true });
});

test("what its clients left can be moved and removed there, and what is being written cannot", async () => {
  const ftp = await login();
  assert.match(await ftp.store("STOR tree.bin", bytes(100)), /^226/);
  const entry = (await listed()).find((it) => it.path === "u/tree.bin")!;
  const data = await ftp.data();
  assert.match(await ftp.ask("APPE tree.bin"), /^150/);
  assert.equal((await server.source.stat("u/tree.bin", calm()))?.settled, false);
  await assert.rejects(server.tree.remove("u/tree.bin", entry, calm()), /being written/);
  await assert.rejects(server.tree.move("u/tree.bin", "archive/tree.bin", entry, calm()), /being written/);
  await assert.rejects(server.tree.move("u", "archive", "directory", calm()), /being written/);
  data.end("");
  assert.match(await ftp.answer(), /^226/);
  const now = (await listed()).find((it) => it.path === "u/tree.bin")!;
  await server.tree.move("u/tree.bin", "archive/2024/tree.bin", now, calm());
  assert.equal((await fs.stat(join(base, "archive/2024/tree.bin"))).size, 100);
  assert.match(await ftp.ask("SIZE tree.bin"), /^550/);
  ftp.close();
});

test("a user's directory that is removed is made anew, and said; an upload that was under way has not arrived", async (t) => {
  const said = context();
  const own = await startOwn({ root: join(base, "removed"), users: { u: { password: "p" } } }, said);
  t.after(() => own.close());
  const ftp = await RawFtp.login(own.port ?? 0, "u", "p");
  const dir = join(base, "removed", "u");
  const data = await ftp.data();
  assert.match(await ftp.ask("STOR lost.bin"), /^150/);
  data.write(bytes(1000));
  await until("the bytes to be there", async () => (await fs.stat(join(dir, "lost.bin"))).size === 1000);
  await fs.rm(dir, { recursive: true });
  data.end(bytes(10));
  assert.match(await ftp.answer(), /^550/);
  assert.match(await ftp.store("STOR next.bin", bytes(10)), /^226/);
  assert.deepEqual(await fs.readdir(dir), ["next.bin"]);
  await fs.rm(join(base, "removed"), { recursive: true });
  const again = await RawFtp.login(own.port ?? 0, "u", "p");
  assert.match(await again.ask("CWD /"), /^250/);
  assert.match(await again.store("STOR next.bin", bytes(10)), /^226/);
  assert.deepEqual(
    said.said.flatMap(({ message }) => (message.includes("anew") ? [message] : [])),
    [1, 2].map(() => `${dir} was removed, and is made anew`),
  );
  for (const it of [ftp, again]) it.close();
});

test("a user's directory whose file system is not mounted any more is not made on the one below it", async (t) => {
  const disk = join(base, "disk");
  await fs.mkdir(disk);
  const trouble = mountSmall(join(base, "disk-image"), disk, 1, ["true"], (_, dir) => [
    "mount",
    "-t",
    "tmpfs",
    "-o",
    "size=1m",
    "tmpfs",
    dir,
  ]);
  if (trouble !== undefined) {
    t.skip(trouble);
    return;
  }
  t.after(() => unmount(disk));
  const own = await startOwn({ root: disk, users: { u: { password: "p" } } });
  t.after(() => own.close());
  const ftp = await RawFtp.login(own.port ?? 0, "u", "p");
  unmount(disk);
  assert.match(await ftp.store("STOR a.bin", bytes(10)), /^451/);
  assert.deepEqual(await fs.readdir(disk), []);
  ftp.close();
});

test("that an upload broke is known after a restart", async () => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-again-"));
  const ctx = context();
  const given = { root: dir, users: { u: { password: "p" } } };
  const first = await startOwn(given, ctx);
  const ftp = await RawFtp.login(first.port ?? 0, "u", "p");
  const data = await ftp.data();
  data.on("error", () => data.destroy());
  assert.match(await ftp.ask("STOR half.bin"), /^150/);
  data.write(bytes(1000));
  await until("the bytes to be there", async () => (await fs.stat(join(dir, "u/half.bin"))).size === 1000);
  await first.close();
  const second = await startOwn(given, ctx);
  assert.equal((await second.source.stat("u/half.bin", calm()))?.settled, false);
  await second.close();
  await fs.rm(dir, { recursive: true });
});

test("what a kill leaves of an upload waits for its client after the restart, whatever its size, and not for ever", async () => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-killed-"));
  const given = { root: dir, users: { u: { password: "p" } } };
  const killed = context();
  const first = await startOwn(given, killed);
  const ftp = await RawFtp.login(first.port ?? 0, "u", "p");
  assert.match(await ftp.store("STOR whole.bin", bytes(10)), /^226/);
  assert.match(await ftp.store("STOR half.bin", bytes(1000)), /^226/);
  const data = await ftp.data();
  data.on("error", () => data.destroy());
  assert.match(await ftp.ask("APPE half.bin"), /^150/);
  data.write(bytes(1000));
  await until("the bytes to be there", async () => (await fs.stat(join(dir, "u/half.bin"))).size === 2000);
  await noPart("whole.bin", killed);
  let aheadMs = 0;
  const ctx = context({ clock: { ...killed.clock, monotonicMs: () => performance.now() + aheadMs } });
  for (const name of ["half.bin", "whole.bin"]) await ctx.memory.set(`broken u/${name}`, killed.memory.get(`broken u/${name}`));
  const second = await startOwn(given, ctx);
  const settled = async (name: string) => (await second.source.stat(`u/${name}`, calm()))?.settled;
  assert.deepEqual([await settled("half.bin"), await settled("whole.bin")], [false, undefined]);
  const back = await RawFtp.login(second.port ?? 0, "u", "p");
  assert.match(await back.store("APPE half.bin", bytes(10)), /^226/);
  assert.equal(await settled("half.bin"), true);
  await second.close();
  await ctx.memory.set("broken u/half.bin", killed.memory.get("broken u/half.bin"));
  const third = await startOwn(given, ctx);
  const again = async () => (await third.source.stat("u/half.bin", calm()))?.settled;
  assert.equal(await again(), false);
  aheadMs = 60 * 60_000 + 1;
  assert.equal(await again(), undefined);
  assert.match(ctx.said.at(-1)?.message ?? "", /half.bin did not go on for an hour: its 2010 bytes/);
  const { length } = ctx.said;
  assert.deepEqual([await again(), ctx.said.length], [undefined, length]);
  ftp.socket.destroy();
  back.socket.destroy();
  await Promise.all([first.close(), third.close()]);
  await fs.rm(dir, { recursive: true });
});

test("a part waits for an hour in which the server runs, over all its starts: one that is on for twenty minutes a day lets it go, too", async () => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-killed-"));
  let nowMs = 0;
  const ctx = context({ clock: { ...heard.clock, monotonicMs: () => nowMs } });
  const given = { root: dir, users: { u: { password: "p" } } };
  const killed = await startOwn(given, ctx);
  const ftp = await RawFtp.login(killed.port ?? 0, "u", "p");
  const data = await ftp.data();
  assert.match(await ftp.ask("STOR half.bin"), /^150/);
  data.write(bytes(1000));
  await until("the bytes to be there", async () => (await fs.stat(join(dir, "u/half.bin"))).size === 1000);
  nowMs = 100 * 60 * 60_000;
  data.resetAndDestroy();
  assert.match(await ftp.answer(), /^426/);
  // As the version before noted one.
  await fs.copyFile(join(dir, "u/half.bin"), join(dir, "u/old.bin"));
  await ctx.memory.set("broken u/old.bin", 1000);
  ftp.close();
  const settled: unknown[] = [];
  for (let day = 1; day <= 5; day++) {
    nowMs = day * 1000;
    const started = await startOwn(given, ctx);
    for (let minute = 0; minute <= 20; minute += 4) {
      const [half, old] = await Promise.all(["half", "old"].map((name) => started.source.stat(`u/${name}.bin`, calm())));
      assert.equal(half?.settled, old?.settled);
      settled.push(half?.settled);
      nowMs += 4 * 60_000;
    }
    await started.close();
  }
  // Of each day what came behind the last note is not counted: less than a minute, and here less than four.
  const at = settled.indexOf(undefined);
  assert.ok(at >= 15 && at <= 24, settled.join());
  assert.ok(settled.slice(at).every((each) => each === undefined));
  assert.equal(ctx.said.filter(({ message }) => /half.bin did not go on for an hour/.test(message)).length, 1);
  assert.equal(partOf("half.bin", ctx), undefined);
  await killed.close();
  await fs.rm(dir, { recursive: true });
});

test("a server that is on for four minutes at a time lets a part go, too", async () => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-short-"));
  let nowMs = 0;
  const ctx = context({ clock: { ...heard.clock, monotonicMs: () => nowMs } });
  await fs.mkdir(join(dir, "u"));
  await fs.writeFile(join(dir, "u/half.bin"), bytes(1000));
  await ctx.memory.set("broken u/half.bin", { bytes: -1 });
  let starts = 0;
  for (let settled: unknown = false; settled === false && starts < 40; starts++) {
    nowMs = starts;
    const started = await startOwn({ root: dir, users: { u: { password: "p" } } }, ctx);
    for (let half = 0; half < 8; half++) {
      ({ settled } = (await started.source.stat("u/half.bin", calm())) ?? {});
      nowMs += 30_000;
    }
    await started.close();
  }
  assert.ok(starts >= 15 && starts <= 25, String(starts));
  await fs.rm(dir, { recursive: true });
});

test("on a FAT, which tells times by two seconds, nothing has the time of one of the eight before it of its name and size", async (t) => {
  const disk = await fs.mkdtemp(join(tmpdir(), "filesync-fat-"));
  const fat = await startOwn({ root: disk, users: { u: { password: "p" } } });
  const ftp = await RawFtp.login(fat.port ?? 0, "u", "p");
  t.after(async () => {
    ftp.close();
    await fat.close();
    await fs.rm(disk, { recursive: true });
  });
  const setTime = Reflect.get(Root.prototype, "setTime");
  t.mock.method(Root.prototype, "setTime", function (this: Root, place: Place, ms: number) {
    return setTime.call(this, place, Math.floor(ms / 2000) * 2000);
  });
  const times: (number | undefined)[] = [];
  for (let n = 0; n < 10; n++) {
    const name = n < 5 ? "a.raw" : ".a.part";
    assert.match(await ftp.store(`STOR ${name}`, bytes(10, n)), /^226/);
    assert.match(await ftp.ask(`MFMT 20200101000000 ${name}`), /^213/);
    if (name !== "a.raw") {
      assert.match(await ftp.ask(`RNFR ${name}`), /^350/);
      assert.match(await ftp.ask("RNTO a.raw"), /^250/);
    }
    const found = await fat.source.stat("u/a.raw", calm());
    assert.equal(found?.settled, true);
    assert.equal(times.slice(-8).includes(found?.modifiedMs), false, `${n}: ${times.join()} ${found?.modifiedMs}`);
    times.push(found?.modifiedMs);
  }
  // What APPE makes, too, though it is not settled by its answer.
  assert.match(await ftp.ask("DELE a.raw"), /^250/);
  assert.match(await ftp.store("APPE a.raw", bytes(10, 99)), /^226/);
  assert.match(await ftp.ask("MFMT 20200101000000 a.raw"), /^213/);
  const made = (await fat.source.stat("u/a.raw", calm()))?.modifiedMs;
  assert.equal(times.slice(-8).includes(made), false, `${times.join()} ${made}`);
});

test("that an upload ended is kept of the newest ten thousand: a station that runs for a year grows no further by each", async () => {
  const stats = await fs.stat(base);
  const file = Object.assign(Object.create(Object.getPrototypeOf(stats) as object) as typeof stats, stats, {
    isDirectory: () => false,
    isFile: () => true,
  });
  const inbox = new Inbox(context(), new Writers());
  inbox.begin({ lstat: () => Promise.resolve(file) } as unknown as Root);
  const [first, second] = [[Buffer.from("0")], [Buffer.from("1")]];
  for (let n = 0; n < 10_000; n++) await inbox.arrived([Buffer.from(String(n))], "u", 1);
  // Sent once more, it is among the newest.
  await inbox.arrived(first, "u", 1);
  await inbox.arrived([Buffer.from("one more")], "u", 1);
  const settled = (place: Buffer[]) => inbox.entryOf(corePathOf(place), file).settled;
  assert.deepEqual([settled(first), settled(second), settled([Buffer.from("one more")])], [true, undefined, true]);
});
