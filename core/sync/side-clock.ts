/** The clock of a side, within bounds: what was written there a moment ago is known by its time. */
import type { Clock, Source } from "../plugin.js";

/** Servers tell whole seconds. */
const coarseMs = 1000;

export interface Span {
  readonly leastMs: number;
  readonly mostMs: number;
}

export class SideClock {
  /** How far it is before the monotonic one, where it was read. */
  #ahead: Span | undefined;

  constructor(
    readonly source: Pick<Source, "now">,
    readonly clock: Clock,
  ) {}

  /** `shown`: what it shows at a moment of that asking; undefined where that cannot be seen. Not asked where the side tells its clock itself. */
  async read(shown: () => Promise<number | undefined>): Promise<void> {
    if (this.source.now !== undefined) return;
    const { clock } = this;
    const fromMs = clock.monotonicMs();
    const shownMs = await shown();
    this.#ahead = shownMs === undefined ? undefined : { leastMs: shownMs - clock.monotonicMs(), mostMs: shownMs + coarseMs - fromMs };
  }

  /** By this machine's wall clock where nobody knows its own. */
  now(): Span {
    const { clock } = this;
    const ms = this.#ahead === undefined ? (this.source.now?.() ?? clock.wallMs()) : clock.monotonicMs();
    const { leastMs, mostMs } = this.#ahead ?? { leastMs: 0, mostMs: 0 };
    return { leastMs: ms + leastMs, mostMs: ms + mostMs };
  }
}
