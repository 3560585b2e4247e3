/**
 * A disk that is plugged in (a loop device of the laboratory, ext4): copied to the spool beside `dd conv=fsync` of the same files to the same place, and 100,000
 * files listed beside `find`. The caches are dropped before each.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Disk, DiskLab } from "../test/disks/lab.js";
import { Program } from "../test/faults/process.js";
import { Random } from "../test/faults/random.js";
import { heading, inTempDir, median, table } from "./measure.js";

const runs = 3;

export async function disk(): Promise<void> {
  heading("disk");
  const lab = await DiskLab.open();
  if (typeof lab === "string") {
    console.log(`${lab}\n`);
    return;
  }
  try {
    await inTempDir(async (dir) => {
      const rows: (string | number)[][] = [];
      for (const [name, files, size] of [
        ["1 × 1 GiB", 1, 2 ** 30],
        ["200 × 5 MB", 200, 5_000_000],
      ] as const)
        rows.push([name, ...(await copied(lab, dir, files, size))]);
      table(["files", "dd conv=fsync s", "to the spool s", "rate, of dd's %"], rows);
      table(["100,000 files in 100 directories", "find s", "listed s"], await listed(lab, dir));
    });
  } finally {
    await lab.close();
  }
}

/** Medians of dd and of us, in turn, and the ratio. */
async function copied(lab: DiskLab, dir: string, files: number, size: number): Promise<(string | number)[]> {
  const card = await lab.make(`card-${files}`, { fs: "ext4", mib: Math.ceil((files * size) / 2 ** 20) + 100 });
  const names = Array.from({ length: files }, (_, n) => `D${n % 10}/f${n}`);
  const random = new Random(1);
  await lab.aside(card, (mount) => {
    for (let n = 0; n < 10; n++) mkdirSync(join(lab.path(mount), `D${n}`), { recursive: true });
    const content = random.bytes(2 ** 20);
    for (const name of names) {
      const parts = Array.from({ length: Math.ceil(size / content.length) }, () => content);
      writeFileSync(join(lab.path(mount), name), Buffer.concat(parts).subarray(0, size));
    }
  });
  const [theirs, ours]: [number[], number[]] = [[], []];
  for (let n = 0; n < runs; n++) {
    await lab.aside(card, async (mount) => {
      const to = join(dir, "dd");
      mkdirSync(to);
      writeFileSync(join(dir, "names"), names.map((name) => `${name}\n`).join(""));
      const each = `i=0; while read -r f; do dd if="${mount}/$f" of="${to}/$i" bs=1M conv=fsync status=none; i=$((i+1)); done <"${dir}/names"`;
      await dropCaches(lab);
      theirs.push(await timed(() => lab.exec("sh", ["-c", each])));
      rmSync(to, { recursive: true });
    });
    ours.push(await plugged(lab, dir, card, `disk: everything on`, true));
    rmSync(join(dir, "state"), { recursive: true, force: true });
  }
  return [median(theirs).toFixed(2), median(ours).toFixed(2), Math.round((100 * median(theirs)) / median(ours))];
}

async function listed(lab: DiskLab, dir: string): Promise<(string | number)[][]> {
  // ext4 has an inode for each 16 KiB.
  const card = await lab.make("many", { fs: "ext4", mib: 2000 });
  await lab.aside(card, (mount) => {
    for (let d = 0; d < 100; d++) {
      mkdirSync(join(lab.path(mount), `d${d}`));
      for (let n = 0; n < 1000; n++) writeFileSync(join(lab.path(mount), `d${d}/f${n}.jpg`), "");
    }
  });
  let find = 0;
  await lab.aside(card, async (mount) => {
    await dropCaches(lab);
    find = await timed(() => lab.exec("sh", ["-c", `find ${mount} -type f -printf '%s %T@ %p\\n' | wc -l`]));
  });
  // Left by its size: the listing is what is measured, not the queue.
  const first = await plugged(lab, dir, card, "disk: listed", false);
  const again = await plugged(lab, dir, card, "disk: listed", false);
  return [
    ["first", find.toFixed(2), first.toFixed(2)],
    ["with no change", find.toFixed(2), again.toFixed(2)],
  ];
}

/** Seconds from "attached" until it says what begins with `said`. `wanted`: its files are pulled, to a target that is away. */
async function plugged(lab: DiskLab, dir: string, card: Disk, said: string, wanted: boolean): Promise<number> {
  const config = join(dir, "config.json");
  writeFileSync(
    config,
    JSON.stringify({
      vehicle: "v",
      stateDir: "state",
      spool: { keepFree: "1MiB" },
      devices: { disk: { type: "disk", uuid: card.uuid }, out: { type: "local", dir: "nowhere" } },
      routes: [{ from: "disk", to: ["out"], ...(wanted ? {} : { minSize: "1B" }) }],
    }),
  );
  const program = new Program(["run", "--json", "--verbose", "--config", config], { wrap: lab.wrap() });
  try {
    await program.until(({ message }) => message.includes("is ready"), "that it is ready");
    await dropCaches(lab);
    await lab.plug(card);
    await program.until(({ what, message }) => what === "attached" && message.startsWith("disk:"), "that it is attached");
    return await timed(() => program.until(({ message }) => message.startsWith(said), said, 600_000));
  } finally {
    program.signal("SIGTERM");
    await program.exited;
    await lab.pull(card);
  }
}

async function dropCaches(lab: DiskLab): Promise<void> {
  await lab.exec("sh", ["-c", "sync; echo 3 >/proc/sys/vm/drop_caches"]);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return (performance.now() - begin) / 1000;
}
