/** `onEvent`: what a command gets, and that none of them costs the daemon anything. Real commands. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Events, type Event } from "./events.js";
import { Hooks, type HookLimits, type HookRule } from "./hooks.js";
import type { Ran, RunCommand } from "./program.js";

function made(rules: readonly HookRule[], limits: Partial<HookLimits> = {}) {
  const events = new Events();
  const said: Event[] = [];
  events.all$.subscribe((event) => said.push(event));
  return { events, said, hooks: new Hooks(events, rules, limits), about: () => said.filter(({ what }) => what.startsWith("hook-")) };
}

/** Commands that end when the test says so. */
function held() {
  const calls: { input: string; end: (ran?: Partial<Ran>) => void }[] = [];
  const run: RunCommand = (_command, _args, _ms, signal, how) =>
    new Promise((resolve) => {
      const end = (ran: Partial<Ran> = {}) => resolve({ code: 0, out: "", complaint: "", ...ran });
      calls.push({ input: how?.input ?? "", end });
      signal?.addEventListener("abort", () => end({ code: null }), { once: true });
    });
  return { calls, run };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("a command has the event on stdin and in its environment: a file is named as at its source", async (t) => {
  const script =
    'cat > "$0.json"; printf "%s|" "$FILESYNC_EVENT" "$FILESYNC_DEVICE" "$FILESYNC_PATH" "$FILESYNC_TO" "$FILESYNC_MESSAGE" > "$0.env"';
  const dir = mkdtempSync(join(tmpdir(), "filesync-hooks-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const { events, hooks, about } = made([{ event: ["delivered"], command: ["sh", "-c", script, join(dir, "out")] }]);
  events.say("info", "pulled", "is of no interest");
  const facts = { from: "cam", source: "a/$(touch x) `b`.jpg", to: "ground", path: "v/cam/b.jpg" };
  events.say("info", "delivered", "cam:… → ground: \0 done", facts);
  await hooks.close();
  assert.equal(readFileSync(join(dir, "out.env"), "utf8"), "delivered|cam|a/$(touch x) `b`.jpg|ground|cam:… → ground:  done|");
  const { time, ...rest } = JSON.parse(readFileSync(join(dir, "out.json"), "utf8")) as Event & { time: string };
  assert.ok(!Number.isNaN(Date.parse(time)));
  assert.deepEqual(rest, { level: "info", what: "delivered", message: "cam:… → ground: \0 done", facts });
  assert.deepEqual(about(), []);
});

test('"*" is what the log shows, not what is said for debugging; a name is that event at each level', async () => {
  const { calls, run } = held();
  const { events, hooks } = made(
    [
      { event: "*", command: ["all"] },
      { event: ["again"], command: ["one"] },
    ],
    { run },
  );
  events.say("debug", "again", "quiet");
  events.say("debug", "listed", "quiet");
  events.say("info", "found", "loud");
  await turn();
  assert.deepEqual(
    calls.map(({ input }) => (JSON.parse(input) as Event).message),
    ["quiet", "loud"],
  );
  for (const { end } of calls) end();
  await hooks.close();
});

test("so many at a time; the oldest of what waits go when it is too much, and that is said once until all have been run", async () => {
  const { calls, run } = held();
  const { events, hooks, about } = made([{ event: ["found"], command: ["x"] }], { run, atOnce: 2, mostWaiting: 3 });
  const names = () => calls.map(({ input }) => (JSON.parse(input) as Event).message);
  events.say("info", "found", "0");
  events.say("info", "found", "1");
  await turn();
  for (let i = 2; i < 10; i++) events.say("info", "found", String(i));
  await turn();
  assert.deepEqual(names(), ["0", "1"], "two run");
  assert.deepEqual(
    about().map(({ what }) => what),
    ["hook-dropped"],
  );
  for (let i = 0; i < calls.length; i++) {
    calls[i]?.end();
    await turn();
  }
  assert.deepEqual(names(), ["0", "1", "7", "8", "9"], "the newest stay, in their order");
  for (let i = 0; i < 10; i++) events.say("info", "found", "later");
  assert.equal(about().length, 2, "another time is said anew");
  hooks.use([]);
  while (calls.length < 8) {
    for (const { end } of calls) end();
    await turn();
  }
  for (const { end } of calls) end();
  await hooks.close();
});

test("a failure is said once, with what the command printed; other failures are said too, but not without end; none of it runs a hook", async () => {
  const { events, hooks, about } = made([{ event: "*", command: ["sh", "-c", 'echo "no \n LED $FILESYNC_MESSAGE" >&2; exit 3'] }], {
    atOnce: 1,
  });
  for (const message of ["1", "1", "1", "2", "3", "4", "5", "6", "7", "8"]) events.say("info", "found", message);
  await hooks.close();
  const said = about().map(({ message }) => message);
  assert.equal(said.length, 6);
  assert.equal(new Set(said).size, 6);
  assert.equal(said[0], '"onEvent": sh failed: no LED 1');
});

test("a program that is not there, or cannot be begun, is a line in the log", async () => {
  const { events, hooks, about } = made([
    { event: ["found"], command: ["/nowhere/x"] },
    { event: ["found"], command: ["echo", "x".repeat(3_000_000)] },
  ]);
  events.say("info", "found", "f");
  await hooks.close();
  assert.match(
    about()
      .map(({ message }) => message)
      .join("\n"),
    /\/nowhere\/x.*No such file/,
  );
  assert.match(
    about()
      .map(({ message }) => message)
      .join("\n"),
    /echo failed: .*E2BIG/,
  );
});

test("a command that reads nothing of a long event has not failed", async () => {
  const { events, hooks, about } = made([{ event: ["found"], command: ["sh", "-c", "exec <&-; exit 0"] }]);
  events.say("info", "found", "f", { long: "x".repeat(5_000_000) });
  await hooks.close();
  assert.deepEqual(about(), []);
});

/** Commands report to it by its port. */
async function listener(t: TestContext): Promise<{ server: Server; port: number }> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => void server.close());
  return { server, port: (server.address() as { port: number }).port };
}

/** It says that it runs, outlives TERM, and has begun another process that does. */
const stubborn = (port: number) => [
  process.execPath,
  "-e",
  `process.on("SIGTERM", () => {}); require("child_process").spawn("sh", ["-c", "trap '' TERM; sleep 1000"], { stdio: "inherit" });
   require("net").connect(${port}, "127.0.0.1", function () { this.write("up"); })`,
];

test("who outlives its time and TERM is killed with all that it began", async (t) => {
  const { port } = await listener(t);
  const { events, hooks, about } = made([{ event: ["found"], command: stubborn(port) }], { ms: 300, graceMs: 100 });
  events.say("info", "found", "f");
  await hooks.close();
  assert.match(about()[0]?.message ?? "", /did not end within 0.3 s/);
});

test("a process that left the group and holds the output open holds nothing here", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-hooks-"));
  t.after(() => {
    process.kill(Number(readFileSync(join(dir, "pid"), "utf8")));
    rmSync(dir, { recursive: true, force: true });
  });
  // It says who it is once whoever began it has ended.
  const stays = `while kill -0 $1; do sleep 0.01; done 2>/dev/null; echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 1000`;
  const command = ["sh", "-c", `setsid sh -c '${stays}' "$0" $$ &`, join(dir, "pid")];
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { events, hooks, about } = made([{ event: ["found"], command }], { ms: 300, graceMs: 100 });
  events.say("info", "found", "f");
  while (!existsSync(join(dir, "pid"))) await turn();
  for (const ms of [300, 100]) t.mock.timers.tick(ms);
  await hooks.close();
  assert.equal(about().length, 0, "it ended well itself");
});

test("a stop: what runs is ended soon, what waits is left out with a word, and nothing is taken any more", async (t) => {
  const { server, port } = await listener(t);
  const { events, hooks, about } = made([{ event: ["found"], command: stubborn(port) }], { atOnce: 1, hurryMs: 0 });
  events.say("info", "found", "1");
  events.say("info", "found", "2");
  events.say("info", "found", "3");
  const [socket] = (await once(server, "connection")) as [NodeJS.ReadableStream];
  const closed = once(socket.resume(), "close");
  hooks.hurry();
  await hooks.close();
  await closed;
  assert.match(about()[0]?.message ?? "", /2 commands are left out: the daemon stops/);
});
