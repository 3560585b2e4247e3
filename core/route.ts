/**
 * Pure: an entry and the rules of the routes → the uploads that it shall become. No I/O, no clock, no state: the same entry and the same
 * rules give the same deliveries with the same ids, so finding a file twice changes nothing.
 */
import { hash } from "node:crypto";
import picomatch from "picomatch";
import { bytesFromName, cutName, splitPath } from "./names.js";
import { parentOf } from "./paths.js";
import type { FileEntry } from "./plugin.js";
import type { When } from "./when.js";

export type Priority = "newest" | "oldest" | "smallest";
export type AfterDelivery = "keep" | "delete" | "archive";

export interface RouteTarget {
  readonly device: string;
  readonly required: boolean;
  /** Other targets of this route that have to have a file first. */
  readonly requires: readonly string[];
  /** A file goes there once, whatever path it would have: there is no place in which it could be missing. */
  readonly once?: true;
  /** Of a type that nobody knows: until that is mended it gets only what comes after this route ran first. */
  readonly unknownType?: true;
}

export interface Route {
  readonly from: string;
  readonly to: readonly RouteTarget[];
  readonly include: readonly string[];
  readonly exclude: readonly string[];
  readonly minSize: number;
  readonly maxSize: number;
  /** Wall time in ms, the first run of this route, or an age at the time of the listing. */
  readonly since?: number | "install" | { readonly ageMs: number };
  readonly newest?: number;
  readonly priority: Priority;
  readonly weight: number;
  readonly into: string;
  readonly afterDelivery: AfterDelivery;
  readonly trustSize: boolean;
  readonly maxRate?: number;
  readonly when?: When;
}

/** The program's own, wherever a directory has this name: marks and trash of routes. Never listed by them, never sent. */
export const ownDir = ".filesync";

export interface Names {
  readonly vehicle: string;
  readonly installation: string;
}

export interface PlannedDelivery {
  readonly id: string;
  readonly target: string;
  /** At the target, below its root. */
  readonly path: string;
  readonly required: boolean;
  readonly weight: number;
  /** Larger goes first. */
  readonly rank: number;
  readonly once?: true;
}

/** A route made ready to be asked: its patterns are compiled once. */
export class Rules {
  readonly #include: (path: string) => boolean;
  readonly #exclude: (path: string) => boolean;

  constructor(readonly route: Route) {
    const options = { dot: true };
    this.#include = route.include.length === 0 ? () => true : picomatch([...route.include], options);
    this.#exclude = route.exclude.length === 0 ? () => false : picomatch([...route.exclude], options);
  }

  /** Whether anything below this directory can be wanted; an excluded one, and the program's own, is not even listed. */
  enters(dir: string): boolean {
    return !isOwn(dir) && !this.#exclude(dir) && !this.#exclude(`${dir}/`);
  }

  /** Whether it, and all that is above it, is listed. */
  reaches(dir: string): boolean {
    return dir.split("/").every((_, n, parts) => this.enters(parts.slice(0, n + 1).join("/")));
  }

  /** Whether a file somewhere below this directory can be wanted; where that is hard to tell, yes. */
  mayWantBelow(dir: string): boolean {
    if (!this.reaches(dir)) return false;
    const parts = dir.split("/");
    const { include } = this.route;
    return include.length === 0 || include.some((pattern) => mayMatchBelow(pattern, parts));
  }

  /** Name and size only; `since` and `newest` need more than the entry. */
  wants(entry: Pick<FileEntry, "path" | "size">): boolean {
    const { path, size } = entry;
    const { minSize, maxSize } = this.route;
    return size >= minSize && size <= maxSize && this.#include(path) && !this.#excluded(path) && !isPartial(path);
  }

