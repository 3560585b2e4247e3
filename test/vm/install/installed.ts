/** A machine that FileSync is installed in, with an autopilot (`sim`, outside) behind a serial port over USB, and what is asked of it there. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Status } from "../../../core/status.js";
import { mainJs } from "../../faults/process.js";
import { Random } from "../../faults/random.js";
import { treeOf } from "../../faults/trees.js";
import { Daemon, root, run } from "../daemon.js";
import { compare, type Given, Results } from "../evidence.js";
import type { Machine } from "../machine.js";
import { pause } from "../sessions.js";
import { type Tree, treeIn } from "../sticks.js";

export interface InstallGiven extends Given {
  /** Power cuts at random moments of work; upgrades have a fifth of it. */
  readonly cuts: number;
  /** How long it is watched while it has nothing to do. */
  readonly idleMinutes: number;
}

export const mib = 2 ** 20;
/** What an interruption may cost. */
export const mostAgain = 4 * mib;
export const unit = "filesync.service";
export const deploy = "/root/filesync/deploy/deploy-filesync.sh";
export const port = "/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_autopilot-if00-port0";

export class Installed {
  readonly results: Results;
  readonly random: Random;
  readonly daemon: Daemon;
  readonly #logs: string;
  #sim: ChildProcess | undefined;
  port = { name: "autopilot", port: 0 };
  #flights = 0;
  /** What the machine had before anything was installed. */
  before = "";

  constructor(
    readonly machine: Machine,
    readonly given: InstallGiven,
    readonly dir: string,
  ) {
    this.results = new Results(given.say);
    this.random = new Random(given.seed);
    this.daemon = new Daemon(machine);
    this.#logs = join(dir, "card");
  }

