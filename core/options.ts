/**
 * The words from which options are made: sizes, durations, rates, secrets, paths. A plugin's options are one `v.strictObject` of these
 * and of valibot's own; each entry has a `v.description`, which is its help text in the JSON Schema and in the docs.
 *
 * All figures come out in the unit that the name in code says: bytes, milliseconds, bytes per second.
 */
import { createHmac, randomBytes } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { isIPv6 } from "node:net";
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import * as v from "valibot";
import { codeOf } from "./errors.js";

/** What a configuration file knows of its surroundings; set while it is parsed. */
export interface Surroundings {
  /** Relative paths are relative to this directory. */
  readonly baseDir: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Nobody will use them: where they are kept is not looked at, and what is not there is no mistake. */
  readonly secrets?: "unread";
}

let surroundings: Surroundings = { baseDir: "/", env: {} };

/** Parses (synchronously) with relative paths, `{env}` and `{file}` resolved in these surroundings. */
export function parseIn<T>(
  where: Surroundings,
  schema: v.GenericSchema<unknown, T>,
  input: unknown,
): v.SafeParseResult<v.GenericSchema<unknown, T>> {
  const before = surroundings;
  surroundings = where;
  try {
    return v.safeParse(schema, input);
  } finally {
    surroundings = before;
  }
}

const markKey = randomBytes(32);

/** A password or key: it shows itself only through `reveal()`, never in a message, a log or JSON. */
export class Secret {
  readonly #value: string;
  /** Tells two secrets apart within this process, and nothing else: what is compared deeply must not take them for the same. */
  readonly mark: string;
  constructor(value: string) {
    this.#value = value;
    this.mark = createHmac("sha256", markKey).update(value).digest("hex");
  }
  reveal(): string {
    return this.#value;
  }
  /** Whether it is what it has to be; one that was not read may be. */
  fits(test: (text: string) => boolean): boolean {
    return test(this.#value);
  }
  toString(): string {
    return "[secret]";
  }
  toJSON(): string {
    return "[secret]";
  }
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return "[secret]";
  }
}

/** One that was not looked at. */
class UnreadSecret extends Secret {
  constructor() {
    super("");
  }
  override reveal(): never {
    throw new Error("this secret was not read");
  }
  override fits(): boolean {
    return true;
  }
}

const units: ReadonlyMap<string, number> = new Map([
  ["", 1],
  ["B", 1],
  ["kB", 1e3],
  ["MB", 1e6],
  ["GB", 1e9],
  ["TB", 1e12],
  ["KiB", 2 ** 10],
  ["MiB", 2 ** 20],
  ["GiB", 2 ** 30],
  ["TiB", 2 ** 40],
]);
const spans: ReadonlyMap<string, number> = new Map([
  ["ms", 1],
  ["s", 1e3],
  ["m", 6e4],
  ["min", 6e4],
  ["h", 36e5],
  ["d", 864e5],
  ["w", 6048e5],
]);

