/** The program as systemd starts it: what it says of itself, and that it does not give up where nobody would start it again. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { Program } from "../faults/process.js";
import { NotifySocket } from "../notify-socket.js";

let dir: string;
let socket: NotifySocket | string;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), "filesync-supervised-"));
  socket = await NotifySocket.open(join(dir, "notify"));
});
afterEach(async () => {
  await Program.killBelow(dir);
  if (typeof socket !== "string") await socket.close();
  rmSync(dir, { recursive: true });
});

function configured(text?: string): string {
  const path = join(dir, "config.json");
  mkdirSync(join(dir, "in"), { recursive: true });
  writeFileSync(
    path,
    text ??
      JSON.stringify({
        stateDir: "state",
        devices: { in: { type: "local", dir: "in" }, out: { type: "local", dir: "out" } },
        routes: [{ from: "in", to: ["out"] }],
      }),
  );
  return path;
}

function started(config: string): Program {
  const env = { ...process.env, WATCHDOG_USEC: "1500000", ...(typeof socket === "string" ? {} : { NOTIFY_SOCKET: socket.path }) };
  return new Program(["run", "--json", "--config", config], { env });
}

test("ready once it is, alive while it is, and stopping", async (t) => {
  if (typeof socket === "string") {
    t.skip(socket);
    return;
  }
  const program = started(configured());
  const [first, status] = await socket.until("READY=1");
  assert.equal(first, "READY=1");
  assert.match(status ?? "", /^STATUS=\S/);
  await socket.until("WATCHDOG=1");
  program.signal("SIGTERM");
  await socket.until("STOPPING=1");
  assert.equal(await program.exited, 0);
});

test("a configuration that cannot be used: its place is in the status, and it ends with 2", async (t) => {
  if (typeof socket === "string") {
    t.skip(socket);
    return;
  }
  const program = started(configured('{\n  "devices": {\n}'));
  assert.equal(await program.exited, 2);
  const [status] = await socket.until("STATUS=");
  assert.match(status ?? "", /config\.json:3/);
});

test("a configuration that is a link to a disk that is not mounted yet is waited for", async (t) => {
  if (typeof socket === "string") {
    t.skip(socket);
    return;
  }
  const there = configured();
  const link = join(dir, "link.json");
  symlinkSync(join(dir, "disk/config.json"), link);
  const program = started(link);
  const words = await socket.until("EXTEND_TIMEOUT_USEC=");
  assert.match(words.join(), /STATUS=\S*link\.json is a link to \S+, which is not there: mount or make that/);
  mkdirSync(join(dir, "disk"));
  renameSync(there, join(dir, "disk/config.json"));
  await socket.until("READY=1");
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
});

test("without a configuration: the status and the last line say what is missing, and what makes one", async (t) => {
  if (typeof socket === "string") {
    t.skip(socket);
    return;
  }
  const path = join(dir, "none.json");
  const program = started(path);
  assert.equal(await program.exited, 2);
  const missing = `there is no ${path}: "filesync init --config ${path}" makes one`;
  const [status] = await socket.until("STATUS=");
  assert.equal(status, `STATUS=${missing}`);
  assert.equal(program.stderr.trim().split("\n").at(-1), `filesync: ${missing}`);
});

test("a configuration that was to take another's place and has mistakes is in the status until one is taken", async (t) => {
  if (typeof socket === "string") {
    t.skip(socket);
    return;
  }
  const program = started(configured());
  await socket.until("READY=1");
  configured('{\n  "devics": {}\n}');
  program.signal("SIGHUP");
  await socket.until("STATUS=the configuration stays as it was: the new one has a mistake (line 2: devics: ");
  configured();
  const before = socket.told.length;
  program.signal("SIGHUP");
  await socket.until("STATUS=everything that was found is delivered", before);
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
});

test("a state directory that another has: it waits, says so, and begins when that ends", async (t) => {
  if (typeof socket === "string") {
    t.skip(socket);
    return;
  }
  const config = configured();
  const holder = new Program(["run", "--json", "--config", config]);
  await holder.until(({ what }) => what === "ready", "that the first is ready");
  const program = started(config);
  const told = await socket.until("EXTEND_TIMEOUT_USEC=");
  assert.match(told[1] ?? "", /^STATUS=.*state/);
  await program.until(({ what, message }) => what === "start" && message.includes("tried again in 10 s"), "that it says so");
  holder.signal("SIGTERM");
  assert.equal(await holder.exited, 0);
  await socket.until("READY=1");
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
});

test("stopped while it waits, it ends at once", async (t) => {
  if (typeof socket === "string") {
    t.skip(socket);
    return;
  }
  const config = configured();
  writeFileSync(join(dir, "state"), "");
  const program = started(config);
  await socket.until("EXTEND_TIMEOUT_USEC=");
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0);
});
