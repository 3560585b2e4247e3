/** The quirks of ArduPilot's file server, one test each, against the simulated one. What it answers to probes is in probes.test.ts. */
import assert from "node:assert/strict";
import { closeSync, mkdirSync, openSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Nak, Op } from "../mavlink/ftp.js";
import { makeServer, open, pattern, says, type Server, type Timed } from "./harness.test.js";

const generations = ["ardupilot-4.6", "ardupilot-4.7", "ardupilot-4.8"] as const;
const multi = ["ardupilot-4.7", "ardupilot-4.8"] as const;
const gcs = { system: 255, component: 190 };

/** A burst to its end: all its packets. */
function burst(server: Server, session: number, offset = 0, size = 239): Timed[] {
  const before = server.answers.length;
  server.send(Op.BurstReadFile, { session, offset, size });
  for (let length = -1; length !== server.answers.length;) {
    length = server.answers.length;
    server.clock.advance(200);
  }
  return server.answers.slice(before);
}

/** The names of a whole listing, asked for as clients do. */
function names(server: Server, path: string, opcode: number = Op.ListDirectory): string[] {
  const all: string[] = [];
  for (;;) {
    const answer = server.ask(opcode, { session: 9, offset: all.length, data: path });
    if (answer.opcode === Op.Nak) return all;
    all.push(
      ...answer.data
        .toString()
        .split("\0")
        .filter((entry) => entry !== ""),
    );
  }
}

