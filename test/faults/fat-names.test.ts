/**
 * On FAT a name that a rename made is that of an empty file until the file itself is synced (Linux, `vfat_rename`); found by `npm run vm -- disks`. So whoever gives
 * a name syncs the file under it. Seen by strace here; what it does on FAT is seen there.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Program } from "./process.js";
import { World } from "./world.js";

const strace = spawnSync("strace", ["-qq", "-o", "/dev/null", "true"]).status === 0;

test(
  "a file is synced under the name that it was given, before anybody hears of it",
  { skip: strace ? false : "strace is missing" },
  async (t) => {
    const world = new World(t);
    world.file("in/a.bin", Buffer.alloc(100_000, 1));
    world.mkdir("out");
    const config = world.config({
      devices: { in: { type: "local", dir: "in", archiveDir: "done" }, out: { type: "local", dir: "out" } },
      routes: [{ from: "in", to: ["out"], into: "", afterDelivery: "archive" }],
    });
    const trace = ["strace", "-f", "-y", "-qq", "-o", world.path("trace"), "-e", "trace=link,rename,fsync,write"];
    const program = new Program(["run", "--once", "--json", "--config", config], { wrap: trace });
    assert.equal(await program.exited, 0, program.stderr);
    const lines = readFileSync(world.path("trace"), "utf8").split("\n");
    const first = (what: RegExp) => lines.findIndex((line) => what.test(line));
    const synced = first(/fsync\(\d+<[^>]*\/out\/a\.bin>/);
    assert.ok(synced > first(/(link|rename)\(.*\/out\/a\.bin"/), "synced under its name at the target");
    assert.ok(synced < first(/write\(\d+<[^>]*receipts\.jsonl>/), "before the receipt");
    const archived = first(/(link|rename)\(.*"[^"]*\/in\/a\.bin"/);
    assert.ok(archived > 0, "archived");
    assert.ok(
      lines.slice(archived).some((line) => /fsync\(\d+<[^>]*\/in\/[^>]*\/a\.bin>/.test(line)),
      "synced under its name in the archive",
    );
  },
);
