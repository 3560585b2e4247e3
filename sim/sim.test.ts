/** The simulated vehicle answers as PX4's own server code did to the same probes, keeps its files in, and paces its wire. */
import assert from "node:assert/strict";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import { Nak, Op } from "../mavlink/ftp.js";
import * as m from "../mavlink/messages.js";
import { stages } from "./faults.js";
import { makeDir, type Answer } from "./harness.test.js";
import { seeded } from "./random.js";
import { startSim, type SimOptions } from "./sim.js";
import { makeClient, start } from "./socket.test.js";

const nak = (code: number, ...more: number[]) => [Op.Nak, ...[code, ...more]];
const shape = (answer: Answer) => [answer.opcode, ...answer.data];

test("it says that it is a simulator, that it lives, what it runs and what time it is", async (t) => {
  const { sim, client } = await start(t);
  await client.until(() => client.seen.some((s) => s.id === m.SYSTEM_TIME), "a whole beat");
  const find = (id: number) => client.seen.find((s) => s.id === id)?.payload as Buffer;
  assert.match(m.decodeStatusText(find(m.STATUSTEXT)).text, /simulator/);
  const beat = m.decodeHeartbeat(find(m.HEARTBEAT));
  assert.deepEqual([beat.autopilot, beat.baseMode & m.MODE_ARMED], [m.AUTOPILOT_PX4, 0]);
  assert.equal(m.decodeSysStatus(find(m.SYS_STATUS)).enabled, 0);
  client.command(m.AUTOPILOT_VERSION);
  await client.until(() => client.seen.some((s) => s.id === m.AUTOPILOT_VERSION), "a version");
  assert.equal(m.decodeAutopilotVersion(find(m.AUTOPILOT_VERSION)).flightSwVersion >>> 16, 0x010f);
  assert.equal(m.decodeCommandAck(find(m.COMMAND_ACK)).result, m.RESULT_ACCEPTED);
  client.seen.length = 0;
  sim.setArmed(true);
  await client.until(() => client.seen.some((s) => s.id === m.SYS_STATUS), "a beat at once");
  assert.ok((m.decodeHeartbeat(find(m.HEARTBEAT)).baseMode & m.MODE_ARMED) !== 0 && sim.armed);
  assert.equal(m.decodeSysStatus(find(m.SYS_STATUS)).enabled, m.SENSOR_LOGGING);
});

test("the answers of a PX4 to the probes that tell autopilots apart", async (t) => {
  const { dir, client, sim } = await start(t);
  const bytes = Buffer.from(Array.from({ length: 1000 }, (_, i) => i % 251));
  writeFileSync(join(dir, "a.ulg"), bytes);
  mkdirSync(join(dir, "empty"));
  const { ask } = client;
  assert.deepEqual(shape(await ask(Op.ReadFile, { size: 239 })), nak(Nak.InvalidSession), "read without open");
  assert.deepEqual(shape(await ask(Op.TerminateSession)), nak(Nak.InvalidSession), "terminate without open");
  const open = await ask(Op.OpenFileRO, { session: 9, data: "/a.ulg" });
  assert.deepEqual([open.opcode, open.session, open.data.readUInt32LE()], [Op.Ack, 0, 1000], "its session is always 0");
  assert.deepEqual(shape(await ask(Op.OpenFileRO, { data: "/a.ulg" })), nak(Nak.NoSessionsAvailable));
  assert.deepEqual(shape(await ask(Op.ReadFile, { session: 9, size: 239 })), nak(Nak.InvalidSession));
  const list = await ask(Op.ListDirectory, { session: 5, data: "/" });
  assert.deepEqual([list.opcode, list.session, list.data.toString()], [Op.Ack, 5, "Fa.ulg\t1000\0S\0Dempty\0S\0"]);
  assert.deepEqual(shape(await ask(Op.ListDirectory, { offset: 4, data: "/" })), nak(Nak.Eof));
  assert.deepEqual(shape(await ask(Op.ListDirectory, { data: "/empty" })), [Op.Ack], "an empty directory is an empty answer");
  const read = await ask(Op.ReadFile, { offset: 900, size: 239 });
  assert.deepEqual([read.opcode, read.offset, read.data], [Op.Ack, 900, bytes.subarray(900)]);
  assert.equal((await ask(Op.ReadFile, { offset: 0, size: 20 })).data.length, 20);
  assert.deepEqual(shape(await ask(Op.ReadFile, { offset: 4e9, size: 239 })), nak(Nak.Eof));
  assert.deepEqual(shape(await ask(16, { data: "/" })), nak(Nak.UnknownCommand));
  assert.deepEqual(shape(await ask(Op.CalcFileCRC32, { data: "/none" })), nak(Nak.FailErrno, 0));
  const crc = (await ask(Op.CalcFileCRC32, { data: "/a.ulg\0" })).data.readUInt32LE();
  assert.equal(crc, (crc32(bytes, 0xffffffff) ^ 0xffffffff) >>> 0);
  assert.deepEqual(shape(await ask(Op.OpenFileRO, { seq: 5000, data: "/none" })), nak(Nak.NoSessionsAvailable));
  assert.equal(
    (await ask(Op.ListDirectory, { seq: 5000, data: "/" })).reqOpcode,
    Op.OpenFileRO,
    "the same number again: the last small reply",
  );
  assert.deepEqual(shape(await ask(Op.RemoveFile, { data: "/a.ulg" })), nak(Nak.FileProtected));
  assert.deepEqual(shape(await ask(Op.ResetSessions)), [Op.Ack]);
  assert.deepEqual(shape(await ask(Op.OpenFileRO, { data: "/none" })), nak(Nak.FileNotFound));
  assert.deepEqual([sim.openSessions(), sim.stats.sessionsOpened, sim.stats.sessionsClosed], [0, 1, 1]);
});