for (const flavour of generations) {
  test(`${flavour}: of eight requests at once five are answered, three are lost`, (t) => {
    for (const link of ["none", "usb"]) {
      const server = makeServer(t, flavour, { link, files: { "a.bin": 10_000 } });
      const session = open(server, "/a.bin");
      server.clock.advance(10);
      for (let i = 0; i < 8; i++) server.send(Op.ReadFile, { session, offset: i * 239, size: 239 });
      assert.deepEqual(
        server.within(100).map((a) => a.offset),
        [0, 239, 478, 717, 956],
      );
      assert.equal(server.stats.droppedByQueue, 3);
    }
  });

  test(`${flavour}: a receive buffer of 512 bytes loses what comes beyond before the loop looks`, (t) => {
    const server = makeServer(t, flavour, { link: "usb" });
    for (let i = 0; i < 20; i++) server.send(Op.None, { session: 9, from: { wireBytes: 100 } });
    server.clock.advance(100);
    assert.equal(server.stats.droppedByReceive, 15);
  });

  test(`${flavour}: one request at a time is answered 400 times a second, five at a time five times that`, (t) => {
    for (const window of [1, 5]) {
      const server = makeServer(t, flavour, { link: "usb", files: { "a.bin": 500_000 } });
      const session = open(server, "/a.bin");
      const begun = server.answers.length;
      for (let ms = 0; ms < 1000; ms++) {
        const waiting = server.stats.requests.ReadFile ?? 0;
        for (let n = waiting - (server.answers.length - begun); n < window; n++)
          server.send(Op.ReadFile, { session, offset: (waiting + n) * 239, size: 239 });
        server.clock.advance(1);
      }
      // The client looks every millisecond only, so a little less than the ceiling.
      const answered = server.answers.length - begun;
      assert.ok(answered <= 401 * window && answered > 330 * window, `${answered} with ${window}`);
      assert.equal(server.stats.droppedByQueue, 0);
    }
  });

  test(`${flavour}: nothing beyond 2 GiB can be read, in whatever way, though it is listed`, (t) => {
    const server = makeServer(t, flavour);
    const path = join(server.dir, "big.BIN");
    const fd = openSync(path, "w");
    writeSync(fd, pattern(500), 0, 500, 2 ** 31 - 300);
    closeSync(fd);
    const session = open(server, "/big.BIN");
    const last = server.ask(Op.ReadFile, { session, offset: 2 ** 31 - 1, size: 239 });
    assert.deepEqual(last.data, pattern(500).subarray(299), "the last offset that it takes");
    for (const opcode of [Op.ReadFile, Op.BurstReadFile])
      assert.equal(says(server.ask(opcode, { session, offset: 2 ** 31, size: 239 })), "NAK 2 22");
    assert.deepEqual(names(server, "/")[1], `Fbig.BIN\t${2 ** 31 + 200}`);
    truncateSync(path, 2 ** 32 + 7);
    assert.deepEqual(names(server, "/")[1], "Fbig.BIN\t7", "a size is 32 bits");
  });

  test(`${flavour}: a log that grows is read to where it ends now, not where it ended when it was opened`, (t) => {
    const server = makeServer(t, flavour, { files: { "a.BIN": 300 } });
    const session = open(server, "/a.BIN");
    assert.equal(says(server.ask(Op.ReadFile, { session, offset: 300, size: 239 })), "NAK 6");
    writeFileSync(join(server.dir, "a.BIN"), pattern(400));
    assert.equal(server.ask(Op.ReadFile, { session, offset: 300, size: 239 }).data.length, 100);
  });

  test(`${flavour}: a path without a size, and one with a wrong size, are refused`, (t) => {
    const server = makeServer(t, flavour, { files: { "a.bin": 1 } });
    assert.equal(says(server.ask(Op.ListDirectory, { session: 9 })), "NAK 3");
    assert.equal(says(server.ask(Op.OpenFileRO, { session: 9, data: "/a.bin", size: 3 })), "NAK 3");
    assert.equal(says(server.ask(Op.ListDirectory, { session: 9, data: "/a.bin", size: 240 })), "NAK 3");
  });

  test(`${flavour}: a checksum keeps everybody waiting`, (t) => {
    const server = makeServer(t, flavour, { link: "usb", files: { "a.bin": 100_000 }, crcBytesPerSecond: 50_000 });
    server.send(Op.CalcFileCRC32, { session: 9, data: "/a.bin" });
    server.clock.advance(100);
    for (let i = 0; i < 7; i++) server.send(Op.None, { session: 9, from: gcs });
    assert.deepEqual(server.within(1800), []);
    assert.deepEqual(
      server.within(200).map((a) => a.reqOpcode),
      [Op.CalcFileCRC32, ...Array.from({ length: 5 }, () => Op.None)],
    );
    assert.equal(server.stats.droppedByQueue, 2);
  });

  test(`${flavour}: a reply waits for room in the transmit ring`, (t) => {
    let free = 200;
    const server = makeServer(t, flavour, { link: "usb", freeRing: () => free });
    server.send(Op.None, { session: 9 });
    assert.deepEqual(server.within(1000), []);
    free = 266;
    assert.equal(server.within(5).length, 1);
  });

  test(`${flavour}: nothing is sent while a radio has a third of its buffer free or less`, (t) => {
    let free = 33;
    const server = makeServer(t, flavour, { radioFree: () => free });
    server.send(Op.None, { session: 9 });
    assert.deepEqual(server.within(2900), []);
    free = 34;
    assert.equal(server.within(5).length, 1);
  });

  test(`${flavour}: other streams are slow for a second after an answer, and fast at once after the end of a session`, (t) => {
    const server = makeServer(t, flavour, { files: { "a.bin": 100 } });
    assert.equal(server.slowsStreams(0), false);
    const session = open(server, "/a.bin");
    assert.equal(server.slowsStreams(0), true);
    // 4.6 knows one time for all links.
    assert.equal(server.slowsStreams(1), flavour === "ardupilot-4.6");
    server.clock.advance(990);
    assert.equal(server.slowsStreams(0), true);
    server.clock.advance(10);
    assert.equal(server.slowsStreams(0), false);
    server.ask(Op.ReadFile, { session, size: 10 });
    assert.equal(server.slowsStreams(0), true);
    server.ask(Op.TerminateSession, { session });
    assert.equal(server.slowsStreams(0), false);
  });

  test(`${flavour}: an RP2350 gives 48 bytes at most, whatever is asked`, (t) => {
    const server = makeServer(t, flavour, { readMost: 48, files: { "a.bin": 100 } });
    const session = open(server, "/a.bin");
    assert.equal(server.ask(Op.ReadFile, { session, size: 239 }).data.length, 48);
    assert.deepEqual(
      burst(server, session).map((a) => a.data.length),
      [48, 48, 4, 1],
    );
  });

  test(`${flavour}: a burst of size 0 is one of 239`, (t) => {
    const server = makeServer(t, flavour, { files: { "a.bin": 239 } });
    assert.equal(burst(server, open(server, "/a.bin"), 0, 0)[0]?.data.length, 239);
  });

  test(`${flavour}: a burst asked for again while it runs is sent again, whole`, (t) => {
    const server = makeServer(t, flavour, { link: "usb", files: { "a.bin": 2390 } });
    const session = open(server, "/a.bin");
    server.send(Op.BurstReadFile, { session, size: 239 });
    server.clock.advance(5);
    server.send(Op.BurstReadFile, { session, size: 239 });
    server.clock.advance(1000);
    assert.equal(server.answers.filter((a) => a.opcode === Op.Nak).length, 2);
    assert.equal(server.answers.filter((a) => a.reqOpcode === Op.BurstReadFile && a.offset === 239 && a.opcode === Op.Ack).length, 2);
  });

  test(`${flavour}: after a burst its last packet is what is sent again`, (t) => {
    const server = makeServer(t, flavour, { files: { "a.bin": 300 } });
    const session = open(server, "/a.bin");
    const last = burst(server, session).at(-1);
    assert.equal(says(server.ask(Op.None, { session, seq: (last?.seq ?? 0) - 1 })), "NAK 6");
  });

  test(`${flavour}: 65,535 is not the number before 0`, (t) => {
    const server = makeServer(t, flavour);
    server.ask(Op.CalcFileCRC32, { session: 9, seq: 65_535, data: "/none" });
    assert.equal(server.ask(Op.None, { session: 9, seq: 65_535 }).reqOpcode, Op.None);
  });

  test(`${flavour}: 2,000 logs are listed whole`, (t) => {
    const server = makeServer(t, flavour);
    const expected: string[] = [];
    for (let n = 1; n <= 2000; n++) {
      const name = `${String(n).padStart(8, "0")}.BIN`;
      writeFileSync(join(server.dir, name), "x".repeat(n % 7));
      expected.push(`F${name}\t${n % 7}`);
    }
    assert.deepEqual(
      names(server, "/").filter((entry) => !entry.startsWith("D")),
      expected,
    );
  });

  test(`${flavour}: a name that fits into no packet`, (t) => {
    const server = makeServer(t, flavour, { files: { "a.BIN": 1, [`b${"x".repeat(238)}`]: 1, "c.BIN": 2 } });
    const expected = ["D.", "Fa.BIN\t1", "D.."];
    assert.deepEqual(names(server, "/"), flavour === "ardupilot-4.8" ? [...expected, "Fc.BIN\t2"] : expected);
  });
}

