/** Each real server on a disk that is full: nothing is set aside for it, and it goes on when there is space. */
import assert from "node:assert/strict";
import { calm } from "./clause.js";
import { davDevice } from "./dav-harness.js";
import { apache, nginx } from "./dav-servers.js";
import { arrives, goOn, kindOf, nearlyFull } from "./nearly-full.js";
import { bytes, upload } from "./upload.js";

for (const kind of [apache, nginx])
  nearlyFull(
    kind,
    (server) => davDevice(server.url, { root: "/small" }),
    async (disk) => {
      const { target } = disk;
      const content = bytes(6_000_000);
      const it = upload("large.bin", content);
      const faults = [await kindOf(goOn(target, it)), await kindOf(goOn(target, it))];
      disk.note(faults.join(", "));
      for (const fault of faults) assert.ok(["full", "transient"].includes(fault), faults.join(", "));
      await disk.free();
      if (target.features.resume) assert.ok((await target.offset(it, calm())) > 0, "what came was not kept");
      await arrives(disk, it, content);
    },
  );
