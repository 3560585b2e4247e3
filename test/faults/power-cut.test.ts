/**
 * Power goes in the middle of a transfer, and everything that was not synced is gone, or zero: the worst that a medium may do. What comes after
 * is counted from the system calls: at most 4 MiB are written again, to the spool and to a local target.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { filesBelow, readLog, recordedCalls, unsynced } from "./campaign/power.js";
import { Program } from "./process.js";
import { Random } from "./random.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "./trees.js";
import { World } from "./world.js";

const traces = spawnSync("strace", ["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "true"]).status === 0;
const skip = traces ? false : "strace is missing, or may not trace here";

for (const worst of ["gone", "zero"] as const)
  test(`power goes in a transfer, what was not synced is ${worst}: little is written again`, { skip }, async (t) => {
    const world = new World(t);
    world.mkdir("out");
    world.file("card/a.BIN", new Random(7).bytes(24_000_000));
    const config = world.config({
      devices: {
        card: { type: "local", dir: "card", inPlace: false, maxRate: "5MiB/s" },
        out: { type: "local", dir: "out" },
      },
      routes: [{ from: "card", to: ["out"], into: "" }],
    });
    const roots = [world.path("state"), world.path("out")];
    const recorded = (name: string, ...args: string[]) =>
      new Program(["run", "--json", ...args, "--config", config], {
        wrap: [
          ...["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-s", "0", "-o", world.path(name)],
          ...["-e", `trace=${recordedCalls}`, "-e", "signal=none"],
        ],
        env: { ...process.env, UV_USE_IO_URING: "0" },
      });
    const first = recorded("first.log");
    await world.partialOf(14_000_000);
    process.kill(Number(readFileSync(`/proc/${first.pid}/task/${first.pid}/children`, "utf8").trim()), "SIGKILL");
    await first.exited;
    const lost = unsynced(readLog(world.path("first.log")), roots, new Set());
    for (const [path, ranges] of lost.bytes) {
      const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
      if (path.endsWith("-shm") || size === 0) continue;
      const from = Math.min(...ranges.map((range) => (range.from < 0 ? size + range.from : range.from)));
      t.diagnostic(`${path.split("/").at(-1)}: ${size - from} of ${size} bytes were not synced`);
      if (worst === "gone") truncateSync(path, from);
      else writeFileSync(path, Buffer.concat([readFileSync(path).subarray(0, from), Buffer.alloc(size - from)]));
    }
    const second = recorded("second.log", "--once");
    assert.equal(await second.exited, 0, second.events.map(({ message }) => message).join("\n"));
    assertSameTree(treeOf(world.path("out")), treeOf(world.path("card")), "the target");
    assertReceiptsTrue(world.path("state"), { out: world.path("out") });
    for (const [name, path] of [
      ["spool", /\/state\/spool\/[0-9a-f]{16}$/],
      ["target", /\/out\/\..*\.part$/],
    ] as const) {
      const wrote = (log: string) => written(readLog(world.path(log)), path);
      const again = wrote("first.log") + wrote("second.log") - 24_000_000;
      t.diagnostic(`${name}: ${again} bytes were written again`);
      assert.ok(again <= 4 * 2 ** 20, `${name}: ${again} bytes were written again`);
    }
    assert.ok(!second.events.some(({ what }) => what === "journal-set-aside"));
    assert.ok(filesBelow(roots).size > 0);
  });

/** The bytes that were written to files whose path is like this. */
function written(log: string, path: RegExp): number {
  let sum = 0;
  const waiting = new Set<string>();
  for (const line of log.split("\n")) {
    const [pid = ""] = line.split(" ", 1);
    const resumed = /<\.\.\. p?write\w* resumed>/.test(line);
    const called = /^\d+ +p?write\w*\(\d+<([^>]*)>/.exec(line)?.[1];
    if (called !== undefined && path.test(called) && line.endsWith("<unfinished ...>")) waiting.add(pid);
    const result = Number(/\) += (\d+)$/.exec(line)?.[1] ?? 0);
    if (called !== undefined && path.test(called)) sum += result;
    else if (resumed && waiting.delete(pid)) sum += result;
  }
  return sum;
}
