/** The quirks of MAVSDK's file server, read off its source, one test each. What it answers to probes is in probes.test.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Op } from "../mavlink/ftp.js";
import { makeServer, open, pattern, says } from "./harness.test.js";

const files = { "a.bin": 1000, "b.bin": 956 };

test("mavsdk: a read beyond the end is refused, and so is every later one until the next open; one up to the end is not", (t) => {
  const server = makeServer(t, "mavsdk", { files });
  open(server, "/a.bin");
  assert.deepEqual(server.ask(Op.ReadFile, { offset: 956, size: 44 }).data, pattern(1000).subarray(956));
  assert.equal(says(server.ask(Op.ReadFile, { offset: 0, size: 239 })), "ACK");
  assert.equal(says(server.ask(Op.ReadFile, { offset: 956, size: 239 })), "NAK 1");
  assert.equal(says(server.ask(Op.ReadFile, { offset: 0, size: 239 })), "NAK 1");
  assert.equal(says(server.ask(Op.BurstReadFile, { offset: 0, size: 239 })), "NAK 1");
  assert.equal(says(server.ask(Op.ReadFile, { offset: 1000, size: 239 })), "NAK 6", "the end is the end");
  open(server, "/a.bin");
  assert.equal(says(server.ask(Op.ReadFile, { offset: 0, size: 239 })), "ACK");
});

test("mavsdk: another session's number closes the file, whose size is still known", (t) => {
  const server = makeServer(t, "mavsdk", { files });
  open(server, "/a.bin");
  assert.equal(says(server.ask(Op.ReadFile, { session: 7, size: 239 })), "NAK 1");
  assert.equal(server.openSessions(), 0);
  assert.equal(says(server.ask(Op.ReadFile, { size: 239 })), "NAK 1");
  assert.equal(says(server.ask(Op.ReadFile, { offset: 1000, size: 239 })), "NAK 6");
});

test("mavsdk: an open takes the session from whoever has it, and nothing closes it when idle", (t) => {
  const server = makeServer(t, "mavsdk", { files });
  open(server, "/a.bin");
  server.clock.advance(3_600_000);
  assert.equal(server.openSessions(), 1);
  open(server, "/b.bin", 3);
  assert.equal(says(server.ask(Op.ReadFile, { offset: 956, size: 1 })), "NAK 6");
});

test("mavsdk: a burst goes to the end without a pause, its last packet flagged, and nothing follows", (t) => {
  const server = makeServer(t, "mavsdk", { files: { "a.bin": 600_000 }, link: "usb" });
  open(server, "/a.bin");
  server.send(Op.BurstReadFile, { size: 239 });
  const packets = server.within(10_000);
  assert.equal(packets.length, Math.ceil(600_000 / 239));
  assert.deepEqual([packets.at(-1)?.burstComplete, packets.filter((p) => p.burstComplete !== 0).length], [1, 1]);
  assert.ok(packets.every((p, i) => p.offset === i * 239 && p.opcode === Op.Ack));
});

test("mavsdk: nothing is kept: the same number is done again", (t) => {
  const server = makeServer(t, "mavsdk", { files });
  assert.equal(says(server.ask(Op.OpenFileRO, { seq: 5, data: "/none" })), "NAK 10");
  assert.equal(server.ask(Op.ListDirectory, { seq: 5, data: "/" }).reqOpcode, Op.ListDirectory);
});

test("mavsdk: None is not answered, so it keeps nothing alive that can be seen", (t) => {
  const server = makeServer(t, "mavsdk", { files });
  server.send(Op.None);
  assert.deepEqual(server.within(2000), []);
});

test("mavsdk: all answers carry session 0, and only those to reads an offset", (t) => {
  const server = makeServer(t, "mavsdk", { files });
  const list = server.ask(Op.ListDirectory, { session: 9, offset: 1, data: "/" });
  assert.deepEqual([list.session, list.offset, list.data.toString()], [0, 0, "Fb.bin\t956\0"]);
  open(server, "/a.bin");
  assert.equal(server.ask(Op.ReadFile, { offset: 239, size: 10 }).offset, 239);
});

for (const flavour of ["mavsdk", "px4"])
  test(`${flavour}: a checksum that takes its time is answered before what came meanwhile, and forgotten with the power`, (t) => {
    const server = makeServer(t, flavour, { files, crcBytesPerSecond: 1000 });
    server.send(Op.CalcFileCRC32, { data: "/a.bin" });
    server.send(Op.ListDirectory, { data: "/" });
    assert.deepEqual(server.within(900), []);
    assert.deepEqual(
      server.within(200).map((a) => a.reqOpcode),
      [Op.CalcFileCRC32, Op.ListDirectory],
    );
    server.send(Op.CalcFileCRC32, { data: "/a.bin" });
    server.stop();
    assert.equal(server.clock.waiting, 0);
  });

test("px4: while a checksum keeps the link busy, requests beyond 600 bytes are lost", (t) => {
  const server = makeServer(t, "px4", { files, crcBytesPerSecond: 1000 });
  server.send(Op.CalcFileCRC32, { data: "/a.bin" });
  for (let i = 0; i < 10; i++) server.send(Op.None, { from: { wireBytes: 100 } });
  assert.equal(server.within(1100).length, 7);
  assert.equal(server.stats.droppedByReceive, 4);
});
