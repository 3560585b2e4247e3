/** Disks as an ordinary user meets them: without a way to mount, with the helper that mounts, with the mounts of others. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, constants, existsSync, promises as fs, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname } from "node:path";
import { test } from "node:test";
import { helperPaths, shortOf } from "../../plugins/disk/helper.js";
import { until } from "../conformance/clause.js";
import { isSafe, reached, safeAfter } from "../disks/scene.js";
import { type Program, runProgram } from "../faults/process.js";
import { type Helper, UserLab } from "../disks/user.js";

const disks = "/run/filesync/disks/";

function photo(n: number, bytes = 300_000): Buffer {
  return Buffer.alloc(bytes, `photo ${n} `);
}

/** Where it is mounted by the helper, inside. */
function mounted({ lab }: UserLab, below = disks) {
  return lab.mounts().filter(({ target }) => target.startsWith(below));
}

/** A card as source, and what comes of it in "out". */
function fromCard({ world }: UserLab, uuid: string, more: object = {}): string {
  world.mkdir("out");
  return world.config({
    devices: { flir: { type: "disk", uuid, ...more }, out: { type: "local", dir: "out" } },
    routes: [{ from: "flir", to: ["out"], priority: "oldest" }],
  });
}

const delivered = (program: Program, name: string) =>
  program.until(({ what, message }) => what === "delivered" && message.includes(name), `delivery of ${name}`);
const safe = (program: Program) => program.until(isSafe, "that it may be pulled");

test("no way to mount: what is missing is said, and what to do", async (t) => {
  const user = await UserLab.open(t);
  if (user === undefined) return;
  const { lab } = user;
  const card = await lab.make("card", { fs: "ext4", mib: 16, files: { "a.jpg": photo(1) } });
  const config = fromCard(user, card.uuid);
  await lab.plug(card);
  const words =
    `${card.node ?? ""} cannot be mounted: this user may not mount: install udisks2 with a rule that lets it, ` +
    'or start the helper ("systemctl enable --now filesync-mount.socket"), or have it mounted by /etc/fstab';
  const probed = await user.run(["check", "--probe", "--config", config]);
  assert.ok(`${probed.out}${probed.err}`.includes(words), `${probed.out}${probed.err}`);
  assert.equal(probed.code, 2);
  const program = user.start(config);
  await program.until(({ message }) => message.includes(words), "what is missing");
  await program.until(({ message }) => message.includes("is ready"), "that it is ready");
  assert.ok((await runProgram(["status", "--config", config])).out.includes(`flir  detached: ${words}`));
  assert.equal(mounted(user).length, 0);
});

test("the helper's socket is not this user's: that is said", async (t) => {
  const user = await UserLab.open(t);
  if (user === undefined) return;
  const { lab } = user;
  await user.helper();
  await lab.exec("chgrp", ["root", "/run/filesync/mount.sock"]);
  const card = await lab.make("card", { fs: "ext4", mib: 16 });
  const config = fromCard(user, card.uuid);
  await lab.plug(card);
  const program = user.start(config);
  await program.until(
    ({ message }) => message.includes("/run/filesync/mount.sock may not be used by this user: it has to be in the socket's group"),
    "whose the socket is",
  );
});

for (const fs of ["ext4", "vfat", "exfat"] as const)
  test(`the helper mounts a card of ${fs}: its files arrive, and it may be pulled`, async (t) => {
    const user = await UserLab.open(t);
    if (user === undefined) return;
    const { lab, world } = user;
    const files = { "A.JPG": photo(1), "B.JPG": photo(2, 5_000_000) };
    const card = await lab.make("card", { fs, mib: 64, files });
    const helper = await user.helper({ fixed: [card.uuid] });
    const config = fromCard(user, card.uuid);
    const program = user.start(config);
    await program.until(({ message }) => message.includes("no disk with the UUID"), "that no disk is there");
    await lab.plug(card);
    await program.until(({ message }) => message.includes(`at ${disks}`) && message.includes("by helper"), "that it is in");
    for (const name of Object.keys(files)) await delivered(program, name);
    await safe(program);
    for (const [name, bytes] of Object.entries(files)) assert.deepEqual(readFileSync(`${world.dir}/out/v/flir/${name}`), bytes);
    assert.match((await runProgram(["status", "--config", config])).out, /flir {2}attached, may be pulled/);
    assert.deepEqual(mounted(user), []);
    await lab.exec("sh", ["-c", `[ -z "$(ls ${disks})" ]`]);
    assert.match(helper.log(), new RegExp(`mounted ${card.node ?? ""} at ${disks}\\S+, read-only\n(.*\n)*unmounted`));
    await lab.pull(card);
    await program.until(({ message }) => message.endsWith("was pulled"), "the pull");
    assert.equal(statSync(world.path("state")).uid, user.uid);
  });

