/** The laboratory of removable disks itself: what the tests of the plugin `disk` may rely on. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { DiskLab } from "./lab.js";

test("ext4", async (t) => {
  const lab = await DiskLab.open();
  if (typeof lab === "string") {
    t.skip(lab);
    return;
  }
  t.after(() => lab.close());
  const card = await lab.make("card", { fs: "ext4", mib: 16, label: "CARD", files: { "a/b": "hello" } });
  const t0 = performance.now();
  await lab.plug(card);
  t.diagnostic(`plug ${performance.now() - t0}`);
  await lab.exec("mkdir", ["/run/m"]);
  await lab.exec("mount", [card.node ?? "", "/run/m"]);
  assert.equal(await lab.exec("cat", ["/run/m/a/b"]), "hello");
  console.log(await lab.exec("lsblk", ["-J", "-o", "NAME,FSTYPE,UUID,LABEL,MOUNTPOINT"]));
  await lab.pull(card);
  await assert.rejects(lab.exec("dd", ["if=/dev/zero", "of=/run/m/x", "conv=fsync", "count=1"]), /Input\/output error/);
  await lab.plug(card);
  console.log(
    lab.mounts().filter((x) => x.source.includes("loop")),
    await lab.content(card),
  );
});
