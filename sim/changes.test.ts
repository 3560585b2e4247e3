/**
 * How each server writes: its answers as its code gives them (mavlink_ftp.cpp of PX4; GCS_FTP.cpp and AP_Filesystem_FATFS.cpp of ArduPilot;
 * mavlink_ftp_server.cpp of MAVSDK), and what is on the disk then. One column per flavour.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { Op } from "../mavlink/ftp.js";
import { makeServer, open, pattern, says, type Server } from "./harness.test.js";

const flavours = ["px4", "px4-1.18", "ardupilot-4.6", "ardupilot-4.7", "ardupilot-4.8", "mavsdk"] as const;
type Column = readonly [string, string, string, string, string, string];
const same = (answer: string): Column => [answer, answer, answer, answer, answer, answer];

const card = "/fs/microsd";
const at = (server: Server, name: string): string => join(server.dir, card, name);
const size = (server: Server, name: string): string => (existsSync(at(server, name)) ? String(readFileSync(at(server, name)).length) : "-");
const rename = (server: Server, from: string, to: string): string =>
  says(server.ask(Op.Rename, { session: 9, data: `${card}/${from}\0${card}/${to}` }));
const one = (server: Server, opcode: number, name: string): string => says(server.ask(opcode, { session: 9, data: `${card}/${name}` }));
/** The session. */
function begin(server: Server, opcode: number, name: string): number {
  const answer = server.ask(opcode, { session: 9, data: `${card}/${name}` });
  assert.equal(answer.opcode, Op.Ack, says(answer));
  return answer.session;
}
const write = (server: Server, session: number, offset: number, data: Buffer | string): string =>
  says(server.ask(Op.WriteFile, { session, offset, data }));

interface Probe {
  readonly name: string;
  readonly run: (server: Server) => string;
  readonly expected: Column;
}

