/** Requests over a channel whose window opens late. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { Duplex } from "node:stream";
import { test } from "node:test";
import { Fault } from "../../core/errors.js";
import { bytes } from "../../test/conformance/upload.js";
import { Type, Wire } from "./wire.js";

test("requests of one turn share a packet; what waits for the window is not written over by what comes later", async () => {
  const packets: Buffer[] = [];
  let shut: (() => void) | undefined;
  let open = false;
  const channel = new Duplex({
    read: () => undefined,
    write(packet: Buffer, _encoding, done) {
      const take = (): void => {
        packets.push(Buffer.from(packet));
        done();
      };
      if (open) take();
      else shut = take;
    },
  });
  const wire = new Wire(channel, 60_000);
  const content = bytes(200_000);
  const handle = Buffer.from("h");
  const ended: Promise<unknown>[] = [];
  const turn = (): Promise<unknown> => new Promise((resolve) => setImmediate(resolve));
  const ask = (type: number, parts: readonly (Buffer | bigint)[]): void => void ended.push(assert.rejects(wire.ask(type, parts), Fault));
  for (let at = 0; at < content.length; at += 20_000) {
    ask(Type.write, [handle, BigInt(at), content.subarray(at, at + 20_000)]);
    ask(Type.fstat, [handle]);
    ask(Type.fstat, [handle]);
    // The second half goes while the window is open, into memory that is used again.
    if (at === 100_000) {
      const drained = once(channel, "drain");
      open = true;
      shut?.();
      if (channel.writableNeedDrain) await drained;
    }
    await turn();
  }
  assert.deepEqual(
    packets.map((packet) => packet.length).slice(0, 10),
    Array.from({ length: 10 }, () => 9 + 5 + 8 + 20_004 + 2 * 14),
  );
  const sent = Buffer.concat(packets);
  for (let n = 0, at = 0; n < 10; n++, at += 20_054) {
    const data = sent.subarray(at + 26, at + 20_026);
    assert.ok(data.equals(content.subarray(n * 20_000, (n + 1) * 20_000)), `the bytes of request ${n}`);
  }
  wire.end(new Fault("aborted", "enough"));
  await Promise.all(ended);
});
