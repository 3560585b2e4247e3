/**
 * `put` by hand, as a delivery goes: a partial name, verified, published, never over another file unless `force`; or one request, where the target is a
 * single shot (`hand-shot.ts`). The bytes come from the one who asks; what a target takes only by its path is copied to the spool first, unless
 * the one who asks is this process, which gives the path of the file itself.
 */
import { createReadStream, promises as fs } from "node:fs";
import { join } from "node:path";
import { firstValueFrom, fromEvent, merge, type Observable } from "./rxjs.js";
import { alone } from "./alone.js";
import { ControlError, type ControlRequest, type Exchange } from "./control.js";
import { Fault, faultOfErrno, isFault, throwIfAborted } from "./errors.js";
import { goesOnAt } from "./go-on.js";
import { patienceMs } from "./hand-get.js";
import { HandMemo } from "./hand-memo.js";
import { destination, noteId, plainFile, receiptOf, textOf, treeOf, withheldText } from "./hand-names.js";
import { shoot } from "./hand-shot.js";
import type { Lane } from "./lane.js";
import { isSafePath } from "./names.js";
import type { Digest, Occupant, Reading, Receipt, Target, Tree, Upload } from "./plugin.js";
import { readableOf, readingOf } from "./reading.js";
import { partialPath } from "./route.js";
import { endsWithin } from "./signals.js";
import type { HeldCopy } from "./space.js";
import { pacedBytes } from "./throttle.js";

/** What `put` needs of the program around it. */
export interface PutHands {
  readonly installation: string;
  /** Among whose puts the same file goes to the same device once at a time. */
  readonly among: string;
  /** Where it is noted how far an upload came, and a single shot before it is sent whole; a text says why it cannot be. */
  readonly notes: { readonly dir: string } | string;
  /** Deliveries that are on their way to a device now. */
  sending(device: string): number;
  /** Emits when one of them has ended. */
  readonly work$: Observable<unknown>;
  /** A copy in the spool, for as long as it is held. Throws Fault "full". */
  copy(size: number, bytes: AsyncIterable<Buffer>, signal: AbortSignal): Promise<HeldCopy>;
}

export interface Put {
  readonly receipt: Receipt;
  readonly replaced: boolean;
  /** When it was sent whole before, and the answer was lost. ISO 8601. */
  readonly sentBefore?: string;
}

/** The file as the one who asks has it. */
export interface Given {
  readonly at: string;
  readonly size: number;
  readonly digest: Digest;
  readonly modifiedMs?: number;
  readonly force: boolean;
}

export async function put(hands: PutHands, lane: Lane, request: ControlRequest, exchange: Exchange): Promise<Put> {
  const { signal } = exchange;
  const { target, tree } = lane.device;
  if (target === undefined)
    throw new ControlError(`nothing can be put on ${lane.name} by hand${withheldText(lane) ?? ` (${lane.config.type})`}`);
  const at = await destination(request, "path", textOf(request, "name"), tree, signal);
  if (!isSafePath(at)) throw new ControlError(`"${at}" leads out of the device's root`);
  const given: Given = {
    at,
    size: Number(request.size),
    digest: textOf(request, "digest") as Digest,
    ...(typeof request.modifiedMs === "number" ? { modifiedMs: request.modifiedMs } : {}),
    force: request.force === true,
  };
  const work = new Putting(hands, lane, target, given, exchange);
  // Two that write one partial would put their bytes behind each other's.
  const next = await alone(work.name, signal, () =>
    exchange.say({ waiting: `another put of the same file to ${lane.name}:${at} ends first` }),
  );
  try {
    const leave = await placeAt(hands, lane, exchange);
    try {
      await work.begin();
      return target.features.singleShot ? await shoot(hands.notes, lane, work) : await deliver(lane, work, tree);
    } finally {
      await work.end();
      leave();
    }
  } finally {
    next();
  }
}

