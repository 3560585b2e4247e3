/** The plugin "sftp" held to the contract on real servers. What one of them is known to do otherwise is named here. */
import { after } from "node:test";
import { sftpHarness } from "./sftp-harness.js";
import { chrooted, openssh, rcloneSftp } from "./sftp-servers.js";
import { sourceClauses } from "./source.js";
import { targetClauses } from "./target.js";

const readback = sftpHarness({
  kind: chrooted,
  given: { verify: "readback", compress: true },
  name: `${chrooted.name}, read back, compressed`,
});
targetClauses(readback.target);
after(() => readback.stop());

const rcloneNames = { "line\u201b0Abreak.bin": "rclone writes a line end in a name in its own way" };
const onRclone = (["off", "writes"] as const).map((mode) => sftpHarness({ kind: rcloneSftp(mode), wholeOnly: true, refuses: rcloneNames }));

for (const harness of [sftpHarness({ kind: openssh }), sftpHarness({ kind: chrooted }), ...onRclone]) {
  targetClauses(harness.target);
  sourceClauses(harness.source);
  after(() => harness.stop());
}
