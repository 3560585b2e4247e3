import assert from "node:assert/strict";
import { test } from "node:test";
import type { Block } from "./blocks.js";
import { askerIn, type Facts, placeRefused, refusalFor, requestIn, sourcesIn, useOf } from "./helper-rules.js";

const stick: Block = {
  ...{ path: "/dev/sda1", device: "8:1", type: "part", fsType: "vfat", uuid: "5C3D-DD9E", partUuid: "0ab1-01", label: "FLIR" },
  ...{ bytes: 1e9, readOnly: false, removable: true, divided: false },
};
const idle: Facts = { uses: [], fstab: [], own: () => false, fixed: [] };
const on = (device: string, disk: string, dir?: string) => ({ device, disks: [disk], ...(dir === undefined ? {} : { dir }) });

test("a disk that the system runs from is never mounted, whatever of it is asked for", () => {
  const asked = { device: "8:1", disks: ["8:0"] };
  const use = (more: Partial<Facts>) => useOf(asked, "/dev/sda1", { ...idle, ...more });
  assert.equal(use({ uses: [on("8:2", "8:16", "/")] }), undefined);
  assert.match(use({ uses: [on("8:1", "8:0", "/mnt/x")] }) ?? "", /mounted already, at \/mnt\/x/);
  assert.match(use({ uses: [on("8:1", "8:0")] }) ?? "", /is swap space/);
  assert.match(use({ uses: [on("8:2", "8:0", "/boot")] }) ?? "", /runs from \(\/boot\)/);
  assert.match(use({ uses: [on("8:2", "8:0")] }) ?? "", /runs from \(swap\)/);
  // A volume over two disks.
  assert.match(use({ uses: [{ device: "253:0", disks: ["8:16", "8:0"], dir: "/" }] }) ?? "", /runs from/);
  // The other partition is a medium too.
  assert.equal(use({ uses: [on("8:2", "8:0", "/media/pi/OTHER")] }), undefined);
  assert.match(use({ uses: [on("8:2", "8:0", "/srv/other")] }) ?? "", /runs from/);
  assert.equal(use({ uses: [on("8:2", "8:0", "/srv/other")], own: (dir) => dir === "/srv/other" }), undefined);
  assert.match(use({ fstab: ["8:1"] }) ?? "", /in \/etc\/fstab/);
});

test("what fstab names is mounted by fstab, however it names it", () => {
  const text =
    "# a comment\n\nproc /proc proc defaults 0 0\n  LABEL=MY\\040CARD /mnt/card auto noauto 0 0\nUUID=5c3d-dd9e /mnt/flir vfat nofail\n";
  assert.deepEqual(sourcesIn(text), ["proc", "LABEL=MY CARD", "UUID=5c3d-dd9e"]);
  for (const fstab of [["UUID=5c3d-dd9e"], ['UUID="5C3DDD9E"'], ["LABEL=FLIR"], ["PARTUUID=0AB1-01"]])
    assert.match(refusalFor(stick, { ...idle, fstab }) ?? "", /\/dev\/sda1 is in \/etc\/fstab/);
  assert.equal(refusalFor(stick, { ...idle, fstab: ["UUID=0000-0000", "LABEL=flir", "proc"] }), undefined);
});

test("a fixed disk is mounted only where the administrator names it; no file system but the usual ones", () => {
  const fixed = { ...stick, removable: false };
  assert.equal(refusalFor(stick, idle), undefined);
  assert.match(refusalFor(fixed, idle) ?? "", /put its UUID \(5C3D-DD9E\) into FILESYNC_MOUNT_FIXED/);
  assert.match(refusalFor(fixed, { ...idle, fixed: ["0000-0000"] }) ?? "", /is on a fixed disk/);
  assert.equal(refusalFor(fixed, { ...idle, fixed: ["5c3ddd9e"] }), undefined);
  const { uuid: _uuid, ...nameless } = fixed;
  assert.match(refusalFor(nameless, { ...idle, fixed: ["5C3D-DD9E"] }) ?? "", /is on a fixed disk/);
  assert.match(refusalFor({ ...stick, fsType: "nfs" }, idle) ?? "", /not mounted for a service: nfs/);
  assert.match(refusalFor({ ...stick, fsType: "crypto_LUKS" }, idle) ?? "", /encrypted/);
});

test("who asked is the last part of an instance's name, of all versions of systemd", () => {
  assert.equal(askerIn("7-1234-998"), 998);
  assert.equal(askerIn("7-99-1234_5678-998"), 998);
  assert.equal(askerIn("7-1234-0"), 0);
  for (const none of ["", "7-unknown", "998", "7-1234--1", "7-1234-998 ", "x-998"]) assert.equal(askerIn(none), undefined, none);
});

test("a request has just the fields of one, and plain absolute paths", () => {
  const good = { do: "mount", device: "/dev/sda1", readOnly: true };
  assert.deepEqual(requestIn(JSON.stringify(good)), good);
  assert.deepEqual(requestIn(JSON.stringify({ ...good, mountPoint: "/mnt/Bilder 1" })), { ...good, mountPoint: "/mnt/Bilder 1" });
  for (const device of ["/", "/dev/", "/dev//sda1", "/dev/./sda1", "/dev/..", "dev/sda1", "/dev/a\nb", "/dev/a\u0000", "-o", 1, null])
    assert.equal(requestIn(JSON.stringify({ ...good, device })), undefined, String(device));
  for (const more of [{ mountPoint: "" }, { mountPoint: "mnt" }, { options: "suid" }, { readOnly: 1 }, { do: "umount" }])
    assert.equal(requestIn(JSON.stringify({ ...good, ...more })), undefined, JSON.stringify(more));
});

test("a mount point is below the places for such", () => {
  for (const dir of ["/mnt/a", "/media/pi/b", "/srv/c"]) assert.equal(placeRefused(dir), undefined);
  for (const dir of [
    "/mnt",
    "/mntx/a",
    "/etc",
    "/usr/bin",
    "/boot/a",
    "/root/a",
    "/home/pi/a",
    "/run/filesync",
    "/run/filesync/disks",
    "/var/lib/a",
  ])
    assert.match(placeRefused(dir) ?? "", /cannot be a mount point for a service/, dir);
});
