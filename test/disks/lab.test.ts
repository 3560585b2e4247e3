/** The laboratory of removable disks itself: what the tests of the plugin `disk` may rely on. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, fsyncSync, openSync, readdirSync, readFileSync, readlinkSync, writeSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { DiskLab, type Disk } from "./lab.js";
import { labFor } from "./scene.js";

const mib = 1 << 20;
const mounted = ["ext4", "vfat", "exfat"] as const;
const uuids = { ext4: "0b1e0000-1111-4222-8333-444455556666", vfat: "5C3D-DD9E", exfat: "5C3D-DD9E" };

/** How a read, a write or a sync fails on a disk that has gone or is bad: fusefat has a word of its own for it. */
const broken = { ext4: "EIO", vfat: "EPERM", exfat: "EIO" };

/** Bytes of which no two sectors are alike. */
function bytes(count: number): Buffer {
  const all = Buffer.alloc(count);
  for (let at = 0; at + 4 <= count; at += 4) all.writeUInt32LE(Math.imul(at, 2_654_435_761) >>> 0, at);
  return all;
}

async function plugged(t: TestContext, lab: DiskLab, disk: Disk, options = {}): Promise<string> {
  const start = performance.now();
  await lab.plug(disk, options);
  t.diagnostic(`${disk.fs}: plugged after ${(performance.now() - start).toFixed(0)} ms`);
  return disk.node ?? "";
}

async function mount(lab: DiskLab, disk: Disk, options = "rw"): Promise<string> {
  const dir = `/run/media/${disk.name}`;
  await lab.exec("mkdir", ["-p", dir]);
  await lab.exec("mount", ["-t", disk.fs, "-o", options, disk.node ?? "", dir]);
  return dir;
}

const link = (lab: DiskLab, disk: Disk, by = "uuid"): string | undefined => {
  const path = lab.path(`/dev/disk/by-${by}/${(by === "uuid" ? disk.uuid : disk.label) ?? ""}`);
  return existsSync(path) ? readlinkSync(path).replace("../../", "/dev/") : undefined;
};

interface Listed {
  readonly name: string;
  readonly fstype: string | null;
  readonly uuid: string | null;
  readonly label: string | null;
  readonly ro: boolean;
}
const lsblk = async (lab: DiskLab): Promise<Listed[]> =>
  (
    JSON.parse((await lab.exec("lsblk", ["-J", "-l", "-o", "NAME,FSTYPE,UUID,LABEL,RO"])) || '{"blockdevices":[]}') as {
      blockdevices: Listed[];
    }
  ).blockdevices;

/** Runs JavaScript inside; `said` waits until it has printed a line, `rest` until it has ended. */
function script(lab: DiskLab, text: string): { said(line: string): Promise<void>; go(): void; rest: Promise<string> } {
  const child = lab.run(process.execPath, ["-e", `const fs = require("node:fs");${text}`]);
  let output = "";
  const waiting = new Set<() => void>();
  child.stdout?.setEncoding("utf8").on("data", (more: string) => {
    output += more;
    for (const look of waiting) look();
  });
  child.stderr?.pipe(process.stderr);
  const rest = once(child, "close").then(() => output);
  const said = (line: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (output.includes(line)) resolve();
      };
      waiting.add(look);
      look();
      void rest.then(() => {
        reject(new Error(`ended without "${line}": ${output}`));
      });
    });
  return { said, go: () => child.stdin?.end("go"), rest };
}

