/** Putting off a message, so that others go with it: each wakes another thread or program. */

const manyUnderWay = 6;
const momentMs = 1;

/** At the end of this turn of the loop; with many under way, when a moment is nothing, a moment later. */
export function soon(underWay: number, work: () => void): void {
  if (underWay > manyUnderWay) setTimeout(work, momentMs);
  else setImmediate(work);
}
