/** What a run of the machine proves, from what the observer saw and what lies on the media. */
import type { Daemon, Seen } from "./daemon.js";
import type { Tree } from "./sticks.js";

/** What a run is asked for. */
export interface Given {
  readonly seed: number;
  /** Only these of its parts. */
  readonly only?: readonly string[];
  readonly cache?: string;
  readonly kvm?: boolean;
  readonly say: (line: string) => void;
}

/** A row of the results, printed as soon as it is known. */
export interface Row {
  readonly scenario: string;
  readonly what: string;
  readonly value: string;
  readonly ok: boolean;
}

export class Results {
  readonly rows: Row[] = [];

  constructor(readonly say: (line: string) => void) {}

  row(scenario: string, what: string, value: string | number, ok = true): void {
    this.rows.push({ scenario, what, value: String(value), ok });
    this.say(`${ok ? "ok  " : "FAIL"} ${scenario}: ${what}: ${value}`);
  }

  /** A number that has to be none; `examples` are printed. */
  none(scenario: string, what: string, examples: readonly string[]): void {
    this.row(scenario, what, examples.length, examples.length === 0);
    for (const example of examples.slice(0, 10)) this.say(`       ${example}`);
  }
}

/** What is missing, and what is there that should not be, or is something else. */
export function compare(found: Tree, expected: Tree): { lost: string[]; wrong: string[] } {
  const lost = [...expected].filter(([path]) => !found.has(path)).map(([path, content]) => `${path} (${content})`);
  const wrong = [...found]
    .filter(([path, content]) => expected.get(path) !== content)
    .map(([path, content]) => `${path}: ${content}, expected ${expected.get(path) ?? "no such file"}`);
  return { lost, wrong };
}

/**
 * How much was moved again after each interruption, on the hop into `to` ("spool": from the device `from`): how far a transfer had come at the last look (each 250 ms) less
 * where it went on.
 */
export function movedAgain(
  seen: readonly Seen[],
  isHop: (from: string, to: string) => boolean,
): { path: string; bytes: number; at: number }[] {
  const far = new Map<string, number>();
  const again: { path: string; bytes: number; at: number }[] = [];
  for (const one of seen) {
    if (one.seen !== "moved") continue;
    for (const { from, to, path, offset } of one.transfers) {
      if (!isHop(from, to)) continue;
      const key = `${from} ${to} ${path}`;
      const before = far.get(key) ?? 0;
      if (offset < before) again.push({ path: key, bytes: before - offset, at: offset });
      far.set(key, offset);
    }
  }
  return again;
}

/** How udev's plugs stand to the hints that the plugin works with. Times in ms. */
export interface Hints {
  /** The file system was named by udev, and stayed for a moment. */
  readonly plugs: number;
  readonly hinted: number;
  /** From udev's word to the hint. */
  readonly plugMs: readonly number[];
  readonly removes: number;
  readonly removesHinted: number;
  readonly removeMs: readonly number[];
  /** From the kernel's word to udev's. */
  readonly udevMs: readonly number[];
}

/** So long a stick has to stay to count: hints are gathered for 50 ms. */
const momentMs = 200;
/** A hint is in time when it comes before the look that needs none. */
const inTimeMs = 5000;

export function hintsOf(seen: readonly Seen[], uuids: readonly string[]): Hints {
  const blocks = seen.flatMap((one) => (one.seen === "block" ? [one] : []));
  const hints = seen.flatMap((one) => (one.seen === "hint" ? [one] : []));
  const plugMs: number[] = [];
  const removeMs: number[] = [];
  const udevMs: number[] = [];
  let [plugs, removes] = [0, 0];
  for (const [n, { by, action, uuid, node, t }] of blocks.entries()) {
    if (by !== "udev" || uuid === undefined || !uuids.includes(uuid)) continue;
    const next = blocks.slice(n + 1).find((other) => other.node === node && other.by === "udev" && other.action !== action);
    if ((next?.t ?? Infinity) - t < momentMs) continue;
    const until = Math.min(t + inTimeMs, next?.t ?? Infinity);
    // The link is made before udev tells of it, and after what happened to it before.
    const before = blocks.slice(0, n).findLast((other) => other.uuid === uuid && other.by === "udev" && other.action !== action);
    const after = Math.max(t - inTimeMs / 5, before?.t ?? 0);
    const heard = hints.find((hint) => hint.t > after && hint.t < until && hint.uuids.includes(uuid) === (action === "add"));
    const kernel = blocks.slice(0, n).findLast((other) => other.by === "kernel" && other.node === node && other.action === action);
    if (action === "add") {
      plugs += 1;
      if (heard !== undefined) plugMs.push(heard.t - t);
      if (kernel !== undefined) udevMs.push(t - kernel.t);
    } else if (action === "remove") {
      removes += 1;
      if (heard !== undefined) removeMs.push(heard.t - t);
    }
  }
  return { plugs, hinted: plugMs.length, plugMs, removes, removesHinted: removeMs.length, removeMs, udevMs };
}

export function spread(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => Math.round(sorted[Math.floor(share * (sorted.length - 1))] ?? NaN);
  return sorted.length === 0 ? "none" : `${at(0.5)} ms (median), ${at(1)} ms (worst)`;
}

/** What the daemon said that it must not have to say. */
export function troubles({ events }: Daemon): string[] {
  const bad = ["restarted", "lost", "changed", "parked", "config"];
  return events
    .filter(({ what, level, message }) => bad.includes(what) || level === "error" || message.includes("the dead mount of"))
    .map(({ what, message }) => `${what}: ${message}`);
}
