/** More than one of something: partitions, disks of one device that takes any, files in one directory. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { daemonIn, isSafe, labFor, noMount, reached } from "../disks/scene.js";
import { runProgram, statusNow } from "../faults/process.js";
import { treeOf } from "../faults/trees.js";
import { World } from "../faults/world.js";

const out = { type: "local", dir: "out" };

async function statusOf(config: string) {
  return JSON.parse((await runProgram(["status", "--json", "--config", config])).out) as {
    devices: { name: string; presence: string; reason?: string }[];
  };
}

for (const [how, any] of [
  ["a device for each, by its UUID", false],
  ["one device that takes any", true],
] as const)
  test(`two partitions on one stick, ${how}: both are used under their own names, and a pull takes both`, async (t) => {
    const lab = await labFor(t);
    if (lab === undefined) return;
    const world = new World(t);
    world.mkdir("out");
    const stick = await lab.make("stick", { fs: "exfat", mib: 32, partition: true, files: { "a.bin": Buffer.alloc(3_000_000, "a") } });
    const second = lab.addPartition(stick, { fs: "ext4", mib: 64 });
    await lab.plug(stick);
    await lab.exec("mkdir", ["/run/second"]);
    await lab.exec("mount", ["-t", "ext4", lab.nodeOf(stick).replace(/1$/, "2"), "/run/second"]);
    writeFileSync(lab.path("/run/second/a.bin"), Buffer.alloc(40_000_000, "b"));
    await lab.exec("umount", ["/run/second"]);
    await lab.pull(stick);
    const disks = any
      ? { sticks: { type: "disk", any: true, maxRate: "8MiB/s" } }
      : { one: { type: "disk", uuid: stick.uuid, maxRate: "1MiB/s" }, two: { type: "disk", uuid: second, maxRate: "8MiB/s" } };
    const config = world.config({
      devices: { ...disks, out },
      routes: Object.keys(disks).map((from) => ({ from, to: ["out"] })),
    });
    const program = daemonIn(t, lab, config);
    await program.until(({ message }) => message.includes("is ready"), "that it is ready");
    await lab.plug(stick, { removable: true });
    await program.until(({ message }) => message.includes(`${second} is in: `), "the second");
    await program.until(({ message }) => message.includes(`${stick.uuid} is in: `), "the first");
    await reached(program, config, 100_000);
    await lab.pull(stick);
    for (const id of [stick.uuid, second])
      await program.until(({ message }) => message.includes(`${id} was pulled`), `that ${id} was pulled`);
    await noMount(lab, world.dir, program);
    for (const device of (await statusOf(config)).devices.filter((one) => one.name !== "out"))
      assert.equal(device.presence, "detached", device.name);
    await lab.plug(stick, { removable: true });
    await program.until(() => program.events.filter(({ what }) => what === "delivered").length === 2, "two deliveries");
    const sizes = [...treeOf(world.path("out/v"))].map(([path, text]) => [path, Number(text.split(" ")[0])]);
    assert.deepEqual(
      sizes.sort(),
      (any
        ? [
            [`sticks/${stick.uuid}/a.bin`, 3_000_000],
            [`sticks/${second}/a.bin`, 40_000_000],
          ]
        : [
            ["one/a.bin", 3_000_000],
            ["two/a.bin", 40_000_000],
          ]
      ).sort(),
    );
    assert.equal(program.events.filter(({ what }) => what === "lost" || what === "changed" || what === "parked").length, 0);
  });

test("any: disks one after the other and together, each under its own name; one that is built in is not touched", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  world.mkdir("out");
  const one = await lab.make("one", { fs: "exfat", mib: 32, files: { "DCIM/1.JPG": "first", "DCIM/2.JPG": "second" } });
  const two = await lab.make("two", { fs: "ext4", mib: 16, files: { "DCIM/1.JPG": "other" } });
  const fixed = await lab.make("fixed", { fs: "ext4", mib: 16, files: { "secret.txt": "of the system" } });
  const config = world.config({
    devices: { cards: { type: "disk", any: true, write: true }, out },
    routes: [{ from: "cards", to: ["out"] }],
  });
  const blank = await lab.make("blank", { fs: "none", mib: 8 });
  await lab.plug(fixed);
  const program = daemonIn(t, lab, config);
  const delivered = (count: number) =>
    program.until(() => program.events.filter(({ what }) => what === "delivered").length === count, `${count} deliveries`);
  await program.until(({ message }) => message.includes("no removable disk is plugged in"), "that there is none");
  world.file("local.txt", "content");
  const put = async (at: string) => (await runProgram(["put", world.path("local.txt"), at, "--config", config])).err;
  assert.match(await put("cards:"), /cards: no removable disk is plugged in/);
  await lab.plug(blank, { removable: true });
  await program.until(({ message }) => message.includes(`${lab.nodeOf(blank)} has no file system that is known here`), "that one is blank");
  await lab.pull(blank);
  await lab.plug(one, { removable: true });
  await delivered(2);
  await program.until(({ facts }) => facts?.["safe"] === true && facts["medium"] === one.uuid, "that the first may be pulled");
  await lab.pull(one);
  await program.until(({ message }) => message.endsWith(`${one.uuid} was pulled`), "the pull");
  await lab.plug(two, { removable: true });
  await delivered(3);
  await program.until(({ facts }) => facts?.["safe"] === true && facts["medium"] === two.uuid, "that the second may be pulled");
  await lab.plug(one, { removable: true });
  await program.until(
    () => program.events.filter((event) => isSafe(event) && event.facts?.["medium"] === one.uuid).length === 2,
    "that the first may be pulled again",
  );
  for (const at of ["cards:", "cards:other/"])
    assert.match(
      await put(at),
      new RegExp(
        `"(local.txt|other)" is no disk that is plugged in: a path begins with the name of one, "(${one.uuid}|${two.uuid})/…" or "`,
      ),
    );
  const listed = (await runProgram(["ls", "-r", "cards:", "--config", config])).out;
  for (const path of [`${one.uuid}/DCIM/1.JPG`, `${one.uuid}/DCIM/2.JPG`, `${two.uuid}/DCIM/1.JPG`])
    assert.ok(listed.includes(path), listed);
  assert.ok(!listed.includes(fixed.uuid), listed);
  assert.deepEqual([...treeOf(world.path("out/v/cards")).keys()].sort(), [
    ...[`${one.uuid}/DCIM/1.JPG`, `${one.uuid}/DCIM/2.JPG`, `${two.uuid}/DCIM/1.JPG`].sort(),
  ]);
  assert.equal(program.events.filter(({ message }) => message.includes(fixed.uuid) || message.includes(lab.nodeOf(fixed))).length, 0);
  await lab.pull(fixed);
});

test("100,000 files in one directory, few of them wanted: these arrive, and status is answered while they are listed", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  world.mkdir("out");
  // ext4 has an inode for each 16 KiB.
  const card = await lab.make("many", { fs: "ext4", mib: 1800 });
  await lab.aside(card, (dir) =>
    lab.exec("sh", [
      "-c",
      `mkdir ${dir}/DCIM && cd ${dir}/DCIM && seq -f f%06g.jpg 100000 | xargs touch && echo x | tee f000777.jpg f055777.jpg`,
    ]),
  );
  const config = world.config({
    devices: { cam: { type: "disk", uuid: card.uuid }, out },
    routes: [{ from: "cam", to: ["out"], include: ["**/f*777.jpg"] }],
  });
  const program = daemonIn(t, lab, config);
  await program.until(({ message }) => message.includes("is ready"), "that it is ready");
  await lab.plug(card);
  await program.until(({ what, message }) => what === "attached" && message.startsWith("cam"), "that it is attached");
  const answers: { ms: number; summary: string }[] = [];
  for (let safe = false; !safe;) {
    const before = performance.now();
    // The daemon is asked itself: before a command has started, the card may be listed.
    const status = await statusNow(config);
    assert.ok(status?.ready);
    answers.push({ ms: Math.round(performance.now() - before), summary: status.summary });
    safe = program.events.some(isSafe);
    await sleep(100);
  }
  t.diagnostic(`${answers.length} answers, the slowest after ${Math.max(...answers.map(({ ms }) => ms))} ms`);
  assert.ok(
    answers.some(({ summary }) => summary.includes("cam was not listed yet")),
    "it was answered while the card was listed",
  );
  await program.until(() => program.events.filter(({ what }) => what === "delivered").length === 100, "100 deliveries");
  assert.equal(treeOf(world.path("out/v/cam/DCIM")).size, 100);
  // Before it is plugged it is told as away, where that takes long.
  const since = program.events.slice(program.events.findIndex(({ what, message }) => what === "attached" && message.startsWith("cam")));
  assert.deepEqual(
    since.filter(({ level }) => level === "error" || level === "warn").map(({ message }) => message),
    [],
  );
});
