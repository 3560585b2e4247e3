/** The unit that runs the daemon, where systemd runs here; and as which user it does. */
import { type Finding, findingsOf } from "./finding.js";
import { groupNumber, isThere, type User, userNamed, type View } from "../machine/view.js";

const finding = findingsOf("unit");
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

/** Who the daemon is, or will be: the unit's user; else who asks. */
export function daemonUser(view: View, unit: Unit): User {
  if (unit === undefined || typeof unit === "string") return view.me;
  const user = userNamed(view, unit.User === undefined || unit.User === "" ? "root" : unit.User);
  if (user === undefined) return view.me;
  const more = (unit.SupplementaryGroups ?? "").split(" ").flatMap((group) => groupNumber(view, group) ?? []);
  return { ...user, groups: [...user.groups, ...more] };
}

export async function checkUnit(view: View, unit: Unit, running: boolean): Promise<Finding[]> {
  if (!isThere(view, "/run/systemd/system")) return [];
  if (typeof unit === "string") return [finding("unseen", "systemd", `systemd cannot be asked: ${unit}`)];
  if (unit === undefined)
    return [
      finding(
        "warn",
        "filesync.service",
        "there is no such unit: nothing starts FileSync when this machine starts",
        "# install it as a service: sudo deploy/deploy-filesync.sh",
      ),
    ];
  const { Id: name = "", LoadState, UnitFileState = "", ActiveState = "", Result = "", ExecMainStatus = "", NRestarts = "0" } = unit;
  const found: Finding[] = [];
  const short = name.replace(/\.service$/, "");
  const look = `journalctl -u ${short} -n 50 --no-pager`;
  if (LoadState === "masked")
    return [
      finding("bad", name, "it is masked: it cannot be started", `sudo systemctl unmask ${short}`, `sudo systemctl enable --now ${short}`),
    ];
  if (ActiveState === "failed")
    found.push(
      finding(
        "bad",
        name,
        `it failed (${Result}, exit status ${ExecMainStatus})${await lastError(view, name)}`,
        look,
        `sudo systemctl restart ${short}`,
      ),
    );
  else if (ActiveState === "inactive" && !running)
    found.push(finding("warn", name, "it does not run: nothing is found or delivered", `sudo systemctl start ${short}`));
  else if (ActiveState === "activating" && !running) found.push(finding("warn", name, "it is starting, or starts again and again", look));
  if (!/^(enabled|static|alias|indirect|generated|linked)/.test(UnitFileState))
    found.push(finding("warn", name, "it is not enabled: it does not start with this machine", `sudo systemctl enable ${short}`));
  if (Number(NRestarts) > 0 && ActiveState !== "failed")
    found.push(
      finding(
        "warn",
        name,
        `it ended and was started again ${NRestarts} times since this machine started${await lastError(view, name)}`,
        look,
      ),
    );
  return found.length > 0 ? found : [finding("ok", name, `enabled, ${ActiveState}`)];
}

/** "; it said last: …", as far as the log may be read. */
async function lastError(view: View, name: string): Promise<string> {
  const { code, out } = await view.run("journalctl", ["-u", name, "-n", "20", "--no-pager", "-o", "cat"], 10_000);
  const line = code === 0 ? out.split("\n").findLast((one) => /error|filesync: /.test(one)) : undefined;
  return line === undefined ? "" : `; it said last: ${line.trim().slice(0, 300)}`;
}
