/** Finds and loads the configuration; says all that is wrong with it at once. */
import { getNodeValue, parseTree } from "jsonc-parser";
import { readFileSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, resolve } from "node:path";
import { loadConfig, type Loaded, withoutMark } from "../core/config.js";
import { lineOf, problemText, type ConfigProblem } from "../core/config-problems.js";
import { codeOf, faultOfErrno } from "../core/errors.js";
import { deadLink } from "../core/stat.js";
import { strangeText } from "./machine/state-dir.js";
import { plugins } from "./plugins.js";
import { shellWord } from "../core/text.js";

/** A mistake of the person who typed the command: its message is all that is shown; exit code 2. */
export class UsageError extends Error {}

export const systemConfig = "/etc/filesync/config.json";

/** `--config`, else ./config.json, else /etc/filesync/config.json. Throws UsageError when there is none. */
export function configPath(given: string | undefined): string {
  if (given !== undefined) return resolve(given);
  for (const path of ["config.json", systemConfig]) {
    const stat = statOf(path);
    if (stat === "closed") throw new ClosedConfig(resolve(path));
    if (stat === "there") return resolve(path);
  }
  throw new UsageError(`there is no config.json here and no ${systemConfig}: "filesync init" writes one; or give --config FILE`);
}

/** existsSync says of what it may not see that it is not there. */
function statOf(path: string): "there" | "closed" | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false }) === undefined ? undefined : "there";
  } catch (error) {
    if (codeOf(error) === "EACCES") return "closed";
    return undefined;
  }
}

/** It is there, or in a directory that may not be looked into. */
class ClosedConfig extends UsageError {
  constructor(readonly path: string) {
    super(
      `${path} cannot be read: permission denied; use sudo, or log in again as a member of the group that may (the service's: filesync)`,
    );
  }
}

/** Throws UsageError when the file cannot be read. `secrets`: as `Surroundings` has it. */
export async function load(path: string, secrets?: "unread"): Promise<Loaded> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const code = codeOf(error);
    throw new UsageError(
      code === "ENOENT"
        ? ((await deadLink(path)) ??
            `there is no ${path}: "${path === systemConfig ? "sudo " : ""}filesync init --config ${shellWord(path)}" makes one`)
        : code === "EACCES"
          ? new ClosedConfig(path).message
          : code === "EISDIR"
            ? `${path} is a directory; "--config" names the file in it`
            : faultOfErrno(error, `${path} cannot be read`).message,
    );
  }
  const surroundings = { baseDir: dirname(path), env: process.env, ...(secrets === undefined ? {} : { secrets }) };
  const loaded = await loadConfig(text, plugins, { ...surroundings, hostName: hostname() });
  const old = await oldProblem(path, text, loaded);
  return old === undefined ? loaded : { ...loaded, problems: [old, ...loaded.problems] };
}

/** That it is one of the program before: said ahead of each key that this one does not know. */
async function oldProblem(path: string, text: string, { problems }: Loaded): Promise<ConfigProblem | undefined> {
  if (problems.length === 0) return undefined;
  const bare = withoutMark(text);
  const tree = parseTree(bare, [], { allowTrailingComma: true });
  if (tree === undefined) return undefined;
  const { oldKeyIn } = await import("./legacy/translate.js");
  const given: unknown = getNodeValue(tree);
  const key = oldKeyIn(given);
  if (key === undefined) return undefined;
  const line = lineOf(tree, Array.isArray(given) ? [] : [key], (offset) => bare.slice(0, offset).split("\n").length);
  const message = `this is a configuration of the FileSync in Python ("${key}"): "filesync import-legacy ${shellWord(path)} --config NEW" writes one of this program to NEW`;
  return { line, path: "", message };
}

/** A configuration as far as there is one. */
export interface Found {
  readonly path: string;
  /** What stands in it; "" where it cannot be read. */
  readonly text: string;
  /** A text: why it cannot be read. */
  readonly loaded: Loaded | string;
}

/** As `configPath` and `load`, for who goes on without it. undefined: none was named, and there is none where it is looked for. */
export async function findConfig(given: string | undefined): Promise<Found | undefined> {
  let path: string | undefined;
  try {
    path = configPath(given);
    if (statOf(path) === undefined) return { path, text: "", loaded: "there is no such file" };
    return { path, loaded: await load(path), text: readFileSync(path, "utf8") };
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    if (error instanceof ClosedConfig) return { path: error.path, text: "", loaded: error.message };
    return path === undefined ? undefined : { path, text: "", loaded: error.message };
  }
}

/** Why a daemon could not begin with this state directory, as far as that can be seen without changing anything, and where it is set. */
export function stateDirProblem(path: string, stateDir: string, message = strangeText(stateDir)): ConfigProblem | undefined {
  if (message === undefined) return undefined;
  const text = withoutMark(readFileSync(path, "utf8"));
  const tree = parseTree(text, [], { allowTrailingComma: true });
  const line = tree === undefined ? 0 : lineOf(tree, ["stateDir"], (offset) => text.slice(0, offset).split("\n").length);
  return { line, path: "stateDir", message };
}

export function problemLines(path: string, loaded: Pick<Loaded, "problems">): string[] {
  return loaded.problems.map((problem) => problemText(path, problem));
}
