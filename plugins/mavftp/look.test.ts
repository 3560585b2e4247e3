/** Who answers at an address, before there is any configuration. */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { context } from "../../test/conformance/upload.js";
import { startSim, type SimOptions } from "../../sim/sim.js";
import { parseAddress } from "./address.js";
import { makeDir } from "./harness.test.js";
import { lookAt } from "./look.js";

async function seen(t: TestContext, options: Partial<SimOptions>, logs: string) {
  const dir = makeDir(t);
  mkdirSync(join(dir, logs), { recursive: true });
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir, ...options });
  t.after(() => sim.close());
  const address = parseAddress(sim.clientUrl);
  assert.ok(address !== undefined);
  return lookAt(address, context(), 10_000);
}

test("a PX4 and an ArduPilot say what they are, and where their logs are", async (t) => {
  assert.deepEqual(await seen(t, {}, "fs/microsd/log"), { autopilot: "PX4", armed: false, logs: "/fs/microsd/log" });
  assert.deepEqual(await seen(t, { autopilot: "ardupilot-4.6" }, "APM/LOGS"), { autopilot: "ArduPilot", armed: false, logs: "/APM/LOGS" });
});

test("an armed one is heard, and asked nothing", async (t) => {
  assert.deepEqual(await seen(t, { armed: true }, "fs/microsd/log"), { autopilot: "PX4", armed: true, why: "the vehicle is armed" });
});

test("where there are no logs, that is why", async (t) => {
  const { why, logs } = (await seen(t, {}, "elsewhere")) as { why?: string; logs?: string };
  assert.equal(logs, undefined);
  assert.match(why ?? "", /log/);
});

test("nobody there: the port could not be opened, or nothing came", async (t) => {
  const dir = makeDir(t);
  const gone = await lookAt({ kind: "serial", path: join(dir, "ttyNONE"), baud: 57_600 }, context(), 300);
  assert.equal("opened" in gone && gone.opened, false);
  assert.match("reason" in gone ? gone.reason : "", /ttyNONE is missing/);
  const silent = await lookAt({ kind: "udpin", host: "127.0.0.1", port: 0 }, context(), 300);
  assert.equal("opened" in silent && silent.opened, true);
});
