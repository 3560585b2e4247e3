/** `onEvent` as docs/signals.md shows it (its own scripts and configurations), and metrics, by the real program. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { parse } from "jsonc-parser";
import { freePort } from "../conformance/ftp-servers.js";
import { Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { readMetrics } from "../prometheus.js";

const docs = readFileSync(join(fileURLToPath(new URL("../../..", import.meta.url)), "docs/signals.md"), "utf8");

/** The code of the page's example that begins with this bold word; `from` → `to` in all of it. */
function example(title: string, replaced: Readonly<Record<string, string>>): { script: string; onEvent: unknown } {
  const [, part = ""] = new RegExp(`\\*\\*${title}\\.\\*\\*(.*?)(?=\\n\\*\\*|\\n###)`, "s").exec(docs) ?? [];
  assert.notEqual(part, "", `docs/signals.md has an example "${title}"`);
  let text = part;
  for (const [from, to] of Object.entries(replaced)) {
    assert.ok(text.includes(from), `the example "${title}" has ${from}`);
    text = text.replaceAll(from, to);
  }
  const block = (kind: string) => new RegExp(`\`\`\`${kind}\\n(.*?)\`\`\``, "s").exec(text)?.[1] ?? "";
  return { script: block("sh"), onEvent: (parse(`{${block("jsonc")}}`) as { onEvent: unknown }).onEvent };
}

function script(world: World, name: string, text: string): void {
  writeFileSync(world.path(name), text);
  chmodSync(world.path(name), 0o755);
}

/** One file that goes from `in` to `out`. */
function sample(world: World, onEvent: unknown): string {
  world.file("in/a b.ulg", "content");
  world.mkdir("out");
  return world.config({
    onEvent,
    devices: { in: { type: "local", dir: "in" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "in", to: ["out"] }],
  });
}

const drained = (config: string, env: NodeJS.ProcessEnv = process.env) =>
  runProgram(["run", "--once", "--json", "--config", config], { env });

test("a LED shows that all has arrived", async (t) => {
  const world = new World(t);
  world.mkdir("leds/ACT");
  const { script: text, onEvent } = example("A LED", { "/sys/class/leds": world.path("leds"), "/usr/local/bin": world.dir });
  script(world, "filesync-led", text.replaceAll("/sys/class/leds", world.path("leds")));
  const { code, out } = await drained(
    sample(
      world,
      (onEvent as { event: string[] }[]).filter(({ event }) => event[0] !== "ready"),
    ),
  );
  assert.equal(code, 0, out);
  assert.equal(readFileSync(world.path("leds/ACT/brightness"), "utf8"), "1\n");
  assert.equal(readFileSync(world.path("leds/ACT/trigger"), "utf8"), "none\n");
  assert.doesNotMatch(out, /hook-/);
});

test("a mail is sent", async (t) => {
  const world = new World(t);
  world.mkdir("bin");
  script(
    world,
    "bin/sendmail",
    `#!/bin/sh\necho "args: $*" > ${world.dir}/mail.new\ncat >> ${world.dir}/mail.new\nmv ${world.dir}/mail.new ${world.dir}/mail\n`,
  );
  const { script: text, onEvent } = example("Mail", { "/usr/local/bin": world.dir });
  script(world, "filesync-mail", text);
  // The same command for what a test can have soon.
  const config = sample(
    world,
    (onEvent as object[]).map((rule) => ({ ...rule, event: ["delivered"] })),
  );
  const { code, out } = await drained(config, { ...process.env, PATH: `${world.path("bin")}:${process.env.PATH}` });
  assert.equal(code, 0, out);
  const mail = readFileSync(world.path("mail"), "utf8");
  assert.match(
    mail,
    /^args: -t\nTo: operator@example\.org\nSubject: FileSync: delivered a b\.ulg\nContent-Type: [^\n]+\n\nin:a b\.ulg → out:v\/in\/a b\.ulg \(7 bytes/,
  );
});

test("MQTT: each event is a message", async (t) => {
  const missing = ["mosquitto", "mosquitto_pub", "mosquitto_sub"].filter((name) => spawnSync(name, ["-h"]).error !== undefined);
  if (missing.length > 0) {
    t.skip(`${missing.join(", ")} not installed (packages mosquitto, mosquitto-clients)`);
    return;
  }
  const world = new World(t);
  const port = await freePort();
  const broker = spawn("mosquitto", ["-p", String(port)], { stdio: "ignore" });
  t.after(() => broker.kill());
  await reachable(port);
  // Into a pipe it would keep what it says until there is more.
  const listening = spawn("stdbuf", ["-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", String(port), "-t", "filesync/#", "-v", "-d"]);
  t.after(() => listening.kill());
  let heard = "";
  const until = (what: RegExp) =>
    new Promise<void>((resolve) => {
      const look = () => what.test(heard) && resolve();
      listening.stdout.on("data", (chunk) => {
        heard += String(chunk);
        look();
      });
      look();
    });
  await until(/SUBACK/);
  const { onEvent } = example("MQTT", { "10.10.10.1": "127.0.0.1", '"1883"': `"${port}"` });
  const { code, out } = await drained(sample(world, onEvent));
  assert.equal(code, 0, out);
  await until(/filesync\/plane-1 \{.*"what":"delivered"/);
});

async function reachable(port: number): Promise<void> {
  for (;;) {
    const socket = connect(port, "127.0.0.1");
    const there = await Promise.race([once(socket, "connect").then(() => true), once(socket, "error").then(() => false)]).catch(
      () => false,
    );
    socket.destroy();
    if (there) return;
  }
}

/** A command that says that it runs, and ends only when it is killed. */
async function stubborn(t: TestContext): Promise<{ command: string[]; began: Promise<unknown>; ended: Promise<unknown>[] }> {
  const ended: Promise<unknown>[] = [];
  // One that is killed may reset its connection.
  const server = createServer((socket) =>
    ended.push(
      once(
        socket.resume().on("error", () => undefined),
        "close",
      ),
    ),
  ).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => void server.close());
  const { port } = server.address() as { port: number };
  const text = `process.on("SIGTERM", () => {}); require("net").connect(${port}, "127.0.0.1").on("error", () => {}); setInterval(() => {}, 1000)`;
  return { command: [process.execPath, "-e", text], began: once(server, "connection"), ended };
}

test("commands that never end hold no file back, and end with the daemon, which stops well", async (t) => {
  const world = new World(t);
  const { command, began, ended } = await stubborn(t);
  const program = new Program(["run", "--json", "--config", sample(world, [{ event: "*", command }])]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "delivered", "the delivery");
  await began;
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0, "after 5 s it would be 1");
  assert.ok(program.events.some(({ what, message }) => what === "hook-failed" && message.includes("the daemon stops")));
  // None is left: each connection ends with who made it.
  await Promise.all(ended);
});

