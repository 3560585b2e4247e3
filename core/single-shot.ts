/**
 * Single shots (a POST): one request, from the first byte, with no partial and no second look. The peer may act as soon as it has the last byte, so that
 * goes out only after a durable record (`sending`). From then on only the peer's answer tells what became of it; without one the delivery is in
 * doubt: the target looks for it (`lookup`), and where it cannot know, the device's `whenInDoubt` or a person decides. Never blindly twice.
 */
import { Fault, type FaultKind, isFault } from "./errors.js";
import type { Chunk, Clock, Reading, TargetFeatures } from "./plugin.js";
import { reasonOf } from "./retry.js";
import { dateText } from "./route.js";

/** The record. Times are wall time: the doubt outlives a start of the machine. */
export interface Sending {
  readonly atMs: number;
  /** Wall time could be trusted then. */
  readonly trusted: boolean;
  /** How often it was sent whole. */
  readonly times: number;
  /** A person says that it is sent again. */
  readonly decided?: true;
}

const againMs = 86_400_000;
/** While it waits for its day, it is looked for so often. */
const lookMs = 3_600_000;
/** The first look, after the answer was lost. */
const soonMs = 1000;

/** Faults that only a peer's answer can be: it did not take it. Everything else leaves that open. */
const refusals: readonly FaultKind[] = ["throttled", "full", "denied", "rejected", "conflict", "mismatch", "unwanted"];

/** Or it broke off before. */
export function isRefusal(error: unknown): boolean {
  return isFault(error) && (error.notTaken || refusals.includes(error.kind));
}

export function recordOf(before: Sending | undefined, clock: Clock): Sending {
  return { atMs: clock.wallMs(), trusted: clock.trusted(), times: (before?.times ?? 0) + 1 };
}

/** The answer was lost: it is looked for soon. */
function answerLost(error: unknown): Fault {
  return new Fault("indoubt", `sent whole, and the answer was lost (${reasonOf(error)}): it is looked for before it is sent again`, {
    cause: error,
    retryAfterMs: soonMs,
  });
}

/** Whether a time was taken from a clock that was not set, or that has gone back since. */
export function isUndated({ atMs, trusted }: Sending, clock: Clock): boolean {
  return clock.trusted() && (!trusted || atMs > clock.wallMs());
}

/** What was lost was looked for, and not found. Undefined: it is sent again; else the fault that says what is waited for. */
export function doubt(sending: Sending, found: "absent" | "unknown", when: TargetFeatures["whenInDoubt"], clock: Clock): Fault | undefined {
  if (found === "absent" || sending.decided === true) return undefined;
  const what = `sent whole${sending.trusted ? ` at ${dateText(sending.atMs)}` : ""}, and the answer was lost; whether it arrived cannot be known`;
  if (when !== "again" || sending.times > 1)
    return new Fault(
      "indoubt",
      `${what}${sending.times > 1 ? ` (it was sent ${sending.times} times)` : ""}: look there, then "retry" sends it again`,
    );
  // Only trusted time counts.
  const leftMs = clock.trusted() && sending.trusted ? sending.atMs + againMs - clock.wallMs() : againMs;
  if (leftMs <= 0) return undefined;
  return new Fault("indoubt", `${what}: it is sent once more 24 h after that`, { retryAfterMs: Math.min(leftMs, lookMs) });
}

/** What is durable around the moment from which on only the peer's answer tells what became of it. */
export interface Noting {
  /** The last chunk is read: whole, and what it should be. */
  seal(): Promise<void>;
  /** It may be taken from now on. */
  note(): Promise<unknown>;
  /** It was not taken. */
  takeBack(): Promise<unknown>;
}

/** One request. */
export class Shot {
  #whole = false;
  #over = false;
  #noted: Promise<void> | undefined;

  constructor(readonly noting: Noting) {}

  /** For `heldBack`. */
  readonly beforeLast = (): Promise<void> => (this.#noted ??= this.#note());

  /** Throws "indoubt" where it was sent whole and not answered. */
  async go<T>(send: () => Promise<unknown>, commit: () => Promise<T>): Promise<T> {
    const { noting } = this;
    try {
      await send();
      if (!this.#whole) throw new Fault("transient", "it was answered before it was sent whole");
      return await commit();
    } catch (error) {
      this.#over = true;
      // What is noted while it breaks off is of a last chunk that nobody was given.
      if (!this.#whole) await this.#noted?.catch(() => noting.takeBack());
      if (!this.#whole) throw error;
      if (!isRefusal(error)) throw answerLost(error);
      await noting.takeBack();
      throw error;
    }
  }

  async #note(): Promise<void> {
    this.#expectOn();
    await this.noting.seal();
    this.#expectOn();
    await this.noting.note();
    this.#expectOn();
    this.#whole = true;
  }

  #expectOn(): void {
    if (this.#over) throw new Fault("aborted", "it was broken off before the last chunk was given");
  }
}

/** The last chunk of `left` bytes, or the end of none, comes after `beforeLast`. One that ended early, or was closed, is not its end. */
export function heldBack(reading: Reading, left: number, beforeLast: () => Promise<void>): Reading {
  let held: Chunk | undefined;
  return {
    next: async () => {
      held ??= await reading.next();
      const now = held;
      left -= now?.bytes.length ?? 0;
      held = now === undefined ? undefined : await reading.next();
      if (held === undefined && left === 0) await beforeLast();
      return now;
    },
    close: () => reading.close(),
  };
}
