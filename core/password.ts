/** Passwords: made, hashed, and compared in constant time. */
import { createHash, randomBytes, randomInt, scrypt, timingSafeEqual, type ScryptOptions } from "node:crypto";
import type { Secret } from "./options.js";

/** None of them is taken for another: no 0 O, 1 l I, 5 S, 2 Z, 8 B. */
const letters = "abcdefghijkmnpqrstuvwxyzACDEFGHJKLMNPQRTUVWXY34679";
const passwordLength = 24;

/** One that nobody made up, of 135 bits, to be typed or pasted. */
export function newPassword(): string {
  return Array.from({ length: passwordLength }, () => letters[randomInt(letters.length)]).join("");
}

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
