/** Where a route's files are, and where it brings them: as far as two directories may be one, or one may be in the other. */
import { readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { realOf } from "./fs.js";
import { mountsIn, unbound } from "./mounts.js";
import type { Plugin } from "./plugin.js";
import { intoOf, type Names, Rules, type Route } from "./route.js";

/** A directory: of this machine "/srv/box", with no link in it as far as it is there, and the same for all its mounts; of another "ssh://box@nas.local:22/srv", where the plugin says that; else "nas:/box", as the device names it. */
export type Place = string;

interface Located {
  readonly name: string;
  readonly plugin: Plugin<unknown>;
  readonly options: unknown;
  /** Below its root; what is in it is not found. */
  readonly archiveDir?: string;
}

/** What is at `below` of a device. Looks at the file system. */
export function placeIn(devices: readonly Located[], device: string, below: string): Place {
  const known = devices.find(({ name }) => name === device);
  const dir = known?.plugin.dirOf?.(known.options);
  if (dir !== undefined) return realPath(join(dir, below));
  const address = known?.plugin.addressOf?.(known.options) ?? `${device}:`;
  return trimmed(`${trimmed(address)}/${below}`);
}

/** One of them is the other, or in it. */
export function overlap(one: Place, two: Place): boolean {
  return below(one, two) !== undefined || below(two, one) !== undefined;
}

/** Why a mirror or two-way route between these would go on for ever; undefined: it would not. For a person. */
export function syncComesBack(devices: readonly Located[], { from, to, into, rules }: Sides): string | undefined {
  const [here, there] = [placeIn(devices, from, ""), placeIn(devices, to, into)];
  const compiled = new Rules(rules);
  const isLeft = (dir: string) => !compiled.reaches(dir);
  return inside(named(to, into), there, named(from, ""), here, isLeft) ?? inside(named(from, ""), here, named(to, into), there, isLeft);
}

interface Sides {
  readonly from: string;
  readonly to: string;
  readonly into: string;
  readonly rules: Route;
}

/** Whether what a copy route takes away from its source, once it is delivered, would go from a side of a mirror or two-way route. */
export function takesFromSync(devices: readonly Located[], { from, to, into, rules }: Sides, route: Route): boolean {
  const [place, compiled] = [placeIn(devices, route.from, ""), new Rules(rules)];
  const isLeft = isLeftBy(devices, route);
  return [placeIn(devices, from, ""), placeIn(devices, to, into)].some((side) => {
    const [inSide, around] = [wayTo(side, place), wayTo(place, side)];
    if (inSide === "" || around === "") return true;
    return (inSide !== undefined && compiled.mayWantBelow(inSide)) || (around !== undefined && !isLeft(around));
  });
}

/** Why what a copy route brings to a target would be found again at its source; undefined: it would not. For a person. */
export function copyComesBack(devices: readonly Located[], route: Route, target: string, names: Partial<Names>): string | undefined {
  const into = intoOf(route, names);
  const [inner, outer] = [placeIn(devices, target, into), placeIn(devices, route.from, "")];
  return inside(named(target, into), inner, named(route.from, ""), outer, isLeftBy(devices, route));
}

/** Why what the last of these copy routes brings would come back to its source by the others, deeper each time; undefined: it would not. For a person. */
export function copiesGoRound(devices: readonly Located[], routes: readonly Route[], names: Partial<Names>): string | undefined {
  const last = routes.at(-1);
  if (last === undefined) return undefined;
  const rules = new Map(routes.map((route) => [route, takesOf(devices, route)]));
  const known = { installation: "0", day: "0", ...names };
  const takes = (route: Route, path: string) => rules.get(route)?.(path, last.minSize) === true;
  /** As what it comes back. */
  const round = (first: string, route: Route, path: string, way: readonly Route[]): string | undefined => {
    const into = intoOf(route, known);
    for (const { device } of route.to) {
      const place = placeIn(devices, device, `${into}/${path}`);
      for (const next of routes.filter((other) => !way.includes(other))) {
        const found = below(placeIn(devices, next.from, ""), place);
        if (found === undefined || !takes(next, found)) continue;
        const back = next !== last ? round(first, next, found, [...way, next]) : found === first ? undefined : found;
        if (back !== undefined) return back;
      }
    }
    return undefined;
  };
  for (const path of samplesOf(last)) {
    const back = takes(last, path) ? round(path, last, path, []) : undefined;
    if (back !== undefined)
      return `what it brings comes back by other routes ("${path}" as "${back}"), and is brought again, deeper each time, without end; leave it out there ("exclude"), or choose "mode": "two-way"`;
  }
  return undefined;
}

/** Whether two copy routes, each from a device of its own, want a file of the same directory, as far as samples tell. */
export function wantTheSame(devices: readonly Located[], one: Route, two: Route): boolean {
  const [first, second] = [placeIn(devices, one.from, ""), placeIn(devices, two.from, "")];
  return wantBoth(devices, one, two, wayTo(first, second)) || wantBoth(devices, two, one, wayTo(second, first));
}

/** `dir`: the way from the directory of `outer` to that of `inner`. */
function wantBoth(devices: readonly Located[], outer: Route, inner: Route, dir: string | undefined): boolean {
  if (dir === undefined || outer.from === inner.from) return false;
  const [takesOuter, takesInner] = [takesOf(devices, outer), takesOf(devices, inner)];
  const size = Math.max(outer.minSize, inner.minSize);
  const all = [...samplesOf(inner), ...samplesOf(outer), ...samplesOf(outer).flatMap((path) => below(dir, path) ?? [])];
  return all.some((path) => takesInner(path, size) && takesOuter(dir === "" ? path : `${dir}/${path}`, size));
}

function takesOf(devices: readonly Located[], route: Route): (path: string, size: number) => boolean {
  const rules = new Rules(route);
  const archive = devices.find(({ name }) => name === route.from)?.archiveDir;
  return (path, size) => (archive === undefined || below(archive, path) === undefined) && rules.wants({ path, size });
}

/** A path for each pattern of "include", as plain as it can be. */
function samplesOf({ include }: Route): readonly string[] {
  if (include.length === 0) return ["x"];
  return include.map((pattern) =>
    pattern
      .replaceAll("**/", "")
      .replaceAll(/\*+|\?/g, "x")
      .replaceAll(/\{([^,}]*)[^}]*\}/g, "$1")
      .replaceAll(/\[(.)[^\]]*\]/g, "$1"),
  );
}