for (const fs of mounted)
  test(`${fs}: plugged, mounted, read, written and pulled`, async (t) => {
    const lab = await labFor(t);
    if (!lab) return;
    const photo = bytes(3 * mib + 5);
    const disk = await lab.make("card", { fs, mib: 40, uuid: uuids[fs], label: "CARD", files: { "DCIM/100MEDIA/DJI_0001.JPG": photo } });
    assert.equal(disk.uuid, uuids[fs]);
    assert.equal(link(lab, disk), undefined);
    const node = await plugged(t, lab, disk);
    assert.equal(link(lab, disk), node);
    assert.equal(link(lab, disk, "label"), node);
    assert.deepEqual(await lsblk(lab), [{ name: node.slice(5), fstype: fs, uuid: uuids[fs], label: "CARD", ro: false }]);

    const dir = await mount(lab, disk, "rw,nosuid,nodev,noexec");
    const line = lab.mounts().find(({ target }) => target === dir);
    assert.equal(line?.source, node);
    for (const option of ["rw", "nosuid", "nodev", "noexec"]) assert.ok(line.options.includes(option), option);
    assert.deepEqual(readFileSync(lab.path(`${dir}/DCIM/100MEDIA/DJI_0001.JPG`)), photo);
    await lab.exec("mkdir", [`${dir}/new`]);
    await lab.exec("dd", [`if=${dir}/DCIM/100MEDIA/DJI_0001.JPG`, `of=${dir}/new/copy.jpg`, "bs=64k", "conv=fsync"]);
    await lab.exec("mv", [`${dir}/DCIM/100MEDIA/DJI_0001.JPG`, `${dir}/new/moved.jpg`]);
    await lab.exec("umount", [dir]);
    await lab.pull(disk);
    assert.equal(link(lab, disk), undefined);
    assert.equal(link(lab, disk, "label"), undefined);
    assert.equal(existsSync(lab.path(node)), false);
    const content = await lab.content(disk);
    assert.deepEqual([...content.keys()], ["new/copy.jpg", "new/moved.jpg"]);
    for (const copy of content.values()) assert.ok(copy.equals(photo));
    await assert.rejects(async () => {
      await plugged(t, lab, disk);
      await mount(lab, disk, "rw,nonsense");
    }, /bad option/);
  });

for (const fs of mounted)
  test(`${fs}: pulled in the middle of a read and of a write`, async (t) => {
    const lab = await labFor(t);
    if (!lab) return;
    const log = bytes(16 * mib);
    const disk = await lab.make("stick", { fs, mib: 48, files: { "log.bin": log } });
    const node = await plugged(t, lab, disk);
    const dir = await mount(lab, disk);
    const reader = script(
      lab,
      `const f = fs.openSync("${dir}/log.bin"), b = Buffer.alloc(65536);
       fs.readSync(f, b); console.log("reading"); fs.readFileSync(0);
       try { while (fs.readSync(f, b) > 0); console.log("whole"); } catch (e) { console.log(e.code, e.syscall); }`,
    );
    const writer = script(
      lab,
      // Round and round in 2 MiB: however late the pull comes, the disk is not full.
      `const f = fs.openSync("${dir}/sent.bin", "w"), b = Buffer.alloc(65536, "s");
       let synced = 0;
       try { for (;;) { fs.writeSync(f, b, 0, b.length, (synced % 32) * b.length); fs.fsyncSync(f); synced++; if (synced === 4) console.log("writing"); } }
       catch (e) { console.log(e.code, synced); }`,
    );
    await Promise.all([reader.said("reading"), writer.said("writing")]);
    const start = performance.now();
    await lab.pull(disk);
    reader.go();
    assert.equal(await reader.rest, `reading\n${broken[fs]} read\n`);
    const written = await writer.rest;
    // A file system that has seen its disk fail may have made itself read-only before the next write.
    const [, synced] = new RegExp(`^writing\\n(?:${broken[fs]}|EROFS) (\\d+)\n$`).exec(written) ?? [];
    t.diagnostic(`${fs}: both failed ${(performance.now() - start).toFixed(0)} ms after the pull began; ${written.trim()} × 64 KiB synced`);
    assert.ok(Number(synced) >= 4, written);
    assert.equal(link(lab, disk), undefined);
    assert.deepEqual(await lsblk(lab), []);
    assert.ok(
      lab.mounts().some(({ target }) => target === dir),
      "the dead mount stays",
    );

    assert.notEqual(await plugged(t, lab, disk), node);
    assert.equal(link(lab, disk), disk.node);
    const content = await lab.content(disk);
    assert.ok(content.get("log.bin")?.equals(log));
    const sent = content.get("sent.bin");
    const whole = 65536 * Math.min(Number(synced), 32);
    // fusefat has no fsync.
    if (fs !== "vfat") assert.ok(sent?.subarray(0, whole).equals(Buffer.alloc(whole, "s")), "what was synced is there");
    await lab.exec("umount", [dir]);
    await mount(lab, disk);
    assert.deepEqual(readFileSync(lab.path(`${dir}/log.bin`)), log);
  });

