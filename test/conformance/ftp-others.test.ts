/** The plugin "ftp" held to the contract on servers of others. What one of them is known to do otherwise is named here. */
import { after } from "node:test";
import { ftpHarness } from "./ftp-harness.js";
import { ftpSrv, vsftpd } from "./ftp-servers.js";
import { sourceClauses } from "./source.js";
import { targetClauses } from "./target.js";

for (const harness of [ftpHarness({ kind: vsftpd }), ftpHarness({ kind: ftpSrv, keepsTimes: false })]) {
  targetClauses(harness.target);
  sourceClauses(harness.source);
  after(() => harness.stop());
}
