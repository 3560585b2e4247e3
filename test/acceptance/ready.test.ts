/** ready: whether the next flights have room, and what is in the way. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { Readiness } from "../../core/ready.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";

const local = (dir: string, more = {}) => ({ type: "local", dir, ...more });

/** One route from a card to the ground, with a file that was delivered; `more` of the configuration. */
function flown(t: TestContext, more: object = {}) {
  const world = new World(t);
  world.mkdir("ground");
  world.file("card/a.ulg", Buffer.alloc(300_000, 1));
  const config = world.config({
    spool: { keepFree: "1MiB", maxSize: "50MB" },
    devices: { card: local("card", { inPlace: false }), ground: local("ground") },
    routes: [{ from: "card", to: ["ground"] }],
    ...more,
  });
  return { world, config };
}

const asked = async (config: string, ...args: string[]) => {
  const { code, out, err } = await runProgram(["ready", "--config", config, ...args]);
  return { code, out, err };
};

test("with room everywhere it is ready; what is larger than the spool is not, with its line; by default 1 GiB at least", async (t) => {
  const { config } = flown(t);
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 0);
  const well = await asked(config, "--need", "20MB");
  assert.equal(well.code, 0, well.out + well.err);
  assert.match(
    well.out,
    /^ready {6}spool: 50 MB free, .*\nready {6}card: [\d.]+ [GT]B free\nready {6}ground: [\d.]+ [GT]B free\n\nready for 20 MB$/,
  );
  const full = await asked(config, "--need", "60MB");
  assert.equal(full.code, 3);
  assert.match(
    full.out,
    /^NOT READY {2}spool: 50 MB free, .* by "spool\.maxSize"; 60 MB are needed\n.*\n +# or: a larger "spool\.maxSize" /,
  );
  assert.match(full.out, /\nnot ready for 60 MB: 1 in the way$/);
  const usual = JSON.parse((await asked(config, "--json")).out) as Readiness;
  assert.equal(usual.need, 2 ** 30);
  assert.equal(usual.ready, false);
});

