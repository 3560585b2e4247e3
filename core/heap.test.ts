import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

/** Prints the bytes that young objects were given while many were made, after a thread had begun that reads files. */
const script = `
(async () => {
  const [heap, file, dir] = process.argv.slice(1);
  const { holdHeap } = await import(heap);
  const { FileThread } = await import(file);
  holdHeap();
  const thread = new FileThread();
  for await (const entries of thread.list(Buffer.from(dir), "", new AbortController().signal)) void entries;
  let kept = [];
  for (let n = 0; n < 3e6; n++) {
    kept.push({ n });
    if (kept.length > 1e5) kept = [];
  }
  await thread.close();
  console.log(require("node:v8").getHeapSpaceStatistics().find((it) => it.space_name === "new_space").physical_space_size);
})();
`;

test("young objects get no more than 4 MB, also when a thread has begun", () => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-heap-"));
  try {
    const [heap = "", file = ""] = ["./heap.js", "./file-thread.js"].map((name) => new URL(name, import.meta.url).href);
    const bytes = Number(execFileSync(process.execPath, ["-e", script, heap, file, dir], { encoding: "utf8" }));
    assert.ok(bytes > 0 && bytes <= 4e6, `${bytes} bytes`);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
