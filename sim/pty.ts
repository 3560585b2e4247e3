/**
 * A pseudo-terminal linked at a path: a serial port without hardware. Node cannot make one by itself, so `socat` does it, or the package
 * @lydell/node-pty where that is installed; without either the error says what to install.
 *
 * The terminal outlives its clients (this process keeps it open too), as a USB port does. Pulling the cable removes it: a client sees an
 * I/O error, and finds it again at the same path.
 */
import { spawn } from "node:child_process";
import { close, constants, existsSync, lstatSync, open, symlinkSync, unlinkSync } from "node:fs";
import { promisify } from "node:util";
import { isBack } from "./pulled.js";
import type { Accept, Transport } from "./transport.js";

/** One terminal with its device; gone after `end`. */
interface Terminal {
  write(bytes: Buffer): void;
  end(): Promise<void>;
}

const START_MS = 5000;
const BACKLOG_BYTES = 65_536;

/** Makes the terminal and links it at `path`. Throws where something else is at that path, or no tool makes terminals here. */
export async function openPty(first: string, accept: Accept): Promise<Transport> {
  let path = first;
  if (path === "") throw new Error("pty: needs a path, for example pty:/tmp/ttyDRONE");
  removeLink(path);
  let batch: Buffer[] = [];
  let terminal: Terminal | undefined = await makeTerminal(path, accept());
  /** It is pulled and comes back again and again: what is being made is there before it is taken away. */
  let making: Promise<void> = Promise.resolve();
  let drops = 0;
  let stopped = false;
  async function make(): Promise<void> {
    terminal = await makeTerminal(path, accept());
  }
  async function end(): Promise<void> {
    await making.catch(() => undefined);
    const ending = terminal;
    terminal = undefined;
    await ending?.end();
    removeLink(path);
  }
  return {
    get url() {
      return `pty:${path}`;
    },
    get clientUrl() {
      return `serial://${path}:57600`;
    },
    write(frame) {
      batch.push(frame);
      if (batch.length > 1) return;
      queueMicrotask(() => {
        const bytes = Buffer.concat(batch);
        batch = [];
        terminal?.write(bytes);
      });
    },
    async drop(pulled, at) {
      const nth = ++drops;
      await end();
      path = at ?? path;
      removeLink(path);
      await isBack(pulled);
      if (!stopped && nth === drops) await (making = make());
    },
    async close() {
      stopped = true;
      await end();
    },
  };
}

/** A link that an earlier run left is taken away; anything else is not ours. */
function removeLink(path: string): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSymbolicLink()) throw new Error(`${path} exists and is not a link: choose another path for the pseudo-terminal`);
  unlinkSync(path);
}

async function makeTerminal(path: string, take: (chunk: Buffer) => void): Promise<Terminal> {
  const bySocat = await withSocat(path, take);
  if (bySocat !== undefined) return bySocat;
  const byPackage = await withNodePty(path, take);
  if (byPackage !== undefined) return byPackage;
  throw new Error("a pseudo-terminal needs socat: install it (sudo apt install socat), or use tcpin:// or udpin://");
}

/** Undefined where there is no socat. */
async function withSocat(path: string, take: (chunk: Buffer) => void): Promise<Terminal | undefined> {
  const quoted = path.replace(/[\\:,!"'()[\]{} ]/g, "\\$&");
  const child = spawn("socat", ["-b", "65536", `PTY,rawer,link=${quoted}`, "STDIO"], { stdio: ["pipe", "pipe", "pipe"] });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
  const exited = new Promise<void>((resolve) => child.once("close", () => resolve()));
  let failure: Error | undefined;
  child.on("error", (error) => (failure = error));
  // The pipe breaks when the terminal is taken away; `close` says so.
  child.stdin.on("error", (error) => (failure ??= error));
  for (const until = performance.now() + START_MS; !existsSync(path);) {
    if (failure !== undefined && "code" in failure && failure.code === "ENOENT") return undefined;
    if (child.exitCode !== null || performance.now() > until) {
      child.kill();
      throw new Error(`socat made no pseudo-terminal at ${path}: ${said.trim() || String(failure ?? "no answer")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  // Kept open, because socat ends when the last client leaves; for writing only, so that nobody takes it for a reader of the port.
  const holder = await promisify(open)(path, constants.O_WRONLY | constants.O_NOCTTY | constants.O_NONBLOCK);
  child.stdout.on("data", take);
  return {
    write(bytes) {
      if (child.stdin.writable && child.stdin.writableLength < BACKLOG_BYTES) child.stdin.write(bytes);
    },
    async end() {
      await promisify(close)(holder);
      child.kill();
      await exited;
    },
  };
}

/** Undefined where the package is not installed. */
async function withNodePty(path: string, take: (chunk: Buffer) => void): Promise<Terminal | undefined> {
  let nodePty: typeof import("@lydell/node-pty");
  try {
    nodePty = await import("@lydell/node-pty");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND") return undefined;
    throw error;
  }
  // A shell that does nothing holds the terminal; it says its name once it is raw.
  const shell = nodePty.spawn("/bin/sh", ["-c", "stty raw -echo && tty && exec sleep 2147483647"], { encoding: null });
  const exited = new Promise<void>((resolve) => shell.onExit(() => resolve()));
  const name = await new Promise<string>((resolve) => {
    const first = shell.onData((text) => {
      first.dispose();
      resolve(Buffer.from(text).toString().trim());
    });
  });
  if (!name.startsWith("/dev/")) {
    shell.kill("SIGKILL");
    await exited;
    throw new Error(`no pseudo-terminal could be made: ${name}; install socat (sudo apt install socat)`);
  }
  symlinkSync(name, path);
  // With `encoding: null` these are bytes, whatever the types say.
  shell.onData((chunk) => take(chunk as unknown as Buffer));
  return {
    // It hands bytes on as they are; only its types know no Buffer.
    write: (bytes) => shell.write(bytes as unknown as string),
    async end() {
      shell.kill("SIGKILL");
      await exited;
    },
  };
}
