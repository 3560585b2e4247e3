/** What nobody may lose by a disk: files outside it, files of another card, and those of a card that may not be written on. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Disk, DiskLab } from "../disks/lab.js";
import { daemonIn, labFor } from "../disks/scene.js";
import { runProgram } from "../faults/process.js";
import { treeOf } from "../faults/trees.js";
import { World } from "../faults/world.js";

const local = (dir: string) => ({ type: "local", dir });

test("a root that is a link, or behind one, leads nowhere: nothing outside the disk is read, written or deleted", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  const victim = world.path("victim/DCIM/secret.jpg");
  world.file("victim/DCIM/secret.jpg", "of somebody else");
  world.mkdir("out");
  world.file("in/a.bin", "to the card");
  const card = await lab.make("card", { fs: "ext4", mib: 32 });
  await lab.aside(card, (at) => {
    symlinkSync(world.path("victim/DCIM"), lab.path(`${at}/DCIM`));
    symlinkSync(world.path("victim"), lab.path(`${at}/store`));
  });
  for (const [name, root] of [
    ["link", "DCIM"],
    ["behind", "store/DCIM"],
  ] as const) {
    const config = world.config({
      stateDir: `state-${name}`,
      devices: { card: { type: "disk", uuid: card.uuid, root }, out: local("out"), in: local("in") },
      routes: [
        { from: "card", to: ["out"], afterDelivery: "delete" },
        { from: "in", to: ["card"] },
      ],
    });
    const program = daemonIn(t, lab, config);
    await program.until(({ message }) => message.includes("is ready"), "that it is ready");
    await lab.plug(card);
    const refused = await program.until(
      ({ message }) => /^card: .*leads out of it: .* is a symbolic link/.test(message),
      "that it is refused",
    );
    assert.doesNotMatch(refused.message, /\/proc\/self/);
    program.signal("SIGTERM");
    await program.exited;
    await lab.pull(card);
    assert.deepEqual([...treeOf(world.path("victim")).keys()], ["DCIM/secret.jpg"], name);
    assert.deepEqual([...treeOf(world.path("out")).keys()], [], name);
  }
  assert.equal(readFileSync(victim, "utf8"), "of somebody else");
});

test("by hand, too, nothing is listed, copied or removed through a link", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  const victim = world.path("victim/secret.jpg");
  world.file("victim/secret.jpg", "of somebody else");
  const card = await lab.make("card", { fs: "ext4", mib: 32 });
  await lab.aside(card, (at) => symlinkSync(world.path("victim"), lab.path(`${at}/lnk`)));
  await lab.plug(card);
  const config = world.config({ devices: { card: { type: "disk", uuid: card.uuid, write: true } }, routes: [] });
  for (const words of [
    ["ls", "card:lnk"],
    ["ls", "-r", "card:lnk"],
    ["get", "card:lnk/secret.jpg", world.path("got.jpg")],
    ["rm", "card:lnk/secret.jpg"],
    ["mv", "card:lnk/secret.jpg", "moved.jpg"],
    ["put", victim, "card:lnk/other.jpg"],
    ["mkdir", "card:lnk/dir"],
  ]) {
    const { code, out, err } = await runProgram([...words, "--config", config], { wrap: lab.wrap() });
    assert.notEqual(code, 0, words.join(" "));
    assert.match(out + err, /symbolic link|is not a directory/, words.join(" "));
  }
  assert.deepEqual([...treeOf(world.path("victim")).keys()], ["secret.jpg"]);
  assert.equal(existsSync(world.path("got.jpg")), false);
});

const twinUuid = "11111111-2222-4333-8444-555555555555";

/** Of a camera without a clock: every such card has the same names, sizes and times. */
async function filled(lab: DiskLab, name: string, content: (file: string) => Buffer): Promise<Disk> {
  const disk = await lab.make(name, { fs: "ext4", mib: 32, uuid: twinUuid });
  await lab.aside(disk, (at) => {
    for (const file of ["1.RAW", "2.RAW"]) {
      const path = join(lab.path(at), file);
      writeFileSync(path, content(file));
      utimesSync(path, 1_700_000_000, 1_700_000_000);
    }
  });
  return disk;
}

