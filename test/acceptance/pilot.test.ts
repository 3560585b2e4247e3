/** Beside a pilot: a ground station comes while the daemon pulls a log; it gets the file session, and the pull is none the worse. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { startSim } from "../../sim/sim.js";
import { until } from "../conformance/clause.js";
import { Program, runProgram } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";

test("a ground station appears: its parameters load, status says why nothing moves, and the pull goes on at its byte", async (t) => {
  const world = new World(t);
  const log = new Random(5).bytes(6_000_000);
  world.file("vehicle/2026-05-02/09_10_57.ulg", log);
  mkdirSync(world.path("out"));
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir: world.path("vehicle"), link: "usb" });
  t.after(() => sim.close());
  const config = world.config({
    devices: { fc: { type: "mavftp", url: sim.clientUrl, root: "/", settle: "0s" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "fc", to: ["out"], into: "" }],
  });
  const daemon = new Program(["run", "--json", "--config", config]);
  t.after(() => daemon.kill());
  // More than three seconds after it came: who is heard before was there before.
  await until("the pull to be under way", () => sim.stats.payloadBytes > 2_500_000);
  const loaded = await sim.load();
  assert.deepEqual([loaded.whole, loaded.refusals, loaded.lost], [true, 0, 0]);
  const reason = "a ground station appeared: it is left alone for 20 s";
  const status = await runProgram(["status", "--json", "--config", config]);
  const { devices } = JSON.parse(status.out) as { devices: { name: string; presence: string; reason?: string }[] };
  const fc = devices.find(({ name }) => name === "fc");
  assert.deepEqual([fc?.presence, fc?.reason], ["detached", reason]);
  const served = sim.stats.payloadBytes;
  await daemon.until(({ what }) => what === "delivered", "delivered", 60_000);
  assert.ok(readFileSync(world.path("out/2026-05-02/09_10_57.ulg")).equals(log));
  const said = (what: string): string[] => daemon.events.filter((event) => event.what === what).map(({ message }) => message);
  assert.deepEqual(
    said("device").filter((message) => message.includes(reason)),
    [`fc: ${reason}`],
  );
  assert.match(said("resumed").find((message) => !message.includes("→")) ?? "", /^fc:.* goes on at byte [1-9]\d{5,} of 6000000$/);
  assert.deepEqual(
    daemon.events.filter(({ level }) => level === "error"),
    [],
  );
  assert.ok(sim.stats.payloadBytes - served < log.length - 2_000_000, "it did not begin anew");
});
