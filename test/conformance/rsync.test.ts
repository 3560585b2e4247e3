/** The plugin "rsync" held to the contract on OpenSSH: with a shell there, where only rrsync may run, and by size alone. */
import { after } from "node:test";
import { rsyncHarness } from "./rsync-harness.js";
import { rsyncOnly, rsyncShell } from "./rsync-servers.js";
import { targetClauses } from "./target.js";

for (const harness of [
  rsyncHarness(rsyncShell),
  rsyncHarness(rsyncOnly),
  rsyncHarness(rsyncShell, { verify: "size", compress: true }, `${rsyncShell.name}, by size, compressed`),
]) {
  targetClauses(harness.target);
  after(() => harness.stop());
}
