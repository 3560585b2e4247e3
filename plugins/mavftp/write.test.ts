/** Writing to every autopilot: answers that get lost, a vehicle that is armed in the middle, a reading at the same time, and what an earlier life left. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { isFault, type FaultKind } from "../../core/errors.js";
import type { Receipt, Target, Tree, Upload } from "../../core/plugin.js";
import { autopilots } from "../../sim/autopilots.js";
import type { SimOptions } from "../../sim/sim.js";
import { slow, stuck } from "../../test/conformance/readers.js";
import { bytes, sha256, upload } from "../../test/conformance/upload.js";
import { eventually, listAll, makeDevice, makeDir, makeRig, never, readAll, type Rig } from "./harness.test.js";

const root = "/fs/microsd";
const names = autopilots.map(({ name }) => name);

interface WriteRig extends Rig {
  readonly target: Target;
  readonly tree: Tree;
  /** Where the card is on this machine. */
  readonly card: string;
}

async function makeWriteRig(t: TestContext, sim: Partial<SimOptions>, options: Record<string, unknown> = {}): Promise<WriteRig> {
  const dir = makeDir(t);
  const card = join(dir, root);
  mkdirSync(card, { recursive: true });
  const rig = await makeRig(t, { ...sim, dir }, { root, write: true, ...options });
  const { target, tree } = rig.device;
  assert.ok(target && tree);
  return { ...rig, target, tree, card };
}

async function put(target: Target, it: Upload): Promise<Receipt> {
  await target.write(it, await target.offset(it, never), never, () => undefined);
  const done = await target.commit(it, never);
  assert.ok(!("occupied" in done), "the name was taken");
  return done;
}

const at = (rig: WriteRig, path: string): Buffer => readFileSync(join(rig.card, path));
const fails = (work: Promise<unknown>, kind: FaultKind, says = /./): Promise<void> =>
  assert.rejects(work, (e) => isFault(e, kind) && says.test(e.message));
const idle = (rig: WriteRig): Promise<void> => eventually(() => rig.sim.openSessions() === 0, "the session is ended", 3000);

for (const autopilot of names)
  for (const lost of ["create", "write:3", "end", "rename", "remove", "mkdir", "crc", "list:2"])
    test(`${autopilot}: the answer to a request is lost at ${lost}: it is done once, and nothing is left over`, async (t) => {
      const rig = await makeWriteRig(t, { autopilot, faults: { lose: `1@${lost}` } });
      const content = bytes(3000);
      const receipt = await put(rig.target, upload("new/scripts/a.lua", content));
      assert.deepEqual([receipt.size, receipt.digest, receipt.proof], [3000, sha256(content), "digest"]);
      await rig.tree.move("new/scripts/a.lua", "b.lua", { size: 3000 }, never);
      assert.ok(at(rig, "b.lua").equals(content));
      assert.deepEqual(readdirSync(join(rig.card, "new/scripts")), []);
      await rig.tree.remove("b.lua", { size: 3000 }, never);
      assert.deepEqual(readdirSync(rig.card), ["new"]);
      await idle(rig);
    });

for (const autopilot of names)
  test(`${autopilot}: losses, repeats, reordering and damage both ways`, async (t) => {
    const faults = { loss: "5%", dup: "3%", reorder: "3%", corrupt: "1%" };
    const rig = await makeWriteRig(t, { autopilot, link: "usb", faults, seed: 11 });
    const content = bytes(30_000);
    const it = upload("a.lua", content);
    // What a repetition may spoil is noticed, and sent again as core would.
    const receipt = await put(rig.target, it);
    assert.equal(receipt.digest, sha256(content));
    assert.ok(at(rig, "a.lua").equals(content));
    await idle(rig);
  });

