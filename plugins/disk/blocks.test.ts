/** Which disks are meant, from what lsblk and the kernel say. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { blocksIn, matches, readBlocks, refusalOf, stayOf, type Block } from "./blocks.js";

const row = (path: string, more: Record<string, unknown> = {}) => ({
  ...{ path, kname: path.slice(5), pkname: null, "maj:min": "8:0", type: "disk", fstype: null, uuid: null, partuuid: null, label: null },
  ...{ size: 1000, ro: false, rm: false, hotplug: false, serial: null, mountpoint: null },
  ...more,
});
const listing = (...rows: object[]) => JSON.stringify({ blockdevices: rows });

/** A Raspberry Pi: its own card, a stick with two partitions, a card in a reader without partitions, an SSD that holds /srv. */
const pi = listing(
  row("/dev/mmcblk0", { hotplug: true }),
  row("/dev/mmcblk0p1", { pkname: "mmcblk0", type: "part", fstype: "vfat", uuid: "AAAA-0001", mountpoint: "/boot/firmware" }),
  row("/dev/mmcblk0p2", { pkname: "mmcblk0", type: "part", fstype: "ext4", uuid: "root", mountpoint: "/" }),
  row("/dev/sda", { rm: true, hotplug: true, serial: "STICK1" }),
  row("/dev/sda1", { pkname: "sda", type: "part", fstype: "vfat", uuid: "5C3D-DD9E", label: "PHOTOS", mountpoint: "/media/pi/PHOTOS" }),
  row("/dev/sda2", { pkname: "sda", type: "part", fstype: "exfat", uuid: "1234-5678", ro: "1", size: "42" }),
  row("/dev/sdb", { rm: 1, hotplug: true, fstype: "exfat", uuid: "9999-0000", label: "EOS_DIGITAL" }),
  row("/dev/sdc", { hotplug: true }),
  row("/dev/sdc1", { pkname: "sdc", type: "part", fstype: "ext4", uuid: "ssd", mountpoint: "/srv" }),
  row("/dev/sr0", { rm: true, type: "rom", fstype: "iso9660", uuid: "cd" }),
);

const below = (own: string) => (dir: string) => dir.startsWith(`${own}/`);

test("where udev does not run, lsblk names disks and nothing that is on them: that is said, and not that none is there", async () => {
  const read = (out: string, udev: string) =>
    readBlocks(() => Promise.resolve({ code: 0, out, complaint: "" }), below("/x"), udev).then(({ length }) => length);
  const blind = listing(row("/dev/vda"), row("/dev/sda", { rm: true }));
  await assert.rejects(read(blind, "/nowhere/udev"), /what is on the disks: udev, .* does not run here/);
  assert.deepEqual([await read(blind, "/"), await read(pi, "/nowhere/udev"), await read(listing(), "/nowhere/udev")], [2, 10, 0]);
});

test("any: every file system that can be taken out, and none that the system runs from", () => {
  const any = blocksIn(pi, below("/var/lib/filesync/devices/cards/mnt")).filter((block) => matches(block, { any: true }));
  assert.deepEqual(
    any.map(({ path }) => path),
    ["/dev/sda1", "/dev/sda2", "/dev/sdb"],
  );
  assert.deepEqual(
    any.map(({ serial, readOnly, bytes }) => [serial, readOnly, bytes]),
    [
      ["STICK1", false, 1000],
      ["STICK1", true, 42],
      [undefined, false, 1000],
    ],
  );
});

test("any: a disk that this program mounted itself is none of the system's", () => {
  const own = "/var/lib/filesync/devices/cards/mnt";
  const text = listing(row("/dev/sdb", { rm: true, fstype: "exfat", uuid: "9999-0000", mountpoint: `${own}/9999-0000-8.16` }));
  assert.equal(blocksIn(text, below(own))[0]?.removable, true);
  assert.equal(blocksIn(text, below("/elsewhere"))[0]?.removable, false);
});

