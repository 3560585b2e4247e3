/** What a server's answer to a posted file means: for Flight Review as PX4/flight_review and the proxies before it have it, else as the configuration says. */
import { Fault } from "../../core/errors.js";
import { busyMs, retryAfterMs, wantsTls, wantsTlsAdvice, type HttpAnswer } from "../../core/http.js";
import type { Clock, Upload } from "../../core/plugin.js";
import { sizeText } from "../../core/text.js";
import type { PostOptions } from "./plugin.js";

/** What was understood of an answer that says yes. */
export interface Read {
  /** ISO 8601. */
  readonly at: string;
  /** One line for a person. */
  readonly answer: string;
  readonly url?: string;
  readonly id?: string;
  readonly secret?: string;
}

interface Situation {
  readonly options: PostOptions;
  readonly upload: Upload;
  readonly clock: Clock;
}

const taken = [200, 201, 202, 204];
const mostErrors = 5;
/** A portal stays for as long as nobody logs in. Each time after the first it is left alone for twice as long: should it be the right server after all, with words that are not known, it has had the file each time. */
const portalMs = 900_000;
const longestPortalMs = 4 * 3_600_000;

/** Throws what the answer means, where it is no yes. */
export async function readAnswer(answer: HttpAnswer, { options, upload, clock }: Situation): Promise<Read> {
  const { status, headers } = answer;
  const isYes = (options.answer.status ?? taken).includes(status) || (options.preset !== undefined && status === 302);
  // A refusal needs no words.
  const text = await answer.text().catch((error: unknown) => {
    if (isYes) throw error;
    return undefined;
  });
  const { host } = new URL(options.url);
  const words = text === undefined ? undefined : inOneLine(text);
  const said = `${host} answers ${status}${words === undefined ? ", and breaks off" : words === "" ? "" : `: ${words}`}`;
  const notIt = async (why: string) =>
    new Fault(
      "throttled",
      `${host} does not answer as the right server does (${why}): a portal, or another server; nothing is posted to it for a while`,
      { retryAfterMs: Math.min(longestPortalMs, portalMs * 2 ** ((await counted(upload, "portals")) - 1)) },
    );
  const location = headers.location === undefined ? undefined : urlFrom(headers.location, options.url);
  if (isYes && text !== undefined) {
    if (options.answer.contains !== undefined && !text.includes(options.answer.contains))
      throw await notIt('its answer does not hold "contains"');
    const read = understood(options, text, location);
    if (typeof read === "string") throw await notIt(read);
    return {
      at: new Date(clock.wallMs()).toISOString(),
      answer: options.preset === undefined ? said : `${host} answers ${status}`,
      ...read,
    };
  }
  if (status >= 300 && status < 400) throw await notIt(`it leads to ${location === undefined ? "somewhere else" : placeOf(location)}`);
  // Of the network on the way, never of the server itself (RFC 6585 §6).
  if (status === 511) throw await notIt("it answers 511: the network wants a login first");
  const tooLarge = `it has ${sizeText(upload.size)}, more than ${host} takes`;
  switch (status) {
    case 400:
      if (wantsTls(status, text ?? "")) throw new Fault("denied", `${said}: ${wantsTlsAdvice}`);
      // Tornado closes with an empty 400 when a body is over its cap; a file that it does not like has words.
      if (words === "") throw new Fault("rejected", `${tooLarge} (it answers an empty 400)`);
      throw new Fault("rejected", said);
    case 401:
    case 403:
      throw new Fault("denied", `${said}; look at "key" or "headers"`);
    case 404:
    case 405:
    case 410:
    case 501:
      throw new Fault("denied", `${said}: nothing there takes a file; look at "url"`);
    case 408:
    case 429:
    case 503:
      throw new Fault("throttled", said, { retryAfterMs: retryAfterMs(headers, clock) ?? busyMs });
    case 413: {
      // With Retry-After it is so only now (RFC 9110 §15.5.14), and of this file alone.
      const waitMs = retryAfterMs(headers, clock);
      if (waitMs !== undefined) throw new Fault("transient", `${tooLarge} now (413)`, { retryAfterMs: waitMs, notTaken: true });
      throw new Fault("rejected", `${tooLarge} (413)`);
    }
    case 507:
      throw new Fault("full", said);
    case 500:
      throw await failed(upload, said);
  }
  // 502 and 504 are a proxy's words: what became of it behind that nobody knows.
  throw new Fault(status >= 500 ? "transient" : "rejected", said);
}

/** The server's own trouble, or a field that it misses: again, but not for ever. */
async function failed(upload: Upload, said: string): Promise<Fault> {
  const errors = await counted(upload, "errors");
  if (errors >= mostErrors) return new Fault("rejected", `${said} (${errors} times)`);
  return new Fault("throttled", said, { retryAfterMs: busyMs * 2 ** (errors - 1) });
}

/** How often that was so of this upload, with this time. */
export async function counted({ memo }: Upload, key: string): Promise<number> {
  const times = Number(memo.get(key) ?? 0) + 1;
  await memo.set(key, times);
  return times;
}

/** Else why it is not what the right server says. */
function understood(options: PostOptions, text: string, location: string | undefined): Omit<Read, "at" | "answer"> | string {
  const { preset } = options;
  const at = options.answer.url ?? preset?.url;
  const json = parsed(text);
  if (preset?.id !== undefined) {
    const id = valueAt(json, preset.id);
    if (id === undefined) return "there is no id in its answer";
    const secret = preset.secret === undefined ? undefined : valueAt(json, preset.secret);
    const url = preset.page === undefined ? undefined : urlFrom(preset.page.replace("{id}", encodeURIComponent(id)), options.url);
    return { id, ...(url === undefined ? {} : { url }), ...(secret === undefined ? {} : { secret }) };
  }
  if (at === undefined) return {};
  const found = at === "location" ? location : (urlOf(valueAt(json, at), options.url) ?? (preset === undefined ? undefined : location));
  if (found === undefined) return "there is no URL in its answer";
  const id = new URL(found).searchParams.get("log") ?? undefined;
  if (preset !== undefined && id === undefined) return `it leads to ${found}`;
  return { url: found, ...(id === undefined ? {} : { id }) };
}

function urlOf(text: string | undefined, base: string): string | undefined {
  return text === undefined ? undefined : urlFrom(text, base);
}

function urlFrom(text: string, base: string): string | undefined {
  return URL.canParse(text, base) ? new URL(text, base).href : undefined;
}

/** Without what a portal puts behind it: who it is that asks. */
function placeOf(url: string): string {
  const { origin, pathname } = new URL(url);
  return `${origin}${pathname}`;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** A text or number at a JSON pointer (RFC 6901). */
function valueAt(json: unknown, pointer: string): string | undefined {
  let value = json;
  for (const part of pointer.split("/").slice(1)) {
    if (typeof value !== "object" || value === null) return undefined;
    value = (value as Record<string, unknown>)[part.replaceAll("~1", "/").replaceAll("~0", "~")];
  }
  return typeof value === "string" || typeof value === "number" ? String(value) : undefined;
}

/** What a person reads of a page. */
function inOneLine(text: string): string {
  return text
    .replace(/<(script|style)\b.*?<\/\1>/gis, " ")
    .replace(/<[^>]*>/g, " ")
    .replace(/[\s\p{Cc}]+/gu, " ")
    .trim()
    .slice(0, 200);
}
