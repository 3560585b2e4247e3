/** What is plugged in and is not used, by stay, with the reason that a person reads. */

interface Reason {
  readonly why: string;
  /** Before this it is not tried again; Infinity: not in this stay. */
  readonly untilMs: number;
  /** Its name, where it was ejected and may be pulled. */
  readonly safe?: string;
}

export class Unused {
  readonly #all = new Map<string, Reason>();

  /** A person ejected it: not used until it is plugged in anew. */
  eject(stay: string, why: string, safe?: string): void {
    this.#all.set(stay, { why, untilMs: Infinity, ...(safe === undefined ? {} : { safe }) });
  }

  /** It could not be used, and is tried again then. */
  refuse(stay: string, why: string, untilMs: number): void {
    this.#all.set(stay, { why, untilMs });
  }

  /** It waits for another, and is tried at each look. */
  wait(stay: string, why: string): void {
    this.#all.set(stay, { why, untilMs: 0 });
  }

  /** It is used now. */
  use(stay: string): void {
    this.#all.delete(stay);
  }

  /** Whether it is not to be tried now. */
  holds(stay: string, nowMs: number): boolean {
    return (this.#all.get(stay)?.untilMs ?? 0) > nowMs;
  }

  /** Whether one that was refused is to be tried again. */
  isDue(nowMs: number): boolean {
    return [...this.#all.values()].some(({ untilMs }) => untilMs > 0 && untilMs <= nowMs);
  }

  /** Names of those that were ejected and may be pulled. */
  get safe(): string[] {
    return [...this.#all.values()].flatMap(({ safe }) => safe ?? []);
  }

  /** All others were taken out. */
  keep(stays: ReadonlyMap<string, unknown>): void {
    for (const stay of this.#all.keys()) if (!stays.has(stay)) this.#all.delete(stay);
  }

  /** Why; what may be used again by itself first. */
  get text(): string | undefined {
    const all = [...this.#all.values()];
    const of = (ejected: boolean) => all.filter(({ untilMs }) => (untilMs === Infinity) === ejected).map(({ why }) => why);
    const said = of(false).length > 0 ? of(false) : of(true);
    return said.length === 0 ? undefined : said.join("; ");
  }
}
