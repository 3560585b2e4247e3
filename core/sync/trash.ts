/** How long something has been in the trash, by a clock that may be wrong today. Pure. */

/** Of wall time: from, to. */
type Span = readonly [fromMs: number, toMs: number];

export interface Age {
  /** Milliseconds that count. */
  readonly forMs: number;
  /** Wall time of the last look. */
  readonly atMs: number;
  /** What counted, ascending and apart. */
  readonly counted?: readonly Span[];
}

/** By the name of its directory in the trash. */
export type Ages = Readonly<Record<string, Age>>;

const dayMs = 86_400_000;
/** Of a clock that is another each time; the oldest are forgotten. */
const mostSpans = 16;

/** The end of what lies between two looks counts, but no more of it than a week, and than a quarter of what is to pass: one start with a clock of another year takes nothing away. */
export const mostBetween = (keepMs: number): number => Math.min(7 * dayMs, keepMs / 4);

/** So often it is looked, at most once a day: else more would lie between two looks than counts. */
export const lookEveryMs = (keepMs: number): number => Math.min(dayMs, keepMs / 4);

/** After another look at what is there: the ages from now on, and what has been there for `keepMs`. Each moment counts once: a clock that goes back at each start, and is put right then, counts nothing twice. */
export function aged(
  ages: Ages,
  there: readonly string[],
  nowMs: number,
  keepMs: number,
): { readonly ages: Ages; readonly old: readonly string[] } {
  const most = mostBetween(keepMs);
  const now = there.map((name) => {
    const { forMs, atMs, counted = [] } = ages[name] ?? { forMs: 0, atMs: nowMs };
    const passed = nowMs > atMs ? without([Math.max(atMs, nowMs - most), nowMs], dayOf(name)) : [];
    const spans = passed.reduce(joined, counted);
    return [name, { forMs: forMs + lengthOf(spans) - lengthOf(counted), atMs: nowMs, counted: spans.slice(-mostSpans) }] as const;
  });
  const old = now.flatMap(([name, { forMs }]) => (forMs >= keepMs ? [name] : []));
  return { ages: Object.fromEntries(now.filter(([name]) => !old.includes(name))), old };
}

/** As a day of the trash is called. */
export const isDay = (name: string): boolean => /^\d{4}-\d\d-\d\d$/.test(name);

/** While a day lasts it is given more: that day does not count for what came last in it. */
function dayOf(name: string): Span | undefined {
  const fromMs = isDay(name) ? Date.parse(name) : NaN;
  return Number.isNaN(fromMs) ? undefined : [fromMs, fromMs + dayMs];
}

function without([from, to]: Span, but: Span | undefined): Span[] {
  if (but === undefined) return [[from, to]];
  const rest: Span[] = [
    [from, Math.min(to, but[0])],
    [Math.max(from, but[1]), to],
  ];
  return rest.filter(([begin, end]) => begin < end);
}

function joined(spans: readonly Span[], [from, to]: Span): readonly Span[] {
  const touching = spans.filter((span) => span[0] <= to && span[1] >= from);
  const one: Span = [Math.min(from, ...touching.map(([at]) => at)), Math.max(to, ...touching.map(([, at]) => at))];
  return [...spans.filter((span) => !touching.includes(span)), one].sort(([a], [b]) => a - b);
}

const lengthOf = (spans: readonly Span[]): number => spans.reduce((sum, [from, to]) => sum + to - from, 0);
