/**
 * When a file is said to be found. A machine without a clock of its own wakes up at a time that was before, perhaps at the same one each day: until it knows the time, what it finds is dated behind all
 * that the journal knows, and an hour behind where the machine was off meanwhile. Else who puts together what was found at about the same time takes two flights for one.
 */
import { bootId } from "./boot.js";
import type { Engine } from "./engine.js";

const apartMs = 3_600_000;
/** In the journal's table "meta". */
export const bootKey = "boot";

/** What is found while nobody knows the time is found then, and as much later as has passed since. */
const starts = new WeakMap<Engine, { readonly wallMs: number; readonly monotonicMs: number }>();

/** Inside `apply`. In milliseconds since 1970. */
export function foundNow(engine: Engine): number {
  const { clock } = engine;
  const start = starts.get(engine) ?? begin(engine);
  return clock.trusted() ? clock.wallMs() : Math.max(clock.wallMs(), start.wallMs + clock.monotonicMs() - start.monotonicMs);
}

function begin(engine: Engine): { readonly wallMs: number; readonly monotonicMs: number } {
  const { journal, clock } = engine;
  const boot = bootId();
  const isSame = journal.meta(bootKey) === boot;
  const last = clock.trusted() ? undefined : journal.get<{ ms: number | null }>("SELECT MAX(found_ms) AS ms FROM versions")?.ms;
  const start = { wallMs: last === undefined || last === null ? 0 : last + (isSame ? 0 : apartMs), monotonicMs: clock.monotonicMs() };
  if (!isSame) journal.setMeta(bootKey, boot);
  starts.set(engine, start);
  return start;
}