test("ardupilot-4.6: a burst on USB pauses 3 ms after each packet, on UARTs longer; smaller packets pause less", (t) => {
  for (const [link, size, pauseMs] of [
    ["usb", 239, 3],
    ["usb", 177, 2],
    ["usb", 41, 0],
    ["uart:921600", 239, 8],
    ["uart:115200", 239, 69],
    ["uart:57600", 239, 138],
  ] as const) {
    const server = makeServer(t, "ardupilot-4.6", { link, files: { "a.bin": size * 10 } });
    const packets = burst(server, open(server, "/a.bin"), 0, size);
    const took = (packets[9]?.atMs ?? 0) - (packets[0]?.atMs ?? 0);
    assert.ok(Math.abs(took - 9 * pauseMs) < 0.01, `${link} ${size}: ${took}`);
  }
});

for (const flavour of multi)
  test(`${flavour}: a burst pauses on UARTs only`, (t) => {
    for (const [link, pauseMs] of [
      ["usb", 0.0736],
      ["udp", 0.0736],
      ["uart:921600", 8],
      ["radio:57600", 138],
    ] as const) {
      const server = makeServer(t, flavour, { link, files: { "a.bin": 2390 } });
      const packets = burst(server, open(server, "/a.bin"));
      const took = (packets[9]?.atMs ?? 0) - (packets[0]?.atMs ?? 0);
      assert.ok(Math.abs(took - 9 * pauseMs) < 0.01, `${link}: ${took}`);
    }
  });

