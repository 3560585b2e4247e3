/**
 * Reading files off the simulated flight controller, which runs in a process of its own, through the mavftp source: what comes of what the link and the
 * autopilot's server can give at most. Two files in each cell: the way of reading is found out on the first, and known with the second.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Cell, Job, Run } from "./mavftp-cell.js";
import { heading, median, root, table } from "./measure.js";

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
  const rows = new Map<Cell, (string | number)[]>();
  // Cells of slow wires take minutes, and hardly any of the machine.
  for (const link of Object.keys(ceilings)) {
    const left = cells.filter((cell) => cell.link === link);
    const worker = async (): Promise<void> => {
      for (let cell = left.shift(); cell !== undefined; cell = left.shift()) rows.set(cell, await rowOf(cell, full));
    };
    await Promise.all(Array.from({ length: atOnce(link) }, worker));
  }
  table(
    ["cell", "first kB/s", "second kB/s", "ceiling", "first %", "second %", "wanted %", "way", "requests per ideal", "CPU s per MB"],
    cells.map((cell) => rows.get(cell) ?? []),
  );
}

function* cellsOf(full: boolean): Generator<Cell> {
  for (const [link, autopilots] of Object.entries(ceilings))
    for (const autopilot of Object.keys(autopilots)) {
      // Ten minutes are enough: over a wire without flow control these do what 4.6 does, so they are for --full.
      if (!full && /^(uart|radio):/.test(link) && ["ardupilot-4.7", "ardupilot-4.8"].includes(autopilot)) continue;
      for (const loss of full ? [0, 0.01, 0.05, 0.1] : [0, 0.05]) {
        const transports: readonly Cell["transport"][] = link === "udp" ? ["udp"] : full ? ["tcp", "udp", "pty"] : ["tcp"];
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

async function rowOf(cell: Cell, full: boolean): Promise<(string | number)[]> {
  const runs: Run[] = [];
  try {
    for (let n = 0; n < (full ? 3 : 1); n++) runs.push(await runOf({ cell, bytes: bytesOf(cell, full), seed: n + 1 }));
  } catch (error) {
    return [nameOf(cell), error instanceof Error ? error.message : String(error)];
  }
  const middle = (of: (run: Run) => number): number => median(runs.map(of));
  const ceiling = ceilings[cell.link]?.[cell.autopilot] ?? NaN;
  const [first, second] = [middle((r) => r.first), middle((r) => r.second)];
  // Under loss 90 % of what is left after it; both ways count for a request and its reply.
  const wanted = cell.loss === 0 ? 95 : 90 * (1 - cell.loss) ** 2;
  const row = [
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
  // A long table is seen to grow.
  process.stderr.write(`${row.join(" | ")}\n`);
  return row;
}

async function runOf(job: Job): Promise<Run> {
  const { stdout } = await promisify(execFile)(process.execPath, [join(root, "dist/bench/mavftp-cell.js"), JSON.stringify(job)]);
  return JSON.parse(stdout) as Run;
}

/** How many cells of a link run side by side. */
function atOnce(link: string): number {
  return link.endsWith(":57600") ? 16 : link.startsWith("uart:") ? 12 : link === "usb" ? 2 : 1;
}

function text(rate: number): string {
  return rate < 100 ? rate.toFixed(2) : rate.toFixed(0);
}
