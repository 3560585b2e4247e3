/**
 * A log that is being written while the vehicle is disarmed (ArduPilot: LOG_DISARMED 1, LOG_FILE_DSRMROT 0; the newest of a PX4): snapshots of it
 * that go on where the last one ended, one file in the end at each target, and never deleted while it may still be written.
 */
import assert from "node:assert/strict";
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { startSim } from "../../sim/sim.js";
import { until } from "../conformance/clause.js";
import { startGround } from "../faults/ground.js";
import { Program, runProgram } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";

for (const { autopilot, logDir, old, open, next } of [
  { autopilot: "ardupilot-4.6", logDir: "APM/LOGS", old: "00000001.BIN", open: "00000002.BIN", next: "00000003.BIN" },
  { autopilot: "ardupilot-4.8", logDir: "APM/LOGS", old: "00000001.BIN", open: "00000002.BIN", next: "00000003.BIN" },
  { autopilot: "px4", logDir: "fs/microsd/log", old: "sess001/log001.ulg", open: "sess001/log002.ulg", next: "sess001/log003.ulg" },
])
  test(`${autopilot}: the open log grows over several listings: one file at each target, nothing read twice, never deleted`, async (t) => {
    const world = new World(t);
    const random = new Random(4);
    const ground = await startGround(world.path("ground"));
    t.after(() => ground.program.kill());
    mkdirSync(world.path("out"));
    const at = (name: string): string => world.path("card", logDir, name);
    const parts = [random.bytes(150_000)];
    const write = (): void => {
      const part = random.bytes(40_000);
      parts.push(part);
      appendFileSync(at(open), part);
    };
    const whole = (): Buffer => Buffer.concat(parts);
    world.file(join("card", logDir, old), random.bytes(5000));
    world.file(join("card", logDir, open), parts[0] ?? "");
    const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir: world.path("card"), autopilot, link: "none" });
    t.after(() => sim.close());
    const config = world.config({
      devices: {
        fc: { type: "mavftp", url: sim.clientUrl, root: `/${logDir}`, write: true, settle: "0s", interval: "1s" },
        out: { type: "local", dir: "out" },
        ground: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret" },
      },
      routes: [{ from: "fc", to: ["out", "ground"], into: "", afterDelivery: "delete" }],
    });
    const daemon = new Program(["run", "--json", "--config", config]);
    t.after(() => daemon.kill());
    const size = (dir: string): number => statSync(join(dir, open), { throwIfNoEntry: false })?.size ?? -1;
    for (let n = 0; n < 4; n++) {
      const now = whole().length;
      await until(`snapshot ${n} to arrive`, () => size(world.path("out")) >= now && size(ground.root) >= now, 30_000);
      write();
    }
    await until("the last to arrive", () => size(world.path("out")) === whole().length && size(ground.root) === whole().length, 30_000);
    for (const dir of [world.path("out"), ground.root]) {
      assert.ok(readFileSync(join(dir, open)).equals(whole()), dir);
      assert.deepEqual(
        readdirSync(join(dir, open, "..")).sort(),
        [old, open].map((name) => name.split("/").at(-1)).sort(),
        "one file of it",
      );
    }
    await until("what is complete to be deleted", () => !existsSync(at(old)), 10_000);
    assert.ok(existsSync(at(open)), "the open log was deleted");
    // Beginnings are compared at each snapshot, 4 KiB at most, and so is what is before the offset.
    const most = whole().length + 5000 + 8 * 4 * 4096;
    assert.ok(sim.stats.payloadBytes <= most, `${sim.stats.payloadBytes} bytes were read, of ${whole().length}`);
    const why = await runProgram(["why", open, "--config", config]);
    assert.match(why.out, /it is deleted once it is surely not written any more/);
    // Another log follows: that one is complete.
    writeFileSync(at(next), random.bytes(3000));
    await until("the followed log to be deleted", () => !existsSync(at(open)), 60_000);
    assert.ok(readFileSync(join(world.path("out"), open)).equals(whole()));
    assert.ok(existsSync(at(next)));
    assert.deepEqual(
      daemon.events.filter(({ level }) => level === "error"),
      [],
    );
  });

