/** The mount table, and with what a file system is mounted. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { optionsOf } from "./mounting.js";
import { mountsIn } from "./mounts.js";

test("a line of mountinfo, with and without optional fields, blanks in names, read-only by either word", () => {
  const text = [
    "36 35 8:1 / /mnt rw,noatime master:1 shared:2 - ext4 /dev/sda1 rw,errors=continue",
    "37 35 8:17 / /media/pi/MY\\040CARD ro,nosuid - vfat /dev/sdb1 ro",
    "38 35 0:45 / /mnt/exfat rw - fuseblk /dev/sdc1 ro,user_id=0",
    "39 35 8:1 /sub /srv/bound rw - ext4 /dev/sda1 rw",
    "",
  ].join("\n");
  assert.deepEqual(mountsIn(text), [
    { device: "8:1", root: "/", dir: "/mnt", type: "ext4", from: "/dev/sda1", readOnly: false, options: ["rw", "noatime"] },
    { device: "8:17", root: "/", dir: "/media/pi/MY CARD", type: "vfat", from: "/dev/sdb1", readOnly: true, options: ["ro", "nosuid"] },
    { device: "0:45", root: "/", dir: "/mnt/exfat", type: "fuseblk", from: "/dev/sdc1", readOnly: true, options: ["rw"] },
    { device: "8:1", root: "/sub", dir: "/srv/bound", type: "ext4", from: "/dev/sda1", readOnly: false, options: ["rw"] },
  ]);
});

test("no program on a disk is run, its files are this user's, its names are UTF-8", () => {
  const pi = { uid: 1000, gid: 1001 };
  const safe = "nosuid,nodev,noexec,noatime";
  assert.equal(optionsOf("ext4", true, pi), `ro,${safe}`);
  assert.equal(optionsOf("vfat", false, pi), `rw,${safe},uid=1000,gid=1001,umask=022,utf8=1,flush`);
  assert.equal(optionsOf("vfat", true, pi), `ro,${safe},uid=1000,gid=1001,umask=022,utf8=1`);
  for (const driver of ["exfat", "exfat-fuse", "ntfs3", "ntfs-3g"])
    assert.equal(optionsOf(driver, false, pi), `rw,${safe},uid=1000,gid=1001,umask=022`);
});
