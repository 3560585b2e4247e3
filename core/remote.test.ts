/** Directories that are read together give what one after another give, each after the one above it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as breath } from "node:timers/promises";
import { Fault, orAborted } from "./errors.js";
import { parentOf } from "./paths.js";
import type { FileEntry } from "./plugin.js";
import { KnownDirs, listBelow } from "./remote.js";

const dirs = ["", "a", "a/b", "a/b/c", "d", "d/e", "d/f", "d/g", "d/shut"];

async function listed(atOnce: number, broken?: Fault) {
  let [under, most] = [0, 0];
  const readDir = async (dir: string): Promise<FileEntry[]> => {
    most = Math.max(most, (under += 1));
    for (let n = 0; n < dir.length % 3; n++) await breath();
    under -= 1;
    if (dir === "d/g" && broken !== undefined) throw broken;
    if (dir === "d/shut") throw new Fault("denied", "it is shut");
    const below = dirs.filter((it) => it !== "" && parentOf(it) === dir).map((path) => ({ path, kind: "directory" as const, size: 0 }));
    return [...below, { path: dir === "" ? "x" : `${dir}/x`, kind: "file", size: 1 }];
  };
  const found: string[] = [];
  for await (const { path, kind } of listBelow(readDir, new AbortController().signal, { directories: true }, atOnce)) {
    assert.ok(parentOf(path) === "" || found.includes(`directory ${parentOf(path)}`), path);
    found.push(`${kind} ${path}`);
  }
  return { found: found.sort(), most };
}

test("what is listed together is what is listed one after another", async () => {
  const one = await listed(1);
  assert.equal(one.most, 1);
  assert.equal(one.found.length, dirs.length - 2 + dirs.length - 1 + 1);
  assert.ok(one.found.includes("unreadable d/shut"));
  const three = await listed(3);
  assert.ok(three.most > 1 && three.most <= 3, String(three.most));
  assert.deepEqual(three.found, one.found);
});

test("what is read together waits for a signal each, which ends with the one that was given", async () => {
  const stop = new AbortController();
  const waiting = new Set<AbortSignal>();
  const readDir = async (dir: string, signal: AbortSignal): Promise<FileEntry[]> => {
    if (dir === "") return Array.from({ length: 20 }, (_, n) => ({ path: `d${n}`, kind: "directory" as const, size: 0 }));
    assert.ok(!waiting.has(signal));
    waiting.add(signal);
    if (waiting.size === 16) stop.abort();
    return orAborted(new Promise<never>(() => undefined), signal);
  };
  const all = listBelow(readDir, stop.signal, {}, 16);
  await assert.rejects(all.next(), { kind: "aborted" });
  assert.equal(waiting.size, 16);
});

const dirOf = (path: string): FileEntry => ({ path, kind: "directory", size: 0 });

async function below(readDir: (dir: string) => FileEntry[]): Promise<FileEntry[]> {
  let asked = 0;
  const reading = (dir: string): Promise<FileEntry[]> => {
    if ((asked += 1) > 10_000) throw new Error("there is no end");
    return Promise.resolve(readDir(dir));
  };
  const found: FileEntry[] = [];
  for await (const entry of listBelow(reading, new AbortController().signal)) found.push(entry);
  return found;
}

test("directories that a server shows in themselves end, and what is beside them is listed", async () => {
  const at = (dir: string, name: string) => (dir === "" ? name : `${dir}/${name}`);
  for (const [loops, files, most] of [
    [["one"], ["x"], 3],
    [["one", "two", "three"], ["x", "y"], 2 * (1 + 3 + 9)],
    [["one", "two"], [], 0],
  ] as const) {
    const found = await below((dir) => [
      ...loops.map((name) => dirOf(at(dir, name))),
      ...files.map((name) => ({ path: at(dir, name), kind: "file" as const, size: 1, modifiedMs: 1000 })),
    ]);
    assert.equal(found.filter(({ kind }) => kind === "file").length, most, loops.join());
    for (const { reason } of found.filter(({ kind }) => kind === "unreadable")) assert.match(reason ?? "", /shows one of those in itself/);
  }
  // One that leads two up.
  const found = await below((dir) =>
    dir.split("/").length % 2 === 1 && dir !== ""
      ? [dirOf(`${dir}/up`)]
      : [dirOf(at(dir, "down")), { path: at(dir, "x"), kind: "file", size: 1 }],
  );
  assert.equal(found.filter(({ kind }) => kind === "file").length, 3);
});

test("a deep tree is listed, also where names are the same all the way down", async () => {
  const deep = (depth: number, file: boolean) =>
    below((dir) => {
      const now = dir === "" ? 0 : dir.split("/").length;
      const path = dir === "" ? "a" : `${dir}/a`;
      const own: FileEntry[] = file ? [{ path: `${path}.bin`, kind: "file", size: now }] : [];
      return now < depth ? [dirOf(path), ...own] : [{ path: `${path}.end`, kind: "file", size: 1 }];
    });
  assert.equal((await deep(8, false)).filter(({ kind }) => kind === "file").length, 1);
  assert.equal((await deep(99, true)).filter(({ kind }) => kind === "file").length, 100);
  const over = await deep(200, true);
  assert.equal(over.find(({ kind }) => kind === "unreadable")?.reason, "it is more than 100 directories deep");
});

test("a connection that breaks ends it", async () => {
  for (const atOnce of [1, 4])
    await assert.rejects(listed(atOnce, new Fault("transient", "the link is gone")), { kind: "transient", message: "the link is gone" });
});

test("of the directories that are there no more are kept than a thousand, among them the one that was used last", () => {
  const known = new KnownDirs();
  for (let n = 0; n < 2500; n++) {
    known.add(`trash/${n}`);
    known.add(`trash/${n}`);
    assert.ok(known.has(`trash/${n}`) && known.size <= 1000);
  }
});
