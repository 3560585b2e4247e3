/**
 * A door at work, and what vehicles and attackers have: ssh and rsync. Where the tests run as root the door runs as an ordinary user, of whom only its own processes know: its
 * account is in a list of accounts that is mounted for them alone. Where that cannot be had it runs as who runs the tests.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { DoorOptions } from "../../plugins/registry/door.js";
import type { Said } from "../conformance/upload.js";

const driver = fileURLToPath(new URL("door-driver.js", import.meta.url));

/** Why no door can be tried here. */
export function whyNoDoor(): string | undefined {
  const missing = ["/usr/sbin/sshd", "/usr/bin/rrsync", "/usr/bin/ssh", "/usr/bin/setpriv"].filter((it) => !existsSync(it));
  return missing.length === 0 ? undefined : `${missing.join(", ")} is not installed`;
}

/** Whether accounts of our own can be had: root, who may mount. */
export const canBeAnother = process.getuid?.() === 0 && spawnSync("unshare", ["--mount", "true"]).status === 0;

export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ran>;
}

/** Runs a program; what it says is bytes as latin1. It is killed after a minute. */
export function begin(argv: readonly string[], input?: string | Buffer): Running {
  const [program = "", ...words] = argv;
  const child = spawn(program, words, { stdio: "pipe", env: { ...process.env, LC_ALL: "C" }, timeout: 60_000, killSignal: "SIGKILL" });
  let [out, err] = ["", ""];
  child.stdout.setEncoding("latin1").on("data", (text: string) => (out += text));
  child.stderr.setEncoding("latin1").on("data", (text: string) => (err += text));
  child.stdin.on("error", () => undefined);
  if (input !== undefined) child.stdin.end(input);
  const ended = once(child, "close").then(([code]) => ({ code: code as number | null, out, err }));
  return { child, ended };
}

export function run(argv: readonly string[], input: string | Buffer = ""): Promise<Ran> {
  return begin(argv, input).ended;
}

export async function until(what: string, test: () => boolean | Promise<boolean>, ms = 30_000): Promise<void> {
  const endMs = performance.now() + ms;
  while (!(await test())) {
    if (performance.now() > endMs) throw new Error(`${what} did not come true within ${ms} ms`);
    await delay(20);
  }
}

interface Answer {
  readonly value?: unknown;
  readonly fault?: string;
  readonly message?: string;
}

export interface How {
  /** Its shell, where it is an account of our own. */
  readonly shell?: string;
  /** Below which directory; where temporary files are. */
  readonly below?: string;
  readonly options?: Partial<DoorOptions>;
  /** As who runs the tests, whatever can be had. */
  readonly asWeAre?: true;
}

const doors = new WeakMap<TestContext, DoorAtWork[]>();

/**
 * A door of a test, which has to leave nothing. All of them are ended by one hook, also what is left of one: where a hook fails node runs none that follows, and a door that goes on keeps the file
 * from ending.
 */
export function doorIn(t: TestContext, how: How = {}): DoorAtWork {
  const door = new DoorAtWork(how);
  const others = doors.get(t);
  if (others !== undefined) others.push(door);
  else {
    const all = [door];
    doors.set(t, all);
    t.after(async () => {
      const ends = await Promise.allSettled(all.map((it) => it.end()));
      assert.deepEqual(
        ends.flatMap((end) => (end.status === "fulfilled" ? end.value : [String(end.reason)])),
        [],
      );
    });
  }
  return door;
}

export class DoorAtWork {
  readonly base: string;
  readonly dir: string;
  readonly said: Said[] = [];
  readonly #uid: number;
  readonly #another: boolean;
  readonly #options: DoorOptions;
  readonly #shell: string;
  readonly #answers = new Map<number, (answer: Answer) => void>();
  #child: ChildProcess | undefined;
  #asked = 0;
  port = 0;
  user = "";

  constructor({ shell = "/bin/sh", below = tmpdir(), options = {}, asWeAre }: How = {}) {
    this.base = mkdtempSync(join(below, "filesync-door-"));
    chmodSync(this.base, 0o755);
    this.#another = canBeAnother && asWeAre !== true;
    this.#uid = this.#another ? randomInt(40_000, 60_000) : userInfo().uid;
    this.dir = join(this.makeDir("state"), "door");
    this.#shell = shell;
    this.#options = { listen: { host: "127.0.0.1", port: 0 }, dir: this.dir, ...options };
  }

