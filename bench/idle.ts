/** Memory, CPU and what is written of a daemon that has nothing to do (its source is listed every 30 s), beside a process that only imports the same libraries. */
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startSim } from "../sim/sim.js";
import { mainJs } from "../test/faults/process.js";
import { heading, inTempDir, mb, median, root, table, writtenBy } from "./measure.js";

const seconds = 65;
const runs = 3;
const libraries = ["rxjs", "@photostructure/sqlite", "valibot", "serialport", "jsonc-parser", "picomatch", "cac"];

function rssOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}

function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function measured(args: readonly string[], cwd: string): Promise<{ rss: number; cpu: number; written: number }> {
  const child = spawn(process.execPath, args, { stdio: "ignore", cwd });
  const pid = child.pid ?? 0;
  await sleep(5000);
  const [before, began] = [cpuOf(pid), writtenBy(pid)];
  await sleep(seconds * 1000);
  const result = { rss: rssOf(pid), cpu: (cpuOf(pid) - before) / seconds, written: ((writtenBy(pid) - began) * 3600) / seconds };
  child.kill("SIGKILL");
  return result;
}

export async function idle(): Promise<void> {
  heading("idle");
  const rows: { what: string; rss: number[]; cpu: number[]; written: number[] }[] = [
    { what: "the libraries imported", rss: [], cpu: [], written: [] },
    { what: "FileSync, idle: local and ftp", rss: [], cpu: [], written: [] },
    { what: "FileSync, idle: mavftp on a link that talks, local", rss: [], cpu: [], written: [] },
  ];
  await inTempDir(async (dir) => {
    mkdirSync(join(dir, "in"));
    mkdirSync(join(dir, "out"));
    writeFileSync(join(dir, "in", "sent.bin"), "it has arrived long ago");
    const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir: join(dir, "in"), link: "usb" });
    const config = (name: string, devices: object, from: string) => {
      writeFileSync(
        join(dir, name),
        JSON.stringify({
          stateDir: `state-${name}`,
          devices: { ...devices, out: { type: "local", dir: "out" } },
          routes: [{ from, to: ["out"] }],
        }),
      );
      return join(dir, name);
    };
    const plain = config("plain.json", { in: { type: "local", dir: "in" }, ftp: { type: "ftp", host: "127.0.0.1", port: 9 } }, "in");
    const mav = config("mav.json", { fc: { type: "mavftp", url: sim.clientUrl, root: "/" } }, "fc");
    for (let run = 0; run < runs; run++) {
      const all = await Promise.all([
        measured(
          [
            "--input-type=module",
            "-e",
            `${libraries.map((name) => `await import(${JSON.stringify(name)});`).join("")}setInterval(() => 0, 1e6)`,
          ],
          root,
        ),
        measured([mainJs, "run", "--config", plain], dir),
        measured([mainJs, "run", "--config", mav], dir),
      ]);
      all.forEach(({ rss, cpu, written }, n) => {
        rows[n]?.rss.push(rss);
        rows[n]?.cpu.push(cpu);
        rows[n]?.written.push(written);
      });
    }
    await sim.close();
  });
  const base = median(rows[0]?.rss ?? []);
  table(
    ["process", "RSS MB", "above the libraries MB", "CPU %", "kB written an hour"],
    rows.map(({ what, rss, cpu, written }) => [
      what,
      mb(median(rss)),
      mb(median(rss) - base),
      (median(cpu) * 100).toFixed(2),
      (median(written) / 1000).toFixed(0),
    ]),
  );
}
