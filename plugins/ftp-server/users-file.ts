/**
 * Users in a file of their own, beside those of the configuration: whoever writes it (a registry, a person) lets somebody in or out while the server runs.
 *
 * What cannot be read lets nobody in, and nobody stay: a user who was taken out must not be let in because something else is wrong with the file.
 */
import { constants, promises as fs } from "node:fs";
import * as v from "valibot";
import { codeOf, faultOfErrno } from "../../core/errors.js";
import type { Level } from "../../core/plugin.js";
import { fileStamp } from "../../core/stat.js";
import { Turns } from "../../core/turns.js";
import { fileUser, hasDirectory, type FileUser } from "./options.js";

const mostBytes = 64 * 2 ** 20;
/** Of what is wrong in it; the rest is counted. */
const mostSaid = 5;

const schema = v.strictObject({ users: v.record(v.string(), v.unknown()) });

export class UsersFile {
  readonly #turns = new Turns();
  #users: ReadonlyMap<string, FileUser> = new Map();
  /** Of the file that was read last. */
  #stamp: string | undefined;
  #said = "";

  /** `taken`: users of the configuration, which holds; nobody asks here for them. */
  constructor(
    readonly path: string,
    readonly taken: ReadonlySet<string>,
    readonly say: (level: Level, message: string, facts: Readonly<Record<string, unknown>>) => void,
  ) {}

  /** Who may log in by the file as it is now. What is wrong with it is said once. Never rejects. */
  look(): Promise<ReadonlyMap<string, FileUser>> {
    // One after the other: who asks after it was written never gets what was read before.
    return this.#turns.run(undefined, () => this.#look());
  }

  async #look(): Promise<ReadonlyMap<string, FileUser>> {
    try {
      const stamp = fileStamp(await fs.stat(this.path, { bigint: true }));
      if (stamp === this.#stamp) return this.#users;
      const read = usersIn(await textOf(this.path));
      const twice = [...read.users.keys()].filter((name) => this.taken.has(name));
      this.#users = read.users;
      this.#stamp = stamp;
      this.#tell([...read.wrong, ...twice.map((name) => `${name} is a user of the configuration too, which holds`)]);
    } catch (error) {
      this.#users = new Map();
      this.#stamp = undefined;
      this.#tell(codeOf(error) === "ENOENT" ? [] : [`${faultOfErrno(error, "it cannot be read").message}; nobody of it can log in`]);
    }
    return this.#users;
  }

  #tell(wrong: readonly string[]): void {
    const more = wrong.length > mostSaid ? [`and ${wrong.length - mostSaid} more`] : [];
    const said = [...wrong.slice(0, mostSaid), ...more].join("; ");
    if (said === this.#said) return;
    this.#said = said;
    if (said === "") this.say("info", `nothing is wrong with the users' file ${this.path} any more`, { path: this.path });
    else this.say("warn", `the users' file ${this.path}: ${said}`, { path: this.path });
  }
}

interface Read {
  readonly users: ReadonlyMap<string, FileUser>;
  /** Places and reasons. */
  readonly wrong: readonly string[];
}

/** What is wrong with one user costs only that one. */
function usersIn(text: string): Read {
  const nobody = (why: string): Read => ({ users: new Map(), wrong: [`${why}; nobody of it can log in`] });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return nobody(`it is no JSON${placeIn(String(error))}`);
  }
  const whole = v.safeParse(schema, json);
  if (!whole.success) return nobody(`it${wordsOf(whole.issues[0])}`);
  const users = new Map<string, FileUser>();
  const wrong: string[] = [];
  for (const [name, given] of Object.entries(whole.output.users)) {
    const one = v.safeParse(fileUser, given);
    const where = `users.${JSON.stringify(name).slice(1, -1)}`;
    if (!one.success) wrong.push(`${where}${wordsOf(one.issues[0])}; that user cannot log in`);
    else if (!hasDirectory(name, one.output))
      wrong.push(`${where}: a root is missing, as the name is no directory name; that user cannot log in`);
    else users.set(name, one.output);
  }
  return { users, wrong };
}

/** Without what stands there: it may be a part of a hash. */
function placeIn(message: string): string {
  const place = / at position \d+(?: \(line \d+ column \d+\))?/.exec(message)?.[0];
  return place ?? (message.includes("end of JSON") ? ", it ends too early" : "");
}

/** Behind the place. What stands there may be a password. */
function wordsOf(issue: v.BaseIssue<unknown>): string {
  const place = v.getDotPath(issue);
  const isObject = issue.type.endsWith("object") && issue.expected === "Object";
  const words = isObject ? "expected an object" : issue.type === "strict_object" ? issue.message : `expected ${issue.message}`;
  return `${place === null ? "" : `.${place}`}: ${words}`;
}

/** Throws node's error. */
async function textOf(path: string): Promise<string> {
  // No pipe holds it up.
  const handle = await fs.open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw new Error("it is no plain file");
    if (stat.size > mostBytes) throw new Error(`it has more than ${mostBytes} bytes`);
    return await handle.readFile("utf8");
  } finally {
    await handle.close();
  }
}
