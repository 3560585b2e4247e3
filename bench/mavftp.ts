/**
 * Reading files off the simulated flight controller, which runs in a process of its own, through the mavftp source: what comes of what the link and the
 * autopilot's server can give at most. Two files in each cell: the way of reading is found out on the first, and known with the second.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { RealClock } from "../core/clock.js";
import type { FileEntry, PluginContext } from "../core/plugin.js";
import type { MavftpDevice } from "../plugins/mavftp/device.js";
import { plugin } from "../plugins/mavftp/plugin.js";
import { heading, inTempDir, median, root, table } from "./measure.js";

type Transport = "tcp" | "udp" | "pty";

interface Cell {
  readonly autopilot: string;
  readonly link: string;
  readonly transport: Transport;
  /** Share of frames that are lost, each way. */
  readonly loss: number;
}

/**
 * Payload bytes a second, kB: the rate of the wire times 239 of each frame's 266 bytes; where the server is the limit, the best that was measured on
 * the autopilots' own code (ArduPilot reads 408 kB/s). Without a wire 10 MB/s is what is wanted, not a limit.
 */
const ceilings: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  usb: { px4: 629, "ardupilot-4.6": 408, "ardupilot-4.7": 629, "ardupilot-4.8": 629 },
  "uart:921600": { px4: 82.8, "ardupilot-4.6": 82.8, "ardupilot-4.7": 82.8, "ardupilot-4.8": 82.8 },
  "uart:57600": { px4: 5.18, "ardupilot-4.6": 5.18, "ardupilot-4.7": 5.18, "ardupilot-4.8": 5.18 },
  "radio:57600": { px4: 4.9, "ardupilot-4.6": 4.6, "ardupilot-4.7": 4.6, "ardupilot-4.8": 4.6 },
  udp: { px4: 10_000, "ardupilot-4.6": 408, "ardupilot-4.7": 408, "ardupilot-4.8": 408 },
  none: { px4: 10_000 },
};

/** "--full", or words that a cell's name has to hold: "px4 usb loss=5%". */
export async function mavftp(given: readonly string[] = []): Promise<void> {
  heading("mavftp");
  const full = given.includes("--full");
  const words = given.filter((word) => !word.startsWith("--"));
  const cells = [...cellsOf(full)].filter((cell) => words.every((word) => nameOf(cell).includes(word)));
  const rows: (string | number)[][] = [];
  for (const cell of cells) {
    try {
      const runs: Run[] = [];
      for (let n = 0; n < (full ? 3 : 1); n++) runs.push(await inTempDir((dir) => run(cell, bytesOf(cell, full), dir, n + 1)));
      rows.push(rowOf(cell, runs));
    } catch (error) {
      rows.push([nameOf(cell), error instanceof Error ? error.message : String(error)]);
    }
    // A long table is seen to grow.
    process.stderr.write(`${rows.at(-1)?.join(" | ") ?? ""}\n`);
  }
  table(
    ["cell", "first kB/s", "second kB/s", "ceiling", "first %", "second %", "wanted %", "way", "requests per ideal", "CPU s per MB"],
    rows,
  );
}

function* cellsOf(full: boolean): Generator<Cell> {
  for (const [link, autopilots] of Object.entries(ceilings))
    for (const autopilot of Object.keys(autopilots)) {
      // Ten minutes are enough: over a wire without flow control these do what 4.6 does, so they are for --full.
      if (!full && /^(uart|radio):/.test(link) && ["ardupilot-4.7", "ardupilot-4.8"].includes(autopilot)) continue;
      for (const loss of full ? [0, 0.01, 0.05, 0.1] : [0, 0.05]) {
        const transports: readonly Transport[] = link === "udp" ? ["udp"] : full ? ["tcp", "udp", "pty"] : ["tcp"];
        for (const transport of transports) yield { autopilot, link, transport, loss };
      }
    }
}

function nameOf({ autopilot, link, transport, loss }: Cell): string {
  return `${autopilot} ${link} ${transport} loss=${loss * 100}%`;
}

function bytesOf({ link }: Cell, full: boolean): number {
  if (link.endsWith(":57600")) return full ? 200_000 : 60_000;
  if (link.startsWith("uart:") && !full) return 1_000_000;
  return link === "none" && !full ? 20_000_000 : full ? 10_000_000 : 2_000_000;
}

interface Run {
  readonly first: number;
  readonly second: number;
  readonly way: string;
  readonly requests: number;
  readonly cpuPerMb: number;
}

