/** The disk of the state directory refuses to read the journal, which SQLite calls damage: what it refuses for a moment is none, and what it goes on refusing does not keep the daemon down. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { Program, runProgram } from "./process.js";
import { treeOf } from "./trees.js";
import { World } from "./world.js";

const strace = spawnSync("strace", ["-qq", "-e", "inject=fsync:error=EIO:when=1", "-o", "/dev/null", "true"]).status === 0;
const skip = strace ? false : "strace is missing, or may not trace here";

// Each start of the engine reads twice: SQLite once, and what looks whether that was damage; the one that takes it for lost only once.
for (const [what, reads, aside] of [
  ["for a moment", 5, false],
  ["for 15 s and more", 15, true],
] as const)
  test(`reads of the journal are refused ${what}`, { skip }, async (t) => {
    const world = new World(t);
    for (let n = 0; n < 5; n++) world.file(`in/${n}`, `content ${n}`, n);
    world.mkdir("out");
    const config = world.config({
      devices: { in: { type: "local", dir: "in" }, out: { type: "local", dir: "out" } },
      routes: [{ from: "in", to: ["out"], into: "" }],
    });
    assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
    world.file("in/late", "late", 1000);
    const inject = ["-e", "trace=pread64", "-e", `inject=pread64:error=EIO:when=1..${reads}`];
    // -D: the program is the child, which is to be stopped; strace is a grandchild.
    const wrap = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-P", world.path("state/journal.db"), ...inject];
    const program = new Program(["run", "--json", "--config", config], { wrap });
    t.after(() => program.kill());
    await program.until(({ what, message }) => what === "delivered" && message.includes("late"), "the late file", 90_000);
    const told = program.events.filter(({ what }) => what === "journal-failed").map(({ message }) => message);
    assert.ok(
      told.length > 0 && told.every((message) => message.endsWith("EIO: i/o error, read") || message.includes("it is opened anew")),
      told.join("\n"),
    );
    assert.equal(existsSync(world.path("state/journal.damaged-1.db")), aside);
    assert.equal(program.events.filter(({ what }) => what === "delivered").length, 1);
    assert.deepEqual(treeOf(world.path("out")), treeOf(world.path("in")));
  });
