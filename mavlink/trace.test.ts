/** A trace is read as it was written, holds no content and no names, and says which line is wrong. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeFtp, emptyPacket, encodeFtp, FTP_PAYLOAD, Nak, Op, type FtpFields, type FtpPacket } from "./ftp.js";
import { readTrace, TraceWriter } from "./trace.js";

function packet(fields: Partial<FtpFields> & { readonly opcode: number }): FtpPacket {
  const payload = Buffer.alloc(FTP_PAYLOAD);
  encodeFtp({ targetSystem: 1, targetComponent: 1, seq: 5, ...fields }, payload);
  return decodeFtp(payload, emptyPacket());
}

function written(): { lines: string[]; writer: TraceWriter } {
  const lines: string[] = [];
  const writer = new TraceWriter((line) => lines.push(line), { autopilot: 3, firmware: "4.6.3", link: "serial:///dev/ttyACM0" });
  return { lines, writer };
}

test("what is written is read: requests, replies, refusals, sizes, listings, events", () => {
  const { lines, writer } = written();
  writer.request(0.04, packet({ opcode: Op.OpenFileRO, session: 9, data: Buffer.from("/APM/LOGS/00000042.BIN") }));
  writer.reply(3.26, packet({ opcode: Op.Ack, reqOpcode: Op.OpenFileRO, seq: 6, session: 9, data: Buffer.from([1, 2, 0, 0]) }));
  writer.request(4, packet({ opcode: Op.ReadFile, seq: 6, session: 9, offset: 239, size: 200 }));
  writer.reply(5, packet({ opcode: Op.Ack, reqOpcode: Op.ReadFile, seq: 7, offset: 239, data: Buffer.from("secret") }));
  writer.reply(
    6,
    packet({ opcode: Op.Nak, reqOpcode: Op.BurstReadFile, burstComplete: 1, offset: 717, data: Buffer.from([Nak.FailErrno, 22]) }),
  );
  writer.event(7, "armed");
  writer.reply(8, packet({ opcode: Op.Ack, reqOpcode: Op.ListDirectory, data: Buffer.from("D.\0\0Fa.BIN\t7\0\0S\0\0") }));
  const { head, rows } = readTrace(lines.join("\n"));
  assert.deepEqual(head, { autopilot: 3, firmware: "4.6.3", link: "serial:///dev/ttyACM0" });
  const reply = { kind: "reply", opcode: Op.Ack, session: 0, offset: 0, burstComplete: 0 };
  assert.deepEqual(rows, [
    { kind: "request", ms: 0, opcode: 4, seq: 5, session: 9, offset: 0, size: 22, path: "/APM/LOGS/00000042.BIN" },
    { ...reply, ms: 3.3, seq: 6, session: 9, size: 4, reqOpcode: 4, fileSize: 513 },
    { kind: "request", ms: 4, opcode: 5, seq: 6, session: 9, offset: 239, size: 200, path: undefined },
    { ...reply, ms: 5, seq: 7, offset: 239, size: 6, reqOpcode: 5 },
    { ...reply, opcode: Op.Nak, ms: 6, seq: 5, offset: 717, size: 2, reqOpcode: 15, burstComplete: 1, refusal: [2, 22] },
    { kind: "event", ms: 7, event: "armed" },
    {
      ...{ ...reply, ms: 8, seq: 5, size: 17, reqOpcode: 3 },
      listing: {
        zeros: 2,
        entries: [
          ["D", "."],
          ["F", rows[6]?.kind === "reply" ? rows[6].listing?.entries[1]?.[1] : "", 7],
          ["S", ""],
        ],
      },
    },
  ]);
});

test("no content, no checksum and no name that could say something is in it; the same name stays the same, as long as it was", () => {
  const { lines, writer } = written();
  const list = "Fsecret mission.txt\t5\0DAliceAndBob\0F00000042.BIN\t9\0";
  writer.reply(0, packet({ opcode: Op.Ack, reqOpcode: Op.ListDirectory, data: Buffer.from(list) }));
  writer.request(1, packet({ opcode: Op.OpenFileRO, data: Buffer.from("/AliceAndBob/secret mission.txt") }));
  writer.reply(2, packet({ opcode: Op.Ack, reqOpcode: Op.ReadFile, data: Buffer.from("the bytes of the file") }));
  writer.reply(3, packet({ opcode: Op.Ack, reqOpcode: Op.CalcFileCRC32, data: Buffer.from([0xde, 0xad, 0xbe, 0xef]) }));
  const text = lines.join("\n");
  for (const word of ["secret", "mission", "Alice", "bytes", "4022250974", "ZGVh"]) assert.ok(!text.includes(word), word);
  const { rows } = readTrace(text);
  const [listed, opened] = rows;
  assert.ok(listed?.kind === "reply" && opened?.kind === "request");
  const [[, file], [, dir], [, log]] = listed.listing?.entries as [[string, string], [string, string], [string, string]];
  assert.deepEqual(
    [file.length, dir.length, log, file.endsWith(".txt")],
    [19, 11, "00000042.BIN", true].with(0, "secret mission.txt".length),
  );
  assert.equal(opened.path, `/${dir}/${file}`);
});

test("a last line that was cut off is left out; what is wrong is named by its line", () => {
  const { lines, writer } = written();
  writer.event(1, "boot");
  const text = lines.join("\n");
  assert.equal(readTrace(`${text}\n[3,">",5`).rows.length, 1);
  assert.throws(() => readTrace(`${text}\n[3,">",5\n[4,"!","boot"]\n`), /line 3 of the trace is no JSON/);
  assert.throws(() => readTrace(`${text}\n[3,"?",5]\n`), /line 3 of the trace is none of its rows/);
  assert.throws(() => readTrace(`${text}\n[3,"<",5,1]\n`), /line 3/);
  assert.throws(() => readTrace(""), /empty/);
  assert.throws(() => readTrace('{"a":1}'), /not the head of a trace/);
  assert.throws(() => readTrace('{"trace":"filesync-mavftp","version":7}'), /version 7/);
});
