/**
 * A run that is killed (strace) as one of its threads enters its N-th call of one kind: strace counts each kind, and each thread, by itself. So of a kind that the main thread calls too (SQLite, the
 * control socket) the first calls of the pool are not all met.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import type { TestContext } from "node:test";
import { Program } from "./process.js";
import type { Random } from "./random.js";

/** What makes something durable, or gives a name. */
export const durableCalls = ["fsync", "fdatasync", "rename", "link", "unlink"] as const;
export type Call = (typeof durableCalls)[number];

// Not with --seccomp-bpf: strace 6.1 kills only some then.
const inject = (call: Call, n: number) => ["-e", `trace=${call}`, "-e", `inject=${call}:signal=KILL:when=${n}`];
const quiet = ["-qq", "-o", "/dev/null"];
// One thread in the pool, so that the N-th call is the same each time.
const onePooled = () => ({ ...process.env, UV_THREADPOOL_SIZE: "1" });
const canKill = spawnSync("strace", ["-f", ...quiet, ...inject("fsync", 1), "true"]).status === 0;

/** For the options of a test. */
export const skipKilledAt = canKill ? {} : { skip: "strace is missing, or may not trace here" };

/** As one of its threads enters that call for the n-th time, of those that name `path` where that is given; false: it came to its end before. */
export async function killedAt(args: readonly string[], call: Call, n: number, path?: string): Promise<boolean> {
  const end = await new Program(args, {
    wrap: ["strace", "-f", ...quiet, ...(path === undefined ? [] : ["-P", path]), ...inject(call, n)],
    env: onePooled(),
  }).exited;
  assert.ok(end === 0 || end === "SIGKILL", String(end));
  return end !== 0;
}

const isLong = process.env["FILESYNC_TEST_KILLS"] === "all";
const seed = Number(process.env["FILESYNC_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
assert.ok(Number.isSafeInteger(seed), "FILESYNC_TEST_SEED is no whole number");

/** Behind the third call one of three, which of them the seed says: three seeds in a row take all. */
const isTaken = (n: number): boolean => isLong || n <= 3 || (n + seed) % 3 === 0;

/**
 * `before` each run, and `after` each kill, until a run gets to its end (`n` is 0 then), for each kind of call. So many kills of each kind.
 * `FILESYNC_TEST_KILLS=all` for the long form, `FILESYNC_TEST_SEED` for the calls of a run.
 */
export async function killedAtEach(
  t: TestContext,
  args: readonly string[],
  before: () => void,
  after: (at: string, n: number) => Promise<void>,
): Promise<Record<Call, number>> {
  t.diagnostic(`FILESYNC_TEST_SEED=${seed}`);
  const kills = { fsync: 0, fdatasync: 0, rename: 0, link: 0, unlink: 0 };
  for (const call of durableCalls)
    for (let n = 1; ; n += 1) {
      if (!isTaken(n)) continue;
      before();
      const killed = await killedAt(args, call, n);
      await after(killed ? `a kill at ${call} ${n}` : "its end", killed ? n : 0);
      if (!killed) break;
      kills[call] += 1;
      assert.ok(n < 200);
    }
  return kills;
}

/** A program that goes on until it is told to end, or until that kill. strace is not in between: a signal goes to the program. */
export function killedLater(args: readonly string[], call: Call, n: number): Program {
  return new Program(args, { wrap: ["strace", "-D", "-f", ...quiet, ...inject(call, n)], env: onePooled() });
}

/** The same, not killed: its calls go into `log`, for `drawnFrom`. */
export function countedIn(log: string, args: readonly string[]): Program {
  return new Program(args, {
    wrap: ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", log, "-e", `trace=${durableCalls.join()}`],
    env: onePooled(),
  });
}

/** Where to kill: of the calls that were counted so many of each kind, by chance, in their order. */
export function drawnFrom(log: string, random: Random, most: number): { readonly call: Call; readonly n: number }[] {
  const calls = [...readFileSync(log, "utf8").matchAll(/^(\d+) +(\w+)\(/gm)].map(([, thread = "", call = ""]) => ({ thread, call }));
  return durableCalls.flatMap((call) => {
    const counts = new Map<string, number>();
    for (const { thread } of calls.filter((it) => it.call === call)) counts.set(thread, (counts.get(thread) ?? 0) + 1);
    const left = Array.from({ length: Math.max(0, ...counts.values()) }, (_, index) => index + 1);
    while (left.length > most) left.splice(random.below(left.length), 1);
    return left.map((n) => ({ call, n }));
  });
}
