/**
 * Programs that run for a device, each in a process group of its own: what one of them started goes with it. Nothing outlives `close`. When this
 * process is killed they find their pipes closed, and end by themselves.
 */
import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { once } from "node:events";
import { abortedFault, Fault, throwIfAborted } from "../../core/errors.js";

export type Child = ChildProcessWithoutNullStreams;

/** How a program ended. `code` is that of a shell: 128 and the signal's number where it was killed. */
export interface Ended {
  readonly code: number;
  readonly out: string;
  /** The end of what it said on stderr. */
  readonly err: string;
}

export interface RunOptions {
  readonly signal?: AbortSignal;
  /** What it reads on stdin. */
  readonly input?: Buffer;
  /** Gets what it prints, in place of `out`. */
  readonly onOut?: (text: string) => void;
}

const graceMs = 700;
const mostErr = 65_536;
const mostOut = 2 ** 20;

export class Children {
  readonly #running = new Set<Child>();
  #closed = false;

  /** Starts a program; it speaks English. Names are bytes: texts of its pipes are latin1. */
  start(argv: readonly string[]): Child {
    if (this.#closed) throw new Fault("aborted", "the device is closed");
    const child = spawn("env", ["-u", "SSH_ASKPASS", "LC_ALL=C", ...argv], { detached: true, stdio: "pipe" });
    this.#running.add(child);
    child.once("close", () => this.#running.delete(child));
    // A program that cannot be started ends with a code; one that ended reads no more.
    child.once("error", () => this.#running.delete(child));
    // ssh hands its pipes to the connection that is shared: where a program hangs at the server they stay open when it has ended.
    child.once("exit", () => {
      const letGo = (): void => [child.stdout, child.stderr].forEach((stream) => stream.destroy());
      // What it said is read before, also where this process was busy all the time.
      const timer = setTimeout(() => setImmediate(letGo), graceMs);
      child.once("close", () => clearTimeout(timer));
    });
    for (const stream of [child.stdin, child.stdout, child.stderr]) stream.on("error", () => undefined);
    child.stdout.setEncoding("latin1");
    child.stderr.setEncoding("latin1");
    return child;
  }

  /** Runs a program to its end. Once the signal is given it is stopped, and the signal's Fault thrown when it has ended. */
  async run(argv: readonly string[], { signal, input, onOut }: RunOptions = {}): Promise<Ended> {
    if (signal !== undefined) throwIfAborted(signal);
    const child = this.start(argv);
    let out = "";
    const err = tailOf(child);
    child.stdout.on("data", (text: string) => {
      if (onOut !== undefined) onOut(text);
      else if (out.length < mostOut) out += text;
    });
    child.stdin.end(input);
    const stop = (): void => void endGroup(child);
    signal?.addEventListener("abort", stop, { once: true });
    try {
      const [code, killed] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
      if (signal?.aborted === true) throw abortedFault(signal);
      return { code: code ?? (killed === "SIGKILL" ? 137 : 143), out, err: err() };
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#running].map((child) => endGroup(child)));
  }
}

/** The end of what it says on stderr, so far. */
export function tailOf(child: Child): () => string {
  let tail = "";
  child.stderr.on("data", (text: string) => (tail = (tail + text).slice(-mostErr)));
  return () => tail.trim();
}

/** Ends a program with all that it started: asked first, then made to. Resolves once it is gone. */
export async function endGroup(child: Child): Promise<void> {
  if (child.pid === undefined) return;
  const ended = child.exitCode !== null || child.signalCode !== null ? Promise.resolve() : once(child, "close");
  child.stdin.destroy();
  signalGroup(child.pid, "SIGTERM");
  const timer = setTimeout(() => signalGroup(child.pid ?? 0, "SIGKILL"), graceMs);
  await ended;
  clearTimeout(timer);
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    if (pid > 0) process.kill(-pid, signal);
  } catch {
    // It has ended already.
  }
}
