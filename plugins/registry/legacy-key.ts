/** The public keys of vehicles with the client of APSync: RSA, as `ssh-keygen -t rsa` made them. */
import { fingerprintOf } from "../../core/net.js";
import { publicKeyOf } from "./wire.js";

const rsa = "ssh-rsa";
/** What sshd takes at most is 16384. */
const [leastBits, mostBits] = [2048, 16384];

export interface LegacyKey {
  /** Without a comment. */
  readonly line: string;
  readonly fingerprint: string;
}

/** The key of an OpenSSH line: RSA of at least 2048 bits, or ed25519; undefined for anything else. */
export function legacyKeyOf(text: string): LegacyKey | undefined {
  const [type, base64 = ""] = text.trim().split(/\s+/);
  if (type !== rsa) return publicKeyOf(text);
  if (!/^[A-Za-z0-9+/]{1,4000}={0,2}$/.test(base64)) return undefined;
  const blob = Buffer.from(base64, "base64");
  const [name, exponent, modulus, ...more] = stringsOf(blob) ?? [];
  if (name?.toString("latin1") !== rsa || exponent === undefined || modulus === undefined || more.length > 0) return undefined;
  const [e, n] = [numberOf(exponent), numberOf(modulus)];
  if (e === undefined || n === undefined || e < 3n || e >= 2n ** 64n || e % 2n === 0n || n % 2n === 0n) return undefined;
  const bits = n.toString(2).length;
  if (bits < leastBits || bits > mostBits) return undefined;
  return { line: `${rsa} ${blob.toString("base64")}`, fingerprint: fingerprintOf(blob) };
}

/** Each has its length before it (RFC 4251, section 5); undefined where that does not come out. */
function stringsOf(blob: Buffer): Buffer[] | undefined {
  const strings: Buffer[] = [];
  for (let at = 0; at < blob.length;) {
    if (at + 4 > blob.length) return undefined;
    const end = at + 4 + blob.readUInt32BE(at);
    if (end > blob.length) return undefined;
    strings.push(blob.subarray(at + 4, end));
    at = end;
  }
  return strings;
}

/** Positive, in the one shortest form, so that a key has one fingerprint. */
function numberOf(bytes: Buffer): bigint | undefined {
  const [first = 0x80, second = 0x80] = bytes;
  return first >= 0x80 || (first === 0 && second < 0x80) ? undefined : BigInt(`0x${bytes.toString("hex")}`);
}
