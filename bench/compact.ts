/** 100,000 files in the journal, half of which left their source long ago: how long it takes until they are forgotten, and what is written for it. */
import { closeSync, ftruncateSync, mkdirSync, openSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Journal } from "../core/journal.js";
import { Program } from "../test/faults/process.js";
import { files, fill } from "./many.js";
import { heading, inTempDir, mb, table, writtenBy } from "./measure.js";

const half = files / 2;

export async function compact(): Promise<void> {
  heading("compact");
  await inTempDir(async (dir) => {
    const state = join(dir, "state");
    await fill(state, false);
    const journal = await Journal.open(state);
    const there = journal.all<{ path: string; size: number; modified_ms: number }>(
      `SELECT path, size, modified_ms FROM versions ORDER BY found_ms LIMIT ${half}`,
    );
    // The others were seen to be away since the beginning of time.
    await journal.commit(() => void journal.run(`INSERT INTO absent SELECT id, 0 FROM versions WHERE found_ms >= ${half}`));
    await journal.close();
    for (const { path, size, modified_ms } of there) {
      const file = join(dir, "in", path);
      mkdirSync(dirname(file), { recursive: true });
      const fd = openSync(file, "w");
      ftruncateSync(fd, size);
      closeSync(fd);
      utimesSync(file, modified_ms / 1000, modified_ms / 1000);
    }
    mkdirSync(join(dir, "out"));
    const config = join(dir, "config.json");
    const devices = { in: { type: "local", dir: "in" }, out: { type: "local", dir: "out" } };
    // Nothing but the newest is sent once more under these rules.
    writeFileSync(config, JSON.stringify({ stateDir: "state", devices, routes: [{ from: "in", to: ["out"], newest: 1 }] }));
    const size = () => statSync(join(state, "journal.db")).size;
    const before = size();
    const program = new Program(["run", "--json", "--config", config]);
    await program.until(({ what }) => what === "found", "found");
    const [beganMs, began] = [performance.now(), writtenBy(program.pid)];
    const { facts } = await program.until(({ what }) => what === "compacted", "compacted", 300_000);
    const [tookMs, written] = [performance.now() - beganMs, writtenBy(program.pid) - began];
    program.signal("SIGTERM");
    await program.exited;
    const again = await Journal.open(state);
    const free = again.get<{ n: number }>("SELECT freelist_count * page_size AS n FROM pragma_freelist_count, pragma_page_size")?.n ?? 0;
    await again.close();
    table(
      ["versions", "forgotten", "seconds", "MB written", "MB of journal.db before", "after a new start", "of that free"],
      [[files, Number(facts?.["versions"]), (tookMs / 1000).toFixed(1), mb(written), mb(before), mb(size()), mb(free)]],
    );
  });
}
