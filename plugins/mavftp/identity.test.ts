/** Who we are to the vehicle, and what we learn of it: our component, its clock and firmware, and whether it moves files at all. */
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test, type TestContext } from "node:test";
import { isFault } from "../../core/errors.js";
import { decodeFtp, emptyPacket, encodeFtp, FTP_PAYLOAD, Nak, Op } from "../../mavlink/ftp.js";
import { FrameParser, FrameWriter, type Frame } from "../../mavlink/frame.js";
import { FILE_TRANSFER_PROTOCOL, HEARTBEAT } from "../../mavlink/messages.js";
import { eventually, listAll, makeDevice, makeLogs, makeRig, never } from "./harness.test.js";

/** A vehicle of which only the heartbeat is the usual: `took` sees each frame of ours, and what it returns is answered. Resolves with a device that it is attached to. */
async function standIn(t: TestContext, systemId: number, took: (frame: Frame, writer: FrameWriter) => Buffer | undefined) {
  const server = createServer((socket) => {
    const writer = new FrameWriter(systemId, 1);
    const beat = () => void socket.write(writer.encode(HEARTBEAT, Buffer.from([0, 0, 0, 0, 2, 12, 1, 3, 3])));
    beat();
    const timer = setInterval(beat, 500);
    const parser = new FrameParser((frame) => {
      const answer = took(frame, writer);
      if (answer !== undefined) socket.write(answer);
    });
    socket.on("data", (chunk) => parser.push(chunk));
    socket.on("close", () => clearInterval(timer));
    socket.on("error", () => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const rig = makeDevice(t, { url: `tcpout://127.0.0.1:${(server.address() as { port: number }).port}` });
  await rig.attached();
  return rig;
}

test("we are a component of the vehicle's own system, and never a ground station", async (t) => {
  const heard: string[] = [];
  await standIn(t, 7, (frame) => {
    if (frame.messageId === HEARTBEAT) heard.push(`${frame.systemId}/${frame.componentId} type ${frame.payload[4] ?? 0}`);
    return undefined;
  });
  await eventually(() => heard.includes("7/191 type 18"), "our heartbeat");
  assert.ok(!heard.some((who) => who.startsWith("255/") || who.endsWith("type 6")), heard.join());
});

test("an autopilot that answers no FTP is said to be one", async (t) => {
  const { dir } = makeLogs(t, {});
  const rig = await makeRig(t, { dir, ftp: false });
  await rig.attached();
  await assert.rejects(listAll(rig.source), (e) => isFault(e, "transient") && /answers no MAVLink FTP/.test(e.message));
});

test("an autopilot that knows no FTP commands is denied", async (t) => {
  // It answers each request with UnknownCommand.
  const out = Buffer.alloc(FTP_PAYLOAD);
  const packet = emptyPacket();
  const rig = await standIn(t, 1, (frame, writer) => {
    if (frame.messageId !== FILE_TRANSFER_PROTOCOL) return undefined;
    decodeFtp(frame.payload, packet);
    const { seq, opcode } = packet;
    const refusal = { targetSystem: frame.systemId, targetComponent: frame.componentId, seq: seq + 1, opcode: Op.Nak, reqOpcode: opcode };
    return writer.encode(FILE_TRANSFER_PROTOCOL, out, encodeFtp({ ...refusal, data: Buffer.from([Nak.UnknownCommand]) }, out));
  });
  await assert.rejects(rig.device.probe(never), (e) => isFault(e, "denied") && /answers no MAVLink FTP/.test(e.message));
});

test("the vehicle's clock and firmware are passed on", async (t) => {
  const { dir } = makeLogs(t, {});
  const rig = await makeRig(t, { dir });
  await eventually(() => rig.told.length > 0 && rig.said.length > 0, "time and version");
  assert.ok(Math.abs((rig.told[0] ?? 0) - Date.now()) < 5000);
  assert.match(rig.said.join(), /1\.15\.4/);
});

test("another autopilot on the link is told, once, also where it was changed while nobody looked", async (t) => {
  const { dir } = makeLogs(t, {});
  const told = (rig: { readonly said: readonly string[] }) => rig.said.filter((line) => /another autopilot than before/.test(line)).length;
  const known = async (rig: { readonly said: readonly string[] }, times = 1): Promise<void> =>
    eventually(() => rig.said.filter((line) => /runs firmware/.test(line)).length === times, "its version");
  const first = await makeRig(t, { dir });
  await known(first);
  await first.device.close();
  const second = await makeRig(t, { dir, systemId: 2 }, {}, first.memory);
  await known(second);
  await second.sim.dropLink();
  await known(second, 2);
  assert.deepEqual([told(first), told(second)], [0, 1]);
});
