import assert from "node:assert/strict";
import { test } from "node:test";
import { BehaviorSubject } from "./rxjs.js";
import type { DeviceConfig } from "./config.js";
import { abortedFault, Fault } from "./errors.js";
import { Events } from "./events.js";
import { Lane } from "./lane.js";
import type { Clock, Device, Presence, Role, Source, Target } from "./plugin.js";

/** A clock that a test moves; each sleep is seen. */
class Hand implements Clock {
  ms = 0;
  readonly sleeping = new Set<() => void>();
  monotonicMs = () => this.ms;
  wallMs = () => this.ms;
  trusted = () => true;
  sleep(_ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const wake = () => {
        this.sleeping.delete(wake);
        resolve();
      };
      this.sleeping.add(wake);
      signal?.addEventListener("abort", () => {
        this.sleeping.delete(wake);
        reject(abortedFault(signal));
      });
    });
  }
}

function laneOf(concurrency = 1, resume = true) {
  const presence$ = new BehaviorSubject<Presence>({ state: "attached", epoch: "1" });
  const probes: AbortSignal[] = [];
  const device: Device = {
    presence$,
    probe: (signal) => {
      probes.push(signal);
      return Promise.resolve();
    },
    close: () => Promise.resolve(),
    source: { features: { concurrency } } as unknown as Source,
    target: { features: { concurrency, resume } } as unknown as Target,
  };
  const clock = new Hand();
  const lane = new Lane({ name: "d", plugin: { roles: [] as readonly Role[] } } as DeviceConfig, device, clock, new Events(), () => 0.5);
  lane.start();
  return { lane, presence$, probes, clock };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));
const offline = new Fault("offline", "no answer");

test("two failures detach; a probe brings it back", async () => {
  const { lane, probes, clock } = laneOf();
  lane.noteFault(offline);
  assert.ok(lane.attached);
  lane.noteFault(offline);
  assert.ok(!lane.attached);
  for (const wake of clock.sleeping) wake();
  await turn();
  assert.ok(lane.attached);
  assert.equal(probes.length, 1);
  await lane.close();
});

test("who has to ask counts as attached, unasked until it has answered something", () => {
  for (const [answers, unasked] of [
    [(lane: Lane) => lane.noteFault(offline), true],
    [(lane: Lane) => lane.noteFault(new Fault("full", "no space")), false],
    [(lane: Lane) => lane.noteSuccess(), false],
  ] as const) {
    const { lane, presence$ } = laneOf();
    assert.ok(!lane.unasked, "it is seen");
    presence$.next({ state: "attached", unasked: true });
    assert.ok(lane.unasked);
    answers(lane);
    assert.deepEqual([lane.attached, lane.unasked], [true, unasked]);
  }
});

test("presence that flaps leaves one loop of probes, and none after close", async () => {
  const { lane, presence$, clock } = laneOf();
  for (let n = 2; n < 6; n++) {
    lane.noteFault(offline);
    lane.noteFault(offline);
    assert.ok(!lane.attached);
    if (n < 5) presence$.next({ state: "attached", epoch: String(n) });
    await turn();
    assert.ok(clock.sleeping.size <= 1, `${clock.sleeping.size} loops`);
  }
  await lane.close();
  assert.equal(clock.sleeping.size, 0);
});

test("a slot that is given back goes to who waits, and is never free in between", async () => {
  const { lane } = laneOf(1);
  const leave = lane.occupy();
  const waiting = lane.borrow(new AbortController().signal);
  const gone = new AbortController();
  const other = lane.borrow(gone.signal);
  gone.abort();
  await assert.rejects(other, /stopped/);
  leave();
  assert.ok(!lane.free);
  const back = await waiting;
  assert.ok(!lane.free);
  let woken = 0;
  lane.wake$.subscribe(() => (woken += 1));
  back();
  back();
  assert.ok(lane.free);
  assert.equal(woken, 1);
  await lane.close();
});

test("a target that asked to wait has no slots until then, or until it attaches anew; a source has", async () => {
  const { lane, presence$, clock } = laneOf(2);
  lane.pauseTarget(60_000);
  assert.deepEqual([lane.slots("target"), lane.slots("source")], [0, 2]);
  clock.ms = 60_001;
  assert.equal(lane.slots("target"), 2);
  lane.pauseTarget(60_000);
  presence$.next({ state: "attached", epoch: "2" });
  assert.equal(lane.slots("target"), 2);
  await lane.close();
});

test("why a target takes no more is told until it takes a file after its pause, not what was on its way before", async () => {
  const { lane, clock } = laneOf(2);
  lane.pauseTarget(60_000, "no space is left");
  lane.noteTaken();
  assert.equal(lane.idleReason, "no space is left");
  clock.ms = 60_001;
  lane.noteTaken();
  assert.equal(lane.idleReason, undefined);
  await lane.close();
});

test("a service that could not be started stands as detached until it is served, whatever it told before", () => {
  const { lane, presence$ } = laneOf();
  let edges = 0;
  lane.edge$.subscribe(() => (edges += 1));
  lane.notServed("the port is held");
  lane.notServed("the port is held still");
  assert.deepEqual([lane.attached, lane.state.reason, edges], [false, "it is not served: the port is held still", 0]);
  // Its plugin tells nothing more: it stays attached.
  lane.served();
  assert.deepEqual([lane.attached, edges], [true, 1]);
  lane.notServed("the port is held");
  presence$.next({ state: "detached", reason: "its disk is away" });
  lane.served();
  assert.deepEqual([lane.attached, lane.state.reason], [false, "its disk is away"]);
});

test("a target that was full gets files one by one until it has taken as many as go at once, or ten minutes; what keeps no partial takes no room of others", () => {
  const { lane, clock } = laneOf(2);
  lane.noteTaken();
  lane.noteFull();
  lane.noteTaken();
  assert.ok(lane.isTight);
  lane.noteFull();
  lane.noteTaken();
  assert.ok(lane.isTight);
  lane.noteTaken();
  assert.ok(!lane.isTight);
  lane.noteFull();
  clock.ms += 600_000;
  assert.ok(!lane.isTight);
  const whole = laneOf(2, false).lane;
  whole.noteFull();
  assert.ok(!whole.isTight);
});
