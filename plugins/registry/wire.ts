/**
 * What a vehicle and a registry say to each other over HTTP: paths, bodies, and how a vehicle proves that it has its key. Both sides use this file;
 * `docs/registry-api.yaml` is the same for others.
 *
 * A request that a vehicle signs has `Authorization: FileSync key="SHA256:…", challenge="…", signature="…"`. The signature (ed25519, base64) is of `signedText`. A challenge is good
 * once and for a minute; each answer to a signed request brings the next one in `Filesync-Challenge`. No clock of either side is part of it.
 */
import { createHash, createPublicKey, verify, type KeyObject } from "node:crypto";
import * as v from "valibot";
import { fingerprintOf } from "../../core/net.js";

export const protocol = "filesync-registry/1";

export const paths = {
  station: "/api/station",
  challenge: "/api/challenge",
  register: "/api/register",
  registration: (id: string) => `/api/registrations/${id}`,
  events: (id: string) => `/api/registrations/${id}/events`,
  vehicle: "/api/vehicle",
  key: "/api/key",
  ftpPassword: "/api/ftp-password",
  slots: "/api/slots",
  files: (slot: string) => `/api/slots/${slot}/files`,
  commit: (slot: string) => `/api/slots/${slot}/commit`,
  confirm: (token: string) => `/confirm/${token}`,
} as const;

export const challengeHeader = "filesync-challenge";

const line = (most: number) => {
  const words = `a text of 1 to ${most} characters, none of them a control character`;
  return v.pipe(v.string(words), v.nonEmpty(words), v.maxLength(most, words), v.regex(/^[^\p{Cc}]*$/u, words));
};
const count = v.pipe(v.number("a whole number"), v.safeInteger("a whole number"), v.minValue(0, "a whole number from 0 on"));

/** An OpenSSH line "ssh-ed25519 AAAA…", with or without a comment. */
export const publicKey = v.pipe(
  line(1000),
  v.check((text) => publicKeyOf(text) !== undefined, "an ed25519 key as OpenSSH writes it"),
);

/** What the registry is: asked before anything is believed. */
export const station = v.object({
  protocol: v.literal(protocol),
  /** Names this registry; part of what is signed. */
  station: line(64),
  /** Vehicles may have an account at an FTP server. */
  ftp: v.optional(v.boolean()),
});
export type Station = v.InferOutput<typeof station>;

/** One address, as SMTP takes it: nothing that could end a header or add a second one. */
export const email = v.pipe(
  line(254),
  v.regex(/^[^\s\p{C}@<>(),:;"[\]\\]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?$/u, "an e-mail address such as you@example.org"),
);

/** Where a registry is, without a "/" at its end. */
export const httpUrl = v.pipe(
  v.string("a URL"),
  v.url('a URL such as "https://ground.example.org:8443"'),
  v.regex(/^https?:\/\/[^/?#@]+\/?$/, 'a URL with a host and no path, such as "https://ground.example.org:8443"'),
  v.transform((text) => text.replace(/\/$/, "")),
);

/** What its owner calls a vehicle. */
export const vehicleName = v.pipe(
  line(64),
  v.regex(/^[\p{L}\p{N}](?:[\p{L}\p{N} ._-]*[\p{L}\p{N}])?$/u, "letters, digits, spaces and . _ - between them"),
);

/** What the id of a vehicle, or of an owner, begins with: the readable part. */
export function idWord(name: string): string {
  const word = name
    .normalize("NFKD")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 32)
    .replace(/-+$/, "");
  return word === "" ? "vehicle" : word;
}

/** `renew`: a new key for the owner's vehicle of that name, whatever becomes of the one that it has. */
export const register = v.strictObject({
  email,
  vehicle: v.optional(vehicleName),
  publicKey,
  renew: v.optional(v.boolean("true or false")),
});
export type Register = v.InferOutput<typeof register>;

/** What a vehicle needs to send. */
export const access = v.object({
  vehicleId: line(64),
  vehicle: line(64),
  /** Of the door: real ssh. */
  user: line(64),
  /** Absent: the host that the vehicle asked. */
  host: v.optional(line(255)),
  port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535)),
  /** "SHA256:…" of the door's host key. */
  hostKey: line(100),
  station: line(64),
});
export type Access = v.InferOutput<typeof access>;

/** `refused`: nobody could be asked, or somebody said no; `reason` says which. */
export const registration = v.object({
  id: line(64),
  state: v.picklist(["waiting", "confirmed", "expired", "refused"]),
  /** Who can confirm: the reader of a mail, or the operator of the registry. */
  by: v.optional(v.picklist(["mail", "operator"])),
  reason: v.optional(v.string()),
  access: v.optional(access),
});
export type Registration = v.InferOutput<typeof registration>;

/** What a vehicle is here, and how much it may still send. */
export const vehicleNow = v.object({ ...access.entries, roomBytes: count });
export type VehicleNow = v.InferOutput<typeof vehicleNow>;

/** What a vehicle needs to send by FTP. The password is told this once. */
export const ftpAccess = v.object({
  /** Absent: the host that the vehicle asked. */
  host: v.optional(line(255)),
  port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535)),
  user: line(64),
  password: line(200),
  /** Absent: all goes in clear. `fingerprint`: "SHA256:…" of the one certificate that is believed; without it the system's authorities are. */
  tls: v.optional(v.object({ fingerprint: v.optional(line(100)) })),
});
export type FtpAccess = v.InferOutput<typeof ftpAccess>;