/** One file that is put: its upload, and where its bytes come from. */
export class Putting {
  #path: string | undefined;
  #held: HeldCopy | undefined;
  #memo: HandMemo | undefined;
  #writes = false;
  readonly #id: string;
  /** What only one on this machine does at a time. */
  readonly name: string;

  constructor(
    readonly hands: PutHands,
    readonly lane: Lane,
    readonly target: Target,
    readonly given: Given,
    readonly exchange: Exchange,
  ) {
    const what = `hand\0${lane.name}\0${given.at}\0${given.digest}`;
    this.#id = noteId(what);
    this.name = `put-${noteId(`${what}\0${hands.among}`)}`;
  }

  /** After `begin`. */
  upload(more: Partial<Upload> = {}): Upload {
    const { at, size, digest, modifiedMs } = this.given;
    const { lane } = this;
    const id = this.#id;
    if (this.#memo === undefined) throw new Error("it has not begun");
    const chunks = (offset: number): Reading => readingOf(this.#paced(this.#bytes(offset), this.#writes));
    return {
      id,
      path: at,
      partialPath: partialPath(at, this.hands.installation, id),
      size,
      ...(modifiedMs === undefined ? {} : { modifiedMs }),
      expect: { kind: "absent" },
      sealed: true,
      digest,
      ...(this.#path === undefined ? {} : { localPath: this.#path }),
      ...(lane.throttle.rate === undefined ? {} : { maxRate: lane.throttle.rate }),
      memo: this.#memo,
      read: (offset) => readableOf(chunks(offset)),
      chunks,
      ...more,
    };
  }

  /** The target's `write`; of what is read here, who asked hears how far it is. */
  async write(upload: Upload, offset: number): Promise<void> {
    const { target, exchange } = this;
    const here = this.#path !== undefined;
    if (here) exchange.say({ begins: offset });
    this.#writes = true;
    try {
      await target.write(upload, offset, exchange.signal, (moved) => here && exchange.say({ moved }));
    } finally {
      this.#writes = false;
    }
  }

  /** Throws ControlError where the file that is put was changed since; a copy is as it was. */
  async unchanged(): Promise<void> {
    const { given } = this;
    if (this.#path === undefined || this.#held !== undefined) return;
    const { size, mtimeMs } = await fs.stat(this.#path).catch((error: unknown) => {
      throw faultOfErrno(error, `cannot read ${this.#path}`);
    });
    if (size !== given.size || Math.floor(mtimeMs) !== given.modifiedMs)
      throw new ControlError(`${this.#path} was written while it was read; the same command begins anew`);
  }

  async end(): Promise<void> {
    await this.#held?.drop();
  }

  /** It is there, or will never be: nothing is to be gone on with. */
  async over(): Promise<void> {
    await this.#memo?.drop();
  }

  /** The file has a path on this machine from here on, where the target needs one. */
  async begin(): Promise<void> {
    const { exchange, hands, given } = this;
    const { notes } = hands;
    this.#memo = await HandMemo.at(typeof notes === "string" ? undefined : join(notes.dir, `${this.#id}.part.json`));
    if (this.target.features.needs !== "sealedPath") return;
    this.#path = exchange.localPath;
    if (this.#path !== undefined) return;
    exchange.say({ copy: true });
    this.#held = await hands.copy(given.size, this.#unlessSilent(exchange.take()), exchange.signal);
    this.#path = this.#held.path;
    if (given.modifiedMs !== undefined) await fs.utimes(this.#path, new Date(), new Date(given.modifiedMs));
  }

  #bytes(offset: number): AsyncIterable<Buffer> {
    if (this.#path !== undefined) return createReadStream(this.#path, { start: offset });
    this.exchange.say({ offset, ...(this.#writes ? {} : { compares: true }) });
    return this.#unlessSilent(this.exchange.take());
  }

  async *#unlessSilent(sent: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    const { exchange, lane } = this;
    const each = sent[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = each.next();
        if (!(await endsWithin(next, patienceMs, lane.clock, exchange.signal)))
          throw new Fault("transient", `nothing of it was sent for ${patienceMs / 1000} s, and others wait; the same command goes on`);
        const given = await next;
        if (given.done === true) return;
        yield given.value;
      }
    } finally {
      // Not waited for: it may hang.
      each.return?.().catch(() => undefined);
    }
  }

  /** What is only compared with what is there does not go there. */
  async *#paced(bytes: AsyncIterable<Buffer>, goes: boolean): AsyncGenerator<Buffer> {
    const { lane, exchange } = this;
    yield* goes ? pacedBytes(bytes, lane.throttle, exchange.signal) : bytes;
  }
}

async function deliver(lane: Lane, work: Putting, tree: Tree | undefined): Promise<Put> {
  const { target, given, exchange } = work;
  const { at, size, digest, force } = given;
  const { signal } = exchange;
  const upload = work.upload();
  const taken = (there: Occupant) => {
    const how =
      there.size === size && there.digest === undefined
        ? `with the same size (${lane.name} cannot tell its content)`
        : "with another content";
    return new ControlError(`${lane.name}:${at} is there already, ${how}; --force replaces it`);
  };
  try {
    const there = await target.look?.(upload, signal);
    if (there !== undefined && there.digest === digest && there.size === size) {
      await work.over();
      return { receipt: receiptOf(at, there), replaced: false };
    }
    if (there !== undefined && !force) throw taken(there);
    const offset = await goesOnAt(target, upload, signal);
    if (offset < size || size === 0)
      await work.write(upload, offset).catch(async (error: unknown) => {
        // A program that is given its path may fail of that.
        if (!signal.aborted) await work.unchanged();
        throw error;
      });
    throwIfAborted(signal);
    await work.unchanged();
    let done = await target.commit(upload, signal);
    let replaced = false;
    if ("occupied" in done) {
      if (done.digest === digest && done.size === size) {
        await target.discard(upload, signal);
        await work.over();
        return { receipt: receiptOf(at, done), replaced };
      }
      if (!force) throw taken(done);
      done = await target.commit(await inPlaceOf(lane, work, tree, done), signal);
      replaced = true;
    }
    if ("occupied" in done) throw taken(done);
    await work.over();
    return { receipt: done, replaced };
  } catch (error) {
    // What is there is no beginning of it, or it will never be taken under this name: nothing is left there for a next try. Why is told, rather than that something could not be taken away.
    if (isFault(error, "rejected", "mismatch", "conflict")) {
      await target.discard(upload, signal).catch(() => undefined);
      await work.over();
    }
    if (isFault(error, "mismatch", "conflict"))
      throw new Fault(error.kind, `${error.message}; the same command sends it from its first byte`, { cause: error });
    throw error;
  }
}

/** The upload that takes the place of what is there: that is removed first, or where nothing can be, replaced. */
async function inPlaceOf(lane: Lane, work: Putting, tree: Tree | undefined, there: Occupant): Promise<Upload> {
  if (tree === undefined) {
    const digest = there.digest === undefined ? {} : { digest: there.digest };
    return work.upload({ expect: { kind: "replaces", size: there.size, ...digest } });
  }
  const { signal } = work.exchange;
  const old = await plainFile(treeOf(lane), lane, work.given.at, signal);
  await tree.remove(work.given.at, old, signal);
  return work.upload();
}

/** A place among the uploads; what gives it back. */
async function placeAt(hands: PutHands, lane: Lane, { say, signal }: Exchange): Promise<() => void> {
  const { enter, leave } = lane.invite();
  try {
    for (let told = false; !enter(hands.sending(lane.name)); told = true) {
      throwIfAborted(signal);
      if (!told) say({ waiting: `another transfer to ${lane.name} ends first` });
      // A delivery ends, or somebody else's put.
      await firstValueFrom(merge(hands.work$, lane.wake$, fromEvent(signal, "abort")));
    }
    throwIfAborted(signal);
    return leave;
  } catch (error) {
    leave();
    throw error;
  }
}
