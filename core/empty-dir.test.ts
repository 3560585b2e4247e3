/** A tree in memory whose answers wait, so that it is seen what is asked beside what. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { emptyDir } from "./empty-dir.js";
import { Fault, isFault } from "./errors.js";
import type { FileEntry } from "./plugin.js";

/** Directories end with "/". */
class Memory {
  readonly asked: string[] = [];
  atOnce = 0;
  most = 0;

  constructor(
    readonly things: Set<string>,
    readonly before: (request: string) => void = () => undefined,
  ) {}

  async #turn(request: string): Promise<void> {
    this.asked.push(request);
    this.atOnce += 1;
    this.most = Math.max(this.most, this.atOnce);
    await new Promise((resolve) => setImmediate(resolve));
    this.atOnce -= 1;
    this.before(request);
  }

  async *list(dir: string): AsyncGenerator<FileEntry> {
    await this.#turn(`list ${dir}`);
    if (!this.things.has(`${dir}/`)) throw new Fault("missing", dir);
    for (const it of this.things) {
      const [, path = "", slash] = /^(.*?)(\/?)$/.exec(it) ?? [];
      if (path.startsWith(`${dir}/`) && !path.slice(dir.length + 1).includes("/"))
        yield { path, kind: slash === "" ? "file" : "directory", size: 0 };
    }
  }

  async remove(path: string): Promise<void> {
    await this.#turn(`remove ${path}`);
    this.things.delete(path);
  }

  async rmdir(path: string): Promise<void> {
    await this.#turn(`rmdir ${path}`);
    if ([...this.things].some((it) => it.startsWith(`${path}/`) && it !== `${path}/`)) throw new Fault("conflict", `${path} is not empty`);
    this.things.delete(`${path}/`);
  }
}

const many = () => {
  const things = new Set(["d/"]);
  for (let n = 0; n < 30; n++) things.add(`d/f${n}`);
  for (let n = 0; n < 5; n++) for (const it of ["", "a", "b/", "b/c"]) things.add(`d/s${n}/${it}`);
  return things;
};
const calm = new AbortController().signal;

test("several things are taken away at once, and not too many; a directory after what is in it", async () => {
  const warned: Error[] = [];
  const warn = (warning: Error) => warned.push(warning);
  process.on("warning", warn);
  const tree = new Memory(many());
  await emptyDir(tree, "d", calm);
  assert.deepEqual([...tree.things], ["d/"]);
  assert.equal(tree.most, 8);
  await emptyDir(tree, "nowhere", calm);
  await new Promise((resolve) => setImmediate(resolve));
  process.off("warning", warn);
  assert.deepEqual(warned, []);
});

test("after a failure nothing more is begun, and it is told when nothing is under way any more", async () => {
  for (const failing of ["remove d/f3", "remove d/s2/b/c", "list d/s1", "rmdir d/s4"]) {
    let failed = false;
    const tree: Memory = new Memory(many(), (request) => {
      if (request !== failing || failed) return;
      failed = true;
      throw new Fault("offline", request);
    });
    await assert.rejects(emptyDir(tree, "d", calm), (error) => isFault(error, "offline") && error.message === failing);
    assert.equal(tree.atOnce, 0);
    const { length } = tree.asked;
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(tree.asked.length, length);
    assert.ok(tree.things.size > 1);
  }
});

test("what cannot be taken away keeps only what is above it", async () => {
  for (const [failing, left] of [
    ["remove d/s2/b/c", ["d/s2/", "d/s2/b/", "d/s2/b/c"]],
    ["remove d/f3", ["d/f3"]],
  ] as const) {
    const tree = new Memory(many(), (request) => {
      if (request === failing) throw new Fault("denied", request);
    });
    await assert.rejects(emptyDir(tree, "d", calm), (error) => isFault(error, "denied") && error.message === failing);
    assert.deepEqual([...tree.things].sort(), ["d/", ...left]);
  }
});

test("a stop ends it", async () => {
  const stop = new AbortController();
  const tree: Memory = new Memory(many(), () => stop.abort());
  await assert.rejects(emptyDir(tree, "d", stop.signal), (error) => isFault(error, "aborted"));
  assert.deepEqual(tree.asked, ["list d"]);
});
