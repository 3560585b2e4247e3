/**
 * Killed at every durable step (sync, rename, link, unlink) of a start that trims receipts.jsonl. What is left is the old file or the new, the next start makes the new, and a journal that is lost
 * then sends nothing again of what is still at its source.
 */
import assert from "node:assert/strict";
import { cpSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { Journal } from "../../core/journal.js";
import { setForgotten } from "../../core/receipts.js";
import { killedAtEach, skipKilledAt } from "./killed-at.js";
import { runProgram } from "./process.js";
import { World } from "./world.js";

const forgotten = 6000;

test("killed at every step of trimming the receipts", skipKilledAt, async (t) => {
  const world = new World(t);
  for (let n = 0; n < 3; n++) world.file(`in/f${n}`, `content ${n}`, n);
  world.mkdir("out");
  const config = world.config({
    devices: { in: { type: "local", dir: "in" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "in", to: ["out"], into: "" }],
  });
  const once = ["run", "--once", "--json", "--config", config];
  assert.equal((await runProgram(once)).code, 0);
  const receipts = world.path("state/receipts.jsonl");
  const kept = readFileSync(receipts, "utf8");
  const [first = "{}"] = kept.split("\n");
  const gone = Array.from({ length: forgotten }, (_, n) =>
    JSON.stringify({ ...JSON.parse(first), delivery: `d${n}`, version: `v${n}`, size: 10 }),
  );
  const before = `${gone.join("\n")}\n${kept}`;
  const after = `${JSON.stringify({ forgotten: { deliveries: forgotten, bytes: 10 * forgotten } })}\n${kept}`;
  writeFileSync(receipts, before);
  const journal = await Journal.open(world.path("state"), "none", false);
  await journal.commit(() => setForgotten(journal, { deliveries: forgotten, bytes: 10 * forgotten }));
  await journal.close();
  cpSync(world.path("state"), world.path("image"), { recursive: true });

  let [old, made, met] = [0, 0, 0];
  const restored = () => {
    rmSync(world.path("state"), { recursive: true });
    cpSync(world.path("image"), world.path("state"), { recursive: true });
  };
  const kills = await killedAtEach(t, once, restored, async (at, n) => {
    const text = readFileSync(receipts, "utf8");
    assert.ok(text === before || text === after, `torn by ${at}`);
    if (n === 0) return;
    if (text === before) old += 1;
    else made += 1;
    // Each second kill takes the journal as well.
    met += 1;
    const isLost = met % 2 === 0;
    if (isLost) for (const end of ["", "-wal", "-shm"]) rmSync(world.path(`state/journal.db${end}`), { force: true });
    const next = await runProgram(once);
    assert.equal(next.code, 0, `after ${at}: ${next.out}${next.err}`);
    assert.ok(readFileSync(receipts, "utf8") === (isLost ? text : after), `the receipts after ${at}`);
    assert.deepEqual(readdirSync(world.path("out")).sort(), ["f0", "f1", "f2"]);
    assert.deepEqual(
      readdirSync(world.path("state")).filter((name) => name.endsWith(".tmp")),
      [],
      `after ${at}`,
    );
  });
  assert.ok(readFileSync(receipts, "utf8") === after);
  t.diagnostic(`${JSON.stringify(kills)}: ${old} kills left the old file, ${made} the new`);
  assert.ok(old > 0 && made > 0);
});
