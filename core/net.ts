/**
 * What plugins that speak over TCP and TLS have in common: whom to believe, and what an error of a socket or certificate means for core.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { isIP, type Server, type Socket } from "node:net";
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from "node:tls";
import * as v from "valibot";
import { abortedFault, codeOf, Fault, faultOfErrno, isFault } from "./errors.js";
import { printable } from "./names.js";
import { path } from "./options.js";
import type { Certificate } from "./plugin.js";

/** So much is encrypted as one piece, of which nobody sees how much has moved: more would look like silence over a slow link. */
export const tlsPieceBytes = 64 * 1024;

/** "SHA256:<base64>" or hexadecimal with or without colons → 64 lower-case hexadecimal digits; undefined for anything else. */
export function parseFingerprint(text: string): string | undefined {
  const bare = text.trim().replace(/^sha-?256:/i, "");
  const hex = bare.replaceAll(":", "");
  if (/^[0-9a-f]{64}$/i.test(hex)) return hex.toLowerCase();
  if (!/^[A-Za-z0-9+/]{43}=?$/.test(bare)) return undefined;
  return Buffer.from(bare, "base64").toString("hex");
}

/** An option that is such a fingerprint; `what` says of what, where it is none. */
export const fingerprint = (what: string) =>
  v.pipe(
    v.string('a fingerprint such as "SHA256:…"'),
    v.rawTransform<string, string>(({ dataset, addIssue, NEVER }) => {
      const hex = parseFingerprint(dataset.value);
      if (hex !== undefined) return hex;
      addIssue({ message: what });
      return NEVER;
    }),
  );

/** The option `tls` of a device. */
export const tls = () =>
  v.strictObject({
    fingerprint: v.optional(
      v.pipe(
        fingerprint('the SHA-256 fingerprint of the certificate: "SHA256:…" in base64, or hexadecimal'),
        v.description("SHA-256 fingerprint of the server's certificate: this one is believed, self-signed or not, and no other."),
      ),
    ),
    ca: v.optional(v.pipe(path(), v.description("A file of certificates, PEM, that are believed in place of the system's."))),
  });

export interface Tls {
  /** 64 lower-case hexadecimal digits. */
  readonly fingerprint?: string | undefined;
  readonly ca?: string | undefined;
}

/** For `tls.connect` and `https.request`. Throws "config" where the file of certificates cannot be read. */
export async function tlsOptions(host: string, given: Tls): Promise<ConnectionOptions> {
  let ca: Buffer | undefined;
  if (given.ca !== undefined) {
    try {
      ca = await readFile(given.ca);
    } catch (error) {
      const { message } = faultOfErrno(error, `cannot read ${given.ca}`);
      throw new Fault("config", message, { cause: error });
    }
  }
  return {
    host,
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...(ca === undefined ? {} : { ca }),
    // With a fingerprint the certificate itself is compared: its time, name and issuer say nothing more.
    rejectUnauthorized: given.fingerprint === undefined,
  };
}

/** Of a key or certificate as it goes over the wire, as `ssh-keygen -lf` prints it. */
export function fingerprintOf(bytes: Uint8Array): string {
  return fingerprintText(createHash("sha256").update(bytes).digest());
}

export function fingerprintText(sha256: Buffer): string {
  return `SHA256:${sha256.toString("base64").replace(/=+$/, "")}`;
}

/** Throws "denied" when a certificate is pinned and this is not the one. Once the handshake is done. */
export function expectPinned(socket: TLSSocket, { fingerprint: pinned }: Tls): void {
  if (pinned === undefined) return;
  const { raw } = socket.getPeerCertificate() as { raw?: Buffer };
  // A resumed session goes on with the peer that was checked at its start.
  if (raw === undefined && socket.isSessionReused()) return;
  const shown = fingerprintOf(raw ?? Buffer.alloc(0));
  if (parseFingerprint(shown) === pinned) return;
  const given = fingerprintText(Buffer.from(pinned, "hex"));
  throw new Fault(
    "denied",
    `the server's certificate is ${shown}, not the ${given} that was given: another server, or a new certificate, whose fingerprint goes into "tls.fingerprint" then`,
  );
}