  /** The archive goes into the machine, which is made as bare as one from the shop; the autopilot is plugged. */
  async prepare(): Promise<void> {
    run("bash", [join(root, "deploy/make-bundle.sh"), "--arch", "x64", "--out", this.dir], root);
    const [archive = ""] = readdirSync(this.dir).filter((name) => name.endsWith(".tar.gz"));
    await this.machine.must(
      "mkdir -p /root/filesync && tar -xz --strip-components=1 -C /root/filesync",
      createReadStream(join(this.dir, archive)),
    );
    await this.machine.must("rm -f /usr/bin/node /usr/local/bin/node && ! command -v node");
    mkdirSync(join(this.#logs, "fs/microsd/log"), { recursive: true });
    this.fly(3 * mib);
    const sim = spawn(process.execPath, [mainJs, "sim", "--dir", this.#logs, "--listen", "tcpin://127.0.0.1:0"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#sim = sim;
    const [line] = (await once(createInterface({ input: sim.stdout }), "line")) as [string];
    const at = /listening on tcpin:\/\/127\.0\.0\.1:(\d+)/.exec(line)?.[1];
    if (at === undefined) throw new Error(`the simulated autopilot said: ${line}`);
    this.port = { name: "autopilot", port: Number(at) };
    await this.machine.plugPort(this.port);
    this.before = await this.files();
  }

  async close(): Promise<void> {
    if (this.#sim === undefined) return;
    const closed = once(this.#sim, "close");
    this.#sim.kill("SIGKILL");
    await closed;
  }

  config(): string {
    return JSON.stringify({
      vehicle: "v",
      stateDir: "/var/lib/filesync",
      devices: {
        pixhawk: { type: "mavftp", url: `serial://${port}:921600`, interval: "5s", settle: "1s" },
        out: { type: "local", dir: "/srv/flights" },
      },
      routes: [{ from: "pixhawk", to: ["out"] }],
    });
  }

  /** One log is on it. */
  newCard(): void {
    rmSync(join(this.#logs, "fs/microsd/log"), { recursive: true });
    this.fly(2 * mib);
  }

  /** A log more on the autopilot's card. */
  fly(bytes: number): void {
    const name = `fs/microsd/log/2026-11-20/${String(10 + this.#flights).padStart(2, "0")}_00_00.ulg`;
    this.#flights += 1;
    mkdirSync(join(this.#logs, "fs/microsd/log/2026-11-20"), { recursive: true });
    writeFileSync(join(this.#logs, name), this.random.bytes(bytes));
  }

  /** Of the same build, with another name, which its unit says too, and `code` where the daemon begins. In /root/NAME. */
  async version(name: string, code: string): Promise<void> {
    await this.machine.must(
      [
        `rm -rf /root/${name} && cp -a /root/filesync /root/${name} && cd /root/${name}`,
        `sed -i 's/^  "version": ".*"/  "version": "0.0.1-${name}"/' package.json`,
        `sed -i 's/^Description=.*/Description=FileSync of ${name}/' systemd/${unit}`,
        `cat >>dist/cli/run.js`,
        `for file in package.json systemd/${unit} dist/cli/run.js; do grep -v " ./$file$" SHA256SUMS >sums && sha256sum ./$file >>sums && mv sums SHA256SUMS; done`,
      ].join(" && "),
      `\n${code}\n`,
    );
  }

  async current(): Promise<string> {
    return (await this.machine.must("basename $(readlink /opt/filesync/current)")).trim();
  }

  /** The version whose unit systemd has. */
  async unitOf(): Promise<string> {
    return (await this.machine.must(`systemctl show -P Description ${unit}`)).trim().replace("FileSync of ", "");
  }

  async pid(): Promise<string> {
    return (await this.machine.must(`systemctl show -P MainPID ${unit}`)).trim();
  }

  async status(): Promise<Status> {
    return JSON.parse(await this.machine.must("filesync status --json --config /etc/filesync/config.json")) as Status;
  }

  async transfer(): Promise<Status["transfers"][number] | undefined> {
    return (await this.status()).transfers.find(({ to }) => to === "spool");
  }

  ready(): Promise<void> {
    return this.until("that the service is ready", async () => (await this.machine.run(`systemctl -q is-active ${unit}`)).code === 0, 600);
  }

  /** Until every log of the card is where it belongs. */
  delivered(step: string, seconds = 600): Promise<void> {
    const wanted = treeOf(join(this.#logs, "fs/microsd/log")).size;
    const count = "find /srv/flights -type f ! -name '.*' | grep -c '\\.ulg$' || true";
    return this.until(
      `${step}: that all ${wanted} logs are delivered`,
      async () => Number(await this.machine.must(count)) >= wanted,
      seconds,
    );
  }

  async judgeTree(step: string): Promise<void> {
    const expected: Tree = new Map([...treeOf(join(this.#logs, "fs/microsd/log"))].map(([path, content]) => [path, content]));
    const { lost, wrong } = compare(await treeIn(this.machine, "/srv/flights/v/pixhawk"), expected);
    this.results.row(step, `lost, wrong of ${expected.size} logs`, `${lost.length}, ${wrong.length}`, lost.length + wrong.length === 0);
    for (const line of [...lost, ...wrong].slice(0, 5)) this.given.say(`       ${line}`);
  }

  /** Every file, link and directory but those that the system itself keeps writing, with what it is. */
  files(): Promise<string> {
    const leave = [
      "/proc",
      "/sys",
      "/dev",
      "/run",
      "/tmp",
      "/var/tmp",
      "/var/log/journal",
      "/var/lib/systemd",
      "/var/lib/filesync",
      "/srv",
      "/root",
      "/data",
    ];
    const pruned = leave.map((path) => `-path ${path}`).join(" -o ");
    return this.machine.must(
      `find / -xdev \\( ${pruned} \\) -prune -o -type d -printf '%M %U:%G - %p\\n' -o -printf '%M %U:%G %s %p %l\\n' | sort -k4`,
    );
  }

  async until(what: string, isSo: () => Promise<boolean>, seconds: number): Promise<void> {
    const until = performance.now() + seconds * 1000;
    while (!(await isSo())) {
      if (performance.now() > until) {
        const words = await this.machine.run(`journalctl -q --no-pager -o cat -u ${unit} -n 12`);
        throw new Error(`not within ${seconds} s: ${what}; the service said last:\n${words.out}`);
      }
      await pause(500);
    }
  }
}

export function indented(text: string): string {
  return text.trim().replace(/^/gm, "    ");
}
