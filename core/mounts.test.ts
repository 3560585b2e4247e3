/** The mount table, and what is one directory by it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { mountsIn, unbound } from "./mounts.js";

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

test("a directory that is mounted at another place too has one name: where most of its file system is seen", () => {
  const table = [
    "22 1 8:2 / / rw - ext4 /dev/sda2 rw",
    "23 22 0:5 / /proc rw - proc proc rw",
    "24 22 8:2 /srv/nas /mnt/again rw - ext4 /dev/sda2 rw",
    "25 22 8:17 / /media/card rw - vfat /dev/sdb1 rw",
    "26 22 8:17 /DCIM /mnt/photos rw - vfat /dev/sdb1 rw",
    "27 22 8:17 / /mnt/card rw - vfat /dev/sdb1 rw",
    "28 22 0:40 /@home /home rw - btrfs /dev/sdc1 rw",
    "29 22 0:6 / /mnt/covered rw - tmpfs a rw",
    "30 29 8:2 /srv /mnt/covered rw - ext4 /dev/sda2 rw",
    "31 22 8:33 / /media/usb rw - vfat /dev/sdd1 rw",
    "32 31 8:49 / /media/usb rw - vfat /dev/sde1 rw",
    "33 22 8:33 / /media/under rw - vfat /dev/sdd1 rw",
  ].join("\n");
  const name = (path: string) => unbound(mountsIn(table), path);
  for (const [path, known] of [
    ["/srv/nas/in", "/srv/nas/in"],
    ["/mnt/again", "/srv/nas"],
    ["/mnt/again/in", "/srv/nas/in"],
    ["/mnt/again2", "/mnt/again2"],
    ["/mnt/photos/100", "/media/card/DCIM/100"],
    ["/mnt/card", "/media/card"],
    ["/home/pi", "/home/pi"],
    ["/mnt/covered/nas", "/srv/nas"],
    ["/media/under/100", "/media/under/100"],
    ["/media/usb/100", "/media/usb/100"],
    ["/", "/"],
  ] as const)
    assert.equal(name(path), known);
  assert.equal(unbound([], "/srv"), "/srv");
});