/** The certificate of a peer, once the handshake is done. */
export function certificateOf(socket: TLSSocket, { fingerprint: pinned }: Tls): Certificate {
  const { subject, subjectaltname, valid_from, valid_to, raw } = socket.getPeerCertificate();
  const name = [subject?.CN].flat()[0] ?? subjectaltname ?? "";
  return {
    name: printable(name),
    fromMs: Date.parse(valid_from),
    untilMs: Date.parse(valid_to),
    fingerprint: fingerprintOf(raw),
    pinned: pinned !== undefined,
  };
}

/** What is shown at a port that has TLS from the first byte, believed or not. Throws node's error, or "aborted". */
export async function certificateAt(host: string, port: number, given: Tls, timeoutMs: number, signal: AbortSignal): Promise<Certificate> {
  const options = { ...(await tlsOptions(host, given)), rejectUnauthorized: false };
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(abortedFault(signal));
      return;
    }
    const socket = connectTls({ ...options, host, port });
    const stop = () => socket.destroy(abortedFault(signal));
    signal.addEventListener("abort", stop, { once: true });
    socket.setTimeout(timeoutMs, () => socket.destroy(Object.assign(new Error("no answer came"), { code: "ETIMEDOUT" })));
    socket.once("secureConnect", () => {
      resolve(certificateOf(socket, given));
      socket.destroy();
    });
    socket.once("error", reject);
    socket.once("close", () => {
      signal.removeEventListener("abort", stop);
      // Of no effect after the certificate, or an error.
      reject(Object.assign(new Error("the connection was closed"), { code: "ECONNRESET" }));
    });
  });
}

const socketWords: Readonly<Record<string, string>> = {
  ECONNREFUSED: "the connection is refused",
  EHOSTUNREACH: "no route leads there",
  ENETUNREACH: "there is no network",
  ENOTFOUND: "its name is not known",
  EAI_AGAIN: "its name cannot be looked up now",
  ECONNRESET: "the connection was reset",
  EPIPE: "the connection was closed",
  ETIMEDOUT: "no answer came",
};

const absent = new Set(["ECONNREFUSED", "EHOSTUNREACH", "EHOSTDOWN", "ENETUNREACH", "ENETDOWN", "ENOTFOUND", "EAI_AGAIN", "EADDRNOTAVAIL"]);
const wrongTime = new Set(["CERT_HAS_EXPIRED", "CERT_NOT_YET_VALID", "CRL_HAS_EXPIRED", "CRL_NOT_YET_VALID"]);
const tlsCodes = /^(ERR_TLS|ERR_OSSL|CERT_|CRL_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|INVALID_CA|HOSTNAME_|PATH_LENGTH)/;
/** What comes is no TLS, or none that both can speak; once both did, it was changed on the way. */
const noTlsCodes = /^(ERR_SSL|EPROTO)/;
/** Of node's parser. */
const noHttpCodes = /^HPE_/;
/** With TLS 1.3 a server says only after the handshake that it wants a certificate of ours. */
const wantsCertificate = /CERTIFICATE/;

const hungUp = new Set(["ECONNRESET", "EPIPE"]);

export interface NetSituation {
  /** Opens the message: "cannot write a/b". */
  readonly what: string;
  /** We are not let in yet: then silence says that it is not there, and so does who hangs up, as a tunnel does whose far end is down. */
  readonly connecting?: boolean;
  readonly clockTrusted: boolean;
  /** Said of a peer that speaks no TLS; `why` is OpenSSL's word. */
  readonly noTls?: (why: string) => string;
  /** Said after "does not answer". */
  readonly silent?: string;
}

