/**
 * The answers of the autopilots' own server code to the same probes, one column per flavour: PX4 as of May 2024, ArduPilot's single session (SITL), its
 * five sessions (early 2026), 4.8 (GCS_FTP.cpp of mid-2026); the column of MAVSDK is read off its source. The simulator gives the same.
 */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Op } from "../mavlink/ftp.js";
import { makeServer, open, says, type Server } from "./harness.test.js";

const flavours = ["px4", "px4-1.18", "ardupilot-4.6", "ardupilot-4.7", "ardupilot-4.8", "mavsdk"] as const;
type Column = readonly [string, string, string, string, string, string];

const files = { "a.bin": 1000, "b.bin": 956, "empty.bin": 0, "big.bin": 200_000 };

interface Probe {
  readonly name: string;
  /** A file is open in session 9 (or what the server makes of it) when it begins. */
  readonly opened?: string;
  readonly run: (server: Server, session: number) => string;
  readonly expected: Column;
}

const same = (answer: string): Column => [answer, answer, answer, answer, answer, answer];
const lastTwo = (server: Server): string =>
  server
    .within(3000)
    .slice(-2)
    .map((a) => `${says(a)} at ${a.offset} complete ${a.reqOpcode === Op.BurstReadFile ? a.burstComplete : "-"}`)
    .join(", ");

/** The answer within a second, or that there is none. */
function answerIn(server: Server, opcode: number, data = ""): string {
  const before = server.answers.length;
  server.send(opcode, { session: 9, data });
  server.clock.advance(1000);
  const answer = server.answers[before];
  return answer === undefined ? "nothing" : says(answer);
}

