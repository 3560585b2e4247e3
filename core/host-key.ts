/** Whether a server's host key is the one that is believed. Nothing is believed because it is seen for the first time. */
import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import * as v from "valibot";
import { Fault, faultOfErrno } from "./errors.js";
import { fingerprint, fingerprintOf, fingerprintText } from "./net.js";
import { described, path } from "./options.js";
import type { Door } from "./stranger.js";

const hostKey = fingerprint('the SHA-256 fingerprint of the server\'s host key, "SHA256:…", as "ssh-keygen -lf" prints it');

/** The options of a device that say whom to believe. */
export const believing = {
  hostKey: v.optional(
    described(hostKey, "SHA-256 fingerprint of the server's host key, as ssh-keygen -lf prints it: this key is believed, and no other."),
  ),
  knownHosts: v.optional(described(path(), "A file of host keys that are believed, such as ~/.ssh/known_hosts.")),
};

/** For `unlessStranger`. OpenSSH says the last two where it takes no connection now. */
export function sshDoor({ host, port, timeout }: { readonly host: string; readonly port: number; readonly timeout: number }): Door {
  return {
    host,
    port,
    hello: "SSH-2.0-FileSync\r\n",
    isMeant: (said) => /^(SSH-|Exceeded MaxStartups|Not allowed at this time)/m.test(said),
    meant: { kind: "SSH", options: '"host" and "port"' },
    timeoutMs: timeout,
  };
}

/** What is wrong where both are given; undefined where not. */
export function bothBelieved(given: Pick<Place, "hostKey" | "knownHosts">): string | undefined {
  return given.hostKey === undefined || given.knownHosts === undefined
    ? undefined
    : 'either "hostKey" or "knownHosts": only one of them can say which key is believed';
}

/** "ssh-ed25519" of a key as it goes over the wire. */
export function typeOf(key: Buffer): string {
  const length = key.length >= 4 ? key.readUInt32BE() : 0;
  return length <= 64 ? key.toString("latin1", 4, 4 + length) : "unknown";
}

/** Key types that can be asked for one by one, for a server that has several keys. */
export const families: readonly (readonly string[])[] = [
  ["ssh-ed25519"],
  ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"],
  ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"],
];

export interface Believed {
  /** undefined when this key is believed; else what is wrong, for a person. */
  objection(key: Buffer): string | undefined;
  /** Whether a key of this family could be believed. */
  mayBe(family: readonly string[]): boolean;
}

export interface Place {
  readonly host: string;
  readonly port: number;
  /** 64 lower-case hexadecimal digits. */
  readonly hostKey?: string | undefined;
  readonly knownHosts?: string | undefined;
}

/** Throws "denied" where the file of known hosts cannot be read. */
export async function believed(place: Place): Promise<Believed> {
  const { hostKey, knownHosts } = place;
  if (hostKey !== undefined) return byFingerprint(hostKey);
  if (knownHosts !== undefined) return byFile(place, knownHosts);
  return {
    mayBe: () => true,
    objection: (key) =>
      `nothing says which host key is believed, and the server shows ${fingerprintOf(key)} (${typeOf(key)}): compare it with what ` +
      `"ssh-keygen -lf" prints for the key files of the server, then put "hostKey": "${fingerprintOf(key)}" into the device`,
  };
}

function byFingerprint(hex: string): Believed {
  const wanted = fingerprintText(Buffer.from(hex, "hex"));
  return {
    mayBe: () => true,
    objection: (key) =>
      fingerprintOf(key) === wanted
        ? undefined
        : `the server's host key is ${fingerprintOf(key)} (${typeOf(key)}), not ${wanted} as configured in "hostKey": another server, ` +
          "or a new key; only where you know why, put the new one into the device",
  };
}

async function byFile({ host, port }: Place, file: string): Promise<Believed> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw new Fault("denied", `the host key cannot be checked: ${faultOfErrno(error, `cannot read "knownHosts" ${file}`).message}`, {
      cause: error,
    });
  }
  const name = port === 22 ? host : `[${host}]:${port}`;
  const lines = text.split("\n").flatMap((line) => knownHost(line, name));
  const keys = lines.filter(({ marker }) => marker === "").map(({ key }) => key);
  const revoked = lines.filter(({ marker }) => marker === "@revoked").map(({ key }) => key);
  return {
    // One key of a server says nothing of its others: only those that are known are asked for.
    mayBe: (family) => keys.length === 0 || keys.some((key) => family.includes(typeOf(key))),
    objection: (key) => {
      const shown = `${fingerprintOf(key)} (${typeOf(key)})`;
      if (revoked.some((it) => it.equals(key))) return `the server's host key ${shown} is revoked in ${file}`;
      if (keys.some((it) => it.equals(key))) return undefined;
      if (keys.length === 0)
        return (
          `${file} has no key of ${name}, and the server shows ${shown}: compare it with what "ssh-keygen -lf" prints for the key files of the ` +
          `server, then put "hostKey": "${fingerprintOf(key)}" into the device in place of "knownHosts", or the key into that file`
        );
      const known = keys.map((it) => `${fingerprintOf(it)} (${typeOf(it)})`).join(", ");
      return `the server's host key is ${shown}, not ${known} as in ${file}: another server, or a new key`;
    },
  };
}

interface KnownHost {
  readonly marker: string;
  readonly key: Buffer;
}

/** The key of a line that speaks of this host. A certificate authority is not followed. */
function knownHost(line: string, name: string): KnownHost[] {
  const fields = line.trim().split(/\s+/);
  const marker = fields[0]?.startsWith("@") === true ? (fields.shift() ?? "") : "";
  const [hosts = "", , key = ""] = fields;
  if (hosts === "" || hosts.startsWith("#") || key === "" || !matches(hosts, name)) return [];
  return [{ marker, key: Buffer.from(key, "base64") }];
}

function matches(hosts: string, name: string): boolean {
  const hashed = /^\|1\|([^|]+)\|([^|]+)$/.exec(hosts);
  if (hashed !== null)
    return (
      createHmac("sha1", Buffer.from(hashed[1] ?? "", "base64"))
        .update(name)
        .digest("base64") === hashed[2]
    );
  const patterns = hosts.split(",");
  if (patterns.some((it) => it.startsWith("!") && glob(it.slice(1), name))) return false;
  return patterns.some((it) => glob(it, name));
}

function glob(pattern: string, name: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  return new RegExp(`^${source}$`, "i").test(name);
}
