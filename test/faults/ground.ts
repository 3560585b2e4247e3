/** A ground station: the bundled FTP server in a process of its own, as an operator runs it. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Program } from "./process.js";

export interface Ground {
  readonly program: Program;
  readonly port: number;
  /** What the user "plane" sees as "/". */
  readonly root: string;
}

/** Starts it below `dir`, with the user plane/secret, on `port` or any free one; `wrap`: as of `Program`. */
export async function startGround(
  dir: string,
  port = 0,
  {
    wrap = [],
    stateDir = "state",
    root = "files",
    limits = {},
    ...more
  }: {
    readonly wrap?: readonly string[];
    readonly stateDir?: string;
    readonly root?: string;
    readonly limits?: object;
    readonly tls?: object;
  } = {},
): Promise<Ground> {
  mkdirSync(dir, { recursive: true });
  const config = join(dir, "ground.json");
  writeFileSync(
    config,
    JSON.stringify({
      vehicle: "ground",
      stateDir,
      spool: { keepFree: "1MiB" },
      services: {
        ftp: {
          type: "ftp-server",
          listen: `127.0.0.1:${port}`,
          root,
          users: { plane: { password: "secret" } },
          limits: { maxPerAddress: 64, maxPerUser: 64, ...limits },
          ...more,
        },
      },
    }),
  );
  const program = new Program(["run", "--json", "--config", config], { wrap });
  const event = await program.until(({ message }) => /listens on 127\.0\.0\.1:\d+/.test(message), "listening");
  return { program, port: Number(/127\.0\.0\.1:(\d+)/.exec(event.message)?.[1]), root: join(dir, root, "plane") };
}
