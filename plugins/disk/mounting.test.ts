/** With what a file system is mounted. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { optionsOf } from "./mounting.js";

test("no program on a disk is run, its files are this user's, its names are UTF-8", () => {
  const pi = { uid: 1000, gid: 1001 };
  const safe = "nosuid,nodev,noexec,noatime";
  assert.equal(optionsOf("ext4", true, pi), `ro,${safe}`);
  assert.equal(optionsOf("vfat", false, pi), `rw,${safe},uid=1000,gid=1001,umask=022,utf8=1,flush`);
  assert.equal(optionsOf("vfat", true, pi), `ro,${safe},uid=1000,gid=1001,umask=022,utf8=1`);
  for (const driver of ["exfat", "exfat-fuse", "ntfs3", "ntfs-3g"])
    assert.equal(optionsOf(driver, false, pi), `rw,${safe},uid=1000,gid=1001,umask=022`);
});
