/** One life of the daemon: started plain, under a tracer, or under a clock that can be set; and how it ends. */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { clockEnv, hasFakeClock } from "../fake-clock.js";
import type { Random } from "../random.js";
import { Program } from "../process.js";
import { recordedCalls } from "./power.js";
import type { PlannedLife } from "./schedule.js";

/** Calls at whose N-th use by a thread the program is killed: `[calls, the most that N may be]`. */
const killable: readonly (readonly [string, number])[] = [
  ["fsync", 4],
  ["fdatasync", 10],
  ["rename", 2],
  ["link", 2],
  ["unlink", 3],
  ["pwrite64", 25],
  ["ftruncate", 1],
];

export class Life {
  readonly program: Program;
  /** What the tracer writes in a life that ends with a power cut. */
  readonly log: string;
  readonly call: string | undefined;
  readonly #clock: string;

  constructor(config: string, dir: string, plan: PlannedLife, random: Random) {
    this.log = join(dir, "calls.log");
    this.#clock = join(dir, "clock");
    rmSync(this.log, { force: true });
    let wrap: string[] = [];
    if (plan.ending === "power cut")
      wrap = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-s", "0", "-o", this.log, "-e", `trace=${recordedCalls}`, "-e", "signal=none"];
    if (plan.ending === "killed at a call") {
      const [call, most] = random.pick(killable);
      const when = random.between(1, most + 1);
      this.call = `${call} ${when}`;
      // Not with --seccomp-bpf: strace 6.1 kills only some then.
      wrap = ["strace", "-f", "-qq", "-o", "/dev/null"];
      wrap.push("-e", `trace=${call}`, "-e", `inject=${call}:signal=KILL:when=${when}`);
    }
    const env: NodeJS.ProcessEnv = { ...process.env, UV_USE_IO_URING: "0" };
    // One thread: then the N-th call is the N-th of the program, and a log of calls has no two at once.
    if (plan.ending === "killed at a call" || random.next() < 0.5) env.UV_THREADPOOL_SIZE = "1";
    if (plan.clock && hasFakeClock) Object.assign(env, clockEnv(this.#clock));
    this.program = new Program(["run", "--json", "--config", config], { wrap, env });
  }

  get ended(): boolean {
    return this.#ended;
  }
  #ended = false;

  /** Resolves when it ends by itself, or after `ms`. */
  async lives(ms: number): Promise<void> {
    const timer = new AbortController();
    void this.program.exited.then(() => (this.#ended = true));
    await Promise.race([this.program.exited, sleep(ms, undefined, { signal: timer.signal }).catch(() => undefined)]);
    timer.abort();
  }

  /** The process of the daemon itself, which a tracer may have started; 0 when there is none (any more). */
  get pid(): number {
    const { pid } = this.program;
    if (!isTracer(pid)) return this.#ended ? 0 : pid;
    try {
      return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ")[0] ?? 0);
    } catch {
      return 0;
    }
  }

  setClock(offset: string): void {
    writeFileSync(this.#clock, offset);
  }

  signal(signal: NodeJS.Signals): boolean {
    const { pid } = this;
    if (pid === 0) return false;
    try {
      process.kill(pid, signal);
      return true;
    } catch {
      return false;
    }
  }

  async kill(): Promise<void> {
    // The daemon, not its tracer: that would only let it go.
    while (!this.#ended) {
      if (!this.signal("SIGKILL") && !isTracer(this.program.pid)) break;
      await this.lives(50);
    }
    await this.program.exited;
  }
}

function isTracer(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "strace";
  } catch {
    return false;
  }
}

/** Makes calls of a running process on some files fail for a while; resolves with how many failed. */
export async function failCalls(
  pid: number,
  files: readonly string[],
  options: { calls: string; errno: string; when: string; forMs: number; log: string },
): Promise<number> {
  rmSync(options.log, { force: true });
  const paths = files.flatMap((file) => ["-P", file]);
  const what = ["-e", `trace=${options.calls}`, "-e", `inject=${options.calls}:error=${options.errno}:when=${options.when}`];
  const tracer: ChildProcess = spawn("strace", ["-f", "-qq", "-p", String(pid), ...paths, ...what, "-o", options.log], { stdio: "ignore" });
  const ended = new Promise<void>((resolve) => tracer.once("close", () => resolve()));
  await Promise.race([ended, sleep(options.forMs)]);
  // It lets the process go, and ends; one that waits for a thread that was killed meanwhile does not.
  tracer.kill("SIGTERM");
  const stuck = setTimeout(() => tracer.kill("SIGKILL"), 5000);
  await ended;
  clearTimeout(stuck);
  return existsSync(options.log) ? readFileSync(options.log, "utf8").split("(INJECTED)").length - 1 : 0;
}

/** Files of a directory by a pattern, with their full paths. */
export function filesLike(dir: string, pattern: RegExp): string[] {
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { recursive: true, encoding: "utf8" })
    .filter((name) => pattern.test(name))
    .map((name) => join(dir, name));
}
