/** What an answer of refusal means for core. Codes of the protocol do not leave this plugin. */
import { Fault, isFault, type FaultKind } from "../../core/errors.js";
import { netFault, type NetSituation } from "../../core/net.js";
import { nameFromBytes } from "../../core/names.js";

export const Status = {
  ok: 0,
  eof: 1,
  noSuchFile: 2,
  permissionDenied: 3,
  failure: 4,
  badMessage: 5,
  unsupported: 8,
  noSuchPath: 10,
  exists: 11,
  noSpace: 14,
  quota: 15,
} as const;

const kinds: Readonly<Record<number, FaultKind>> = {
  2: "missing",
  3: "denied",
  // FAILURE says nothing but its words: a full disk, a directory that is not empty, a name that exists.
  4: "transient",
  5: "rejected",
  6: "transient",
  7: "transient",
  8: "rejected",
  10: "missing",
  11: "conflict",
  12: "denied",
  13: "offline",
  14: "full",
  15: "full",
  20: "rejected",
};

/** No connection, and a lost one: no answer of the server. */
const ofConnection = [6, 7];

const words: Readonly<Record<number, string>> = {
  2: "there is no such file or directory",
  3: "permission denied",
  4: "failure",
  8: "the server cannot do that",
  12: "the file system is read-only",
  14: "no space is left there",
  15: "the quota is used up",
};

/** ENOSPC and EDQUOT have no code in version 3: servers that are not OpenSSH put them into words. A path beside these is none of them. */
const fullWords =
  /no space|(?<![\w./-])(over[_-]?)?quota([_-]?exceeded)?(?![\w/-]|\.\w)|disk (is )?full|file ?system (is )?full|not enough space/i;

/** The server's answer was a code of refusal. */
export class Refusal extends Error {
  readonly code: number;
  readonly text: string;

  constructor(code: number, text: Buffer) {
    const said = nameFromBytes(text).slice(0, 300);
    super(said);
    this.code = code;
    this.text = said;
  }
}

export function isRefusal(error: unknown, ...codes: readonly number[]): error is Refusal {
  return error instanceof Refusal && (codes.length === 0 || codes.includes(error.code));
}

export function isAbsent(error: unknown): boolean {
  return isRefusal(error, Status.noSuchFile, Status.noSuchPath);
}

/** The Fault for a refusal, or for an error of the connection. A Fault stays what it is, with `what` before its words. */
export function sftpFault(error: unknown, situation: NetSituation): Fault {
  const { what } = situation;
  if (error instanceof Refusal) {
    const { code, text } = error;
    const kind = fullWords.test(text) ? "full" : (kinds[code] ?? "transient");
    const plain = words[code];
    const said = text === "" || text.toLowerCase() === plain ? "" : ` (the server said "${text}")`;
    return new Fault(kind, `${what}: ${plain ?? `refused with code ${code}`}${said}`, {
      cause: error,
      notTaken: !ofConnection.includes(code),
    });
  }
  if (isFault(error)) return error;
  return netFault(error, situation);
}
