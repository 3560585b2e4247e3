/** The real program as a child process: started, watched by its events, killed. */
import { spawn, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { ask } from "../../core/control.js";
import type { Status } from "../../core/status.js";

export const mainJs = fileURLToPath(new URL("../../cli/main.js", import.meta.url));

export interface SeenEvent {
  /** ISO 8601: when it was said. None of a line of text. */
  readonly time?: string;
  readonly level: string;
  readonly what: string;
  readonly message: string;
  readonly facts?: Record<string, unknown>;
}

export class Program {
  static readonly #running = new Set<Program>();
  readonly events: SeenEvent[] = [];
  stderr = "";
  readonly exited: Promise<number | NodeJS.Signals>;
  readonly #child: ChildProcess;
  readonly #watchers = new Set<() => void>();

  /** Kills those that are still running with something of `dir` among their words. */
  static async killBelow(dir: string): Promise<void> {
    await Promise.all(Program.#below(dir).map((program) => program.kill()));
  }

  static runsBelow(dir: string): boolean {
    return Program.#below(dir).length > 0;
  }

  static #below(dir: string): Program[] {
    return [...Program.#running].filter(({ args }) => args.some((arg) => arg.startsWith(dir)));
  }

  constructor(
    readonly args: readonly string[],
    options: { uid?: number; gid?: number; env?: NodeJS.ProcessEnv; wrap?: readonly string[]; cwd?: string } = {},
  ) {
    const [command, ...rest] = [...(options.wrap ?? []), process.execPath, mainJs, ...args];
    this.#child = spawn(command ?? "", rest, {
      stdio: ["ignore", "pipe", "pipe"],
      env: options.env ?? process.env,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.uid === undefined ? {} : { uid: options.uid }),
      ...(options.gid === undefined ? {} : { gid: options.gid }),
    });
    Program.#running.add(this);
    let rest_ = "";
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest_ + text).split("\n");
      rest_ = lines.pop() ?? "";
      for (const line of lines) {
        if (line.startsWith("{")) this.events.push(JSON.parse(line) as SeenEvent);
        else this.events.push({ level: "text", what: "line", message: line });
      }
      for (const watcher of [...this.#watchers]) watcher();
    });
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => (this.stderr += text));
    this.exited = new Promise((resolve) =>
      this.#child.on("close", (code, signal) => {
        Program.#running.delete(this);
        resolve(signal ?? code ?? -1);
        for (const watcher of [...this.#watchers]) watcher();
      }),
    );
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.exited;
  }

  /** How it ended, or that it has not after `ms`; with all that it said. */
  async ending(ms: number): Promise<string> {
    const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), ms).unref());
    const code = await Promise.race([this.exited, late]);
    return `${code === undefined ? "it runs" : `it ended with ${code}`}:\n${this.#said()}`;
  }

  #said(): string {
    return `${this.events.map(({ message }) => message).join("\n")}\n${this.stderr}`;
  }

  /** Waits for an event; throws, with all that was said, when the program ends or `ms` pass before. */
  async until(seen: (event: SeenEvent) => boolean, what: string, ms = 60_000): Promise<SeenEvent> {
    return new Promise((resolve, reject) => {
      let ended = false;
      const look = () => {
        const event = this.events.find(seen);
        if (event !== undefined) done(() => resolve(event));
        else if (ended) done(() => reject(new Error(`it ended before ${what}:\n${this.#said()}`)));
      };
      const timer = setTimeout(() => done(() => reject(new Error(`no ${what} in ${ms} ms:\n${this.#said()}`))), ms);
      const done = (then: () => void) => {
        clearTimeout(timer);
        this.#watchers.delete(look);
        then();
      };
      this.#watchers.add(look);
      void this.exited.then(() => {
        ended = true;
        if (this.#watchers.has(look)) look();
      });
      look();
    });
  }
}

/** Runs to its end; its exit code and what it printed. */
export async function runProgram(
  args: readonly string[],
  options: ConstructorParameters<typeof Program>[1] = {},
): Promise<{ code: number | NodeJS.Signals; out: string; err: string }> {
  const program = new Program(args, options);
  const code = await program.exited;
  return {
    code,
    out: program.events.map((event) => (event.what === "line" ? event.message : JSON.stringify(event))).join("\n"),
    err: program.stderr,
  };
}

/** The daemon is asked itself: a command takes long to start. undefined: none runs. */
export async function statusNow(config: string): Promise<Status | undefined> {
  const { stateDir } = JSON.parse(readFileSync(config, "utf8")) as { stateDir: string };
  return (await ask(resolve(dirname(config), stateDir), { command: "status" }))?.ok as Status | undefined;
}