test("a mistake is told with its place and the nearest name; SIGHUP brings other commands", async (t) => {
  const world = new World(t);
  const wrong = sample(world, [
    { event: ["deliverd"], command: ["x"] },
    { event: "found", command: [] },
    { events: "*", command: ["a=b"] },
  ]);
  const { code, out } = await runProgram(["check", "--config", wrong]);
  assert.equal(code, 2);
  assert.match(out, /onEvent\[0\]\.event\[0\].*got "deliverd"; did you mean "delivered"\?/);
  assert.match(out, /onEvent\[1\]\.event.*"\*", or a list of names of events/);
  assert.match(out, /onEvent\[1\]\.command.*a command/);
  assert.match(out, /onEvent\[2\]\.events.*did you mean "event"/);
  assert.match(out, /onEvent\[2\]\.command.*no "="/);

  const program = new Program(["run", "--json", "--config", sample(world, [])]);
  t.after(() => program.kill());
  await program.until(({ what }) => what === "delivered", "the delivery");
  script(world, "hook.sh", `#!/bin/sh\ncat > "${world.dir}/said"\n`);
  sample(world, [{ event: ["stopped"], command: ["./hook.sh"] }]);
  program.signal("SIGHUP");
  await program.until(({ what }) => what === "reload", "the reload");
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
  assert.ok(existsSync(world.path("said")), "also the last event runs its command");
});

test("metrics and health of the real program, before and after a delivery", async (t) => {
  const world = new World(t);
  world.mkdir("in");
  world.mkdir("out");
  const config = world.config({
    devices: { in: { type: "local", dir: "in", interval: "1s" }, out: { type: "local", dir: "out" } },
    routes: [{ from: "in", to: ["out"] }],
    services: { metrics: { type: "metrics", listen: "127.0.0.1:0" } },
  });
  const program = new Program(["run", "--json", "--config", config]);
  t.after(() => program.kill());
  const { facts } = await program.until(({ message }) => message.includes("metrics at http://"), "its port");
  const at = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${String(facts?.port)}${path}`);
    return { code: response.status, text: await response.text() };
  };
  await program.until(({ what }) => what === "ready", "that it is ready");
  const before = readMetrics((await at("/metrics")).text);
  assert.equal(before.get("filesync_deliveries")?.samples.get('state="delivered"'), 0);
  assert.equal(before.get("filesync_last_delivery_timestamp_seconds")?.samples.size, 0);
  assert.equal(before.get("filesync_device_attached")?.samples.get('device="metrics",type="metrics"'), 1);
  world.file("in/a.ulg", Buffer.alloc(1_000_000, 1));
  await program.until(({ what }) => what === "delivered", "the delivery");
  // The figures may be a second old.
  for (;;) {
    const after = readMetrics((await at("/metrics")).text);
    const of = (name: string, labels = "") => after.get(name)?.samples.get(labels);
    if (of("filesync_deliveries", 'state="delivered"') !== 1) continue;
    assert.equal(of("filesync_files_bytes", 'place="delivered"'), 1_000_000);
    assert.equal(of("filesync_pushed_bytes_total"), 1_000_000);
    assert.ok((of("filesync_journal_bytes") ?? 0) > 0);
    assert.ok((of("filesync_spool_free_bytes") ?? 0) > 0);
    assert.ok((of("filesync_last_delivery_timestamp_seconds") ?? 0) > 1.6e9);
    break;
  }
  const health = await at("/health");
  assert.equal(health.code, 200);
  assert.match(health.text, /"ready":true,"summary":"everything that was found is delivered/);
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
});
