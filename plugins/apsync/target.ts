/**
 * A station with a registry as a target. Files go into the slot of their flight: the registry gives it and says what it holds, rsync sends, the registry proves and publishes. The slot's name is noted
 * with each upload before it is used, so that whatever breaks, the same upload goes on in the same slot. One slot is open at a time: an upload of another flight waits for those of this one.
 */
import { Fault, isFault, throwIfAborted } from "../../core/errors.js";
import { nameIn } from "../../core/paths.js";
import type { Clock, Occupant, Receipt, Target, TargetFeatures, Upload } from "../../core/plugin.js";
import type { Link } from "../rsync/link.js";
import { mostBytesTogether, mostTogether } from "../rsync/rsync.js";
import { orUntaken, wholeFile } from "../rsync/target.js";
import { Turns } from "../../core/turns.js";
import { begunAnew, expectTaken, isUntaken } from "../../core/untaken.js";
import type { AskSlot, Slot } from "../registry/wire.js";
import type { Flights } from "./flights.js";
import { Problem, type RegistryClient } from "./client.js";

/** A commit that is worked at is asked for again after so long. */
const againMs = 1000;
/** An upload of which nothing was heard for so long keeps no other flight waiting. */
const forgottenMs = 30_000;
const lookMs = 100;
/** So many slots that have gone are remembered; of one more the station is asked again. */
const mostGone = 1000;

interface Noted {
  readonly id: string;
  readonly name: string;
}

export class ApsyncTarget implements Target {
  readonly features: TargetFeatures = {
    needs: "sealedPath",
    resume: true,
    atomic: true,
    singleShot: false,
    digests: ["sha256"],
    // rrsync serves one at a time.
    concurrency: 1,
    pipeline: { uploads: 2 * mostTogether, bytes: 2 * mostBytesTogether },
  };
  /** The one that is open, as far as is known. */
  #current: Slot | undefined;
  readonly #asking = new Turns();
  /** Those that the station has no more. */
  readonly #gone = new Set<string>();
  /** Uploads that have begun in it and not ended. */
  readonly #begun = new Set<string>();
  /** What runs in it now, and when that was last so. */
  #working = 0;
  #workedMs = -Infinity;

  constructor(
    readonly client: RegistryClient,
    readonly link: Link,
    readonly flights: Flights,
    readonly clock: Clock,
  ) {}

  async offset(upload: Upload, signal: AbortSignal): Promise<number> {
    const { partial, path, size } = named(upload);
    const held = await this.#inSlot(upload, signal, ({ id }) => this.client.announce(id, { partial, path, size }, signal));
    if (held.kind === "other") throw new Fault("conflict", "what is at the partial's name is no file");
    return isUntaken(upload) ? 0 : (held.size ?? 0);
  }