const probes: readonly Probe[] = [
  {
    name: "making a file, writing it, ending it",
    run: (server) => {
      const session = begin(server, Op.CreateFile, "new.bin");
      const answers = [write(server, session, 0, pattern(239)), write(server, session, 239, pattern(100))];
      const read = says(server.ask(Op.ReadFile, { session, size: 10 }));
      server.ask(Op.TerminateSession, { session });
      return `${answers.join()} read ${read} ${size(server, "new.bin")} ${server.openSessions()}`;
    },
    expected: [
      // The size of the file, when it was opened, is 0: that is its end.
      ...(["ACK,ACK read NAK 6 339 0", "ACK,ACK read NAK 6 339 0"] as const),
      ...(["ACK,ACK read NAK 1 339 0", "ACK,ACK read NAK 1 339 0", "ACK,ACK read NAK 1 339 0", "ACK,ACK read NAK 6 339 0"] as const),
    ],
  },
  {
    name: "a repetition of a write is the same write",
    run: (server) => {
      const session = begin(server, Op.CreateFile, "new.bin");
      const data = pattern(100);
      const answers = [1, 2].map(() => says(server.ask(Op.WriteFile, { session, seq: 5000, offset: 0, data })));
      return `${answers.join()} ${size(server, "new.bin")}`;
    },
    expected: same("ACK,ACK 100"),
  },
  {
    name: "making a file that is there empties it",
    run: (server) => `${begin(server, Op.CreateFile, "a.bin") >= 0} ${size(server, "a.bin")}`,
    expected: same("true 0"),
  },
  {
    name: "opening a file for writing, and writing in the middle",
    run: (server) => {
      const session = begin(server, Op.OpenFileWO, "a.bin");
      const before = size(server, "a.bin");
      return `${before} ${write(server, session, 500, "new")} ${size(server, "a.bin")}`;
    },
    expected: ["1000 ACK 1000", "1000 ACK 1000", "1000 ACK 1000", "1000 ACK 1000", "1000 ACK 1000", "0 ACK 503"],
  },
  {
    name: "opening for writing what is not there",
    run: (server) => `${one(server, Op.OpenFileWO, "none.bin")} ${size(server, "none.bin")}`,
    expected: ["ACK 0", "ACK 0", "NAK 10 -", "ACK 0", "ACK 0", "NAK 10 -"],
  },
  {
    name: "making a file where there is no directory",
    run: (server) => one(server, Op.CreateFile, "none/new.bin"),
    expected: ["NAK 10", "NAK 10", "NAK 10", "NAK 10", "NAK 10", "NAK 1"],
  },
  {
    name: "a second file while one is open in this session",
    run: (server) => {
      begin(server, Op.CreateFile, "new.bin");
      return one(server, Op.CreateFile, "newer.bin");
    },
    expected: ["NAK 5", "NAK 5", "NAK 1", "NAK 1", "NAK 1", "ACK"],
  },
  {
    name: "writing with no file open",
    run: (server) => write(server, 0, 0, "x"),
    // On a PX4 the work buffer is looked at first.
    expected: ["NAK 9", "NAK 9", "NAK 10", "NAK 10", "NAK 10", "NAK 1"],
  },
  {
    name: "writing with a file open for reading",
    run: (server) => write(server, open(server, `${card}/a.bin`), 0, "x"),
    expected: ["NAK 2 9", "NAK 2 9", "NAK 1", "NAK 1", "NAK 1", "NAK 1"],
  },
  {
    name: "a name that FAT cannot hold",
    run: (server) => one(server, Op.CreateFile, "12:30.bin"),
    expected: ["NAK 2 22", "NAK 2 22", "NAK 2 22", "NAK 2 22", "NAK 2 22", "ACK"],
  },
  {
    name: "a rename, and what it replaces",
    run: (server) =>
      [rename(server, "a.bin", "c.bin"), rename(server, "none", "d.bin"), rename(server, "c.bin", "b.bin"), size(server, "b.bin")].join(),
    expected: [
      ...(["ACK,NAK 10,ACK,1000", "ACK,NAK 10,ACK,1000"] as const),
      ...(["ACK,NAK 10,NAK 8,10", "ACK,NAK 10,NAK 8,10", "ACK,NAK 10,NAK 8,10", "ACK,NAK 10,ACK,1000"] as const),
    ],
  },
  {
    name: "removing a file, what is not there, and a directory",
    run: (server) => ["a.bin", "none", "empty", "full"].map((name) => one(server, Op.RemoveFile, name)).join(),
    expected: [
      ...(["ACK,NAK 10,NAK 2 21,NAK 2 21", "ACK,NAK 10,NAK 2 21,NAK 2 21"] as const),
      ...(["ACK,NAK 10,ACK,NAK 2 13", "ACK,NAK 10,ACK,NAK 2 13", "ACK,NAK 10,ACK,NAK 2 13", "ACK,NAK 10,ACK,NAK 1"] as const),
    ],
  },
  {
    name: "making a directory, twice, and below nothing; removing it",
    run: (server) =>
      [
        ...["new", "new", "none/new"].map((name) => one(server, Op.CreateDirectory, name)),
        one(server, Op.RemoveDirectory, "new"),
        existsSync(at(server, "new")),
      ].join(),
    expected: [
      ...(["ACK,NAK 8,NAK 10,ACK,false", "ACK,NAK 8,NAK 10,ACK,false", "ACK,NAK 8,NAK 10,ACK,false"] as const),
      ...(["ACK,NAK 8,NAK 10,ACK,false", "ACK,NAK 8,NAK 10,ACK,false", "ACK,NAK 8,NAK 2 2,ACK,false"] as const),
    ],
  },
  {
    name: "a card that gets full in a write, and after it; what is removed gives room",
    run: (server) => {
      server.disk.freeBytes = 300;
      const session = begin(server, Op.CreateFile, "new.bin");
      const answers = [0, 239, 300].map((offset) => write(server, session, offset, pattern(239)));
      const full = size(server, "new.bin");
      server.ask(Op.TerminateSession, { session });
      const removed = one(server, Op.RemoveFile, "a.bin");
      const again = begin(server, Op.OpenFileWO, "new.bin");
      return `${answers.join()} ${full} ${removed} ${write(server, again, 300, pattern(239))} ${size(server, "new.bin")}`;
    },
    expected: [
      ...(["ACK,NAK 2 28,NAK 2 28 300 ACK ACK 539", "ACK,NAK 2 28,NAK 2 28 300 ACK ACK 539"] as const),
      ...(["ACK,ACK,NAK 2 5 300 ACK ACK 539", "ACK,ACK,NAK 2 5 300 ACK ACK 539", "ACK,ACK,NAK 2 5 300 ACK ACK 539"] as const),
      // It empties the file that it opens.
      "ACK,NAK 1,NAK 1 300 ACK ACK 539",
    ],
  },
  {
    name: "on a full card a directory finds no room, an empty file does",
    run: (server) => {
      server.disk.freeBytes = 100;
      return [one(server, Op.CreateDirectory, "new"), existsSync(at(server, "new")), one(server, Op.CreateFile, "new.bin")].join();
    },
    expected: [
      ...(["NAK 2 28,false,ACK", "NAK 2 28,false,ACK", "NAK 2 13,false,ACK", "NAK 2 13,false,ACK", "NAK 2 13,false,ACK"] as const),
      "NAK 2 28,false,ACK",
    ],
  },
];