  /** Excluded by its own name or by that of a directory above it. */
  #excluded(path: string): boolean {
    for (let at = path.indexOf("/"); at !== -1; at = path.indexOf("/", at + 1)) if (!this.enters(path.slice(0, at))) return true;
    return this.#exclude(path);
  }

  /** `installedMs`: the first run of this route. `firstListing`: the source was never listed for this route before, so what has no time is old. */
  isSince(entry: FileEntry, installedMs: number, firstListing: boolean, nowMs: number): boolean {
    const { since } = this.route;
    const at = plausible(entry.modifiedMs);
    if (at === undefined) return since !== "install" || !firstListing;
    return at >= (this.#sinceMs(installedMs, nowMs) ?? -Infinity);
  }

  /** By name, size and date: how old it is by now, and what is newer, was asked when it was found. `installedMs`: as for `isSince`. */
  mayTake(entry: FileEntry, installedMs: number): boolean {
    return this.wants(entry) && this.isSince(entry, installedMs, false, -Infinity);
  }

  #sinceMs(installedMs: number | undefined, nowMs: number): number | undefined {
    const { since } = this.route;
    if (since === "install") return installedMs;
    return typeof since === "object" ? nowMs - since.ageMs : since;
  }

  /** Which rule leaves this file, for a person; undefined when none does. A size that is not known breaks no rule. `newest` needs the others, and is not asked. */
  refusal(
    entry: { readonly path: string; readonly size?: number; readonly modifiedMs?: number },
    nowMs: number,
    installedMs?: number,
  ): string | undefined {
    const { path, size, modifiedMs } = entry;
    const { include, exclude, minSize, maxSize, since } = this.route;
    if (isOwn(parentOf(path))) return `it is FileSync's own, as all that is in a directory "${ownDir}"`;
    if (isPartial(path)) return "it is what FileSync has sent so far of a file that is not whole there yet";
    if (this.#excluded(path)) {
      const above = path.split("/").map((_, n, parts) => parts.slice(0, n + 1).join("/"));
      const by = exclude.find((pattern) =>
        above.some((part) => picomatch.isMatch(part, pattern, { dot: true }) || picomatch.isMatch(`${part}/`, pattern, { dot: true })),
      );
      return `"exclude" leaves it: "${by ?? ""}"`;
    }
    if (!this.#include(path)) return `no pattern of "include" takes it: ${include.map((pattern) => `"${pattern}"`).join(", ")}`;
    if (size !== undefined && size < minSize) return `it has ${size} bytes, and "minSize" is ${minSize}`;
    if (size !== undefined && size > maxSize) return `it has ${size} bytes, and "maxSize" is ${maxSize}`;
    const at = plausible(modifiedMs);
    const from = this.#sinceMs(installedMs, nowMs);
    if (from !== undefined && at !== undefined && at < from)
      return `its time, ${dateText(at)}, is before "since"${since === "install" ? `, when this route ran first:` : ":"} ${dateText(from)}`;
    return undefined;
  }

  rank(entry: FileEntry): number {
    switch (this.route.priority) {
      case "newest":
        return plausible(entry.modifiedMs) ?? 0;
      case "oldest":
        return -(plausible(entry.modifiedMs) ?? 0);
      case "smallest":
        return -entry.size;
    }
  }

  /** The `newest` of these entries, all of them without that rule. */
  newestOf<T extends FileEntry>(entries: readonly T[]): readonly T[] {
    const { newest } = this.route;
    if (newest === undefined || entries.length <= newest) return entries;
    const byAge = [...entries].sort(
      (a, b) => (plausible(b.modifiedMs) ?? 0) - (plausible(a.modifiedMs) ?? 0) || (a.path < b.path ? 1 : -1),
    );
    return byAge.slice(0, newest);
  }

  /** Where a file of that day goes at its targets. */
  pathOf({ path }: Pick<FileEntry, "path">, day: string, names: Names): string {
    const into = intoOf(this.route, { ...names, day });
    return into === "" ? path : `${into}/${path}`;
  }

  plan(version: string, entry: FileEntry, day: string, names: Names): PlannedDelivery[] {
    const path = this.pathOf(entry, day, names);
    return this.route.to.map(({ device, required, once }) => ({
      id: shortHash("delivery", version, device, path),
      target: device,
      path,
      required,
      weight: this.route.weight,
      rank: this.rank(entry),
      ...(once === undefined ? {} : { once }),
    }));
  }
}

const isOwn = (dir: string) => /(?:^|\/)\.filesync(?:\/|$)/.test(dir);

/** Part by part; what is more than a plain glob may match anything. */
function mayMatchBelow(pattern: string, dir: readonly string[]): boolean {
  if (/[{}()!\\]/.test(pattern)) return true;
  const parts = pattern.split("/");
  for (const [n, name] of dir.entries()) {
    const part = parts[n];
    if (part?.includes("**") === true) return true;
    if (part === undefined || !picomatch.isMatch(name, part, { dot: true })) return false;
  }
  return parts.length > dir.length;
}