for (const autopilot of names)
  for (const whenArmed of ["pause", "continue"])
    test(`${autopilot}: arming stops a writing within a second, also with whenArmed ${whenArmed}; it goes on after the disarm`, async (t) => {
      const rig = await makeWriteRig(t, { autopilot, link: "usb" }, { whenArmed });
      const content = bytes(60_000);
      const it = upload("terrain/a.dat", content);
      let told = 0;
      const from = rig.states.length;
      const writing = rig.target.write(it, 0, never, (n) => (told += n));
      const ended = fails(writing, whenArmed === "pause" ? "offline" : "throttled", /^the vehicle is armed/);
      await eventually(() => told > 5000, "bytes are written", 8000);
      rig.sim.setArmed(true);
      await eventually(() => rig.sim.openSessions() === 0, "it stops and ends the session", 1000);
      await ended;
      const before = rig.sim.stats.writtenBytes;
      await fails(rig.target.commit(it, never), whenArmed === "pause" ? "offline" : "throttled");
      await fails(rig.tree.mkdir("x", never), whenArmed === "pause" ? "offline" : "throttled");
      if (whenArmed === "continue") assert.equal((await rig.tree.stat("terrain", never))?.kind, "directory", "it is still read");
      assert.equal(rig.sim.stats.writtenBytes, before, "nothing was written while it was armed");
      rig.sim.setArmed(false);
      if (whenArmed === "pause") await rig.until((p) => p.state === "attached", 5000, from);
      else {
        await eventually(() => rig.device.disarmed, "the disarm to be heard", 3000);
        await fails(rig.tree.mkdir("x", never), "throttled", /just been disarmed/);
        // Three seconds later its log is closed.
        for (let made = false; !made;)
          made = await rig.tree.mkdir("y", never).then(
            () => true,
            (error: unknown) => {
              if (!isFault(error, "throttled")) throw error;
              return new Promise<false>((resolve) => setTimeout(() => resolve(false), 100));
            },
          );
      }
      const offset = await rig.target.offset(it, never);
      if (rig.target.features.resume) assert.ok(offset >= told && offset <= told + 239, `${offset} bytes are there, ${told} were told`);
      const receipt = await put(rig.target, it);
      assert.equal(receipt.proof, "digest");
      assert.ok(at(rig, "terrain/a.dat").equals(content));
      const more = rig.target.features.resume ? 2 * 239 : told + 239;
      assert.ok(rig.sim.stats.writtenBytes <= content.length + more, `${rig.sim.stats.writtenBytes} bytes were written`);
    });

for (const autopilot of names)
  test(`${autopilot}: a file is read while another is written, and directories are listed; one file is open at a time`, async (t) => {
    const rig = await makeWriteRig(t, { autopilot, link: "usb" });
    const log = bytes(1_500_000, 3);
    writeFileSync(join(rig.card, "a.ulg"), log);
    const [entry] = await listAll(rig.source);
    assert.ok(entry);
    let most = 0;
    const watch = setInterval(() => (most = Math.max(most, rig.sim.openSessions())), 1);
    t.after(() => clearInterval(watch));
    const content = bytes(60_000);
    const reading = readAll(rig.source, entry);
    const writing = put(rig.target, upload("scripts/a.lua", content));
    for (let n = 0; n < 5; n++) for await (const found of rig.tree.list("", never)) assert.ok(found.path !== "");
    const [read, receipt] = await Promise.all([reading, writing]);
    assert.ok(read.equals(log));
    assert.equal(receipt.digest, sha256(content));
    assert.ok(at(rig, "scripts/a.lua").equals(content));
    assert.equal(most, 1);
    await idle(rig);
  });

for (const autopilot of ["px4", "ardupilot-4.6", "ardupilot-4.8"]) {
  test(`${autopilot}: what an earlier life wrote is proved by the autopilot's checksum, and continued`, async (t) => {
    const rig = await makeWriteRig(t, { autopilot });
    const content = bytes(20_000);
    const first = upload("a.lua", content, { read: stuck(content, 8000, () => undefined) });
    const stop = new AbortController();
    let told = 0;
    const writing = fails(
      rig.target.write(first, 0, stop.signal, (n) => (told += n)),
      "aborted",
    );
    await eventually(() => told === 8000, "the first part is written");
    stop.abort();
    await writing;
    await rig.device.close();
    const again = makeDevice(t, { url: rig.sim.clientUrl, root, write: true });
    await again.attached();
    const { target } = again.device;
    assert.ok(target);
    const it = upload("a.lua", content, { id: first.id });
    assert.equal(await target.offset(it, never), 8000);
    const before = rig.sim.stats.writtenBytes;
    assert.equal((await put(target, it)).proof, "digest");
    assert.deepEqual(it.reading.offsets, [0], "the part before is read here once more, and not sent");
    assert.equal(rig.sim.stats.writtenBytes - before, 12_000);
    assert.ok(at(rig, "a.lua").equals(content));
  });

  test(`${autopilot}: what cannot be proved to be the beginning is not continued`, async (t) => {
    const rig = await makeWriteRig(t, { autopilot });
    const content = bytes(20_000);
    const it = upload("a.lua", content);
    const partial = join(rig.card, `.0a1b2c3d-${it.id}.part`);
    const broken = Buffer.from(content.subarray(0, 8000));
    broken[100] = (broken[100] ?? 0) ^ 1;
    writeFileSync(partial, broken);
    await fails(
      rig.target.write(it, 8000, never, () => undefined),
      "conflict",
      /cannot be proved/,
    );
    await rig.target.discard(it, never);
    assert.ok(!existsSync(partial));
    await put(rig.target, it);
    assert.ok(at(rig, "a.lua").equals(content));
  });
}

