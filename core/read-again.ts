/** What a source's file holds now, by reading it once more: at the pace that the device is allowed, and not beside more transfers than it takes. */
import type { Readable } from "node:stream";
import { auditTime, firstValueFrom, fromEvent, interval, merge, type Observable, skip } from "./rxjs.js";
import { Digester, digestsOf } from "./digest.js";
import type { Engine } from "./engine.js";
import { Fault, throwIfAborted } from "./errors.js";
import type { Lane } from "./lane.js";
import type { Digest, FileEntry } from "./plugin.js";
import { pacedBytes } from "./throttle.js";

/** So often, at most, it is looked for what is more urgent. */
const looksMs = 200;
/** While something waits for space. */
const spaceMs = 30_000;

/** How far a file was read, so that it can be gone on with. */
export class ReadSoFar {
  readonly digester = new Digester("sha256");
  offset = 0;
  /** By how many runs. */
  parts = 0;

  /** `isSecond`: after another that was of several parts. */
  constructor(readonly isSecond = false) {}
}

/** Its SHA-256. Throws the source's Fault. */
export async function digestAtSource(lane: Lane, entry: FileEntry, signal: AbortSignal): Promise<Digest | undefined> {
  const leave = await lane.borrow(signal);
  try {
    const [digest] = await digestsOf(pacedBytes(await open(lane, entry, 0, signal), lane.throttle, signal), ["sha256"]);
    return digest;
  } finally {
    leave();
  }
}

/**
 * The same, of what can wait: all that is to be fetched from the source goes first, also what is found meanwhile. Throws the source's Fault, and "offline"; with the same
 * `sofar` it goes on then, and what changed in between would not be noticed.
 */
export async function digestBehind(engine: Engine, lane: Lane, entry: FileEntry, sofar: ReadSoFar, signal: AbortSignal): Promise<Digest> {
  sofar.parts += 1;
  const { clock, transfers } = engine;
  let madeWayMs = -Infinity;
  while (sofar.offset < entry.size) {
    const leave = await placeBehind(engine, lane, entry, signal);
    let makesWay = false;
    // Of several that wait for space, one that came later may have it: only a pull finds that out.
    const isDue = () => !transfers.waitForSpace.has(lane.name) || clock.monotonicMs() - madeWayMs > spaceMs;
    const looks = merge(hints(engine, lane, signal), interval(spaceMs)).subscribe(
      () => (makesWay ||= !lane.free && (lane.awaited || (isDue() && isWanted(engine, lane)))),
    );
    try {
      for await (const bytes of pacedBytes(await open(lane, entry, sofar.offset, signal), lane.throttle, signal)) {
        sofar.digester.update(bytes);
        sofar.offset += bytes.length;
        if (makesWay) break;
      }
      if (!makesWay && sofar.offset < entry.size) throw new Fault("changed", `it ended after ${sofar.offset} of ${entry.size} bytes`);
    } finally {
      looks.unsubscribe();
      leave();
    }
    if (makesWay) {
      madeWayMs = clock.monotonicMs();
      await clock.sleep(looksMs, signal);
    }
  }
  return sofar.digester.value();
}

/** Waits for a place at the source that nothing else is to have; returns what gives it back. */
async function placeBehind(engine: Engine, lane: Lane, { medium = "" }: FileEntry, signal: AbortSignal): Promise<() => void> {
  for (;;) {
    throwIfAborted(signal);
    if (!lane.holds(medium)) throw new Fault("offline", lane.state.reason ?? "it is not there any more");
    if (lane.free && (engine.transfers.waitForSpace.has(lane.name) || !isWanted(engine, lane))) return lane.occupy();
    await firstValueFrom(hints(engine, lane, signal));
  }
}

/** When that may have changed. */
const hints = (engine: Engine, lane: Lane, signal: AbortSignal): Observable<unknown> =>
  merge(lane.wake$, lane.state$.pipe(skip(1)), engine.work$, fromEvent(signal, "abort")).pipe(auditTime(looksMs));

function isWanted({ lanes, queue }: Engine, lane: Lane): boolean {
  const targets = [...lanes.values()].flatMap(({ name, device }) => (device.target === undefined ? [] : [name]));
  return queue.wanted(lane.name, lane.media, targets, 1).length > 0;
}

function open({ device, name }: Lane, entry: FileEntry, offset: number, signal: AbortSignal): Promise<Readable> {
  if (device.source === undefined) throw new Error(`${name} is no source`);
  return device.source.open(entry, offset, signal);
}
