/** What an exit code of rsync(1) or ssh(1), with the words beside it, means for core. Codes do not leave this plugin. */
import { Fault, type FaultKind } from "../../core/errors.js";
import { bytesFromName } from "../../core/names.js";
import { parentOf } from "../../core/paths.js";
import type { Upload } from "../../core/plugin.js";

/** So long a server that serves one at a time is left to the other. */
const busyMs = 5000;
const installHere = "on this machine: apt install rsync openssh-client";

/** The codes of rsync(1), and of the shell and ssh that start it. Words, where they say more, go before. */
const codes: Readonly<Record<number, readonly [FaultKind, string]>> = {
  1: ["config", "rsync does not know its options; a newer rsync may be needed there or here"],
  2: [
    "config",
    "the rsyncs find no protocol that both speak, the server's shell prints text before it starts rsync, or this account may start none (one for SFTP alone, or without a shell)",
  ],
  3: ["transient", "rsync found a directory or file that it cannot use"],
  4: ["config", "one of the rsyncs cannot do what was asked"],
  5: ["transient", "rsync could not start its conversation"],
  10: ["offline", "the connection broke"],
  11: ["transient", "a file could not be written or read"],
  12: ["transient", "the connection broke off"],
  13: ["transient", "rsync could not report"],
  14: ["transient", "rsync could not talk to itself"],
  20: ["transient", "rsync was stopped at the server"],
  21: ["transient", "rsync lost a process of its own"],
  22: ["transient", "rsync had not enough memory"],
  23: ["transient", "not all could be moved"],
  24: ["changed", "the file went away while it was sent"],
  30: ["transient", "no byte moved for too long"],
  35: ["offline", "the server does not answer"],
  124: ["transient", "the command failed at the server"],
  125: ["transient", "the command was killed at the server"],
  126: ["config", "a program cannot be run"],
  127: ["config", "a program is not installed"],
  255: ["transient", "the connection broke"],
};

/** Names stand between quotes in what rsync says, and the programs that a shell runs: words in them are not its own. */
const namesIn = [/(?<=^rsync: .*)".*"/gm, /(?<=^(?:ln|mv|mkdir|rm|touch|sync): .*)(?:'|\xe2\x80\x98).*(?:'|\xe2\x80\x99)/gm] as const;
const withoutNames = (err: string): string => namesIn.reduce((text, names) => text.replace(names, '""'), err);

interface Said {
  readonly words: RegExp;
  readonly kind: FaultKind;
  readonly means: string;
}

/** Said of a directory whose default modes cannot be read; it changes nothing. */
const remark = /^.*falling back on umask$/gm;

/** rsync's words for a file system that syncs no files; the second of musl. Those of a medium that fails are others. */
const unsyncing = /fsync failed on .*: (Invalid argument|(Operation )?[Nn]ot supported|Function not implemented)/;

/** In the words of either program, the first that fits. */
const sayings: readonly Said[] = [
  { words: unsyncing, kind: "transient", means: "the file system there syncs no files: it is not asked to any more" },
  { words: /env: .{0,3}(rsync|ssh|ssh-keyscan).{0,3}: No such file/, kind: "config", means: `a program is not installed ${installHere}` },
  {
    words: /rrsync: (command not found|not found|No such file|cannot execute|\S+: bad interpreter)|env: .{0,3}python3?.{0,3}: No such file/,
    kind: "config",
    means: "rrsync cannot be run on the server: it comes with rsync, and is written in Python: apt install rsync python3 there",
  },
  {
    words: /rsync: (command )?not found|rsync: No such file or directory|command not found: rsync|Unknown command: '?rsync/i,
    kind: "config",
    means: "rsync is not installed on the server: apt install rsync there",
  },
  { words: /Another instance of rrsync/, kind: "throttled", means: "rrsync serves another one there now" },
  {
    words: /rrsync error: (sending to read-only|reading from write-only|option \S*del\S* has been disabled)/,
    kind: "denied",
    means: 'rrsync is kept there from what is needed: take "-ro", "-wo" and "-no-del" out of its line in authorized_keys',
  },
  {
    // That of rsync 3.2 and later ends so, where it would lock it.
    words: /^FileNotFoundError: .*No such file|rrsync error: Restricted directory does not exist/m,
    kind: "denied",
    means: "the directory that rrsync is to serve is not there: make it at the server, or name another in authorized_keys",
  },
  {
    words: /No space left on device|ENOSPC|EDQUOT|quota (limit )?exceeded|(over|exceed\w*) .{0,20}quota/i,
    kind: "full",
    means: "no space is left at the server",
  },
  {
    words: /REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed/,
    kind: "denied",
    means: "the server's host key is not the one that is believed",
  },
  {
    words: /UNPROTECTED PRIVATE KEY/,
    kind: "denied",
    means: 'ssh uses no private key that others may read: "chmod 600" the file of "privateKey"',
  },
  {
    words: /Permission denied \([a-z,-]+\)|Too many authentication failures|No more authentication methods/,
    kind: "denied",
    means: "the server does not let the user in",
  },
  { words: /no matching .* found|Unable to negotiate/, kind: "denied", means: "the server and ssh find nothing that both speak" },
  {
    words: /Bad configuration option|Bad owner or permissions|terminating, \d+ bad configuration/,
    kind: "config",
    means: "ssh does not take its configuration",
  },
  {
    words:
      /Connection refused|No route to host|Network is unreachable|Could not resolve|Name or service not known|Temporary failure in name/,
    kind: "offline",
    means: "the server is not there",
  },
  { words: /timed out|Timeout, server|banner exchange/, kind: "offline", means: "the server does not answer" },
  { words: /\[sender\].*(Permission denied|No such file)|vanished/, kind: "changed", means: "the file cannot be read here any more" },
  { words: /Permission denied \(13\)|Operation not permitted|: Permission denied/, kind: "denied", means: "permission denied" },
  {
    // Where it may not make a file, rsync opens it once more without making it, and says what that ended with.
    words: /\[receiver\] open .* failed: No such file or directory/,
    kind: "denied",
    means: "the file cannot be made there: its directory may not be written, or has gone",
  },
  { words: /Too many levels of symbolic links/, kind: "rejected", means: "a link is in the way there, and rsync follows none" },
  { words: /Read-only file system/, kind: "denied", means: "the file system is read-only" },
  {
    words: /File name too long|Not a directory|Is a directory|Invalid argument|File too large/,
    kind: "rejected",
    means: "the server's file system cannot hold it under this name",
  },
];

