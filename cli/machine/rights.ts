/** What a user may do in a directory, by owner, group and rights of it and of those above it. */
import { parse } from "jsonc-parser";
import { dirname, resolve } from "node:path";
import type { Config, DeviceConfig } from "../../core/config.js";
import { grantText, makeText, type Rights } from "../../core/rights.js";
import { changes, isChanged } from "../../core/sync/options.js";
import { shellWord } from "../../core/text.js";
import { mayOpen } from "./as-owner.js";
import { groupName, linkOf, nearest, realPath, statOf, type User, type View } from "./view.js";

/** Of one directory or file; `bits`: of "rwx", as in 0o7. undefined: who asks cannot see it. */
export function mayDo(view: View, path: string, user: User, bits: number): boolean | undefined {
  const stat = statOf(view, path);
  if (stat === undefined) return undefined;
  if (user.uid === 0) return true;
  const shift = stat.uid === user.uid ? 6 : user.groups.includes(stat.gid) ? 3 : 0;
  return ((stat.mode >> shift) & bits) === bits;
}

/** The first directory on the way to what is called so that this user may not enter. */
function barredAbove(view: View, path: string, user: User): string | undefined {
  const way: string[] = [];
  for (let above = dirname(path); ; above = dirname(above)) {
    way.unshift(above);
    if (dirname(above) === above) break;
  }
  return way.find((above) => mayDo(view, above, user, 0o1) === false);
}

/** What in a configuration names a file that the daemon reads by itself. */
const fileKeys = new Set(["file", "privateKey", "key", "cert", "ca", "knownHosts", "usersFile"]);

/** A configuration (its text), or the files that it names, that this user, who is not the one that asks, cannot read; in words, with what to type. */
export function unreadable(view: View, config: string, text: string, user: User): { path: string; words: string; todo: string }[] {
  if (user.uid === view.me.uid) return [];
  // Whose home "~/" is, is not looked for.
  const named = filesIn(parse(text))
    .flatMap((name) => (name.startsWith("~") ? [] : [name]))
    .map((name) => resolve(dirname(config), name));
  return [config, ...new Set(named)].flatMap((path) => {
    const real = realPath(view, path);
    if (real === undefined) return [];
    const above = barredAbove(view, real, user);
    if (above === undefined && mayDo(view, real, user, 0o4) !== false) return [];
    if (view.root === "/" && view.me.uid === 0 && mayOpen(real, user)) return [];
    return {
      path,
      words: `${user.name} may not read it${above === undefined ? "" : `: no right to enter ${above}`}`,
      todo: above === undefined ? grant(view, path, "r", user) : `namei -l ${shellWord(path)}`,
    };
  });
}

function filesIn(value: unknown): string[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, one]) =>
    typeof one === "string" ? (fileKeys.has(key) && !Array.isArray(value) ? [one] : []) : filesIn(one),
  );
}

/** The directory of a device that is one of this machine; undefined of others. */
export function dirOf({ type, options }: Pick<DeviceConfig, "type" | "options">): string | undefined {
  return type === "local" ? (options as { readonly dir: string }).dir : undefined;
}

/** What is in the way, and what to type. */
export interface Barred {
  readonly words: string;
  readonly todo: string;
}

/** What keeps this user, who is not the one that asks, from a device that is a directory of this machine; undefined where nothing is seen that does. */
export function barredFrom(
  view: View,
  device: Pick<DeviceConfig, "name" | "type" | "options">,
  config: Pick<Config, "routes" | "syncs">,
  user: User,
): Barred | undefined {
  const dir = dirOf(device);
  if (dir === undefined || user.uid === view.me.uid) return undefined;
  const makes = (device.options as { readonly create?: boolean }).create === true;
  const barred = barredFromDir(view, dir, user, { writes: isChanged(config, device.name), makes });
  const why = whyWritten(config, device.name);
  return barred === undefined || why === "" ? barred : { ...barred, words: `${why}, and ${barred.words}` };
}

/** The same of any directory that it reads, or `writes` in, or also `makes`. */
export function barredFromDir(
  view: View,
  dir: string,
  user: User,
  { writes, makes }: { readonly writes: boolean; readonly makes: boolean },
): Barred | undefined {
  const path = realPath(view, dir);
  // In the place of a link that leads nowhere none is made.
  if (path === undefined && (!makes || linkOf(view, dir) !== undefined)) return undefined;
  const way = path ?? nearest(view, dir);
  const above = barredAbove(view, way, user);
  if (above !== undefined)
    return {
      words: `${user.name} may not use ${dir}: no right to enter ${above}`,
      todo: `namei -l ${shellWord(dir)}   # the rights on the way`,
    };
  if (path === undefined)
    return mayDo(view, way, user, 0o3) === false ? { words: `${user.name} may not make ${dir}`, todo: makeText(dir, user) } : undefined;
  if (mayDo(view, path, user, writes ? 0o7 : 0o5) !== false) return undefined;
  return { words: `${user.name} may not ${writes ? "write in" : "use"} ${dir}`, todo: grant(view, dir, writes ? "rwx" : "rx", user) };
}

/** Of a device that nothing is brought to: why it is written all the same. */
export function whyWritten({ routes, syncs }: Pick<Config, "routes" | "syncs">, name: string): string {
  const brought = routes.some(({ to }) => to.some(({ device }) => device === name)) || syncs.some((sync) => changes(sync, name));
  if (brought || !routes.some(({ from, afterDelivery }) => from === name && afterDelivery !== "keep")) return "";
  return '"afterDelivery" takes away there what was delivered';
}

function grant(view: View, path: string, rights: Rights, user: User): string {
  return grantText(path, rights, statOf(view, path) ?? { uid: -1, gid: -1 }, user, groupName(view, user.groups[0] ?? 0));
}
