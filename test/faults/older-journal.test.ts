/**
 * Killed, and then the medium takes back the end of the journal's log (WAL), though it was synced: SQLite opens what is left as if no more had ever been there. Cut behind each of several
 * transactions, and in the middle of a frame. Nothing that has a receipt is sent again, or told as lost.
 */
import assert from "node:assert/strict";
import { cpSync, readFileSync, renameSync, rmSync, truncateSync } from "node:fs";
import { test } from "node:test";
import { FlightReviewDouble, ulog } from "../doubles/flight-review.js";
import { Program, runProgram } from "./process.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "./trees.js";
import { World } from "./world.js";

const files = 5;
const cuts = 8;

/** Where the transactions of a log end: a frame that ends one says how many pages the database has then. */
function endsIn(wal: Buffer): number[] {
  const frame = 24 + wal.readUInt32BE(8);
  const ends: number[] = [];
  for (let at = 32; at + frame <= wal.length; at += frame) if (wal.readUInt32BE(at + 4) > 0) ends.push(at + frame);
  return ends;
}

for (const [after, inPlace, to] of [
  ["keep", true, ["out"]],
  ["delete", true, ["out"]],
  ["delete", false, ["out"]],
  ["keep", true, ["out", "review"]],
  ["delete", true, ["out", { device: "review", required: false }]],
  ["delete", true, ["out", { device: "later", required: false }]],
] as const) {
  const names = to.map((one) => (typeof one === "string" ? one : one.device));
  test(`the log is cut: ${after}, ${inPlace ? "read in place" : "pulled"}, to ${names.join(" and ")}`, async (t) => {
    const world = new World(t);
    const server = await FlightReviewDouble.start();
    t.after(() => server.stop());
    for (const dir of ["in", "out", "expected"]) world.mkdir(dir);
    const config = world.config({
      devices: {
        in: { type: "local", dir: "in", settle: "0s", interval: "1s", inPlace },
        out: { type: "local", dir: "out" },
        review: { type: "post", preset: "flight-review", url: server.url },
        later: { type: "local", dir: "later" },
      },
      routes: [{ from: "in", to, into: "", since: "2001-01-01", afterDelivery: after }],
    });
    const program = new Program(["run", "--json", "--config", config]);
    const seen = (what: string) => program.events.filter((event) => event.what === what).length;
    const kinds = names.filter((name) => name !== "later").length;
    // One after another: each has transactions of its own.
    for (let n = 1; n <= files; n++) {
      for (const dir of ["expected", "made"]) world.file(`${dir}/${n}.ulg`, ulog(60, 50_000 + n, n), n);
      // It is found whole.
      renameSync(world.path(`made/${n}.ulg`), world.path(`in/${n}.ulg`));
      await program.until(() => seen("delivered") === n * kinds && seen("released") === (after === "keep" ? 0 : n), `all of ${n} files`);
    }
    const expected = treeOf(world.path("expected"));
    await program.kill();
    const dirs = ["in", "out", "state"];
    rmSync(world.path("state/control.sock"), { force: true });
    for (const dir of dirs) cpSync(world.path(dir), world.path("kept", dir), { recursive: true, preserveTimestamps: true });
    const posts = names.includes("review") ? files : 0;
    assert.equal(server.logs.length, posts);

    const wal = world.path("state/journal.db-wal");
    const ends = endsIn(readFileSync(wal));
    let older = 0;
    for (let n = 0; n < cuts; n++) {
      const end = ends[Math.floor(((n + 1) * (ends.length - 1)) / (cuts + 1))] ?? 0;
      for (const dir of [...dirs, "later"]) rmSync(world.path(dir), { recursive: true, force: true });
      for (const dir of dirs) cpSync(world.path("kept", dir), world.path(dir), { recursive: true, preserveTimestamps: true });
      // Each second one in the middle of the next frame.
      truncateSync(wal, end + (n % 2) * 1000);
      if (names.includes("later")) world.mkdir("later");
      const { code, out } = await runProgram(["run", "--once", "--json", "--config", config]);
      const said = `cut ${n}, at ${end}:\n${out}`;
      assert.equal(code, 0, said);
      assert.equal(server.logs.length, posts, said);
      assert.ok(!/"what":"(lost|parked|spool-damaged)"/.test(out), said);
      if (names.includes("later")) assertSameTree(treeOf(world.path("later")), expected, said);
      assertSameTree(treeOf(world.path("out")), expected, said);
      assertSameTree(treeOf(world.path("in")), after === "keep" ? expected : new Map<string, string>(), said);
      assertReceiptsTrue(world.path("state"), { out: world.path("out") });
      const lines = readFileSync(world.path("state/receipts.jsonl"), "utf8").split("\n");
      const count = files * names.length;
      assert.equal(lines.filter((line) => line.includes('"proof"')).length, count, "each delivery has one receipt");
      const status = JSON.parse((await runProgram(["status", "--json", "--config", config])).out) as { queue: object };
      assert.deepEqual(status.queue, { waiting: 0, active: 0, parked: 0, delivered: count });
      if (out.includes('"what":"journal-older"')) older += 1;
    }
    t.diagnostic(`${ends.length} transactions; ${older} of ${cuts} cuts made the journal older than its receipts`);
    assert.ok(older > 0);
  });
}