/** `slot`: one that was given before, and shall go on. `fresh`: else a new one, though another is open: another flight begins. */
export const askSlot = v.strictObject({ slot: v.optional(line(64)), fresh: v.optional(v.boolean("true or false")) });
export type AskSlot = v.InferOutput<typeof askSlot>;

export const slot = v.object({
  id: line(64),
  /** The directory's name: a UTC time stamp and the vehicle's id. The vehicle archives under it. */
  name: v.pipe(line(128), v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/)),
  /** So long it stays open when nothing comes. */
  idleSeconds: v.number(),
});
export type Slot = v.InferOutput<typeof slot>;

/** A name in the slot's `.incoming`, where rsync puts it until it is committed. */
const partialName = v.pipe(
  line(255),
  v.check((text) => /^\.[^/]+\.part$/.test(text) && Buffer.byteLength(text) <= 255, 'a name such as ".00000001.BIN.1a2b3c4d-….part"'),
);

/** In the query. */
export const discard = v.strictObject({ partial: partialName });

/** What is to come: refused before it comes, where there is no room for it. */
export const announce = v.strictObject({ partial: partialName, path: line(4096), size: count });

/** What came of it before; without a size nothing did. */
export const held = v.object({ size: v.optional(count), kind: v.optional(v.picklist(["file", "other"])) });
export type Held = v.InferOutput<typeof held>;

const digestWords = '"sha256:" and 64 hexadecimal digits';
const digest = v.pipe(v.string(digestWords), v.regex(/^sha256:[0-9a-f]{64}$/, digestWords));

/** Each partial gets its name, if it is what it should be. Twice gives the same answer. */
export const commit = v.strictObject({
  files: v.pipe(
    v.array(
      v.strictObject({
        partial: partialName,
        path: line(4096),
        size: count,
        digest,
        /** Milliseconds since 1970. */
        modifiedMs: v.optional(v.number("a number")),
        /** Our own earlier, shorter version, which it replaces. */
        replaces: v.optional(v.strictObject({ size: count, digest: v.optional(digest) })),
      }),
    ),
    v.minLength(1, "a list of 1 to 256 files"),
    v.maxLength(256, "a list of 1 to 256 files"),
  ),
});
export type Commit = v.InferOutput<typeof commit>;

/**
 * `working`: it is still read; ask again. `occupied`: another file has that name (`size`, `digest`). `absent`: no partial, and no such file. `short`: the partial has only `size` bytes. `long`: it
 * has more. `mismatch`: it has another digest.
 */
export const committed = v.object({
  files: v.array(
    v.object({
      path: v.string(),
      state: v.picklist(["published", "working", "occupied", "absent", "short", "long", "mismatch"]),
      size: v.optional(count),
      digest: v.optional(v.string()),
    }),
  ),
});
export type Committed = v.InferOutput<typeof committed>;

/** Proof of the new key too: `signature` is the new key's, of `signedText` of this request with the body "". */
export const rotate = v.strictObject({ publicKey, signature: line(100) });

/** What is wrong with a body, with its place. */
export function wrongWith([issue]: readonly [v.BaseIssue<unknown>, ...v.BaseIssue<unknown>[]]): string {
  const place = v.getDotPath(issue);
  if (place === null) return "the body is no JSON object";
  if (issue.expected === "never") return `"${place}" is not known`;
  if (issue.received === "undefined") return `"${place}" is missing`;
  return `"${place}": expected ${issue.message.startsWith("Invalid") ? (issue.expected ?? "another value") : issue.message}`;
}

/** What an error's body says. `message` is for a person. */
export const problem = v.object({ error: v.string(), message: v.string() });
export type ProblemCode =
  | "bad-request"
  | "challenge"
  | "signature"
  | "unknown-key"
  | "revoked"
  | "not-found"
  | "name-taken"
  | "key-taken"
  | "slot-busy"
  | "slot-closed"
  | "quota"
  | "full"
  | "too-many"
  | "expired"
  | "gone"
  | "internal";

export interface ToSign {
  readonly station: string;
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly body: Uint8Array;
  readonly challenge: string;
}

export function signedText({ station: at, method, path, body, challenge }: ToSign): Buffer {
  return Buffer.from([protocol, at, method, path, createHash("sha256").update(body).digest("hex"), challenge].join("\n"));
}

const ed25519 = "ssh-ed25519";

/** The key of an OpenSSH line; undefined where it is no ed25519 key. */
export function publicKeyOf(text: string): { readonly line: string; readonly fingerprint: string; readonly key: KeyObject } | undefined {
  const [type, base64 = ""] = text.trim().split(/\s+/);
  if (type !== ed25519 || !/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) return undefined;
  const blob = Buffer.from(base64, "base64");
  const head = Buffer.from(`\0\0\0\x0b${ed25519}\0\0\0\x20`, "latin1");
  if (blob.length !== head.length + 32 || !blob.subarray(0, head.length).equals(head)) return undefined;
  const x = blob.subarray(head.length).toString("base64url");
  return {
    line: `${ed25519} ${blob.toString("base64")}`,
    fingerprint: fingerprintOf(blob),
    key: createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" }),
  };
}

export function isSigned(key: KeyObject, text: Uint8Array, signature: string): boolean {
  return verify(null, text, key, Buffer.from(signature, "base64"));
}
