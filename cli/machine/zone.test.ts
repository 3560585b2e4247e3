/** The zone of a machine of which somebody else changes the zone, in a mount namespace of its own. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const zones = "/usr/share/zoneinfo/Asia";
const skip =
  process.getuid?.() !== 0 ? "only root can mount" : existsSync(join(zones, "Tokyo")) ? false : "there are no time zones here (tzdata)";

test("a time zone that is set while the program runs is the one of its windows and budgets from then on", { skip }, (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-zone-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const etc = join(dir, "etc");
  mkdirSync(etc);
  symlinkSync(join(zones, "Tokyo"), join(etc, "localtime"));
  const script = `
    const { followZone } = await import(${JSON.stringify(join(import.meta.dirname, "zone.js"))});
    const { renameSync, symlinkSync } = await import("node:fs");
    const hours = () => (followZone(), new Date(0).getHours());
    const seen = [hours(), hours()];
    symlinkSync(${JSON.stringify(join(zones, "Kolkata"))}, "/etc/next");
    renameSync("/etc/next", "/etc/localtime");
    console.log(JSON.stringify([...seen, hours()]));`;
  const words = ["-m", "sh", "-c", 'mount --bind "$1" /etc && shift && exec "$@"', "sh", etc];
  const { TZ: _, ...env } = process.env;
  const ran = spawnSync("unshare", [...words, process.execPath, "--input-type=module", "-e", script], { encoding: "utf8", env });
  assert.equal(ran.stdout, "[9,9,5]\n", ran.stderr);
});
