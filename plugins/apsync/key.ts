/** A vehicle's own key: an ed25519 key as OpenSSH keeps it, made here or by ssh-keygen. It never leaves this machine. */
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import ssh2 from "ssh2";
import { codeOf, Fault, faultOfErrno } from "../../core/errors.js";
import { publicKeyOf } from "../registry/wire.js";

/** Signs for a vehicle. */
export interface Signer {
  /** "ssh-ed25519 AAAA…". */
  readonly publicKey: string;
  /** "SHA256:…". */
  readonly fingerprint: string;
  /** In base64. */
  sign(text: Uint8Array): string;
}

/** Where the key of an installation is: a card that is cloned into another machine finds none under its own id. */
export const keyFileIn = (stateDir: string, installation: string): string => join(stateDir, `id-${installation}`);

/**
 * The text of a new private key (PROTOCOL.key of OpenSSH). `comment` stands in its public line. ssh2 can make keys too; of 300 of its making one is
 * broken, as a key that begins or ends with certain bytes loses them (ssh2 1.17).
 */
export function newKey(comment: string): string {
  const { x = "", d = "" } = generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" });
  const [open, secret] = [Buffer.from(x, "base64url"), Buffer.from(d, "base64url")];
  const type = Buffer.from("ssh-ed25519");
  const check = randomBytes(4);
  const inner = Buffer.concat([check, check, ...[type, open, Buffer.concat([secret, open]), Buffer.from(comment)].map(withLength)]);
  const padding = Buffer.from(Array.from({ length: -inner.length & 7 }, (_, n) => n + 1));
  const none = Buffer.from("none");
  const whole = Buffer.concat([
    Buffer.from("openssh-key-v1\0"),
    ...[none, none, Buffer.alloc(0)].map(withLength),
    Buffer.from([0, 0, 0, 1]),
    ...[Buffer.concat([type, open].map(withLength)), Buffer.concat([inner, padding])].map(withLength),
  ]);
  const lines = whole.toString("base64").match(/.{1,70}/g) ?? [];
  return ["-----BEGIN OPENSSH PRIVATE KEY-----", ...lines, "-----END OPENSSH PRIVATE KEY-----", ""].join("\n");
}

function withLength(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** No installation: one that is only tried does not know its own. */
const unknown = "00000000";

/** The other installation that a key was made for; undefined: for this one, or nobody knows. */
export function madeForAnother(file: string, installation: string): string | undefined {
  const made = /^id-([0-9a-f]{8})$/.exec(basename(file))?.[1];
  return made === installation || installation === unknown ? undefined : made;
}

/** Throws "denied" with what to do where that key was made for another installation than this one. */
export function expectOwnKey(file: string, installation: string): void {
  const made = madeForAnother(file, installation);
  if (made === undefined) return;
  throw new Fault(
    "denied",
    `the key ${file} was made for the installation ${made}, and this is ${installation}. The same vehicle with a new card or computer: "filesync register --renew --email ADDRESS" asks its owner; another vehicle (a card that was cloned): "filesync register" as at the first time, with another --vehicle NAME`,
  );
}

/** Throws "denied" with what to do where the file holds no such key. */
export async function readKey(file: string): Promise<Signer> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT")
      throw new Fault(
        "denied",
        `this installation has no key (${file}): "filesync register --renew" makes a new one for a vehicle that is registered`,
        { cause: error },
      );
    throw new Fault("denied", faultOfErrno(error, `cannot read the key ${file}`).message, { cause: error });
  }
  const parsed = ssh2.utils.parseKey(text);
  if (parsed instanceof Error || !parsed.isPrivateKey())
    throw new Fault("denied", `${file} is no private key without a passphrase${parsed instanceof Error ? `: ${parsed.message}` : ""}`);
  const key = publicKeyOf(`${parsed.type} ${parsed.getPublicSSH().toString("base64")}`);
  if (key === undefined) throw new Fault("denied", `${file} is a key of the type ${parsed.type}: the registry takes ed25519`);
  return {
    publicKey: key.line,
    fingerprint: key.fingerprint,
    sign: (bytes) => {
      const signed = parsed.sign(Buffer.from(bytes)) as unknown;
      if (!Buffer.isBuffer(signed)) throw new Fault("denied", `${file} cannot sign`);
      return signed.toString("base64");
    },
  };
}
