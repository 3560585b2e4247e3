import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

/** Prints the bytes that young objects were given after that work, with a thread that reads files. */
const script = (work: string) => `
(async () => {
  const [heap, file, dir] = process.argv.slice(1);
  const { holdHeap } = await import(heap);
  const { FileThread } = await import(file);
  holdHeap();
  const thread = new FileThread();
  for await (const entries of thread.list(Buffer.from(dir), "", new AbortController().signal)) void entries;
  const young = () => require("node:v8").getHeapSpaceStatistics().find((it) => it.space_name === "new_space").space_size;
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  ${work}
  await thread.close();
  console.log(young());
})();
`;

function youngAfter(work: string): number {
  const dir = mkdtempSync(join(tmpdir(), "filesync-heap-"));
  try {
    const [heap = "", file = ""] = ["./heap.js", "./file-thread.js"].map((name) => new URL(name, import.meta.url).href);
    return Number(execFileSync(process.execPath, ["-e", script(work), heap, file, dir], { encoding: "utf8" }));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

test("young objects get no more than 4 MB, also when a thread has begun", () => {
  const bytes = youngAfter(`
    let kept = [];
    for (let n = 0; n < 3e6; n++) {
      kept.push({ n });
      if (kept.length > 1e5) kept = [];
    }`);
  assert.ok(bytes > 0 && bytes <= 4 * 2 ** 20, `${bytes} bytes`);
});

test("under a load that lasts they get up to 8 MiB, where much of them lives", () => {
  const bytes = youngAfter(`
    const kept = [];
    for (let n = 0; n < 20000; n++) {
      kept.push(Array.from({ length: 500 }, (_, at) => ({ at })));
      if (kept.length > 100) kept.shift();
      await turn();
    }`);
  assert.equal(bytes, 8 * 2 ** 20);
});

test("where buffers outside the heap are many they get no more: those would only be kept longer", () => {
  const bytes = youngAfter(`
    const buffers = Array.from({ length: 64 }, () => Buffer.alloc(32 * 1024));
    const kept = [];
    for (let n = 0; n < 20000; n++) {
      kept.push(Array.from({ length: 500 }, (_, at) => ({ at })));
      if (kept.length > 100) kept.shift();
      buffers[n % 64] = Buffer.alloc(32 * 1024);
      await turn();
    }`);
  assert.ok(bytes > 0 && bytes <= 4 * 2 ** 20, `${bytes} bytes`);
});

test("where no more files can be opened, the look at the heap ends nothing", () => {
  const bytes = youngAfter(`
    process.memoryUsage = () => { throw Object.assign(new Error("EMFILE: too many open files, uv_resident_set_memory"), { code: "EMFILE" }); };
    for (let n = 0; n < 3e5; n++) ({ n, text: String(n) });
    globalThis.gc?.();
    let kept = [];
    for (let n = 0; n < 1e6; n++) { kept.push({ n }); if (kept.length > 1e5) { kept = []; await turn(); } }
  `);
  assert.ok(bytes > 0);
});

test("while buffers outside the heap are many, what holds them may double until all is looked through; else it grows by half", () => {
  const said = execFileSync(
    process.execPath,
    [
      "--expose-gc",
      "-e",
      `
      const v8 = require("node:v8");
      const { syncBuiltinESMExports } = require("node:module");
      const real = v8.setFlagsFromString;
      let percent;
      v8.setFlagsFromString = (flag) => { percent = /^--heap-growing-percent=(.*)/.exec(flag)?.[1] ?? percent; real(flag); };
      syncBuiltinESMExports();
      const collected = async () => { gc(); for (let n = 0; n < 3; n++) await new Promise((resolve) => setImmediate(resolve)); console.log(percent); };
      (async () => {
        (await import(process.argv[1])).holdHeap();
        await collected();
        let buffers = Array.from({ length: 64 }, () => Buffer.alloc(32 * 1024));
        await collected();
        buffers = undefined;
        await collected();
        await collected();
      })();
      `,
      new URL("./heap.js", import.meta.url).href,
    ],
    { encoding: "utf8" },
  );
  const [before, during, , after] = said.trim().split("\n");
  assert.deepEqual([before, during, after], ["50", "100", "50"]);
});
