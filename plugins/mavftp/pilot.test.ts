/** What the pilot is told, and when: by a clock of the test's own. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "../../core/plugin.js";
import { decodeStatusText, STATUSTEXT } from "../../mavlink/messages.js";
import { Pilot } from "./pilot.js";

function made() {
  const state = { ms: 0, may: true };
  const sent: string[] = [];
  const clock = { monotonicMs: () => state.ms } as Clock;
  const send = (id: number, payload: Buffer) => {
    assert.equal(id, STATUSTEXT);
    const { severity, text, chunk } = decodeStatusText(payload);
    sent.push(`${severity}${chunk === undefined ? "" : `#${chunk}`} ${text}`);
  };
  return { state, sent, pilot: new Pilot(clock, send, () => state.may) };
}

test("one line a minute; what waits is said as it is then", () => {
  const { state, sent, pilot } = made();
  pilot.news({ what: "safe" });
  assert.deepEqual(sent.splice(0), ["6 FileSync: flight log safe on ground"]);
  pilot.news({ what: "safe" });
  pilot.news({ what: "parked", reason: "full" });
  state.ms = 59_999;
  pilot.look();
  assert.deepEqual(sent, []);
  state.ms = 60_000;
  pilot.look();
  pilot.look();
  assert.deepEqual(sent.splice(0), ["4 FileSync: log stays on vehicle: full"], "and not that it is safe");
  pilot.news({ what: "parked", reason: "full" });
  pilot.news({ what: "safe" });
  state.ms = 120_000;
  pilot.look();
  assert.deepEqual(sent.splice(0), ["6 FileSync: flight log safe on ground"], "it stays no more");
});

test("nothing while it may not, and then once", () => {
  const { state, sent, pilot } = made();
  state.may = false;
  pilot.news({ what: "safe" });
  pilot.look();
  assert.deepEqual(sent, []);
  state.may = true;
  pilot.look();
  state.ms = 1e9;
  pilot.look();
  assert.equal(sent.length, 1);
});

test("a long reason goes in chunks, in ASCII, and has an end", () => {
  const { sent, pilot } = made();
  pilot.news({ what: "parked", reason: `für\n${"x".repeat(500)}` });
  assert.deepEqual(
    sent.map((text) => text.length),
    [54, 54, 54, 54, 4],
  );
  assert.match(sent[0] ?? "", /^4#0 FileSync: log stays on vehicle: f\?r\?x/);
});
