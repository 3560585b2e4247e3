/** `tellPilot`: what a simulated autopilot is told by the real program. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test, type TestContext } from "node:test";
import { startSim, type Sim, type Told } from "../../sim/sim.js";
import { Program } from "../faults/process.js";
import { World } from "../faults/world.js";

interface Scene {
  readonly sim: Sim;
  readonly texts: Told[];
  readonly program: Program;
  readonly told: (text: RegExp) => Promise<Told>;
}

async function scene(t: TestContext, out: (world: World) => object, options: object = {}, more: { one?: boolean } = {}): Promise<Scene> {
  const world = new World(t);
  world.file("card/log/a.ulg", Buffer.alloc(20_000, 1));
  if (more.one !== true) world.file("card/log/b.ulg", Buffer.alloc(10_000, 2), 60);
  world.mkdir("out");
  const texts: Told[] = [];
  const watchers = new Set<() => void>();
  const onText = (told: Told) => {
    texts.push(told);
    for (const look of watchers) look();
  };
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir: world.path("card"), onText });
  t.after(() => sim.close());
  const config = world.config({
    devices: { fc: { type: "mavftp", url: sim.clientUrl, root: "/log", settle: 0, ...options }, out: out(world) },
    routes: [{ from: "fc", to: ["out"], since: "2020-01-01" }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  const told = (text: RegExp) =>
    new Promise<Told>((resolve) => {
      const look = () => {
        const found = texts.find((one) => text.test(one.text));
        if (found !== undefined) resolve(found);
      };
      watchers.add(look);
      look();
    });
  return { sim, texts, program, told };
}

const local = () => ({ type: "local", dir: "out" });

test("once all logs are there the pilot is told so, once, in the vehicle's system", async (t) => {
  const { program, texts, told } = await scene(t, local, { tellPilot: true });
  const { severity, systemId, componentId } = await told(/^FileSync: flight log safe on ground$/);
  assert.deepEqual([severity, systemId, componentId], [6, 1, 191]);
  const toldMs = Date.now();
  // What it says comes by another way than what the autopilot is told: it has the time at which it was said.
  const delivered = () => program.events.filter(({ what }) => what === "delivered");
  await program.until(() => delivered().length === 2, "both deliveries");
  for (const { time } of delivered()) assert.ok(Date.parse(time ?? "") <= toldMs, "not before the last");
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
  assert.equal(texts.length, 1);
});

test("a log that is set aside is told with its reason, and none is safe", async (t) => {
  const server = createServer((request, response) => request.resume().on("end", () => response.writeHead(422).end("no such form"))).listen(
    0,
    "127.0.0.1",
  );
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as { port: number };
  const { program, texts, told } = await scene(t, () => ({ type: "post", url: `http://127.0.0.1:${port}/`, file: "f" }), {
    tellPilot: true,
  });
  const { severity } = await told(/^FileSync: log stays on vehicle: /);
  assert.equal(severity, 4);
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
  assert.ok(!texts.some(({ text }) => text.includes("safe")), texts.map(({ text }) => text).join("\n"));
});

test("nothing is told unless it is asked for", async (t) => {
  const { program, texts } = await scene(t, local);
  await program.until(({ what, facts }) => what === "delivered" && facts?.source === "a.ulg", "a");
  await program.until(({ what, facts }) => what === "delivered" && facts?.source === "b.ulg", "b");
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
  assert.deepEqual(texts, []);
});

test("while the vehicle is armed nothing is told; it is once it is disarmed", async (t) => {
  const held: (() => void)[] = [];
  let asked: () => void = () => undefined;
  const first = new Promise<void>((resolve) => (asked = resolve));
  const server = createServer((request, response) =>
    request.resume().on("end", () => {
      held.push(() => response.writeHead(200).end("taken"));
      asked();
    }),
  ).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as { port: number };
  const out = () => ({ type: "post", url: `http://127.0.0.1:${port}/`, file: "f" });
  const { sim, program, texts, told } = await scene(t, out, { tellPilot: true }, { one: true });
  await first;
  sim.setArmed(true);
  await program.until(({ what, message }) => what === "detached" && message.includes("armed"), "that it is armed");
  for (const answer of held) answer();
  await program.until(({ what }) => what === "delivered", "the delivery");
  // Heartbeats at which it could be told: the simulator has one a second.
  for (let beats = sim.stats.framesOut + 8; sim.stats.framesOut < beats;) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(texts, []);
  sim.setArmed(false);
  await told(/safe on ground/);
});
