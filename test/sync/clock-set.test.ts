/** The clock of a server is set while it is attached (it has no battery, and hears of the time later): what is written there is known as just written all the same. */
import assert from "node:assert/strict";
import { chownSync, existsSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { until } from "../conformance/clause.js";
import { Program } from "../faults/process.js";
import { shared, statusOf } from "./shared.js";

/** When it attaches its clock is an hour behind; it is right whenever it is asked again. */
async function behind(t: TestContext, settle: string) {
  const both = await shared(t);
  both.put("here", "a", "a");
  const own = new URL("../../core/sync/own-dir.js", import.meta.url).href;
  both.world.file(
    "behind.mjs",
    `import { OwnDir } from ${JSON.stringify(own)};
    const shownMs = OwnDir.prototype.shownMs;
    let behindMs = 3_600_000;
    OwnDir.prototype.shownMs = async function (signal) {
      const shown = (await shownMs.call(this, signal)) - behindMs;
      behindMs = 0;
      return shown;
    };`,
  );
  const config = both.config({ mode: "two-way" }, {}, { settle });
  const env = { ...process.env, NODE_OPTIONS: `--import ${both.world.path("behind.mjs")}` };
  const program = new Program(["run", "--json", "--config", config], { env });
  t.after(() => program.kill());
  await program.until(({ what }) => what === "synced", "it is brought");
  await until("they are even", async () => (await statusOf(config)).syncs[0]?.state === "even" && both.isEven(), 30_000);
  const { uid, gid } = statSync(both.nas);
  const path = join(both.nas, "log.bin");
  /** As the server does it, with whole seconds. */
  const write = (content: Buffer, seconds = Math.floor(Date.now() / 1000)) => {
    writeFileSync(path, content);
    chownSync(path, uid, gid);
    utimesSync(path, seconds, seconds);
  };
  return { both, write, come: join(both.box, "log.bin") };
}

test("a file that is being written at a server whose clock was set since waits until it is complete", async (t) => {
  const { write, come } = await behind(t, "4s");
  let early = false;
  // Of a fixed size, as recorders make theirs, filled bit by bit.
  for (let n = 1; n <= 24; n++) {
    write(Buffer.concat([Buffer.alloc(n * 1000, n), Buffer.alloc((24 - n) * 1000)]));
    early ||= existsSync(come);
    await sleep(250);
  }
  assert.equal(early, false, "it was brought while it was written");
  await until("it comes", () => existsSync(come), 30_000);
});

test("what is written once more in the same second, with the same size, at a server whose clock was set since comes", async (t) => {
  const { both, write, come } = await behind(t, "0s");
  const second = Math.floor(Date.now() / 1000);
  write(Buffer.from("first"), second);
  await until("it comes", () => existsSync(come), 30_000);
  write(Buffer.from("other"), second);
  await until("what was written last comes", () => both.tree("here")["log.bin"] === "other", 20_000);
});