test("pulled in the middle of a file: the helper takes the dead mount away, and after the replug it goes on", async (t) => {
  const user = await UserLab.open(t);
  if (user === undefined) return;
  const { lab, world } = user;
  const bytes = photo(1, 40_000_000);
  const card = await lab.make("card", { fs: "ext4", mib: 96, files: { "a.bin": bytes } });
  const helper = await user.helper({ fixed: [card.uuid] });
  // So slowly that it is in the middle of it however late this test learns how far it is.
  const config = fromCard(user, card.uuid, { maxRate: "1500KiB/s" });
  const program = user.start(config);
  await lab.plug(card);
  await reached(program, config, 6_000_000);
  assert.equal(mounted(user).length, 1);
  await lab.pull(card);
  await program.until(({ message }) => message.includes("was pulled while it was in use"), "that it was pulled");
  while (mounted(user).length > 0) await new Promise((resolve) => setTimeout(resolve, 20));
  fromCard(user, card.uuid);
  program.signal("SIGHUP");
  await program.until(({ what }) => what === "reload", "the full rate");
  await lab.plug(card);
  await delivered(program, "a.bin");
  await safe(program);
  assert.match(helper.log(), /, lazily\n/);
  assert.deepEqual(readFileSync(world.path("out/v/flir/a.bin")), bytes);
  const from = program.events.filter(({ what }) => what === "resumed").map(({ message }) => Number(/at byte (\d+)/.exec(message)?.[1]));
  assert.ok(Math.min(...from) > 6_000_000 - 4 * 2 ** 20, `went on at ${from.join(", ")}`);
  assert.equal(mounted(user).length, 0);
});

for (const at of ["its own directory", "a mountPoint"])
  test(`a daemon that was killed, with ${at}: the helper's mount is found again as its own, and a dead one is taken away`, async (t) => {
    const user = await UserLab.open(t);
    if (user === undefined) return;
    const { lab } = user;
    const card = await lab.make("card", { fs: "ext4", mib: 96, files: { "a.bin": photo(1, 50_000_000) } });
    await user.helper({ fixed: [card.uuid] });
    const place = at === "a mountPoint" ? user.mountPoint("flir") : undefined;
    const config = fromCard(user, card.uuid, { maxRate: "4MiB/s", ...(place === undefined ? {} : { mountPoint: place }) });
    const ours = () => mounted(user, place ?? disks);
    let program = user.start(config);
    await lab.plug(card);
    await reached(program, config, 8_000_000);
    await program.kill();
    assert.equal(ours().length, 1);
    program = user.start(config);
    await program.until(({ message }) => message.includes("by helper"), "that it is its own");
    await program.until(({ what }) => what === "resumed", "that it goes on");
    assert.equal(ours().length, 1);
    await program.kill();
    await lab.pull(card);
    assert.equal(ours().length, 1);
    program = user.start(config);
    await lab.plug(card);
    await delivered(program, "a.bin");
    await safe(program);
    assert.equal(ours().length, 0);
    program.signal("SIGTERM");
    assert.equal(await program.exited, 0);
  });

test("a target, at a mountPoint: the files are this user's", async (t) => {
  const user = await UserLab.open(t);
  if (user === undefined) return;
  const { lab, world } = user;
  const big = photo(7, 20_000_000);
  world.file("in/big.bin", big);
  const stick = await lab.make("stick", { fs: "exfat", mib: 64 });
  await user.helper({ fixed: [stick.uuid] });
  const place = user.mountPoint("stick");
  const config = world.config({
    devices: { in: { type: "local", dir: "in" }, stick: { type: "disk", uuid: stick.uuid, mountPoint: place, maxRate: "4MiB/s" } },
    routes: [{ from: "in", to: ["stick"] }],
  });
  const program = user.start(config);
  await lab.plug(stick);
  await reached(program, config, 5_000_000);
  const there = statSync(lab.path(place));
  assert.deepEqual([there.uid, there.gid], [user.uid, user.gid]);
  const [mount] = mounted(user, place);
  for (const option of ["rw", "nosuid", "nodev", "noexec"]) assert.ok(mount?.options.includes(option), mount?.options.join());
  await safeAfter(program, await delivered(program, "big.bin"));
  assert.equal(mounted(user, place).length, 0);
  await lab.pull(stick);
  assert.deepEqual(
    [...(await lab.content(stick))].map(([path, bytes]) => [path, bytes.equals(big)]),
    [["v/in/big.bin", true]],
  );
});

