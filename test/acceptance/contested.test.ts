/** Two vehicles from one SD image mirror into one directory of a server. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Program } from "../faults/process.js";
import { World } from "../faults/world.js";

test("two mirrors into one directory undo one another: each says so, once", async (t) => {
  const world = new World(t);
  world.mkdir("nas");
  const vehicles = [1, 2].map((n) => {
    world.file(`box${n}/log1.bin`, `of vehicle ${n}`, n);
    world.file(`box${n}/own${n}.bin`, "", n);
    const devices = { box: { type: "local", dir: `box${n}`, settle: "0s" }, nas: { type: "local", dir: "nas", interval: "1s" } };
    const routes = [{ mode: "mirror", from: "box", to: ["nas"], into: "" }];
    const config = world.config({ stateDir: `state${n}`, vehicle: `plane-${n}`, devices, routes }, `c${n}.json`);
    return new Program(["run", "--json", "--config", config]);
  });
  t.after(() => Promise.all(vehicles.map((program) => program.kill())));
  for (const program of vehicles) {
    const said = await program.until(({ what }) => what === "sync-trouble", "a word about the other");
    assert.match(said.message, /log1\.bin: others changed it at nas again and again, .* another mirror, give each a directory of its own/);
  }
  const troubles = vehicles.flatMap(({ events }) => events.filter(({ what }) => what === "sync-trouble").map(({ message }) => message));
  assert.equal(troubles.length, 2, troubles.join("\n"));
});