  async write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    const localPath = await wholeFile(upload);
    // In place rsync would write nothing where the right bytes seem to be.
    if (isUntaken(upload) && offset === 0) {
      await this.#drop(upload, signal);
      await begunAnew(upload);
    }
    const held = await this.offset(upload, signal);
    if (offset > 0 && held !== offset) throw new Fault("conflict", `the partial at the station has ${held} bytes, not ${offset}`);
    if (offset === upload.size && offset > 0) return;
    await this.#at(upload, async () => {
      const { rsync } = await this.link.login(signal);
      const { sent, ended } = rsync.send({ upload: inIncoming(upload), localPath, offset, signal, onBytes });
      // Also where nobody waits for it any more.
      ended.then((error) => orUntaken(upload, error)).catch(() => undefined);
      await sent.catch(async (error: unknown) => {
        throw await orUntaken(upload, error);
      });
    });
  }

  async commit(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant> {
    const { partial, path, size } = named(upload);
    const { digest, modifiedMs, expect } = upload;
    if (digest === undefined) throw new Fault("transient", "the file has no digest yet");
    expectTaken(upload);
    const file = { partial, path, size, digest, ...(modifiedMs === undefined ? {} : { modifiedMs }) };
    // What has the name in another slot is none of what this one began as.
    const replacedIn = ({ name }: Pick<Slot, "name">) =>
      expect.kind === "replaces" && (expect.archive ?? name) === name
        ? { replaces: { size: expect.size, ...(expect.digest === undefined ? {} : { digest: expect.digest }) } }
        : {};
    for (;;) {
      throwIfAborted(signal);
      const { slot, answer } = await this.#inSlot(upload, signal, async (slot) => ({
        slot,
        answer: (await this.client.commit(slot.id, [{ ...file, ...replacedIn(slot) }], signal)).files[0],
      }));
      switch (answer?.state) {
        case "published":
          this.#begun.delete(upload.id);
          return { path: `${slot.name}/${path}`, size, digest, proof: "digest", archive: slot.name };
        case "occupied":
          this.#begun.delete(upload.id);
          return {
            ...{ occupied: true, size: answer.size ?? 0 },
            ...(answer.digest?.startsWith("sha256:") === true ? { digest: answer.digest as `sha256:${string}`, proof: "digest" } : {}),
          };
        case "absent":
          throw new Fault("conflict", "the partial at the station has gone, and the file is not under its name");
        case "short":
          throw new Fault("transient", `the partial at the station has ${answer.size ?? 0} bytes, not ${size}`);
        case "long":
          throw new Fault("conflict", `the partial at the station has ${answer.size ?? 0} bytes, not ${size}`);
        case "mismatch":
          throw new Fault("mismatch", `the station holds ${answer.digest ?? "another content"}, not ${digest}`);
        default:
          await this.clock.sleep(againMs, signal);
      }
    }
  }

  async discard(upload: Upload, signal: AbortSignal): Promise<void> {
    if (notedIn(upload) === undefined) return;
    await this.#drop(upload, signal);
    await begunAnew(upload);
    this.#begun.delete(upload.id);
  }

  async #drop(upload: Upload, signal: AbortSignal): Promise<void> {
    await this.#inSlot(upload, signal, ({ id }) => this.client.discard(id, named(upload).partial, signal));
  }

  /** Does it in the slot of the upload; one that was closed is asked for again, once. */
  async #inSlot<T>(upload: Upload, signal: AbortSignal, work: (slot: Noted) => Promise<T>): Promise<T> {
    const before = notedIn(upload);
    const slot = before ?? (await this.#slotFor(upload, signal));
    try {
      return await this.#at(upload, () => work(slot));
    } catch (error) {
      if (!(isFault(error) && error instanceof Problem && error.code === "slot-closed")) throw error;
      const again = await this.#slotFor(upload, signal, slot.id);
      return this.#at(upload, () => work(again));
    }
  }

  /** Counts what runs in the slot. */
  async #at<T>(upload: Upload, work: () => Promise<T>): Promise<T> {
    this.#begun.add(upload.id);
    this.#working += 1;
    try {
      return await work();
    } catch (error) {
      this.#begun.delete(upload.id);
      throw error;
    } finally {
      this.#working -= 1;
      this.#workedMs = this.clock.monotonicMs();
    }
  }

  /** That of the upload's flight; `closed`: the one that it had is open no more. */
  #slotFor(upload: Upload, signal: AbortSignal, closed?: string): Promise<Noted> {
    return this.#asking.run(signal, async () => {
      if (this.#current?.id === closed) this.#current = undefined;
      const foundMs = upload.foundMs ?? this.clock.wallMs();
      // Where this upload was begun, else where its flight is.
      const known = new Set([notedIn(upload)?.id, (await this.flights.at(foundMs))?.id].filter((id) => id !== undefined));
      this.#current = await this.#firstOf([...known], signal);
      // Before it is used: what is sent to it after a power cut is looked for there.
      const gone = [...known].filter((id) => this.#gone.has(id));
      await this.flights.add(this.#current, foundMs, gone);
      return this.#note(upload, this.#current);
    });
  }

  /** The first of these that the station has, else a new one. */
  async #firstOf(known: readonly string[], signal: AbortSignal): Promise<Slot> {
    const wanted = known.filter((id) => !this.#gone.has(id));
    const last = wanted.at(-1);
    for (const id of wanted) {
      if (this.#current?.id === id) return this.#current;
      // Where that is gone another flight's may be given, but for the last.
      const given = await this.#ask({ slot: id, fresh: id === last }, signal);
      if (given.id === id) return given;
      this.#gone.add(id);
      for (const oldest of this.#gone) if (this.#gone.size > mostGone) this.#gone.delete(oldest);
      if (id === last) return given;
    }
    return this.#ask({ fresh: true }, signal);
  }

  async #ask(asked: AskSlot, signal: AbortSignal): Promise<Slot> {
    if (this.#current !== undefined) await this.#quiet(signal);
    return (this.#current = await this.client.slot(asked, signal));
  }

  /** Once no other upload is in the middle of the open slot: they would have to come back to it. */
  async #quiet(signal: AbortSignal): Promise<void> {
    const isBusy = () => this.#working > 0 || (this.#begun.size > 0 && this.clock.monotonicMs() - this.#workedMs < forgottenMs);
    while (isBusy()) await this.clock.sleep(lookMs, signal);
    this.#begun.clear();
  }

  async #note(upload: Upload, { id, name }: Slot): Promise<Noted> {
    const before = notedIn(upload);
    if (before?.id !== id || before.name !== name) await upload.memo.set("slot", { id, name });
    return { id, name };
  }
}

function notedIn({ memo }: Upload): Noted | undefined {
  const noted = memo.get("slot") as Partial<Noted> | undefined;
  return typeof noted?.id === "string" && typeof noted.name === "string" ? { id: noted.id, name: noted.name } : undefined;
}

/** All partials of a slot are side by side: their names are nobody else's. */
function named({ partialPath, path, size }: Upload): { readonly partial: string; readonly path: string; readonly size: number } {
  return { partial: nameIn(partialPath), path, size };
}

function inIncoming(upload: Upload): Upload {
  return {
    ...upload,
    partialPath: nameIn(upload.partialPath),
    read: (offset, signal) => upload.read(offset, signal),
    chunks: (offset, signal) => upload.chunks(offset, signal),
  };
}
