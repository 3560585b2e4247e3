/** Years of flights (FILESYNC_TEST_YEARS, else 2): what is known stays bounded, and nothing is sent twice. */
import assert from "node:assert/strict";
import { rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Bench, FakeDevice, until } from "../fake-device.js";

const week = 7 * 86_400_000;
const perWeek = 7 * 10;
const years = Number(process.env["FILESYNC_TEST_YEARS"] ?? 2);
const weeks = 52 * years;

test(`${years} years, 10 files a day, the card formatted each week: journal and receipts stay bounded, nothing is sent twice`, async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true, concurrency: 64 });
  const out = new FakeDevice("out", { target: { concurrency: 64 } });
  const devices = { sources: [card], targets: [out] };
  const routes = [{ from: "card", to: ["out"] }];
  const startMs = bench.clock.wallMs();
  card.put("settings.bin", "it stays there for ever", startMs - week);
  const most = { versions: 0, journal: 0, receipts: 0 };
  const file = (name: string) => statSync(join(bench.dir, name)).size;
  const known = () => bench.daemon.engine.journal.get<{ n: number }>("SELECT COUNT(*) AS n FROM versions")?.n ?? 0;
  let writes = 0;
  await bench.start(devices, routes);
  for (let n = 0; n < weeks; n++) {
    bench.clock.offsetMs = n * week;
    for (const path of card.files.keys()) if (path !== "settings.bin") card.files.delete(path);
    // It counts from 1 again.
    for (let i = 0; i < perWeek; i++) card.put(`LOG${i}.BIN`, `${n} ${i}`, startMs + n * week + i * 1000);
    bench.daemon.engine.relist$.next("card");
    const wanted = 1 + (n + 1) * perWeek;
    await until(bench, `week ${n}`, () => out.files.size === wanted && !bench.daemon.engine.queue.hasOpen("out"));
    card.calls.length = 0;
    writes += out.calls.splice(0).filter((call) => call.startsWith("write ")).length;
    if (n % 26 === 25) {
      await bench.stop();
      await bench.start(devices, routes);
      assert.equal(bench.daemon.status().queue.delivered, wanted, "the count never goes back");
    }
    most.versions = Math.max(most.versions, known());
    most.journal = Math.max(most.journal, file("journal.db"));
    most.receipts = Math.max(most.receipts, file("receipts.jsonl"));
  }
  t.diagnostic(`at most ${most.versions} versions, ${most.journal} bytes of journal, ${most.receipts} of receipts`);
  // A year, the weeks around it, and what they are the continuation of, as far as the journal can tell.
  assert.ok(most.versions <= 1 + 57 * perWeek, `${most.versions} versions`);
  assert.ok(most.journal < 12 * 2 ** 20, `${most.journal} bytes of journal`);
  assert.ok(most.receipts < 6 * 2 ** 20, `${most.receipts} bytes of receipts`);
  assert.equal(writes, 1 + weeks * perWeek, "each once: what was forgotten, and what stays there for ever");

  // The journal is lost, and with it what no receipt tells: what is still at the source is not sent again.
  const delivered = bench.daemon.status().queue.delivered;
  await bench.stop();
  for (const end of ["", "-wal", "-shm"]) rmSync(join(bench.dir, `journal.db${end}`), { force: true });
  await bench.start(devices, routes);
  await until(bench, "listed", () => bench.daemon.engine.finders.get("card")?.listings === 1);
  assert.equal(bench.daemon.status().queue.delivered, delivered);
  assert.equal(bench.daemon.status().queue.waiting, 0);
  assert.deepEqual(
    out.calls.filter((call) => call !== "probe"),
    [],
  );
});