/** The Fault for an error of a socket, of TLS, or one that nobody knows ("transient"). A Fault stays what it is. */
export function netFault(error: unknown, { what, connecting, clockTrusted, noTls, silent }: NetSituation): Fault {
  if (isFault(error)) return error;
  const cause = { cause: error };
  const code = codeOf(error);
  const said = error instanceof Error ? error.message : String(error);
  const text = socketWords[code] ?? (noHttpCodes.test(code) ? `what came is no answer of HTTP (${said})` : said);
  if (wrongTime.has(code))
    return clockTrusted
      ? new Fault("denied", `${what}: the server's certificate has expired or is not valid yet`, cause)
      : new Fault("offline", `${what}: the clock is not set, so the server's certificate cannot be judged`, cause);
  if (noTlsCodes.test(code)) {
    const why = error instanceof Error && "reason" in error && typeof error.reason === "string" ? error.reason : text;
    if (connecting !== true && !wantsCertificate.test(code))
      return new Fault("transient", `${what}: what came is not the TLS that was begun (${why})`, cause);
    return new Fault("denied", `${what}: ${noTls?.(why) ?? `the server and this program find no TLS that both speak (${why})`}`, cause);
  }
  if (tlsCodes.test(code))
    return new Fault(
      "denied",
      `${what}: the server's certificate or TLS is not accepted (${text}); "tls" can say which certificate is believed`,
      cause,
    );
  if (absent.has(code)) return new Fault("offline", `${what}: the server is not there (${text})`, cause);
  if (connecting === true && code === "ETIMEDOUT") return new Fault("offline", `${what}: the server does not answer${silent ?? ""}`, cause);
  return new Fault(connecting === true && hungUp.has(code) ? "offline" : "transient", `${what}: ${text}`, cause);
}

/** A Fault of `netFault` for a certificate that nobody believes: to be believed it has to be pinned. */
export function isUnbelieved(error: unknown): boolean {
  return isFault(error, "denied") && (tlsCodes.test(codeOf(error.cause)) || isUnbelieved(error.cause));
}

/** A service opens its port. Throws "config", "denied", "transient". */
export async function listening(server: Server, { host, port }: { readonly host: string; readonly port: number }): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => reject(listenFault(error, host, port)));
    server.listen({ host, port }, resolve);
  });
}

/** An IPv6 address without its brackets. */
export function hostOf({ hostname }: URL): string {
  return hostname.replace(/^\[|\]$/g, "");
}

/** A port as it is told: an IPv6 address stands in brackets. */
export function hostAndPort(host: string, port: number): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function listenFault(error: Error, host: string, port: number): Fault {
  const cause = { cause: error };
  switch (codeOf(error)) {
    case "EADDRINUSE":
      return new Fault(
        "transient",
        `port ${port} of ${host} is held by another program; stop that, or set another port in "listen"`,
        cause,
      );
    case "EACCES":
    case "EPERM":
      return new Fault(
        "denied",
        `no right to listen on port ${port}: take a port from 1024 up, or give the service the capability CAP_NET_BIND_SERVICE`,
        cause,
      );
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
    case "EINVAL":
    case "EAFNOSUPPORT":
      return new Fault("config", `${host} is no address of this machine; "0.0.0.0" is all of them`, cause);
    default:
      return new Fault("transient", `cannot listen on ${hostAndPort(host, port)}: ${error.message}`, cause);
  }
}

/** Bytes that the system was given to send, and that the other side has not said it has: over a slow link, all of a small file. 0 where nobody tells, as not on Linux. */
export function unacknowledged({ localPort = 0, remotePort = 0 }: Socket): number {
  const hex = (port: number) => port.toString(16).toUpperCase().padStart(4, "0");
  // /proc/net/tcp: "SL: ADDRESS:PORT ADDRESS:PORT STATE TX_QUEUE:RX_QUEUE …", in hexadecimal (proc_net_tcp.txt of the kernel).
  const line = new RegExp(`: [0-9A-F]+:${hex(localPort)} [0-9A-F]+:${hex(remotePort)} [0-9A-F]{2} ([0-9A-F]{8}):`);
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    try {
      const queue = line.exec(readFileSync(table, "latin1"))?.[1];
      if (queue !== undefined) return Number.parseInt(queue, 16);
    } catch {
      // No such table: no IPv6, or another system.
    }
  }
  return 0;
}
