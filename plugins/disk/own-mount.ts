/**
 * The note that this program mounted something at the directory of the configuration, where others may mount too: it outlives a kill. A mount goes with
 * the system, so a note of before its last start says nothing.
 */
import { promises as fs, readFileSync } from "node:fs";
import { dirname } from "node:path";

const boot = "/proc/sys/kernel/random/boot_id";

/** Before it is mounted: what a kill leaves is known to be ours. */
export async function noteMount(note: string): Promise<void> {
  await fs.mkdir(dirname(note), { recursive: true });
  await fs.writeFile(note, readFileSync(boot));
}

export function isNoted(note: string): boolean {
  try {
    return readFileSync(note, "utf8") === readFileSync(boot, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return false;
    throw error;
  }
}

/** Nothing of ours is mounted there any more. */
export async function forgetMount(note: string): Promise<void> {
  await fs.rm(note, { force: true });
}