for (const [flavour, packets] of [
  ["ardupilot-4.6", 500],
  ["ardupilot-4.7", 500],
  ["ardupilot-4.8", 2000],
] as const)
  test(`${flavour}: a burst ends after ${packets} packets, the last one flagged, without a refusal`, (t) => {
    const server = makeServer(t, flavour, { files: { "a.bin": 600_000 } });
    const all = burst(server, open(server, "/a.bin"));
    assert.equal(all.length, packets);
    assert.deepEqual([all.filter((a) => a.burstComplete !== 0).length, all.at(-1)?.burstComplete, all.at(-1)?.opcode], [1, 1, Op.Ack]);
    assert.deepEqual(
      all.map((a) => (a.seq - (all[0]?.seq ?? 0)) & 0xffff),
      all.map((_, i) => i),
    );
  });

test("ardupilot-4.6: a session is the number that the client chose, whoever it is: two clients with one number read one file", (t) => {
  const server = makeServer(t, "ardupilot-4.6", { files: { "a.bin": 100, "b.bin": 50 } });
  assert.equal(open(server, "/a.bin", 0), 0);
  assert.equal(server.ask(Op.ReadFile, { size: 239, from: { ...gcs, channel: 1 } }).data.length, 100);
});

test("ardupilot-4.6: an answer to a stranger, a refusal too, keeps the session from being taken", (t) => {
  const server = makeServer(t, "ardupilot-4.6", { files: { "a.bin": 100 } });
  open(server, "/a.bin");
  for (let i = 0; i < 5; i++) {
    server.clock.advance(2900);
    assert.equal(says(server.ask(Op.OpenFileRO, { session: 5, data: "/a.bin", from: gcs })), "NAK 4");
  }
  server.clock.advance(3000);
  assert.equal(says(server.ask(Op.OpenFileRO, { session: 5, data: "/a.bin", from: gcs })), "ACK");
  assert.equal(says(server.ask(Op.ReadFile, { session: 9, size: 239 })), "NAK 4", "the one before has lost it");
});

test("ardupilot-4.6: the end of a foreign session closes nothing, but whoever asks next takes the file away", (t) => {
  const server = makeServer(t, "ardupilot-4.6", { files: { "a.bin": 100 } });
  open(server, "/a.bin");
  server.ask(Op.TerminateSession, { session: 77, from: gcs });
  assert.equal(server.openSessions(), 1);
  assert.equal(says(server.ask(Op.ListDirectory, { session: 5, data: "/", from: gcs })), "ACK");
  assert.equal(server.openSessions(), 0);
});

test("ardupilot-4.6: an open by the same session is refused for 3 s, then it takes the place of the first", (t) => {
  const server = makeServer(t, "ardupilot-4.6", { files: { "a.bin": 100, "b.bin": 50 } });
  open(server, "/a.bin");
  assert.equal(says(server.ask(Op.OpenFileRO, { session: 9, data: "/b.bin" })), `NAK ${Nak.Fail}`);
  server.clock.advance(3100);
  assert.equal(server.ask(Op.OpenFileRO, { session: 9, data: "/b.bin" }).data.readUInt32LE(), 50);
});

for (const flavour of multi) {
  test(`${flavour}: a session belongs to its sender and its link`, (t) => {
    const server = makeServer(t, flavour, { files: { "a.bin": 100 } });
    const session = open(server, "/a.bin");
    for (const from of [gcs, { component: 192 }, { channel: 1 }])
      assert.equal(says(server.ask(Op.ReadFile, { session, size: 10, from })), "NAK 10");
    assert.equal(says(server.ask(Op.ReadFile, { session, size: 10 })), "ACK");
  });

  test(`${flavour}: a session that nobody uses for 20 s is closed`, (t) => {
    const server = makeServer(t, flavour, { files: { "a.bin": 100 } });
    open(server, "/a.bin");
    server.clock.advance(19_900);
    assert.equal(server.openSessions(), 1);
    server.clock.advance(200);
    assert.deepEqual([server.openSessions(), server.stats.sessionsTimedOut], [0, 1]);
  });

  test(`${flavour}: the one that was used least lately is given away, after 3 s`, (t) => {
    const server = makeServer(t, flavour, { files: { "a.bin": 100 } });
    for (const session of [1, 2, 3, 4, 5]) open(server, "/a.bin", session);
    assert.equal(says(server.ask(Op.OpenFileRO, { session: 6, data: "/a.bin" })), "NAK 5");
    server.clock.advance(2500);
    for (const session of [1, 3, 4, 5]) server.ask(Op.ReadFile, { session, size: 10 });
    server.clock.advance(600);
    assert.equal(says(server.ask(Op.OpenFileRO, { session: 6, data: "/a.bin" })), "ACK");
    assert.equal(says(server.ask(Op.ReadFile, { session: 1, size: 10 })), "ACK");
    assert.equal(says(server.ask(Op.ReadFile, { session: 2, size: 10 })), "NAK 5", "it has no session, and none is free");
  });
}

