/**
 * A Debian machine in QEMU, with real systemd, udev and USB, whose sticks are plugged and pulled and whose power is cut:
 *
 *     const machine = await Machine.start();
 *     if (typeof machine === "string") …                  // why it cannot be had here
 *     await machine.run("lsblk");                         // as its root, by ssh
 *     await machine.plug(stick); await machine.pull(stick);
 *     machine.powerCut(); await machine.boot();           // what was not synced is lost
 *     await machine.close();
 *
 * Each has an overlay of its own over the image, and its own directory. Nothing of it outlives this process: the kernel kills QEMU with it.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createReadStream, existsSync, mkdtempSync, openSync, closeSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import { gather, killed } from "../disks/children.js";
import { imageIn, type Image } from "./image.js";
import { Qmp } from "./qmp.js";

export interface Stick {
  /** Also its serial number. Letters, digits and "-". */
  readonly name: string;
  /** The file with what is on it. */
  readonly image: string;
  /** It is no faster than this, in bytes per second. */
  readonly bps?: number;
}

/** A serial port over USB (of FTDI's kind), with whatever listens at a port of 127.0.0.1 behind it. */
export interface SerialPort {
  readonly name: string;
  readonly port: number;
}

export interface MachineOptions {
  /** Where images are kept. Default: $XDG_CACHE_HOME/filesync-vm. */
  readonly cache?: string;
  readonly memoryMib?: number;
  /** It reaches what this computer reaches, and this computer as 10.0.2.2. Default: nothing. */
  readonly network?: boolean;
  /** Not by emulation. It is not tried by itself: in a machine that is virtual itself, QEMU may die of it. */
  readonly kvm?: boolean;
}

export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Software emulation on a busy computer. */
const bootMs = 300_000;

export class Machine {
  readonly dir = mkdtempSync(join(tmpdir(), `filesync-vm-${process.pid}-`));
  readonly #plugged = new Map<string, Stick>();
  readonly #ports = new Map<string, SerialPort>();
  #qemu: ChildProcess | undefined;
  #qmp: Qmp | undefined;
  #port = 0;

  private constructor(
    readonly image: Image,
    readonly options: MachineOptions,
  ) {}