const files = { "fs/microsd/a.bin": 1000, "fs/microsd/b.bin": 10, "fs/microsd/full/x.bin": 1 };

for (const { name, run, expected } of probes)
  for (const [column, flavour] of flavours.entries())
    test(`${flavour}: ${name}`, (t) => {
      const server = makeServer(t, flavour, { files });
      mkdirSync(at(server, "empty"));
      assert.equal(run(server), expected[column]);
    });

for (const flavour of ["px4", "px4-1.18"]) {
  test(`${flavour}: only below /fs/microsd may be written`, (t) => {
    const server = makeServer(t, flavour, { files: { ...files, "etc/a.bin": 10 } });
    assert.equal(says(server.ask(Op.RemoveFile, { data: "/etc/a.bin" })), "NAK 9");
    assert.equal(says(server.ask(Op.RemoveFile, { data: "/fs/microsd/../../etc/a.bin" })), "NAK 9");
    assert.equal(says(server.ask(Op.Rename, { data: "/fs/microsd/a.bin\0/etc/b.bin" })), "NAK 9");
    assert.equal(says(server.ask(Op.CreateFile, { data: "/etc/b.bin" })), "ACK", "that is looked at when it is written");
    assert.equal(says(server.ask(Op.WriteFile, { data: "x" })), "NAK 9");
  });

  test(`${flavour}: a write goes by the path that was named last, for 2 s`, (t) => {
    const server = makeServer(t, flavour, { files });
    begin(server, Op.CreateFile, "new.bin");
    const listed = (dir: string): string => {
      server.ask(Op.ListDirectory, { data: dir });
      return write(server, 0, 0, "x");
    };
    assert.deepEqual([listed("/fs/microsd/full"), listed("/fs/microsd"), listed("/fs/microsd/")], ["ACK", "NAK 9", "ACK"]);
    server.ask(Op.CalcFileCRC32, { data: "/etc" });
    assert.equal(write(server, 0, 0, "x"), "ACK", "a checksum has a buffer of its own");
    server.clock.advance(2001);
    assert.equal(write(server, 0, 0, "x"), "NAK 9");
    assert.equal(server.openSessions(), 1);
  });

  test(`${flavour}: a file is cut, and made longer`, (t) => {
    const server = makeServer(t, flavour, { files });
    for (const [offset, expected] of [
      [100, "100"],
      [0, "0"],
      [50, "50"],
    ] as const) {
      assert.equal(says(server.ask(Op.TruncateFile, { data: `${card}/a.bin`, offset })), "ACK");
      assert.equal(size(server, "a.bin"), expected);
    }
  });
}

test("ardupilot-4.6: whoever has made a file has the session", (t) => {
  const server = makeServer(t, "ardupilot-4.6", { files });
  begin(server, Op.CreateFile, "new.bin");
  assert.equal(says(server.ask(Op.ListDirectory, { session: 8, data: card })), "NAK 4");
  assert.equal(write(server, 8, 0, "x"), "NAK 4");
  assert.equal(write(server, 9, 0, "x"), "ACK");
});

for (const flavour of flavours)
  test(`${flavour}: no change leads out of its directory`, (t) => {
    const server = makeServer(t, flavour, { files });
    const outside = `${server.dir}-outside`;
    writeFileSync(outside, "x");
    t.after(() => rmSync(outside));
    symlinkSync("..", at(server, "up"));
    const name = basename(outside);
    for (const path of [`/../${name}`, `${card}/../../../${name}`, `${card}/up/../../../${name}`])
      assert.notEqual(says(server.ask(Op.RemoveFile, { session: 9, data: path })), "ACK", path);
    symlinkSync(`../../../${name}`, at(server, "leak"));
    assert.notEqual(one(server, Op.CreateFile, "leak"), "ACK");
    assert.equal(readFileSync(outside, "utf8"), "x");
  });
