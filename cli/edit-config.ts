/**
 * A configuration as a text that people write in too: members are added in its own layout, with every comment where it was; and how the file, and
 * the secrets beside it, are put in place.
 */
import { applyEdits, findNodeAtLocation, parseTree, type Edit, type Node } from "jsonc-parser";
import { constants, existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { chmod, chown, link, open, rename, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { loadConfig, type Loaded, withoutMark } from "../core/config.js";
import { makeDirDurable, renameDurable, renameNew, syncName, temporaryName } from "../core/fs.js";
import { problemLines, UsageError } from "./config.js";
import { plugins } from "./plugins.js";
import { packageRoot } from "./version.js";

/** A longer line is broken. */
const mostColumns = 120;

/** How many objects and lists are in one another. */
function depth(value: unknown): number {
  return typeof value === "object" && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depth)) : 0;
}

/** A value as people write it: on one line where that is short and simple enough, else one member a line. `indent` is that of the line that it begins on. */
export function valueText(value: unknown, indent = "", columns = indent.length): string {
  const short = oneLine(value);
  if ((columns + short.length <= mostColumns && depth(value) < 3) || typeof value !== "object" || value === null) return short;
  const deeper = `${indent}  `;
  const [from, to] = Array.isArray(value) ? "[]" : "{}";
  const members = Array.isArray(value)
    ? value.map((one) => valueText(one, deeper))
    : Object.entries(value).map(([key, one]) => memberText(key, one, deeper));
  return `${from ?? ""}\n${members.map((text) => `${deeper}${text}`).join(",\n")}\n${indent}${to ?? ""}`;
}

/** `"key": value`. */
export function memberText(key: string, value: unknown, indent = ""): string {
  const name = `${JSON.stringify(key)}: `;
  return `${name}${valueText(value, indent, indent.length + name.length)}`;
}

