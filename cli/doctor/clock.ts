/** Whether this machine's time can be believed, by the notion of it that the daemon has (`core/clock.ts`). */
import { plausibleSinceMs, timeMarks } from "../../core/clock.js";
import { type Finding, findingsOf } from "./finding.js";
import { processesOf, type View } from "../machine/view.js";

const finding = findingsOf("clock");
const consequence = "certificates cannot be judged, and retention, budgets and {date} wait";
/** Who else sets clocks, by the name of its process. */
const setters = ["chronyd", "ntpd", "ntpsec", "openntpd", "phc2sys"];

export function checkClock(view: View): Finding[] {
  const now = new Date(view.nowMs).toISOString().slice(0, 19);
  const { managed, inStep } = timeMarks(view.root);
  if (view.nowMs < plausibleSinceMs)
    return [
      finding(
        "bad",
        "clock",
        `it says ${now}Z, which cannot be: ${consequence}`,
        "timedatectl",
        "sudo timedatectl set-ntp true",
        '# without a network: sudo timedatectl set-ntp false, then sudo timedatectl set-time "2026-05-28 12:00:00"',
      ),
    ];
  const setter = setters.find((name) => processesOf(view, name).length > 0);
  if (inStep || (setter !== undefined && !managed))
    return [finding("ok", "clock", `${now}Z, ${inStep ? "in step with a time server" : `set by ${setter ?? ""}`}`)];
  if (managed)
    return [
      finding(
        "warn",
        "clock",
        `it says ${now}Z and was not set since this machine started: until a time server answers, or an autopilot tells the time, ${consequence}`,
        "timedatectl timesync-status",
        "sudo timedatectl set-ntp true",
      ),
    ];
  return [
    finding(
      "warn",
      "clock",
      `it says ${now}Z, and nothing is seen here that keeps it in step`,
      "sudo timedatectl set-ntp true",
      "# or: sudo apt install systemd-timesyncd",
    ),
  ];
}
