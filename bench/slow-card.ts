/**
 * A bad SD card: every fsync and fdatasync of the process is slowed (strace), while files go through the spool to another directory. Printed: goodput,
 * the longest block of the event loop, and how late a 1 Hz heartbeat's timer fired at worst.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Random } from "../test/faults/random.js";
import { has, heading, inTempDir, mb, table } from "./measure.js";

export async function slowCard(): Promise<void> {
  heading("slow-card");
  if (!has("strace")) {
    console.log("strace is missing: apt install strace\n");
    return;
  }
  const rows: (string | number)[][] = [];
  for (const [syncMs, files, size] of [
    [0, 5000, 20_000],
    [20, 5000, 20_000],
    [20, 10, 10_000_000],
    [200, 10, 10_000_000],
    [2000, 10, 10_000_000],
  ] as const)
    await inTempDir((dir) => {
      const random = new Random(1);
      mkdirSync(join(dir, "out"));
      for (let n = 0; n < files; n++) {
        const path = join(dir, "in", `d${n % 50}`, `f${n}`);
        mkdirSync(join(dir, "in", `d${n % 50}`), { recursive: true });
        writeFileSync(path, random.bytes(size));
        utimesSync(path, 1_780_000_000 + n, 1_780_000_000 + n);
      }
      const child = [process.execPath, fileURLToPath(new URL("./slow-card-child.js", import.meta.url)), dir];
      const wrap =
        syncMs === 0
          ? []
          : [
              "strace",
              "-f",
              "-qq",
              "-o",
              "/dev/null",
              "--seccomp-bpf",
              "-e",
              "trace=fsync,fdatasync",
              "-e",
              `inject=fsync,fdatasync:delay_exit=${syncMs * 1000}`,
            ];
      const [command = "", ...args] = [...wrap, ...child];
      const run = spawnSync(command, args, { encoding: "utf8", timeout: 900_000 });
      if (run.status !== 0) throw new Error(run.stderr);
      const result = JSON.parse(readFileSync(join(dir, "result.json"), "utf8")) as {
        seconds: number;
        longestBlockMs: number;
        heartbeatLateMs: number;
        journalSyncs: number;
      };
      rows.push([
        syncMs,
        `${files} × ${mb(size)} MB`,
        result.seconds.toFixed(1),
        (files / result.seconds).toFixed(0),
        mb((files * size) / result.seconds),
        result.longestBlockMs.toFixed(0),
        result.heartbeatLateMs.toFixed(0),
        result.journalSyncs,
      ]);
      return Promise.resolve();
    });
  table(["sync ms", "files", "s", "files/s", "MB/s", "longest block ms", "heartbeat late ms", "journal syncs"], rows);
}