  /** Of the door's account. */
  makeDir(name: string): string {
    const dir = join(this.base, name);
    mkdirSync(dir, { recursive: true });
    chownSync(dir, this.#uid, this.#uid);
    return dir;
  }

  writeFile(name: string, content: string, mode = 0o644): string {
    const file = join(this.base, name);
    writeFileSync(file, content, { mode });
    chownSync(file, this.#uid, this.#uid);
    return file;
  }

  /** As the door's account. */
  as(words: readonly string[]): string[] {
    return this.#another ? ["setpriv", `--reuid=${this.#uid}`, `--regid=${this.#uid}`, "--clear-groups", ...words] : [...words];
  }

  /** A process of the door, which has not started yet. */
  launch(): void {
    const words = [process.execPath, driver, JSON.stringify(this.#options)];
    let argv = words;
    if (this.#another) {
      // A directory: what is mounted over a file goes once somebody else renames another one over that.
      const etc = join(this.base, "etc");
      const isNew = mkdirSync(etc, { recursive: true }) !== undefined;
      for (const name of ["group", "nsswitch.conf", "hosts", "ld.so.cache", "alternatives"])
        if (isNew && existsSync(`/etc/${name}`)) cpSync(`/etc/${name}`, join(etc, name), { recursive: true, verbatimSymlinks: true });
      const line = `fsdoor:x:${this.#uid}:${this.#uid}::${this.makeDir("home")}:${this.#shell}\n`;
      writeFileSync(join(etc, "passwd"), `${readFileSync("/etc/passwd", "utf8")}${line}`);
      const mounts = [[etc, "/etc"]];
      // Another version of rsync, where one is given.
      const other = process.env["FILESYNC_TEST_RSYNC"];
      if (other !== undefined) for (const name of ["rsync", "rrsync"]) mounts.push([join(other, name), `/usr/bin/${name}`]);
      const script = mounts.map(([from = "", to = ""]) => `mount --bind '${from}' '${to}'`).join(" && ");
      argv = ["unshare", "--mount", "sh", "-c", `${script} && exec "$@"`, "sh"];
      argv.push(...this.as(words));
    }
    const [program = "", ...rest] = argv;
    const child = spawn(program, rest, { stdio: ["pipe", "pipe", "inherit"], cwd: "/", env: { PATH: process.env["PATH"] } });
    this.#child = child;
    child.stdin.on("error", () => undefined);
    child.once("close", () => {
      for (const answer of this.#answers.values()) answer({ fault: "ended", message: "the door's process has ended" });
    });
    createInterface({ input: child.stdout }).on("line", (line) => {
      const it = JSON.parse(line) as { said?: Said; id?: number } & Answer;
      if (it.said !== undefined) this.said.push(it.said);
      if (it.id !== undefined) this.#answers.get(it.id)?.(it);
    });
  }

  /** Rejects where its process has ended. */
  async ask(call: string, ...args: readonly unknown[]): Promise<unknown> {
    const child = this.#child;
    if (child === undefined || hasEnded(child)) throw new Error("the door's process has ended");
    const id = ++this.#asked;
    const answered = new Promise<Answer>((resolve) => {
      this.#answers.set(id, resolve);
    });
    child.stdin?.write(`${JSON.stringify({ id, call, args })}\n`);
    const { value, fault, message } = await answered;
    this.#answers.delete(id);
    if (fault !== undefined) throw Object.assign(new Error(message), { fault });
    return value;
  }

  async start(): Promise<void> {
    if (this.#child === undefined) this.launch();
    await this.ask("start");
    const facts = (await this.ask("facts")) as { port: number; user: string; hostKey: { line: string } };
    this.port = facts.port;
    this.user = facts.user;
    writeFileSync(join(this.base, "known_hosts"), `[127.0.0.1]:${this.port},door ${facts.hostKey.line}\n`);
  }

  /** Makes a key; its public line. */
  key(name: string, type = "ed25519"): string {
    const file = join(this.base, `${name}.key`);
    if (!existsSync(file)) execFileSync("ssh-keygen", ["-q", "-t", type, "-N", "", "-C", name, "-f", file]);
    return readFileSync(`${file}.pub`, "utf8").trim();
  }

  /** What a vehicle has registered, and a slot of its own that is open. */
  async admit(...vehicles: readonly string[]): Promise<void> {
    await this.ask(
      "setKeys",
      vehicles.map((vehicle) => ({ vehicle, publicKey: this.key(vehicle) })),
    );
    for (const vehicle of vehicles) await this.ask("open", vehicle, this.makeDir(`slots-${vehicle}`));
  }

  slot(vehicle: string, name = ""): string {
    return join(this.base, `slots-${vehicle}`, name);
  }

  /** ssh as a vehicle, with options of its own before the host. */
  ssh(vehicle: string, ...options: readonly string[]): string[] {
    const known = join(this.base, "known_hosts");
    const own = ["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=yes", `UserKnownHostsFile=${known}`, "ConnectTimeout=60"];
    const words = ["ssh", "-F", "none", "-i", join(this.base, `${vehicle}.key`), ...own.flatMap((it) => ["-o", it])];
    return [...words, "-p", String(this.port), ...options];
  }

  get host(): string {
    return `${this.user}@127.0.0.1`;
  }

  rsync(vehicle: string, ...words: readonly string[]): string[] {
    return ["rsync", "-e", this.ssh(vehicle).join(" "), "--timeout=30", ...words];
  }

  /** What runs of this door beside its process: their names. Only where it has an account of its own, else of its sessions alone. */
  left(): string[] {
    const names: string[] = [];
    for (const pid of readdirSync("/proc").filter((it) => /^\d+$/.test(it) && Number(it) !== this.#child?.pid))
      try {
        const status = readFileSync(`/proc/${pid}/status`, "utf8");
        if (/^State:\s+Z/m.test(status)) continue;
        const ours = this.#another
          ? new RegExp(`^Uid:\\s+${this.#uid}\\b`, "m").test(status)
          : readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(`FILESYNC_DOOR=${this.dir}`);
        const words = readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ");
        // Without words it has given its memory back, and is about to be a zombie.
        if (ours && words !== "") names.push(`${/^Name:\s+(\S+)/m.exec(status)?.[1] ?? "?"} ${words}`);
      } catch {
        // It has gone.
      }
    return names;
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    const ended = once(child, "close");
    child.kill("SIGKILL");
    await ended;
  }

  /** Ends it well, and takes all of it away. What was left running. Rejects where it had ended by itself. */
  async end(): Promise<string[]> {
    const child = this.#child;
    try {
      if (child === undefined) return [];
      const ended = hasEnded(child) ? undefined : once(child, "close");
      try {
        await this.ask("close");
        return this.left();
      } finally {
        child.stdin?.end();
        await ended;
      }
    } finally {
      rmSync(this.base, { recursive: true });
    }
  }
}

const hasEnded = ({ exitCode, signalCode }: ChildProcess) => exitCode !== null || signalCode !== null;