test("a bad sector fails, and only that", async (t) => {
  const lab = await labFor(t);
  if (!lab) return;
  const log = bytes(8 * mib);
  for (const fs of mounted) {
    const disk = await lab.make(`bad-${fs}`, { fs, mib: 40, files: { "log.bin": log, "other.bin": "whole" } });
    const at = lab.where(disk, log.subarray(4 * mib, 4 * mib + 4096));
    const node = await plugged(t, lab, disk, { badSectors: [{ offset: at, count: 1 }] });
    const read = (sector: number): Promise<string> =>
      lab.exec("dd", [`if=${node}`, "of=/dev/null", "bs=4k", "count=1", "iflag=direct", `skip=${String(sector)}`]);
    const bad = Math.floor(at / 4096);
    await read(bad - 1);
    await assert.rejects(read(bad), /Input\/output error/);
    await read(bad + 1);
    const dir = await mount(lab, disk, "ro");
    assert.equal(readFileSync(lab.path(`${dir}/other.bin`), "utf8"), "whole");
    assert.throws(() => readFileSync(lab.path(`${dir}/log.bin`)), { code: broken[fs] });
    await lab.exec("dd", [`if=${dir}/log.bin`, "of=/dev/null", "bs=1M", "count=2"]);
    await lab.exec("umount", [dir]);
    await lab.pull(disk);
  }
});

test("what is written here and there at once arrives", async (t) => {
  const lab = await labFor(t);
  if (!lab) return;
  const disk = await lab.make("scattered", { fs: "none", mib: 16 });
  const node = await plugged(t, lab, disk);
  const pattern = bytes(16 * mib);
  const wanted = Buffer.alloc(16 * mib);
  const file = openSync(lab.path(node), "r+");
  for (let at = 0; at < wanted.length; at += 3072) {
    pattern.copy(wanted, at, at, at + 1024);
    writeSync(file, pattern, at, Math.min(1024, wanted.length - at), at);
  }
  fsyncSync(file);
  closeSync(file);
  await lab.pull(disk);
  assert.ok(readFileSync(disk.image).equals(wanted));
});

test("the write-protect switch", async (t) => {
  const lab = await labFor(t);
  if (!lab) return;
  const disk = await lab.make("locked", { fs: "ext4", mib: 16 });
  const node = await plugged(t, lab, disk, { readOnly: true });
  assert.equal((await lsblk(lab))[0]?.ro, true);
  await assert.rejects(lab.exec("dd", ["if=/dev/zero", `of=${node}`, "count=1", "conv=fsync"]), /not permitted|Read-only/);
});

test("two disks with one uuid", async (t) => {
  const lab = await labFor(t);
  if (!lab) return;
  const disks = [];
  for (const name of ["one", "two"]) disks.push(await lab.make(name, { fs: "exfat", mib: 16, uuid: "ABCD-0001", files: { [name]: name } }));
  const [one, two] = disks as [Disk, Disk];
  await Promise.all([plugged(t, lab, one), plugged(t, lab, two)]);
  const nodes = [one.node, two.node];
  assert.ok(nodes.includes(link(lab, one)));
  assert.deepEqual(
    (await lsblk(lab)).map(({ name, uuid }) => [`/dev/${name}`, uuid]).sort(),
    nodes.map((node) => [node, "ABCD-0001"]).sort(),
  );
  const left = link(lab, one) === one.node ? two : one;
  await lab.pull(left === one ? two : one);
  assert.equal(link(lab, one), left.node, "the link goes over to the other");
});

for (const fs of ["ext4", "vfat"] as const)
  test(`a disk with a partition table, ${fs}`, async (t) => {
    const lab = await labFor(t);
    if (!lab) return;
    const disk = await lab.make("parted", { fs, mib: 36, label: "PARTED", partition: true, files: { a: "in the partition" } });
    const node = await plugged(t, lab, disk);
    assert.match(node, /^\/dev\/loop\d+p1$/);
    assert.equal(link(lab, disk), node);
    await lab.exec("sh", ["-c", `exec 4<>${node.replace(/p1$/, "")}`]);
    await lab.exec("udevadm", ["control", "--ping"]);
    await lab.exec("udevadm", ["settle"]);
    await lab.exec("blkid", ["-p", node]); // who closes the whole disk does not take its partitions away
    const dir = await mount(lab, disk);
    assert.equal(readFileSync(lab.path(`${dir}/a`), "utf8"), "in the partition");
    await lab.pull(disk);
    assert.equal(link(lab, disk), undefined);
    assert.deepEqual(await lsblk(lab), []);
    await plugged(t, lab, disk);
    assert.equal(link(lab, disk), disk.node);
    assert.equal((await lab.content(disk)).get("a")?.toString(), "in the partition");
  });