test("a target of ext4 whose directories are root's: that is said, and what helps", async (t) => {
  const user = await UserLab.open(t);
  if (user === undefined) return;
  const { lab, world } = user;
  world.file("in/a.bin", photo(1));
  const stick = await lab.make("stick", { fs: "ext4", mib: 32 });
  await user.helper({ fixed: [stick.uuid] });
  const config = world.config({
    devices: { in: { type: "local", dir: "in" }, stick: { type: "disk", uuid: stick.uuid } },
    routes: [{ from: "in", to: ["stick"] }],
  });
  const program = user.start(config);
  await lab.plug(stick);
  const words = `stick: cannot make the directory v: permission denied: on ext4 files have owners; this user (uid ${user.uid}) needs a directory of its own`;
  await program.until(({ message }) => message.includes(words), "that it may not write");
});

test("udisks2 mounts it, where polkit lets this user: its files arrive, it may be pulled, and also in the middle", async (t) => {
  const user = await UserLab.open(t);
  if (user === undefined) return;
  const { lab, world } = user;
  const why = await user.udisks(true);
  if (why !== undefined) {
    t.skip(why);
    return;
  }
  const files = { "a.bin": photo(1, 30_000_000), "b.jpg": photo(2) };
  const card = await lab.make("card", { fs: "ext4", mib: 64, files });
  const config = fromCard(user, card.uuid, { maxRate: "4MiB/s" });
  const program = user.start(config);
  await lab.plug(card);
  await program.until(({ message }) => message.includes("by udisks2"), "that udisks2 mounted it");
  await reached(program, config, 8_000_000);
  const [mount] = mounted(user, "/media/");
  for (const option of ["ro", "nosuid", "nodev", "noexec"]) assert.ok(mount?.options.includes(option), mount?.options.join());
  await lab.pull(card);
  await program.until(({ message }) => message.includes("was pulled while it was in use"), "that it was pulled");
  // udisks2 takes a dead mount away once the disk has gone from /sys, which a loop device never does: here it stays, and is in nobody's way.
  const dead = mounted(user, "/media/");
  await lab.plug(card);
  await delivered(program, "a.bin");
  await delivered(program, "b.jpg");
  await safe(program);
  assert.deepEqual(mounted(user, "/media/"), dead);
  for (const [name, bytes] of Object.entries(files)) assert.deepEqual(readFileSync(world.path("out/v/flir", name)), bytes);
  assert.ok(program.events.some(({ what, message }) => what === "resumed" && message.startsWith("flir:a.bin: goes on at byte")));
});

test("udisks2 may not mount it for this user: what it says is told; the helper is asked then", async (t) => {
  const user = await UserLab.open(t);
  if (user === undefined) return;
  const { lab } = user;
  const why = await user.udisks(false);
  if (why !== undefined) {
    t.skip(why);
    return;
  }
  const card = await lab.make("card", { fs: "ext4", mib: 16, files: { "a.jpg": photo(1) } });
  const config = fromCard(user, card.uuid);
  await lab.plug(card);
  const probed = await user.run(["check", "--probe", "--config", config]);
  assert.match(
    `${probed.out}${probed.err}`,
    /cannot be mounted: udisks2: .*Not authorized.*; this user may not mount: install udisks2 with a rule/,
  );
  await user.helper({ fixed: [card.uuid] });
  const program = user.start(config);
  await program.until(({ message }) => message.includes("by helper"), "that the helper mounted it");
  await delivered(program, "a.jpg");
});

