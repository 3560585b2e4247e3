/** Every autopilot's own way of serving files, over every kind of link, undisturbed and disturbed: byte for byte. */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { autopilots } from "../../sim/autopilots.js";
import { eventually, listAll, makeLogs, makeRig, readAll, type Rig } from "./harness.test.js";

async function readsAll(rig: Rig, content: Map<string, Buffer>): Promise<void> {
  const entries = await listAll(rig.source);
  assert.deepEqual(
    entries.map((entry) => [entry.path, entry.size, entry.kind]),
    [...content].map(([path, bytes]) => [path, bytes.length, "file"]).sort((a, b) => (String(a[0]) < String(b[0]) ? -1 : 1)),
  );
  for (const entry of entries) assert.ok((await readAll(rig.source, entry)).equals(content.get(entry.path) as Buffer), entry.path);
  await eventually(() => rig.sim.openSessions() === 0, "sessions are ended", 3000);
}

const small = { "logs/a.bin": 0, "logs/b.bin": 1, "c.bin": 239 * 4 };
const faults = { loss: "5%", dup: "3%", reorder: "3%", corrupt: "1%" };

for (const { name } of autopilots) {
  for (const [link, more] of [
    ["none", { "d.bin": 10_000, "e.bin": 1_000_000 }],
    ["usb", { "d.bin": 10_000, "e.bin": 1_000_000 }],
    ["uart:921600", { "d.bin": 10_000, "e.bin": 50_000 }],
    ["radio:57600", { "d.bin": 5000 }],
  ] as const) {
    // What differs between those two is not how they read.
    if (link.startsWith("radio") && ["px4-1.18", "ardupilot-4.7"].includes(name)) continue;
    test(`${name} over ${link}`, async (t) => {
      const { dir, content } = makeLogs(t, { ...small, ...more });
      mkdirSync(join(dir, "empty"));
      await readsAll(await makeRig(t, { dir, link, autopilot: name }), content);
    });
    test(`${name} over ${link}, with losses, repeats, reordering and damage`, async (t) => {
      const { dir, content } = makeLogs(t, { "c.bin": 239 * 4, "e.bin": link.startsWith("radio") ? 5000 : 50_000, "f.bin": 0 });
      mkdirSync(join(dir, "empty"));
      await readsAll(await makeRig(t, { dir, link, autopilot: name, faults, seed: 5 }), content);
    });
  }
  for (const [fault, value] of [
    ["short", "48"],
    ["late", "5%"],
    ["wrong-session", "3%"],
    ["stale-errno", "100%"],
  ] as const)
    test(`${name} with ${fault}`, async (t) => {
      const { dir, content } = makeLogs(t, { "a.bin": 60_007, "b.bin": 60_007, "c.bin": 239 * 4 });
      await readsAll(await makeRig(t, { dir, link: "none", autopilot: name, faults: { [fault]: value }, seed: 7 }), content);
    });
}

for (const autopilot of ["ardupilot-4.6", "ardupilot-4.7", "ardupilot-4.8"]) {
  test(`${autopilot}: our own session, whose opening went wrong, is ended and opened again`, async (t) => {
    const { dir, content } = makeLogs(t, { "a.bin": 10_000 });
    const rig = await makeRig(t, { dir, autopilot, faults: { nak: "1@open:1" } });
    await readsAll(rig, content);
    assert.equal(rig.sim.stats.requests.OpenFileRO, 2, "refused, ended, opened");
  });
  test(`${autopilot}: sessions of others are waited for, never reset`, async (t) => {
    const { dir, content } = makeLogs(t, { "a.bin": 10_000 });
    const rig = await makeRig(t, { dir, autopilot });
    const entries = await listAll(rig.source);
    const held = rig.sim.exhaust(1500);
    await eventually(() => rig.sim.openSessions() > 0, "they have it");
    for (const entry of entries) assert.ok((await readAll(rig.source, entry)).equals(content.get(entry.path) as Buffer));
    await held;
    assert.equal(rig.sim.stats.requests.ResetSessions, undefined);
  });
}

test("a MAVSDK server that fails for ever after a read is asked to open the file anew", async (t) => {
  const { dir, content } = makeLogs(t, { "a.bin": 100_000 });
  // Three refusals of the same read: the stream has failed.
  const rig = await makeRig(t, {
    dir,
    autopilot: "mavsdk",
    faults: {
      nak: "1@read:50,1@read:51,1@read:52,1@read:53,1@read:54,1@read:55,1@read:56,1@read:57,1@read:58,1@read:59,1@read:60,1@read:61,1@read:62",
    },
  });
  await readsAll(rig, content);
  assert.equal(rig.sim.stats.sessionsOpened, 2);
});
