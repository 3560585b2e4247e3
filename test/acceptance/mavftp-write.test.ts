/** Files on their way to an autopilot, as a person and a route send them: hand commands, and a route that is killed in the middle. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { startSim, type Sim } from "../../sim/sim.js";
import { until } from "../conformance/clause.js";
import { Program, runProgram } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";
import { masked } from "./said.js";

async function vehicle(t: TestContext, world: World, autopilot: string, link: string): Promise<Sim> {
  mkdirSync(world.path("card/fs/microsd"), { recursive: true });
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir: world.path("card"), autopilot, link });
  t.after(() => sim.close());
  return sim;
}

for (const [autopilot, running] of [
  ["px4", true],
  ["ardupilot-4.6", false],
  ["ardupilot-4.8", true],
  ["mavsdk", false],
] as const)
  test(`${autopilot}: mkdir, put, mv, get and rm by hand, ${running ? "through the daemon" : "without a daemon"}`, async (t) => {
    const world = new World(t);
    const sim = await vehicle(t, world, autopilot, "usb");
    world.file("cwd/b.lua", Buffer.alloc(3000, 7), 1);
    world.file("cwd/other", "other");
    const config = world.config({ devices: { fc: { type: "mavftp", url: sim.clientUrl, root: "/fs/microsd", write: true } } });
    if (running) {
      const daemon = new Program(["run", "--json", "--config", config]);
      t.after(() => daemon.kill());
      await daemon.until(({ what }) => what === "attached", "attached");
    }
    const filesync = async (...args: string[]): Promise<{ code: number | NodeJS.Signals; out: string; err: string }> => {
      const { code, out, err } = await runProgram([...args, "--config", config], { cwd: world.path("cwd") });
      return { code, out: masked(out, world.dir), err: masked(err, world.dir) };
    };
    assert.deepEqual(await filesync("mkdir", "fc:APM/scripts"), { code: 0, out: "fc:APM/scripts/: is there", err: "" });
    assert.deepEqual(await filesync("put", "b.lua", "fc:APM/scripts"), {
      code: 0,
      out: "b.lua → fc:APM/scripts/b.lua (3000 bytes in TIME, proved by digest)",
      err: "",
    });
    assert.equal(
      (await filesync("put", "b.lua", "fc:APM/scripts/")).out,
      "b.lua → fc:APM/scripts/b.lua (3000 bytes, was there already, proved by readback)",
    );
    assert.deepEqual(await filesync("put", "other", "fc:APM/scripts/b.lua"), {
      code: 2,
      out: "",
      err: "filesync: fc:APM/scripts/b.lua is there already, with another content; --force replaces it",
    });
    assert.equal(
      (await filesync("put", "--force", "other", "fc:APM/scripts/b.lua")).out,
      "other → fc:APM/scripts/b.lua (5 bytes in TIME, in the place of another, proved by digest)",
    );
    assert.equal((await filesync("mv", "fc:APM/scripts/b.lua", "moved/c.lua")).out, "fc:APM/scripts/b.lua → fc:moved/c.lua");
    assert.equal(readFileSync(world.path("card/fs/microsd/moved/c.lua"), "utf8"), "other");
    assert.equal((await filesync("get", "fc:moved/c.lua", "c")).code, 0);
    assert.equal(readFileSync(world.path("cwd/c"), "utf8"), "other");
    assert.deepEqual(await filesync("rm", "fc:moved/c.lua"), { code: 0, out: "fc:moved/c.lua: removed (5 bytes)", err: "" });
    assert.equal((await filesync("rm", "fc:moved/c.lua")).err, "filesync: there is no fc:moved/c.lua");
    // The sign is printed twice, as one begins the digits of a byte; as it was typed it is the same file.
    assert.equal((await filesync("put", "other", "fc:moved/‛XX")).code, 0);
    assert.equal((await filesync("mv", "fc:moved/‛XX", "moved/‛YY")).out, "fc:moved/‛XX → fc:moved/‛‛YY");
    assert.equal((await filesync("get", "fc:moved/‛YY", "yy")).code, 0);
    assert.equal((await filesync("rm", "fc:moved/‛YY")).code, 0);
    assert.match((await filesync("ls", "-r", "fc:")).out, /APM\/scripts\/\n.*moved\/$/);
    sim.setArmed(true);
    const armed = await filesync("put", "b.lua", "fc:d.lua");
    assert.deepEqual([armed.code, armed.err.replace(/^filesync: fc: /, "")], [3, "the vehicle is armed"]);
    assert.deepEqual(readdirSync(world.path("card/fs/microsd")).sort(), ["APM", "moved"]);
  });

test("without write each command that would change something names the option; reading goes on as before", async (t) => {
  const world = new World(t);
  const sim = await vehicle(t, world, "px4", "none");
  world.file("card/fs/microsd/a.ulg", "content of a");
  world.file("cwd/b.lua", "b");
  const config = world.config({ devices: { fc: { type: "mavftp", url: sim.clientUrl, root: "/fs/microsd" } } });
  const filesync = (...args: string[]) => runProgram([...args, "--config", config], { cwd: world.path("cwd") });
  const why = 'it is only read; "write": true on this device lets files be put, moved and removed there';
  for (const [args, said] of [
    [["put", "b.lua", "fc:b.lua"], `nothing can be put on fc by hand: ${why}`],
    [["rm", "fc:a.ulg"], `fc cannot be changed by hand: ${why}`],
    [["mv", "fc:a.ulg", "b.ulg"], `fc cannot be changed by hand: ${why}`],
    [["mkdir", "fc:new"], `fc cannot be changed by hand: ${why}`],
  ] as const) {
    const { code, err } = await filesync(...args);
    assert.deepEqual([code, err.trim()], [2, `filesync: ${said}`]);
  }
  assert.match((await filesync("ls", "fc:")).out, /a\.ulg$/);
  assert.equal((await filesync("get", "fc:a.ulg")).code, 0);
  const roles = async (file: string): Promise<unknown> => {
    assert.equal((await runProgram(["run", "--once", "--config", file])).code, 0);
    const { out } = await runProgram(["status", "--json", "--config", file]);
    return (JSON.parse(out) as { devices: { roles: unknown }[] }).devices[0]?.roles;
  };
  assert.deepEqual(await roles(config), ["source"]);
  const writes = world.config({ stateDir: "other", devices: { fc: { type: "mavftp", url: sim.clientUrl, write: true } } }, "w.json");
  assert.deepEqual(await roles(writes), ["source", "target"]);
  const bad = world.config(
    { devices: { in: { type: "local", dir: "cwd" }, fc: { type: "mavftp", url: sim.clientUrl } }, routes: [{ from: "in", to: ["fc"] }] },
    "bad.json",
  );
  const check = await runProgram(["check", "--config", bad]);
  assert.equal(check.code, 2);
  assert.match(check.out + check.err, new RegExp(`"fc" cannot be a target: ${why}`));
});

for (const autopilot of ["px4", "ardupilot-4.6", "ardupilot-4.8", "mavsdk"])
  test(`${autopilot}: a route from a directory to the autopilot, killed in the middle, and armed for a while`, async (t) => {
    const world = new World(t);
    const sim = await vehicle(t, world, autopilot, "usb");
    const content = new Map<string, Buffer>();
    const random = new Random(8);
    for (const [path, size] of [
      ["terrain/N50E030.DAT", 150_000],
      ["scripts/a.lua", 2000],
      ["scripts/empty.lua", 0],
    ] as const) {
      content.set(path, random.bytes(size));
      world.file(`in/${path}`, content.get(path) ?? "");
    }
    const config = world.config({
      devices: {
        in: { type: "local", dir: "in" },
        fc: { type: "mavftp", url: sim.clientUrl, root: "/fs/microsd/APM", write: true },
      },
      routes: [{ from: "in", to: ["fc"], into: "" }],
    });
    const run = (): Program => {
      const daemon = new Program(["run", "--json", "--config", config]);
      t.after(() => daemon.kill());
      return daemon;
    };
    const first = run();
    await until("the middle of the large file", () => sim.stats.writtenBytes > 50_000, 30_000);
    await first.kill();
    const killedAt = sim.stats.writtenBytes;
    const second = run();
    await until("more of it", () => sim.stats.writtenBytes > killedAt + 20_000, 40_000);
    sim.setArmed(true);
    await second.until(({ what, message }) => what === "detached" && message.includes("armed"), "detached");
    // Of the one that was killed nobody has ended the session: an ArduPilot with several keeps it for 20 s.
    const left = autopilot === "ardupilot-4.8" ? 1 : 0;
    // A PX4 ends one by itself after 10 s.
    await until("the session to be ended", () => sim.openSessions() <= left, 9000);
    const armedAt = sim.stats.writtenBytes;
    sim.setArmed(false);
    await second.until(() => second.events.filter(({ what }) => what === "delivered").length === content.size, "delivered", 60_000);
    for (const [path, bytes] of content) assert.ok(readFileSync(world.path("card/fs/microsd/APM", path)).equals(bytes), path);
    assert.deepEqual(readdirSync(world.path("card/fs/microsd/APM/terrain")), ["N50E030.DAT"], "no partial is left");
    if (autopilot !== "mavsdk") {
      const total = [...content.values()].reduce((sum, { length }) => sum + length, 0);
      assert.ok(sim.stats.writtenBytes <= total + 4 * 239, `${sim.stats.writtenBytes} bytes were written, of ${total}`);
    } else assert.ok(sim.stats.writtenBytes > armedAt);
    const [receipt] = readFileSync(world.path("state/receipts.jsonl"), "utf8")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as { proof: string });
    assert.match(receipt?.proof ?? "", /^(digest|readback)$/);
    await until("every session to be ended", () => sim.openSessions() === 0, 25_000);
    assert.deepEqual(
      second.events.filter(({ level }) => level === "error"),
      [],
    );
  });
