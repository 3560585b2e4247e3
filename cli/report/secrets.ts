/**
 * What must not leave this machine, taken out of a text that does: each secret that is known, in every form in which it may stand there, and what looks
 * like one. Rather too much than too little.
 */
import { secretKey } from "../../core/options.js";

/** What stands in the place of a secret. */
export const hidden = "[secret]";

/** Shorter ones would take every word apart; they stand only where the configuration has them, and that is not shown. */
const shortest = 4;

/** What `{ "env": … }` and `{ "file": … }` lead to; undefined where nothing can be had. */
export type Lookup = (where: { readonly env: string } | { readonly file: string }) => string | undefined;

/** Secrets of a configuration: those that its options hold (`parsed`), and what stands below a key that says so in what was written (`raw`). */
export function secretsOf(parsed: unknown, raw: unknown, lookup: Lookup): string[] {
  const found = new Set<string>();
  const add = (text: string) => {
    for (const one of [text, text.trim(), ...text.split(/\r?\n/)]) if (one.length >= shortest) found.add(one);
  };
  const seen = new Set<unknown>();
  const walk = (value: unknown, below: boolean): void => {
    if (typeof value === "string") {
      if (below) add(value);
      for (const one of inUrl(value)) add(one);
    } else if (typeof value === "number" && below) add(String(value));
    else if (typeof value === "object" && value !== null && !seen.has(value)) {
      seen.add(value);
      // A plugin from outside may bring a Secret of its own.
      if ("reveal" in value && typeof value.reveal === "function") add(String((value.reveal as () => unknown).call(value)));
      const { env, file } = value as { env?: unknown; file?: unknown };
      if (typeof env === "string") add(lookup({ env }) ?? "");
      if (typeof file === "string") add(lookup({ file }) ?? "");
      for (const [key, inner] of Object.entries(value)) {
        // What these name is no secret; what a credential leads to, only `parsed` knows.
        const names = below && ["env", "file", "credential"].includes(key);
        walk(inner, !names && (below || secretKey.test(key) || key === "headers"));
        if (["onSafe", "command"].includes(key) && Array.isArray(inner)) for (const one of inner.slice(1)) argument(one, add);
      }
    }
  };
  walk(raw, false);
  walk(parsed, false);
  return [...found].filter((text) => !isPlace(text)).sort((a, b) => b.length - a.length);
}

/** An argument of a command, that may be one, or end with one. */
function argument(text: unknown, add: (text: string) => void): void {
  if (typeof text !== "string") return;
  add(text.startsWith("-") ? text.slice(text.indexOf("=") + 1) : text);
  for (const word of text.split(/[\s=:]+/)) if (looksRandom(word)) add(word);
}

/** Addresses of people in what was written. */
export function addressesIn(text: string): string[] {
  return [...new Set(text.match(/[\p{L}\p{N}._+=~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}/gu) ?? [])];
}

/** A path, which a key such as `privateKey` has: where a secret is, not what it is. */
function isPlace(text: string): boolean {
  return /^(~|\.{0,2})\/[^\s:]{1,250}$/.test(text);
}

/** User and password before "@", and what a query says. */
function inUrl(text: string): string[] {
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(text) || !URL.canParse(text)) return [];
  const { password, searchParams, hash, pathname } = new URL(text);
  const parts = pathname.split("/").filter(looksRandom);
  return [password, decoded(password), ...searchParams.values(), hash.slice(1), ...parts].filter((one) => one !== "");
}

