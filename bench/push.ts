/** Pushing to a real vsftpd beside rclone, lftp and curl: the same files, the same server, our default settings; each cell the best of three. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ownPlain, vsftpd, type FtpServerUnderTest } from "../test/conformance/ftp-servers.js";
import { FtpRelay } from "../test/faults/relay.js";
import { peers } from "./peers.js";
import { has, heading, inTempDir, table } from "./measure.js";

export const runs = 3;
export const rttMs = 60;

export interface Cell {
  readonly name: string;
  readonly dirs: number;
  readonly files: number;
  readonly bytes: number;
  /** Through a relay that delays both ways. */
  readonly far?: boolean;
}

const cells: readonly Cell[] = [
  { name: "1 × 1 GiB", dirs: 1, files: 1, bytes: 2 ** 30 },
  { name: "200 × 5 MB", dirs: 1, files: 200, bytes: 5e6 },
  { name: "5,000 × 20 kB in 50 directories", dirs: 50, files: 5000, bytes: 20_000 },
  { name: "5,000 × 20 kB in one directory", dirs: 1, files: 5000, bytes: 20_000 },
  { name: `200 × 20 kB, ${rttMs} ms round trip`, dirs: 1, files: 200, bytes: 20_000, far: true },
];

/** FILESYNC_BENCH_PEERS: only those whose name holds one of these words. */
export function isAsked(peer: string): boolean {
  return process.env["FILESYNC_BENCH_PEERS"]?.split(",").some((word) => peer.includes(word)) !== false;
}

export interface Run {
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly rssMb: number;
}

/** Runs a program and measures it, with its children. */
const measurer = `
import json, resource, subprocess, sys, time
began = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
took = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"code": code, "seconds": took, "cpuSeconds": used.ru_utime + used.ru_stime, "rssMb": used.ru_maxrss / 1000}))
`;

export async function measure(command: readonly string[]): Promise<Run> {
  const child = spawn("python3", ["-c", measurer, ...command], { stdio: ["ignore", "pipe", "ignore"] });
  let out = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
  await new Promise((resolve) => child.once("close", resolve));
  const { code, ...run } = JSON.parse(out) as Run & { code: number };
  if (code !== 0) throw new Error(`${command[0] ?? ""} ended with ${code}: ${command.join(" ").slice(0, 200)}`);
  return run;
}

export function makeFiles(dir: string, { dirs, files, bytes }: Cell): void {
  const part = randomBytes(Math.min(bytes, 2 ** 24));
  for (let d = 0; d < dirs; d++) {
    mkdirSync(join(dir, `d${d}`), { recursive: true });
    for (let n = d; n < files; n += dirs) {
      part.writeUInt32LE(n, 0);
      const path = join(dir, `d${d}`, `f${String(n).padStart(5, "0")}.bin`);
      for (let at = 0; at < bytes; at += part.length) writeFileSync(path, part.subarray(0, bytes - at), { flag: "a" });
      // Older than what is waited for a file to settle.
      utimesSync(path, 1_780_000_000, 1_780_000_000);
    }
  }
}

export function expectAll(dir: string, { files, bytes }: Cell): void {
  const found = readdirSync(dir, { recursive: true, withFileTypes: true }).filter((it) => it.isFile());
  const wrong = found.filter((it) => it.name.startsWith(".") || statSync(join(it.parentPath, it.name)).size !== bytes);
  if (found.length !== files || wrong.length > 0) throw new Error(`${dir} holds ${found.length} of ${files} files, ${wrong.length} wrong`);
}

/** `only`: numbers of cells. */
export async function push(only: readonly string[] = []): Promise<void> {
  heading("push");
  const kind = vsftpd.skip === undefined ? vsftpd : ownPlain;
  const server = await kind.start();
  try {
    for (const [n, cell] of cells.entries()) {
      if (only.length > 0 && !only.includes(String(n))) continue;
      await inTempDir((dir) => one(cell, dir, server, kind.name));
    }
  } finally {
    await server.stop();
  }
}

async function one(cell: Cell, dir: string, server: FtpServerUnderTest, kind: string): Promise<void> {
  const relay = cell.far === true ? await FtpRelay.start(server.port, { delayMs: rttMs / 2 }) : undefined;
  const place = { ...server, port: relay?.port ?? server.port };
  try {
    await compare(
      cell,
      dir,
      { name: kind, to: join(server.dir, "to") },
      Object.entries(peers).map(([name, peer]) => [name, (from) => peer(from, "to", place, dir)]),
    );
  } finally {
    await relay?.close();
  }
}

/** Each peer's command pushes the same tree, which has to be below `to` then; the best of so many runs, in a table. A peer is named after its program. */
export async function compare(
  cell: Cell,
  dir: string,
  { name: kind, to }: { readonly name: string; readonly to: string },
  commands: readonly (readonly [string, (from: string) => readonly string[]])[],
  times = runs,
): Promise<void> {
  const from = join(dir, "in");
  makeFiles(from, cell);
  const best = new Map<string, Run>();
  for (let run = 0; run < times; run++) {
    for (const [name, command] of commands) {
      if (!isAsked(name)) continue;
      if (name !== "FileSync" && !has(name.split(/[ ,]/)[0] ?? "")) continue;
      const now = await measure(command(from));
      expectAll(to, cell);
      rmSync(to, { recursive: true });
      const before = best.get(name);
      if (before === undefined || now.seconds < before.seconds) best.set(name, now);
    }
  }
  const ours = best.get("FileSync")?.seconds ?? NaN;
  table(
    [`${cell.name}, to ${kind}`, "s", "FileSync takes ×", "client CPU s", "peak MB"],
    [...best].map(([name, run]) => [
      name,
      run.seconds.toFixed(2),
      (ours / run.seconds).toFixed(2),
      run.cpuSeconds.toFixed(2),
      run.rssMb.toFixed(0),
    ]),
  );
}