test("no path leads out of its directory", async (t) => {
  const dir = makeDir(t);
  mkdirSync(join(dir, "card"));
  writeFileSync(join(dir, "outside.txt"), "secret");
  writeFileSync(join(dir, "card", "in.ulg"), "log");
  symlinkSync("../outside.txt", join(dir, "card", "leak"));
  symlinkSync("..", join(dir, "card", "up"));
  const { client } = await start(t, { dir: join(dir, "card") });
  for (const path of [
    "/../outside.txt",
    "../outside.txt",
    "/leak",
    "/up/outside.txt",
    "/in.ulg/../../outside.txt",
    "/./../..//outside.txt",
  ])
    assert.deepEqual(shape(await client.ask(Op.OpenFileRO, { data: path })), nak(Nak.FileNotFound), path);
  assert.deepEqual(shape(await client.ask(Op.CalcFileCRC32, { data: "/leak" })), nak(Nak.FailErrno, 0));
  assert.equal((await client.ask(Op.ListDirectory, { data: "/.." })).data.toString(), "Fin.ulg\t3\0S\0S\0S\0S\0");
});

test("a burst runs in ticks to the end of file, or asks to be requested again after 35,000 bytes", async (t) => {
  const { dir, client } = await start(t, { link: "udp" });
  writeFileSync(join(dir, "a.ulg"), Buffer.alloc(60_000, 7));
  await client.ask(Op.OpenFileRO, { data: "/a.ulg" });
  client.answers.length = 0;
  client.send(Op.BurstReadFile, { size: 239 });
  const last = () => client.answers.at(-1);
  await client.until(() => (last()?.burstComplete ?? 0) === 1 && (last()?.offset ?? 0) > 34_000, "the end of a burst");
  const next = (last()?.offset ?? 0) + (last()?.data.length ?? 0);
  assert.ok(next > 35_000 && next < 37_000);
  client.send(Op.BurstReadFile, { offset: next, size: 239 });
  await client.until(() => last()?.opcode === Op.Nak, "the end of file");
  assert.deepEqual([last()?.data[0], last()?.offset], [Nak.Eof, 60_000]);
  let at = 0;
  for (const answer of client.answers.filter((a) => a.opcode === Op.Ack)) {
    assert.equal(answer.offset, at);
    at += answer.data.length;
  }
  assert.equal(at, 60_000);
});

test("frames that find the transmit ring full are dropped whole", async (t) => {
  const { dir, client, sim } = await start(t, { link: "uart:57600", transmitRing: 2000 });
  writeFileSync(join(dir, "a.ulg"), Buffer.alloc(60_000, 7));
  await client.ask(Op.OpenFileRO, { data: "/a.ulg" });
  const before = client.answers.length;
  for (let i = 0; i < 20; i++) client.send(Op.ReadFile, { offset: i * 239, size: 239 });
  await client.until(() => client.answers.length >= before + 7, "what fits");
  assert.ok(sim.stats.droppedByRing >= 5, `${sim.stats.droppedByRing} dropped`);
});

test("what cannot be is said in words that name what can", async (t) => {
  const dir = makeDir(t);
  const wrong = (options: Partial<SimOptions>) => startSim({ listen: "tcpin://127.0.0.1:0", dir, ...options });
  await assert.rejects(wrong({ faults: { gremlins: "1" } }), /no fault "gremlins"; known: loss, dup/);
  await assert.rejects(wrong({ faults: { loss: "200%" } }), /loss=200%: expected/);
  await assert.rejects(wrong({ autopilot: "px5" }), /no autopilot "px5"; known: px4/);
  await assert.rejects(wrong({ link: "wifi" }), /no link model "wifi"; known: usb, uart:BAUD/);
  await assert.rejects(wrong({ listen: "http://x" }), /tcpin:\/\/HOST:PORT/);
  await assert.rejects(wrong({ dir: join(dir, "none") }));
  writeFileSync(join(dir, "file"), "");
  await assert.rejects(wrong({ dir: join(dir, "file") }), /not a directory/);
  await assert.rejects(wrong({ listen: `pty:${join(dir, "file")}` }), /not a link/);
});

test("the same seed gives the same faults, another gives others", () => {
  const lost = (seed: number): string => {
    let row = "";
    const random = seeded(seed);
    const after = (): void => assert.fail("loss waits for nothing");
    const stage = stages<Buffer>({ loss: "30%" }, { random, after, now: () => 0, damage: () => undefined, junk: () => undefined });
    for (let i = 0; i < 200; i++) {
      let passed = "-";
      stage?.(Buffer.alloc(1), () => (passed = "+"));
      row += passed;
    }
    return row;
  };
  assert.equal(lost(5), lost(5));
  assert.notEqual(lost(5), lost(6));
});

test("a link that is dropped again while it is down comes back all the same", async (t) => {
  const { sim } = await start(t);
  await Promise.all([sim.dropLink(30), sim.dropLink(10), sim.dropLink(20)]);
  const client = await makeClient(t, sim);
  await client.until(() => client.seen.length > 0, "a word from it");
});
