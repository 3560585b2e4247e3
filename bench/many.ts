/** 100,000 files in the journal: how long until a start is ready, and what it takes in memory beside an empty journal. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { RealClock } from "../core/clock.js";
import { Journal } from "../core/journal.js";
import { Queue } from "../core/queue.js";
import { versionId } from "../core/route.js";
import { Program } from "../test/faults/process.js";
import { heading, inTempDir, mb, median, table } from "./measure.js";

export const files = 100_000;
const runs = 3;

/** A journal of `files` in place, all waiting or all delivered. */
export async function fill(stateDir: string, pending: boolean): Promise<void> {
  mkdirSync(stateDir, { recursive: true });
  const journal = await Journal.open(stateDir);
  const queue = new Queue(journal, new RealClock());
  for (let n = 0; n < files; n += 1000)
    await journal.commit(() => {
      for (let i = n; i < n + 1000; i++) {
        const entry = {
          kind: "file" as const,
          path: `DCIM/${Math.floor(i / 1000)}/IMG_${i}.JPG`,
          size: 3_000_000 + i,
          modifiedMs: 1_780_000_000_000 + i * 1000,
        };
        const id = versionId("in", entry);
        queue.add(id, "in", entry, { store: "place", after: "keep", trustSize: false, foundMs: i });
        const version = queue.version(id);
        if (version !== undefined)
          queue.addDeliveries(version, [
            { id: versionId("out", entry), target: "out", path: entry.path, required: true, weight: 1, rank: entry.modifiedMs },
          ]);
        if (!pending) journal.run("UPDATE deliveries SET state = 'done', done_ms = ?, receipt = '{}' WHERE version = ?", i, id);
      }
    });
  await journal.close();
}

async function start(config: string): Promise<{ readyMs: number; rss: number }> {
  const began = performance.now();
  const program = new Program(["run", "--json", "--config", config]);
  await program.until(({ what }) => what === "ready", "ready");
  const readyMs = performance.now() - began;
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const rss = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${program.pid}/status`, "utf8"))?.[1]) * 1024;
  await program.kill();
  return { readyMs, rss };
}

export async function many(): Promise<void> {
  heading("many");
  await inTempDir(async (dir) => {
    const rows: (string | number)[][] = [];
    let emptyRss = 0;
    for (const [what, state] of [
      ["empty", undefined],
      ["100,000 delivered", false],
      ["100,000 waiting for a source that is away", true],
    ] as const) {
      const name = what.split(" ").join("-");
      const config = join(dir, `${name}.json`);
      writeFileSync(
        config,
        JSON.stringify({
          stateDir: name,
          devices: { in: { type: "local", dir: "away" }, out: { type: "local", dir: "." } },
          routes: [{ from: "in", to: ["out"] }],
        }),
      );
      if (state !== undefined) await fill(join(dir, name), state);
      const all: { readyMs: number; rss: number }[] = [];
      for (let run = 0; run < runs; run++) all.push(await start(config));
      const rss = median(all.map((one) => one.rss));
      if (state === undefined) emptyRss = rss;
      rows.push([what, Math.round(median(all.map(({ readyMs }) => readyMs))), mb(rss), mb(rss - emptyRss)]);
    }
    table(["journal", "start to ready ms", "RSS MB", "above empty MB"], rows);
  });
}
