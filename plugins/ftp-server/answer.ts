/**
 * What the server says when it cannot do what was asked: one table from errors of the file system to answers of FTP.
 *
 * Codes as in RFC 959; 55x is final for this file, 45x may be tried again. A text names no path of this machine.
 */
import { codeOf } from "../../core/errors.js";

/** Thrown by a command to end with this answer. */
export class Answer extends Error {
  readonly code: number;
  constructor(code: number, text: string) {
    super(text);
    this.name = "Answer";
    this.code = code;
  }
}

const table: Readonly<Record<string, readonly [number, string]>> = {
  ENOENT: [550, "No such file or directory."],
  ENOTDIR: [550, "Not a directory."],
  EISDIR: [550, "Is a directory."],
  EEXIST: [550, "File exists."],
  ENOTEMPTY: [550, "Directory not empty."],
  ELOOP: [550, "A symbolic link is not followed."],
  EACCES: [550, "Permission denied."],
  EPERM: [550, "Permission denied."],
  EROFS: [550, "The file system is read-only."],
  EXDEV: [550, "Cannot rename to another file system."],
  EINVAL: [553, "This name cannot be used."],
  EILSEQ: [553, "This name cannot be used."],
  ENAMETOOLONG: [553, "The name is too long."],
  EFBIG: [552, "The file is too large for this file system."],
  ENOSPC: [552, "No space left."],
  EDQUOT: [552, "The quota is used up."],
  EMFILE: [450, "Too many open files; try again."],
  ENFILE: [450, "Too many open files; try again."],
  ENODEV: [451, "The disk of this server is not mounted, or does not answer."],
  EIO: [451, "Input/output error."],
};

/** The answer for an error; undefined for one that the table does not know. */
export function answerOf(error: unknown): Answer | undefined {
  if (error instanceof Answer) return error;
  const known = table[codeOf(error)];
  return known === undefined ? undefined : new Answer(known[0], known[1]);
}
