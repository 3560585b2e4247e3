/** A file whose sending a kill cut off goes on, and gets its name, on every server. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { until } from "../conformance/clause.js";
import { Program } from "../faults/process.js";
import { World } from "../faults/world.js";
import { all } from "./replicas.js";
import { kinds, sharedIn } from "./servers.js";
import { once, statusOf } from "./shared.js";

const bytes = 3 * 2 ** 20;

for (const kind of kinds)
  for (const mode of ["mirror", "two-way"] as const)
    test(`cut off in the middle of a file: ${mode}, ${kind.name}`, kind.skip === undefined ? {} : { skip: kind.skip }, async (t) => {
      const { stop, dir, device } = await kind.start();
      t.after(stop);
      const world = new World(t);
      const [box, served] = [world.mkdir("box"), sharedIn(dir)];
      const config = (maxRate: string) =>
        world.config({
          devices: { box: { type: "local", dir: "box", settle: "0s" }, nas: { ...device, settle: "0s" } },
          routes: [{ from: "box", to: ["nas"], mode, into: "shared", maxRate, ...(mode === "mirror" ? { deletes: true } : {}) }],
        });
      const content = randomBytes(bytes);
      for (const name of ["big", "gone"]) {
        writeFileSync(join(box, name), content);
        const program = new Program(["run", "--json", "--config", config("1MB/s")]);
        t.after(() => program.kill());
        const partial = () =>
          all(served).find(
            (path) => path.endsWith(".part") && (statSync(join(served, path), { throwIfNoEntry: false })?.size ?? 0) >= 2 ** 19,
          );
        await until("a part of it is there", () => partial() !== undefined, 60_000);
        await program.kill();
      }
      // Nobody wants that one any more.
      rmSync(join(box, "gone"));
      const sent = config("1GB/s");
      await once(sent);
      assert.deepEqual((await statusOf(sent)).syncs[0]?.troubles, []);
      assert.ok(readFileSync(join(served, "big")).equals(content));
      assert.deepEqual(
        all(served).filter((path) => path.endsWith(".part") || path === "gone"),
        [],
      );
    });
