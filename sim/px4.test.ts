/** The quirks of PX4's file server, one test each. What it answers to probes is in probes.test.ts. */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Op } from "../mavlink/ftp.js";
import { autopilotNamed } from "./autopilots.js";
import { makeServer, open, pattern, says, type Server } from "./harness.test.js";
import { start } from "./socket.test.js";

const files = { "a.ulg": 100_000 };

test("px4: a refused request keeps somebody's session alive, as any request does", (t) => {
  const server = makeServer(t, "px4", { files });
  open(server, "/a.ulg");
  for (let i = 0; i < 5; i++) {
    server.clock.advance(9000);
    assert.equal(says(server.ask(Op.OpenFileRO, { data: "/a.ulg", from: { system: 255 } })), "NAK 5");
  }
  server.clock.advance(10_001);
  assert.deepEqual([server.openSessions(), server.stats.sessionsTimedOut], [0, 1]);
});

for (const [flavour, idleMs] of [
  ["px4", 10_000],
  ["px4-1.18", 30_000],
] as const)
  test(`${flavour}: a stream does not keep its session alive: after ${idleMs / 1000} s without a request it stops; None keeps it`, (t) => {
    const begin = (): Server => {
      // A slow wire: room for one packet a hundredth of the idle time, so 35,000 bytes last longer than that.
      const server: Server = makeServer(t, flavour, {
        files,
        link: "usb",
        freeRing: () => (server.clock.now() % (idleMs / 100) < 10 ? 280 : 0),
      });
      open(server, "/a.ulg");
      server.send(Op.BurstReadFile, { size: 239 });
      return server;
    };
    const silent = begin();
    assert.ok(silent.within(idleMs - 50).length > 90, "it streams");
    assert.equal(silent.openSessions(), 1);
    silent.clock.advance(100);
    assert.deepEqual([silent.openSessions(), silent.within(idleMs).length], [0, 0]);
    const kept = begin();
    for (let i = 0; i < 4; i++) {
      kept.clock.advance(idleMs / 3);
      kept.send(Op.None);
    }
    assert.equal(kept.openSessions(), 1);
  });

test("px4: a burst that is asked for while one runs turns that to the new offset", (t) => {
  const server = makeServer(t, "px4", { files, link: "usb", freeRing: () => 560 });
  open(server, "/a.ulg");
  server.send(Op.BurstReadFile, { size: 239 });
  server.within(25);
  server.send(Op.BurstReadFile, { offset: 50_190, size: 239 });
  const after = server.within(25);
  assert.ok(after.length > 0 && after.every((a) => a.offset >= 50_190));
});

test("px4: a read in the middle of a burst is answered at once, and the burst goes on", (t) => {
  const server = makeServer(t, "px4", { files, link: "usb", freeRing: () => 560 });
  open(server, "/a.ulg");
  server.send(Op.BurstReadFile, { size: 239 });
  server.within(25);
  const before = server.answers.length;
  server.send(Op.ReadFile, { offset: 90_000, size: 239 });
  assert.deepEqual(server.answers[before]?.data, pattern(100_000).subarray(90_000, 90_239));
  assert.ok(server.within(30).every((a) => a.reqOpcode === Op.BurstReadFile));
});

test("px4: the last packet of a tick carries any byte as burst_complete, before 35,000 bytes were sent", (t) => {
  const server = makeServer(t, "px4", { files, link: "usb", freeRing: () => 3 * 279 });
  open(server, "/a.ulg");
  server.send(Op.BurstReadFile, { size: 239 });
  const packets = server.within(400).filter((a) => a.opcode === Op.Ack);
  const flagged = packets.filter((a) => a.burstComplete !== 0);
  assert.ok(flagged.length > 30 && new Set(flagged.map((a) => a.burstComplete)).size > 20, "of three packets the third");
  assert.ok(packets.every((a, i) => i % 3 === 2 || a.burstComplete === 0));
});

test("px4: a size is honoured, and reads past the end are the end", (t) => {
  const server = makeServer(t, "px4", { files });
  open(server, "/a.ulg");
  assert.equal(server.ask(Op.ReadFile, { offset: 99_990, size: 239 }).data.length, 10);
  assert.equal(server.ask(Op.ReadFile, { offset: 10, size: 20 }).data.length, 20);
  assert.equal(says(server.ask(Op.ReadFile, { offset: 100_000, size: 239 })), "NAK 6");
});

test("px4-1.18: a listing with times, directories too; what is left out counts", (t) => {
  const server = makeServer(t, "px4-1.18", { files });
  mkdirSync(join(server.dir, "log"));
  const text = server.ask(Op.ListDirectoryWithTime, { data: "/" }).data.toString();
  assert.match(text, /^Fa\.ulg\t100000\t\d{9,}\0S\0Dlog\t0\t\d{9,}\0S\0$/);
});

test("px4: a name that fits into no packet counts as left out", (t) => {
  const server = makeServer(t, "px4", { files: { [`a${"x".repeat(238)}`]: 1, "b.ulg": 2 } });
  assert.equal(server.ask(Op.ListDirectory, { data: "/" }).data.toString(), "S\0S\0Fb.ulg\t2\0S\0");
});

test("px4: each link has its own session; ArduPilot 4.6 has one for all of them", async (t) => {
  for (const { name, parameterFile } of [autopilotNamed("px4"), autopilotNamed("ardupilot-4.6")]) {
    const { client, sim } = await start(t, { autopilot: name });
    const { session } = await client.ask(Op.OpenFileRO, { session: 9, data: parameterFile });
    const loading = sim.load({ own: true });
    const waits = name !== "px4";
    if (waits) {
      await client.until(() => (sim.stats.requests.OpenFileRO ?? 0) >= 2, "it has asked");
      await client.ask(Op.TerminateSession, { session });
    }
    const loaded = await loading;
    assert.deepEqual([loaded.whole, loaded.refusals > 0], [true, waits]);
  }
});
