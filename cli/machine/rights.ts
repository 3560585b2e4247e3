/** What a user may do in a directory, by owner, group and rights of it and of those above it. */
import { parse } from "jsonc-parser";
import { dirname, resolve } from "node:path";
import type { Config, DeviceConfig } from "../../core/config.js";
import { changes } from "../../core/sync/options.js";
import { shellWord } from "../../core/text.js";
import { mayOpen } from "./as-owner.js";
import { groupName, realPath, statOf, type User, type View } from "./view.js";

/** Of one directory or file; `bits`: of "rwx", as in 0o7. undefined: who asks cannot see it. */
export function mayDo(view: View, path: string, user: User, bits: number): boolean | undefined {
  const stat = statOf(view, path);
  if (stat === undefined) return undefined;
  if (user.uid === 0) return true;
  const shift = stat.uid === user.uid ? 6 : user.groups.includes(stat.gid) ? 3 : 0;
  return ((stat.mode >> shift) & bits) === bits;
}

/** The first directory on the way to `dir`, or `dir` itself, that this user may not use so; undefined also of what who asks cannot see. */
function barred(view: View, dir: string, user: User, writes: boolean): string | undefined {
  const path = realPath(view, dir);
  if (path === undefined) return undefined;
  return barredAbove(view, path, user) ?? (mayDo(view, path, user, writes ? 0o7 : 0o5) === false ? dir : undefined);
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
    const group = groupName(view, user.groups[0] ?? 0);
    return {
      path,
      words: `${user.name} may not read it${above === undefined ? "" : `: no right to enter ${above}`}`,
      todo:
        above === undefined ? `sudo chgrp ${group} ${shellWord(path)} && sudo chmod g+r ${shellWord(path)}` : `namei -l ${shellWord(path)}`,
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

/** Why this user, who is not the one that asks, cannot use a device that is a directory of this machine; undefined where nothing is seen that is in the way. */
export function barredFrom(
  view: View,
  device: Pick<DeviceConfig, "name" | "type" | "options">,
  { routes, syncs }: Pick<Config, "routes" | "syncs">,
  user: User,
): string | undefined {
  const dir = dirOf(device);
  if (dir === undefined || user.uid === view.me.uid) return undefined;
  const writes =
    routes.some(({ to }) => to.some((target) => target.device === device.name)) || syncs.some((sync) => changes(sync, device.name));
  const found = barred(view, dir, user, writes);
  if (found === undefined) return undefined;
  return `${user.name} may not ${found === dir && writes ? "write in" : "use"} ${dir}${found === dir ? "" : `: no right to enter ${found}`}`;
}
