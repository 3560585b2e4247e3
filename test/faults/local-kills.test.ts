/** Local → local, through the spool and in place, killed over and over: trees equal, no partial left, receipts true. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { killOften } from "./kills.js";
import { Random } from "./random.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "./trees.js";

for (const inPlace of [false, true]) {
  test(`killed at random moments, ${inPlace ? "read in place" : "through the spool"}`, async (t) => {
    const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
    t.diagnostic(`SEED=${seed}`);
    const random = new Random(seed);
    const dir = mkdtempSync(join(tmpdir(), "filesync-kills-"));
    t.after(() => rmSync(dir, { recursive: true, force: true }));
    for (let n = 0; n < 40; n++) {
      const path = join(dir, "src", `d${n % 5}`, `f${n}.bin`);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, random.bytes(n % 10 === 0 ? random.between(4_000_000, 9_000_000) : random.between(0, 200_000)));
      utimesSync(path, 1_780_000_000 + n, 1_780_000_000 + n);
    }
    mkdirSync(join(dir, "a"));
    mkdirSync(join(dir, "b"));
    const config = join(dir, "config.json");
    writeFileSync(
      config,
      JSON.stringify({
        vehicle: "v",
        stateDir: "state",
        spool: { keepFree: "1MiB" },
        devices: {
          in: { type: "local", dir: "src", inPlace, maxRate: "20MiB/s" },
          a: { type: "local", dir: "a", maxRate: "30MiB/s" },
          b: { type: "local", dir: "b", maxRate: "9MiB/s" },
        },
        routes: [{ from: "in", to: ["a", "b"], into: "" }],
      }),
    );
    const report = await killOften(config, random, { kills: 12, longestMs: 1500 });
    const source = treeOf(join(dir, "src"));
    assertSameTree(treeOf(join(dir, "a")), source, "target a");
    assertSameTree(treeOf(join(dir, "b")), source, "target b");
    const receipts = assertReceiptsTrue(join(dir, "state"), { a: join(dir, "a"), b: join(dir, "b") });
    assert.equal(receipts.size, 80);
    t.diagnostic(JSON.stringify(report));
  });
}
