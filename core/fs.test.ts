/** What renames without replacing promise, when others want the same name in the same moment; how files are read. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { bufferFor, makeDirs, piecesOf, renameByLink, renameDirNew, renameNew, syncDir } from "./fs.js";

function scratch(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "filesync-fs-"));
  t.after(() => fs.rm(dir, { recursive: true }));
  return dir;
}

async function filled(dir: string): Promise<string> {
  await fs.mkdir(dir);
  await fs.writeFile(join(dir, "own"), dir);
  return dir;
}

test("a directory is made with its parents, also by several at once; the topmost that is new is told; over a file or a dead link none", async (t) => {
  const at = scratch(t);
  for (let round = 0; round < 50; round++) {
    const dir = join(at, `a${round}/b/c`);
    const firsts = await Promise.all(Array.from({ length: 8 }, () => makeDirs(dir)));
    assert.ok((await fs.stat(dir)).isDirectory());
    assert.ok(firsts.includes(join(at, `a${round}`)), String(firsts));
    assert.equal(await makeDirs(dir), undefined);
  }
  assert.equal(await makeDirs(join(at, "a0/d/e")), join(at, "a0/d"));
  await fs.writeFile(join(at, "file"), "");
  await fs.symlink("nowhere", join(at, "dead"));
  await assert.rejects(makeDirs(join(at, "file")), { code: "EEXIST" });
  await assert.rejects(makeDirs(join(at, "file/below")), { code: "ENOTDIR" });
  await assert.rejects(makeDirs(join(at, "dead")), { code: "EEXIST" });
  await assert.rejects(makeDirs(join(at, "dead/below")), { code: "EEXIST" });
});

test("a directory is renamed over nothing: no file, no full directory, no empty one, no link", async (t) => {
  const at = scratch(t);
  const from = await filled(join(at, "from"));
  await fs.writeFile(join(at, "file"), "");
  await filled(join(at, "full"));
  await fs.mkdir(join(at, "empty"));
  await fs.symlink("nowhere", join(at, "link"));
  for (const name of ["file", "full", "empty", "link"]) await assert.rejects(renameDirNew(from, join(at, name)), { code: "EEXIST" });
  assert.deepEqual((await fs.readdir(at)).sort(), ["empty", "file", "from", "full", "link"]);
  await renameDirNew(from, join(at, "new"));
  assert.deepEqual(await fs.readdir(join(at, "new")), ["own"]);
  assert.ok(!existsSync(from));
});

test("a directory that cannot be renamed leaves nothing under the new name", async (t) => {
  const at = scratch(t);
  await assert.rejects(renameDirNew(join(at, "none"), join(at, "new")), { code: "ENOENT" });
  await fs.writeFile(join(at, "file"), "x");
  await assert.rejects(renameDirNew(join(at, "file"), join(at, "new")), { code: /EISDIR|EEXIST/ });
  const own = await filled(join(at, "own"));
  await assert.rejects(renameDirNew(own, join(own, "inside")), { code: "EINVAL" });
  assert.deepEqual((await fs.readdir(at)).sort(), ["file", "own"]);
  assert.deepEqual(await fs.readdir(own), ["own"]);
});

test("of several directories, also empty ones, one gets a name", async (t) => {
  const at = scratch(t);
  for (let round = 0; round < 20; round++) {
    const from = Array.from({ length: 8 }, (_, n) => join(at, `${round}-${n}`));
    for (const dir of from) await (round % 2 === 0 ? fs.mkdir(dir) : filled(dir));
    const ends = await Promise.allSettled(from.map((dir) => renameDirNew(dir, join(at, `to-${round}`))));
    assert.equal(ends.filter(({ status }) => status === "fulfilled").length, 1);
    assert.equal(from.filter((dir) => existsSync(dir)).length, 7);
  }
});

test("what somebody puts into the new name in that moment is not lost, and neither is the directory", async (t) => {
  const at = scratch(t);
  for (let round = 0; round < 100; round++) {
    const [from, to] = [await filled(join(at, `from-${round}`)), join(at, `to-${round}`)];
    let over = false;
    const intrude = async (): Promise<void> => {
      for (;;)
        try {
          await fs.writeFile(join(to, "theirs"), "x", { flag: "wx" });
          return;
        } catch {
          // Not there yet, or not any more.
          if (over && !existsSync(to)) return;
        }
    };
    const intruder = intrude();
    const moved = await renameDirNew(from, to).then(
      () => true,
      (error: unknown) => {
        assert.equal((error as { code?: unknown }).code, "EEXIST");
        return false;
      },
    );
    over = true;
    await intruder;
    assert.deepEqual(await fs.readdir(moved ? to : from), moved ? ["own", "theirs"] : ["own"]);
    if (!moved) assert.deepEqual(await fs.readdir(to), ["theirs"]);
  }
});

test("a file is renamed by a link over nothing", async (t) => {
  const at = scratch(t);
  for (const name of ["a", "b"]) await fs.writeFile(join(at, name), name);
  await assert.rejects(renameByLink(join(at, "a"), join(at, "b")), { code: "EEXIST" });
  assert.equal(await renameByLink(join(at, "a"), join(at, "c")), true);
  assert.deepEqual((await fs.readdir(at)).sort(), ["b", "c"]);
});

test("a rename that was killed between its two steps is ended; what has the name otherwise is never replaced", async (t) => {
  const at = scratch(t);
  const [from, to] = [join(at, "from"), join(at, "to")];
  await fs.writeFile(from, "content");
  await fs.link(from, to);
  await renameNew(Buffer.from(from), to);
  assert.deepEqual(await fs.readdir(at), ["to"]);
  await assert.rejects(renameNew(to, to), { code: "EEXIST" });
  await fs.writeFile(from, "content");
  await assert.rejects(renameNew(from, to), { code: "EEXIST" });
  assert.deepEqual((await fs.readdir(at)).sort(), ["from", "to"]);
});

test("a file is read in pieces from its start to its end, also where it grows meanwhile, with no more memory than it has bytes", async (t) => {
  assert.deepEqual(
    [0, 1, 200, 2 ** 20, 2 ** 32].map((bytes) => bufferFor(bytes).length),
    [1, 1, 200, 2 ** 20, 2 ** 20],
  );
  const path = join(scratch(t), "file");
  for (const [size, grows] of [
    [0, 0],
    [200, 0],
    [2 ** 20, 0],
    [3_000_001, 0],
    [200, 777],
  ] as const) {
    const bytes = randomBytes(size + grows);
    await fs.writeFile(path, bytes.subarray(0, size));
    const handle = await fs.open(path);
    const read: Buffer[] = [];
    for await (const piece of piecesOf(handle, size)) {
      if (read.length === 0) await fs.appendFile(path, bytes.subarray(size));
      read.push(Buffer.from(piece));
    }
    await handle.close();
    assert.ok(Buffer.concat(read).equals(bytes), `${size} bytes, ${grows} more`);
  }
});

test("who comes while a directory is synced waits for another sync, together with the others; its fault reaches them all", async (t) => {
  const at = scratch(t);
  const [first, second, third] = [syncDir(at), syncDir(at), syncDir(Buffer.from(at))];
  assert.notEqual(second, first);
  assert.equal(third, second);
  let ended = false;
  void first.then(() => (ended = true));
  await second;
  assert.ok(ended);
  await Promise.all([syncDir(at), first]);
  const gone = join(at, "gone");
  const faults = await Promise.allSettled([syncDir(gone), syncDir(gone), syncDir(gone)]);
  assert.deepEqual(
    faults.map((fault) => fault.status === "rejected" && (fault.reason as NodeJS.ErrnoException).code),
    ["ENOENT", "ENOENT", "ENOENT"],
  );
  await fs.mkdir(gone);
  await syncDir(gone);
});
