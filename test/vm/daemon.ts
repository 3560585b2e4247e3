/** The project as it is installed in a machine, run by systemd, and watched from outside by what the observer (observer.ts) prints. */
import { spawnSync, type ChildProcess } from "node:child_process";
import { copyFileSync, createReadStream, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { SeenEvent } from "../faults/process.js";
import type { Machine } from "./machine.js";

export const root = fileURLToPath(new URL("../../..", import.meta.url));
/** As deploy-filesync.sh has it. */
const home = "/opt/filesync/current";
const stateDir = "/var/lib/filesync";
const unit = "filesync.service";

export interface Transfer {
  readonly from: string;
  readonly to: string;
  readonly path: string;
  readonly offset: number;
  readonly size: number;
}

/** What the observer saw; `t`: ms of the machine's own clock. */
export type Seen = { readonly t: number } & (
  | { readonly seen: "block"; readonly by: "kernel" | "udev"; readonly action: string; readonly node: string; readonly uuid?: string }
  | { readonly seen: "hint"; readonly uuids: readonly string[] }
  | { readonly seen: "said"; readonly event: SeenEvent }
  | {
      readonly seen: "moved";
      readonly pulled: number;
      readonly pushed: number;
      readonly queue: { readonly waiting: number; readonly active: number; readonly parked: number; readonly delivered: number };
      readonly transfers: readonly Transfer[];
    }
  | { readonly seen: "ready" | "unanswered" }
);

/** Puts the package, as npm packs it, and the dependencies of its lock file into the machine: to be run by root, without all that deploy-filesync.sh does. */
export async function install(machine: Machine): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-pack-"));
  try {
    run("npm", ["pack", "--ignore-scripts", "--loglevel=error", "--pack-destination", dir], root);
    const [tarball = ""] = readdirSync(dir);
    run("tar", ["-xzf", tarball], dir);
    const unpacked = join(dir, "package");
    copyFileSync(join(root, "package-lock.json"), join(unpacked, "package-lock.json"));
    run("npm", ["ci", "--omit=dev", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"], unpacked);
    await machine.put(unpacked, home);
    await putObserver(machine);
  } finally {
    rmSync(dir, { recursive: true });
  }
  const service = [
    ...["[Unit]", "Description=FileSync", "StartLimitIntervalSec=0"],
    ...["[Service]", `ExecStart=/usr/bin/node ${home}/dist/cli/main.js run --json --config /etc/filesync/config.json`, "Restart=always"],
    ...["[Install]", "WantedBy=multi-user.target", ""],
  ];
  await machine.writeFile(`/etc/systemd/system/${unit}`, service.join("\n"));
  // What was installed has to be on the disk before the power is cut.
  await machine.must("mkdir -p /etc/filesync && systemctl daemon-reload && sync");
}

/** Beside the program that is installed, whose files it uses. */
export async function putObserver(machine: Machine): Promise<void> {
  const path = "dist/test/vm/observer.js";
  await machine.must(`mkdir -p ${home}/dist/test/vm && cat >${home}/${path}`, createReadStream(join(root, path)));
}

export function run(command: string, args: readonly string[], cwd: string): void {
  // What npm sets for its own scripts must not reach the npm that is started here.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith("npm_") || name.startsWith("npm_config_")),
  );
  const { status, stderr, error } = spawnSync(command, args, { cwd, encoding: "utf8", env });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${error?.message ?? stderr.trim()}`);
}

export class Daemon {
  /** In the order of their coming; those of a journal that was read again (after a power cut) are of the new life only. */
  seen: Seen[] = [];
  readonly #watchers = new Set<() => void>();
  #observer: ChildProcess | undefined;
  #why: string | undefined;

  constructor(readonly machine: Machine) {}

  /** With a fresh state; it starts at each boot from now on. `config` lacks `stateDir`. */
  async start(config: object): Promise<void> {
    await this.stop();
    this.seen = [];
    await this.machine.must(`rm -rf ${stateDir} && mkdir -p ${stateDir}`);
    const uptime = await this.machine.must("cat /proc/uptime");
    await this.machine.writeFile("/etc/filesync/config.json", JSON.stringify({ vehicle: "v", stateDir, ...config }));
    await this.observe(Number(uptime.split(" ")[0]) * 1000);
    await this.machine.must(`systemctl -q enable ${unit} && sync && systemctl start ${unit}`);
    await this.until(({ message }) => message.includes("is ready"), "that the daemon is ready");
  }

  /** Again after a boot; what was said before `since` is another's. */
  async observe(since = 0): Promise<void> {
    this.#observer?.kill();
    this.#why = undefined;
    const child = this.machine.follow(
      `exec $(command -v node || echo ${home}/node/bin/node) ${home}/dist/test/vm/observer.js ${stateDir} ${unit} ${since}`,
    );
    this.#observer = child;
    let errors = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (errors += text));
    child.on("close", () => {
      if (this.#observer === child) this.#why = `the observer ended: ${errors.trim()}`;
      this.#wake();
    });
    const from = this.seen.length;
    if (child.stdout === null) throw new Error("the observer has no output");
    createInterface({ input: child.stdout }).on("line", (line) => {
      this.seen.push(JSON.parse(line) as Seen);
      this.#wake();
    });
    await this.watch(() => this.seen.slice(from).some(({ seen }) => seen === "ready"), "the observer");
  }

  async stop(): Promise<void> {
    const observer = this.#observer;
    this.#observer = undefined;
    observer?.kill();
    await this.machine.must(`systemctl -q disable --now ${unit} 2>/dev/null || true`);
  }

  get events(): SeenEvent[] {
    return this.seen.flatMap((one) => (one.seen === "said" ? [one.event] : []));
  }

  /** How it stands with what moves. */
  get moved(): (Seen & { seen: "moved" }) | undefined {
    return this.seen.findLast((one): one is Seen & { seen: "moved" } => one.seen === "moved");
  }

  /** Waits for an event that comes (or came) after the first `from` of what was seen. */
  until(wanted: (event: SeenEvent) => boolean, what: string, from = 0, ms = 60_000): Promise<void> {
    return this.watch(() => this.seen.slice(from).some((one) => one.seen === "said" && wanted(one.event)), what, ms);
  }

  /** Waits until it is so; throws, with the last that was said, when it is not within `ms`. */
  watch(isSo: () => boolean, what: string, ms = 60_000): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (error?: Error) => {
        clearTimeout(timer);
        this.#watchers.delete(look);
        if (error === undefined) resolve();
        else reject(error);
      };
      const look = () => {
        if (isSo()) end();
        else if (this.#why !== undefined) end(new Error(`${this.#why}, before ${what}`));
      };
      const timer = setTimeout(
        () => end(new Error(`not within ${ms / 1000} s: ${what}; the last that was said:\n${this.#lastWords()}`)),
        ms,
      );
      this.#watchers.add(look);
      look();
    });
  }

  #lastWords(): string {
    return this.events
      .slice(-15)
      .map(({ what, message }) => `    ${what}: ${message}`)
      .join("\n");
  }

  #wake(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }
}