/** Where a route is, and where the program keeps its own. */
interface Held {
  readonly devices: readonly Located[];
  /** undefined: it is not known. */
  readonly stateDir: string | undefined;
}

/** Why a mirror or two-way route between these would bring the program's own state along; undefined: it would not. For a person. */
export function syncHoldsState(held: Held, { from, to, into, rules }: Sides): string | undefined {
  const compiled = new Rules(rules);
  const isLeft = (dir: string) => !compiled.reaches(dir);
  return stateIn(held, from, "", isLeft) ?? stateIn(held, to, into, isLeft);
}

/** Why a copy route would bring the program's own state along; undefined: it would not. For a person. */
export function copyHoldsState(held: Held, route: Route): string | undefined {
  return stateIn(held, route.from, "", isLeftBy(held.devices, route));
}

function stateIn({ devices, stateDir }: Held, device: string, into: string, isLeft: (dir: string) => boolean): string | undefined {
  if (stateDir === undefined) return undefined;
  const [place, around] = [realPath(stateDir), placeIn(devices, device, into)];
  const dir = wayTo(around, place);
  if (dir === undefined || (dir !== "" && isLeft(dir))) return undefined;
  const [where, leave] =
    dir === ""
      ? [`and ${named(device, into)} are one directory`, ""]
      : [`is in ${named(device, into)}`, `leave it out ("exclude": [${JSON.stringify(dir)}]), or `];
  return `"stateDir" ${where} (${place}): the journal would be brought too, and each time that is written there it has changed, without end; ${leave}choose another "stateDir"`;
}