/** As it stands, where it is no encoding of anything. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Each form of a secret that a log, a URL or a header may have. */
function formsOf(secret: string): string[] {
  const bytes = Buffer.from(secret);
  const base64 = [0, 1, 2].flatMap((offset) => {
    // Behind something else: the characters that this secret alone decides.
    const whole = Buffer.concat([Buffer.alloc(offset), bytes]).toString("base64");
    const part = whole.slice(Math.ceil((offset * 4) / 3), Math.floor(((offset + bytes.length) * 4) / 3));
    return part.length >= shortest ? [part, part.replaceAll("+", "-").replaceAll("/", "_")] : [];
  });
  const encoded = encodeURIComponent(secret);
  // Everything but letters and digits, as some programs write it.
  const strict = [...bytes]
    .map((byte) => (/[A-Za-z0-9]/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : percent(byte)))
    .join("");
  const urls = [encoded, encoded.replaceAll("%20", "+"), strict];
  const json = JSON.stringify(secret).slice(1, -1);
  return [secret, json, JSON.stringify(json).slice(1, -1), ...urls, ...base64, bytes.toString("hex")];
}

function percent(byte: number): string {
  return `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
}

type Rule = readonly [RegExp, string | ((...match: string[]) => string)];

/** What looks like a secret, known or not. */
const rules: readonly Rule[] = [
  [/-----BEGIN [^-]*(PRIVATE KEY|CERTIFICATE)[^-]*-----[\s\S]*?(-----END [^-]*-----|$)/g, hidden],
  [/\b(scrypt|argon2id?|bcrypt|pbkdf2)\$[^\s"',]+/gi, hidden],
  [/\$(2[aby]|[156y])\$[^\s"',]+/g, hidden],
  [/\b(Basic|Bearer)\s+[A-Za-z0-9+/=._~-]{6,}/gi, `$1 ${hidden}`],
  // The user and the password of a URL; then what its query says.
  [/\b([a-z][a-z0-9+.-]*:\/\/)[^\s/@"']+@/gi, `$1${hidden}@`],
  [/([?&;][A-Za-z0-9_.[\]-]+=)[^\s&;"'#<>)]+/g, `$1${hidden}`],
  // Long words of letters and digits in the path of a URL: a webhook's, a bot's.
  [
    /\b(https?:\/\/[^\s/"'?]+)(\/[^\s"'?]*)/gi,
    (_whole, host = "", path = "") =>
      host +
      path
        .split("/")
        .map((part) => (looksRandom(part) ? hidden : part))
        .join("/"),
  ],
  // What is between brackets is the configuration's, which shows none.
  [
    /\b((?:pass(?:word|wd|phrase)?|token|secret|api[-_]?key|signature|cookie|authorization)(?:\\*["']\s*:\s*\\*["']|\s*=\s*\\*["']?))(?![{[])[^\s"',;}\]\\]+/gi,
    `$1${hidden}`,
  ],
  // A header.
  [/\b((?:authorization|(?:set-)?cookie|x-[a-z-]*(?:key|token|auth)):\s*)(?![{[])[^"\r\n]+/gi, `$1${hidden}`],
  // A name of systemd has an "@" as well.
  [
    /[\p{L}\p{N}._+=~%-]+(@|%40)(?=[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,})(?![A-Za-z0-9._\\-]+\.(?:service|socket|mount|timer|slice|target|scope)\b)/giu,
    "…$1",
  ],
];

function looksRandom(part: string): boolean {
  return part.length >= 16 && /\d/.test(part) && /[A-Za-z]/.test(part) && !/\.[a-z0-9]{2,5}$/i.test(part);
}

/** Takes secrets out of texts; of `addresses` of people their encoded forms, the rest of one is their domain. */
export class Redactor {
  readonly #forms: readonly RegExp[];

  constructor(secrets: readonly string[], addresses: readonly string[] = []) {
    const encoded = addresses.flatMap((address) => formsOf(address).filter((form) => !form.includes(address)));
    // The longest first: what is a part of another would leave the rest of that.
    this.#forms = [...new Set([...secrets.flatMap(formsOf), ...encoded])]
      .filter((form) => form.length >= shortest)
      .sort((a, b) => b.length - a.length)
      // Programs write what they encode in either case.
      .map((form) => new RegExp(form.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"), "gi"));
  }

  clean(text: string): string {
    let out = text;
    for (const form of this.#forms) out = out.replace(form, hidden);
    for (const [what, instead] of rules) out = typeof instead === "string" ? out.replace(what, instead) : out.replace(what, instead);
    return out;
  }
}
