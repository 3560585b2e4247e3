/**
 * Challenges: each is good for one signed request, and for a minute. They cost nothing until one is used: a challenge is its own proof (an HMAC with a key of this process), and only those that
 * were used are remembered, until their minute is over. A restart makes those that are about worthless; who gets "challenge" for an answer asks for another.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { Clock } from "../../core/plugin.js";

const challengeMs = 60_000;

export class Challenges {
  readonly #clock: Clock;
  readonly #key = randomBytes(32);
  /** Two generations of those that were used: what is older than a minute is in neither. */
  #used = new Set<string>();
  #usedBefore = new Set<string>();
  #turnMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#turnMs = clock.monotonicMs();
  }

  make(): string {
    const body = `${randomBytes(12).toString("base64url")}.${Math.floor(this.#clock.monotonicMs()).toString(36)}`;
    return `${body}.${this.#mac(body)}`;
  }

  /** Whether it is one of ours, not a minute old, and was not used; it is used from now on. */
  use(challenge: string): boolean {
    const nowMs = this.#clock.monotonicMs();
    const [nonce = "", time = "", mac = ""] = challenge.split(".");
    const expected = Buffer.from(this.#mac(`${nonce}.${time}`));
    const given = Buffer.from(mac);
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return false;
    if (nowMs - parseInt(time, 36) > challengeMs) return false;
    if (nowMs - this.#turnMs > challengeMs) {
      this.#usedBefore = nowMs - this.#turnMs > 2 * challengeMs ? new Set() : this.#used;
      this.#used = new Set();
      this.#turnMs = nowMs;
    }
    if (this.#used.has(nonce) || this.#usedBefore.has(nonce)) return false;
    this.#used.add(nonce);
    return true;
  }

  #mac(body: string): string {
    return createHmac("sha256", this.#key).update(body).digest("base64url").slice(0, 27);
  }
}
