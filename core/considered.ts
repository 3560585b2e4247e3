/**
 * Whether every delivery of what a source holds is known: the rules of now asked all that it lists, to the end of a listing. Where that could not look is remembered, and
 * asked once it can.
 */
import { createHash } from "node:crypto";
import type { Engine } from "./engine.js";
import type { Lane } from "./lane.js";
import type { FileEntry } from "./plugin.js";

/** Where the listing that asked all routes could not look: a directory, or a file. */
interface Unread {
  readonly path: string;
  readonly medium: string;
}

type Place = Pick<FileEntry, "path" | "medium">;

/** Whether a source was listed to its end, with this medium in, under the present rules: until then not every delivery of what is on it is known. */
export function isConsidered(engine: Engine, source: string, medium: string): boolean {
  return engine.journal.meta(considered(source, medium)) === rulesOf(engine, source);
}

/** Of what is where that listing could not look, not every delivery is known. */
export function unreadAt(engine: Engine, source: string): (of: Place) => boolean {
  return isIn(unreadOf(engine, source));
}

/** One listing, and whom it has to ask once more. */
export class Considering {
  /** Of these media nothing was asked under the rules of now. */
  readonly all: boolean;
  readonly #media: readonly string[];
  readonly #rules: string;
  readonly #before: readonly Unread[];
  readonly #wasUnread: (of: Place) => boolean;
  readonly #unread = new Map<string, FileEntry>();

  constructor(
    readonly engine: Engine,
    readonly lane: Lane,
  ) {
    this.#media = lane.media;
    this.#rules = rulesOf(engine, lane.name);
    this.#before = unreadOf(engine, lane.name);
    this.#wasUnread = isIn(this.#before);
    this.all = this.#media.some((medium) => !isConsidered(engine, lane.name, medium));
  }

  /** Whether the routes are asked about it though it is known, and the same. */
  mustAsk(entry: FileEntry): boolean {
    return this.all || this.#wasUnread(entry);
  }

  noteUnread(entry: FileEntry): void {
    if (this.all || this.#before.length > 0) this.#unread.set(textOf(entry), entry);
  }

  /** After a listing to its end: what notes inside `apply` what is known now; undefined where nothing of it is new. */
  end(): (() => void) | undefined {
    const { engine, lane } = this;
    // What is looked at for the first time under these rules, and cannot be; later what still cannot be of that.
    const stays = this.#before.filter((it) => !this.#media.includes(it.medium) || (!this.all && this.#unread.has(textOf(it))));
    if (this.all) stays.push(...[...this.#unread.values()].filter((entry) => engine.queue.knowsBelow(lane.name, entry)).map(unreadFrom));
    if (!this.all && stays.length === this.#before.length) return undefined;
    return () => {
      for (const medium of this.#media) engine.journal.setMeta(considered(lane.name, medium), this.#rules);
      engine.journal.setMeta(unreadKey(lane.name), stays.length === 0 ? undefined : JSON.stringify(stays));
    };
  }
}

/** Inside `apply`. The routes are asked once more about all that there is. */
export function considerAnew({ journal }: Engine): void {
  journal.run("DELETE FROM meta WHERE key >= 'routes:' AND key < 'routes;'");
}

const considered = (source: string, medium: string) => (medium === "" ? `routes:${source}` : `routes:${source}:${medium}`);

const unreadFrom = ({ path, medium = "" }: Place): Unread => ({ path, medium });
const textOf = (entry: Place) => JSON.stringify(unreadFrom(entry));
const unreadKey = (source: string) => `unread:${source}`;

function unreadOf(engine: Engine, source: string): Unread[] {
  return JSON.parse(engine.journal.meta(unreadKey(source)) ?? "[]") as Unread[];
}

function isIn(unread: readonly Unread[]): (of: Place) => boolean {
  return ({ path, medium = "" }) => unread.some((it) => it.medium === medium && (path === it.path || path.startsWith(`${it.path}/`)));
}

function rulesOf(engine: Engine, source: string): string {
  const routes = engine.routes.get(source) ?? [];
  return createHash("sha256")
    .update(JSON.stringify([routes.map(({ rules }) => rules.route), engine.names]))
    .digest("hex");
}
