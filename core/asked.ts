/** A question to a device for a person who waits: looked for first where it is away, and answered in bounded time. */
import { Fault } from "./errors.js";
import type { Lane } from "./lane.js";
import { withSignals } from "./signals.js";

const answerMs = 20_000;

/** `needs`: what it has to be for that. Throws the Fault that says why it cannot be asked, "offline" where it does not answer. */
export async function asked<T>(
  lane: Lane,
  signal: AbortSignal,
  ask: (signal: AbortSignal) => Promise<T>,
  needs: "attached" | "present" = "attached",
): Promise<T> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Fault("offline", `it does not answer within ${answerMs / 1000} s`)), answerMs);
  try {
    return await withSignals([signal, late.signal], async (bounded) => {
      if (!lane[needs]) await lane.lookNow(bounded);
      return lane.host(bounded, ask);
    });
  } finally {
    clearTimeout(timer);
  }
}
