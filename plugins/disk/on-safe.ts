/** The command of a person's that is run when a disk may be pulled (`onSafe`). */
import type { PluginContext } from "../../core/plugin.js";
import type { RunCommand } from "../../core/program.js";

const mostMs = 60_000;

export class OnSafe {
  readonly #over = new AbortController();
  #last: Promise<void> = Promise.resolve();

  /** `command`: the program, then its arguments; undefined: there is none. */
  constructor(
    readonly command: readonly string[] | undefined,
    readonly context: PluginContext,
    readonly run: RunCommand,
  ) {}

  /** One after another. What it complains of is said. */
  begin(medium: string): void {
    const [program, ...args] = this.command ?? [];
    if (program === undefined) return;
    const { context, run } = this;
    const { signal } = this.#over;
    this.#last = this.#last.then(async () => {
      if (signal.aborted) return;
      const { code, complaint } = await run(program, args, mostMs, signal, {
        env: { FILESYNC_DEVICE: context.name, FILESYNC_MEDIUM: medium },
      });
      if (code !== 0 && !signal.aborted) context.say("warn", `"onSafe" failed: ${complaint}`);
    });
  }

  /** What runs is ended. */
  async close(): Promise<void> {
    this.#over.abort();
    await this.#last;
  }
}
