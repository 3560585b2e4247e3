/** A person beside the daemon: who mounts a disk too, ejects it, adds a route, works on it by hand. What is said of pulling it is true each time. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { firstLine } from "../disks/children.js";
import type { DiskLab } from "../disks/lab.js";
import { daemonIn, isSafe, labFor, reached } from "../disks/scene.js";
import { Program, runProgram } from "../faults/process.js";
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
  await lab.exec("umount", [theirs]);
  // Whether the daemon or the command saw it first is nobody's choice.
  for (const words of [/may be pulled (now|already)/, /may be pulled already/]) {
    const again = await runProgram(["eject", "cam", "--config", config]);
    assert.deepEqual([again.code, again.err], [0, ""]);
    assert.match(again.out, words);
  }
  assert.equal(program.events.filter(({ message }) => message.includes("may be pulled now")).length, 1);
});

test("somebody else has it mounted as well: it is not said that it may be pulled until they have unmounted it", async (t) => {
  const it = await begun(t);
  if (it === undefined) return;
  const { lab, world } = it;
  const card = await lab.make("card", { fs: "ext4", mib: 32, files: { "a.bin": Buffer.alloc(10_000_000, "a") } });
  const config = world.config({
    // It is read as long as it takes for somebody to mount it.
    devices: { cam: { type: "disk", uuid: card.uuid, maxRate: "1MiB/s" }, out },
    routes: [{ from: "cam", to: ["out"] }],
  });
  const program = daemonIn(t, lab, config);
  await lab.plug(card);
  await reached(program, config, 500_000);
  const theirs = world.mkdir("theirs");
  await lab.exec("mount", ["-t", "ext4", "-o", "ro", lab.nodeOf(card), theirs]);
  await program.until(({ message }) => /was mounted by somebody else, at \S*theirs/.test(message), "that it is seen");
  assert.equal(program.events.filter(isSafe).length, 0);
  assert.doesNotMatch(await statusOf(config), /may be pulled/);
  await lab.exec("umount", [theirs]);
  await program.until(isSafe, "that it may be pulled");
  await lab.pull(card);
});

for (const [what, options] of [
  ["a part of it, by a bind mount", ["--bind"]],
  ["it where nobody here sees it", []],
] as const)
  test(`somebody has mounted ${what}: it may not be pulled until they have unmounted it`, async (t) => {
    const it = await begun(t);
    if (it === undefined) return;
    const { lab, world } = it;
    const card = await lab.make("card", { fs: "ext4", mib: 32, files: { "d/a.bin": Buffer.alloc(10_000_000, "a") } });
    const config = world.config({
      // It is read as long as it takes for somebody to mount it.
      devices: { cam: { type: "disk", uuid: card.uuid, mountPoint: "mnt", maxRate: "1MiB/s" }, out },
      routes: [{ from: "cam", to: ["out"] }],
    });
    world.mkdir("mnt");
    const program = daemonIn(t, lab, config);
    await lab.plug(card);
    await reached(program, config, 500_000);
    const theirs = world.mkdir("theirs");
    const elsewhere =
      options.length > 0
        ? undefined
        : lab.run("unshare", [
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            `mount -t ext4 -o ro ${lab.nodeOf(card)} ${theirs} && echo mounted && until [ -e ${world.path("go")} ]; do sleep 0.1; done`,
          ]);
    if (elsewhere === undefined) await lab.exec("mount", [...options, world.path("mnt/d"), theirs]);
    else await once(elsewhere.stdout ?? assert.fail("it says nothing"), "data");
    await program.until(({ what: name }) => name === "delivered", "delivery");
    const eject = await runProgram(["eject", "cam", "--config", config]);
    assert.equal(eject.code, 3, eject.out);
    assert.match(eject.err, /do not pull it yet/);
    assert.equal(program.events.filter(isSafe).length, 0);
    if (elsewhere === undefined) await lab.exec("umount", [theirs]);
    else writeFileSync(world.path("go"), "");
    await program.until(isSafe, "that it may be pulled");
    assert.match(await statusOf(config), /cam {2}detached: it is ejected: it may be pulled/);
    await lab.pull(card);
  });

test("its mount is taken away while it is in: that is told, and it is mounted anew", async (t) => {
  const it = await begun(t);
  if (it === undefined) return;
  const { lab, world } = it;
  const card = await lab.make("card", { fs: "ext4", mib: 64, files: { "a.bin": Buffer.alloc(30_000_000, "a") } });
  const other = await lab.make("other", { fs: "ext4", mib: 16, files: { "b.bin": "of the other" } });
  const mnt = world.mkdir("mnt");
  const config = world.config({
    devices: { cam: { type: "disk", uuid: card.uuid, mountPoint: "mnt", maxRate: "4MiB/s" }, out },
    routes: [{ from: "cam", to: ["out"] }],
  });
  const program = daemonIn(t, lab, config);
  await lab.plug(card);
  await lab.plug(other);
  await reached(program, config, 500_000);
  await lab.exec("sh", ["-c", `umount -l ${mnt} && mount -t ext4 ${lab.nodeOf(other)} ${mnt}`]);
  await program.until(({ message }) => /mnt is in use: \S+ is mounted there/.test(message), "that the place is taken");
  assert.deepEqual(
    readdirSync(lab.path(mnt)).filter((name) => name.endsWith(".bin")),
    ["b.bin"],
    "the other's mount is left alone",
  );
  await lab.exec("umount", [mnt]);
  await program.until(({ what }) => what === "delivered", "delivery", 120_000);
  assert.equal(program.events.filter(({ what }) => what === "lost" || what === "parked").length, 0);
});

test("eject of a disk on which somebody stands: who it is, is said; once they have gone it may be pulled, and that is said again", async (t) => {
  const it = await begun(t);
  if (it === undefined) return;
  const { lab, world } = it;
  const card = await lab.make("card", { fs: "ext4", mib: 16, files: { "a.bin": Buffer.alloc(10_000_000, "a") } });
  const mnt = world.mkdir("mnt");
  // It is read as long as it takes for somebody to get onto it.
  const config = world.config({
    devices: { cam: { type: "disk", uuid: card.uuid, mountPoint: "mnt", maxRate: "100kB/s" }, out },
    routes: [{ from: "cam", to: ["out"] }],
  });
  const program = daemonIn(t, lab, config);
  await lab.plug(card);
  await program.until(({ message }) => message.includes(`is in: `), "that it is in");
  const shell = lab.run("sh", ["-c", "echo in; exec sleep 1000"], { cwd: mnt });
  t.after(() => shell.kill());
  assert.equal((await firstLine(shell)).line, "in");
  const refused = await runProgram(["eject", "cam", "--config", config]);
  assert.equal(refused.code, 3);
  assert.match(refused.err, new RegExp(`cannot be unmounted: .*; held by sleep \\(process ${shell.pid}\\); do not pull it yet`));
  shell.kill("SIGKILL");
  await once(shell, "close");
  for (const words of [/may be pulled (now|already)/, /may be pulled already/]) {
    const again = await runProgram(["eject", "cam", "--config", config]);
    assert.deepEqual([again.code, again.err], [0, ""]);
    assert.match(again.out, words);
  }
  assert.equal(program.events.filter(({ message }) => message.includes("may be pulled now")).length, 1);
  assert.deepEqual(
    lab.mounts().filter(({ target }) => target === mnt),
    [],
  );
});

test("a mount point on which something else is mounted: it is left alone, and named; so is a person's mount of the disk there", async (t) => {
  const it = await begun(t);
  if (it === undefined) return;
  const { lab, world } = it;
  const card = await lab.make("card", { fs: "ext4", mib: 16, files: { "a.bin": "content of a" } });
  const mnt = world.mkdir("mnt");
  const config = world.config({
    devices: { cam: { type: "disk", uuid: card.uuid, mountPoint: "mnt" }, out },
    routes: [{ from: "cam", to: ["out"] }],
  });
  await lab.exec("mount", ["-t", "tmpfs", "theirs", mnt]);
  const program = daemonIn(t, lab, config);
  const at = () =>
    lab
      .mounts()
      .filter(({ target }) => target === mnt)
      .map(({ source }) => source);
  await lab.plug(card);
  await program.until(({ message }) => message.includes(`${mnt} is in use: theirs is mounted there`), "that it is in use");
  assert.deepEqual(at(), ["theirs"]);
  await lab.exec("umount", [mnt]);
  await lab.exec("mount", ["-t", "ext4", "-o", "ro", lab.nodeOf(card), mnt]);
  await program.until(({ what }) => what === "delivered", "delivery");
  assert.equal((await runProgram(["eject", "cam", "--config", config])).code, 3);
  assert.deepEqual(at(), [lab.nodeOf(card)]);
  await program.kill();
  // What is there since before the start is no less theirs.
  const next = daemonIn(t, lab, config);
  await next.until(({ message }) => message.includes(`mounted by somebody else at ${mnt}`), "whose it is");
  next.signal("SIGTERM");
  assert.equal(await next.exited, 0);
  assert.deepEqual(at(), [lab.nodeOf(card)]);
});

test("a put by hand that is cut goes on where it was, also after the disk was mounted anew", async (t) => {
  const it = await begun(t);
  if (it === undefined) return;
  const { lab, world } = it;
  world.file("big.bin", Buffer.alloc(12_000_000, "big"));
  const card = await lab.make("card", { fs: "ext4", mib: 64 });
  const given = (rate?: string) =>
    world.config({
      devices: { cam: { type: "disk", uuid: card.uuid, write: true, ...(rate === undefined ? {} : { maxRate: rate }) }, out },
      routes: [{ from: "cam", to: ["out"], include: ["none"] }],
    });
  // As slow as whoever looks how far it is may be.
  const config = given("1MiB/s");
  const program = daemonIn(t, lab, config);
  await lab.plug(card);
  await program.until(isSafe, "that it may be pulled");
  const put = new Program(["put", world.path("big.bin"), "cam:", "--config", config]);
  const size = () => {
    const dir = lab.mounts().find(({ target }) => target.startsWith(world.dir))?.target;
    const names = dir === undefined ? [] : readdirSync(lab.path(dir)).filter((name) => name.endsWith(".part"));
    return names.length === 0 ? 0 : (statSync(lab.path(`${dir}/${names[0]}`), { throwIfNoEntry: false })?.size ?? 0);
  };
  for (const until = performance.now() + 60_000; size() < 6_000_000 && performance.now() < until;)
    await new Promise((resolve) => setTimeout(resolve, 20));
  await put.kill();
  await program.until(() => program.events.filter(isSafe).length === 2, "that it may be pulled again");
  const again = await runProgram(["put", world.path("big.bin"), "cam:", "--config", config]);
  assert.equal(again.code, 0, again.err);
  const from = Number(/goes on at byte (\d+) of 12000000/.exec(again.err)?.[1]);
  assert.ok(from >= 6_000_000 - 4 * 2 ** 20, `${from}: ${again.err}`);
  assert.deepEqual(readdirSync(world.path("state/hand")), []);
});

test("a stick that is full of partials: status and why say that it is full", async (t) => {
  const it = await begun(t);
  if (it === undefined) return;
  const { lab, world } = it;
  for (const name of ["a", "b"]) world.file(`in/${name}.bin`, Buffer.alloc(20_000_000, name));
  const stick = await lab.make("stick", { fs: "ext4", mib: 16 });
  const config = world.config({
    devices: { in: { type: "local", dir: "in" }, stick: { type: "disk", uuid: stick.uuid } },
    routes: [{ from: "in", to: ["stick"], into: "" }],
  });
  const program = daemonIn(t, lab, config);
  await lab.plug(stick);
  await program.until(({ what, message }) => what === "again" && /no space is left/.test(message), "that it is full");
  world.file("in/small.bin", Buffer.alloc(100_000, "s"));
  await program.until(({ what, message }) => what === "found" && /in: 1 new file/.test(message), "the small file", 90_000);
  assert.match(await statusOf(config), /stick {2}attached, nothing is sent to it: .*no space is left on the device/);
  assert.match((await runProgram(["why", "in:small.bin", "--config", config])).out, /no space is left on the device/);
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

test("a gadget whose clock is behind: what it may be writing has to settle, however old it seems", async (t) => {
  const it = await begun(t);
  if (it === undefined) return;
  const { lab, world } = it;
  const card = await lab.make("card", { fs: "ext4", mib: 16, files: { "a.mp4": "the beginning of a" } });
  await lab.exec("debugfs", ["-w", "-R", "set_inode_field /a.mp4 mtime 201601010000", card.image]);
  const settleMs = 3000;
  const config = world.config({
    devices: { cam: { type: "disk", uuid: card.uuid, gadget: true, settle: `${settleMs}ms` }, out },
    routes: [{ from: "cam", to: ["out"] }],
  });
  const program = daemonIn(t, lab, config);
  const beganMs = performance.now();
  await lab.plug(card);
  await program.until(({ what }) => what === "found", "that it is found");
  const afterMs = performance.now() - beganMs;
  assert.ok(afterMs >= settleMs, `taken for complete after ${Math.round(afterMs)} ms`);
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

for (const mode of ["mirror", "two-way"])
  test(`a card that is a side of a ${mode} route: it may be pulled once both sides are the same, and not while the route is stopped`, async (t) => {
    const it = await begun(t);
    if (it === undefined) return;
    const { lab, world } = it;
    const files = (of: string) => ({ "DCIM/1.JPG": `first of ${of}`, [`DCIM/${of}.JPG`]: `second of ${of}` });
    const [one, other] = [
      await lab.make("one", { fs: "ext4", mib: 16, label: "CARD", files: files("one") }),
      await lab.make("other", { fs: "ext4", mib: 16, label: "CARD", files: files("other") }),
    ];
    const config = world.config({
      devices: { card: { type: "disk", label: "CARD", settle: "0s" }, out },
      routes: [{ from: "card", to: ["out"], mode, into: "", ...(mode === "mirror" ? { deletes: true } : {}) }],
    });
    const program = daemonIn(t, lab, config);
    await program.until(({ message }) => message.includes("is ready"), "that it is ready");
    await lab.plug(one);
    await program.until(isSafe, "that it may be pulled");
    assert.ok(program.events.findIndex(({ what }) => what === "synced") < program.events.findIndex(isSafe));
    assert.equal(readFileSync(world.path("out/DCIM/one.JPG"), "utf8"), "second of one");
    await lab.pull(one);
    await lab.plug(other);
    await program.until(({ what }) => what === "sync-stopped", "that the route is stopped");
    const isSafeToo = (event: (typeof program.events)[number]) => isSafe(event) && event.facts?.["medium"] === other.uuid;
    await sleep(1000);
    assert.ok(!program.events.some(isSafeToo) && !/may be pulled/.test(await statusOf(config)));
    assert.equal((await runProgram(["approve", "card:out", "--config", config])).code, 0);
    await program.until(isSafeToo, "that the other may be pulled");
    assert.equal(readFileSync(world.path("out/DCIM/other.JPG"), "utf8"), "second of other");
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
  assert.match(
    await statusOf(config),
    /cam {2}attached, may be pulled; not used: \/dev\/loop\S+ answers the description too: it waits until/,
  );
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
