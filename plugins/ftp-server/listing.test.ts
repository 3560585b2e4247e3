/** Lines of listings for files that are not as they should be; and what a listing leaves to others. */
import assert from "node:assert/strict";
import { promises as fs, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { factLine, listLine } from "./listing.js";
import { Root } from "./root.js";

test("a time that the protocol cannot tell keeps no directory from being listed", () => {
  for (const mtimeMs of [9_999_999_999_999_000, -99_999_999_999_999_000, 300_000_000_000_000]) {
    const stats = Object.assign(statSync(import.meta.filename), { mtimeMs });
    assert.equal(factLine("x", stats, new Set(["modify"] as const), ""), "modify=19700101000000; x");
    assert.match(listLine(Buffer.from("x"), stats, Date.UTC(2026, 0, 1)), / Jan {2}1 {2}1970 x$/);
  }
});

test("a long directory that is listed stands in no upload's way: few of its names wait for libuv's threads at once", async (t) => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-list-"));
  t.after(() => fs.rm(dir, { recursive: true }));
  const names = Array.from({ length: 300 }, (_, i) => `log${i}.ulg`);
  await Promise.all(names.map((name) => fs.writeFile(join(dir, name), "")));
  const root = await Root.open(dir);
  const lstat = fs.lstat.bind(fs);
  let waiting = 0;
  let most = 0;
  t.mock.method(fs, "lstat", async (path: Buffer) => {
    most = Math.max(most, ++waiting);
    return lstat(path).finally(() => (waiting -= 1));
  });
  const listed: string[] = [];
  for await (const batch of root.read([])) listed.push(...batch.map(({ name }) => name.toString()));
  assert.deepEqual(listed.sort(), names.sort());
  assert.ok(most <= 4, `${most} at once`);
});
