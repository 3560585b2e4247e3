/** Kills a daemon at random moments, start-up and shut-down included, until everything has arrived; then asks the checker. */
import { setTimeout as sleep } from "node:timers/promises";
import { Program } from "./process.js";
import type { Random } from "./random.js";

export interface KillReport {
  readonly kills: number;
  /** Kills that came before the program said that it was ready. */
  readonly early: number;
  /** Kills while it was stopping. */
  readonly stopping: number;
}

/** `afterKill` is called after each kill, with its number. Ends with a run of `--once` that has to exit with 0. */
export async function killOften(
  config: string,
  random: Random,
  options: { kills: number; longestMs: number; afterKill?: (n: number) => Promise<void> | void },
): Promise<KillReport> {
  let early = 0;
  let stopping = 0;
  for (let n = 0; n < options.kills; n++) {
    const program = new Program(["run", "--json", "--config", config]);
    // A third dies while it starts or just after; the rest in the middle of work.
    const waitMs = random.next() < 0.3 ? random.between(0, 400) : random.between(300, options.longestMs);
    await sleep(waitMs);
    if (random.next() < 0.2) {
      program.signal("SIGTERM");
      stopping += 1;
      await sleep(random.between(0, 60));
    }
    await program.kill();
    if (!program.events.some(({ what }) => what === "ready")) early += 1;
    if (program.stderr.includes("internal error")) throw new Error(program.stderr);
    await options.afterKill?.(n);
  }
  const last = new Program(["run", "--once", "--json", "--config", config]);
  const code = await last.exited;
  if (code !== 0)
    throw new Error(`the last run ended with ${code}:\n${last.events.map(({ message }) => message).join("\n")}\n${last.stderr}`);
  return { kills: options.kills, early, stopping };
}