test("what is still on the card and what waits for the ground takes its room first, also where a daemon is asked", async (t) => {
  const { world, config } = flown(t, {
    devices: { card: local("card", { inPlace: false }), ground: local("away") },
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "pulled", "it is here");
  const of = async () => JSON.parse((await asked(config, "--json", "--need", "20MB")).out) as Readiness;
  const running = await of();
  const free = (said: Readiness, name: string) => said.places.find((place) => place.name === name);
  assert.equal(free(running, "spool")?.free, 50_000_000 - 300_000);
  assert.deepEqual(
    { ...free(running, "ground"), text: "" },
    { what: "target", name: "ground", state: "not-known", need: 20_300_000, text: "" },
  );
  assert.match(free(running, "ground")?.text ?? "", /^it cannot be asked: .*away does not exist; 300 kB that have to arrive wait for it$/);
  world.mkdir("away");
  await program.until(({ what }) => what === "delivered", "it arrived");
  assert.equal(free(await of(), "spool")?.free, 50_000_000, "what is delivered makes room");
});

test("a target that took no more for want of space is in the way, whatever it tells of its room", async (t) => {
  const world = new World(t);
  if (!world.mount("ground", 8)) {
    t.skip("no file system can be mounted here");
    return;
  }
  world.file("card/a.ulg", Buffer.alloc(30_000_000, 1));
  const config = world.config({
    spool: { keepFree: "1MiB", maxSize: "100MB" },
    devices: { card: local("card"), ground: local("ground") },
    routes: [{ from: "card", to: ["ground"] }],
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  await program.until(({ what, message }) => what === "again" && message.includes("ground"), "that it is full");
  const { code, out } = await asked(config, "--need", "1kB");
  assert.equal(code, 3);
  assert.match(out, /^NOT READY {2}ground: it took no more: /m);
});

test("what cannot tell its room is said to be not known; what has to arrive and is set aside is in the way, what need not is not", async (t) => {
  const { config } = flown(t, {
    devices: {
      card: local("card", { inPlace: false }),
      ground: local("ground"),
      server: { type: "ftp", host: "127.0.0.1", port: 1, user: "u", password: "p" },
    },
    routes: [{ from: "card", to: ["ground", "server"], into: "x".repeat(300) }],
  });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 3);
  const { code, out } = await asked(config, "--need", "1MB");
  assert.equal(code, 3);
  assert.match(
    out,
    /^NOT READY {2}deliveries: 1 that has to arrive is set aside\n {13}filesync status\n {13}filesync retry --all\nnot known {2}server: it cannot be asked: cannot log in to 127\.0\.0\.1:\d+: .*\n/,
  );
  const optional = flown(t, { routes: [{ from: "card", to: [{ device: "ground", required: false }], into: "x".repeat(300) }] });
  assert.equal((await runProgram(["run", "--once", "--config", optional.config])).code, 3);
  const beside = await asked(optional.config, "--need", "1MB");
  assert.equal(beside.code, 0, beside.out);
});

test("the ground's own FTP server tells what is free there; while it is away, what waits for it and fits is no reason against flying", async (t) => {
  const world = new World(t);
  if (!world.mount("served", 32)) {
    t.skip("no file system can be mounted here");
    return;
  }
  world.file("card/a.ulg", Buffer.alloc(8_000_000, 1));
  const ground = (listen: string) =>
    world.config(
      { stateDir: "ground-state", services: { ftp: { type: "ftp-server", listen, root: "served", users: { v: { password: "pass" } } } } },
      "ground.json",
    );
  const server = async (listen: string) => {
    const program = new Program(["run", "--json", "--config", ground(listen)]);
    t.after(() => program.kill());
    const { facts } = await program.until(({ message }) => message.includes("FTP server listens on"), "it listens");
    return { program, port: Number(facts?.["port"]) };
  };
  const first = await server("127.0.0.1:0");
  await first.program.kill();
  const config = world.config({
    spool: { keepFree: "1MiB", maxSize: "50MB" },
    devices: {
      card: local("card", { inPlace: false }),
      ground: { type: "ftp", host: "127.0.0.1", port: first.port, user: "v", password: "pass" },
    },
    routes: [{ from: "card", to: ["ground"] }],
  });
  const vehicle = new Program(["run", "--json", "--config", config]);
  t.after(() => vehicle.kill());
  await vehicle.until(({ what }) => what === "pulled", "it is here");
  await vehicle.until(({ what, facts }) => what === "detached" && facts?.["device"] === "ground", "the ground is away");
  const away = await asked(config, "--need", "40MB");
  assert.equal(away.code, 0, away.out);
  assert.match(away.out, /^not known {2}ground: it cannot be asked: .*; 8\.0 MB that have to arrive wait for it$/m);
  assert.match(away.out, /\nready for 40 MB, as far as is known; not known: ground$/);
  const more = await asked(config, "--need", "45MB");
  assert.equal(more.code, 3);
  assert.match(more.out, /^NOT READY {2}spool: 42 MB free, /m);
  await server(`127.0.0.1:${first.port}`);
  await vehicle.until(({ what }) => what === "delivered", "it arrived");
  const there = await asked(config, "--need", "10MB");
  assert.equal(there.code, 0, there.out);
  assert.match(there.out, /^ready {6}ground: [12]\d MB free$/m);
  const full = await asked(config, "--need", "30MB");
  assert.equal(full.code, 3);
  assert.match(full.out, /^NOT READY {2}ground: [12]\d MB free; 30 MB are needed$/m);
});

test("a PX4 tells what is free on its card, with a daemon and without; one that is armed, or an ArduPilot, is not known", async (t) => {
  const world = new World(t);
  world.mkdir("ground");
  const vehicle = async (...args: string[]) => {
    const sim = new Program(["sim", "--listen", "tcpin://127.0.0.1:0", "--dir", world.mkdir("card"), "--link", "none", ...args]);
    t.after(() => sim.kill());
    const { message } = await sim.until((said) => said.message.startsWith("listening on"), "the autopilot");
    return { sim, device: { type: "mavftp", url: message.replace("listening on tcpin", "tcpout"), root: "/" } };
  };
  const px4 = await vehicle("--card-free", "3GB");
  const ardupilot = await vehicle("--autopilot", "ardupilot-4.7");
  const config = world.config({
    devices: { px4: px4.device, ardupilot: ardupilot.device, ground: local("ground") },
    routes: ["px4", "ardupilot"].map((from) => ({ from, to: ["ground"] })),
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  for (const name of ["px4", "ardupilot"])
    await program.until(({ what, facts }) => what === "attached" && facts?.["device"] === name, `${name} is attached`);
  const well = await asked(config, "--need", "2GB");
  assert.match(well.out, /^ready {6}px4: 3\.0 GB free$/m);
  assert.match(well.out, /^not known {2}ardupilot: it does not tell how much is free$/m);
  const full = await asked(config, "--need", "4GB");
  assert.equal(full.code, 3);
  assert.match(full.out, /^NOT READY {2}px4: 3\.0 GB free; 4\.0 GB are needed$/m);
  px4.sim.signal("SIGUSR1");
  await program.until(({ what, facts }) => what === "detached" && facts?.["device"] === "px4", "it is armed");
  assert.match((await asked(config, "--need", "4GB")).out, /^not known {2}px4: it cannot be asked: the vehicle is armed$/m);
  px4.sim.signal("SIGUSR1");
  await px4.sim.until(({ message }) => message === "disarmed", "it is disarmed");
  program.signal("SIGTERM");
  await program.exited;
  assert.match((await asked(config, "--need", "4GB")).out, /^NOT READY {2}px4: 3\.0 GB free; 4\.0 GB are needed$/m);
});

test("a need that is no size, and a machine where nothing ran yet, are said", async (t) => {
  const { config } = flown(t);
  const wrong = await asked(config, "--need", "lots");
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /^filesync: --need lots: expected a size such as "4GiB"/);
  const never = await asked(config);
  assert.equal(never.code, 2);
  assert.match(never.err, /no FileSync runs with .*, and none ever did; start it with "filesync run"/);
});
