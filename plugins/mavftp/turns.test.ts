/** One thing at a time on the link, and everything in its time: a cap that the requests keep to, and no long work that keeps another waiting. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, isFault } from "../../core/errors.js";
import { Op } from "../../mavlink/ftp.js";
import { readTrace, type Trace } from "../../mavlink/trace.js";
import { clock, eventually, listAll, makeDevice, makeLogs, makeRig, makeSim, never, readAll } from "./harness.test.js";
import { Served } from "./manners.test.js";

/** Time that stands still until it is moved. */
function handClock() {
  let now = 0;
  const sleepers = new Set<{ readonly atMs: number; readonly wake: () => void }>();
  return {
    sleepers,
    clock: {
      ...clock,
      monotonicMs: () => now,
      sleep: (ms: number, signal?: AbortSignal) =>
        new Promise<void>((resolve, reject) => {
          const stop = (): void => {
            sleepers.delete(sleeper);
            reject(new Fault("aborted", "stopped"));
          };
          const wake = (): void => {
            signal?.removeEventListener("abort", stop);
            resolve();
          };
          const sleeper = { atMs: now + ms, wake };
          sleepers.add(sleeper);
          signal?.addEventListener("abort", stop, { once: true });
        }),
    },
    advance: (ms: number): void => {
      now += ms;
      for (const sleeper of sleepers)
        if (sleeper.atMs <= now) {
          sleepers.delete(sleeper);
          sleeper.wake();
        }
    },
  };
}

test("a rate slows what is asked for on the link, not only the stream; others come in between", async (t) => {
  const { dir, content } = makeLogs(t, { "a.ulg": 200_000 });
  // A machine that stands still asks again for what is late: that is not counted.
  const served = new Served();
  const sim = await makeSim(t, { dir }, served);
  const hand = handClock();
  const rate = 50_000;
  const rig = makeDevice(t, { url: sim.clientUrl, root: "/" }, undefined, { clock: hand.clock, maxRate: rate });
  await rig.attached();
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  const reading = readAll(rig.source, entry);
  for (let ms = 0; ms < 1000; ms += 20) {
    await eventually(() => hand.sleepers.size > 0, "it waits");
    // What may be asked for at once, and what was on its way.
    const most = rate * (0.1 + ms / 1000) + 8 * 239;
    assert.ok(served.fresh <= most, `${served.fresh} of ${most} bytes after ${ms} ms`);
    assert.ok(sim.stats.payloadBytes >= rate * (ms / 1000 - 0.1), `${sim.stats.payloadBytes} bytes after ${ms} ms`);
    if (ms === 500) assert.equal((await listAll(rig.source)).length, 1, "the turn is not held meanwhile");
    hand.advance(20);
  }
  const moving = setInterval(() => hand.advance(100), 1);
  t.after(() => clearInterval(moving));
  assert.ok((await reading).equals(content.get("a.ulg") as Buffer));
});

test("a reading that waits for its rate ends with the reason of whoever stops it", async (t) => {
  const { dir } = makeLogs(t, { "a.ulg": 200_000 });
  const sim = await makeSim(t, { dir });
  const hand = handClock();
  const rig = makeDevice(t, { url: sim.clientUrl, root: "/" }, undefined, { clock: hand.clock, maxRate: 50_000 });
  await rig.attached();
  const [entry] = await listAll(rig.source);
  assert.ok(entry);
  const reading = readAll(rig.source, entry);
  await eventually(() => hand.sleepers.size > 0, "it waits");
  sim.setArmed(true);
  await assert.rejects(reading, (e) => isFault(e, "offline") && e.message === "the vehicle is armed");
  await eventually(() => sim.openSessions() === 0, "the session is ended", 1000);
});

/** The requests of a trace as letters: R, L for reads and listings. Fails where something was asked while something else was under way. */
function asked(rows: Trace["rows"]): string {
  let letters = "";
  // Reads by offset, others by number; what is asked again after its answer had left is nothing new.
  const waiting = new Map<string, "R" | "L">();
  const answered = new Set<string>();
  for (const row of rows) {
    if (row.kind === "event") continue;
    const request = row.kind === "request";
    const letter = (request ? row.opcode : row.reqOpcode) === Op.ReadFile ? "R" : "L";
    const key = letter === "R" ? `R${row.offset}` : `L${request ? row.seq : (row.seq - 1) & 0xffff}`;
    if (!request) {
      waiting.delete(key);
      answered.add(key);
    } else if (!answered.has(key)) {
      waiting.set(key, letter);
      letters += row.opcode === Op.OpenFileRO ? "-" : letter;
    }
    assert.ok(new Set(waiting.values()).size < 2, "never two things at a time");
  }
  return letters;
}

for (const [autopilot, link] of [
  ["px4", "uart:460800"],
  ["ardupilot-4.6", "uart:460800"],
  ["px4", "usb"],
] as const)
  test(`${autopilot} over ${link}: 2,000 logs are listed while a file is read, and neither waits for the other's end`, async (t) => {
    const many = Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`logs/${String(i).padStart(8, "0")}.BIN`, 0]));
    const { dir } = makeLogs(t, { ...many, "z.ulg": 12_000_000 });
    const lines: string[] = [];
    const rig = await makeRig(t, { dir, autopilot, link, trace: (line) => lines.push(line) });
    const entry = await rig.source.stat("z.ulg", never);
    assert.ok(entry);
    const stop = new AbortController();
    const reading = readAll(rig.source, entry, 0, stop.signal).then(
      () => "whole",
      () => "stopped",
    );
    await eventually(() => (rig.sim.stats.requests.ReadFile ?? 0) > 20, "it is being read");
    const from = lines.length;
    assert.equal((await listAll(rig.source)).length, 2001);
    const during = lines.length;
    stop.abort();
    assert.equal(await reading, "stopped", "the listing ended before the file did");
    const letters = asked(readTrace(lines.slice(0, during).join("\n")).rows);
    const before = asked(readTrace(lines.slice(0, from).join("\n")).rows).length;
    const listed = letters.slice(letters.indexOf("L", before), letters.lastIndexOf("L") + 1);
    assert.ok(listed.split("L").length > 50, "the listing is a long one");
    // On its slow wires that is longer than 50 ms, which is usual here.
    if (rig.stood(200)) {
      t.diagnostic("this machine stood still: what was late was asked for again, and whose turn it was is not looked at");
      return;
    }
    assert.ok(!listed.includes("LL"), "after each part of the listing the file goes on");
    const longest = Math.max(...listed.split("L").map((reads) => reads.length));
    assert.ok(longest < (link === "usb" ? 500 : 60), `${longest} reads between two parts of the listing`);
  });
