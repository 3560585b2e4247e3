/** What an autopilot says of its card (STORAGE_INFORMATION), in bytes and in words. */
import type { Advice } from "../../core/plugin.js";
import { sizeText } from "../../core/text.js";
import { AUTOPILOT_PX4, STORAGE_EMPTY, STORAGE_READY, type StorageInformation } from "../../mavlink/messages.js";

const MIB = 2 ** 20;
/**
 * With less a PX4 deletes its oldest logs at the next start (src/modules/logger: params.c, SDLOG_DIRS_MAX), on a small card with less than a tenth; from 1.18 on
 * sooner, as its SDLOG_ROTATE and SDLOG_MAX_SIZE say.
 */
const LEAST_FREE = 300 * MIB;

/** Whether it is worth asking: an ArduPilot does not tell it, and of others nobody knows. */
export function tellsStorage(autopilot: number | undefined): boolean {
  return autopilot === AUTOPILOT_PX4;
}

/** Bytes; 0 where no card is in; undefined where what it says is neither. */
export function freeOn({ status, availableMib }: StorageInformation): number | undefined {
  if (status === STORAGE_EMPTY) return 0;
  return status === STORAGE_READY && availableMib >= 0 ? Math.floor(availableMib * MIB) : undefined;
}

/** `card`: undefined where it did not answer. */
export function cardAdvice(card: StorageInformation | undefined): Advice {
  const about = "its card";
  if (card === undefined)
    return {
      severity: "unseen",
      about,
      text: "is not known: the autopilot did not answer three requests for what is free on it",
      todo: [],
    };
  if (card.status === STORAGE_EMPTY)
    return {
      severity: "bad",
      about,
      text: "is not there, as the autopilot says: no log can be written",
      todo: ["# put a card with FAT32 into the autopilot, or look at the one that is in on a computer; then restart the autopilot"],
    };
  const free = freeOn(card);
  if (free === undefined)
    return { severity: "bad", about, text: "cannot be used, as the autopilot says", todo: ["# save what is on it, then format it"] };
  const total = card.totalMib * MIB;
  const text = `has ${sizeText(free)} free of ${sizeText(total)}`;
  if (free >= Math.min(LEAST_FREE, total / 10)) return { severity: "ok", about, text, todo: [] };
  return {
    severity: "warn",
    about,
    text: `${text}: a PX4 makes room by deleting its oldest logs, whether they have arrived or not`,
    todo: ["filesync status   # what has arrived", "# remove that from the card"],
  };
}