const probes: readonly Probe[] = [
  {
    name: "open: the session of the reply to session 9",
    run: (server) => String(open(server, "/a.bin", 9)),
    expected: ["0", "0", "9", "9", "9", "0"],
  },
  {
    name: "open: the session of the reply to session 0",
    run: (server) => String(open(server, "/a.bin", 0)),
    expected: ["0", "0", "0", "0", "1", "0"],
  },
  {
    name: "a second open by another session",
    opened: "/a.bin",
    run: (server) => says(server.ask(Op.OpenFileRO, { session: 5, data: "/b.bin" })),
    expected: ["NAK 5", "NAK 5", "NAK 4", "ACK", "ACK", "ACK"],
  },
  {
    name: "a sixth open by yet another session",
    run: (server) => [1, 2, 3, 4, 5, 6].map((session) => says(server.ask(Op.OpenFileRO, { session, data: "/b.bin" }))).at(-1) ?? "",
    expected: ["NAK 5", "NAK 5", "NAK 4", "NAK 5", "NAK 5", "ACK"],
  },
  {
    name: "a second open by the same session",
    opened: "/a.bin",
    run: (server, session) => says(server.ask(Op.OpenFileRO, { session, data: "/b.bin" })),
    expected: ["NAK 5", "NAK 5", "NAK 1", "NAK 1", "NAK 1", "ACK"],
  },
  {
    name: "a listing by another session while a file is open",
    opened: "/a.bin",
    run: (server) => {
      const answer = server.ask(Op.ListDirectory, { session: 5, data: "/" });
      return `${says(answer)} session ${answer.session}`;
    },
    expected: ["ACK session 5", "ACK session 5", "NAK 4 session 5", "ACK session 5", "ACK session 5", "ACK session 0"],
  },
  {
    name: "the end of another session",
    opened: "/a.bin",
    run: (server) => `${says(server.ask(Op.TerminateSession, { session: 5 }))}, open: ${server.openSessions()}`,
    expected: ["NAK 4, open: 1", "NAK 4, open: 1", "ACK, open: 1", "ACK, open: 1", "ACK, open: 1", "ACK, open: 0"],
  },
  {
    name: "a reset with another session's number",
    opened: "/a.bin",
    run: (server) => `${says(server.ask(Op.ResetSessions, { session: 5 }))}, open: ${server.openSessions()}`,
    expected: ["ACK, open: 0", "ACK, open: 0", "ACK, open: 1", "ACK, open: 0", "ACK, open: 0", "ACK, open: 0"],
  },
  {
    name: "a reset by somebody else",
    opened: "/a.bin",
    run: (server) =>
      `${says(server.ask(Op.ResetSessions, { session: 9, from: { system: 255, component: 190 } }))}, open: ${server.openSessions()}`,
    expected: ["ACK, open: 0", "ACK, open: 0", "ACK, open: 0", "ACK, open: 1", "ACK, open: 1", "ACK, open: 0"],
  },
  {
    name: "a read without an open file",
    run: (server) => says(server.ask(Op.ReadFile, { session: 9, size: 239 })),
    expected: ["NAK 4", "NAK 4", "NAK 10", "NAK 10", "NAK 10", "NAK 6"],
  },
  {
    name: "an end without an open file",
    run: (server) => says(server.ask(Op.TerminateSession, { session: 9 })),
    expected: ["NAK 4", "NAK 4", "ACK", "ACK", "ACK", "ACK"],
  },
  {
    name: "the number of the request before, another opcode: which is answered",
    run: (server) => {
      server.ask(Op.CalcFileCRC32, { seq: 500, session: 9, data: "/a.bin" });
      return String(server.ask(Op.ListDirectory, { seq: 500, session: 9, data: "/" }).reqOpcode);
    },
    expected: [...Array.from({ length: 5 }, () => String(Op.CalcFileCRC32)), String(Op.ListDirectory)] as unknown as Column,
  },
  {
    name: "the number of the request before, whose reply was large",
    run: (server) => {
      server.ask(Op.ListDirectory, { seq: 500, session: 9, data: "/" });
      return String(server.ask(Op.OpenFileRO, { seq: 500, session: 9, data: "/none" }).reqOpcode);
    },
    expected: [
      String(Op.OpenFileRO),
      String(Op.OpenFileRO),
      String(Op.ListDirectory),
      String(Op.ListDirectory),
      String(Op.ListDirectory),
      String(Op.OpenFileRO),
    ],
  },
  {
    name: "the number of the request before, from somebody else",
    run: (server) => {
      server.ask(Op.CalcFileCRC32, { seq: 500, session: 9, data: "/a.bin" });
      return String(server.ask(Op.ListDirectory, { seq: 500, session: 9, data: "/", from: { component: 190 } }).reqOpcode);
    },
    expected: [String(Op.CalcFileCRC32), String(Op.CalcFileCRC32), "3", "3", "3", String(Op.ListDirectory)],
  },
  {
    name: "an open by another session after 3.3 s without a request",
    opened: "/a.bin",
    run: (server) => {
      server.clock.advance(3300);
      return says(server.ask(Op.OpenFileRO, { session: 5, data: "/b.bin" }));
    },
    expected: ["NAK 5", "NAK 5", "ACK", "ACK", "ACK", "ACK"],
  },
  {
    name: "an open after 10.1 s without a request",
    opened: "/a.bin",
    run: (server) => {
      server.clock.advance(10_100);
      return says(server.ask(Op.OpenFileRO, { session: 5, data: "/b.bin" }));
    },
    expected: ["ACK", "NAK 5", "ACK", "ACK", "ACK", "ACK"],
  },
  {
    name: "a listing with times (opcode 16)",
    run: (server) => says(server.ask(Op.ListDirectoryWithTime, { session: 9, data: "/" })),
    expected: ["NAK 7", "ACK", "NAK 1", "NAK 1", "ACK", "ACK"],
  },
  {
    name: "an opcode that nobody knows",
    run: (server) => answerIn(server, 77),
    expected: ["NAK 7", "NAK 7", "NAK 1", "NAK 1", "NAK 7", "nothing"],
  },
  {
    name: "the truncation of a missing file",
    run: (server) => answerIn(server, Op.TruncateFile, "/fs/microsd/none"),
    expected: ["NAK 2 0", "NAK 2 0", "NAK 1", "NAK 1", "NAK 7", "nothing"],
  },
  {
    name: "the checksum of a missing file",
    run: (server) => says(server.ask(Op.CalcFileCRC32, { session: 9, data: "/none" })),
    expected: ["NAK 2 0", "NAK 2 0", "NAK 10", "NAK 10", "NAK 10", "NAK 10"],
  },
  {
    name: "the opening of a missing file",
    run: (server) => says(server.ask(Op.OpenFileRO, { session: 9, data: "/none" })),
    expected: same("NAK 10"),
  },
  {
    name: "the listing of a missing directory",
    run: (server) => says(server.ask(Op.ListDirectory, { session: 9, data: "/none" })),
    expected: same("NAK 10"),
  },
  {
    name: "a path with a counted zero",
    run: (server) => says(server.ask(Op.OpenFileRO, { session: 9, data: "/a.bin\0" })),
    expected: ["ACK", "ACK", "NAK 3", "ACK", "ACK", "ACK"],
  },
  {
    name: "a burst of an empty file",
    opened: "/empty.bin",
    run: (server, session) => says(server.ask(Op.BurstReadFile, { session, size: 239 })),
    expected: same("NAK 6"),
  },
  {
    name: "a burst of 1,000 bytes: its last two packets",
    opened: "/a.bin",
    run: (server, session) => {
      server.send(Op.BurstReadFile, { session, size: 239 });
      return lastTwo(server).replace(/(NAK 6 at 1000 complete) (?![01]$)\d+/, "$1 any");
    },
    expected: [
      "ACK at 956 complete 0, NAK 6 at 1000 complete any",
      "ACK at 956 complete 0, NAK 6 at 1000 complete any",
      "ACK at 956 complete 0, NAK 6 at 1000 complete 0",
      "ACK at 956 complete 1, NAK 6 at 1000 complete 1",
      "ACK at 956 complete 0, NAK 6 at 1000 complete 1",
      "ACK at 717 complete 0, ACK at 956 complete 1",
    ],
  },
  {
    name: "a burst of 956 bytes, four full packets: its last two packets",
    opened: "/b.bin",
    run: (server, session) => {
      server.send(Op.BurstReadFile, { session, size: 239 });
      return lastTwo(server).replace(/(NAK 6 at 956 complete) (?![01]$)\d+/, "$1 any");
    },
    expected: [
      "ACK at 717 complete 0, NAK 6 at 956 complete any",
      "ACK at 717 complete 0, NAK 6 at 956 complete any",
      "ACK at 717 complete 0, NAK 6 at 717 complete 0",
      "ACK at 717 complete 0, NAK 6 at 717 complete 0",
      "ACK at 717 complete 0, NAK 6 at 956 complete 1",
      "ACK at 478 complete 0, ACK at 717 complete 1",
    ],
  },
  {
    name: "a read at 4,000,000,000",
    opened: "/a.bin",
    run: (server, session) => says(server.ask(Op.ReadFile, { session, offset: 4e9, size: 239 })),
    expected: ["NAK 6", "NAK 6", "NAK 2 22", "NAK 2 22", "NAK 2 22", "NAK 6"],
  },
  {
    name: "the listing of an empty directory",
    run: (server) => {
      mkdirSync(join(server.dir, "nothing"));
      const answer = server.ask(Op.ListDirectory, { session: 9, data: "/nothing" });
      return `${says(answer)} ${answer.data.length}`;
    },
    expected: ["ACK 0", "ACK 0", "NAK 6 1", "NAK 6 1", "NAK 6 1", "NAK 6 1"],
  },
  {
    name: "the bytes of a listing",
    run: (server) => server.ask(Op.ListDirectory, { session: 9, data: "/" }).data.toString().replaceAll("\0", "|"),
    expected: [
      "Fa.bin\t1000|S|Fb.bin\t956|S|Fbig.bin\t200000|Fempty.bin\t0|",
      "Fa.bin\t1000|S|Fb.bin\t956|S|Fbig.bin\t200000|Fempty.bin\t0|",
      "D.||Fa.bin\t1000||D..||Fb.bin\t956||Fbig.bin\t200000||Fempty.bin\t0||",
      "D.||Fa.bin\t1000||D..||Fb.bin\t956||Fbig.bin\t200000||Fempty.bin\t0||",
      "D.|Fa.bin\t1000|D..|Fb.bin\t956|Fbig.bin\t200000|Fempty.bin\t0|",
      "Fa.bin\t1000|Fb.bin\t956|Fbig.bin\t200000|Fempty.bin\t0|",
    ],
  },
  {
    name: "a listing from behind its end",
    run: (server) => says(server.ask(Op.ListDirectory, { session: 9, offset: 6, data: "/" })),
    expected: same("NAK 6"),
  },
];