/** Of a directory at a copy route's source: whether nothing of it is taken. */
function isLeftBy(devices: readonly Located[], route: Route): (dir: string) => boolean {
  const rules = new Rules(route);
  const archive = devices.find(({ name }) => name === route.from)?.archiveDir;
  return (dir) => (archive !== undefined && below(archive, dir) !== undefined) || !rules.mayWantBelow(dir);
}

function inside(inner: string, place: Place, outer: string, around: Place, isLeft: (dir: string) => boolean): string | undefined {
  const dir = wayTo(around, place);
  if (dir === undefined) return undefined;
  if (dir === "") return `${inner} and ${outer} are one directory (${place}): there is nothing to bring`;
  return isLeft(dir)
    ? undefined
    : `${inner} is in ${outer} (${place}): what is brought would be found again, and brought again, without end; leave it out ("exclude": [${JSON.stringify(dir)}]), or choose another directory`;
}

const named = (device: string, into: string) => (into === "" ? device : `${device}:${into}`);

/** The way from a directory to one that is in it, "" to itself; undefined: it is not in it. */
function below(dir: Place, place: Place): string | undefined {
  if (dir === place) return "";
  return place.startsWith(`${dir}/`) ? place.slice(dir.length + 1) : undefined;
}

/** The same, also by way of what is mounted in it, which may show a directory above that place, or one in it. */
function wayTo(dir: Place, place: Place): string | undefined {
  const direct = below(dir, place);
  if (direct !== undefined || !place.startsWith("/")) return direct;
  const mounts = mountsNow();
  for (const mount of mounts) {
    const [at, shown] = [below(dir, mount.dir), trimmed(unbound(mounts, mount.dir))];
    if (at === undefined || at === "" || shown === mount.dir) continue;
    const further = below(shown, place);
    if (further !== undefined) return further === "" ? at : `${at}/${further}`;
    if (below(place, shown) !== undefined) return at;
  }
  return undefined;
}

const trimmed = (path: string) => path.replace(/\/+$/, "");

/** What is not there yet, or may not be looked at, is taken as it is named; so is what is on a file system that may hang: it would hold up all of the program. */
function realPath(path: string): string {
  const mounts = mountsNow();
  const hanging = new Set(mounts.flatMap(({ type, dir }) => (dir !== "/" && mayHang.test(type) ? [dir] : [])));
  return trimmed(unbound(mounts, hanging.size === 0 ? realOf(path) : realUpTo(hanging, path)));
}

/** Of another machine, or of a driver that is a program. */
const mayHang = /^(nfs|cifs|smb|fuse|9p|ceph|afs|autofs|lustre|ncp|ocfs|gfs)/;

/** As `realOf` has it; behind these directories nothing is looked at. */
function realUpTo(left: ReadonlySet<string>, path: string): string {
  const parts = path.split("/");
  let at = "/";
  // As many as the system follows.
  for (let links = 0; parts.length > 0 && links <= 40;) {
    const part = parts.shift() ?? "";
    const next = join(at, part);
    if (left.has(next)) return join(next, ...parts);
    const link = part === "" || part === "." || part === ".." ? undefined : linkAt(next);
    if (link === undefined) {
      at = next;
      continue;
    }
    links += 1;
    parts.unshift(...link.split("/"));
    if (link.startsWith("/")) at = "/";
  }
  return join(at, ...parts);
}

/** undefined: there is none, or it may not be looked at. */
function linkAt(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** None where the system has no such table. */
function mountsNow() {
  try {
    return mountsIn(readFileSync("/proc/self/mountinfo", "utf8"));
  } catch {
    return [];
  }
}
