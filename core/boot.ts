import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

const ofThisRun = randomUUID();

/** Names the time since the system was started, the same for every program (proc(5)); elsewhere than on Linux that since this program was. */
export function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return ofThisRun;
  }
}
