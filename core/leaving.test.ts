import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Journal } from "./journal.js";
import { Leaving } from "./leaving.js";
import type { VersionRow } from "./rows.js";

const version = (id: string, size: number, source = "card") => ({ id, source, size }) as VersionRow;

async function opened(t: TestContext): Promise<Journal> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-leaving-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const journal = await Journal.open(dir);
  t.after(() => journal.close());
  return journal;
}

test("one note is good for what follows and is small; what was noted and not ended is doubted after each start", async (t) => {
  const journal = await opened(t);
  const notes = t.mock.method(journal, "commit");
  const start = (...left: string[]) => {
    const leaving = new Leaving(journal);
    leaving.recover((id) => left.includes(id));
    return leaving;
  };
  const doubted = (leaving: Leaving) => ["a", "b", "big", "late", "other"].filter((id) => leaving.isDoubted(id));

  const first = start();
  const next = () => [version("a", 10), version("big", 5_000_000), version("b", 10)];
  await first.begin(version("a", 10), next);
  await first.begin(version("b", 10), next);
  assert.equal(notes.mock.callCount(), 1);
  await first.begin(version("other", 10, "cam:era"), () => []);
  assert.deepEqual(doubted(first), [], "what this run does it knows");

  const second = start("a", "b", "big", "other");
  assert.deepEqual(doubted(second), ["a", "b", "other"], "the large one was not noted");
  await journal.apply(() => second.ended("b"));
  await second.begin(version("late", 10), () => []);
  assert.deepEqual(
    doubted(start("a", "b", "big", "late", "other")),
    ["a", "late", "other"],
    "a is doubted for as long as it was not compared",
  );

  second.doubt("big");
  await journal.commit(() => second.noteDoubts());
  assert.deepEqual(doubted(start("a", "b", "big", "other")), ["a", "big", "other"]);
  assert.deepEqual(doubted(start("other")), ["other"], "what has gone since is no doubt");
});

test("what is noted stays so while others are doubted, or known to be there", async (t) => {
  const journal = await opened(t);
  const leaving = new Leaving(journal);
  const doubted = () => {
    const next = new Leaving(journal);
    next.recover(() => true);
    return ["a", "b", "c", "d"].filter((id) => next.isDoubted(id));
  };
  await leaving.begin(version("a", 10), () => [version("b", 10)]);
  leaving.doubt("c");
  await journal.commit(() => leaving.noteDoubts());
  assert.deepEqual(doubted(), ["a", "b", "c"]);
  const begun = leaving.begin(version("d", 10), () => []);
  await journal.apply(() => leaving.stayed(version("c", 10)));
  await begun;
  assert.deepEqual(doubted(), ["d"]);
});

test("what a file may have grown from is so after a start, too, until more is doubted of it", async (t) => {
  const journal = await opened(t);
  const leaving = new Leaving(journal);
  const left = () => {
    const next = new Leaving(journal);
    next.recover(() => true);
    assert.ok(next.isDoubted("a") && next.isDoubted("b"));
    return ["a", "b"].filter((id) => next.hasPerhapsLeft(id));
  };
  leaving.doubt("a", true);
  leaving.doubt("b");
  leaving.doubt("b", true);
  await journal.commit(() => leaving.noteDoubts());
  assert.deepEqual(left(), ["b"]);
  await leaving.begin(version("a", 10), () => []);
  assert.deepEqual(left(), ["a", "b"], "it was perhaps acted on since");
});

test("of thousands that are doubted one after the other, each is written once, and no more where its end is known", async (t) => {
  const journal = await opened(t);
  const leaving = new Leaving(journal);
  await leaving.begin(version("0", 10), () => []);
  const writes = t.mock.method(journal, "run");
  for (let n = 0; n < 1000; n++)
    await journal.apply(() => {
      leaving.doubt(`${n}`);
      leaving.noteDoubts();
      leaving.noteDoubts();
    });
  assert.equal(writes.mock.callCount(), 1000);
  await journal.commit(() => leaving.ended("998"));
  const next = new Leaving(journal);
  next.recover(() => true);
  assert.deepEqual(
    ["0", "1", "998", "999"].filter((id) => next.isDoubted(id)),
    ["0", "1", "999"],
  );
});

test("what an older version doubts, in one note for all, is doubted", async (t) => {
  const journal = await opened(t);
  await journal.commit(() => journal.setMeta("leaving:card", '["a","b+"]'));
  const leaving = new Leaving(journal);
  leaving.recover(() => true);
  await leaving.begin(version("c", 10), () => []);
  const next = new Leaving(journal);
  next.recover(() => true);
  assert.deepEqual(
    ["a", "b", "c", "d"].filter((id) => next.isDoubted(id)),
    ["a", "b", "c"],
  );
});

test("of thousands that an older version doubts in one note, those that stayed do not each write it anew", async (t) => {
  const journal = await opened(t);
  const ids = Array.from({ length: 2000 }, (_, n) => `${n}`);
  await journal.commit(() => journal.setMeta("leaving:card", JSON.stringify(ids)));
  const leaving = new Leaving(journal);
  leaving.recover(() => true);
  const notes = t.mock.method(journal, "setMeta");
  await journal.commit(() => {
    for (const id of ids.slice(1)) leaving.stayed(version(id, 10));
  });
  const written = notes.mock.calls.reduce((sum, call) => sum + (call.arguments[1]?.length ?? 0), 0);
  assert.ok(written < JSON.stringify(ids).length, `${written} bytes`);
  const next = new Leaving(journal);
  next.recover(() => true);
  assert.deepEqual(
    ids.filter((id) => next.isDoubted(id)),
    ["0"],
  );
});
