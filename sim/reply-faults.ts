/** Wrong replies of the file server, drawn from the seed or at a scripted moment. What each stands for in the field is with its row. */
import { FTP_DATA_AT, Nak, Op } from "../mavlink/ftp.js";
import type { FaultRow, ReplyStage } from "./faults.js";
import { isShare, share } from "./frame-faults.js";
import type { Random } from "./random.js";
import { parseWhen, whenForm } from "./script.js";
import { scripted } from "./vehicle-faults.js";

/** Places in the payload of the message. */
const SESSION = 5;
const OPCODE = 6;
const SIZE = 7;
const ASKED = 8;
const COMPLETE = 9;

/** A row that changes a share of the replies that it is about. */
function some(name: string, form: string, about: (payload: Buffer) => boolean, change: (random: Random) => ReplyStage): FaultRow {
  return {
    name,
    form: `a share of ${form}: 0.1 or 10%`,
    check: isShare,
    reply: (value, { random }) => {
      const p = share(value);
      const changes = change(random);
      return (payload, length, next) => {
        if (about(payload) && random() < p) changes(payload, length, next);
        else next(payload, length);
      };
    },
  };
}

const isNak = (payload: Buffer, code?: number): boolean =>
  payload[OPCODE] === Op.Nak && (code === undefined || payload[FTP_DATA_AT] === code);
const isData = (payload: Buffer): boolean =>
  payload[OPCODE] === Op.Ack && (payload[ASKED] === Op.ReadFile || payload[ASKED] === Op.BurstReadFile);

export const replyFaults: readonly FaultRow[] = [
  // PX4 translates an errno that an earlier call has left behind: EEXIST makes every refusal FileExists.
  some(
    "stale-errno",
    "refusals that say FileExists, whatever was wrong",
    (payload) => isNak(payload),
    () => (payload, _length, next) => {
      payload[SIZE] = 1;
      payload[FTP_DATA_AT] = Nak.FileExists;
      next(payload, FTP_DATA_AT + 1);
    },
  ),
  some(
    "lost-eof",
    "refusals for the end of a file that are lost",
    (payload) => isNak(payload, Nak.Eof),
    () => () => undefined,
  ),
  some(
    "bad-complete",
    "packets of bursts that say wrongly that the burst is complete",
    (payload) => isData(payload) && payload[ASKED] === Op.BurstReadFile,
    () => (payload, length, next) => {
      payload[COMPLETE] = 1;
      next(payload, length);
    },
  ),
  some(
    "wrong-session",
    "replies that carry another session",
    () => true,
    (random) => (payload, length, next) => {
      payload[SESSION] = ((payload[SESSION] ?? 0) + 1 + Math.floor(random() * 255)) & 0xff;
      next(payload, length);
    },
  ),
  {
    // A burst that was thought over goes on, a router had kept a frame.
    name: "late",
    form: "a share of data packets that come once more, half a second to three seconds later: 0.1 or 10%",
    check: isShare,
    reply: (value, { random, after }) => {
      const p = share(value);
      return (payload, length, next) => {
        next(payload, length);
        if (!isData(payload) || random() >= p) return;
        const kept = Buffer.from(payload);
        after(500 + random() * 2500, () => next(kept, length));
      };
    },
  },
  {
    name: "lose",
    form: `so many replies that are lost one after the other, from ${whenForm}: 3@read:100`,
    check: (value) => /^[1-9]\d*@/.test(value) && scripted(value) !== undefined,
    reply: (value, { script }) => {
      const parsed = scripted(value);
      let left = 0;
      script.at(parsed?.when, () => (left = Number(parsed?.what)));
      return (payload, length, next) => {
        if (left > 0) left -= 1;
        else next(payload, length);
      };
    },
  },
  {
    name: "nak",
    form: `a refusal in place of the next reply: a code, or with an errno 2.5, at ${whenForm}: 1@open:2; more with commas between`,
    check: (value) =>
      value.split(",").every((one) => /^\d{1,2}(\.\d{1,3})?@/.test(one) && parseWhen(one.slice(one.indexOf("@") + 1)) !== undefined),
    reply: (value, { script }) => {
      const due: string[] = [];
      for (const one of value.split(",")) {
        const parsed = scripted(one);
        script.at(parsed?.when, () => due.push(parsed?.what ?? ""));
      }
      return (payload, length, next) => {
        const [code, errno] = due.shift()?.split(".") ?? [];
        if (code === undefined) {
          next(payload, length);
          return;
        }
        payload[OPCODE] = Op.Nak;
        payload[SIZE] = errno === undefined ? 1 : 2;
        payload[FTP_DATA_AT] = Number(code);
        payload[FTP_DATA_AT + 1] = Number(errno ?? 0);
        next(payload, FTP_DATA_AT + 2);
      };
    },
  },
];
