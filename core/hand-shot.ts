/**
 * A single shot by hand: one request. That it goes out whole is noted durably before its last chunk, in a file of its own below the state directory,
 * until the answer is known. So a second `put` of the same bytes, also after a kill, says that the first is in doubt, and sends them
 * only where a person decided that (`force`).
 */
import { promises as fs } from "node:fs";
import { dirname, join } from "node:path";
import { ControlError } from "./control.js";
import { codeOf, Fault, faultOfErrno, isFault, throwIfAborted } from "./errors.js";
import { makeDirDurable, removeFile, writeDurable } from "./fs.js";
import { noteId, receiptOf } from "./hand-names.js";
import type { Put, PutHands, Putting } from "./hand-put.js";
import type { Lane } from "./lane.js";
import type { Memo } from "./plugin.js";
import { readableOf } from "./reading.js";
import { reasonOf } from "./retry.js";
import { dateText } from "./route.js";
import { heldBack, recordOf, Shot, type Sending } from "./single-shot.js";

/** The notes of single shots by hand, of one state directory. */
export function notesIn(stateDir: string): string {
  return join(stateDir, "hand");
}

interface Noted extends Sending {
  /** What the plugin kept of it: the answer, once it came. */
  readonly memo: Readonly<Record<string, unknown>>;
}

/** Throws ControlError "not for this target", Fault "indoubt" with what a person can do. */
export async function shoot(notes: PutHands["notes"], lane: Lane, work: Putting): Promise<Put> {
  const { target, given, exchange } = work;
  const { at, digest, size, force } = given;
  const { signal } = exchange;
  if (typeof notes === "string") throw new ControlError(`nothing is put on ${lane.name}: ${notes}`);
  const note = new Note(join(notes.dir, `${noteId(`${lane.name}\0${digest}`)}.json`));
  const before = await note.read();
  const sentBefore = before === undefined ? {} : { sentBefore: new Date(before.atMs).toISOString() };
  if (before !== undefined) {
    const found = (await target.lookup?.(work.upload({ memo: note.memo }), signal)) ?? "unknown";
    if (typeof found === "object") {
      await note.write(undefined);
      return { receipt: found, replaced: false, ...sentBefore };
    }
    if (found === "unknown" && !force)
      throw new Fault(
        "indoubt",
        `${at} was sent whole${before.trusted ? ` at ${dateText(before.atMs)}` : ""}, and the answer was lost; whether it arrived cannot be known: look there; --force sends it again`,
      );
  }
  const shot = new Shot({
    seal: () => work.unchanged(),
    note: () => note.write(recordOf(before, lane.clock)),
    takeBack: () => note.write(before),
  });
  const plain = work.upload({ memo: note.memo });
  const chunks = (offset: number) => heldBack(plain.chunks(offset, signal), size - offset, shot.beforeLast);
  const upload = { ...plain, chunks, read: (offset: number) => readableOf(chunks(offset)) };
  try {
    const receipt = await shot.go(
      async () => {
        await work.write(upload, 0);
        throwIfAborted(signal);
      },
      () => target.commit(upload, signal),
    );
    await note.write(undefined);
    return { receipt: "occupied" in receipt ? receiptOf(at, receipt) : receipt, replaced: false, ...sentBefore };
  } catch (error) {
    if (isFault(error, "unwanted")) throw new ControlError(`${lane.name}: ${at} is not for this target: ${error.message}`);
    if (isFault(error, "indoubt"))
      throw new Fault(
        "indoubt",
        `${at} was sent whole, and the answer was lost (${reasonOf(error.cause)}); whether it arrived cannot be known: look there; --force sends it again`,
        { cause: error },
      );
    throw error;
  }
}

/** What is durable of it; nothing is written before it goes out whole. */
class Note {
  #noted: Sending | undefined;
  #kept: Record<string, unknown> = {};

  constructor(readonly path: string) {}

  readonly memo: Memo = {
    get: (key) => this.#kept[key],
    set: async (key, value) => {
      this.#kept = { ...this.#kept, [key]: value };
      if (this.#noted !== undefined) await this.write(this.#noted);
    },
  };

  async read(): Promise<Sending | undefined> {
    const text = await fs.readFile(this.path, "utf8").catch((error: unknown) => {
      if (codeOf(error) === "ENOENT") return undefined;
      throw error;
    });
    if (text === undefined) return undefined;
    const { memo, ...sending } = JSON.parse(text) as Noted;
    this.#kept = { ...memo };
    this.#noted = sending;
    return sending;
  }

  /** `undefined`: nothing of it is in doubt. */
  async write(sending: Sending | undefined): Promise<void> {
    this.#noted = sending;
    if (sending === undefined) return removeFile(this.path);
    const noted: Noted = { ...sending, memo: this.#kept };
    try {
      await makeDirDurable(dirname(this.path), 0o750);
      await writeDurable(this.path, `${JSON.stringify(noted)}\n`, 0o600);
    } catch (error) {
      throw faultOfErrno(error, `cannot note in ${this.path} that it goes out`);
    }
  }
}
