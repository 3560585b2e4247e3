/** What the hand commands have in common: the words of a request, what they name on a device, and what is said where that is not there. */
import { createHash } from "node:crypto";
import { suggestion } from "./config-problems.js";
import { ControlError, type ControlRequest } from "./control.js";
import { isFault } from "./errors.js";
import type { Lane } from "./lane.js";
import { bytesFromName, isSafePath, nameFromBytes } from "./names.js";
import { nameIn, parentOf } from "./paths.js";
import type { Device, FileEntry, Occupant, Receipt, Tree } from "./plugin.js";
import { reasonOf } from "./retry.js";

/** Names what is kept of a hand command, or at the device: the same for the same text. */
export function noteId(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

/** Nothing is at the path. */
export class NotThere extends ControlError {
  readonly near: boolean;

  /** `names` of what is around it. */
  constructor(
    readonly device: string,
    readonly path: string,
    readonly names: readonly string[] = [],
  ) {
    const near = suggestion(path, names);
    super(`there is no ${device}:${path}${near}`);
    this.near = near !== "";
  }

  /** As it was written, from the top. */
  fromTop(): NotThere {
    const top = (path: string) => `/${path}`;
    return new NotThere(this.device, top(this.path), this.names.map(top));
  }
}

export async function plainFile(tree: Tree, lane: Lane, path: string, signal: AbortSignal): Promise<FileEntry> {
  if (path === "") throw new ControlError(`${lane.name} alone names no file: ${lane.name}:PATH does`);
  const entry = await tree.stat(path, signal);
  if (entry === undefined) throw await notThere(lane, path, signal);
  if (entry.kind !== "file")
    throw new ControlError(
      `${lane.name}:${path} is ${entry.kind === "directory" ? "a directory" : "no plain file"}: only files are moved and removed`,
    );
  return entry;
}

export function treeOf(lane: Lane): Tree {
  const { tree } = lane.device;
  if (tree === undefined)
    throw new ControlError(
      `${lane.name} cannot be changed by hand${withheldText(lane) ?? `: a device of type "${lane.config.type}" is only ${onlyText(lane.device)}`}`,
    );
  return tree;
}

/** Why it is no target as it is configured, though it could be. */
export function withheldText({ config }: Lane): string | undefined {
  const why = config.plugin.withheld?.(config.options).target;
  return why === undefined ? undefined : `: ${why}`;
}

function onlyText(device: Device): string {
  return device.target === undefined ? "read" : device.source === undefined ? "written to" : "read and written to";
}

/** With the nearest name beside it. */
export async function notThere(lane: Lane, path: string, signal: AbortSignal): Promise<ControlError> {
  const dir = parentOf(path);
  const names: string[] = [];
  const { tree, source } = lane.device;
  const enter = (other: string) => {
    names.push(other);
    return dir === other || dir.startsWith(`${other}/`);
  };
  try {
    for await (const entry of tree?.list(dir, signal) ?? source?.list(signal, { enter }) ?? []) names.push(entry.path);
  } catch (error) {
    if (isFault(error, "missing")) return new NotThere(lane.name, path);
    return new ControlError(`there is no ${lane.name}:${path} (${reasonOf(error)})`);
  }
  return new NotThere(lane.name, path, names);
}

export function textOf(request: ControlRequest, key: string): string {
  const value = request[key];
  if (typeof value !== "string") throw new ControlError(`"${key}" is missing`);
  return value;
}

/** Below the device's root; "" is the root, and so is ".". */
export function pathOf(request: ControlRequest, key: string): string {
  const given = typeof request[key] === "string" ? request[key] : "";
  const parts = given.split("/").filter((part) => part !== "" && part !== ".");
  const path = parts.map(asListed).join("/");
  if (path !== "" && !isSafePath(path)) throw new ControlError(`"${given}" leads out of the device's root`);
  return path;
}

/** A person may type ‛ once where a listing has it twice. */
function asListed(name: string): string {
  const listed = nameFromBytes(bytesFromName(name));
  return listed.includes("/") ? name : listed;
}

/** Where a file comes to be: below what is a directory, or written like one, under `name`. */
export async function destination(
  request: ControlRequest,
  key: string,
  name: string,
  tree: Tree | undefined,
  signal: AbortSignal,
): Promise<string> {
  const path = pathOf(request, key);
  const dir = /(?:^|\/)\.?$/.test(textOf(request, key)) || (await tree?.stat(path, signal))?.kind === "directory";
  return dir ? joined(path, name) : path;
}

export function joined(dir: string, name: string): string {
  return dir === "" ? name : `${dir}/${name}`;
}

export function lastOf(path: string): string {
  return nameIn(path);
}

/** Of what has the name already. */
export function receiptOf(path: string, there: Occupant): Receipt {
  return {
    path,
    size: there.size,
    proof: there.proof ?? "size",
    answer: "was there already",
    ...(there.digest === undefined ? {} : { digest: there.digest }),
  };
}