/** Bytes of "4MiB", "300 kB" or 1024; undefined for anything else. */
export function parseSize(text: string | number): number | undefined {
  if (typeof text === "number") return Number.isSafeInteger(text) && text >= 0 ? text : undefined;
  const match = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$/.exec(text);
  const unit = units.get(match?.[2] ?? "?");
  if (match === null || unit === undefined) return undefined;
  const bytes = Math.round(Number(match[1]) * unit);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** Milliseconds of "30s", "5min", "7d"; undefined for anything else. */
export function parseDuration(text: string | number): number | undefined {
  if (typeof text === "number") return text === 0 ? 0 : undefined;
  const match = /^\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*$/.exec(text);
  const span = spans.get(match?.[2] ?? "?");
  return match === null || span === undefined ? undefined : Math.round(Number(match[1]) * span);
}

/** With its help text. */
export const described = <T extends v.GenericSchema>(schema: T, text: string) => v.pipe(schema, v.description(text));

/** A text of one line. `what` names it. */
export const lineOrNothing = (what: string) =>
  v.pipe(
    v.string(what),
    v.check((text) => !/\p{Cc}/u.test(text), "a text without control characters"),
  );

/** A text of one line, not empty. */
export const oneLine = (what: string) => v.pipe(lineOrNothing(what), v.nonEmpty(what));

/** A directory of a server: without a leading "/" below the login directory, which a shell calls "~". */
export const serverRoot = () =>
  v.pipe(
    oneLine("a path"),
    v.transform((text) => text.replace(/^~(?:\/+|$)/, "") || "."),
  );

/** A server's name or address; an IPv6 address also in brackets, as in a URL. */
export const host = () =>
  v.pipe(
    oneLine("a host name or an address"),
    v.regex(/^[^\s"/@]+$/, "a host name or an address: no URL, no user, no spaces"),
    v.transform((text) => text.replace(/^\[(.*)\]$/, "$1")),
    v.check((text) => !text.includes(":") || isIPv6(text), 'a host name or an address: no port, which has a key of its own ("port")'),
  );

/** How many things at once a plugin allows, from 1 to 16. */
export const upToSixteen = () =>
  v.pipe(v.number("a number"), v.integer("a whole number"), v.minValue(1, "at least 1"), v.maxValue(16, "at most 16"));

/** "4MiB" → bytes. */
export const size = () =>
  v.pipe(
    v.union([v.string(), v.number()], 'a size such as "4MiB" or "300kB"'),
    v.rawTransform<string | number, number>(({ dataset, addIssue, NEVER }) => {
      const bytes = parseSize(dataset.value);
      if (bytes !== undefined) return bytes;
      addIssue({ message: 'a size such as "4MiB" or "300kB" (units: B kB MB GB KiB MiB GiB)' });
      return NEVER;
    }),
  );

/** "2MiB/s" → bytes per second, at least 1. */
export const rate = () =>
  v.pipe(
    v.string('a rate such as "2MiB/s"'),
    v.rawTransform<string, number>(({ dataset, addIssue, NEVER }) => {
      const match = /^(.*)\/s\s*$/.exec(dataset.value);
      const bytes = match === null ? undefined : parseSize(match[1] ?? "");
      if (bytes !== undefined && bytes >= 1) return bytes;
      addIssue({ message: 'a rate such as "2MiB/s" or "300kB/s"' });
      return NEVER;
    }),
  );

/** "30s" → milliseconds. */
export const duration = () =>
  v.pipe(
    v.union([v.string(), v.number()], 'a duration such as "30s" or "7d"'),
    v.rawTransform<string | number, number>(({ dataset, addIssue, NEVER }) => {
      const ms = parseDuration(dataset.value);
      if (ms !== undefined) return ms;
      addIssue({ message: 'a duration such as "500ms", "30s", "5min", "12h" or "7d"' });
      return NEVER;
    }),
  );

/** "30s" → milliseconds that a timer waits: one of Node.js's that is to wait longer fires at once. */
export const wait = () => v.pipe(duration(), v.maxValue(24 * 86_400_000, 'at most "24d"'));

/** How long somebody else may take. */
export const patience = () => v.pipe(wait(), v.minValue(1, 'more than "0s"'));

/** A path on this machine → absolute; relative to the configuration file, `~` is the home directory. */
export const path = () =>
  v.pipe(
    lineOrNothing("a path"),
    v.nonEmpty("a path, not an empty text"),
    // What a shell would replace: taken as it is, it would be made as a directory of that name.
    v.check(
      (text) => !/^(~[^/]|\$[\w{])/.test(text),
      'a path that is written out: no shell reads it, only "~/" is the home directory ("./" before it makes it a name here)',
    ),
    v.transform(absolute),
  );

function absolute(text: string): string {
  if (text === "~" || text.startsWith("~/")) return join(surroundings.env.HOME ?? homedir(), text.slice(1));
  return isAbsolute(text) ? text : resolve(surroundings.baseDir, text);
}

/** A command: the program, then its arguments; no shell reads it. A program with "/" that is relative is so to the configuration file. */
export const command = () =>
  v.pipe(
    v.array(v.string("a text"), "a list: the command and its arguments"),
    v.minLength(1, "a command"),
    v.check(([program = ""]) => program !== "" && !/[=\0]/.test(program), 'a program whose name is not empty and has no "="'),
    v.transform(([program = "", ...args]) => [program.includes("/") ? absolute(program) : program, ...args]),
  );

/** A credential of systemd: of the unit, or of the directory that filesync.service loads as "filesync" (systemd.exec(5): its files have that prefix); by hand, of that directory itself. */
function credentialFile(name: string): string | undefined {
  const { CREDENTIALS_DIRECTORY: dir } = surroundings.env;
  const given = dir === undefined || dir === "" ? [] : [join(dir, name), join(dir, `filesync_${name}`)];
  const own = join(surroundings.baseDir, "credentials", name);
  // Where systemd gave a directory, that is all there is for us: what only root may look into says nothing.
  return [...given, own].find((path) => isThere(path, path === own && given.length === 0));
}

/** `closed`: what is said of a path that we may not look at. */
function isThere(path: string, closed: boolean): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    return isClosed(error) && closed;
  }
}

function isClosed(error: unknown): boolean {
  return codeOf(error) === "EACCES" || codeOf(error) === "EPERM";
}

/** As what an issue has received: whoever parses may not see it, and says nothing of whether it is right. */
export const unseen = "what this user may not read";

/** A key whose value is a secret, whatever it looks like. */
export const secretKey = /pass(?!ive)|secret|token|hash|credential|authori[sz]ation|cookie|api[-_]?key|^key$|privatekey$|signature|bearer/i;

/** What only tells where something is, under whatever key. */
export const isPath = (value: unknown): boolean => typeof value === "string" && /^(~|\.{0,2})\/[^\s:]{1,250}$/.test(value);

/** What a secret is, for a person. */
export const secretWords = 'a text, { "env": "NAME" }, { "file": "PATH" } or { "credential": "NAME" }';

/** "text", { "env": "NAME" }, { "file": "PATH" } or { "credential": "NAME" } (the last line end of a file is taken off) → Secret; only the text may be empty, where `empty` says nothing against it. */
export const secret = (empty?: "refused") =>
  v.pipe(
    v.union(
      [
        v.string(),
        v.strictObject({ env: v.string() }),
        v.strictObject({ file: v.string() }),
        v.strictObject({ credential: v.pipe(v.string(), v.regex(/^[^/]+$/, "the name of a credential, without /")) }),
      ],
      secretWords,
    ),
    v.rawTransform<string | { env: string } | { file: string } | { credential: string }, Secret>(({ dataset, addIssue, NEVER }) => {
      const given = dataset.value;
      if (given === "" && empty === "refused") {
        addIssue({ message: "a text that is not empty" });
        return NEVER;
      }
      if (typeof given === "string") return new Secret(given);
      if (surroundings.secrets === "unread") return new UnreadSecret();
      if ("env" in given) {
        const value = Object.hasOwn(surroundings.env, given.env) ? surroundings.env[given.env] : undefined;
        if (value !== undefined && value !== "") return new Secret(value);
        addIssue({ message: `the environment variable ${given.env} to be set` });
        return NEVER;
      }
      if ("credential" in given) {
        const { credential: name } = given;
        const file = credentialFile(name);
        if (file !== undefined) return readSecret(file, addIssue) ?? NEVER;
        const dir = join(surroundings.baseDir, "credentials");
        addIssue({
          message: `the credential ${name}: a file ${join(dir, name)} (then restart the service), or LoadCredential=${name}:PATH in the unit`,
        });
        return NEVER;
      }
      const file = resolve(surroundings.baseDir, given.file.replace(/^~\//, `${surroundings.env.HOME ?? homedir()}/`));
      return readSecret(file, addIssue) ?? NEVER;
    }),
  );

/** What a file that keeps a secret says: without its last line end, and the byte order mark of Windows' editors. Throws node's error. */
export function secretTextIn(file: string): string {
  return readFileSync(file, "utf8")
    .replace(/^\uFEFF/, "")
    .replace(/\r?\n$/, "");
}

function readSecret(file: string, addIssue: (issue: { message: string; received?: string }) => void): Secret | undefined {
  try {
    const value = secretTextIn(file);
    if (value !== "") return new Secret(value);
    addIssue({ message: `a secret in ${file}; it is empty` });
    return undefined;
  } catch (error) {
    if (isClosed(error))
      addIssue({
        message: `the secret in ${file}, which this user may not read; root's doctor tells whether it is right (sudo filesync doctor)`,
        received: unseen,
      });
    else addIssue({ message: `a readable secret file; ${file} is not (${codeOf(error) === "" ? String(error) : codeOf(error)})` });
    return undefined;
  }
}

/** A TCP or UDP port. */
export const port = () =>
  v.pipe(
    v.number("a port number"),
    v.integer("a whole number"),
    v.minValue(1, "a port from 1 to 65535"),
    v.maxValue(65535, "a port from 1 to 65535"),
  );

/** "HOST:PORT" or ":PORT" → { host, port }; port 0 means any free one. IPv6 addresses in brackets. */
export const listenAddress = () =>
  v.pipe(
    v.string('an address such as "0.0.0.0:2121"'),
    v.rawTransform<string, { host: string; port: number }>(({ dataset, addIssue, NEVER }) => {
      const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(dataset.value);
      if (match !== null && Number(match[3]) <= 65535)
        return { host: match[1] ?? (match[2] === "" ? "0.0.0.0" : (match[2] ?? "0.0.0.0")), port: Number(match[3]) };
      addIssue({ message: 'an address such as "0.0.0.0:2121" or "[::1]:2121"' });
      return NEVER;
    }),
  );