test("mounted by somebody else: used, and never unmounted; where this user may not read it, that is said", async (t) => {
  const user = await UserLab.open(t);
  if (user === undefined) return;
  const { lab, world } = user;
  const card = await lab.make("card", { fs: "ext4", mib: 16, files: { "a.jpg": photo(1) } });
  const place = user.mountPoint("theirs");
  await user.helper({ fixed: [card.uuid] });
  await lab.plug(card);
  await lab.exec("mount", [card.node ?? "", place]);
  chmodSync(dirname(place), 0o700);
  // Also where it is at the directory that the configuration names.
  const config = fromCard(user, card.uuid, { mountPoint: place });
  const program = user.start(config);
  const words = `${card.node ?? ""} is mounted at ${place}, which this user may not read: allow it to, or unmount it`;
  await program.until(({ message }) => message.includes(words), "that it may not be read");
  await program.until(({ message }) => message.includes("is ready"), "that it is ready");
  assert.ok((await runProgram(["status", "--config", config])).out.includes(`flir  detached: ${words}`));
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
  chmodSync(dirname(place), 0o755);
  const again = user.start(config);
  await again.until(({ message }) => message.includes(`mounted by somebody else at ${place}`), "that it is used");
  await delivered(again, "a.jpg");
  const ejected = await runProgram(["eject", "flir", "--config", config]);
  assert.match(ejected.err, new RegExp(`mounted by somebody else, at ${place}; do not pull it yet`));
  again.signal("SIGTERM");
  assert.equal(await again.exited, 0);
  assert.equal(mounted(user, place).length, 1);
  assert.deepEqual(readFileSync(world.path("out/v/flir/a.jpg")), photo(1));
});