test("any: what is below an overlay that is the root, or is bound to a second place, is the system's", () => {
  const any = (more: Record<string, unknown>) =>
    blocksIn(listing(row("/dev/sda", { hotplug: true }), row("/dev/sda1", { pkname: "sda", fstype: "ext4", ...more })), below("/x")).filter(
      (block) => matches(block, { any: true }),
    ).length;
  assert.equal(any({ mountpoint: "/media/root-ro" }), 0);
  assert.equal(any({ mountpoint: "/media/root-rw" }), 0);
  assert.equal(any({ mountpoint: "/mnt/inbox", mountpoints: ["/mnt/inbox", "/srv"] }), 0);
  assert.equal(any({ mountpoint: "/media/root-roses", mountpoints: ["/media/root-roses", null] }), 1);
});

test("each mount of a disk is asked of lsblk, where it can tell them", async () => {
  const at = (old: boolean) =>
    readBlocks(
      (_, args) =>
        Promise.resolve(
          old && args.at(-1)?.includes("MOUNTPOINTS") === true
            ? { code: 1, out: "", complaint: "lsblk: unknown column: MOUNTPOINTS" }
            : { code: 0, out: pi, complaint: "" },
        ),
      below("/x"),
    ).then(({ length }) => length);
  assert.deepEqual([await at(false), await at(true)], [10, 10]);
});

test("uuid with or without the dash, in either case; label exactly; also a disk that cannot be taken out", () => {
  const named = (wanted: Parameters<typeof matches>[1]) =>
    blocksIn(pi, below("/x"))
      .filter((block) => matches(block, wanted))
      .map(({ path }) => path);
  assert.deepEqual(named({ uuid: "5c3ddd9e" }), ["/dev/sda1"]);
  assert.deepEqual(named({ uuid: "5C3D-DD9E" }), ["/dev/sda1"]);
  assert.deepEqual(named({ uuid: "SSD" }), ["/dev/sdc1"]);
  assert.deepEqual(named({ label: "EOS_DIGITAL" }), ["/dev/sdb"]);
  assert.deepEqual(named({ label: "eos_digital" }), []);
  assert.deepEqual(named({ uuid: "" }), []);
});

test("what can be no medium says why, and what to do", () => {
  const block = (fsType?: string): Block => ({
    ...{ path: "/dev/sda1", device: "8:1", type: "part", bytes: 1, readOnly: false, removable: true, divided: false },
    ...(fsType === undefined ? {} : { fsType }),
  });
  assert.match(refusalOf(block()) ?? "", /\/dev\/sda1 has no file system that is known here.*lsblk -f/);
  assert.match(refusalOf(block("crypto_LUKS")) ?? "", /encrypted \(LUKS\): unlock it/);
  assert.match(refusalOf(block("BitLocker")) ?? "", /BitLocker/);
  assert.match(refusalOf(block("LVM2_member")) ?? "", /LVM/);
  for (const known of ["vfat", "exfat", "ext4", "ntfs", "f2fs"]) assert.equal(refusalOf(block(known)), undefined);
});

test("a node that is not there, or is none of a disk, is no stay", () => {
  assert.equal(stayOf({ path: "/dev/nonexistent", device: "8:1" }, "/sys"), undefined);
  assert.equal(stayOf({ path: "/dev/null", device: "1:3" }, "/sys"), undefined);
});

for (const divided of [false, true])
  test(
    `another card${divided ? " with partitions" : ""} in the same reader, under the same name and number, is another stay`,
    { skip: process.getuid?.() !== 0 && "a device node takes root" },
    (t) => {
      const dir = mkdtempSync(join(tmpdir(), "filesync-stay-"));
      t.after(() => rmSync(dir, { recursive: true }));
      const path = join(dir, "sdz1");
      execFileSync("mknod", [path, "b", "8", "401"]);
      const sys = join(dir, "sys");
      const disk = join(sys, "devices/usb1/block/sdz");
      const at = join(sys, "dev/block/8:401");
      mkdirSync(join(disk, "sdz1"), { recursive: true });
      writeFileSync(join(disk, "sdz1/dev"), "8:401\n");
      mkdirSync(dirname(at), { recursive: true });
      symlinkSync(relative(dirname(at), divided ? join(disk, "sdz1") : disk), at);
      const stay = (diskseq: string) => {
        writeFileSync(join(disk, "diskseq"), diskseq);
        return stayOf({ path, device: "8:401" }, sys);
      };
      const first = stay("7\n");
      assert.equal(stay("7\n"), first);
      assert.notEqual(stay("8\n"), first);
      assert.equal(stayOf({ path, device: "8:402" }, sys), undefined, "the name is another's by now");
    },
  );
