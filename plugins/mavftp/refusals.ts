/** What an autopilot's own no means: the NAK of a request as a Fault, whose message a person can act on. */
import { Fault, type FaultKind } from "../../core/errors.js";
import { Nak, nakName, Op } from "../../mavlink/ftp.js";
import { AUTOPILOT_ARDUPILOT } from "../../mavlink/messages.js";
import type { Reply } from "./requests.js";

const ERRNO_MISSING = 2;

/** The autopilot's own no, rather than its silence. */
export class Refused extends Fault {}

/** The Fault for a NAK; `what` completes "the autopilot cannot". */
export function refusal(what: string, reply: Reply): Refused {
  if (isMissing(reply)) return new Refused("missing", "there is no such file or directory on the autopilot");
  return new Refused("transient", `the autopilot cannot ${what}: ${detail(reply)}`);
}

/** By errno, as the autopilots number them. */
const MEANINGS: ReadonlyMap<number, readonly [FaultKind, string]> = new Map([
  [1, ["rejected", "its card does not allow it"]],
  [13, ["rejected", "its card does not allow it"]],
  [20, ["rejected", "a part of the path is a file"]],
  [21, ["rejected", "there is a directory of that name"]],
  [22, ["rejected", "its card cannot hold such a name"]],
  [28, ["full", "its card is full"]],
  [30, ["rejected", "its card is write-protected"]],
  [36, ["rejected", "the name is too long for its card"]],
]);

/**
 * What an ArduPilot's errno means for these requests: it has none for a full card. A write of which nothing was taken is EIO, whatever the reason
 * (AP_Filesystem_FATFS::write), and a directory without room is EACCES (FatFs, f_mkdir).
 */
const ARDUPILOT_FULL: ReadonlyMap<number, readonly [errno: number, text: string]> = new Map([
  [Op.WriteFile, [5, "its card is full, or it fails"]],
  [Op.CreateDirectory, [13, "its card is full, or does not allow it"]],
]);

/** What was asked, and whom (MAV_AUTOPILOT). */
export interface Asked {
  readonly opcode: number;
  readonly autopilot: number | undefined;
}

/** Like `refusal`, of what would change its card. */
export function changeRefusal(what: string, reply: Reply, { opcode, autopilot }: Asked): Refused {
  if (reply.nak === Nak.FileProtected)
    return new Refused(
      "rejected",
      `the autopilot does not let anybody ${what} there (FileProtected): on PX4 only what is below /fs/microsd can be changed`,
    );
  const full = autopilot === AUTOPILOT_ARDUPILOT && reply.nak === Nak.FailErrno ? ARDUPILOT_FULL.get(opcode) : undefined;
  if (full?.[0] === reply.errno) return new Refused("full", `the autopilot cannot ${what}: ${full[1]} (${detail(reply)})`);
  const known = reply.nak === Nak.FailErrno ? MEANINGS.get(reply.errno) : undefined;
  if (known === undefined) return refusal(what, reply);
  return new Refused(known[0], `the autopilot cannot ${what}: ${known[1]} (${detail(reply)})`);
}

function isMissing({ nak, errno }: Reply): boolean {
  return nak === Nak.FileNotFound || (nak === Nak.FailErrno && errno === ERRNO_MISSING);
}

function detail({ nak, errno }: Reply): string {
  return nak === Nak.FailErrno ? `FailErrno ${errno}` : nakName(nak ?? 0);
}
