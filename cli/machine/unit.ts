/** The unit that runs the daemon, where systemd runs here; and as which user it does. */
import { join } from "node:path";
import { mayDo } from "./rights.js";
import { groupNumber, isThere, statOf, type User, userNamed, type View } from "./view.js";

/** The vehicle's and the ground's: one machine has one of them. */
const names = ["filesync", "filesync-ground"] as const;
const asked = [
  "Id",
  "LoadState",
  "UnitFileState",
  "ActiveState",
  "SubState",
  "Result",
  "ExecMainStatus",
  "NRestarts",
  "User",
  "SupplementaryGroups",
  "PrivateTmp",
];

/** What systemd knows of the unit; undefined where there is no systemd, or it has no such unit. A text: why it cannot be asked. */
export type Unit = Readonly<Record<string, string>> | string | undefined;

export async function unitOf(view: View): Promise<Unit> {
  if (!isThere(view, "/run/systemd/system")) return undefined;
  const units: Readonly<Record<string, string>>[] = [];
  for (const name of names) {
    const { code, out, complaint } = await view.run("systemctl", ["show", `${name}.service`, "--property", asked.join(",")], 10_000);
    if (code !== 0) return complaint;
    const unit = Object.fromEntries(
      out
        .split("\n")
        .flatMap((line) => (line.includes("=") ? [[line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]] : [])),
    ) as Record<string, string>;
    if (unit.LoadState !== "not-found") units.push({ ...unit, Id: `${name}.service` });
  }
  // Both are installed; one is in use.
  return units.find(({ UnitFileState = "", ActiveState }) => UnitFileState.startsWith("enabled") || ActiveState === "active") ?? units[0];
}

/**
 * Who the daemon is, or will be: who has the socket of one that runs; the unit's user; else who has its socket or lock, or the state directory where who asks may not look
 * into that; else who asks.
 */
export function daemonUser(view: View, unit: Unit, state?: { readonly dir: string; readonly runs: boolean }): User {
  const owner = state === undefined ? undefined : ownerIn(view, state.dir);
  if (owner !== undefined && state?.runs === true && statOf(view, join(state.dir, "control.sock")) !== undefined) return owner;
  if (unit === undefined || typeof unit === "string") return owner ?? view.me;
  const user = userNamed(view, unit.User === undefined || unit.User === "" ? "root" : unit.User);
  if (user === undefined) return view.me;
  const more = (unit.SupplementaryGroups ?? "").split(" ").flatMap((group) => groupNumber(view, group) ?? []);
  return { ...user, groups: [...user.groups, ...more] };
}

function ownerIn(view: View, stateDir: string): User | undefined {
  const seen = ["control.sock", "lock"].flatMap((name) => statOf(view, join(stateDir, name)) ?? []);
  const closed = mayDo(view, stateDir, view.me, 0o1) === false ? statOf(view, stateDir) : undefined;
  const stat = seen[0] ?? closed;
  if (stat === undefined || stat.uid === view.me.uid) return undefined;
  return userNamed(view, String(stat.uid)) ?? { name: String(stat.uid), uid: stat.uid, groups: [] };
}

/** A line that is typed, for the unit that this machine has: the ground's has a name of its own, and to start the other one ends it. */
export function forUnit(unit: Unit, line: string): string {
  if (typeof unit !== "object" || unit.Id !== "filesync-ground.service") return line;
  return line.replaceAll(/\b((?:systemctl [a-z][a-z -]*|journalctl -u) filesync)(?![\w.@-])/g, "$1-ground");
}

/** Why the service sees another directory by this name than a person does; undefined where it does not. */
export function hiddenText(unit: Unit, dir: string | undefined): string | undefined {
  if (typeof unit !== "object" || unit.PrivateTmp !== "yes") return undefined;
  const tmp = ["/tmp", "/var/tmp"].find((one) => dir === one || dir?.startsWith(`${one}/`) === true);
  if (tmp === undefined) return undefined;
  return `the service has a ${tmp} of its own, which goes when it ends: choose a directory elsewhere for ${dir}`;
}