test("a disk without a file system", async (t) => {
  const lab = await labFor(t);
  if (!lab) return;
  const disk = await lab.make("blank", { fs: "none", mib: 4 });
  const node = await plugged(t, lab, disk);
  assert.deepEqual(await lsblk(lab), [{ name: node.slice(5), fstype: null, uuid: null, label: null, ro: false }]);
});

test("a process inside: its user, directory, network, signals and end", async (t) => {
  const lab = await labFor(t);
  if (!lab) return;
  assert.equal(
    await lab.exec("sh", ["-c", "id -u; id -g; pwd; echo $SAID"], { uid: 65534, cwd: "/usr", env: { SAID: "so" } }),
    "65534\n65534\n/usr\nso\n",
  );
  const outside = readlinkSync("/proc/self/ns/net");
  assert.notEqual((await lab.exec("readlink", ["/proc/self/ns/net"])).trim(), outside);
  assert.equal((await lab.exec("readlink", ["/proc/self/ns/net"], { network: "host" })).trim(), outside);
  const server = script(
    lab,
    `require("node:net").createServer().listen(0, "127.0.0.1", () => { console.log("listening"); process.exit(); })`,
  );
  assert.equal(await server.rest, "listening\n");
  await assert.rejects(lab.exec("ls", ["/nowhere"]), /No such file/);
  const sleeper = lab.run("sleep", ["1000"]);
  await once(sleeper, "spawn");
  sleeper.kill("SIGTERM");
  assert.deepEqual(await once(sleeper, "close"), [null, "SIGTERM"]);
});

/** What is left on the machine of the laboratory whose directory this is. */
function left(dir: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name)))
    try {
      if (readFileSync(`/proc/${pid}/root/run/filesync-disks`, "utf8") === `${dir}\n`)
        found.push(readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " "));
    } catch (error) {
      // It is not inside, has ended, is a zombie, or not ours to look at.
      if (!["ENOENT", "ESRCH", "EACCES"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    }
  for (const loop of readdirSync("/sys/devices/virtual/block")) {
    const backing = `/sys/devices/virtual/block/${loop}/loop/backing_file`;
    if (existsSync(backing) && readFileSync(backing, "utf8").includes(dir)) found.push(loop);
  }
  if (readFileSync("/proc/mounts", "utf8").includes(dir)) found.push("a mount");
  if (existsSync(dir)) found.push(dir);
  return found;
}

/** A process of its own with a disk mounted, another pulled under its mount, and a daemon's child inside; it prints what `left` needs. */
const busy = `
  const { DiskLab } = await import(${JSON.stringify(fileURLToPath(new URL("lab.js", import.meta.url)))});
  const lab = await DiskLab.open();
  for (const fs of ["ext4", "exfat"]) {
    const disk = await lab.make(fs, { fs, mib: 16 });
    await lab.plug(disk);
    await lab.exec("mkdir", ["/run/" + fs]);
    await lab.exec("mount", [disk.node, "/run/" + fs]);
    lab.run("sh", ["-c", "exec >/run/" + fs + "/open; (trap '' TERM HUP; sleep 1000; sleep 1000) & wait"]);
    if (fs === "ext4") await lab.pull(disk);
  }
  const [dir] = (await lab.make("last", { fs: "none", mib: 1 })).image.split("/last.img");
  const [, , warden] = lab.path("").split("/");
  console.log(JSON.stringify({ dir, warden }));
`;

for (const way of ["closes", "is killed", "and its warden are killed, and another opens"])
  test(`nothing is left when the test ${way}`, async (t) => {
    if (!(await labFor(t))) return;
    const end = way === "closes" ? "await lab.close(); await lab.close(); process.exit();" : "setInterval(() => {}, 1000);";
    const child = spawn(process.execPath, ["--input-type=module", "-e", busy + end], { stdio: ["ignore", "pipe", "inherit"] });
    t.after(() => child.kill("SIGKILL"));
    const closed = once(child, "close");
    const [line] = (await once(child.stdout, "data")) as [Buffer];
    const { dir, warden } = JSON.parse(line.toString()) as { dir: string; warden: string };
    if (way !== "closes") {
      assert.ok(left(dir).length > 5, "what is to go was there");
      if (way !== "is killed") process.kill(Number(warden), "SIGKILL");
      // The warden is nobody's child by then: tail waits for it.
      const gone = spawn("tail", [`--pid=${warden}`, "-s", "0.05", "-f", "/dev/null"]);
      child.kill("SIGKILL");
      await once(gone, "close");
    }
    if (way.endsWith("opens")) await labFor(t);
    await closed;
    assert.deepEqual(left(dir), []);
  });