  /** A booted machine. A string says why it cannot be had here. */
  static async start(options: MachineOptions = {}): Promise<Machine | string> {
    const image = imageIn(options.cache);
    if (typeof image === "string") return image;
    sweep();
    const machine = new Machine(image, options);
    try {
      const overlay = ["create", "-q", "-f", "qcow2", "-b", image.root, "-F", "raw", machine.#overlay];
      const { status, stderr } = spawnSync("qemu-img", overlay, { encoding: "utf8" });
      if (status !== 0) throw new Error(`qemu-img: ${stderr.trim()}`);
      await machine.boot();
      return machine;
    } catch (error) {
      await machine.close();
      throw error;
    }
  }

  /** Resolves once it answers to ssh. What was plugged at the end of its last life is plugged. */
  async boot(): Promise<void> {
    if (this.#qemu !== undefined) throw new Error("the machine runs");
    const log = openSync(this.#log, "a");
    // The kernel kills it when this process ends, however that comes.
    const qemu = spawn("setpriv", ["--pdeathsig", "KILL", "qemu-system-x86_64", ...this.#words()], {
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    this.#qemu = qemu;
    const until = performance.now() + bootMs;
    const wait = async (what: string) => {
      if (qemu.exitCode !== null || qemu.signalCode !== null || performance.now() > until)
        throw new Error(`${what}; QEMU and the console said:\n${this.#lastWords()}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    };
    while (!existsSync(this.#socket)) await wait("QEMU did not start");
    this.#qmp = await Qmp.open(this.#socket).catch(async (error: unknown) => {
      await killed(qemu);
      throw new Error(`QEMU ended at once, and said:\n${this.#lastWords()}`, { cause: error });
    });
    // The host's end was to be any free port.
    const net = String(await this.#qmp.execute("human-monitor-command", { "command-line": "info usernet" }));
    this.#port = Number(/HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)/.exec(net)?.[1]);
    if (!(this.#port > 0)) throw new Error(`QEMU forwards no port:\n${net}`);
    for (const stick of [...this.#plugged.values()]) {
      this.#plugged.delete(stick.name);
      await this.plug(stick);
    }
    for (const port of this.#ports.values()) await this.#plugPort(port);
    while ((await this.#ssh("true")).code !== 0) await wait("the machine does not answer");
    if (this.options.network === true)
      await this.must(
        "ip route replace default via 10.0.2.2 && echo nameserver 10.0.2.3 >/etc/resolv.conf && cat >/etc/ssl/certs/ca-certificates.crt",
        certificates(),
      );
  }

  /** Runs a line of shell to its end. `input` is what it reads. */
  run(command: string, input?: NodeJS.ReadableStream | string): Promise<Ran> {
    return this.#ssh(command, input);
  }

  /** The same, which has to succeed: what it printed. */
  async must(command: string, input?: NodeJS.ReadableStream | string): Promise<string> {
    const { code, out, err } = await this.run(command, input);
    if (code !== 0) throw new Error(`${command}: ${err.trim() || `exit ${String(code)}`}`);
    return out;
  }

  /** A command that goes on: its output is read as it comes. It ends with the machine, or once it sees that its input has ended (`kill`). */
  follow(command: string): ChildProcess {
    return spawn("ssh", [...this.#sshWords(), command], { stdio: ["pipe", "pipe", "pipe"] });
  }

  /** What is in the directory `from` here goes into the directory `to` there, which is made. */
  async put(from: string, to: string): Promise<void> {
    const tar = spawn("tar", ["-C", from, "--owner=0", "--group=0", "-c", "."], { stdio: ["ignore", "pipe", "pipe"] });
    const errors = gather(tar.stderr);
    const ended = once(tar, "close") as Promise<[number | null]>;
    await this.must(`mkdir -p ${to} && tar -C ${to} --no-same-owner -x`, tar.stdout);
    const [code] = await ended;
    if (code !== 0) throw new Error(`tar: ${errors().trim()}`);
  }

  writeFile(path: string, text: string): Promise<string> {
    return this.must(`cat >${path}`, text);
  }

  /** Resolves once the stick is in its port; the system in the machine finds it a little later. */
  async plug(stick: Stick): Promise<void> {
    const qmp = this.#monitor();
    const { name, image: filename, bps } = stick;
    if (bps !== undefined) await qmp.execute("object-add", { "qom-type": "throttle-group", id: `t-${name}`, limits: { "bps-total": bps } });
    const file = { driver: "file", filename };
    await qmp.execute("blockdev-add", {
      ...{ driver: "raw", "node-name": `b-${name}` },
      file: bps === undefined ? file : { driver: "throttle", "throttle-group": `t-${name}`, file },
    });
    const device = { driver: "usb-storage", id: `u-${name}`, bus: "xhci.0", drive: `b-${name}`, removable: true, serial: name };
    await qmp.execute("device_add", device);
    this.#plugged.set(name, stick);
  }

  /** Surprise removal. Resolves once it is out, with the bytes that were read from it and written to it since it was plugged. */
  async pull({ name, bps }: Stick): Promise<{ read: number; written: number }> {
    const qmp = this.#monitor();
    const stats = (await qmp.execute("query-blockstats")) as {
      qdev?: string;
      stats: { rd_bytes: number; wr_bytes: number };
    }[];
    const own = stats.find(({ qdev }) => qdev?.includes(`u-${name}/`) === true || qdev === `u-${name}`)?.stats;
    const out = qmp.event("DEVICE_DELETED", { device: `u-${name}` });
    await Promise.all([qmp.execute("device_del", { id: `u-${name}` }), out]);
    this.#plugged.delete(name);
    await qmp.execute("blockdev-del", { "node-name": `b-${name}` });
    if (bps !== undefined) await qmp.execute("object-del", { id: `t-${name}` });
    if (own === undefined) throw new Error(`QEMU tells nothing of ${name}: ${JSON.stringify(stats)}`);
    return { read: own.rd_bytes, written: own.wr_bytes };
  }

  /** It stays plugged over a power cut. */
  async plugPort(port: SerialPort): Promise<void> {
    await this.#plugPort(port);
    this.#ports.set(port.name, port);
  }

  async pullPort({ name }: SerialPort): Promise<void> {
    const qmp = this.#monitor();
    const out = qmp.event("DEVICE_DELETED", { device: `s-${name}` });
    await Promise.all([qmp.execute("device_del", { id: `s-${name}` }), out]);
    await qmp.execute("chardev-remove", { id: `c-${name}` });
    this.#ports.delete(name);
  }

  async #plugPort({ name, port }: SerialPort): Promise<void> {
    const addr = { type: "inet", data: { host: "127.0.0.1", port: String(port) } };
    const backend = { type: "socket", data: { addr, server: false, reconnect: 1 } };
    await this.#monitor().execute("chardev-add", { id: `c-${name}`, backend });
    await this.#monitor().execute("device_add", {
      driver: "usb-serial",
      id: `s-${name}`,
      bus: "xhci.0",
      serial: name,
      chardev: `c-${name}`,
    });
  }

  async pullAll(): Promise<void> {
    for (const stick of [...this.#plugged.values()]) await this.pull(stick);
  }

  /** At once: what is in its memory is gone, what is plugged stays plugged. */
  async powerCut(): Promise<void> {
    const qemu = this.#qemu;
    this.#qemu = undefined;
    this.#qmp?.close();
    this.#qmp = undefined;
    if (qemu !== undefined) await killed(qemu);
    for (const path of [this.#socket, this.#control]) rmSync(path, { force: true });
  }

  /** Shut down as by its owner. */
  async off(): Promise<void> {
    const qemu = this.#qemu;
    if (qemu === undefined) return;
    const closed = once(qemu, "close");
    await this.run("systemctl poweroff");
    if (qemu.exitCode === null) await closed;
    await this.powerCut();
  }

  /** Twice is once. */
  async close(): Promise<void> {
    await this.powerCut();
    rmSync(this.dir, { recursive: true, force: true });
  }

  get #overlay(): string {
    return join(this.dir, "root.qcow2");
  }

  get #socket(): string {
    return join(this.dir, "qmp");
  }

  get #control(): string {
    return join(this.dir, "ssh");
  }

  get #log(): string {
    return join(this.dir, "console");
  }

  #monitor(): Qmp {
    if (this.#qmp === undefined) throw new Error("the machine is off");
    return this.#qmp;
  }

  #lastWords(): string {
    return readFileSync(this.#log, "utf8").slice(-2000);
  }

  #words(): string[] {
    const { kernel, initrd } = this.image;
    const append = [
      ...["root=/dev/vda", "rw", "console=ttyS0", "quiet", "mitigations=off", "audit=0", "random.trust_cpu=on", "net.ifnames=0"],
      ...["systemd.show_status=0", "rd.systemd.show_status=0", "fsck.repair=yes"],
    ];
    const accel = ["-accel", this.options.kvm === true ? "kvm" : "tcg,thread=multi,tb-size=512"];
    return [
      ...[...accel, "-cpu", "max", "-smp", "2", "-m", String(this.options.memoryMib ?? 1024)],
      ...["-machine", "pc,usb=off,vmport=off", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
      ...["-kernel", kernel, "-initrd", initrd, "-append", append.join(" ")],
      ...[
        "-drive",
        `if=none,id=root,file=${this.#overlay},format=qcow2,cache=writeback,discard=unmap`,
        "-device",
        "virtio-blk-pci,drive=root",
      ],
      ...[
        "-netdev",
        `user,id=net,restrict=${this.options.network === true ? "off" : "on"},hostfwd=tcp:127.0.0.1:0-:22`,
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
      ],
      ...["-device", "virtio-rng-pci", "-device", "qemu-xhci,id=xhci,p2=8,p3=8"],
      ...["-serial", "stdio", "-qmp", `unix:${this.#socket},server=on,wait=off`, "-monitor", "none"],
    ];
  }

  #sshWords(): string[] {
    const options = {
      ...{ StrictHostKeyChecking: "no", UserKnownHostsFile: "/dev/null", ConnectTimeout: "10", LogLevel: "ERROR", BatchMode: "yes" },
      // One greeting for all: it costs seconds under emulation.
      ...{ ControlMaster: "auto", ControlPath: this.#control, ControlPersist: "300", ServerAliveInterval: "10" },
    };
    const words = Object.entries(options).flatMap(([key, value]) => ["-o", `${key}=${value}`]);
    return ["-i", this.image.key, "-p", String(this.#port), ...words, "root@127.0.0.1"];
  }

  async #ssh(command: string, input: NodeJS.ReadableStream | string = ""): Promise<Ran> {
    const child = spawn("ssh", [...this.#sshWords(), command], { stdio: ["pipe", "pipe", "pipe"] });
    const [out, err] = [gather(child.stdout), gather(child.stderr)];
    // It may end before it has read all.
    child.stdin.on("error", () => undefined);
    if (typeof input === "string") child.stdin.end(input);
    else input.pipe(child.stdin);
    const [code] = (await once(child, "close")) as [number | null];
    return { code, out: out(), err: err() };
  }
}

/** Whom this computer believes. */
function certificates(): NodeJS.ReadableStream | string {
  const path = "/etc/ssl/certs/ca-certificates.crt";
  return existsSync(path) ? createReadStream(path) : rootCertificates.join("\n");
}

/** What machines left whose process was killed. */
function sweep(): void {
  for (const name of readdirSync(tmpdir())) {
    const pid = /^filesync-vm-(\d+)-/.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}
