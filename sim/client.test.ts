/** The client of this project reads every byte from every flavour, over a wire and without, lists every file, and proves what it got. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { listAll, makeLogs, makeRig, never, readAll } from "../plugins/mavftp/harness.test.js";
import { autopilots } from "./autopilots.js";

for (const { name } of autopilots)
  for (const link of ["none", "usb", "uart:921600"])
    test(`${name} over ${link}: bytes, listing, checksum`, async (t) => {
      const size = link === "none" ? 1_000_003 : 60_007;
      const { dir, content } = makeLogs(t, { "logs/00000001.BIN": size, "logs/00000002.BIN": 0, "logs/00000003.BIN": 956, "a.txt": 5 });
      const rig = await makeRig(t, { dir, autopilot: name, link });
      const entries = await listAll(rig.source);
      assert.deepEqual(
        entries.map((entry) => [entry.path, entry.size]),
        [...content].map(([path, bytes]) => [path, bytes.length]).sort(),
      );
      for (const entry of entries)
        assert.ok((await readAll(rig.source, entry)).equals(content.get(entry.path) ?? Buffer.alloc(0)), entry.path);
      const first = entries.find((entry) => entry.size === size);
      assert.ok(first !== undefined);
      assert.ok(
        (await readAll(rig.source, first, 50_001)).equals((content.get(first.path) ?? Buffer.alloc(0)).subarray(50_001)),
        "a resume",
      );
      assert.match((await rig.source.digest?.(first, "crc32-mavlink", never)) ?? "", /^crc32-mavlink:[0-9a-f]{8}$/);
      assert.equal(rig.sim.openSessions(), 0);
    });
