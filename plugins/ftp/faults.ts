/**
 * From answers of FTP servers and errors of sockets to Faults: the one place where protocol codes are read.
 *
 * A message names what was tried and what the server said, and never holds the password.
 */
import { Fault, isFault, type FaultKind } from "../../core/errors.js";
import { netFault } from "../../core/net.js";
import { Refusal, Silence } from "./control.js";
import type { FtpOptions } from "./options.js";
import { readable } from "./wire.js";

/** The answer to AUTH TLS. */
export class TlsRefusal extends Refusal {}

/** The answer to STOR or APPE. */
export class StoreRefusal extends Refusal {}

export interface Situation {
  /** Opens the message: "cannot write a/b". */
  readonly what: string;
  /** Before the login is done: then silence, and who hangs up, says that it is not there, and a refusal that we may not use it. */
  readonly connecting?: boolean;
  readonly clockTrusted: boolean;
  readonly secure: FtpOptions["secure"];
  readonly port?: number | undefined;
  /** Never to be repeated. */
  readonly password: string;
}

const codes: Readonly<Record<number, FaultKind>> = {
  332: "denied",
  421: "transient",
  425: "transient",
  426: "transient",
  430: "denied",
  431: "denied",
  434: "offline",
  450: "transient",
  451: "transient",
  452: "full",
  500: "rejected",
  501: "rejected",
  502: "rejected",
  503: "transient",
  504: "rejected",
  522: "denied",
  530: "denied",
  532: "denied",
  533: "denied",
  534: "denied",
  536: "denied",
  550: "rejected",
  // An action that was broken off: ftp-srv says so when the data connection is reset.
  551: "transient",
  552: "full",
  553: "rejected",
  554: "conflict",
};

/**
 * vsftpd, ProFTPD and Pure-FTPd all answer 550 both for what is missing and for what is forbidden, Pure-FTPd 553 too: only the words differ. vsftpd's are the same for no right, no inode and, with
 * some file systems, no space.
 */
const forbidden = /permission|denied|not allowed|no right|forbidden|not permitted|read-only|could not create file/i;
/** ProFTPD says it with 550 and Pure-FTPd with 553, in the system's words; ftp-srv with 550, as Node does. vsftpd and Pure-FTPd have one word for whatever their disk did not take, with 451: that, as a rule. */
const full = /\b(ENOSPC|EDQUOT)\b|no space left on device|disk quota exceeded|failure writing to local file|error during write to file/i;
/** ProFTPD says so of a write that took only a part: the last that found room. The next says that there is none. */
const lastRoom = /^451 transfer aborted\. input\/output error$/i;
/** ProFTPD says it with 552, of its "MaxStoreFileSize" and of a file system that takes no larger file, in the system's words: more space would change nothing. */
const tooLarge = /\bEFBIG\b|file too large\W*$/i;

/** ftp-srv says 550 for whatever went wrong, in the words of its sockets and files. */
const brokenOff = /\b(ECONNRESET|EPIPE|ECONNABORTED)\b/;

/** ProFTPD of a directory with a `*` in its name. */
const noName = /invalid directory name/i;

/** How servers say that they take nothing in clear, in the words of vsftpd, ProFTPD, Pure-FTPd, IIS, FileZilla and our own. */
const wantsTls = /\b(TLS|SSL|FTPS|encrypt(ed|ion)|cleartext|secure connection|AUTH (first|command))\b/i;
/** The same once the login was let in: of the data connection. Other answers may hold a file's name. */
const wantsTlsForData = /^(521|522|533|534|536) |\bSSL\/TLS required\b/i;
/** Of TLS from the first byte, where nobody says otherwise. */
export const implicitPort = 990;
const explicitAdvice = `set "secure": true, or "implicit" where TLS has a port of its own (usually ${implicitPort})`;
const clearAdvice = '"secure": false sends all in clear, the password too';

