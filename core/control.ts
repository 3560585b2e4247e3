/**
 * How the command line asks a running daemon: a socket in the state directory, one JSON line each way per connection. Whoever may write to the
 * state directory may ask. A socket that a killed daemon left behind is replaced at the next start (the state directory's lock is held first).
 */
import { promises as fs, closeSync, openSync } from "node:fs";
import { createConnection, createServer, type Server } from "node:net";
import { join } from "node:path";

const name = "control.sock";
/** A path of a Unix socket has at most 107 bytes; a longer one is reached through an open directory. */
const longestPath = 100;
const answerMs = 10_000;
const longestLine = 1024 * 1024;

export interface ControlRequest {
  readonly command: string;
  readonly argument?: string;
}

/** An error whose message is for the person who asked. */
export class ControlError extends Error {}

export class ControlServer {
  readonly #server: Server;
  readonly #sockets = new Set<{ destroy(): void }>();

  constructor(
    readonly stateDir: string,
    answer: (request: ControlRequest) => unknown,
  ) {
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      // A client that went away does not concern us.
      socket.on("error", () => socket.destroy());
      let text = "";
      socket.setEncoding("utf8").on("data", (part: string) => {
        text += part;
        if (text.length > longestLine) socket.destroy();
        const end = text.indexOf("\n");
        if (end === -1) return;
        const line = text.slice(0, end);
        text = "";
        void Promise.resolve()
          .then(() => answer(JSON.parse(line) as ControlRequest))
          .then(
            (value) => socket.end(`${JSON.stringify({ ok: value ?? null })}\n`),
            (error: unknown) => socket.end(`${JSON.stringify({ error: error instanceof Error ? error.message : String(error) })}\n`),
          );
      });
    });
  }

  async start(): Promise<void> {
    await fs.rm(join(this.stateDir, name), { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      withPath(this.stateDir, (path) => this.#server.listen(path, resolve));
    });
    await fs.chmod(join(this.stateDir, name), 0o660);
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await fs.rm(join(this.stateDir, name), { force: true });
  }
}

/** The answer of the daemon that has this state directory; undefined when none runs. Throws ControlError with its words. */
export async function ask(stateDir: string, request: ControlRequest): Promise<unknown> {
  return new Promise((resolve, reject) => {
    withPath(stateDir, (path) => {
      const socket = createConnection(path);
      let text = "";
      socket.setTimeout(answerMs, () => socket.destroy(new ControlError("the daemon does not answer")));
      socket.on("connect", () => socket.write(`${JSON.stringify(request)}\n`));
      socket.setEncoding("utf8").on("data", (part: string) => (text += part));
      socket.on("error", (error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT" || error.code === "ECONNREFUSED" || error.code === "ENOTDIR") resolve(undefined);
        else if (error.code === "EACCES")
          reject(new ControlError(`permission denied for ${join(stateDir, name)}: run this as the daemon's user`));
        else reject(error);
      });
      socket.on("end", () => {
        try {
          const answer = JSON.parse(text) as { ok?: unknown; error?: string };
          if (answer.error !== undefined) reject(new ControlError(answer.error));
          else resolve(answer.ok);
        } catch {
          reject(new ControlError("the daemon stopped before it answered"));
        }
      });
    });
  });
}

function withPath(stateDir: string, use: (path: string) => void): void {
  const path = join(stateDir, name);
  if (Buffer.byteLength(path) <= longestPath) {
    use(path);
    return;
  }
  let dir: number;
  try {
    dir = openSync(stateDir, "r");
  } catch {
    // Not there: the connection says so.
    use(path.slice(0, longestPath));
    return;
  }
  use(`/proc/self/fd/${dir}/${name}`);
  // The path is resolved by the system call, which comes in this turn of the loop.
  setImmediate(() => closeSync(dir));
}
