/** Pure: whether a pilot's ground station was in the way of ours: it has to load its file at its first try, unless what refused it is not ours to mend. */
import type { Loaded } from "../../../sim/ground-station.js";

export interface Circumstances {
  /** Share of the frames that are lost or damaged, or answered in a wrong session. */
  readonly lossy: number;
  /** Something else happened to the vehicle meanwhile, or a moment before. */
  readonly disturbed: boolean;
  /** A kill had left a session open, and the autopilot had not closed it yet: nobody can tell it from a pilot's, so the next life waits too. */
  readonly left: boolean;
  /** The daemon opened its link a moment before: who is heard then was there before us, and gets its turn once it was refused. */
  readonly early: boolean;
  /** It has a link of its own: on ours nobody sees that it is refused. */
  readonly own: boolean;
}

/** More, and a ground station that asks five times loses its own requests. */
const LOSS_MOST = 0.05;

/** Undefined: not to be judged. Else how often it may be refused. */
export function refusalsAllowed({ lossy, disturbed, left, early, own }: Circumstances): number | undefined {
  if (left || disturbed || lossy > LOSS_MOST || (early && own)) return undefined;
  // A heartbeat that was lost tells of it a second later, when it has asked already.
  return early || lossy > 0 ? 1 : 0;
}

/** What was found, if it is to be judged. */
export function pilotFinding(loaded: Pick<Loaded, "whole" | "refusals" | "lost">, at: Circumstances): string | undefined {
  const allowed = refusalsAllowed(at);
  if (allowed === undefined || (loaded.whole && loaded.refusals <= allowed && loaded.lost === 0)) return undefined;
  return `${loaded.whole ? "loaded its file" : "did not load its file"}, refused ${loaded.refusals} times, cut ${loaded.lost} times`;
}
