/**
 * One cell of `mavftp`, once, in a process of its own: `node dist/bench/mavftp-cell.js JSON` (a `Job`) prints a `Run` as JSON. Nothing that an earlier cell left in
 * memory, and no cell beside it, is in its figures.
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
import { inTempDir, root } from "./measure.js";

export interface Cell {
  readonly autopilot: string;
  readonly link: string;
  readonly transport: "tcp" | "udp" | "pty";
  /** Share of frames that are lost, each way. */
  readonly loss: number;
}

export interface Job {
  readonly cell: Cell;
  /** Of each file. */
  readonly bytes: number;
  readonly seed: number;
}

/** Rates are kB/s. */
export interface Run {
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
      if (!Buffer.concat(parts).equals(content)) throw new Error("other bytes came");
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

const { cell, bytes, seed } = JSON.parse(process.argv[2] ?? "{}") as Job;
console.log(JSON.stringify(await inTempDir((dir) => run(cell, bytes, dir, seed))));