test("ardupilot-4.7: session 0 is a number like any other", (t) => {
  const server = makeServer(t, "ardupilot-4.7", { files: { "a.bin": 100 } });
  for (let i = 0; i < 8; i++) assert.equal(says(server.ask(Op.ListDirectory, { data: "/" })), "ACK");
});

test("ardupilot-4.8: each request with session 0 takes a session, a listing too: the sixth within 3 s finds none", (t) => {
  const server = makeServer(t, "ardupilot-4.8", { files: { "a.bin": 100 } });
  const got = [1, 2, 3, 4, 5, 6].map(() => server.ask(Op.ListDirectory, { data: "/" }));
  assert.deepEqual(
    got.map((a) => `${says(a)} ${a.session}`),
    ["ACK 1", "ACK 2", "ACK 3", "ACK 4", "ACK 5", "NAK 5 0"],
  );
  for (let i = 0; i < 8; i++) assert.equal(says(server.ask(Op.ListDirectory, { session: 3, data: "/" })), "ACK");
});

test("ardupilot-4.8: an open with session 0 whose reply was lost opens it once more", (t) => {
  const server = makeServer(t, "ardupilot-4.8", { files: { "a.bin": 100 } });
  const [first, second] = [0, 1].map(() => server.ask(Op.OpenFileRO, { seq: 700, data: "/a.bin" }).session);
  assert.deepEqual([first, second, server.openSessions()], [1, 2, 2]);
});

test("ardupilot-4.8: a reply that cannot be sent for 3 s is given up, and its session closed", (t) => {
  let free = 16_384;
  const server = makeServer(t, "ardupilot-4.8", { link: "usb", files: { "a.bin": 100 }, freeRing: () => free });
  const session = open(server, "/a.bin");
  free = 0;
  server.send(Op.ReadFile, { session, size: 10 });
  server.clock.advance(3200);
  assert.deepEqual([server.openSessions(), server.answers.length], [0, 1]);
  free = 16_384;
  assert.equal(says(server.ask(Op.ReadFile, { session, size: 10 })), "NAK 10", "the worker goes on");
});

test("ardupilot-4.8: a listing with times: directories too; a name with a tab is skipped, and counts", (t) => {
  const server = makeServer(t, "ardupilot-4.8", { files: { "a.BIN": 7, "b\tc.BIN": 8 } });
  mkdirSync(join(server.dir, "logs"));
  const entries = names(server, "/", Op.ListDirectoryWithTime);
  assert.deepEqual(
    entries.map((entry) => entry.replace(/\d{9,}$/, "TIME")),
    ["D.\t0\t0", "Fa.BIN\t7\tTIME", "D..\t0\t0", "S", "Dlogs\t0\tTIME"],
  );
});

test('"@MAV_LOG" is the directory of logs, where a release knows it', (t) => {
  for (const [flavour, dir, known] of [
    ["ardupilot-4.7", "APM/LOGS", false],
    ["ardupilot-4.8", "APM/LOGS", true],
    ["px4", "fs/microsd/log", false],
    ["px4-1.18", "fs/microsd/log", true],
  ] as const) {
    const server = makeServer(t, flavour, { files: { [`${dir}/1.log`]: 77 } });
    assert.match(says(server.ask(Op.ListDirectory, { session: 9, data: "@MAV_LOG" })), known ? /ACK/ : /NAK 10/, flavour);
    if (known) assert.equal(server.ask(Op.OpenFileRO, { session: 9, data: "@MAV_LOG/1.log" }).data.readUInt32LE(), 77);
    assert.equal(says(server.ask(Op.ListDirectory, { session: 9, data: "@MAV_LOGS" })), "NAK 10");
  }
  const bare = makeServer(t, "ardupilot-4.8", { files: { "1.log": 77 } });
  assert.equal(bare.ask(Op.OpenFileRO, { session: 9, data: "@MAV_LOG/1.log" }).data.readUInt32LE(), 77, "all that is served is logs");
});
