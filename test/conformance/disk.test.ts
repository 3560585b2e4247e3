/**
 * The plugin "disk" held to the contract, on a loop device with an ext4 and one with exFAT (by FUSE), mounted and unmounted for real. Only
 * \`lsblk\` is made up here; disks that come and go are those of test/acceptance/disk.test.ts.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { promises as fs, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { filter, firstValueFrom } from "rxjs";
import { runCommand } from "../../core/program.js";
import { DiskDevice } from "../../plugins/disk/device.js";
import { type Machine, thisMachine } from "../../plugins/disk/mounting.js";
import { filesBelow, onMedium } from "./files.js";
import { sourceClauses } from "./source.js";
import type { SourceUnderTest } from "./source-under-test.js";
import { targetClauses } from "./target.js";
import type { TargetUnderTest } from "./target-under-test.js";
import { context } from "./upload.js";

class Card {
  constructor(
    readonly node: string,
    readonly fsType: string,
  ) {}

  readonly machine = (): Machine => ({
    ...thisMachine,
    run: (command, args, ms) =>
      command === "lsblk"
        ? Promise.resolve({ code: 0, out: JSON.stringify({ blockdevices: [this.#row()] }), complaint: "" })
        : command === "udisksctl"
          ? Promise.resolve({ code: null, out: "", complaint: "not here" })
          : runCommand(command, args, ms),
  });

  #row() {
    const { node, fsType } = this;
    const { rdev } = statSync(node);
    const device = `${(rdev >> 8) & 0xfff}:${rdev & 0xff}`;
    return {
      ...{ path: node, kname: node.slice(5), pkname: null, "maj:min": device, type: "disk", fstype: fsType, uuid: "1234-ABCD" },
      ...{ partuuid: null, label: null, size: 1, ro: false, rm: true, hotplug: true, serial: null, mountpoint: null },
    };
  }
}

/** A string: why it cannot be had here. */
async function card(fsType: string, mkfs: readonly string[]): Promise<Card | string> {
  const dir = await fs.mkdtemp(join(tmpdir(), `filesync-card-${fsType}-`));
  const image = join(dir, "image");
  let node = "";
  after(async () => {
    if (node !== "") spawnSync("losetup", ["-d", node]);
    await fs.rm(dir, { recursive: true });
  });
  for (const [command = "", ...args] of [
    ["truncate", "-s", "64M", image],
    [...mkfs, image],
    ["losetup", "-f", "--show", image],
  ]) {
    const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8" });
    if (status !== 0) return `${command}: ${error?.message ?? stderr.trim()}`;
    if (command === "losetup") node = stdout.trim();
  }
  return new Card(node, fsType);
}

let count = 0;

function on(one: Card) {
  return async (): Promise<TargetUnderTest & SourceUnderTest> => {
    const root = `root-${count++}`;
    const options = { wanted: { uuid: "1234abcd" }, root, write: true, gadget: false };
    const stateDir = await fs.mkdtemp(join(tmpdir(), "filesync-disk-state-"));
    const device = new DiskDevice(options, context({ stateDir }), one.machine());
    const watching = device.presence$.subscribe();
    await firstValueFrom(device.presence$.pipe(filter(({ state }) => state === "attached")));
    const mounted = device.media[0]?.mounted?.dir ?? assert.fail("it is not mounted");
    const dir = join(mounted, root);
    // What the one before left is removed now that nothing of it is open: below FUSE a file that is open keeps a hidden name.
    for (const name of await fs.readdir(mounted)) if (name.startsWith("root-")) await fs.rm(join(mounted, name), { recursive: true });
    await fs.mkdir(dir);
    return {
      device,
      ...onMedium(dir, one.fsType === "exfat"),
      outside: async () => (await filesBelow(mounted)).filter((path) => !path.startsWith(`${root}/`) && !/^(lost\+found|root-)/.test(path)),
      close: async () => {
        await device.close();
        watching.unsubscribe();
        await fs.rm(stateDir, { recursive: true });
      },
    };
  };
}

for (const [fsType, mkfs] of [
  ["ext4", ["mkfs.ext4", "-q", "-m", "0"]],
  ["exfat", ["mkfs.exfat"]],
] as const) {
  const one = await card(fsType, mkfs);
  const harness = typeof one === "string" ? { make: () => Promise.reject(new Error(one)), skip: one } : { make: on(one) };
  targetClauses({ name: `target: disk on ${fsType}`, ...harness });
  sourceClauses({ name: `source: disk on ${fsType}`, ...harness });
}
