/** The plugin "ftp" held to the contract on our own server, in clear and with TLS. */
import { after } from "node:test";
import { ftpHarness } from "./ftp-harness.js";
import { ownCa, ownPinned, ownPlain } from "./ftp-servers.js";
import { sourceClauses } from "./source.js";
import { targetClauses } from "./target.js";

for (const kind of [ownPlain, ownPinned, ownCa]) {
  const harness = ftpHarness({ kind, promises: { exclusive: "directories", rmdirIsSafe: true } });
  targetClauses(harness.target);
  sourceClauses(harness.source);
  after(() => harness.stop());
}