for (const [column, flavour] of flavours.entries())
  for (const probe of probes)
    test(`${flavour}: ${probe.name}`, (t) => {
      const server = makeServer(t, flavour, { files });
      const session = probe.opened === undefined ? 9 : open(server, probe.opened);
      assert.equal(probe.run(server, session), probe.expected[column]);
      server.stop();
      assert.equal(server.clock.waiting, 0, "nothing is left to be done");
    });

for (const flavour of flavours)
  test(`${flavour}: what is asked at packet 20 of a burst`, (t) => {
    const server = makeServer(t, flavour, { files, link: "usb" });
    const session = open(server, "/big.bin");
    server.send(Op.BurstReadFile, { session, size: 239 });
    while (server.answers.filter((a) => a.reqOpcode === Op.BurstReadFile).length < 20) server.clock.advance(1);
    server.send(Op.ReadFile, { session, offset: 50_000, size: 239 });
    server.send(Op.TerminateSession, { session });
    server.clock.advance(8000);
    const order = server.answers.map((a) => a.reqOpcode);
    const burst = order.filter((op) => op === Op.BurstReadFile).length;
    const before = order.slice(0, order.indexOf(Op.ReadFile)).filter((op) => op === Op.BurstReadFile).length;
    if (flavour === "mavsdk") {
      assert.ok(before < 838 && burst === before, "the end stops the burst");
    } else if (flavour.startsWith("px4")) {
      assert.ok(before < 80, `answered after ${before} packets, at once`);
      assert.equal(burst, before, "the end stops the stream");
    } else {
      assert.equal(burst, flavour === "ardupilot-4.8" ? 838 : 500, "a whole burst, or to the end of the file with its refusal");
      assert.equal(before, burst, "nothing is answered before its end");
    }
    assert.equal(server.openSessions(), 0);
  });