test("cards of one UUID from a camera without a clock are told apart by what is in their files: all of them arrive", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  world.mkdir("out");
  const raw = (name: string) => (file: string) => Buffer.alloc(500_000, `${name} ${file} `);
  const [a, b] = [await filled(lab, "first", raw("first")), await filled(lab, "other", raw("other"))];
  const program = daemonIn(
    t,
    lab,
    world.config({
      devices: { cam: { type: "disk", uuid: twinUuid }, out: local("out") },
      routes: [{ from: "cam", to: ["out"], afterDelivery: "delete" }],
    }),
  );
  await program.until(({ message }) => message.includes("is ready"), "that it is ready");
  for (const [disk, n] of [
    [a, 2],
    [b, 4],
  ] as const) {
    await lab.plug(disk);
    await program.until(() => program.events.filter(({ what }) => what === "released").length === n, `that ${n} are deleted`);
    await lab.pull(disk);
  }
  assert.equal(program.events.filter(({ message }) => message.endsWith("deleted at its source")).length, 4);
  const contents = [...treeOf(world.path("out/v/cam")).keys()].map((path) => readFileSync(world.path(`out/v/cam/${path}`)));
  const got = contents.map((bytes) => bytes.toString("latin1", 0, 11)).sort();
  assert.deepEqual(got, ["first 1.RAW", "first 2.RAW", "other 1.RAW", "other 2.RAW"]);
});

test("a card that cannot be told from another by anything but reading all of it: none of its files is deleted for the other's", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  const uuid = twinUuid;
  const place = 100_000;
  const raw = (name: string) => (file: string) => {
    const bytes = Buffer.alloc(500_000, file);
    bytes.write(name, place, "latin1");
    return bytes;
  };
  const [a, b] = [await filled(lab, "first", raw("first")), await filled(lab, "other", raw("other"))];
  const program = daemonIn(
    t,
    lab,
    world.config({
      devices: { cam: { type: "disk", uuid }, out: local("out") },
      routes: [{ from: "cam", to: ["out"], afterDelivery: "delete" }],
    }),
  );
  await program.until(({ message }) => message.includes("is ready"), "that it is ready");
  await lab.plug(a);
  await program.until(({ message }) => message.endsWith("it may be pulled"), "that the first is here");
  await lab.pull(a);
  await program.until(({ message }) => message.endsWith("was pulled"), "the pull");
  await lab.plug(b);
  await program.until(() => program.events.filter(({ message }) => message.includes(" is in: ")).length === 2, "that the other is in");
  world.mkdir("out");
  const kept = () =>
    program.events.filter(({ what, message }) => what === "released" && message.includes("kept: the source has another content"));
  await program.until(() => kept().length === 2, "that both are kept");
  program.signal("SIGTERM");
  await program.exited;
  await lab.pull(b);
  const nameIn = (path: string) => readFileSync(path).toString("latin1", place, place + 5);
  assert.equal(nameIn(world.path("out/v/cam/1.RAW")), "first");
  await lab.aside(b, (at) => {
    for (const file of ["1.RAW", "2.RAW"]) assert.equal(nameIn(join(lab.path(at), file)), "other");
  });
});

test("a card that is write-protected is read to its end, whatever is to be deleted on it", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  world.mkdir("out");
  const files = Object.fromEntries(Array.from({ length: 12 }, (_, n) => [`DCIM/${n}.JPG`, Buffer.alloc(1_000_000, `photo ${n} `)]));
  const card = await lab.make("card", { fs: "vfat", mib: 64, files });
  const program = daemonIn(
    t,
    lab,
    world.config({
      devices: { cam: { type: "disk", uuid: card.uuid }, out: local("out") },
      routes: [{ from: "cam", to: ["out"], afterDelivery: "delete" }],
    }),
  );
  await program.until(({ message }) => message.includes("is ready"), "that it is ready");
  await lab.plug(card, { readOnly: true });
  await program.until(() => program.events.filter(({ what }) => what === "delivered").length === 12, "all twelve");
  await program.until(({ message }) => /cannot delete it at its source: .*write-protected/.test(message), "that it cannot be deleted");
  // Before it is plugged it is told as away, where that takes long.
  const since = program.events.slice(program.events.findIndex(({ what, message }) => what === "attached" && message.startsWith("cam")));
  assert.ok(!since.some(({ what }) => what === "detached"));
});
