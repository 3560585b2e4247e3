/**
 * Passwords of the FTP server: hashing, comparing in constant time, and slowing down who guesses.
 *
 * Guesses from one address are answered one after the other, each later than the one before; other addresses wait for nothing.
 * Nothing is kept on disk: a restart forgets who guessed.
 */
import { createHash, randomBytes, scrypt, timingSafeEqual, type ScryptOptions } from "node:crypto";
import type { Clock } from "../../core/plugin.js";
import type { Secret } from "../../core/options.js";

const shape = /^scrypt\$(\d+)\$(\d+)\$(\d+)\$([A-Za-z0-9+/]+=*)\$([A-Za-z0-9+/]+=*)$/;
const cost = { N: 16384, r: 8, p: 1 };

/** A hash for `passwordHash`: `scrypt$N$r$p$salt$hash`, salt and hash in base64. Another one each time. */
export async function hashPassword(text: string): Promise<string> {
  const salt = randomBytes(16);
  const hash = await derive(text, salt, 32, cost);
  return ["scrypt", cost.N, cost.r, cost.p, salt.toString("base64"), hash.toString("base64")].join("$");
}

/** Whether the text has the shape of a hash of `hashPassword`, at a cost that this program is willing to pay. */
export function isPasswordHash(text: string): boolean {
  const match = shape.exec(text);
  if (match === null) return false;
  const [N, r, p] = [Number(match[1]), Number(match[2]), Number(match[3])];
  return N >= 2 && Number.isInteger(Math.log2(N)) && N <= 2 ** 20 && r >= 1 && r <= 32 && p >= 1 && p <= 16;
}

/** Whether `given` is the password; takes the same time for each wrong one. False where neither a password nor a hash is set. */
export async function passwordIs(given: Buffer, password: Secret | undefined, hash: string | undefined): Promise<boolean> {
  if (password !== undefined) return timingSafeEqual(sha256(given), sha256(Buffer.from(password.reveal())));
  const match = shape.exec(hash ?? "");
  if (match === null) {
    timingSafeEqual(sha256(given), sha256(Buffer.alloc(0)));
    return false;
  }
  const wanted = Buffer.from(match[5] ?? "", "base64");
  const salt = Buffer.from(match[4] ?? "", "base64");
  const got = await derive(given, salt, wanted.length, { N: Number(match[1]), r: Number(match[2]), p: Number(match[3]) });
  return timingSafeEqual(got, wanted);
}

function sha256(bytes: Buffer): Buffer {
  return createHash("sha256").update(bytes).digest();
}

function derive(text: string | Buffer, salt: Buffer, length: number, options: ScryptOptions): Promise<Buffer> {
  const maxmem = 256 * (options.N ?? cost.N) * (options.r ?? cost.r);
  return new Promise((resolve, reject) => {
    scrypt(text, salt, length, { ...options, maxmem }, (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}

const firstWaitMs = 500;
const longestWaitMs = 15_000;
const forgetAfterMs = 10 * 60_000;
/** Above this many addresses the ones that failed longest ago are forgotten: a flood from many addresses costs no memory. */
const mostAddresses = 10_000;

interface Guesses {
  failures: number;
  lastMs: number;
  /** Ends when the last attempt from this address was answered. */
  tail: Promise<unknown>;
  waiting: number;
}

/** Counts wrong passwords per address, and makes each further answer to that address later. */
export class Doorkeeper {
  readonly #clock: Clock;
  readonly #byAddress = new Map<string, Guesses>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Runs `check` when the earlier attempts from this address were answered; a wrong one resolves late. Rejects when `signal` is given. */
  async attempt(address: string, signal: AbortSignal, check: () => Promise<boolean>): Promise<boolean> {
    this.#forget();
    const guesses = this.#byAddress.get(address) ?? { failures: 0, lastMs: 0, tail: Promise.resolve(), waiting: 0 };
    this.#byAddress.set(address, guesses);
    guesses.waiting += 1;
    const mine = guesses.tail.then(async () => {
      signal.throwIfAborted();
      if (await check()) {
        guesses.failures = 0;
        return true;
      }
      guesses.failures += 1;
      guesses.lastMs = this.#clock.monotonicMs();
      await this.#clock.sleep(Math.min(longestWaitMs, firstWaitMs * 2 ** (guesses.failures - 1)), signal);
      return false;
    });
    // The next in line only needs to know that this one ended; how it ended is told to the caller.
    guesses.tail = mine.then(
      () => undefined,
      () => undefined,
    );
    try {
      return await mine;
    } finally {
      guesses.waiting -= 1;
      if (guesses.waiting === 0 && guesses.failures === 0) this.#byAddress.delete(address);
    }
  }

  #forget(): void {
    const now = this.#clock.monotonicMs();
    for (const [address, guesses] of this.#byAddress) {
      const old = now - guesses.lastMs > forgetAfterMs || this.#byAddress.size > mostAddresses;
      if (guesses.waiting === 0 && old) this.#byAddress.delete(address);
      else if (this.#byAddress.size <= mostAddresses) break;
    }
  }
}
