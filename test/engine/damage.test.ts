/** Damage of the journal that only a question reads, or that several meet at once. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openDatabase } from "../../core/sqlite.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

const bytes = Buffer.from("a log");

async function delivered(bench: Bench, devices: { sources: FakeDevice[]; targets: FakeDevice[] }): Promise<void> {
  devices.sources[0]?.put("a.bin", bytes, Date.UTC(2026, 4, 1));
  await bench.start(devices, [{ from: "card", to: ["out"] }], { device: { intervalMs: 50 } });
  await until(bench, "it is there", () => bench.states("out")[0] === "done");
  await bench.stop();
}

const isAsked = (bench: Bench) => {
  try {
    bench.daemon.status();
    return true;
  } catch {
    return false;
  }
};

test("two who ask at once have a damaged journal rebuilt once, and what runs then is what is stopped", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  await delivered(bench, { sources: [card], targets: [out] });
  const path = join(bench.dir, "journal.db");
  const db = await openDatabase(path);
  const { page } = db.prepare("SELECT rootpage AS page FROM disk.sqlite_master WHERE name = 'versions_gone'").get() as { page: number };
  db.close();
  const file = readFileSync(path);
  file.fill(0xa5, (page - 1) * 4096, page * 4096);
  writeFileSync(path, file);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { intervalMs: 50 } });
  assert.deepEqual([isAsked(bench), isAsked(bench)], [false, false]);
  await until(bench, "it answers", () => isAsked(bench));
  card.put("b.bin", bytes, Date.UTC(2026, 4, 2));
  await until(bench, "the next is there", () => out.files.has("b.bin"));
  assert.equal(bench.events.filter(({ what }) => what === "journal-reopened").length, 1);
  assert.ok(isAsked(bench));
});

test("an index that names a row that is not there is made anew: the journal is not opened again and again", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  await delivered(bench, { sources: [card], targets: [out] });
  const path = join(bench.dir, "journal.db");
  const before = readFileSync(path);
  const db = await openDatabase(path);
  const { page } = db.prepare("SELECT rootpage AS page FROM disk.sqlite_master WHERE name = 'deliveries_delivered'").get() as {
    page: number;
  };
  db.exec("DELETE FROM disk.deliveries");
  db.close();
  const after = readFileSync(path);
  before.copy(after, (page - 1) * 4096, (page - 1) * 4096, page * 4096);
  writeFileSync(path, after);
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { intervalMs: 50 } });
  assert.equal(isAsked(bench), false);
  await until(bench, "it answers", () => isAsked(bench));
  assert.equal(bench.events.filter(({ what }) => what === "journal-reopened").length, 1);
  assert.equal(existsSync(join(bench.dir, "journal.damaged-1.db")), false);
});

test("a question and a change that meet damage at once have the journal opened anew once, and work goes on", async (t) => {
  const bench = new Bench(t);
  const [card, out] = [new FakeDevice("card"), new FakeDevice("out")];
  card.put("a", "a");
  await bench.start({ sources: [card], targets: [out] }, [{ from: "card", to: ["out"] }], { device: { intervalMs: 50 } });
  await until(bench, "the first is there", () => bench.states("out").join() === "done");
  const { journal } = bench.daemon.engine;
  const damage = Object.assign(new Error("database disk image is malformed"), { errcode: 11 });
  const broken = () => {
    throw damage;
  };
  Object.assign(journal.db, { prepare: () => ({ all: broken, get: broken, run: broken }) });
  assert.throws(() => journal.get("SELECT 'what nobody asked before'"), damage);
  await assert.rejects(
    journal.apply(() => undefined),
    damage,
  );
  await until(bench, "it is open again", () => bench.events.some(({ what }) => what === "journal-reopened"));
  card.put("b", "b");
  await until(bench, "the second is there", () => out.files.size === 2);
  assert.deepEqual(
    bench.events.flatMap(({ what }) => (what === "journal-failed" || what === "journal-reopened" ? [what] : [])),
    ["journal-failed", "journal-reopened"],
  );
});
