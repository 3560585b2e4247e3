/** A question to a device for a person who waits: looked for first where it is away, and answered in bounded time. */
import type { Lane } from "./lane.js";
import { withinMs } from "./signals.js";

const answerMs = 20_000;

/** `needs`: what it has to be for that. Throws the Fault that says why it cannot be asked, "offline" where it does not answer. */
export async function asked<T>(
  lane: Lane,
  signal: AbortSignal,
  ask: (signal: AbortSignal) => Promise<T>,
  needs: "attached" | "present" = "attached",
): Promise<T> {
  return withinMs(answerMs, [signal], async (bounded) => {
    if (!lane[needs]) await lane.lookNow(bounded);
    return lane.host(bounded, ask);
  });
}
