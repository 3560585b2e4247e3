import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { type Doubt, Journal } from "./journal.js";
import { forgottenIn, setForgotten } from "./receipts.js";

const receipt = (n: number, delivery = `d${n}`) =>
  JSON.stringify({
    delivery,
    version: `v${n}`,
    from: "card",
    to: "out",
    source: "a",
    path: `a${n}`,
    size: 10,
    at: "2026-05-01T00:00:00Z",
    filler: "x".repeat(400),
  });
const sending = (delivery: string, record: object | null = { atMs: 1, trusted: true, times: 1 }) =>
  JSON.stringify({ sending: delivery, record });

interface Given {
  readonly lines?: number;
  readonly known?: number;
  readonly forgotten?: number;
  readonly more?: readonly string[];
}

/** Of `lines` receipts the journal knows the last `known`, and forgot the others, or so many; `more`: lines before them. */
async function world(t: TestContext, given: Given = {}) {
  const { lines = 4000, known = 1000, more = [] } = given;
  const forgotten = given.forgotten ?? lines - known;
  const dir = mkdtempSync(join(tmpdir(), "filesync-receipts-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, "receipts.jsonl");
  const all = Array.from({ length: lines }, (_, n) => receipt(n));
  writeFileSync(path, [...more, ...all].map((line) => `${line}\n`).join(""));
  const journal = await Journal.open(dir);
  await journal.commit(() => {
    for (let n = lines - known; n < lines; n++) {
      journal.run(
        "INSERT INTO versions (id, source, path, size, state, store, found_ms) VALUES (?, 'card', 'a', 10, 'sealed', 'spool', 1)",
        `v${n}`,
      );
      journal.run(
        "INSERT INTO deliveries (id, version, source, target, path, required, state, size, weight, rank) VALUES (?, ?, 'card', 'out', 'a', 1, 'done', 10, 1, 1)",
        `d${n}`,
        `v${n}`,
      );
    }
    if (forgotten > 0) setForgotten(journal, { deliveries: forgotten, bytes: 10 * forgotten });
  });
  const opened = async (doubt: Doubt = "none", mend = true) => {
    const next = await Journal.open(dir, doubt, mend);
    await next.close();
    return next.trimmed;
  };
  const change = (sql: string) => journal.commit(() => void journal.run(sql));
  const text = () => readFileSync(path, "utf8").trimEnd().split("\n");
  return { dir, path, all, journal, change, opened, text };
}

test("the lines of what was forgotten are taken out, once they are more than half; the first line says how many", async (t) => {
  const { dir, all, journal, opened, text } = await world(t, { lines: 7000, known: 3000 });
  await journal.close();
  assert.equal(await opened(), 4000);
  assert.deepEqual(text(), [JSON.stringify({ forgotten: { deliveries: 4000, bytes: 40_000 } }), ...all.slice(4000)]);
  const forget = async (below: number) => {
    const next = await Journal.open(dir);
    await next.commit(() => {
      next.run("DELETE FROM versions WHERE id < ?", `v${below}`);
      next.run("DELETE FROM deliveries WHERE version < ?", `v${below}`);
      setForgotten(next, { deliveries: below, bytes: 10 * below });
    });
    await next.close();
    return opened();
  };
  assert.equal(await forget(5400), 0, "fewer than half");
  assert.equal(text().length, 3001);
  assert.equal(await forget(6000), 2000);
  assert.deepEqual(text(), [JSON.stringify({ forgotten: { deliveries: 6000, bytes: 60_000 } }), ...all.slice(6000)]);
  assert.deepEqual(
    readdirSync(dir).filter((name) => name.endsWith(".tmp")),
    [],
  );
});

test("single shots stay as long as their delivery is known, also to a journal that waits to find it again", async (t) => {
  const more = [
    sending("d0"),
    sending("d3999"),
    sending("d3998"),
    sending("d3998", null),
    sending("d-again"),
    "{torn",
    '{"of":"a later version"}',
  ];
  const { journal, change, opened, text } = await world(t, { more });
  await change("INSERT INTO meta VALUES ('marks:d-again', '{}')");
  await journal.close();
  assert.equal(await opened(), 3001);
  assert.deepEqual(text().slice(1, 7), more.slice(1));
});

test("a delivery with two lines is forgotten once", async (t) => {
  const { journal, opened, text } = await world(t, { more: [receipt(0), receipt(0)] });
  await journal.close();
  assert.equal(await opened(), 3002);
  assert.deepEqual(JSON.parse(text()[0] ?? ""), { forgotten: { deliveries: 3000, bytes: 30_000 } });
});

for (const [why, how] of [
  ["it is short", { lines: 1500, known: 100 }],
  ["less than half is forgotten", { known: 2100 }],
  ["what was sent again has more lines", { lines: 2500, known: 1000, more: Array<string>(1000).fill(receipt(2499)) }],
  ["the journal never forgot, so it is not the one that these are of", { known: 10, forgotten: 0 }],
  ["the journal forgot much less than it does not know", { known: 100, forgotten: 1000 }],
] as const)
  test(`every line stays where ${why}`, async (t) => {
    const { path, journal, opened } = await world(t, how);
    const before = statSync(path);
    await journal.close();
    assert.equal(await opened(), 0);
    assert.deepEqual([statSync(path).size, statSync(path).ino], [before.size, before.ino]);
  });

test("every line stays where the journal is being rebuilt, was damaged, or is only asked", async (t) => {
  const { path, journal, change, opened } = await world(t);
  await change("INSERT INTO meta VALUES ('recovering', '1')");
  await journal.close();
  const { size } = statSync(path);
  assert.equal(await opened(), 0);
  assert.equal(await opened("damaged"), 0);
  const next = await Journal.open(join(path, ".."));
  await next.commit(() => void next.run("DELETE FROM meta WHERE key = 'recovering'"));
  await next.close();
  assert.equal(await opened("damaged"), 0, "damage was met");
  assert.equal(await opened("none", false), 0, "no daemon");
  assert.equal(statSync(path).size, size);
  assert.equal(await opened(), 3000);
});

test("no line is taken out while the journal does not know all of them; what is behind those that stay is known as unknown", async (t) => {
  const { dir, path, journal, opened } = await world(t);
  await journal.commit(() => journal.noteReceipts());
  assert.equal(journal.unknownFrom, undefined);
  await journal.close();
  const size = statSync(path).size;
  appendFileSync(path, `${receipt(9000)}\n`);
  assert.equal(await opened(), 0);
  const next = await Journal.open(dir);
  assert.equal(next.unknownFrom, size);
  await next.commit(() => next.noteReceipts());
  await next.close();
  assert.equal(await opened(), 3001);
  appendFileSync(path, `${receipt(9001)}\n`);
  const last = await Journal.open(dir);
  assert.equal(last.unknownFrom, statSync(path).size - receipt(9001).length - 1);
  await last.commit(() => last.appendReceipt(`${receipt(9002)}\n`));
  assert.equal(last.unknownFrom, undefined);
  await last.close();
});

test("a journal that was set aside asks for every line", async (t) => {
  const { dir, path, journal } = await world(t);
  await journal.close();
  const { size } = statSync(path);
  writeFileSync(join(dir, "journal.db"), Buffer.alloc(8192, 7));
  const next = await Journal.open(dir);
  assert.equal(next.setAside.length > 0, true);
  assert.equal(forgottenIn(next).deliveries, 0);
  await next.close();
  assert.equal(statSync(path).size, size);
});
