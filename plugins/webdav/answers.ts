/** What a server's refusals mean for core. */
import { Fault } from "../../core/errors.js";
import { busyMs, retryAfterMs, wantsTls, wantsTlsAdvice, type HttpAnswer } from "../../core/http.js";
import type { Clock } from "../../core/plugin.js";

export interface Refused {
  readonly status: number;
  readonly headers: HttpAnswer["headers"];
  /** The beginning of what it said. */
  readonly text: string;
}

interface Situation {
  /** Opens the message: "cannot write a/b". */
  readonly what: string;
  readonly url: URL;
  readonly clock: Clock;
  /** One path was looked at: no work that takes longer than a proxy waits, or that goes wrong by itself. */
  readonly looks?: boolean;
}

/** What a refusal means. `statusOf` knows its status again. */
export function refusal(refused: Refused, situation: Situation): Fault {
  const fault = meaningOf(refused, situation);
  const { kind, message, retryAfterMs } = fault;
  // With 429 one that was asked before, over a connection that was lost, may have been done.
  const notTaken = refused.status >= 400 && refused.status < 500 && refused.status !== 429;
  return Object.assign(new Fault(kind, message, { notTaken, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) }), {
    status: refused.status,
  });
}

/** The status of the refusal that an error is; undefined of any other. */
export function statusOf(error: unknown): number | undefined {
  return error instanceof Fault && "status" in error && typeof error.status === "number" ? error.status : undefined;
}

/** A proxy gave up on the server behind it, which may be at it still; or the server says that it is (202). */
export function isUnanswered(error: unknown): boolean {
  return [202, 502, 504].includes(statusOf(error) ?? 0);
}

/** Apache behind a proxy that has the TLS takes only the scheme that it is asked by itself: "Destination URI refers to different scheme or port (https://…) (want: http://…)". undefined: it is content. */
export function schemeWanted({ status, text }: Refused): string | undefined {
  return status === 502 ? /\(want: (https?:)\/\//.exec(text)?.[1] : undefined;
}

function meaningOf(refused: Refused, { what, url, clock, looks = false }: Situation): Fault {
  const { status, headers } = refused;
  const words = wordsOf(refused.text);
  const said = `${what}: ${url.host} answers ${status}${words === "" ? "" : ` ("${words}")`}`;
  if (status === 202) return new Fault("transient", `${said}: it is not done yet`);
  if (status < 300) return new Fault("offline", `${said}, which is no answer of WebDAV: a portal before it, or another "url" is meant`);
  if (status < 400) return elsewhere(what, headers.location, url);
  if (wantsTls(status, refused.text)) return new Fault("denied", `${said}: ${wantsTlsAdvice}`);
  switch (status) {
    case 401:
      return new Fault("denied", `${said}: the login is refused${basicOnly(headers["www-authenticate"])}; look at "user" and "password"`);
    case 402:
    case 407:
      return new Fault("denied", said);
    case 403:
      return new Fault(isName(refused.text) ? "rejected" : "denied", said);
    case 404:
    case 410:
      return new Fault("missing", said);
    case 405:
      return new Fault(
        "denied",
        `${said}: there is no WebDAV at this "url", or nothing may be changed there; nginx says so where it has no module for PROPFIND (libnginx-mod-http-dav-ext), Apache of a directory with an "index.html", but with "DirectoryIndex disabled"`,
      );
    case 423:
      return new Fault("transient", `${said}: somebody has locked it`);
    case 408:
    case 424:
    case 425:
      return new Fault("transient", said);
    case 409:
      return new Fault("transient", `${said}: a directory above it is not there`);
    case 412:
      return new Fault("conflict", said);
    case 413: {
      // With Retry-After it is so only now (RFC 9110 §15.5.14), and of this file alone.
      const waitMs = retryAfterMs(headers, clock);
      const tooLarge = `${said}: it is larger than this server takes in one request`;
      // What they have while nobody says otherwise.
      const setting = 'nginx takes 1 MB but with "client_max_body_size 0", Apache 1 GiB but with "LimitRequestBody 0"';
      return waitMs === undefined
        ? new Fault("rejected", `${tooLarge}; ${setting}`)
        : new Fault("transient", `${tooLarge} now`, { retryAfterMs: waitMs });
    }
    case 429:
    case 503:
      return new Fault("throttled", said, { retryAfterMs: retryAfterMs(headers, clock) ?? busyMs });
    case 502:
    case 504:
      return new Fault(looks ? "offline" : "transient", `${said}: the server behind it gave no answer`);
    case 507:
    case 509:
      return new Fault("full", `${said}: no space is left there, or the quota is used up`);
    case 511:
      return new Fault("offline", `${said}: the network wants a login of its own`);
    default:
      return new Fault(status >= 500 && status !== 501 ? "transient" : "rejected", said);
  }
}

/**
 * What a 207 to anything but a PROPFIND says (RFC 4918 §9.6.1, §9.9.4): the status of what was refused, not of what failed because of that (424); undefined where none is in it.
 */
export function statusIn(multistatus: string): number | undefined {
  const statuses = [...multistatus.matchAll(/<(?:\w+:)?status>\s*HTTP\/\S+ ([45]\d\d)\b/g)].map(([, status]) => Number(status));
  return statuses.find((status) => status !== 424) ?? statuses[0];
}

function elsewhere(what: string, location: string | undefined, url: URL): Fault {
  const to = location !== undefined && URL.canParse(location, url.href) ? new URL(location, url) : undefined;
  if (to === undefined || to.hostname !== url.hostname)
    return new Fault("offline", `${what}: ${url.host} leads to ${to?.host ?? "nowhere"}: a portal before it, or another "url" is meant`);
  return new Fault("denied", `${what}: ${url.host} leads to ${to.origin}${to.pathname}: that may be the "url" that is meant`);
}

function basicOnly(challenge: string | undefined): string {
  return challenge === undefined || /\bbasic\b/i.test(challenge)
    ? ""
    : `; it wants ${challenge.split(" ", 1)[0] ?? ""}, and only Basic is known here`;
}

/** Nextcloud refuses names by 403 too. */
function isName(text: string): boolean {
  return /InvalidPath|ForbiddenFilename|forbidden (?:file ?name|extension)|not a valid (?:file|path)/i.test(text);
}

/** One line of it for a person: SabreDAV's message, or its text without tags. */
function wordsOf(text: string): string {
  const message =
    /<(?:\w+:)?message>([^<]*)</.exec(text)?.[1] ?? text.replace(/<(style|script|head)\b.*?<\/\1>/gis, " ").replace(/<[^>]*>/g, " ");
  const line = message.replace(/[\s\p{Cc}]+/gu, " ").trim();
  return line.length > 120 ? `${line.slice(0, 120)}…` : line;
}
