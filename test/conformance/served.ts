/** Harnesses of the suites for a plugin at a server: the clauses share one, started at the first, and each gets a directory of its own as its root. */
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { parseIn } from "../../core/options.js";
import type { Device, Plugin, TreePromises } from "../../core/plugin.js";
import { filesBelow } from "./files.js";
import type { SourceHarness, SourceUnderTest } from "./source-under-test.js";
import type { TargetHarness, TargetUnderTest } from "./target-under-test.js";
import type { TestContext } from "./upload.js";

/** A device of a plugin, as a configuration with these options makes it. */
export function deviceOf<T>(plugin: Plugin<T>, options: Readonly<Record<string, unknown>>, ctx: TestContext): Device {
  const parsed = parseIn({ baseDir: "/", env: {} }, plugin.options, options);
  if (!parsed.success) throw new Error(parsed.issues.map((issue) => issue.message).join("; "));
  const device = plugin.device?.(parsed.output, ctx);
  if (device === undefined) throw new Error("the plugin makes no device");
  return device;
}

/** A server to be started. */
export interface ServedKind<S> {
  readonly name: string;
  readonly skip?: string;
  start(): Promise<S>;
}

export interface ServedOptions {
  readonly name?: string;
  readonly known?: Readonly<Record<string, string>>;
  readonly refuses?: Readonly<Record<string, string>>;
  readonly promises?: TreePromises;
}

export interface Served {
  readonly target: TargetHarness;
  readonly source: SourceHarness;
  /** Ends the server. */
  stop(): Promise<void>;
}

type UnderTest = TargetUnderTest & SourceUnderTest;

/** `make`: what is tested, with the directory `dir` as its root, called `name` below the server's. */
export function served<S extends { readonly dir: string; stop(): Promise<void> }>(
  kind: ServedKind<S>,
  options: ServedOptions,
  make: (running: S, dir: string, name: string) => Promise<Omit<UnderTest, "outside">>,
): Served {
  let server: Promise<S> | undefined;
  let count = 0;
  const harness = {
    ...(kind.skip === undefined ? {} : { skip: kind.skip }),
    ...(options.known === undefined ? {} : { known: options.known }),
    make: async (): Promise<UnderTest> => {
      server ??= kind.start();
      const running = await server;
      const name = `root ${count++}`;
      const dir = join(running.dir, name);
      await fs.mkdir(dir);
      // Another user's server must be able to work there.
      const { uid, gid } = await fs.stat(running.dir);
      await fs.chown(dir, uid, gid);
      const made = await make(running, dir, name);
      return {
        ...made,
        outside: async () => (await filesBelow(running.dir)).filter((path) => !path.startsWith(`${name}/`)),
        ...(options.refuses === undefined ? {} : { refuses: options.refuses }),
        ...(options.promises === undefined ? {} : { promises: options.promises }),
        close: async () => {
          await made.close();
          // What a server puts off may still be written.
          await fs.rm(dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
        },
      };
    },
  };
  const name = options.name ?? kind.name;
  return {
    target: { ...harness, name: `target: ${name}` },
    source: { ...harness, name: `source: ${name}` },
    stop: async () => {
      await (await server)?.stop();
    },
  };
}