/** The directory at its targets that a route fills; down to the first part of it that is not known. */
export function intoOf({ from, into }: Pick<Route, "from" | "into">, known: Partial<Names> & { readonly day?: string }): string {
  const words = {
    vehicle: known.vehicle === undefined ? undefined : asPart(known.vehicle),
    device: asPart(from),
    installation: known.installation,
    date: known.day,
  };
  const filled: string[] = [];
  for (const part of into.split("/")) {
    let open = false;
    const text = part.replaceAll(/\{(vehicle|device|installation|date)\}/g, (whole, word: keyof typeof words) => {
      open ||= words[word] === undefined;
      return words[word] ?? whole;
    });
    if (open) break;
    if (text !== "" && text !== "." && text !== "..") filled.push(text);
  }
  return filled.join("/");
}

/** Why no route of any mode can lead into this directory of its target; undefined where one can. */
export function misledInto(into: string): string | undefined {
  const parts = into.split("/");
  if (parts.includes("..")) return `"${into}" leads out of the device: a directory below its root, without ".."`;
  if (parts.includes(ownDir)) return `a directory named "${ownDir}" is the program's own`;
  return undefined;
}

/** What is wrong with its braces, where that is more than a word in them; undefined where nothing is. */
export function halfBraced(into: string): string | undefined {
  const [half] = /[{}]/.exec(into.replace(/\{[^}]*\}/g, "")) ?? [];
  return half === undefined ? undefined : `"${into}" has a "${half}" without its "${half === "{" ? "}" : "{"}"`;
}

/** A name of the configuration as one part of a path. */
export function asPart(name: string): string {
  return name.replaceAll("/", "_");
}

/** "2026-05-01 10:00:00Z" */
export function dateText(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replace("T", " ")}Z`;
}

/** Times before flight controllers existed (1970, 1980, 2000) come from clocks that were never set. */
export function plausible(modifiedMs: number | undefined): number | undefined {
  return modifiedMs !== undefined && modifiedMs >= Date.UTC(2010, 0, 1) ? modifiedMs : undefined;
}

/** The id of a version: the same file in the same state has the same id in every journal. `twin` tells apart what the stamp cannot. */
export function versionId(source: string, entry: Pick<FileEntry, "path" | "size" | "modifiedMs" | "medium">, twin = ""): string {
  const medium = entry.medium === undefined ? [] : [entry.medium];
  return shortHash("version", source, entry.path, String(entry.size), String(entry.modifiedMs ?? ""), twin, ...medium);
}

/** In place of a day. */
export const undated = "undated";

/** The day of a file, `YYYY-MM-DD`: from its path, else its time stamp, each only where plausible; else "undated". */
export function dayOf(entry: Pick<FileEntry, "path" | "modifiedMs">): string {
  for (const [, year, month, day] of entry.path.matchAll(/(?<!\d)(20\d\d)[-_.]?([01]\d)[-_.]?([0-3]\d)(?!\d)/g)) {
    const text = `${year ?? ""}-${month ?? ""}-${day ?? ""}`;
    const at = Date.parse(`${text}T00:00:00Z`);
    if (plausible(at) !== undefined && new Date(at).toISOString().startsWith(text)) return text;
  }
  const at = plausible(entry.modifiedMs);
  return at === undefined ? undated : new Date(at).toISOString().slice(0, 10);
}

/** The id of an upload: names vehicle, installation, version, target and generation, so that nobody continues what is not theirs. */
export function uploadId(names: Names, delivery: string, generation: number): string {
  return shortHash("upload", names.vehicle, names.installation, delivery, String(generation));
}

/** `<dir>/.<name>.<installation>-<upload id>.part`, its last part at most 255 bytes. */
export function partialPath(path: string, installation: string, upload: string): string {
  const [dir, name] = splitPath(path);
  const end = `.${installation}-${upload}.part`;
  return `${dir}.${cutName(name, 254 - end.length)}${end}`;
}

/** Whether that is a partial of this program, on whichever machine it runs: also one without the name of its file (`mavftp`), and a trial of a server (`webdav`). */
export function isPartial(path: string): boolean {
  return /^\.(?:.*\.)?[0-9a-f]{8}-[0-9a-f]{16}(?:\.try)?\.part$/s.test(splitPath(path)[1]);
}

/** 16 lower-case hexadecimal digits. */
export function shortHash(...parts: string[]): string {
  return hash("sha256", bytesFromName(`${parts.join("\0")}\0`)).slice(0, 16);
}
