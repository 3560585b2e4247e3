/** Whether the journal is whole, behind its first bytes too: damage there is met only once somebody reads that part of it. */
import { promises as fs, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { faultOfErrno } from "../../core/errors.js";
import { freeBytesAt } from "../../core/fs.js";
import { shellWord, sizeText } from "../../core/text.js";
import { UsageError } from "../config.js";
import type { JournalRead } from "../machine/journal-main.js";
import { journalTrouble, strangeIn } from "../machine/state-dir.js";
import { at, isThere, type View } from "../machine/view.js";
import { noScratch } from "../scratch.js";
import { type Finding, findingsOf } from "./finding.js";

const finding = findingsOf("space");
const program = fileURLToPath(new URL("../machine/journal-main.js", import.meta.url));
/** It is read twice, once from a slow card. */
const mostMs = 60_000;

export async function checkJournal(view: View, stateDir: string): Promise<Finding[]> {
  const path = join(stateDir, "journal.db");
  // What is no file is told elsewhere, and may never be read to an end.
  if (!isThere(view, path) || strangeIn(at(view, stateDir)) !== undefined) return [];
  const unseen = (why: string, ...todo: string[]) => [finding("unseen", path, `whether it is whole: ${why}`, ...todo)];
  let dir: string | undefined;
  try {
    // Its first bytes are looked at elsewhere.
    if (journalTrouble(at(view, path)) !== undefined) return [];
    const bytes = ["", "-wal"].reduce((sum, end) => sum + (statSync(at(view, `${path}${end}`), { throwIfNoEntry: false })?.size ?? 0), 0);
    if (bytes === 0) return [];
    if ((await freeBytesAt(tmpdir()).catch(noCopy)) < 2 * bytes)
      return unseen(`a copy of it (${sizeText(bytes)}) has no room in ${tmpdir()}`, "# set TMPDIR to a directory with room");
    dir = await fs.mkdtemp(join(tmpdir(), "filesync-journal-")).catch(noCopy);
    const ran = await view.run(process.execPath, [program, at(view, stateDir), dir], mostMs);
    if (ran.code !== 0) return unseen(ran.complaint);
    const { found, words } = JSON.parse(ran.out) as JournalRead;
    if (found === "whole") return [];
    if (found === "damaged" || found === "unreadable") return [finding("bad", path, `it is damaged (${words})`, ...anew(stateDir))];
    return unseen(words, ...(found === "denied" ? ["sudo filesync doctor"] : []));
  } catch (error) {
    if (error instanceof UsageError) return unseen(error.message);
    const fault = faultOfErrno(error, "");
    return unseen(fault.message.replace(/^: /, ""), ...(fault.kind === "denied" ? ["sudo filesync doctor"] : []));
  } finally {
    if (dir !== undefined) await fs.rm(dir, { recursive: true, force: true });
  }
}

function noCopy(error: unknown): never {
  throw noScratch("a copy of it is made in", error);
}

/** A daemon that meets it does the same by itself; until then what it tells, and does, may be wrong. */
function anew(stateDir: string): string[] {
  const path = (name: string) => shellWord(join(stateDir, name));
  return [
    "sudo systemctl stop filesync",
    `sudo mv ${path("journal.db")} ${path("journal.damaged-0.db")}; sudo rm -f ${path("journal.db-wal")}`,
    "sudo systemctl start filesync   # it is made anew from receipts.jsonl, the spool, the sources and the targets",
    "# the card may fail: sudo dmesg | grep -iE 'mmc|ext4|i/o error' | tail",
  ];
}
