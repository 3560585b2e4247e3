/** The directory of a server is another one in the middle of a round: its disk was unmounted, and comes back later. */
import assert from "node:assert/strict";
import { chmodSync, chownSync, mkdirSync, renameSync, statSync } from "node:fs";
import { test } from "node:test";
import { until } from "../conformance/clause.js";
import { Program } from "../faults/process.js";
import { World } from "../faults/world.js";
import { openssh } from "./servers.js";
import { once, Shared, statusOf } from "./shared.js";

for (const cut of [false, true])
  test(`what came into the mount point of a server's disk that went in the middle of a round${cut ? ", with the link," : ""} is not removed here when that disk is back`, async (t) => {
    const served = await openssh.start();
    t.after(() => served.stop());
    const both = new Shared(new World(t), served);
    for (let n = 1; n <= 400; n++) both.put("here", `old${n}`, `old ${n}`);
    const config = both.config({ mode: "two-way", maxRate: "1500KiB/s" }, {}, { concurrency: 1 });
    await once(config);
    for (let n = 100; n <= 249; n++) both.put("here", `new${n}`, String(n).repeat(20_000));
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    const news = (side: "here" | "there") => Object.keys(both.tree(side)).filter((path) => path.startsWith("new"));
    await until("some have come", () => news("there").length >= 60, 60_000);
    const { uid, gid } = statSync(both.nas);
    const disk = `${both.nas}.disk`;
    if (cut) await served.server.unplug?.();
    renameSync(both.nas, disk);
    mkdirSync(both.nas);
    chownSync(both.nas, uid, gid);
    chmodSync(both.nas, 0o777);
    if (cut) await served.server.replug?.();
    await until("it stops", async () => (await statusOf(config)).syncs[0]?.state === "stopped", 60_000);
    assert.equal(news("here").length, 150);
    renameSync(both.nas, `${both.nas}.point`);
    renameSync(disk, both.nas);
    await until("it goes on", async () => (await statusOf(config)).syncs[0]?.state === "even" && both.isEven(), 60_000);
    assert.deepEqual(Object.keys(both.trash("here")), [], "nothing was removed here");
    assert.equal(news("here").length, 150);
  });
