/** A file whose sending a kill cut off goes on, and gets its name, on every server. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
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
        await halfThere(served);
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

for (const kind of kinds)
  test(
    `its directory gets another name there while a file is brought into it: ${kind.name}`,
    kind.skip === undefined ? {} : { skip: kind.skip },
    async (t) => {
      const { stop, dir, device } = await kind.start();
      t.after(stop);
      const world = new World(t);
      const [box, served] = [world.mkdir("box"), sharedIn(dir)];
      const own = { settle: "0s", interval: "1s" };
      const config = (maxRate: string) =>
        world.config({
          devices: { box: { type: "local", dir: "box", ...own }, nas: { ...device, ...own } },
          routes: [{ from: "box", to: ["nas"], mode: "two-way", into: "shared", maxRate }],
        });
      mkdirSync(join(box, "dir"));
      writeFileSync(join(box, "dir/small"), "small");
      await once(config("1GB/s"));
      const content = randomBytes(bytes);
      writeFileSync(join(box, "dir/big"), content);
      const program = new Program(["run", "--json", "--config", config("1MB/s")]);
      t.after(() => program.kill());
      await halfThere(served);
      renameSync(join(served, "dir"), join(served, "other"));
      await until("both are known here", () => existsSync(join(box, "other/small")) && !existsSync(join(box, "dir/small")), 60_000);
      const isAt = (path: string) => existsSync(join(served, path)) && existsSync(join(box, path));
      // Seen late, on a busy machine, it was whole by then, and went along.
      const wentAlong = () => isAt("other/big") && !existsSync(join(box, "dir/big"));
      await until("it is there", () => isAt("dir/big") || wentAlong(), 60_000);
      await program.kill();
      assert.ok(readFileSync(join(served, wentAlong() ? "other/big" : "dir/big")).equals(content));
      // Nothing is left there that holds the directory.
      rmSync(join(box, "other"), { recursive: true });
      await once(config("1GB/s"));
      assert.deepEqual((await statusOf(config("1GB/s"))).syncs[0]?.troubles, []);
      const left = all(served).filter((path) => path.endsWith(".part") || path.startsWith("other"));
      assert.deepEqual(left, []);
    },
  );

/** Half a MiB of a file that is sent. */
async function halfThere(served: string): Promise<void> {
  const size = (path: string) => statSync(join(served, path), { throwIfNoEntry: false })?.size ?? 0;
  await until("a part of it is there", () => all(served).some((path) => path.endsWith(".part") && size(path) >= 2 ** 19), 60_000);
}
