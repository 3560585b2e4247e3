/**
 * What holds in every test, whatever it is about: no session is left open, none is reset that may be another's, no more requests wait than the autopilot
 * has room for, and nothing is asked for again and again. The harness asks after each test, when the device has been closed.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { SimOptions } from "../../sim/sim.js";
import { emptyStats, type SimStats } from "../../sim/stats.js";
import { RESEND_LEAST_MS } from "./pace.js";

/** Bytes of files that were served, each opening by itself: those of which nothing had been served before. */
export class Served {
  fresh = 0;

  opening(): (offset: number, bytes: number) => void {
    const known = new Map<number, number>();
    return (offset, bytes) => {
      const before = known.get(offset) ?? 0;
      if (bytes <= before) return;
      known.set(offset, bytes);
      this.fresh += bytes - before;
    };
  }
}

/** Requests that wait: what an ArduPilot has room for; what is enough for every link to a PX4. */
const ARDUPILOT_QUEUE = 5;
const PX4_MOST = 8;
/** What is asked for twice beside what was lost: a share, and some packets at each turn of things. */
const AGAIN_SHARE = 1.3;
const AGAIN_BYTES = 100_000;
/** The faults that only lose, repeat or delay frames. */
const OF_FRAMES = ["loss", "dup", "reorder", "delay", "corrupt", "junk", "noise", "short", "late", "crc", "radio"];

/** What this process may stand still at a time before numbers say nothing of the device: from then on it asks twice for what is late, as it should. */
export const STOOD_MOST_MS = 50;

/** Less than after what a request counts as lost. */
const LATE_MOST_MS = RESEND_LEAST_MS - 10;

/** `open`: sessions that were open when the device had been closed; `stoodMs`: the longest that this process stood still. */
export function holdsTo(
  stats: SimStats,
  { open, stoodMs }: { readonly open: number; readonly stoodMs: number },
  served: Served,
  { faults = {}, autopilot = "px4" }: Partial<SimOptions>,
): void {
  const alone = stats.secondRequests === 0;
  const share = (name: string): number => Number.parseFloat(faults[name] ?? "0") / 100;
  if (alone) {
    // After a refusal that was made up the autopilot has a session of which we were told that it is gone.
    if (faults.nak === undefined) assert.equal(open, 0, `${open} sessions were left open`);
    assert.equal(stats.requests.ResetSessions ?? 0, 0, "sessions were reset that may be another's");
  }
  if (stoodMs > STOOD_MOST_MS) return;
  // What counts as lost is asked for again, and of that some finds no room. Elsewhere a machine may be busy too.
  if (stoodMs <= LATE_MOST_MS && alone && Object.keys(faults).length === 0 && stats.payloadBytes <= served.fresh) {
    const most = autopilot.startsWith("ardupilot") ? ARDUPILOT_QUEUE : PX4_MOST;
    assert.ok(stats.peakReads <= most, `${stats.peakReads} reads waited at a time, at most ${most} may`);
    assert.deepEqual([stats.droppedByQueue, stats.droppedByReceive], [0, 0], "requests found no room");
  }
  if (!alone || Object.keys(faults).some((name) => !OF_FRAMES.includes(name))) return;
  const lost = (1 - share("loss")) * (1 - share("corrupt"));
  const most = (served.fresh * AGAIN_SHARE * (1 + share("dup")) * (1 + share("reorder"))) / lost + AGAIN_BYTES;
  assert.ok(
    stats.payloadBytes <= most,
    `${stats.payloadBytes} bytes were asked for, for ${served.fresh} that are different; at most ${most}`,
  );
}

test("each of these is found", () => {
  const served = new Served();
  const one = served.opening();
  one(0, 239);
  one(239, 100);
  one(239, 239);
  one(0, 239);
  served.opening()(0, 239);
  assert.equal(served.fresh, 3 * 239);
  const tries = (stats: Partial<SimStats>, open = 0, options: Partial<SimOptions> = {}, stoodMs = 0) => {
    holdsTo({ ...emptyStats(), ...stats }, { open, stoodMs }, served, options);
  };
  tries({ peakReads: 8, payloadBytes: 100_000 });
  tries({ peakReads: 20, payloadBytes: 4 * 239 });
  assert.throws(() => tries({}, 1), /1 sessions were left open/);
  tries({ secondRequests: 1 }, 1);
  assert.throws(() => tries({ requests: { ResetSessions: 1 } }), /were reset/);
  assert.throws(() => tries({ peakReads: 6 }, 0, { autopilot: "ardupilot-4.6" }), /6 reads waited/);
  assert.throws(() => tries({ peakReads: 9 }), /9 reads waited/);
  assert.throws(() => tries({ droppedByQueue: 1 }), /no room/);
  assert.throws(() => tries({ payloadBytes: 110_000 }, 0, { faults: { loss: "1%" } }), /were asked for/);
  tries({ payloadBytes: 110_000 }, 0, { faults: { loss: "1%" } }, 200);
  tries({ droppedByReceive: 1 }, 0, {}, 200);
  tries({ peakReads: 10, droppedByQueue: 5 }, 0, { autopilot: "ardupilot-4.6" }, 45);
  assert.throws(() => tries({}, 1, {}, 200), /1 sessions were left open/);
});