test("what the helper refuses, and that it does nothing then", async (t) => {
  const user = await UserLab.open(t);
  if (user === undefined) return;
  const { lab, world } = user;
  const card = await lab.make("card", { fs: "exfat", mib: 16, files: { "a.jpg": photo(1) } });
  const other = await lab.make("other", { fs: "ext4", mib: 16 });
  const theirs = await lab.make("theirs", { fs: "ext4", mib: 16 });
  const [full, empty, elsewhere] = [user.mountPoint("full"), user.mountPoint("empty"), user.mountPoint("elsewhere")];
  writeFileSync(`${full}/a`, "");
  world.mkdir("inside");
  for (const disk of [card, other, theirs]) await lab.plug(disk);
  await lab.exec("mount", [theirs.node ?? "", elsewhere]);
  // The disk that this system runs from, by a name of its own.
  const root = /^\d+ \d+ (\d+):(\d+) \/ \/ /m.exec(readFileSync("/proc/self/mountinfo", "utf8"));
  if (root !== null) await lab.exec("mknod", ["/dev/root-disk", "b", root[1] ?? "", root[2] ?? ""]);
  await lab.exec("mknod", ["/dev/tape", "c", "9", "0"]);
  await lab.exec("ln", ["-s", "/etc", `${dirname(empty)}/link`]);
  await lab.exec("mkdir", ["-p", "-m", "777", `${dirname(empty)}/open/dir`]);
  await lab.exec("chmod", ["777", `${dirname(empty)}/open`]);
  const helper = await user.helper({ fixed: [card.uuid, theirs.uuid] });
  // What other tests had mounted as the laboratory was made goes away with its directory.
  const mounts = () => lab.mounts().filter(({ target }) => !target.startsWith(`${tmpdir()}/`) || target.startsWith(world.dir));
  const before = mounts();
  const device = card.node ?? "";
  const mount = (more: object) => JSON.stringify({ do: "mount", device, readOnly: true, ...more });
  const none = "this is no request";
  const noDevice = "is not there, or no block device below /dev";
  const questions: readonly (readonly [string, string | Buffer, string])[] = [
    ["a file", mount({ device: card.image }), `${card.image} ${noDevice}`],
    ["a file that is not there", mount({ device: `${card.image}x` }), `${card.image}x ${noDevice}`],
    ["a character device", mount({ device: "/dev/tape" }), `/dev/tape ${noDevice}`],
    ["nothing there", mount({ device: "/dev/nothing" }), `/dev/nothing ${noDevice}`],
    ["a way up", mount({ device: `/dev/../dev/${device.slice(5)}` }), none],
    ["a relative path", mount({ device: device.slice(1) }), none],
    ["a tag", mount({ device: `UUID=${card.uuid}` }), none],
    ["the root disk", mount({ device: "/dev/root-disk" }), "/dev/root-disk is mounted already, at /"],
    ["mounted by another", mount({ device: theirs.node }), `is mounted already, at ${elsewhere}`],
    ["a fixed disk", mount({ device: other.node }), `is on a fixed disk: put its UUID (${other.uuid}) into FILESYNC_MOUNT_FIXED`],
    ["at /etc", mount({ mountPoint: "/etc" }), "/etc cannot be a mount point for a service"],
    ["at /mnt itself", mount({ mountPoint: "/mnt" }), "/mnt cannot be a mount point for a service"],
    ["up to /etc", mount({ mountPoint: "/mnt/../etc" }), none],
    ["in the service's own directory", mount({ mountPoint: world.path("inside") }), "cannot be a mount point for a service"],
    ["by a link", mount({ mountPoint: `${dirname(empty)}/link` }), "is no directory"],
    ["below a link", mount({ mountPoint: `${dirname(empty)}/link/cron.d` }), "is reached by a link"],
    ["where all may write", mount({ mountPoint: `${dirname(empty)}/open/dir` }), "has to belong to root, and nobody else may write in it"],
    ["over files", mount({ mountPoint: full }), "is not empty"],
    ["over a mount", mount({ mountPoint: elsewhere }), "is in use: something is mounted there"],
    ["no directory", mount({ mountPoint: `${empty}/a` }), "is no directory: make it"],
    ["options in a path", mount({ mountPoint: `${empty},suid` }), "is no directory: make it"],
    ["options in a device", mount({ device: `${device} -o suid` }), "is not there"],
    ["options of its own", mount({ options: "suid,dev,exec" }), none],
    ["an owner of its own", mount({ uid: 0 }), none],
    ["a field of another kind", mount({ readOnly: "no,suid" }), none],
    ["a device that is a list", mount({ device: [device] }), none],
    ["unmounts another's", JSON.stringify({ do: "unmount", dir: elsewhere, lazy: true }), "was not mounted by the helper"],
    ["unmounts /", JSON.stringify({ do: "unmount", dir: "/", lazy: true }), none],
    ["unmounts /run", JSON.stringify({ do: "unmount", dir: "/run", lazy: true }), "was not mounted by the helper"],
    ["unmounts nothing", JSON.stringify({ do: "unmount", dir: "/nothing", lazy: true }), "was not mounted by the helper"],
    ["up from its own", JSON.stringify({ do: "unmount", dir: `${disks}../../..${elsewhere}`, lazy: true }), none],
    ["something else", JSON.stringify({ do: "format", device }), none],
    ["null", "null", none],
    ["nothing", "", none],
    ["garbage", Buffer.from([0xff, 0x00, 0xfe, 0x0a]), none],
    ["a megabyte", mount({ mountPoint: `/mnt/${"a".repeat(2 ** 20)}` }), "a question has at most 4096 bytes"],
  ];
  for (const [name, text, words] of questions) {
    const answer = await helper.ask(text);
    const { error } = JSON.parse(answer) as { error?: string };
    assert.ok(error?.includes(words), `${name}: ${answer}`);
    assert.ok(!/\n|Error|\.js/.test(error ?? ""), `${name}: ${answer}`);
  }
  const locks = readdirSync(lab.path(helperPaths.locks));
  for (const dir of ["/nothing", `${empty}/a`, `${dirname(empty)}/link`])
    assert.ok(!locks.includes(shortOf(dir)), `a lock stays for ${dir}`);
  for (const answer of await Promise.all(["", '{"do": "mount"'].map((text) => helper.ask(text, true))))
    assert.match(answer, /nothing whole was asked within 5 s/);
  assert.deepEqual(mounts(), before);
  assert.equal(readFileSync(`${full}/a`, "utf8"), "");
  await honest(user, helper, device, empty);
  assert.deepEqual(mounts(), before);
});

/** What the helper does for the same user, so that it was not all refused for another reason. */
async function honest(user: UserLab, helper: Helper, device: string, empty: string): Promise<void> {
  const ask = async (request: object) => JSON.parse(await helper.ask(`${JSON.stringify(request)}\n`)) as { ok?: true; error?: string };
  for (const [more, place] of [
    [{ mountPoint: empty }, empty],
    [{}, disks],
  ] as const) {
    // Two at once: one of them.
    const answers = await Promise.all([1, 2].map(() => ask({ do: "mount", device, readOnly: false, ...more })));
    assert.equal(answers.filter(({ ok }) => ok).length, 1, JSON.stringify(answers));
    assert.match(answers.find(({ error }) => error !== undefined)?.error ?? "", /is mounted already, at/);
    const [there, ...rest] = mounted(user, place);
    assert.deepEqual([there?.source, rest.length], [device, 0]);
    assert.equal(statSync(user.lab.path(there?.target ?? "")).uid, user.uid);
    assert.match((await ask({ do: "mount", device, readOnly: true })).error ?? "", /is mounted already/);
    assert.deepEqual(await ask({ do: "unmount", dir: there?.target, lazy: false }), { ok: true });
    assert.match((await ask({ do: "unmount", dir: there?.target, lazy: false })).error ?? "", /was not mounted by the helper/);
  }
  assert.ok(existsSync(empty));
  mkdirSync(`${empty}/still-usable`);
}

