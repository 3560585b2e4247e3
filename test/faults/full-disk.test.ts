/** The disk of the state directory is full to the last byte: the reserve is given up, the journal goes on, and everything arrives. */
import assert from "node:assert/strict";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { until } from "../conformance/clause.js";
import { NotifySocket } from "../notify-socket.js";
import { Program, runProgram } from "./process.js";
import { assertReceiptsTrue, treeOf } from "./trees.js";
import { World } from "./world.js";

test("a full disk under the journal", { skip: process.getuid?.() === 0 ? false : "needs root to mount a small file system" }, async (t) => {
  const world = new World(t);
  if (!world.mount("small", 120)) {
    t.skip("no loop devices here");
    return;
  }
  world.mkdir("out");
  world.mkdir("in");
  const config = world.config({
    stateDir: "small/state",
    devices: { in: { type: "local", dir: "in", interval: "1s" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "in", to: ["out"], into: "" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "ready", "ready");
  assert.ok(existsSync(world.path("small/state/reserve")));
  world.fill("small/ballast");
  // Enough for several pages of journal.
  const name = "a-rather-long-name-of-a-file-so-that-the-journal-grows-";
  for (let n = 0; n < 600; n++) world.file(join("in", `${name}${n}`), `content ${n}`, n);
  const delivered = () => program.events.filter(({ what }) => what === "delivered").length;
  await program.until(() => delivered() >= 600, "all files", 90_000);
  assert.equal(existsSync(world.path("small/state/reserve")), false, "the reserve was given up");
  assert.deepEqual(treeOf(world.path("out")), treeOf(world.path("in")));
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
  // Not one byte is free: it says so, and goes on as soon as there is.
  world.fill("small/ballast2");
  world.file("in/late", "late", 1000);
  const trouble = `the journal in ${world.path("small/state")} cannot be written: no space is left on the disk of ${world.path("small/state")}: 0 B free, 17 MB needed`;
  const read = await runProgram(["status", "--config", config]);
  assert.equal(read.code, 0, read.err);
  const [id = ""] = /[0-9a-f]{16}(?=\]$)/m.exec((await runProgram(["why", `${name}0`, "--config", config])).out) ?? [];
  const without = await runProgram(["retry", id, "--config", config]);
  assert.equal(without.code, 2, without.err);
  assert.equal(without.err.trim(), `filesync: ${trouble}`);
  const socket = await NotifySocket.open(world.path("notify"));
  t.after(() => (typeof socket === "string" ? undefined : socket.close()));
  const env = { ...process.env, WATCHDOG_USEC: "1500000", ...(typeof socket === "string" ? {} : { NOTIFY_SOCKET: socket.path }) };
  const late = new Program(["run", "--json", "--config", config], { env });
  t.after(() => late.kill());
  await late.until(({ what, message }) => what === "journal-failed" && message.startsWith(trouble), "that it says what is free and needed");
  const said = await untilAnswered(() => runProgram(["status", "--config", config]));
  assert.equal(said.code, 2);
  assert.equal(said.err.trim(), `filesync: nothing is found or delivered: ${trouble}; it is looked at again`);
  if (typeof socket !== "string") await socket.until(`STATUS=nothing is found or delivered: ${trouble}`);
  rmSync(world.path("small/ballast2"));
  await late.until(({ what, message }) => what === "delivered" && message.includes("late"), "the late file", 40_000);
  // With room again there is a reserve for the next time.
  rmSync(world.path("small/ballast"));
  await until("the reserve is made again", () => world.size("small/state/reserve") === 2 ** 24, 30_000);
  world.fill("small/ballast");
  const failed = () => late.events.filter(({ what }) => what === "journal-failed").length;
  const before = failed();
  for (let n = 0; n < 600; n++)
    world.file(join("in", `b-rather-long-name-of-a-file-so-that-the-journal-grows-${n}`), `again ${n}`, 2000 + n);
  const arrived = () => late.events.filter(({ what }) => what === "delivered").length;
  await late.until(() => arrived() >= 601, "all files again", 90_000);
  assert.ok(failed() - before <= 1, "the journal failed again and again");
  late.signal("SIGTERM");
  assert.equal(await late.exited, 0);
  assert.equal(assertReceiptsTrue(world.path("small/state"), { out: world.path("out") }).size, 1201);
});

/** Until its socket is there, the daemon has its state directory and does not answer. */
async function untilAnswered(ask: () => ReturnType<typeof runProgram>): ReturnType<typeof runProgram> {
  for (;;) {
    const answer = await ask();
    if (!answer.err.includes("does not answer")) return answer;
  }
}
