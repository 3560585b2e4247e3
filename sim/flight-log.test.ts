/** The log that the vehicle writes: when it grows, which file that is, and how each autopilot shows it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Op } from "../mavlink/ftp.js";
import { autopilotNamed } from "./autopilots.js";
import { madeBytes } from "./disk-file.js";
import { FlightLog, newestLog, type LogOptions } from "./flight-log.js";
import { makeServer, open, pattern, says, type Server } from "./harness.test.js";

const wallMs = (): number => Date.UTC(2026, 4, 2);

function startLog(server: Server, flavour: string, options: LogOptions, armed: boolean): FlightLog {
  const log = new FlightLog(server.disk, autopilotNamed(flavour), options, armed, wallMs);
  log.start((ms, run) => void server.clock.after(ms, run));
  return log;
}

function sizes(server: Server, dir: string): string[] {
  const entries = server.ask(Op.ListDirectory, { session: 9, data: dir }).data.toString().split("\0");
  return entries.filter((entry) => entry.startsWith("F")).map((entry) => entry.slice(1).replace("\t", " "));
}

const ardupilot = { "APM/LOGS/00000041.BIN": 500, "APM/LOGS/00000042.BIN": 300, "APM/LOGS/LASTLOG.TXT": 2 };

test("LOG_DISARMED: the newest log grows whether armed or not, in steps of a second, and what is open grows with it", (t) => {
  const server = makeServer(t, "ardupilot-4.6", { files: ardupilot });
  const log = startLog(server, "ardupilot-4.6", { bytesPerSecond: 200, armed: false, rotates: false }, false);
  assert.deepEqual([log.logging, log.path], [true, "/APM/LOGS/00000042.BIN"]);
  server.clock.advance(900);
  assert.deepEqual(sizes(server, "/APM/LOGS")[1], "00000042.BIN 300");
  server.clock.advance(200);
  assert.deepEqual(sizes(server, "/APM/LOGS"), ["00000041.BIN 500", "00000042.BIN 500", "LASTLOG.TXT 2"]);
  const session = open(server, log.path);
  server.clock.advance(1000);
  const all = Buffer.concat([0, 239, 478].map((offset) => server.ask(Op.ReadFile, { session, offset, size: 239 }).data));
  assert.ok(all.equals(Buffer.concat([pattern(300), madeBytes(300, 400)])), "700 bytes, though 500 when it was opened");
});

test("PX4 gives the size, and the bytes, of the moment of opening", (t) => {
  const server = makeServer(t, "px4", { files: { "log/2026-05-02/09_10_57.ulg": 300 } });
  const log = startLog(server, "px4", { bytesPerSecond: 200, armed: false, rotates: false }, false);
  server.clock.advance(1000);
  const session = open(server, log.path);
  server.clock.advance(3000);
  assert.equal(server.ask(Op.ReadFile, { session, offset: 400, size: 239 }).data.length, 100);
  assert.equal(says(server.ask(Op.ReadFile, { session, offset: 500, size: 239 })), "NAK 6");
});

test("each arming begins a log, empty at first; a disarm ends it", (t) => {
  for (const [flavour, files, next] of [
    ["ardupilot-4.7", ardupilot, "/APM/LOGS/00000043.BIN"],
    ["px4", { "fs/microsd/log/2026-05-02/09_10_57.ulg": 300 }, "/fs/microsd/log/2026-05-02/09_10_58.ulg"],
    ["px4-1.18", { "sess003/log009.ulg": 300 }, "/sess003/log010.ulg"],
  ] as const) {
    const server = makeServer(t, flavour, { files });
    const log = startLog(server, flavour, { bytesPerSecond: 1000, armed: true, rotates: true }, false);
    server.clock.advance(5000);
    assert.equal(log.logging, false);
    log.setArmed(true);
    assert.deepEqual([log.logging, log.path], [true, next], flavour);
    const name = next.slice(next.lastIndexOf("/") + 1);
    const dir = next.slice(0, next.lastIndexOf("/"));
    assert.ok(sizes(server, dir).includes(`${name} 0`));
    server.clock.advance(2000);
    log.setArmed(false);
    server.clock.advance(5000);
    assert.ok(sizes(server, dir).includes(`${name} 2000`));
    const session = open(server, next);
    assert.ok(server.ask(Op.ReadFile, { session, offset: 1900, size: 239 }).data.equals(madeBytes(1900, 100)));
    assert.equal(newestLog(server.disk, autopilotNamed(flavour).logDir), next);
  }
});

test("without LOG_FILE_DSRMROT the newest log goes on over flights; with LOG_DISARMED and it, each disarm begins one", (t) => {
  const server = makeServer(t, "ardupilot-4.6", { files: ardupilot });
  const same = startLog(server, "ardupilot-4.6", { bytesPerSecond: 100, armed: true, rotates: false }, false);
  for (let flight = 0; flight < 2; flight++) {
    same.setArmed(true);
    server.clock.advance(1000);
    same.setArmed(false);
    server.clock.advance(1000);
  }
  assert.deepEqual(sizes(server, "/APM/LOGS")[1], "00000042.BIN 500");
  const rotating = makeServer(t, "ardupilot-4.6", { files: ardupilot });
  const log = startLog(rotating, "ardupilot-4.6", { bytesPerSecond: 100, armed: false, rotates: true }, true);
  rotating.clock.advance(1000);
  log.setArmed(false);
  rotating.clock.advance(1000);
  assert.deepEqual(sizes(rotating, "/APM/LOGS").slice(1, 3), ["00000042.BIN 400", "00000043.BIN 100"]);
});

test("a card without a log gets its first", (t) => {
  for (const [flavour, first] of [
    ["ardupilot-4.6", "/00000001.BIN"],
    ["px4", "/log001.ulg"],
  ] as const) {
    const server = makeServer(t, flavour);
    assert.equal(startLog(server, flavour, { bytesPerSecond: 1, armed: false, rotates: false }, false).path, first);
    assert.ok(sizes(server, "/").includes(`${first.slice(1)} 0`));
  }
});
