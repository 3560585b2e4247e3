/** How long something has been in the trash, by a clock that may be wrong today. Pure. */

export interface Age {
  /** Milliseconds that count. */
  readonly forMs: number;
  /** Wall time of the last look. */
  readonly atMs: number;
  /** The latest wall time of any look: what lies before it was counted. */
  readonly lastMs?: number;
}

/** By the name of its directory in the trash. */
export type Ages = Readonly<Record<string, Age>>;

/** What lies between two looks counts, but no more than this, and than a quarter of what is to pass: one start with a clock of another year takes nothing away. */
const mostMs = 7 * 86_400_000;
/** More than this counts only as far as it is after all that was seen: a clock that goes back at each start, and is put right then, counts nothing twice. */
const usualMs = 2 * 86_400_000;

/** After another look at what is there: the ages from now on, and what has been there for `keepMs`. */
export function aged(
  ages: Ages,
  there: readonly string[],
  nowMs: number,
  keepMs: number,
): { readonly ages: Ages; readonly old: readonly string[] } {
  const most = Math.min(mostMs, keepMs / 4);
  const now = there.map((name) => {
    const { forMs, atMs, lastMs = atMs } = ages[name] ?? { forMs: 0, atMs: nowMs };
    const step = nowMs - atMs;
    const passed = step <= usualMs ? step : nowMs - lastMs;
    return [name, { forMs: forMs + Math.min(Math.max(0, passed), most), atMs: nowMs, lastMs: Math.max(lastMs, nowMs) }] as const;
  });
  const old = now.flatMap(([name, { forMs }]) => (forMs >= keepMs ? [name] : []));
  return { ages: Object.fromEntries(now.filter(([name]) => !old.includes(name))), old };
}
