/** What changes whenever a disk comes or goes: cheap to read, and without a program. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../../core/errors.js";
import type { Machine } from "./mounting.js";

export function signsOf({ byUuid, sys, mountInfo }: Machine): string {
  const links = listed(byUuid).map((name) => `${name}>${linkOf(join(byUuid, name))}`);
  return [...links, ...listed(join(sys, "class/block")), readFileSync(mountInfo, "utf8")].join("\n");
}

function listed(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch (error) {
    // It went while it was looked at.
    if (codeOf(error) !== "") return "";
    throw error;
  }
}
