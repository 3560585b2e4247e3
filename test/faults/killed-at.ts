/**
 * A run that is killed (strace) as one of its threads enters its N-th call of one kind: strace counts each kind, and each thread, by itself. So of a kind that the main thread calls too (SQLite, the
 * control socket) the first calls of the pool are not all met.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { Program } from "./process.js";

/** What makes something durable, or gives a name. */
export const durableCalls = ["fsync", "fdatasync", "rename", "link", "unlink"] as const;
type Call = (typeof durableCalls)[number];

const inject = (call: Call, n: number) => ["-e", `trace=${call}`, "-e", `inject=${call}:signal=KILL:when=${n}`];
const quiet = ["-qq", "-o", "/dev/null"];
const canKill = spawnSync("strace", [...quiet, ...inject("fsync", 1), "true"]).status === 0;

/** For the options of a test. */
export const skipKilledAt = canKill ? {} : { skip: "strace is missing, or may not trace here" };

/** As one of its threads enters that call for the n-th time, of those that name `path` where that is given; false: it came to its end before. */
export async function killedAt(args: readonly string[], call: Call, n: number, path?: string): Promise<boolean> {
  // One thread in the pool, so that the N-th call is the same each time.
  const env = { ...process.env, UV_THREADPOOL_SIZE: "1" };
  const end = await new Program(args, {
    wrap: ["strace", "-f", ...quiet, ...(path === undefined ? [] : ["-P", path]), ...inject(call, n)],
    env,
  }).exited;
  assert.ok(end === 0 || end === "SIGKILL", String(end));
  return end !== 0;
}

/** `before` each run, and `after` each kill, until a run gets to its end (`n` is 0 then), for each kind of call. So many kills of each kind. */
export async function killedAtEach(
  args: readonly string[],
  before: () => void,
  after: (at: string, n: number) => Promise<void>,
): Promise<Record<Call, number>> {
  const kills = { fsync: 0, fdatasync: 0, rename: 0, link: 0, unlink: 0 };
  for (const call of durableCalls)
    for (let n = 1; ; n++) {
      before();
      const killed = await killedAt(args, call, n);
      await after(killed ? `a kill at ${call} ${n}` : "its end", killed ? n : 0);
      if (!killed) break;
      kills[call] += 1;
      assert.ok(n < 200);
    }
  return kills;
}