test("ardupilot-4.6, whose numbers have begun again: the log that it keeps over flights is not deleted while another is read", async (t) => {
  const world = new World(t);
  const random = new Random(5);
  const at = (name: string): string => world.path("card/APM/LOGS", name);
  const logs = { "00000001.BIN": 60_000, "00000002.BIN": 60_000, "00000500.BIN": 2_000_000 };
  for (const [name, size] of Object.entries(logs)) world.file(join("card/APM/LOGS", name), random.bytes(size));
  world.file("card/APM/LOGS/LASTLOG.TXT", "2\r\n");
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir: world.path("card"), autopilot: "ardupilot-4.6", link: "usb" });
  t.after(() => sim.close());
  world.mkdir("out");
  const config = world.config({
    devices: {
      fc: { type: "mavftp", url: sim.clientUrl, write: true, settle: "1s", interval: "3s" },
      out: { type: "local", dir: "out" },
    },
    routes: [{ from: "fc", to: ["out"], into: "", afterDelivery: "delete" }],
  });
  const daemon = new Program(["run", "--json", "--config", config]);
  t.after(() => daemon.kill());
  const gone = (name: string): boolean => !existsSync(at(name));
  await until("what is complete to be deleted", () => gone("00000002.BIN") || (gone("00000001.BIN") && gone("00000500.BIN")), 120_000);
  await until("the open log to arrive", () => existsSync(world.path("out/00000002.BIN")));
  assert.ok(existsSync(at("00000002.BIN")), "the open log was deleted");
});

for (const [how, device] of [
  ["in place", {}],
  ["from the spool", { inPlace: false }],
] as const)
  test(`a log that grows faster than it is sent, read ${how}: it arrives all the same, again and again`, async (t) => {
    const world = new World(t);
    const random = new Random(5);
    const ground = await startGround(world.path("ground"));
    t.after(() => ground.program.kill());
    const parts = [random.bytes(3_000_000)];
    world.file("in/a.log", parts[0] ?? "");
    const config = world.config({
      devices: {
        in: { type: "local", dir: "in", ...device, settle: "100ms" },
        ground: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret", maxRate: "1MB/s" },
      },
      routes: [{ from: "in", to: ["ground"], into: "" }],
    });
    const daemon = new Program(["run", "--json", "--config", config]);
    t.after(() => daemon.kill());
    const sizes = new Set<number>();
    const arrived = () =>
      [...sizes.add(statSync(join(ground.root, "a.log"), { throwIfNoEntry: false })?.size ?? 0)].filter((size) => size > 0);
    // It is sent for longer than it stays the same.
    while (arrived().length < 3) {
      const part = random.bytes(1000);
      parts.push(part);
      appendFileSync(world.path("in/a.log"), part);
      await new Promise((resolve) => setTimeout(resolve, 1500));
      assert.ok(parts.length < 30, `only ${arrived().join(", ")} bytes arrived`);
    }
    const whole = Buffer.concat(parts);
    await until("the last to arrive", () => arrived().at(-1) === whole.length, 30_000);
    assert.ok(readFileSync(join(ground.root, "a.log")).equals(whole));
    await until("nothing else to be left", () => readdirSync(ground.root).filter((name) => name !== ".filesync").length === 1, 10_000);
    assert.deepEqual(
      daemon.events.filter(({ level }) => level === "error"),
      [],
    );
  });

test("a file that grows while a mirror sends it arrives as it was, then as it is", async (t) => {
  const world = new World(t);
  const random = new Random(6);
  const ground = await startGround(world.path("ground"));
  t.after(() => ground.program.kill());
  const parts = [random.bytes(3_000_000), random.bytes(1000)];
  world.file("in/a.log", parts[0] ?? "");
  const config = world.config({
    devices: {
      in: { type: "local", dir: "in" },
      ground: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret", maxRate: "1MB/s" },
    },
    routes: [{ from: "in", to: ["ground"], into: "", mode: "mirror" }],
  });
  const daemon = new Program(["run", "--json", "--config", config]);
  t.after(() => daemon.kill());
  const size = (path: string) => statSync(join(ground.root, path), { throwIfNoEntry: false })?.size ?? 0;
  const sending = () =>
    readdirSync(ground.root, { recursive: true, encoding: "utf8" }).find((path) => path.endsWith(".part") && size(path) > 500_000);
  await until("half of it to be sent", () => sending() !== undefined, 30_000);
  appendFileSync(world.path("in/a.log"), parts[1] ?? "");
  await until("all of it to arrive", () => size("a.log") === 3_001_000, 30_000);
  assert.ok(readFileSync(join(ground.root, "a.log")).equals(Buffer.concat(parts)));
  // What was there before, for as short as that may have been, is in the trash.
  const before = () =>
    readdirSync(join(ground.root, ".filesync"), { recursive: true, encoding: "utf8" }).filter((path) => /^trash\/.*\/a\.log$/.test(path));
  await until("what it was to be in the trash", () => before().length > 0);
  const [first = "", ...others] = before();
  assert.deepEqual(others, []);
  assert.ok(readFileSync(join(ground.root, ".filesync", first)).equals(parts[0] ?? Buffer.alloc(0)));
});