async function run(cell: Cell, bytes: number, dir: string, seed: number): Promise<Run> {
  const files = join(dir, "files");
  mkdirSync(files);
  const content = randomBytes(bytes);
  for (const name of ["1.bin", "2.bin"]) writeFileSync(join(files, name), content);
  const sim = await startSim(cell, files, dir, seed);
  const memory = new Map<string, unknown>();
  const clock = new RealClock();
  const context: PluginContext = {
    name: "autopilot",
    vehicle: "bench",
    installation: "00000000",
    stateDir: dir,
    clock,
    memory: { get: (key) => memory.get(key), set: (key, value) => Promise.resolve(void memory.set(key, value)) },
    say: () => undefined,
    tellTime: () => undefined,
    tellArmed: () => undefined,
  };
  const device = plugin.device?.(v.parse(plugin.options, { url: sim.url, root: "/" }), context) as MavftpDevice;
  const never = new AbortController().signal;
  try {
    await attached(device);
    const entries: FileEntry[] = [];
    for await (const entry of device.list(never)) entries.push(entry);
    const cpu = process.cpuUsage();
    const rates: number[] = [];
    for (const entry of entries) {
      const begun = performance.now();
      const parts: Buffer[] = [];
      for await (const part of await device.open(entry, 0, never)) parts.push(part as Buffer);
      rates.push(bytes / (performance.now() - begun));
      if (!Buffer.concat(parts).equals(content)) throw new Error(`${nameOf(cell)}: other bytes came`);
    }
    const used = process.cpuUsage(cpu);
    const [first = NaN, second = NaN] = rates;
    const way = device.way?.way ?? "?";
    // Of plain reads one for each packet, of bursts none but a few.
    const ideal = (2 * bytes) / 239;
    return { first, second, way, requests: device.requestsSent / ideal, cpuPerMb: (used.user + used.system) / 2 / bytes };
  } finally {
    await device.close();
    await sim.stop();
  }
}

function rowOf(cell: Cell, runs: readonly Run[]): (string | number)[] {
  const middle = (of: (run: Run) => number): number => median(runs.map(of));
  const ceiling = ceilings[cell.link]?.[cell.autopilot] ?? NaN;
  const [first, second] = [middle((r) => r.first), middle((r) => r.second)];
  // Under loss 90 % of what is left after it; both ways count for a request and its reply.
  const wanted = cell.loss === 0 ? 95 : 90 * (1 - cell.loss) ** 2;
  return [
    nameOf(cell),
    text(first),
    text(second),
    ceiling,
    ((first / ceiling) * 100).toFixed(1),
    ((second / ceiling) * 100).toFixed(1),
    wanted.toFixed(1),
    runs.map((r) => r.way).join(" "),
    middle((r) => r.requests).toFixed(2),
    middle((r) => r.cpuPerMb).toFixed(3),
  ];
}

function text(rate: number): string {
  return rate < 100 ? rate.toFixed(2) : rate.toFixed(0);
}

async function attached(device: MavftpDevice): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no heartbeat within 10 s")), 10_000);
    device.presence$.subscribe(({ state }) => {
      if (state !== "attached") return;
      clearTimeout(timer);
      resolve();
    });
  });
}

async function startSim(cell: Cell, files: string, dir: string, seed: number): Promise<{ url: string; stop(): Promise<void> }> {
  const listen = { tcp: "tcpin://127.0.0.1:0", udp: "udpin://127.0.0.1:0", pty: `pty:${join(dir, "tty")}` }[cell.transport];
  const loss = cell.loss > 0 ? ["--fault", `loss=${cell.loss}`] : [];
  const command = [join(root, "dist/cli/main.js"), "sim", "--listen", listen, "--dir", files, "--autopilot", cell.autopilot];
  const child: ChildProcess = spawn(process.execPath, [...command, "--link", cell.link, "--seed", String(seed), ...loss], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    let said = "";
    child.stdout?.setEncoding("utf8").on("data", (more: string) => {
      said += more;
      const found = /^listening on (\S+)$/m.exec(said)?.[1];
      if (found !== undefined) resolve(found);
    });
    void ended.then(() => reject(new Error("the simulator did not start")));
  });
  const at = url.replace(/^tcpin:/, "tcpout:").replace(/^udpin:/, "udpout:");
  return {
    url: at.startsWith("pty:") ? `serial://${at.slice(4)}:921600` : at,
    async stop() {
      child.kill("SIGTERM");
      await ended;
    },
  };
}