/** Whether an answer of refusal says why, of rights, of space or of the name. */
export function saysWhy(text: string): boolean {
  return forbidden.test(text) || full.test(text) || noName.test(text);
}

/**
 * To APPE, to REST, or to RETR behind it, of the file at `wire`: that no file is ever continued. ProFTPD says so with 451, without "AllowStoreRestart on" or with
 * "AllowRetrieveRestart off"; vsftpd's "500 OOPS" is another trouble.
 */
export function continuesNever({ code, message }: Refusal, wire: string): boolean {
  const said = message.replace(wire, "");
  if (code === 500) return !said.includes("OOPS");
  return code === 502 || code === 504 || /\b(append|rest(art)?)\b.*\bnot (permitted|allowed|supported)/i.test(said);
}

/** Whether the server will never hold a file of that size. */
export function isTooLarge({ code, message }: Refusal): boolean {
  return code >= 500 && tooLarge.test(message);
}

/** The Fault for a refusal, an error of the control connection, or one of node. A Fault stays what it is. */
export function ftpFault(error: unknown, situation: Situation): Fault {
  if (isFault(error)) return error;
  const cause = { cause: error };
  const say = (text: string): string => hide(`${situation.what}: ${text}`, situation.password);
  if (error instanceof Refusal) {
    const text = readable(error.message);
    if (error instanceof TlsRefusal && error.code !== 421)
      return new Fault(
        "denied",
        say(
          `the server offers no TLS on this port (to AUTH TLS it said "${text}"); set TLS up there, or set "secure": "implicit" with the port where it has TLS from the first byte (usually ${implicitPort}); ${clearAdvice}`,
        ),
        cause,
      );
    if (situation.secure === false && (situation.connecting === true ? wantsTls : wantsTlsForData).test(text))
      return new Fault("denied", say(`the server wants TLS; ${explicitAdvice} (it said "${text}")`), cause);
    if (situation.connecting === true && error.code === 530)
      return new Fault("denied", say(`the server said "${text}"; look at "user" and "password"`), cause);
    if (situation.connecting === true && error.code >= 500) return new Fault("denied", say(`the server said "${text}"`), cause);
    const kind = brokenOff.test(text)
      ? "transient"
      : full.test(text) || (error instanceof StoreRefusal && lastRoom.test(text))
        ? "full"
        : (error.code === 550 || error.code === 553) && forbidden.test(text)
          ? "denied"
          : isTooLarge(error)
            ? "rejected"
            : (codes[error.code] ?? (error.code < 500 ? "transient" : "rejected"));
    const isOfConnection = error.code === 421 || error.code === 426 || error.code === 551 || brokenOff.test(text);
    return new Fault(kind, say(`the server said "${text}"`), { ...cause, notTaken: !isOfConnection });
  }
  const silence = error instanceof Silence ? Object.assign(new Error(error.message, { cause: error }), { code: "ETIMEDOUT" }) : undefined;
  return netFault(situation.connecting === true && silence !== undefined ? silence : error, {
    what: hide(situation.what, situation.password),
    clockTrusted: situation.clockTrusted,
    ...(situation.connecting === true ? { connecting: true, silent: silentFor(situation) } : {}),
    ...(situation.secure === "implicit"
      ? {
          noTls: (why: string) =>
            `what answers on this port speaks no TLS from the first byte (${why}); set "secure": true for TLS that is asked for with AUTH TLS, or the port of implicit TLS (usually ${implicitPort})`,
        }
      : {}),
  });
}

/** A server that waits for our TLS says nothing; so does one that is not there. Only the port tells them apart. */
function silentFor({ port, secure }: Situation): string {
  if (port !== implicitPort || secure === "implicit") return "";
  return `; port ${implicitPort} is usually for TLS from the first byte: set "secure": "implicit"`;
}

/** Takes the password out of a text, for a server that repeats what it was told. */
function hide(text: string, password: string): string {
  return password.length < 3 ? text : text.replaceAll(password, "***");
}
