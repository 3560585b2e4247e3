/** A made-up machine, for tests of what looks at one. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import type { User, View } from "./view.js";

export const root: User = { name: "root", uid: 0, groups: [0] };
export const pi: User = { name: "pi", uid: 1000, groups: [1000] };
export const now = Date.UTC(2026, 10, 21);

/** A machine of files; `programs`: what each prints, a number is how it ends. */
export function machine(
  t: TestContext,
  files: Readonly<Record<string, string>>,
  programs: Readonly<Record<string, string | number>> = {},
  me = root,
) {
  const dir = mkdtempSync(join(tmpdir(), "filesync-doctor-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const path = (name: string) => {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    return join(dir, name);
  };
  for (const [name, text] of Object.entries(files))
    if (text.startsWith("→ ")) symlinkSync(text.slice(2), path(name));
    else writeFileSync(path(name), text);
  const ran: string[] = [];
  const view: View = {
    root: dir,
    me,
    nowMs: now,
    run: (command, args) => {
      ran.push([command, ...args].join(" "));
      // Of one program, the words that are asked of it count first.
      const said = programs[[command, ...args].slice(0, 3).join(" ")] ?? programs[command];
      if (said === undefined) return Promise.resolve({ code: null, out: "", complaint: `${command} is not there` });
      return Promise.resolve(
        typeof said === "string" ? { code: 0, out: said, complaint: "" } : { code: said, out: "", complaint: "it refuses" },
      );
    },
  };
  return { view, path, ran };
}

/** What lsblk says of one file system: a card of 64 GB, unless `more` says otherwise. */
export const block = (more: object) => ({
  ...{ path: "/dev/sda1", kname: "sda1", pkname: null, "maj:min": "8:1", type: "part", fstype: "exfat", uuid: "5C3D-DD9E", partuuid: null },
  ...{ label: "FLIR", size: 64e9, ro: false, rm: true, hotplug: true, serial: null, mountpoint: null },
  ...more,
});
export const lsblk = (...blocks: object[]) => JSON.stringify({ blockdevices: blocks });
