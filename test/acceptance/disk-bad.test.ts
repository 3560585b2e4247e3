/** Disks that are no good, and configurations that cannot work: each says what is wrong and what to do, and costs only itself. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync, symlinkSync, writeFileSync, writeSync, closeSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { until } from "../conformance/clause.js";
import { breakExfat, breakFat32 } from "../disks/damage.js";
import type { DiskLab } from "../disks/lab.js";
import { daemonIn, isSafe, labFor, noMount, reached, safeAfter } from "../disks/scene.js";
import { type Program, runProgram } from "../faults/process.js";
import { treeOf } from "../faults/trees.js";
import { World } from "../faults/world.js";

const uuid = "11111111-2222-4333-8444-555555555555";

interface Given {
  readonly devices: Record<string, object>;
  readonly routes: readonly object[];
}

async function started(t: TestContext, lab: DiskLab, world: World, given: Given): Promise<{ program: Program; config: string }> {
  const config = world.config(given);
  const program = daemonIn(t, lab, config);
  await program.until(({ message }) => message.includes("is ready"), "that it is ready");
  return { program, config };
}

const local = (dir: string) => ({ type: "local", dir });
const oneRoute = [{ from: "card", to: ["out"] }];

test("options that contradict each other, or say nothing", async (t) => {
  const world = new World(t);
  world.mkdir("out");
  const said = async (card: object) => {
    const config = world.config({ devices: { card: { type: "disk", ...card }, out: local("out") }, routes: oneRoute });
    const { code, out, err } = await runProgram(["check", "--config", config]);
    return `${code} ${out}${err}`;
  };
  assert.match(await said({}), /^2 .*exactly one of "uuid", "label" and "any": it says which disk it is/s);
  assert.match(await said({ uuid, label: "x" }), /^2 .*one of "uuid", "label" and "any"/s);
  assert.match(await said({ any: true, mountPoint: "mnt" }), /^2 .*"any" takes no "mountPoint"/s);
  assert.match(await said({ uuid, root: "a/../../etc" }), /^2 .*a directory of the disk, without "\.\."/s);
  assert.match(await said({ uuid, onSafe: [] }), /^2 .*a command/s);
  assert.match(await said({ uiid: uuid }), /^2 .*uiid.*"uuid"/s);
  assert.match(await said({ uuid, root: "/DCIM/" }), /^0 /);
});

test("no file system, an encrypted one, a mount point that is not empty or in use: named, and what can be done", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  for (const dir of ["out", "mnt", "taken"]) world.mkdir(dir);
  world.file("mnt/precious", "content");
  const locked = await lab.make("locked", { fs: "none", mib: 8 });
  // The header of LUKS 1 as far as it is looked at.
  const header = Buffer.alloc(592);
  header.write("LUKS\xba\xbe\x00\x01", 0, "latin1");
  header.write("99999999-2222-4333-8444-555555555555", 168);
  const fd = openSync(locked.image, "r+");
  writeSync(fd, header, 0, header.length, 0);
  closeSync(fd);
  const card = await lab.make("card", { fs: "ext4", mib: 16, uuid, files: { "a.bin": Buffer.from("a") } });
  const { program } = await started(t, lab, world, {
    devices: {
      card: { type: "disk", uuid, mountPoint: "mnt" },
      locked: { type: "disk", uuid: "99999999-2222-4333-8444-555555555555" },
      out: local("out"),
    },
    routes: [...oneRoute, { from: "locked", to: ["out"] }],
  });
  await lab.plug(locked);
  await program.until(({ message }) => /^locked: .*is encrypted \(LUKS\): unlock it/.test(message), "that it is encrypted");
  await lab.plug(card);
  await program.until(({ message }) => /^card: .*mnt is not empty: what is in it would be hidden/.test(message), "that it is not empty");
  assert.equal(readFileSync(world.path("mnt/precious"), "utf8"), "content");
  assert.deepEqual(
    lab.mounts().filter(({ target }) => target === world.path("mnt")),
    [],
  );
});

test("names that are not UTF-8 or differ only in case, links out of it, pipes: files arrive under their names, nothing else is followed", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  world.mkdir("out");
  const card = await lab.make("card", { fs: "ext4", mib: 32 });
  await lab.aside(card, (at) => {
    const dir = lab.path(at);
    mkdirSync(join(dir, "D"));
    writeFileSync(join(dir, "D/photo.jpg"), "lower");
    writeFileSync(join(dir, "D/PHOTO.JPG"), "upper");
    writeFileSync(Buffer.concat([Buffer.from(join(dir, "D/caf")), Buffer.from([0xe9]), Buffer.from(".jpg")]), "latin");
    symlinkSync("/etc/passwd", join(dir, "D/link"));
    symlinkSync("/etc", join(dir, "etc"));
  });
  const { program } = await started(t, lab, world, {
    devices: { card: { type: "disk", uuid: card.uuid }, out: local("out") },
    routes: oneRoute,
  });
  await lab.plug(card);
  await program.until(isSafe, "that it may be pulled");
  await program.until(() => program.events.filter(({ what }) => what === "delivered").length === 3, "three deliveries");
  assert.deepEqual([...treeOf(world.path("out/v/card")).keys()].sort(), ["D/PHOTO.JPG", "D/caf\xe9.jpg", "D/photo.jpg"]);
  const left = program.events.filter(({ what }) => what === "unreadable").map(({ message }) => message);
  assert.deepEqual(left.sort(), ["card:D/link: left out: a symbolic link", "card:etc: left out: a symbolic link"]);
});

test("a target that is full: said, and it goes on when there is space; one that is write-protected: said, with the switch", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  world.file("in/big.bin", Buffer.alloc(12_000_000, "big"));
  const stick = await lab.make("stick", { fs: "ext4", mib: 16 });
  await lab.aside(stick, (at) => writeFileSync(lab.path(`${at}/ballast`), Buffer.alloc(8_000_000)));
  const { program, config } = await started(t, lab, world, {
    devices: { in: local("in"), stick: { type: "disk", uuid: stick.uuid } },
    routes: [{ from: "in", to: ["stick"] }],
  });
  await lab.plug(stick, { readOnly: true });
  await program.until(
    ({ message }) => /^stick: .*write-protected: look for a switch on the card/.test(message),
    "that it is write-protected",
  );
  await lab.pull(stick);
  await lab.plug(stick);
  await program.until(({ what, message }) => what === "again" && /no space is left on the device/.test(message), "that it is full");
  assert.equal((await runProgram(["rm", "stick:ballast", "--config", config])).code, 0);
  await program.until(({ what }) => what === "delivered", "delivery");
});

test("a target that the system made read-only is mounted anew, and goes on", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  for (const name of ["a", "b", "c"]) world.file(`in/${name}.bin`, Buffer.alloc(6_000_000, name));
  const stick = await lab.make("stick", { fs: "ext4", mib: 64 });
  const { program, config } = await started(t, lab, world, {
    devices: { in: local("in"), stick: { type: "disk", uuid: stick.uuid, mountPoint: "mnt", maxRate: "4MiB/s" } },
    routes: [{ from: "in", to: ["stick"] }],
  });
  await lab.plug(stick);
  await reached(program, config, 1_000_000);
  // What the kernel does when it meets damage; sysrq would do it to every file system.
  await lab.exec("mount", ["-o", "remount,abort", world.path("mnt")]);
  await program.until(
    ({ message }) => /the system made \/dev\/loop\S* at \S*mnt read-only.*mounted anew/.test(message),
    "that it is mounted anew",
  );
  await program.until(() => program.events.filter(({ what }) => what === "delivered").length === 3, "three deliveries");
});

for (const places of [{}, { photos: "mnt-photos", logs: "mnt-logs" }] as { photos?: string; logs?: string }[])
  test(`two devices on one disk${"photos" in places ? ", each with a mount point" : ""}: both arrive; nothing is said of pulling it while either uses it`, async (t) => {
    const lab = await labFor(t);
    if (lab === undefined) return;
    const world = new World(t);
    for (const dir of ["out", ...Object.values(places)]) world.mkdir(dir);
    const files = {
      ...Object.fromEntries(Array.from({ length: 40 }, (_, n) => [`DCIM/${n}.JPG`, Buffer.alloc(200_000, `photo ${n}`)])),
      ...Object.fromEntries(Array.from({ length: 3 }, (_, n) => [`LOGS/${n}.BIN`, Buffer.alloc(1000, `log ${n}`)])),
    };
    const card = await lab.make("card", { fs: "ext4", mib: 64, files });
    // How often it is mounted when it is said that it may be pulled.
    const onSafe = ["sh", "-c", `grep -c ' ${world.dir}' /proc/self/mountinfo >>${world.dir}/safe; true`];
    const on = (root: string, mountPoint: string | undefined) => ({
      ...{ type: "disk", uuid: card.uuid, root, onSafe },
      ...(mountPoint === undefined ? {} : { mountPoint }),
    });
    const { program, config } = await started(t, lab, world, {
      devices: {
        // Slow enough to be read still when the other is ejected, however long that command takes to begin.
        photos: { ...on("DCIM", places.photos), maxRate: "300KiB/s" },
        logs: on("LOGS", places.logs),
        out: local("out"),
      },
      routes: [
        { from: "photos", to: ["out"] },
        { from: "logs", to: ["out"] },
      ],
    });
    await lab.plug(card);
    await program.until(
      () => program.events.filter(({ what, message }) => what === "delivered" && message.startsWith("logs:")).length === 3,
      "the logs",
    );
    const early = await runProgram(["eject", "logs", "--config", config]);
    assert.equal(early.code, 3, early.out + early.err);
    assert.match(early.err, /cannot be unmounted: photos still has it: filesync eject photos; do not pull it yet/);
    await program.until(() => program.events.filter(({ what }) => what === "delivered").length === 43, "43 deliveries");
    assert.equal(treeOf(world.path("out/v")).size, 43);
    await noMount(lab, world.dir, program);
    await until("the hooks", () => existsSync(world.path("safe")) && readFileSync(world.path("safe"), "utf8").endsWith("\n"));
    assert.match(readFileSync(world.path("safe"), "utf8"), /^(0\n)+$/);
    await program.until((event) => isSafe(event) && event.message.startsWith("logs: "), "that the ejected one may be pulled too");
    const late = await runProgram(["eject", "logs", "--config", config]);
    assert.match(late.out, /logs: .*may be pulled/);
    await lab.pull(card);
    await program.until(({ message }) => message.endsWith("was pulled"), "the pull");
    assert.equal(program.events.filter(({ message }) => message.includes("was pulled while")).length, 0);
    assert.equal(program.events.filter(({ what }) => what === "lost" || what === "parked").length, 0);
  });

test("a file system that is too damaged to be mounted: that is said, with what looks at it", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  world.mkdir("out");
  const card = await lab.make("card", { fs: "ext4", mib: 16, uuid, files: { "a.bin": Buffer.from("a") } });
  // The descriptors of its groups, behind its superblock.
  const fd = openSync(card.image, "r+");
  for (const block of [1024, 4096]) writeSync(fd, Buffer.alloc(block, 0xa5), 0, block, Math.max(2048, block));
  closeSync(fd);
  const { program } = await started(t, lab, world, { devices: { card: { type: "disk", uuid }, out: local("out") }, routes: oneRoute });
  await lab.plug(card);
  await program.until(
    ({ message }) => message.includes(`${lab.nodeOf(card)} cannot be mounted: `) && message.includes(`it may be damaged: "fsck -n `),
    "that it is damaged",
  );
  await lab.pull(card);
});

test("a partition table: the partition in it is found by its UUID", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  world.mkdir("out");
  const card = await lab.make("card", { fs: "exfat", mib: 32, partition: true, files: { "a.bin": Buffer.alloc(5000, "a") } });
  const { program } = await started(t, lab, world, {
    devices: { card: { type: "disk", uuid: card.uuid }, out: local("out") },
    routes: oneRoute,
  });
  await lab.plug(card);
  await program.until(({ what }) => what === "delivered", "delivery");
  await program.until(isSafe, "that it may be pulled");
});

test("a directory that the card lacks: said, and nothing else; as a target it is made", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  world.file("in/a.bin", "content");
  const card = await lab.make("card", { fs: "ext4", mib: 16 });
  const { program } = await started(t, lab, world, {
    devices: { in: local("in"), card: { type: "disk", uuid: card.uuid, root: "DCIM/100" }, out: local("in") },
    routes: [{ from: "in", to: ["card"], into: "" }],
  });
  await lab.plug(card);
  await safeAfter(program, await program.until(({ what }) => what === "delivered", "delivery"));
  await lab.pull(card);
  assert.deepEqual([...(await lab.content(card)).keys()], ["DCIM/100/a.bin"]);
  assert.equal(existsSync(world.path("state")), true);
  assert.ok(readdirSync(world.path("state")).length > 0);
});

for (const [fs, what, said] of [
  ["exfat", "checksum", /^card:DCIM: left out: cannot list DCIM: input\/output error/],
  ["exfat", "cluster", /^card:DCIM: left out: cannot list DCIM: input\/output error/],
  ["exfat", "chain", /^card:DCIM\/BAD.BIN: set aside: it cannot be read at byte 4096 of 700000: input\/output error/],
  // fusefat's word for EIO.
  ["vfat", "chain", /^card:DCIM\/BAD.BIN: set aside: cannot read it: the operation is not permitted/],
] as const)
  test(`a broken entry on ${fs} (${what}) costs at most its directory: it is named, and tried again after a replug`, async (t) => {
    const lab = await labFor(t);
    if (lab === undefined) return;
    const world = new World(t);
    world.mkdir("out");
    const files = {
      "A.BIN": Buffer.alloc(700_000, "a"),
      "DCIM/BAD.BIN": Buffer.alloc(700_000, "bad"),
      "Z.BIN": Buffer.alloc(700_000, "z"),
    };
    const card = await lab.make("card", { fs, mib: 40, files });
    const whole = readFileSync(card.image);
    if (fs === "exfat") breakExfat(card.image, "BAD.BIN", what);
    else breakFat32(card.image, "BAD     BIN");
    const { program } = await started(t, lab, world, {
      devices: { card: { type: "disk", uuid: card.uuid }, out: local("out") },
      routes: oneRoute,
    });
    await lab.plug(card);
    await program.until(isSafe, "that it may be pulled");
    const named = program.events.filter(({ what }) => what === "unreadable" || what === "parked").map(({ message }) => message);
    assert.match(named.join("\n"), said);
    assert.equal(named.length, 1);
    for (const name of ["A.BIN", "Z.BIN"]) await program.until(({ what, message }) => what === "delivered" && message.includes(name), name);
    await lab.pull(card);
    writeFileSync(card.image, whole);
    await lab.plug(card);
    await program.until(({ what, message }) => what === "delivered" && message.includes("BAD.BIN"), "the mended file");
    assert.deepEqual(readFileSync(world.path("out/v/card/DCIM/BAD.BIN")), files["DCIM/BAD.BIN"]);
    assert.equal(program.events.filter(({ what }) => what === "lost").length, 0);
  });
