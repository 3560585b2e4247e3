/** Where a command keeps for its time what belongs nowhere else: TMPDIR. */
import { tmpdir } from "node:os";
import { faultOfErrno } from "../core/errors.js";
import { UsageError } from "./config.js";

/** Nothing can be kept there; `what` says for what it is needed: "the journal has to be copied to". */
export function noScratch(what: string, error: unknown): UsageError {
  return new UsageError(`${faultOfErrno(error, `${what} ${tmpdir()}`).message}; set TMPDIR to a directory with room that may be written`);
}
