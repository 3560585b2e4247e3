/** How often somebody may do something: a bucket each that fills by itself. Bounded: of too many who ask, those that have most left are forgotten first. */
import { isIP, isIPv6 } from "node:net";
import type { Clock } from "../../core/plugin.js";

const most = 10_000;

interface Bucket {
  left: number;
  atMs: number;
}

export class Allowance {
  readonly #buckets = new Map<string, Bucket>();

  /** `burst` at once, and one more each `everyMs`. */
  constructor(
    readonly clock: Clock,
    readonly burst: number,
    readonly everyMs: number,
  ) {}

  /** Undefined: it may; it is counted. Else so many ms until it may. */
  take(who: string): number | undefined {
    const bucket = this.#filled(who);
    if (bucket.left < 1) return Math.ceil((1 - bucket.left) * this.everyMs);
    bucket.left -= 1;
    this.#buckets.delete(who);
    this.#buckets.set(who, bucket);
    this.#forget();
    return undefined;
  }

  /** The same without counting it. */
  wait(who: string): number | undefined {
    const { left } = this.#filled(who);
    return left < 1 ? Math.ceil((1 - left) * this.everyMs) : undefined;
  }

  #filled(who: string): Bucket {
    const nowMs = this.clock.monotonicMs();
    const { left, atMs } = this.#buckets.get(who) ?? { left: this.burst, atMs: nowMs };
    return { left: Math.min(this.burst, left + (nowMs - atMs) / this.everyMs), atMs: nowMs };
  }

  /** The one that was longest quiet has most left. */
  #forget(): void {
    if (this.#buckets.size <= most) return;
    const [quietest] = this.#buckets.keys();
    if (quietest !== undefined) this.#buckets.delete(quietest);
  }
}

/** Whom an address stands for: of IPv6 a network has them all. */
export function whose(address: string): string {
  const bare = address.replace(/^::ffff:(?=\d+\.)/, "");
  if (!isIPv6(bare)) return bare;
  const [head = "", tail] = bare.split("::");
  const before = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? [] : Array.from({ length: Math.max(0, 8 - before.length - after.length) }, () => "0");
  return [...before, ...zeros, ...after].slice(0, 4).join(":");
}

/** The last address of the header, which the proxy itself has seen; undefined where that is none. Some add the port, which is another for each connection. */
export function forwardedFor(header: string): string | undefined {
  const last = header.split(",").at(-1)?.trim() ?? "";
  const address = /^\[(.*)\](?::\d+)?$/.exec(last)?.[1] ?? /^([\d.]+):\d+$/.exec(last)?.[1] ?? last;
  return isIP(address) === 0 ? undefined : address;
}