test("nothing is mounted on what a disk has in it: its links lead anywhere", async (t) => {
  const user = await UserLab.open(t);
  if (user === undefined) return;
  const { lab } = user;
  const evil = await lab.make("evil", { fs: "ext4", mib: 16 });
  const card = await lab.make("card", { fs: "ext4", mib: 16 });
  const [place, victim] = [user.mountPoint("place"), user.mountPoint("victim")];
  for (const disk of [evil, card]) await lab.plug(disk);
  await lab.exec("mount", [evil.node ?? "", place]);
  await lab.exec("sh", ["-c", `rm -rf ${place}/* && ln -s ${victim} ${place}/link && mkdir ${place}/dir && umount ${place}`]);
  const helper = await user.helper({ fixed: [evil.uuid, card.uuid] });
  const ask = async (request: object) => JSON.parse(await helper.ask(`${JSON.stringify(request)}\n`)) as { ok?: true; error?: string };
  for (const mountPoint of [undefined, place]) {
    assert.deepEqual(await ask({ do: "mount", device: evil.node, readOnly: false, mountPoint }), { ok: true });
    const [there] = mounted(user, mountPoint ?? disks);
    for (const name of ["link", "dir", "new"]) {
      const { error } = await ask({ do: "mount", device: card.node, readOnly: true, mountPoint: `${there?.target}/${name}` });
      assert.deepEqual(
        lab.mounts().filter(({ source, target }) => source === card.node || target === victim),
        [],
        error,
      );
      assert.ok(error !== undefined);
    }
    assert.deepEqual(await ask({ do: "unmount", dir: there?.target, lazy: false }), { ok: true });
  }
});

test("what somebody holds whose mounts are not seen here is not mounted; what a driver mounts without the safe options is taken away", async (t) => {
  const user = await UserLab.open(t);
  if (user === undefined) return;
  const { lab, world } = user;
  const card = await lab.make("card", { fs: "ext4", mib: 16 });
  await lab.plug(card);
  world.file("bin/mount", `#!/bin/sh\n[ "$1" = -t ] && exec /usr/bin/mount "$5" "$6"\n`);
  chmodSync(world.path("bin/mount"), 0o755);
  const helper = await user.helper({ fixed: [card.uuid], path: `${world.path("bin")}:${process.env["PATH"] ?? ""}` });
  const question = JSON.stringify({ do: "mount", device: card.node, readOnly: true });
  // Outside, as another container would.
  const elsewhere = world.mkdir("elsewhere");
  execFileSync("mount", ["-o", "ro", lab.path(card.node ?? ""), elsewhere]);
  try {
    assert.match(await helper.ask(question), /is in use by something else/);
  } finally {
    execFileSync("umount", [elsewhere]);
  }
  // A namespace that another test made meanwhile has a copy of that mount, until it ends.
  const idle = () =>
    fs.open(lab.path(card.node ?? ""), constants.O_RDONLY | constants.O_EXCL).then((handle) => handle.close().then(() => true));
  await until("nobody has it any more", () => idle().catch(() => false), 60_000);
  assert.match(await helper.ask(question), /could not be mounted with nosuid, nodev, noexec/);
  assert.equal(mounted(user).length, 0);
});

test("the helper answers the service's user alone, and needs one", async (t) => {
  const user = await UserLab.open(t);
  if (user === undefined) return;
  const { lab } = user;
  const card = await lab.make("card", { fs: "ext4", mib: 16 });
  await lab.plug(card);
  const helper = await user.helper({ fixed: [card.uuid], asker: user.uid + 1 });
  const answer = await helper.ask(JSON.stringify({ do: "mount", device: card.node, readOnly: true }));
  assert.match(answer, new RegExp(`only the user ${user.name} may ask`));
  assert.equal(mounted(user).length, 0);
});

test("by hand, mount-helper says who starts it", async () => {
  const { code, err } = await runProgram(["mount-helper"]);
  assert.equal(code, 2);
  assert.match(err, /mount-helper is started by systemd/);
});
