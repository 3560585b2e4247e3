/** A full side, whose room is known or not: what fits is brought whole, nothing is sent in vain again and again, and what goes here goes there. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { until } from "../conformance/clause.js";
import { clockEnv, hasFakeClock } from "../faults/fake-clock.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { mountSmall, unmount } from "../small-disk.js";
import { all } from "./replicas.js";
import { once, statusOf } from "./shared.js";

const dist = (path: string) => JSON.stringify(fileURLToPath(new URL(`../../${path}`, import.meta.url)));

/** `local`, as a server that promises so much, and does not tell its room where `tells` is false. */
const pluginText = (promises: object | undefined, tells: boolean) => `
import { plugin as local } from ${dist("plugins/local/plugin.js")};
export const plugin = {
  ...local,
  type: "small",
  device: (given, context) => {
    const device = local.device(given, context);
    const { tree } = device;
    const tryOut = tree.tryOut.bind(tree);
    tree.tryOut = async (...how) => ({ ...(await tryOut(...how)), ...${JSON.stringify(promises ?? {})} });
    ${tells ? "" : "device.room = undefined;"}
    return device;
  },
};
export default plugin;
`;

const inTurn = { exclusive: "directories", rmdirIsSafe: false };
const [size, count] = [1_200_000, 10];

for (const [name, mode, promises, tells] of [
  ["mirror", "mirror", undefined, false],
  ["two-way", "two-way", undefined, false],
  ["two-way, in turn", "two-way", inTurn, false],
  ["two-way, in turn, and its room is known", "two-way", inTurn, true],
] as const)
  test(`many files under way at once, for few of which there is room: ${name}`, async (t) => {
    const mounted: string[] = [];
    // Before the world is taken away.
    t.after(() => mounted.forEach(unmount));
    const world = new World(t);
    const [box, nas] = [world.mkdir("box"), world.mkdir("nas")];
    const why = mountSmall(world.path("image"), nas, 20);
    if (why !== undefined) {
      t.skip(why);
      return;
    }
    mounted.push(nas);
    writeFileSync(world.path("small.mjs"), pluginText(promises, tells));
    const own = { settle: "0s", interval: "1s" };
    const config = world.config({
      devices: { box: { type: "local", dir: "box", ...own }, nas: { type: "./small.mjs", dir: "nas", ...own } },
      routes: [{ from: "box", to: ["nas"], mode, into: "shared", ...(mode === "mirror" ? { deletes: true } : {}) }],
    });
    writeFileSync(join(box, "gone"), "gone");
    await once(config);
    writeFileSync(join(nas, "ballast"), Buffer.alloc(12_000_000, "x"));
    for (let n = 0; n < count; n++) writeFileSync(join(box, `log ${n}`), randomBytes(size));
    const whole = () =>
      readdirSync(join(nas, "shared")).filter((it) => it.startsWith("log") && statSync(join(nas, "shared", it)).size === size);
    const begin = async () => {
      const program = new Program(["run", "--json", "--config", config]);
      t.after(() => program.kill());
      await program.until(({ what }) => what === "ready", "ready");
      return program;
    };
    let program = await begin();
    await until(
      "what fits has arrived, and the rest is told",
      async () => {
        const [{ reason = "" } = {}] = (await statusOf(config)).syncs;
        return whole().length >= 3 && /no space is left|has .* free/.test(reason) && reason.includes("make room there");
      },
      60_000,
    );
    assert.ok(whole().length < count);
    // Some rounds more: nothing is sent again.
    await sleep(3000);
    const before = (await statusOf(config)).moved.pushed;
    await sleep(6000);
    const sent = (await statusOf(config)).moved.pushed - before;
    assert.ok(sent < size, `${sent} bytes were sent in vain`);

    await program.kill();
    rmSync(join(box, "gone"));
    program = await begin();
    await until("what has gone here went there, though there is no room", () => !existsSync(join(nas, "shared/gone")), 60_000);

    rmSync(join(nas, "ballast"));
    await until("the rest has arrived", () => whole().length === count, 90_000);
    for (let n = 0; n < count; n++)
      assert.ok(readFileSync(join(nas, "shared", `log ${n}`)).equals(readFileSync(join(box, `log ${n}`))), `log ${n}`);
    await until("nothing is left", () => all(join(nas, "shared/.filesync/staged")).length === 0, 10_000);
    await program.kill();
  });

test(
  "what is old enough in the trash makes room on a full side",
  { skip: hasFakeClock ? false : 'libfaketime is not installed (Debian: "faketime")' },
  async (t) => {
    const mounted: string[] = [];
    t.after(() => mounted.forEach(unmount));
    const world = new World(t);
    const [box, nas] = [world.mkdir("box"), world.mkdir("nas")];
    const why = mountSmall(world.path("image"), nas, 20);
    if (why !== undefined) {
      t.skip(why);
      return;
    }
    mounted.push(nas);
    const own = { settle: "0s" };
    const config = world.config({
      devices: { box: { type: "local", dir: "box", ...own }, nas: { type: "local", dir: "nas", ...own } },
      routes: [{ from: "box", to: ["nas"], mode: "mirror", into: "shared", deletes: true, trashKeep: "30d" }],
    });
    const clock = world.path("clock");
    const env = { ...process.env, ...clockEnv(clock) };
    const at = async (offset: string) => {
      writeFileSync(clock, offset);
      const { code, out, err } = await runProgram(["run", "--once", "--config", config], { env });
      return { code, said: out + err };
    };
    for (const name of ["old", "stays"]) writeFileSync(join(box, name), randomBytes(name === "old" ? 12_000_000 : 100));
    assert.equal((await at("+0")).code, 0);
    rmSync(join(box, "old"));
    for (const offset of ["+0", "+1d", "+8d", "+15d", "+22d", "+29d"]) assert.equal((await at(offset)).code, 0);
    const content = randomBytes(10_000_000);
    writeFileSync(join(box, "new"), content);
    const full = await at("+29d");
    assert.equal(full.code, 3);
    assert.match(full.said, /no space is left|has .* free/);
    assert.match((await at("+31d")).said, /the trash at nas: 1 day is old enough, and is gone/);
    const { code, said } = await at("+31d");
    assert.equal(code, 0, said);
    assert.ok(readFileSync(join(nas, "shared/new")).equals(content));
  },
);
