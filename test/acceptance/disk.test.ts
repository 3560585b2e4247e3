/** Disks that are plugged and pulled, as their user meets them: the real program beside real file systems on removable loop devices. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { test } from "node:test";
import { until } from "../conformance/clause.js";
import { runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { daemonIn, isSafe, labFor, noMount, reached, safeAfter } from "../disks/scene.js";

function photo(n: number, bytes = 300_000): Buffer {
  return Buffer.alloc(bytes, `photo ${n} `);
}

for (const fs of ["ext4", "vfat", "exfat"] as const)
  test(`a card of ${fs}: plugged, its files arrive, and it may be pulled`, async (t) => {
    const lab = await labFor(t);
    if (lab === undefined) return;
    const world = new World(t);
    const files = { "DCIM/100/A.JPG": photo(1), "DCIM/100/B.JPG": photo(2, 5_000_000), "OTHER.TXT": photo(3, 10) };
    const card = await lab.make("card", { fs, mib: 64, files });
    world.mkdir("out");
    const config = world.config({
      devices: { flir: { type: "disk", uuid: card.uuid, root: "DCIM" }, out: { type: "local", dir: "out" } },
      routes: [{ from: "flir", to: ["out"] }],
    });
    const program = daemonIn(t, lab, config);
    await program.until(({ message }) => message.includes("no disk with the UUID"), "that no disk is there");
    await lab.plug(card);
    await program.until(isSafe, "that it may be pulled");
    const status = (await runProgram(["status", "--config", config])).out;
    assert.match(status, /flir {2}attached, may be pulled/);
    await program.until(({ what, message }) => what === "delivered" && message.includes("B.JPG"), "delivery");
    await program.until(({ what, message }) => what === "delivered" && message.includes("A.JPG"), "delivery");
    assert.deepEqual(readFileSync(`${world.dir}/out/v/flir/100/A.JPG`), files["DCIM/100/A.JPG"]);
    assert.deepEqual(readFileSync(`${world.dir}/out/v/flir/100/B.JPG`), files["DCIM/100/B.JPG"]);
    assert.deepEqual(
      lab.mounts().filter(({ target }) => target.startsWith(world.dir)),
      [],
    );
    await lab.pull(card);
    await program.until(({ message }) => message.endsWith("was pulled"), "the pull");
  });

test("pulled in the middle of a file: noticed at once, and it goes on at the byte, under another name of the device", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  const files = { "a.bin": photo(1, 40_000_000), "b.bin": photo(2, 1000) };
  const card = await lab.make("card", { fs: "ext4", mib: 96, files });
  world.mkdir("out");
  const config = world.config({
    devices: { flir: { type: "disk", uuid: card.uuid, maxRate: "4MiB/s" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "flir", to: ["out"], priority: "oldest" }],
  });
  const program = daemonIn(t, lab, config);
  for (let n = 1; n <= 3; n++) {
    await lab.plug(card);
    const resumed = () => program.events.filter(({ what, message }) => what === "resumed" && message.startsWith("flir:a.bin: ")).length;
    if (n > 1) await program.until(() => resumed() >= n - 1, `resuming ${n}`);
    // A checkpoint is taken every 3 MiB.
    await reached(program, config, 8_000_000 * n);
    await lab.pull(card);
    await program.until(
      () => program.events.filter(({ message }) => message.includes("was pulled while it was in use")).length === n,
      "that it was pulled",
    );
    await noMount(lab, world.dir);
  }
  await lab.plug(card);
  await program.until(({ what, message }) => what === "delivered" && message.includes("a.bin"), "delivery");
  await program.until(({ what, message }) => what === "delivered" && message.includes("b.bin"), "delivery");
  for (const [name, bytes] of Object.entries(files)) assert.deepEqual(readFileSync(`${world.dir}/out/v/flir/${name}`), bytes);
  const pulls = program.events.filter(({ what, message }) => what === "resumed" && message.startsWith("flir:a.bin: "));
  const from = pulls.map(({ message }) => Number(/at byte (\d+)/.exec(message)?.[1]));
  assert.equal(from.length, 3);
  from.forEach((at, n) => assert.ok(at > 8_000_000 * (n + 1) - 4 * 2 ** 20, `went on at ${at} after ${8_000_000 * (n + 1)}`));
  assert.equal(program.events.filter(({ what }) => what === "lost" || what === "changed" || what === "restarted").length, 0);
});

test("a target that is pulled while it is written on: after the replug it goes on with what the medium holds", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  const big = photo(7, 40_000_000);
  world.file("in/big.bin", big);
  const stick = await lab.make("stick", { fs: "ext4", mib: 128 });
  const config = world.config({
    devices: { in: { type: "local", dir: "in" }, stick: { type: "disk", uuid: stick.uuid, maxRate: "4MiB/s" } },
    routes: [{ from: "in", to: ["stick"] }],
  });
  const program = daemonIn(t, lab, config);
  for (let n = 1; n <= 2; n++) {
    await lab.plug(stick);
    await reached(program, config, 10_000_000 * n);
    await lab.pull(stick);
    await program.until(
      () => program.events.filter(({ message }) => message.includes("was pulled while it was in use")).length === n,
      "that it was pulled",
    );
    // A journal that knows the size, and pages that never came.
    const [[path, bytes] = assert.fail("there is no partial"), ...more] = await lab.content(stick);
    assert.equal(more.length, 0);
    await lab.write(stick, { [path]: Buffer.concat([bytes, Buffer.alloc(1_500_000)]) });
  }
  await lab.plug(stick);
  const safe = await safeAfter(program, await program.until(({ what }) => what === "delivered", "delivery"));
  assert.equal(safe.message, `stick: nothing more is sent to ${stick.uuid} now: it may be pulled`);
  await lab.pull(stick);
  assert.deepEqual(
    [...(await lab.content(stick))].map(([path, bytes]) => [path, bytes.equals(big)]),
    [["v/in/big.bin", true]],
  );
  assert.equal(program.events.filter(({ what }) => what === "restarted").length, 0);
});

test("one bad sector costs one file, which is parked with its place; after a replug it is tried again", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  const bad = photo(1, 3_000_000);
  // Where it is broken stands what stands nowhere else.
  const mark = Buffer.alloc(4096, "this is the sector that fails ");
  mark.copy(bad, 1_228_800);
  const files = { "a.bin": photo(3), "bad.bin": bad, "z.bin": photo(4) };
  const card = await lab.make("card", { fs: "ext4", mib: 32, files });
  world.mkdir("out");
  const config = world.config({
    devices: { flir: { type: "disk", uuid: card.uuid }, out: { type: "local", dir: "out" } },
    routes: [{ from: "flir", to: ["out"] }],
  });
  const program = daemonIn(t, lab, config);
  await lab.plug(card, { badSectors: [{ offset: lab.where(card, mark), count: 512 }] });
  const parked = await program.until(({ what }) => what === "parked", "that it is set aside");
  const at = Number(/flir:bad\.bin: set aside: it cannot be read at byte (\d+) of 3000000: input\/output error/.exec(parked.message)?.[1]);
  // The system reads many pages at once, as one folio, and none of them where one fails: at most the chunk that is read is lost so.
  assert.ok(at <= 1_228_800 && at >= 2 ** 20, parked.message);
  const safe = await program.until(isSafe, "that it may be pulled");
  assert.match(safe.message, / may be pulled, but not all that is on it is here: 1 file is set aside$/);
  for (const name of ["a.bin", "z.bin"]) await program.until(({ what, message }) => what === "delivered" && message.includes(name), name);
  assert.match((await runProgram(["why", "flir:bad.bin", "--config", config])).out, /tried again daily, and when flir is plugged in anew/);
  await lab.pull(card);
  await lab.plug(card);
  await program.until(({ what, message }) => what === "delivered" && message.includes("bad.bin"), "delivery");
  assert.deepEqual(readFileSync(`${world.dir}/out/v/flir/bad.bin`), bad);
  const resumed = program.events.find(({ what }) => what === "resumed");
  assert.match(resumed?.message ?? "", new RegExp(`goes on at byte ${at} of`));
});

test("two cards with one UUID are told apart: neither's files count as the other's, and each goes on where it was", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  const uuid = "11111111-2222-4333-8444-555555555555";
  const first = { "DCIM/1.JPG": photo(1), "DCIM/2.JPG": photo(2, 30_000_000) };
  const second = { "DCIM/1.JPG": photo(11), "DCIM/2.JPG": photo(12, 200_000) };
  const one = await lab.make("one", { fs: "ext4", mib: 64, uuid, files: first });
  const two = await lab.make("two", { fs: "ext4", mib: 64, uuid, files: second });
  world.mkdir("out");
  const config = world.config({
    devices: { flir: { type: "disk", uuid, maxRate: "4MiB/s" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "flir", to: ["out"] }],
  });
  const program = daemonIn(t, lab, config);
  await lab.plug(one);
  await reached(program, config, 10_000_000);
  await lab.pull(one);
  await lab.plug(two);
  await program.until(({ message }) => message.includes(`everything on ${uuid}~2 is here`), "the second card's end");
  const why = (await runProgram(["why", "flir:DCIM/2.JPG", "--config", config])).out;
  assert.match(why, new RegExp(`it is on ${uuid}, which is not in flir now`));
  await lab.pull(two);
  await lab.plug(one);
  await program.until(({ what }) => what === "resumed", "that it goes on");
  await program.until(({ message }) => message.includes(`everything on ${uuid} is here`), "the first card's end");
  const done = () => program.events.filter(({ what }) => what === "delivered").length === 4;
  await program.until(done, "four deliveries");
  const out = [...treeOf(`${world.dir}/out/v/flir`)].map(([path, bytes]) => [path.replace(/~[0-9a-f]{8}/, "~"), bytes.length]);
  assert.deepEqual(out.sort(), [
    ["DCIM/1.JPG", 300_000],
    ["DCIM/1~.JPG", 300_000],
    ["DCIM/2.JPG", 200_000],
    ["DCIM/2~.JPG", 30_000_000],
  ]);
  assert.equal(program.events.filter(({ what }) => what === "lost" || what === "changed" || what === "restarted").length, 0);
});

test("eject: what runs is ended, it is unmounted, and used again once it was plugged in anew", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  // It is read as long as it takes a command to begin.
  const card = await lab.make("card", { fs: "ext4", mib: 64, files: { "a.bin": photo(1, 30_000_000) } });
  for (const dir of ["out", "mnt"]) world.mkdir(dir);
  const config = world.config({
    devices: {
      flir: {
        ...{ type: "disk", uuid: card.uuid, maxRate: "1MiB/s", mountPoint: "mnt" },
        onSafe: [
          "sh",
          "-c",
          `cat ${world.dir}/hook > ${world.dir}/hook.new; echo "$FILESYNC_DEVICE $FILESYNC_MEDIUM" >> ${world.dir}/hook.new && mv ${world.dir}/hook.new ${world.dir}/hook`,
        ],
      },
      out: { type: "local", dir: "out" },
    },
    routes: [{ from: "flir", to: ["out"] }],
  });
  const program = daemonIn(t, lab, config);
  const eject = async (name: string) => runProgram(["eject", name, "--config", config]);
  await program.until(({ message }) => message.includes("is ready"), "that it is ready");
  assert.match((await eject("flir")).err, /flir: no disk with the UUID .* is plugged in/);
  assert.match((await eject("out")).err, /out is no disk that could be taken out; there are: flir/);
  assert.match((await eject("card")).err, /there is no device "card"; there are: flir/);
  await lab.plug(card);
  await reached(program, config, 3_000_000);
  assert.deepEqual(lab.mounts().filter(({ target }) => target === `${world.dir}/mnt`).length, 1);
  const { code, out } = await eject("flir");
  assert.equal(code, 0);
  assert.match(out, /^flir: \S+ \(\/dev\/loop\d+\): may be pulled now/);
  assert.deepEqual(
    lab.mounts().filter(({ target }) => target === `${world.dir}/mnt`),
    [],
  );
  await until("the hook", () => existsSync(`${world.dir}/hook`));
  assert.equal(readFileSync(`${world.dir}/hook`, "utf8"), `flir ${card.uuid}\n`);
  assert.match((await runProgram(["status", "--config", config])).out, /flir {2}detached: it is ejected: it may be pulled/);
  await lab.pull(card);
  await lab.plug(card);
  await program.until(({ what }) => what === "delivered", "delivery");
  // The pull and, because it follows it, the push.
  assert.ok(program.events.some(({ what, message }) => what === "resumed" && message.startsWith("flir:a.bin: goes on at byte")));
  assert.equal(program.events.filter(({ what }) => what === "restarted").length, 0);
});

for (const place of [{}, { mountPoint: "mnt" }, { mountPoint: "link" }])
  test(`a daemon that was killed: its mount ${"mountPoint" in place ? `at its mount point ${place.mountPoint} ` : ""}is found again, and a dead one is taken away`, async (t) => {
    const lab = await labFor(t);
    if (lab === undefined) return;
    const world = new World(t);
    const card = await lab.make("card", { fs: "ext4", mib: 96, files: { "a.bin": photo(1, 50_000_000) } });
    for (const dir of ["out", "mnt", "behind"]) world.mkdir(dir);
    symlinkSync("behind", `${world.dir}/link`);
    const config = world.config({
      devices: { flir: { ...place, type: "disk", uuid: card.uuid, maxRate: "4MiB/s" }, out: { type: "local", dir: "out" } },
      routes: [{ from: "flir", to: ["out"] }],
    });
    const ours = () => lab.mounts().filter(({ target }) => target.startsWith(world.dir));
    const start = () => daemonIn(t, lab, config);
    let program = start();
    await lab.plug(card);
    await reached(program, config, 8_000_000);
    await program.kill();
    assert.equal(ours().length, 1);
    program = start();
    await program.until(({ what }) => what === "resumed", "that it goes on");
    assert.equal(ours().length, 1);
    await program.kill();
    await lab.pull(card);
    assert.equal(ours().length, 1);
    program = start();
    await lab.plug(card);
    await program.until(({ what }) => what === "delivered", "delivery");
    await program.until(isSafe, "that it may be pulled");
    assert.equal(ours().length, 0);
    program.signal("SIGTERM");
    assert.equal(await program.exited, 0);
  });

function* treeOf(dir: string, below = ""): Generator<[string, Buffer]> {
  for (const entry of readdirSync(`${dir}/${below}`, { withFileTypes: true })) {
    const path = below === "" ? entry.name : `${below}/${entry.name}`;
    if (entry.isDirectory()) yield* treeOf(dir, path);
    else yield [path, readFileSync(`${dir}/${path}`)];
  }
}

test("doctor sees a card and mounts nothing; ready measures it, by the daemon that has it and without one", async (t) => {
  const lab = await labFor(t);
  if (lab === undefined) return;
  const world = new World(t);
  const card = await lab.make("card", { fs: "exfat", mib: 64, files: { "DCIM/A.JPG": photo(1) } });
  world.mkdir("out");
  const config = world.config({
    devices: { flir: { type: "disk", uuid: card.uuid, root: "DCIM" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "flir", to: ["out"] }],
  });
  const run = (...args: string[]) => runProgram([...args, "--config", config], { wrap: lab.wrap() });
  const bare = await run("doctor");
  assert.match(bare.out, /^WARN {4}flir: no disk with the UUID /m);
  await lab.plug(card);
  assert.match((await run("doctor")).out, /^ok {6}flir: \S+ is in \(exfat\), to be mounted by mount$/m);
  const below = () => lab.mounts().filter(({ target }) => target.startsWith(world.dir));
  assert.deepEqual(below(), []);
  const program = daemonIn(t, lab, config);
  await program.until(({ what }) => what === "delivered", "delivery");
  await program.until(isSafe, "that it may be pulled");
  const measured = async () => {
    const { code, out } = await run("ready", "--json", "--need", "200MB");
    const { places } = JSON.parse(out) as { places: { name: string; state: string; free?: number }[] };
    return { code, flir: places.find(({ name }) => name === "flir") };
  };
  for (const how of ["with a daemon", "without one"]) {
    const { code, flir } = await measured();
    assert.equal(code, 3, how);
    assert.equal(flir?.state, "not-ready", how);
    assert.ok((flir.free ?? 0) > 30e6 && (flir.free ?? 0) < 64 * 2 ** 20, `${how}: ${flir.free ?? 0}`);
    program.signal("SIGTERM");
    await program.exited;
  }
  assert.deepEqual(below(), [], "it is unmounted again");
});
