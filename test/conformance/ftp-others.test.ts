/** The plugin "ftp" held to the contract on servers of others. What one of them is known to do otherwise is named here. */
import { after } from "node:test";
import { ftpHarness } from "./ftp-harness.js";
import { ftpSrv, proftpd, pureFtpd, vsftpd } from "./ftp-servers.js";
import { sourceClauses } from "./source.js";
import { targetClauses } from "./target.js";

const known = {
  "tree: a link is neither entered, moved nor removed as what it leads to": "MLST of ProFTPD tells what a link leads to, unlike its MLSD",
};
/** Their RNTO replaces; ftp-srv says yes to an MKD of a directory that is there. */
const promises = { exclusive: "directories", rmdirIsSafe: true } as const;

const onFtpSrv = ftpHarness({
  promises: { exclusive: "nothing", rmdirIsSafe: true },
  kind: ftpSrv,
  // It has neither MFMT nor a MDTM that sets.
  keepsTimes: false,
  known: {
    "a symbolic link is unreadable, and costs only itself": "ftp-srv follows links and lists what they lead to as files",
    "tree: a link is neither entered, moved nor removed as what it leads to": "ftp-srv follows links and lists what they lead to",
  },
  refuses: {
    [`it's "quoted" \\ here.bin`]: "ftp-srv takes a backslash for a slash",
    "caf\u201bE9.bin": "ftp-srv reads names as UTF-8 and loses other bytes",
    " both ends .bin ": "it is not known of ftp-srv that it keeps a space at the end of a name",
  },
});

const onPureFtpd = ftpHarness({
  promises,
  kind: pureFtpd,
  refuses: {
    [`it's "quoted" \\ here.bin`]: "Pure-FTPd refuses a backslash (553, which is Fault rejected)",
    " both ends .bin ": "Pure-FTPd makes another name of one that ends with a space (which is Fault rejected)",
  },
});

const readback = ftpHarness({ kind: vsftpd, given: { verify: "readback" }, name: "ftp on vsftpd, read back" });
targetClauses(readback.target);
after(() => readback.stop());

for (const harness of [
  ftpHarness({ kind: vsftpd, promises: { exclusive: "directories", rmdirIsSafe: true } }),
  ftpHarness({ kind: proftpd, promises, known }),
  onPureFtpd,
  onFtpSrv,
]) {
  targetClauses(harness.target);
  sourceClauses(harness.source);
  after(() => harness.stop());
}
