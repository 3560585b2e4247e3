/** The link models carry what their parameters say, no more and no less; measured by a clock that is moved by hand. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { HandClock, SteadyClock } from "./clock.js";
import { linkModel, waysOf } from "./wire.js";

interface Carried {
  readonly clock: HandClock;
  readonly out: { frame: Buffer; atMs: number }[];
  readonly in: { frame: Buffer; atMs: number }[];
  readonly ways: ReturnType<typeof waysOf<Buffer, Buffer>>;
}

function makeLink(name: string, ring = Infinity): Carried {
  const clock = new HandClock();
  const out: Carried["out"] = [];
  const back: Carried["in"] = [];
  const at = (list: Carried["out"]) => (frame: Buffer) => void list.push({ frame, atMs: clock.now() });
  return { clock, out, in: back, ways: waysOf<Buffer, Buffer>(linkModel(name), clock, ring, at(out), at(back)) };
}

for (const [name, bytesPerSecond] of [
  ["usb", 700_000],
  ["uart:921600", 92_160],
  ["uart:57600", 5760],
] as const)
  test(`${name} carries ${bytesPerSecond} bytes a second each way, both at once`, () => {
    const link = makeLink(name);
    const frame = Buffer.alloc(266);
    const frames = Math.ceil((bytesPerSecond * 2) / 266);
    for (let i = 0; i < frames; i++) {
      link.ways.out.put(frame);
      link.ways.in.put(frame);
    }
    link.clock.advance(1000);
    for (const carried of [link.out, link.in]) assert.ok(Math.abs(carried.length - bytesPerSecond / 266) <= 1);
    link.ways.out.clear();
    link.ways.in.clear();
    assert.equal(link.clock.waiting, 0);
  });

test("radio:57600 carries 5,760 bytes a second for both ways together, 60 ms later", () => {
  const link = makeLink("radio:57600");
  link.ways.out.put(Buffer.alloc(57));
  link.clock.advance(100);
  assert.ok(Math.abs((link.out[0]?.atMs ?? 0) - (57 / 5.76 + 60)) < 0.01);
  for (let i = 0; i < 200; i++) {
    link.ways.out.put(Buffer.alloc(266));
    link.ways.in.put(Buffer.alloc(27));
  }
  const before = { out: link.out.length, in: link.in.length };
  link.clock.advance(10_060);
  const [out, back] = [link.out.length - before.out, link.in.length - before.in];
  assert.ok(Math.abs(out * 266 + back * 27 - 57_600) <= 300, `${out} and ${back}`);
  assert.ok(Math.abs(out - back) <= 1, "they take turns");
  link.ways.out.clear();
  link.ways.in.clear();
  assert.equal(link.clock.waiting, 0);
});

test("a radio's small request does not wait for a full transmit ring", () => {
  const link = makeLink("radio:57600", 12_000);
  while (link.ways.out.put(Buffer.alloc(266)));
  link.ways.in.put(Buffer.alloc(27));
  link.clock.advance(60 + (2 * 266 + 27) / 5.76);
  assert.equal(link.in.length, 1);
});

for (const name of ["usb", "uart:57600", "radio:57600"])
  test(`${name}: a frame that does not fit into the ring is dropped whole`, () => {
    const link = makeLink(name, 1000);
    let taken = 0;
    while (link.ways.out.put(Buffer.alloc(266))) taken += 1;
    assert.equal(taken, 3);
    assert.ok(link.ways.out.free() < 266);
    link.clock.advance(1000);
    assert.equal(link.out.length, 3);
    assert.equal(link.ways.out.free(), 1000);
  });

for (const name of ["udp", "none"])
  test(`${name} has no limit`, () => {
    const link = makeLink(name, 1000);
    for (let i = 0; i < 1000; i++) assert.ok(link.ways.out.put(Buffer.alloc(266)));
    assert.equal(link.out.length, 1000);
  });

test("time that late timers took is given back, 5 ms at most", () => {
  const below = new HandClock();
  let lateMs = 3;
  const clock = new SteadyClock({ now: () => below.now(), after: (ms, run) => below.after(ms + lateMs, run) });
  const at: number[] = [];
  const again = (): void => {
    at.push(clock.now());
    if (at.length < 5) clock.after(10, again);
  };
  clock.after(10, again);
  below.advance(100);
  assert.deepEqual(at, [10, 20, 30, 40, 50]);
  lateMs = 20;
  clock.after(10, again);
  const due = clock.now() + 10;
  below.advance(100);
  assert.equal(at.at(-1), due + 15, "of 20 ms 5 are given back");
});
