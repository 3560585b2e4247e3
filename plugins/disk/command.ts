/** A program of the system, run to its end. */
import { spawn } from "node:child_process";

export interface Ran {
  /** null: it was not there, could not be begun, or was ended by a signal. */
  readonly code: number | null;
  readonly out: string;
  /** What it complained of, or why it did not run, in one line. */
  readonly complaint: string;
}

/** Runs a program of the system with these arguments; never throws. After `ms`, and with the signal, it is killed, with what it began. */
export type RunCommand = (command: string, args: readonly string[], ms?: number, signal?: AbortSignal) => Promise<Ran>;

const mostMs = 60_000;
const mostText = 4 * 2 ** 20;

export const runCommand: RunCommand = (command, args, ms = mostMs, signal?: AbortSignal) =>
  new Promise((resolve) => {
    // Of a group of its own, so that all of it can be ended.
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], detached: signal !== undefined });
    const kill = () => {
      if (signal === undefined || child.pid === undefined) child.kill("SIGKILL");
      else process.kill(-child.pid, "SIGKILL");
    };
    signal?.addEventListener("abort", kill, { once: true });
    let out = "";
    let said = "";
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      kill();
    }, ms);
    child.stdout.setEncoding("utf8").on("data", (text: string) => (out = (out + text).slice(0, mostText)));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(0, 2000)));
    const end = (code: number | null, why: string) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", kill);
      resolve({ code, out, complaint: why });
    };
    child.on("error", (error) => end(null, error.message));
    child.on("close", (code) => {
      const text = said.replaceAll(/\s+/g, " ").trim();
      end(code, late ? `${command} did not end within ${ms / 1000} s` : text === "" ? `${command} ended with ${code ?? "a signal"}` : text);
    });
  });
