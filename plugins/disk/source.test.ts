/** What the engine is told of reading from what may be pulled; how it is obeyed: test/engine/media.test.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../../core/errors.js";
import type { FileEntry } from "../../core/plugin.js";
import { EMPTY } from "../../core/rxjs.js";
import type { Disks } from "./device.js";
import { DiskSource } from "./source.js";

test("what came right before a pull is doubted: below FUSE it may be zeros, as much as was read ahead and one piece", () => {
  const readAhead = 128 * 1024;
  const piece = 512 * 1024;
  const { doubtedBytes = 0 } = new DiskSource({} as Disks, EMPTY, false).features;
  assert.ok(doubtedBytes >= readAhead + piece);
});

test("a file of a medium that was pulled is not there as it was, though the file system knows it for a while", async () => {
  const file: FileEntry = { path: "a.bin", kind: "file", size: 4, modifiedMs: 1 };
  let alive = true;
  const medium = {
    id: "card",
    use: (_write: boolean, _signal: AbortSignal, work: (content: object) => Promise<unknown>) =>
      work({ tree: { stat: () => Promise.resolve(file) } }),
    expectAlive: () => (alive ? Promise.resolve() : Promise.reject(new Fault("offline", "it was pulled"))),
  };
  const disks = {
    at: (inner: string) => ({ medium, inner }),
    pathOf: (_medium: object, inner: string) => inner,
    alone: () => true,
  } as unknown as Disks;
  const source = new DiskSource(disks, EMPTY, false);
  const { signal } = new AbortController();
  assert.equal((await source.stat("a.bin", signal))?.size, 4);
  alive = false;
  await assert.rejects(source.stat("a.bin", signal), /pulled/);
});
