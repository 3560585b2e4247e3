/**
 * One signal out of several, for as long as something is under way. Not `AbortSignal.any`: Node 20 keeps a little of each that was made of a source as long as that lives, and a
 * daemon's live for a year.
 */
import { setMaxListeners } from "node:events";
import { Fault } from "./errors.js";
import type { Clock } from "./plugin.js";

export interface Joined {
  /** As many as like may listen to it. */
  readonly signal: AbortSignal;
  /** Takes the listeners off the sources: it is not given any more. */
  readonly release: () => void;
}

/** Given when the first of `sources` is, with its reason. */
export function joinSignals(...sources: readonly AbortSignal[]): Joined {
  const joined = new AbortController();
  const take = (event: Event): void => joined.abort((event.target as AbortSignal).reason);
  // Many things may be under way at once: that is no leak.
  setMaxListeners(0, joined.signal, ...sources);
  for (const source of sources) {
    if (source.aborted) joined.abort(source.reason);
    else source.addEventListener("abort", take, { once: true });
  }
  return {
    signal: joined.signal,
    release: () => {
      for (const source of sources) source.removeEventListener("abort", take);
    },
  };
}

/** What `work` gives, which has such a signal until it is over. */
export async function withSignals<T>(sources: readonly AbortSignal[], work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const { signal, release } = joinSignals(...sources);
  try {
    return await work(signal);
  } finally {
    release();
  }
}

/** The same for at most so long; what is not done by then ends with a Fault that says so, where a bare timeout would look as if somebody had stopped it. */
export async function withinMs<T>(ms: number, sources: readonly AbortSignal[], work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Fault("offline", `it does not answer within ${ms / 1000} s`)), ms);
  try {
    return await withSignals([...sources, late.signal], work);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether `work` ends in so long. Throws its error, and "aborted". */
export function endsWithin(work: Promise<unknown>, ms: number, clock: Clock, signal: AbortSignal): Promise<boolean> {
  const over = new AbortController();
  return withSignals([signal, over.signal], async (either) => {
    const late = clock.sleep(ms, either).then(() => false);
    try {
      return await Promise.race([work.then(() => true), late]);
    } finally {
      over.abort();
    }
  });
}
