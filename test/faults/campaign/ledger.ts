/**
 * Bytes moved again, counted on the wire: for each path how far it had come, and when. What a transfer carries below that mark is moved again.
 *
 * All that is moved again until a path comes further than before is the price of one stop, however many tries that took; it is held against the
 * faults that fell into that time. A path that is `excused` (its server lied about it, its file was replaced) is counted, and not judged.
 */
export interface Price {
  readonly path: string;
  readonly bytes: number;
  /** The time of transfer that those bytes had taken, in ms. */
  readonly transferMs: number;
  /** Faults that fell between the mark and the first new byte. */
  readonly faults: number;
  readonly excused: boolean;
}

interface Track {
  /** How far it has come. */
  mark: number;
  /** Time of transfer until each offset was first reached; sparse, in order. */
  readonly reached: { offset: number; ms: number }[];
  ms: number;
  again: number;
  againMs: number;
  faultsAtMark: number;
}

const everyBytes = 64 * 1024;

export class Ledger {
  readonly prices: Price[] = [];
  log: (text: string) => void = () => undefined;
  movedBytes = 0;
  againBytes = 0;
  readonly #tracks = new Map<string, Track>();
  readonly #excused = new Set<string>();

  /** `faults` tells how many faults there have been so far. */
  constructor(
    readonly faults: () => number,
    readonly nowMs: () => number = () => performance.now(),
  ) {}

  excuse(path: string): void {
    this.#excused.add(path);
  }

  /** A transfer begins at `offset`; what it carries is told to the function that this returns. */
  begin(path: string, offset: number): (bytes: number) => void {
    const track = this.#tracks.get(path) ?? { mark: 0, reached: [], ms: 0, again: 0, againMs: 0, faultsAtMark: this.faults() };
    this.#tracks.set(path, track);
    if (track.mark > 0) this.log(`${path} begins at ${offset}, it had come to ${track.mark}`);
    if (offset < track.mark) {
      const since = track.reached.findLast((it) => it.offset <= offset)?.ms ?? 0;
      track.againMs = Math.max(track.againMs, track.ms - since);
    }
    let at = offset;
    let lastMs = this.nowMs();
    return (bytes) => {
      this.movedBytes += bytes;
      const nowMs = this.nowMs();
      const again = Math.min(bytes, Math.max(0, track.mark - at));
      at += bytes;
      track.again += again;
      this.againBytes += again;
      if (at > track.mark) {
        if (track.again > 0) this.#close(path, track);
        track.mark = at;
        track.ms += nowMs - lastMs;
        track.faultsAtMark = this.faults();
        if (at - (track.reached.at(-1)?.offset ?? -everyBytes) >= everyBytes) track.reached.push({ offset: at, ms: track.ms });
      }
      lastMs = nowMs;
    };
  }

  /** All that is still open is settled; paths are forgotten. */
  settle(): void {
    for (const [path, track] of this.#tracks) if (track.again > 0) this.#close(path, track);
    this.#tracks.clear();
    this.#excused.clear();
  }

  #close(path: string, track: Track): void {
    this.prices.push({
      path,
      bytes: track.again,
      transferMs: track.againMs,
      faults: Math.max(1, this.faults() - track.faultsAtMark),
      excused: this.#excused.has(path),
    });
    track.again = 0;
    track.againMs = 0;
  }
}

/** Those that cost more than a fault may: 4 MiB, and 10 s of transfer, each. */
export function tooDear(prices: readonly Price[]): Price[] {
  return prices.filter(
    ({ bytes, transferMs, faults, excused }) => !excused && (bytes > 4 * 2 ** 20 * faults || transferMs > 10_000 * faults),
  );
}