for (const autopilot of names)
  test(`${autopilot}: a card that is full stops a writing; what it took stays, and it goes on where it was once there is room`, async (t) => {
    const rig = await makeWriteRig(t, { autopilot, faults: { full: "5000B" } });
    writeFileSync(join(rig.card, "old.bin"), bytes(20_000, 2));
    const content = bytes(20_000);
    const it = upload("a.lua", content);
    const tellable = autopilot !== "mavsdk";
    await fails(
      rig.target.write(it, 0, never, () => undefined),
      tellable ? "full" : "transient",
      tellable ? /card is full/ : /./,
    );
    assert.equal(readFileSync(join(rig.card, `.0a1b2c3d-${it.id}.part`)).length, 5000);
    // Fail is all that a MAVSDK server says; the session may be another's by then, and its own takes nobody's place.
    if (tellable) await idle(rig);
    await rig.tree.remove("old.bin", { size: 20_000 }, never);
    const before = rig.sim.stats.writtenBytes;
    assert.equal((await put(rig.target, it)).proof, "digest");
    assert.ok(at(rig, "a.lua").equals(content));
    assert.equal(rig.sim.stats.writtenBytes - before, rig.target.features.resume ? 15_000 : 20_000);
  });

for (const autopilot of names)
  test(`${autopilot}: a full card has no room for a directory: that is full, not refused for ever`, async (t) => {
    const rig = await makeWriteRig(t, { autopilot, faults: { full: "100B" } });
    const it = upload("new/a.lua", bytes(10));
    await fails(
      rig.target.write(it, 0, never, () => undefined),
      "full",
      /card is full/,
    );
    assert.deepEqual(readdirSync(rig.card), []);
    await idle(rig);
  });

for (const autopilot of names)
  test(`${autopilot}: bytes that come slowly give the session back in between`, async (t) => {
    const rig = await makeWriteRig(t, { autopilot });
    const content = bytes(900);
    const free: boolean[] = [];
    const it = upload("a.lua", content, { read: slow(content, 300, 2600, () => free.push(rig.sim.openSessions() === 0)) });
    await put(rig.target, it);
    // The first piece may come before the file is open. A MAVSDK server would empty the file when it is opened again.
    assert.equal(free.slice(1).filter(Boolean).length, rig.target.features.resume ? 3 : 0, free.join());
    assert.ok(at(rig, "a.lua").equals(content));
  });

for (const autopilot of ["px4", "px4-1.18"])
  test(`${autopilot}: a listing of another place in the middle makes it refuse writes: the file is closed and opened again`, async (t) => {
    const rig = await makeWriteRig(t, { autopilot });
    const content = bytes(900);
    const listed: Promise<unknown>[] = [];
    const list = async (): Promise<void> => {
      for await (const entry of rig.tree.list("", never)) assert.ok(entry.path.endsWith(".part"));
    };
    await put(rig.target, upload("a.lua", content, { read: slow(content, 300, 300, () => listed.push(list())) }));
    await Promise.all(listed);
    assert.ok(at(rig, "a.lua").equals(content));
    const { requests, sessionsTimedOut } = rig.sim.stats;
    assert.ok((requests.OpenFileWO ?? 0) >= 1, "no write was refused");
    assert.equal(sessionsTimedOut, 0, "it waited for its own session");
  });

