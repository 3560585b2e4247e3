/** What a bench that was killed leaves behind. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { inTempDir } from "./measure.js";

test("the directory of a bench that was killed goes at the next start, one that is in use stays", async (t) => {
  const gone = spawnSync(process.execPath, ["-e", ""]).pid;
  const [left, used, foreign] = [`${gone}-left`, `${process.pid}-used`, "unknown"].map((name) => join(tmpdir(), `filesync-bench-${name}`));
  for (const dir of [left, used, foreign]) mkdirSync(join(dir ?? "", "in"), { recursive: true });
  t.after(() => {
    for (const dir of [left, used, foreign]) rmSync(dir ?? "", { recursive: true, force: true });
  });
  const own = await inTempDir((dir) => {
    assert.deepEqual(
      [left, used, foreign].map((it) => existsSync(it ?? "")),
      [false, true, true],
    );
    assert.ok(existsSync(dir));
    return Promise.resolve(dir);
  });
  assert.ok(!existsSync(own));
});
