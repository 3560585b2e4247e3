/** Why frames are parsed by our own code (docs/decisions/0003): the same bytes to node-mavlink's parser and to ours. */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import * as oracle from "node-mavlink";
import { FrameParser, FrameWriter } from "../../mavlink/frame.js";
import * as m from "../../mavlink/messages.js";

function heartbeats(count: number): Buffer[] {
  const writer = new FrameWriter(1, 1);
  return Array.from({ length: count }, () =>
    Buffer.from(writer.encode(m.HEARTBEAT, m.encodeHeartbeat({ customMode: 0, type: 2, autopilot: 12, baseMode: 0, systemStatus: 4 }))),
  );
}

async function byNodeMavlink(bytes: Buffer, chunk = bytes.length): Promise<number> {
  let seen = 0;
  const chunks = Array.from({ length: Math.ceil(bytes.length / chunk) }, (_, n) => bytes.subarray(n * chunk, (n + 1) * chunk));
  const parser = Readable.from(chunks, { objectMode: false })
    .pipe(new oracle.MavLinkPacketSplitter())
    .pipe(new oracle.MavLinkPacketParser());
  for await (const packet of parser) if (packet instanceof oracle.MavLinkPacket) seen += 1;
  return seen;
}

function byUs(bytes: Buffer): number {
  let seen = 0;
  new FrameParser(() => (seen += 1)).push(bytes);
  return seen;
}

test("a false start byte on the line costs node-mavlink real frames, and us none", async (t) => {
  const bytes = Buffer.concat(heartbeats(20).flatMap((frame, n) => (n % 5 === 0 ? [Buffer.from([0xfd, 0xff]), frame] : [frame])));
  const theirs = await byNodeMavlink(bytes);
  t.diagnostic(`node-mavlink ${theirs} of 20, ours ${byUs(bytes)} of 20`);
  assert.equal(byUs(bytes), 20);
  assert.ok(theirs < 20, "node-mavlink finds them all by now: the decision can be looked at again");
});

test("a megabyte of text, in pieces as a serial port gives them, before the first frame", async (t) => {
  const bytes = Buffer.concat([Buffer.from("nsh> a line of a boot log\r\n".repeat(40_000)), ...heartbeats(3)]);
  const start = performance.now();
  assert.equal(await byNodeMavlink(bytes, 512), 3);
  const middle = performance.now();
  assert.equal(byUs(bytes), 3);
  t.diagnostic(`node-mavlink ${Math.round(middle - start)} ms, ours ${Math.round(performance.now() - middle)} ms`);
});
