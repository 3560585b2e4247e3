/** Whether the unit that runs the daemon is well, where systemd runs here. */
import { type Finding, findingsOf } from "./finding.js";
import type { Unit } from "../machine/unit.js";
import { isThere, type View } from "../machine/view.js";

const finding = findingsOf("unit");

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
