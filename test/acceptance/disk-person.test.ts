/** A person beside the daemon: who mounts a disk too, ejects it, adds a route, works on it by hand. What is said of pulling it is true each time. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test, type TestContext } from "node:test";
import type { DiskLab } from "../disks/lab.js";
import { daemonIn, isSafe, labFor } from "../disks/scene.js";
import { runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";

async function begun(t: TestContext): Promise<{ lab: DiskLab; world: World } | undefined> {
  const lab = await labFor(t);
  if (lab === undefined) return undefined;
  const world = new World(t);
  world.mkdir("out");
  return { lab, world };
}

const out = { type: "local", dir: "out" };

async function statusOf(config: string): Promise<string> {
  return (await runProgram(["status", "--config", config])).out;
}

test("somebody else mounts what may be pulled: it may not any more, its new files arrive, and eject says what is to be done", async (t) => {
  const it = await begun(t);
  if (it === undefined) return;
  const { lab, world } = it;
  const card = await lab.make("card", { fs: "ext4", mib: 16, files: { "a.bin": "content of a" } });
  const config = world.config({ devices: { cam: { type: "disk", uuid: card.uuid }, out }, routes: [{ from: "cam", to: ["out"] }] });
  const program = daemonIn(t, lab, config);
  await lab.plug(card);
  await program.until(isSafe, "that it may be pulled");
  const theirs = world.mkdir("theirs");
  await lab.exec("mount", ["-t", "ext4", lab.nodeOf(card), theirs]);
  writeFileSync(lab.path(`${theirs}/b.bin`), "content of b");
  await program.until(({ message }) => /was mounted by somebody else, at \S*theirs/.test(message), "that it is seen");
  assert.doesNotMatch(await statusOf(config), /may be pulled/);
  await program.until(({ what, message }) => what === "delivered" && message.includes("b.bin"), "the new file", 90_000);
  const eject = await runProgram(["eject", "cam", "--config", config]);
  assert.equal(eject.code, 3);
  assert.match(eject.err, /is used no more, but cannot be unmounted: it was mounted by somebody else, at \S*theirs; do not pull it yet/);
  assert.match(await statusOf(config), /cam {2}detached: it is ejected: do not pull it yet/);
});

test("a gadget: nothing is said of pulling it before its files are here", async (t) => {
  const it = await begun(t);
  if (it === undefined) return;
  const { lab, world } = it;
  const card = await lab.make("card", { fs: "ext4", mib: 16, files: { "a.bin": "content of a" } });
  const config = world.config({
    devices: { cam: { type: "disk", uuid: card.uuid, gadget: true, settle: "1s" }, out },
    routes: [{ from: "cam", to: ["out"] }],
  });
  const program = daemonIn(t, lab, config);
  await lab.plug(card);
  await program.until(isSafe, "that it may be pulled");
  const said = program.events.findIndex(isSafe);
  const here = program.events.findIndex(({ what }) => what === "pulled");
  assert.ok(here !== -1 && here < said, program.events.map(({ message }) => message).join("\n"));
});

test("a route that writes on a disk comes while that is read: it is mounted for writing once that has ended", async (t) => {
  const it = await begun(t);
  if (it === undefined) return;
  const { lab, world } = it;
  world.file("in/b.bin", "content of b");
  const card = await lab.make("card", { fs: "ext4", mib: 64, files: { "a.bin": Buffer.alloc(20_000_000, "a") } });
  const devices = { cam: { type: "disk", uuid: card.uuid, maxRate: "8MiB/s" }, in: { type: "local", dir: "in" }, out };
  const read = { from: "cam", to: ["out"] };
  const config = world.config({ devices, routes: [read] });
  const program = daemonIn(t, lab, config);
  await lab.plug(card);
  await program.until(({ what, message }) => what === "attached" && message.startsWith("cam"), "that it is attached");
  world.config({ devices, routes: [read, { from: "in", to: ["cam"], into: "" }] });
  program.signal("SIGHUP");
  await program.until(({ what, message }) => what === "delivered" && message.includes("b.bin"), "what is written");
  await program.until(({ what, message }) => what === "delivered" && message.includes("a.bin"), "what is read");
  assert.equal(program.events.filter(({ message }) => message.includes("damaged")).length, 0);
});

test("two disks of one UUID are in: the second is used once the first is ejected", async (t) => {
  const it = await begun(t);
  if (it === undefined) return;
  const { lab, world } = it;
  const uuid = "11111111-2222-4333-8444-555555555555";
  const one = await lab.make("one", { fs: "ext4", mib: 16, uuid, files: { "a1.bin": "one", "b1.bin": "one" } });
  const two = await lab.make("two", { fs: "ext4", mib: 16, uuid, files: { "a2.bin": "two" } });
  const config = world.config({ devices: { cam: { type: "disk", uuid }, out }, routes: [{ from: "cam", to: ["out"] }] });
  const program = daemonIn(t, lab, config);
  await lab.plug(one);
  await program.until(isSafe, "that it may be pulled");
  await lab.plug(two);
  await program.until(({ message }) => /answers the description too: it waits/.test(message), "that it waits");
  assert.equal((await runProgram(["eject", "cam", "--config", config])).code, 0);
  await program.until(({ what, message }) => what === "delivered" && message.includes("a2.bin"), "the second's file");
});

test("by hand: one command says once that it may be pulled; a hook that hangs does not hold up a stop", async (t) => {
  const it = await begun(t);
  if (it === undefined) return;
  const { lab, world } = it;
  world.file("local.txt", "content");
  const card = await lab.make("card", { fs: "exfat", mib: 32, files: { "d1/a.bin": "a", "d2/b.bin": "b" } });
  const config = world.config({
    devices: { cam: { type: "disk", uuid: card.uuid, write: true, onSafe: ["sleep", "1000"] }, out },
    routes: [{ from: "cam", to: ["out"] }],
  });
  const program = daemonIn(t, lab, config);
  await lab.plug(card);
  await program.until(isSafe, "that it may be pulled");
  const count = () => program.events.filter(isSafe).length;
  assert.equal(count(), 1);
  assert.equal((await runProgram(["ls", "-r", "cam:", "--config", config])).code, 0);
  assert.equal(count(), 1);
  for (let n = 0; n < 5; n++)
    assert.deepEqual((await runProgram(["put", world.path("local.txt"), `cam:p${n}.txt`, "--config", config])).code, 0);
  await program.until(() => count() > 1, "that it may be pulled again", 90_000);
  assert.ok(count() <= 6, `${count()} times`);
  assert.equal(program.events.filter(({ message }) => message.includes("was pulled")).length, 0);
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
});
