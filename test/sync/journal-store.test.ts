/** What a route remembers is the same in memory and in the journal, also after what was agreed got other names. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Journal } from "../../core/journal.js";
import { JournalStore } from "../../core/sync/journal-store.js";
import { atOrBelow } from "../../core/tables.js";
import type { Agreed } from "../../core/sync/store.js";

const agreed = (size: number): Agreed => {
  const entry = { kind: "file", stamp: { size } } as const;
  return { kind: "file", size, digest: `sha256:${size}`, here: entry, there: entry };
};

test("a directory gets another name with all that is below it, and nothing beside it; what was agreed there is forgotten", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-store-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const journal = await Journal.open(dir);
  const [store, other] = ["one", "two"].map((route) => new JournalStore(journal, route));
  assert.ok(store !== undefined && other !== undefined);
  const paths = ["d", "d/a", "d/ü/😀", "d-x", "d0", "D/a", "e", "e/old", "e%", "%", "%/a"];
  for (const one of [store, other]) await one.change({ agree: paths.map((path, n) => [path, agreed(n)]) });
  const sizes = ({ base }: JournalStore) => Object.fromEntries<number>([...base].map(([path, { size }]) => [path, size] as const).sort());
  const before = sizes(other);
  await store.change({ shift: { from: "d", to: "e" } });
  await store.change({ shift: { from: "%", to: "😀/%" } });
  await store.change({ agree: [["new", agreed(99)]], shift: { from: "e/ü", to: "new" } });
  const now = { "D/a": 5, "d-x": 3, d0: 4, e: 0, "e%": 8, "e/a": 1, "new/😀": 2, "😀/%": 9, "😀/%/a": 10 };
  assert.deepEqual(sizes(store), now);
  const again = new JournalStore(journal, "one");
  assert.deepEqual(sizes(again), now);
  assert.deepEqual(sizes(new JournalStore(journal, "two")), before);
  await journal.close();
});

test("what is at a path or below it is found by the index, not among all that there is", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-store-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const journal = await Journal.open(dir);
  for (const from of ["agreed WHERE route", "versions WHERE source"]) {
    const plan = journal.all<{ detail: string }>(`EXPLAIN QUERY PLAN SELECT path FROM ${from} = ?1 AND ${atOrBelow}`, "a", "b");
    assert.match(plan.map(({ detail }) => detail).join("\n"), /^SEARCH \w+ USING .* \((route|source)=\? AND path>\? AND path<\?\)$/);
  }
  await journal.close();
});
