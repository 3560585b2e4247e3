/** What of the schedule this machine cannot do. */
import { spawnSync } from "node:child_process";
import { hasFakeClock } from "../fake-clock.js";
import { faultKinds, ofMedium } from "./schedule.js";
import type { PlaceKind } from "./place.js";
import { isRoot } from "./servers.js";

/** `target`: what the ground station is. */
export function missingHere(target: PlaceKind = "ftp"): Set<string> {
  const missing = new Set<string>();
  const traces =
    spawnSync("strace", ["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "inject=getpid:error=EIO:when=1", "true"]).status === 0;
  if (!traces) {
    missing.add("power cut").add("killed at a call");
    for (const kind of faultKinds) if (ofMedium(kind)) missing.add(kind);
  }
  if (!hasFakeClock) missing.add("clock");
  if (!isRoot) for (const kind of ["server swapped", "server full", "target full", "state full"]) missing.add(kind);
  // Nobody can change what an encrypted line says, and there is one server of a kind.
  if (target !== "ftp") missing.add("wrong size").add("server swapped");
  return missing;
}
