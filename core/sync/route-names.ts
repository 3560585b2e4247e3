import { randomBytes } from "node:crypto";
import type { Engine } from "../engine.js";
import { beforeExt } from "../names.js";
import { asPart, ownDir, shortHash } from "../route.js";
import type { Names } from "./carry.js";
import { trashDir } from "./own-dir.js";

/** What is given a name by a mirror or two-way route, `route`: as of `routeId`. */
export function routeNames({ clock, names }: Engine, route: string): Names {
  const time = () => new Date(clock.wallMs()).toISOString().slice(0, 19).replaceAll(/[-:]/g, "");
  return {
    trash: (_side, path, id) => `${ownDir}/${trashDir}/${clock.trusted() ? dayText(clock.wallMs()) : "undated"}/${id}/${path}`,
    conflict: (path, n) => beforeExt(path, `.conflict-${asPart(names.vehicle)}-${time()}${n === 1 ? "" : `-${n}`}`),
    staging: (side, path, { stamp }) => shortHash(route, side, path, String(stamp.size), String(stamp.modifiedMs ?? "")),
    intent: () => randomBytes(8).toString("hex"),
  };
}

/** "2026-05-01" */
const dayText = (ms: number) => new Date(ms).toISOString().slice(0, 10);
