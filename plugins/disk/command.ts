/** A program of the system, run to its end. */
import { spawn } from "node:child_process";

export interface Ran {
  /** null: it was not there, could not be begun, or was ended by a signal. */
  readonly code: number | null;
  readonly out: string;
  /** What it complained of, or why it did not run, in one line. */
  readonly complaint: string;
}

/** Runs a program of the system with these arguments; never throws. After `ms` it is killed. `input` is what it reads. */
export type RunCommand = (command: string, args: readonly string[], ms?: number) => Promise<Ran>;

const mostMs = 60_000;
const mostText = 4 * 2 ** 20;

export const runCommand: RunCommand = (command, args, ms = mostMs) =>
  new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    let out = "";
    let said = "";
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill("SIGKILL");
    }, ms);
    child.stdout.setEncoding("utf8").on("data", (text: string) => (out = (out + text).slice(0, mostText)));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(0, 2000)));
    const end = (code: number | null, why: string) => {
      clearTimeout(timer);
      resolve({ code, out, complaint: why });
    };
    child.on("error", (error) => end(null, error.message));
    child.on("close", (code) => {
      const text = said.replaceAll(/\s+/g, " ").trim();
      end(code, late ? `${command} did not end within ${ms / 1000} s` : text === "" ? `${command} ended with ${code ?? "a signal"}` : text);
    });
  });
