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
const warm = sftpHarness({ kind: openssh, warm: true, name: `${openssh.name}, after a first file` });
for (const harness of [readback, warm]) {
  targetClauses(harness.target);
  after(() => harness.stop());
}

/** Its links and renames replace, and its MKDIR says yes to a directory that is there. */
const onRcloneSftp = { exclusive: "nothing", rmdirIsSafe: true } as const;
const onOpenssh = { exclusive: "names", rmdirIsSafe: true } as const;
const rcloneNames = { "line\u201b0Abreak.bin": "rclone writes a line end in a name in its own way" };
const onRclone = (["off", "writes"] as const).map((mode) =>
  sftpHarness({ kind: rcloneSftp(mode), wholeOnly: true, refuses: rcloneNames, promises: onRcloneSftp }),
);

for (const harness of [
  sftpHarness({ kind: openssh, promises: onOpenssh }),
  sftpHarness({ kind: chrooted, promises: onOpenssh }),
  ...onRclone,
]) {
  targetClauses(harness.target);
  sourceClauses(harness.source);
  after(() => harness.stop());
}