test("a partial that became shorter while its session was given back is not continued behind its end", async (t) => {
  const rig = await makeWriteRig(t, {});
  const content = bytes(900);
  const it = upload("a.lua", content, {
    read: slow(content, 300, 2600, () => {
      if (rig.sim.openSessions() === 0) writeFileSync(join(rig.card, `.0a1b2c3d-${it.id}.part`), bytes(10));
    }),
  });
  await fails(
    rig.target.write(it, 0, never, () => undefined),
    "transient",
    /has 10 bytes, and 300 were written/,
  );
});

test("where the autopilot's checksum would cost too much, what it holds is read back", async (t) => {
  const rig = await makeWriteRig(t, {}, { crcMaxSize: "1kB" });
  const content = bytes(5000);
  const receipt = await put(rig.target, upload("a.lua", content));
  assert.deepEqual([receipt.proof, receipt.digest, rig.sim.stats.requests.CalcFileCRC32], ["readback", sha256(content), undefined]);
});

test("a card that spoils what is written is found out, and nothing is published", async (t) => {
  for (const crcMaxSize of ["1MiB", "0B"]) {
    const rig = await makeWriteRig(t, {}, { crcMaxSize });
    const it = upload("a.lua", bytes(5000));
    await rig.target.write(it, 0, never, () => undefined);
    writeFileSync(join(rig.card, `.0a1b2c3d-${it.id}.part`), bytes(5000, 2));
    await fails(rig.target.commit(it, never), "mismatch");
    assert.ok(!existsSync(join(rig.card, "a.lua")));
  }
});

test("what cannot be is refused, with what is wrong and before anything is sent where that can be told", async (t) => {
  const rig = await makeWriteRig(t, { autopilot: "px4" }, { root: "/" });
  const write = (path: string): Promise<void> => rig.target.write(upload(path, bytes(10)), 0, never, () => undefined);
  await fails(write("etc.lua"), "rejected", /only what is below \/fs\/microsd can be changed/);
  await fails(write(`fs/microsd/${"n".repeat(215)}`), "rejected", /longer than the 214 bytes/);
  await fails(write(`fs/microsd/${"d".repeat(60)}/${"d".repeat(60)}/a.lua`), "rejected", /room for 238 bytes/);
  assert.equal(rig.sim.stats.requests.CreateDirectory, undefined);
  await fails(rig.tree.mkdir("etc", never), "rejected", /only what is below/);
  const fat = upload("fs/microsd/12:30.lua", bytes(10));
  await rig.target.write(fat, 0, never, () => undefined);
  await fails(rig.target.commit(fat, never), "rejected", /cannot hold such a name/);
  assert.deepEqual(readdirSync(rig.card), [], "what never gets its name does not stay on the card");
  writeFileSync(join(rig.card, "file"), "x");
  await fails(write("fs/microsd/file/a.lua"), "rejected", /is not a directory/);
  await idle(rig);
});

test("px4: without a card nothing is refused for ever: the target is not usable until one is in", async (t) => {
  const rig = await makeWriteRig(t, { autopilot: "px4" }, { root: "/fs/microsd/log" });
  const dir = join(rig.card, "../..");
  const it = upload("a.lua", bytes(10));
  for (const gone of ["fs/microsd", "fs"]) {
    rmSync(join(dir, gone), { recursive: true });
    await fails(
      rig.target.write(it, 0, never, () => undefined),
      "denied",
      /there is no \/fs\/microsd on the autopilot: no SD card in it/,
    );
    await fails(rig.device.probe(never), "denied", /no SD card in it/);
    mkdirSync(rig.card, { recursive: true });
  }
  await put(rig.target, it);
  assert.ok(existsSync(join(rig.card, "log/a.lua")));
});

test("a partial is no log: it is not listed as a file of the source", async (t) => {
  const rig = await makeWriteRig(t, {});
  const it = upload("a.lua", bytes(10));
  await rig.target.write(it, 0, never, () => undefined);
  assert.deepEqual(await listAll(rig.source), []);
  await rig.target.commit(it, never);
  assert.deepEqual(
    (await listAll(rig.source)).map(({ path }) => path),
    ["a.lua"],
  );
});

test("without write nothing can be changed, and there is no target", async (t) => {
  const rig = await makeRig(t, { dir: makeDir(t) });
  assert.deepEqual([rig.device.target, rig.device.tree], [undefined, undefined]);
});