/** The Fault for a program that did not end with 0. `connecting`: nothing was said yet, so a break says that it is not there. */
export function rsyncFault(what: string, ended: { readonly code: number; readonly err: string }, connecting = false): Fault {
  const { code } = ended;
  const err = ended.err.replace(remark, "");
  const bare = withoutNames(err);
  const said = sayings.find(({ words }) => words.test(bare));
  const [byCode, means] = codes[code] ?? ["transient", `it ended with code ${code}`];
  const kind = said?.kind ?? (connecting && code === 255 ? "offline" : byCode);
  const line = tellingLine(err, said?.words);
  const message = `${what}: ${said?.means ?? means}${line === "" ? "" : ` ("${line}")`}`;
  return new Fault(kind, message, { cause: new Ending(code, err), ...(kind === "throttled" ? { retryAfterMs: busyMs } : {}) });
}

/** The cause of such a Fault. */
class Ending extends Error {
  constructor(
    readonly code: number,
    readonly err: string,
    readonly unsynced = false,
  ) {
    super(`exit code ${code}`);
  }
}

/** Whether one of the files that were sent was at fault, rather than the way there. A full disk is at fault for all. */
export function isOfOneFile({ kind, cause }: Fault): boolean {
  return kind !== "full" && cause instanceof Ending && [3, 11, 23, 24].includes(cause.code);
}

/** Whether the medium there did not take what was written. */
export function isUnsynced({ cause }: Fault): boolean {
  return (
    cause instanceof Ending && (cause.unsynced || cause.err.split("\n").some((it) => /fsync failed on /.test(it) && !unsyncing.test(it)))
  );
}

/** Whether rsync says that the file system there syncs no files. */
export function syncsNone(err: string): boolean {
  return unsyncing.test(err);
}

/** The Fault for what the `sync` there said of a file. */
export function unsyncedFault(what: string, err: string): Fault {
  const { kind, message } = rsyncFault(what, { code: 11, err });
  return new Fault(kind, message, { cause: new Ending(11, err, true) });
}

/** Of these files those that a line of it names, or a directory above them that could not be made, each with the Fault of that line. */
export function faultsByFile({ cause }: Fault, files: readonly Upload[]): Map<Upload, Fault> {
  const found = new Map<Upload, Fault>();
  if (!(cause instanceof Ending)) return found;
  const named = new Map<string, Upload[]>();
  for (const file of files)
    for (let path = file.partialPath; path !== ""; path = parentOf(path))
      named.set(asTold(path), [...(named.get(asTold(path)) ?? []), file]);
  for (const err of cause.err.split("\n")) {
    const [, name = ""] = /"(.*)"/.exec(err) ?? [];
    // As much of it as there is below the root: of "a/b" and "b" the first.
    for (let at = name.indexOf("/"); at !== -1; at = name.indexOf("/", at + 1)) {
      const meant = named.get(name.slice(at + 1));
      if (meant === undefined) continue;
      for (const file of meant) if (!found.has(file)) found.set(file, rsyncFault(`cannot write ${file.path}`, { code: cause.code, err }));
      break;
    }
  }
  return found;
}

/** A path in what rsync says, in the locale C. */
function asTold(path: string): string {
  const text = bytesFromName(path).toString("latin1");
  return text.replace(/[^\x20-\x7e]/g, (byte) => `\\#${byte.charCodeAt(0).toString(8).padStart(3, "0")}`);
}

/** One line of what was said: the one that decided, else the first that is no banner. */
function tellingLine(err: string, words: RegExp | undefined): string {
  // ssh ends its own with a carriage return, too.
  const lines = err.split("\n").map((line) => line.trim().replace(/[^\x20-\x7e]/g, "?"));
  const line = lines.find((it) => words?.test(withoutNames(it))) ?? lines.find((it) => it !== "" && !/^@+$/.test(it)) ?? "";
  return line.slice(0, 300);
}
