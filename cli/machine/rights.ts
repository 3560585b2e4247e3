/** What a user may do in a directory, by owner, group and rights of it and of those above it. */
import { dirname } from "node:path";
import type { Config, DeviceConfig } from "../../core/config.js";
import { changes } from "../../core/sync/options.js";
import { realPath, statOf, type User, type View } from "./view.js";


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
  const way: string[] = [];
  for (let above = dirname(path); ; above = dirname(above)) {
    way.unshift(above);
    if (dirname(above) === above) break;
  }
  for (const above of way) if (mayDo(view, above, user, 0o1) === false) return above;
  return mayDo(view, path, user, writes ? 0o7 : 0o5) === false ? dir : undefined;
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
    routes.some(({ to }) => to.some((target) => target.device === device.name)) ||
    syncs.some((sync) => changes(sync, device.name));
  const found = barred(view, dir, user, writes);
  if (found === undefined) return undefined;
  return `${user.name} may not ${found === dir && writes ? "write in" : "use"} ${dir}${found === dir ? "" : `: no right to enter ${found}`}`;
}
