/**
 * When a scripted fault happens: at a time, after so many file bytes were served, or at an event. The same requests give the same moments,
 * whatever the machine does.
 */

/** What can be waited for: a request that comes in, any or one of a kind, before it is answered; a client, an arming, a disarming, a new start. */
export const events = [
  ...(["request", "open", "read", "burst", "list", "crc", "end", "reset", "create", "write", "rename", "remove", "mkdir"] as const),
  ...(["connect", "arm", "disarm", "boot"] as const),
] as const;
export type Event = (typeof events)[number];

export type When =
  | { readonly kind: "time"; readonly ms: number }
  | { readonly kind: "bytes"; readonly bytes: number }
  | { readonly kind: "event"; readonly event: Event; readonly nth: number };

/** How a moment is written, for messages. */
export const whenForm = "a moment: 10s, 500kB (of file bytes served), or an event such as open, read:100, arm";

/** "10s", "500kB", "open", "read:100". Undefined for what is none. */
export function parseWhen(text: string): When | undefined {
  if (isTime(text)) return { kind: "time", ms: time(text) };
  if (isBytes(text)) return { kind: "bytes", bytes: bytesOf(text) };
  const match = /^([a-z]+)(?::([1-9]\d{0,8}))?$/.exec(text);
  const event = events.find((known) => known === match?.[1]);
  return event === undefined ? undefined : { kind: "event", event, nth: Number(match?.[2] ?? 1) };
}

export class Script {
  readonly #after: (ms: number, run: () => void) => void;
  readonly #counts = new Map<Event, number>();
  readonly #waiting = new Set<{ readonly holds: () => boolean; readonly run: () => void }>();
  #bytes = 0;

  constructor(after: (ms: number, run: () => void) => void) {
    this.#after = after;
  }

  /** Runs once at that moment; undefined: now. One that has passed is run at once. */
  at(when: When | undefined, run: () => void): void {
    if (when === undefined) run();
    else if (when.kind === "time") this.#after(when.ms, run);
    else {
      const holds = (): boolean => (when.kind === "bytes" ? this.#bytes >= when.bytes : (this.#counts.get(when.event) ?? 0) >= when.nth);
      if (holds()) run();
      else this.#waiting.add({ holds, run });
    }
  }

  happened(event: Event): void {
    this.#counts.set(event, (this.#counts.get(event) ?? 0) + 1);
    this.#look();
  }

  /** File bytes served so far. */
  served(bytes: number): void {
    if (bytes === this.#bytes) return;
    this.#bytes = bytes;
    this.#look();
  }

  #look(): void {
    for (const entry of this.#waiting) {
      if (!entry.holds()) continue;
      this.#waiting.delete(entry);
      entry.run();
    }
  }
}

export function isTime(value: string): boolean {
  return /^\d+(\.\d+)?(ms|s)$/.test(value);
}

/** Milliseconds. */
export function time(value: string): number {
  return value.endsWith("ms") ? Number(value.slice(0, -2)) : Number(value.slice(0, -1)) * 1000;
}

export function isBytes(value: string): boolean {
  return /^\d+(\.\d+)?(B|kB|MB|GB|KiB|MiB|GiB)?$/.test(value);
}

export function bytesOf(value: string): number {
  const units = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };
  const unit = /[A-Za-z]+$/.exec(value)?.[0] ?? "B";
  return Math.round(Number.parseFloat(value) * (unit in units ? units[unit as keyof typeof units] : 1));
}
