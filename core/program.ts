/** A program of the system, run to its end. */
import { spawn } from "node:child_process";
import { codeOf } from "./errors.js";

export interface Ran {
  /** null: it was not there, could not be begun, or was ended by a signal. */
  readonly code: number | null;
  readonly out: string;
  /** What it complained of, or why it did not run, in one line. */
  readonly complaint: string;
}

export interface HowToRun {
  /** Added to the environment of the daemon. */
  readonly env?: Readonly<Record<string, string>>;
  /** What it may read on stdin; it need not. */
  readonly input?: string;
  /** It is asked to end (TERM), and killed only so long after that; 0: killed at once. */
  readonly graceMs?: number;
}

/** Runs a program of the system with these arguments; never throws. After `ms`, and with the signal, it is ended, with what it began (where a signal is given). */
export type RunCommand = (command: string, args: readonly string[], ms?: number, signal?: AbortSignal, how?: HowToRun) => Promise<Ran>;

const mostMs = 60_000;
const mostText = 4 * 2 ** 20;
/** Whoever gives the signal waits for the end. */
const stopGraceMs = 1000;
/** The kernel takes no longer text in an environment than 128 KiB. */
const longestVariable = 8192;

export const runCommand: RunCommand = (command, args, ms = mostMs, signal, { env = {}, input, graceMs = 0 } = {}) =>
  new Promise((resolve) => {
    const never = (error: unknown) => resolve({ code: null, out: "", complaint: error instanceof Error ? error.message : String(error) });
    if (signal?.aborted === true) {
      never(new Error(`${command} was not begun`));
      return;
    }
    const variables = Object.entries(env).map(([name, value]) => `${name}=${value.replaceAll("\0", "").slice(0, longestVariable)}`);
    const [program, ...words] = variables.length === 0 ? [command, ...args] : ["env", ...variables, command, ...args];
    try {
      // Of a group of its own, so that all of it can be ended.
      const child = spawn(program, words, {
        stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
        detached: signal !== undefined,
      });
      child.on("error", (error) => end(null, error.message));
      let out = "";
      let said = "";
      let late = false;
      let killing: NodeJS.Timeout | undefined;
      const send = (what: NodeJS.Signals) => {
        if (signal === undefined || child.pid === undefined) child.kill(what);
        else signalGroup(child.pid, what);
      };
      const kill = () => {
        send("SIGKILL");
        // What left its group may still hold them open.
        child.stdout?.destroy();
        child.stderr?.destroy();
      };
      const stop = (grace: number) => {
        clearTimeout(killing);
        if (grace === 0) kill();
        else {
          send("SIGTERM");
          killing = setTimeout(kill, grace);
        }
      };
      const onAbort = () => stop(Math.min(graceMs, stopGraceMs));
      signal?.addEventListener("abort", onAbort, { once: true });
      const timer = setTimeout(() => {
        late = true;
        stop(graceMs);
      }, ms);
      const end = (code: number | null, why: string) => {
        clearTimeout(timer);
        clearTimeout(killing);
        signal?.removeEventListener("abort", onAbort);
        resolve({ code, out, complaint: why });
      };
      child.stdout?.setEncoding("utf8").on("data", (text: string) => (out = (out + text).slice(0, mostText)));
      child.stderr?.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(0, 2000)));
      // Who ends without reading it all needs no more of it.
      child.stdin?.on("error", () => undefined).end(input);
      child.on("close", (code) => {
        const text = said.replaceAll(/\s+/g, " ").trim();
        end(
          code,
          late ? `${command} did not end within ${ms / 1000} s` : text === "" ? `${command} ended with ${code ?? "a signal"}` : text,
        );
      });
    } catch (error) {
      // No memory, or arguments that are too long.
      never(error);
    }
  });

function signalGroup(group: number, what: NodeJS.Signals): void {
  try {
    process.kill(-group, what);
  } catch (error) {
    // All of it has ended meanwhile.
    if (codeOf(error) !== "ESRCH") throw error;
  }
}