function oneLine(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(oneLine).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${oneLine(one)}`);
  return members.length === 0 ? "{}" : `{ ${members.join(", ")} }`;
}

/**
 * The text with a new last member of the object at `path` (objects on the way that are missing are made). Nothing else is touched. Throws UsageError where
 * a part of the way is no object, or the member is there already.
 */
export function withMember(text: string, path: readonly string[], key: string, value: unknown): string {
  const tree = parseTree(text, [], { allowTrailingComma: true });
  if (tree === undefined) throw new UsageError("the configuration is no JSON");
  const at = findNodeAtLocation(tree, [...path]);
  const parent = path.at(-1);
  if (at === undefined && parent !== undefined) return withMember(text, path.slice(0, -1), parent, { [key]: value });
  if (at?.type !== "object") throw new UsageError(`the configuration has no object at ${path.join(".")}`);
  if (findNodeAtLocation(at, [key]) !== undefined) throw new UsageError(`${[...path, key].join(".")} is in the configuration already`);
  return applyEdits(
    text,
    newLast(text, at, { text: (indent) => memberText(key, value, indent), short: `${JSON.stringify(key)}: ${oneLine(value)}` }),
  );
}

/** The text with another value at `path`, and nothing else touched. Throws UsageError where nothing is there. */
export function withValue(text: string, path: readonly string[], value: unknown): string {
  const tree = parseTree(text, [], { allowTrailingComma: true });
  const at = tree && findNodeAtLocation(tree, [...path]);
  if (at === undefined) throw new UsageError(`the configuration has no ${path.join(".")}`);
  return applyEdits(text, [{ offset: at.offset, length: at.length, content: oneLine(value) }]);
}

/** The text with this value of a member of the object at `path`, be it there or new. Throws as `withMember`. */
export function withSetting(text: string, path: readonly string[], key: string, value: unknown): string {
  const tree = parseTree(text, [], { allowTrailingComma: true });
  const isThere = tree !== undefined && findNodeAtLocation(tree, [...path, key]) !== undefined;
  return isThere ? withValue(text, [...path, key], value) : withMember(text, path, key, value);
}

/** The text with new last items of the list at `path`, which is made where it is missing. Throws as `withMember`. */
export function withItems(text: string, path: readonly string[], values: readonly unknown[]): string {
  const tree = parseTree(text, [], { allowTrailingComma: true });
  if (tree === undefined) throw new UsageError("the configuration is no JSON");
  const at = findNodeAtLocation(tree, [...path]);
  const [value, ...rest] = values;
  if (at === undefined) return withMember(text, path.slice(0, -1), path.at(-1) ?? "", values);
  if (at.type !== "array") throw new UsageError(`the configuration has no list at ${path.join(".")}`);
  if (value === undefined) return text;
  const longer = applyEdits(text, newLast(text, at, { text: (indent) => valueText(value, indent), short: oneLine(value) }));
  return withItems(longer, path, rest);
}

/** A member or an item: as it is written on lines of its own, and on the line of others. */
interface Written {
  readonly text: (indent: string) => string;
  readonly short: string;
}

function newLast(text: string, { offset, length, children = [] }: Node, written: Written): Edit[] {
  const eol = text.includes("\r\n") ? "\r\n" : "\n";
  const insert = (at: number, content: string): Edit => ({ offset: at, length: 0, content: content.replaceAll("\n", eol) });
  const end = offset + length - 1;
  const last = children.at(-1);
  const outer = indentAt(text, offset);
  if (last === undefined) {
    const inner = `${outer}  `;
    const inside = text.slice(offset + 1, end);
    const at = offset + 1 + inside.trimEnd().length;
    const close = inside.slice(inside.trimEnd().length).includes("\n") ? "" : `\n${outer}`;
    return [{ ...insert(at, `\n${inner}${written.text(inner)}${close}`), length: close === "" ? 0 : end - at }];
  }
  const lastEnd = last.offset + last.length;
  // What follows the last member on its line is a comment of that member's.
  const behind = [
    ...(/^(?:[ \t]+|,|\/\*[^]*?\*\/|\/\/[^\r\n]*)*/.exec(text.slice(lastEnd))?.[0] ?? "").matchAll(/\/\*[^]*?\*\/|\/\/.*|[ \t]+|,/g),
  ];
  const comma = behind.some(([token]) => token === ",");
  const lineEnd = lastEnd + behind.join("").length;
  const separator = comma ? [] : [insert(lastEnd, ",")];
  if (!/[\r\n]/.test(text[lineEnd] ?? "")) {
    const commaEnd = lastEnd + behind.slice(0, behind.findIndex(([token]) => token === ",") + 1).join("").length;
    return [...separator, insert(commaEnd, ` ${written.short}`)];
  }
  const inner = indentAt(text, last.offset);
  return [...separator, insert(lineEnd, `\n${inner}${written.text(inner)}${comma ? "," : ""}`)];
}

/** The blanks that the line of this place begins with. */
function indentAt(text: string, offset: number): string {
  const from = text.lastIndexOf("\n", offset - 1) + 1;
  return /^[ \t]*/.exec(text.slice(from))?.[0] ?? "";
}

// --------------------------------------------------------------------------------------------------------------------------------------------------

/** What the installation writes where there is no configuration: it says nothing yet, so it may be replaced. */
export function isUntouched(text: string): boolean {
  return text === readFileSync(join(packageRoot, "deploy/empty.config.json"), "utf8");
}

/** What is wrong with a text as a configuration at `path`. */
export function judged(path: string, text: string): Promise<Loaded> {
  return loadConfig(text, plugins, { baseDir: dirname(path), env: process.env, hostName: hostname() });
}

/** Whose a file is, where that is not the one who writes it. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Whose what is written into a directory is: as root, the directory's; else one's own. */
export function ownerIn(dir: string): Owner | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const { uid, gid } = statSync(dir);
  return { uid, gid };
}

/** A file with these rights, whole and durable under its name; never over another one unless `over`. Throws node's error. */
export async function placeFile(path: string, content: string, mode: number, owner: Owner | undefined, over: boolean): Promise<void> {
  const temporary = join(dirname(path), temporaryName());
  const handle = await open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    try {
      await handle.writeFile(content);
      if (owner !== undefined) await handle.chown(owner.uid, owner.gid);
      await handle.chmod(mode);
      await handle.sync();
    } finally {
      await handle.close();
    }
    if (over) await renameDurable(temporary, path);
    else {
      await renameNew(temporary, path);
      await syncName(path);
    }
  } catch (error) {
    await rm(temporary, { force: true });
    // node names no file where writing failed.
    if (error instanceof Error && !("path" in error)) Object.assign(error, { path });
    throw error;
  }
}

/** A directory with these rights; one that is there stays as it is. */
export async function placeDir(dir: string, mode: number, owner: Owner | undefined): Promise<void> {
  if (existsSync(dir)) return;
  // Whoever may enter it has to get there.
  await makeDirDurable(dirname(dir), 0o755);
  await makeDirDurable(dir, mode);
  await chmod(dir, mode);
  if (owner !== undefined) await chown(dir, owner.uid, owner.gid);
}

/** How a configuration is put in place. */
export interface Placing {
  /** What is there is replaced; it is kept under the name that is given back, unless it says nothing. */
  readonly over: boolean;
}

/**
 * Puts a text in place as the configuration: judged first (throws UsageError with all that is wrong), then by one rename. The file keeps its rights, a new
 * one has 0640 and its directory's owner. → where the old one is kept.
 */
export async function placeConfig(path: string, text: string, { over }: Placing): Promise<string | undefined> {
  const loaded = await judged(path, text);
  if (loaded.problems.length > 0)
    throw new UsageError(`${path} was not written, for this would be wrong with it:\n${problemLines(path, loaded).join("\n")}`);
  const before = statSync(path, { throwIfNoEntry: false });
  const owner = ownerIn(dirname(path));
  if (before === undefined || !over) {
    await placeFile(path, text, 0o640, owner, false);
    return undefined;
  }
  // A link to where it is kept (a checkout, another disk) stays one.
  const place = realpathSync(path);
  const kept = isUntouched(readFileSync(place, "utf8")) ? undefined : await keepOld(place);
  try {
    await placeFile(place, text, before.mode & 0o777, owner === undefined ? undefined : { uid: before.uid, gid: before.gid }, true);
  } catch (error) {
    // It is the one that is still in place.
    if (kept !== undefined) await rm(kept);
    throw error;
  }
  return kept;
}

/** "config.json.old"; where that is another old one, that moves on to ".old.2" and so on. */
async function keepOld(path: string): Promise<string> {
  const kept = `${path}.old`;
  if (existsSync(kept)) {
    let n = 2;
    while (existsSync(`${kept}.${n}`)) n += 1;
    await rename(kept, `${kept}.${n}`);
  }
  await link(path, kept);
  await syncName(kept);
  return kept;
}

/** Changes a configuration that is there; by one rename, after it was judged. Throws UsageError. */
export async function changeConfig(path: string, change: (text: string) => string): Promise<void> {
  const before = withoutMark(readFileSync(path, "utf8"));
  const text = change(before);
  if (text === before) return;
  const known = new Set((await judged(path, before)).problems.map(({ path: where, message }) => `${where}: ${message}`));
  const loaded = await judged(path, text);
  // What was wrong before is not the fault of this change.
  const news = loaded.problems.filter(({ path: where, message }) => !known.has(`${where}: ${message}`));
  if (news.length > 0)
    throw new UsageError(`${path} was not changed, for this would be wrong with it:\n${problemLines(path, { problems: news }).join("\n")}`);
  const { uid, gid, mode } = statSync(path);
  await placeFile(realpathSync(path), text, mode & 0o777, process.getuid?.() === 0 ? { uid, gid } : undefined, true);
}
