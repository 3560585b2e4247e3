/**
 * An SFTP server as a target: a hidden partial beside the final name, written by many requests at once, continued only where what is there
 * is known or proved to be ours, synced where the server can, verified, and given its name in one step.
 *
 * What was acknowledged in order is kept in memory, and in the upload's memo when a write breaks off; without either the end of the partial
 * is read back and compared, from where the memo says that it came while it was written. A server that loses what was there before a resume is remembered, and gets whole files only.
 */
import { Fault, isFault, orAborted, throwIfAborted } from "../../core/errors.js";
import type {
  Clock,
  Digest,
  Memo,
  Occupant,
  Part,
  PluginContext,
  Proof,
  Receipt,
  Stamp,
  Target,
  TargetFeatures,
  Upload,
} from "../../core/plugin.js";
import { isAlike, noDigest } from "../../core/remote.js";
import { isAbsent, isRefusal, Status } from "./faults.js";
import { ifRefused, isSameFile, makeDirsDurable, opened, orFull, publish } from "./publishing.js";
import type { Login } from "./login.js";
import type { SftpOptions } from "./options.js";
import { begunAnew, expectTaken, isUntaken, noteUntaken, seldom } from "../../core/untaken.js";
import { parentOf, wirePath } from "../../core/wire-path.js";
import type { Pool } from "./pool.js";
import { isBlank, provenPrefix, sampled } from "./prefix.js";
import { Open, type Attributes, type Session } from "./session.js";
import { largeBytes } from "./shell.js";
import { isOfMedium } from "./syncs.js";
import { readDigest, writeAll } from "./transfer.js";

interface Proved {
  readonly proof: Proof;
  readonly digest?: Digest;
}

/** What was written a moment ago. */
interface Written {
  /** As the server showed it when it closed the file. */
  readonly shown: Attributes;
  /** The time that it was given. */
  readonly modifiedMs: number | undefined;
}

/** What the server is told to digest of a partial while it still syncs that. */
interface Digesting {
  readonly session: Session;
  readonly digest: Promise<Digest | undefined>;
}

/** In an upload's memo: how many bytes were acknowledged in order when its write broke off. */
export const sureKey = "sure";
/** In an upload's memo: so many were acknowledged in order while it was written; by now perhaps more. */
const leastKey = "least";
/** In an upload's memo: where it was continued first, so the server may have lost what was before. An earlier program noted `true`. */
const resumedKey = "resumed";
/** In the device's memory: this server loses what was there. */
export const wholeOnlyKey = "wholeOnly";
/** So much is copied by the server in one request: until it is done the connection does nothing else. */
const copyBytes = 8 * 2 ** 20;
/** So often it is noted how far a write came: over a slow line what is read back after a kill takes no longer than that. */
const noteMs = 5000;
/** After a stop: so long what is under way may still be acknowledged. */
const graceMs = 1000;

export class SftpTarget implements Target {
  readonly #options: SftpOptions;
  readonly #pool: Pool;
  readonly #memory: Memo;
  readonly #clock: Clock;
  /** Of uploads that this process wrote or proved: bytes that are surely there, while the connection is that it was told by. */
  readonly #sure = new Map<string, { readonly bytes: number; readonly session: Session }>();
  /** Uploads whose bytes are on the server's medium, as far as it says so. */
  readonly #synced = new Set<string>();
  /** Uploads that get their name in one request, when nothing comes between. */
  readonly #written = new Map<string, Written>();
  /** Uploads all of whose bytes were acknowledged. */
  readonly #digesting = new Map<string, Digesting>();
  /** Uploads whose partial was proved as it is, before `commit`. */
  readonly #proved = new Map<string, Proved>();

  constructor(options: SftpOptions, pool: Pool, { memory, clock }: Pick<PluginContext, "memory" | "clock">) {
    this.#options = options;
    this.#pool = pool;
    this.#memory = memory;
    this.#clock = clock;
  }

  get features(): TargetFeatures {
    return {
      needs: "stream",
      resume: this.#memory.get(wholeOnlyKey) !== true,
      ...(this.#pool.copies ? { splices: "ranges" as const } : {}),
      atomic: true,
      tellsNaming: true,
      singleShot: false,
      // Before it was ever asked it may digest: so the first files, too, are looked for before they are sent.
      digests: this.#pool.digests ?? ["sha256"],
      concurrency: this.#options.concurrency,
      pipeline: { uploads: 16 * this.#options.concurrency, bytes: 12 * 2 ** 20 * this.#options.concurrency },
    };
  }

  /** Once it is known whether the server digests: core asks `features` that before it has a file published. */
  #with<T>(signal: AbortSignal, what: string, work: (login: Login) => Promise<T>): Promise<T> {
    return this.#pool.with(signal, what, async (login) => {
      await login.digester;
      return work(login);
    });
  }

  offset(upload: Upload, signal: AbortSignal): Promise<number> {
    return this.#with(signal, `cannot ask for the size of ${upload.partialPath}`, async ({ session }) => {
      const partial = partialOf(session, upload);
      const size = (await session.lstat(partial))?.size ?? 0;
      if (isUntaken(upload)) return 0;
      if (size === 0 || size > upload.size) return size;
      const whole = size === upload.size;
      const noted = numberOf(upload.memo.get(leastKey));
      // Nothing was noted of one whose write came to its end soon.
      if (whole && (noted === undefined || this.#synced.has(upload.id))) return size;
      if (!whole && !this.features.resume) return 0;
      const known = this.#sure.get(upload.id);
      const sure = (known?.session.closed === false ? known.bytes : undefined) ?? numberOf(upload.memo.get(sureKey));
      if (sure !== undefined && sure <= size) return this.#isSure(upload, session, sure);
      const least = noted !== undefined && noted <= size ? noted : 0;
      const proving = opened(session, partial, Open.read, (handle) => provenPrefix(session, handle, upload, size, least, signal));
      const proven = await proving.catch((error: unknown) => {
        // What is whole there may be the last copy.
        if (whole && isFault(error, "missing", "changed")) return size;
        throw error;
      });
      if (proven < size && !this.features.resume) return 0;
      return this.#isSure(upload, session, proven);
    });
  }

  #isSure(upload: Upload, session: Session, bytes: number): number {
    this.#sure.set(upload.id, { bytes, session });
    return bytes;
  }

  async write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    const lease = await this.#pool.lease(signal);
    const what = `cannot write ${upload.path}`;
    try {
      const digester = await orAborted(lease.login.digester, signal);
      if (this.#options.verify === "digest" && digester === undefined) throw noDigest();
      await this.#pool.run(what, () => this.#append(lease.login, upload, offset, signal, onBytes));
    } catch (error) {
      throw seldom(upload, error);
    } finally {
      lease.end();
    }
  }

  async #append(login: Login, upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    const { session } = login;
    const partial = partialOf(session, upload);
    throwIfAborted(signal);
    this.#unproved(upload);
    const handle = await this.#openAt(session, upload, partial, offset, signal);
    const progress = { sure: offset };
    const reading = upload.chunks(offset, signal);
    let [notedMs, noting] = [this.#clock.monotonicMs(), Promise.resolve()];
    const moved = (n: number): void => {
      onBytes(n);
      // What is answered behind a stop comes beside what is written next.
      if (progress.sure + n === upload.size && !signal.aborted) this.#digestEarly(login, upload, partial);
      const now = this.#clock.monotonicMs();
      if (now - notedMs < noteMs || progress.sure === offset || signal.aborted) return;
      notedMs = now;
      const { sure } = progress;
      // Without it more is read back.
      noting = noting.then(() => upload.memo.set(leastKey, sure)).catch(() => undefined);
    };
    const writing = this.#fill(session, handle, upload, partial, (end) => writeAll(session, handle, reading, progress, moved, end));
    try {
      await orStopped(writing, signal).finally(() => noting);
      if (progress.sure < upload.size) throw new Fault("transient", `the bytes ended at ${progress.sure} of ${upload.size}`);
      this.#isSure(upload, session, progress.sure);
      this.#synced.add(upload.id);
    } catch (error) {
      // What was digested may not stay as it was.
      this.#digesting.delete(upload.id);
      await this.#noteBroken(session, upload, progress.sure, signal);
      if (
        offset > 0 &&
        progress.sure === offset &&
        isRefusal(error, Status.failure, Status.unsupported) &&
        /seek|offset|append/i.test(error.text)
      )
        await this.#wholeOnly(`takes no file that is continued ("${error.text}")`);
      throw error;
    } finally {
      reading.close();
    }
  }

  /** All of it is there, and the server syncs: of a large file that takes as long as reading it, which another process of it does. */
  #digestEarly({ session, digester }: Login, { id, size }: Upload, partial: Buffer): void {
    const { verify } = this.#options;
    // Small ones share a program, and are synced soon.
    if (size <= largeBytes || verify === "size" || verify === "readback") return;
    // What it cannot tell now is asked once more.
    const digest = digester.then((it) => it?.digest(partial, size)).catch(() => undefined);
    this.#digesting.set(id, { session, digest });
  }

  /** Where the connection broke it may be the server's power that went: what it acknowledged is looked at before it is continued. */
  async #noteBroken(session: Session, upload: Upload, sure: number, signal: AbortSignal): Promise<void> {
    const lost = session.closed && !signal.aborted;
    if (lost) this.#sure.delete(upload.id);
    else this.#isSure(upload, session, sure);
    if (sure > 0 && !isUntaken(upload)) await upload.memo.set(lost ? leastKey : sureKey, sure);
  }

  /** Writes, syncs and closes: some servers write only then, and what fails then was not written. */
  async #fill(
    session: Session,
    handle: Buffer,
    upload: Upload,
    partial: Buffer,
    write: (end: () => Promise<unknown>) => Promise<void>,
  ): Promise<void> {
    let closed = false;
    let written: Written | undefined;
    try {
      await write(async () => {
        closed = true;
        const { modifiedMs, size } = upload;
        const gives = session.gives(parentOf(partial));
        // A server does what is asked of one file in the order of asking. What it refuses here is asked by the file's name.
        const [timed, , shown] = await Promise.all([
          gives && modifiedMs !== undefined ? session.setTimeOf(handle, modifiedMs).then(() => true, ifRefused) : true,
          this.#sync(session, upload, handle),
          gives ? session.fstat(handle).catch(ifRefused) : undefined,
          session.close(handle),
        ]);
        if (timed === true && shown?.size === size) written = { shown, modifiedMs };
      });
      if (written !== undefined) this.#written.set(upload.id, written);
    } catch (error) {
      const why = await orFull(session, partial, error);
      if (!closed) await session.close(handle).catch(() => undefined);
      throw why;
    }
  }

  async #sync(session: Session, upload: Upload, handle: Buffer): Promise<void> {
    try {
      await session.sync(handle, upload.size);
    } catch (error) {
      // OpenSSH's word for EINVAL: a file system that syncs no files.
      if (isRefusal(error, Status.badMessage)) return;
      if (isOfMedium(error)) await noteUntaken(upload);
      throw error;
    }
  }

  /** Throws "conflict" where the partial is not so long as it should be, or not what it seems to be. */
  async #openAt(session: Session, upload: Upload, partial: Buffer, offset: number, signal: AbortSignal): Promise<Buffer> {
    await this.#noteBegins(upload, offset);
    if (offset === 0) {
      const begun = await orAborted(this.#begin(session, partial), signal);
      await begunAnew(upload);
      return begun;
    }
    expectTaken(upload);
    const held = (await orAborted(session.lstat(partial), signal))?.size ?? 0;
    const known = this.#sure.get(upload.id)?.bytes;
    if (held !== offset && !(held > offset && known === offset))
      throw new Fault("conflict", `the partial at the server has ${held} bytes, not ${offset}`);
    if (offset < upload.size && upload.memo.get(resumedKey) === undefined) await upload.memo.set(resumedKey, offset);
    const handle = await orAborted(session.open(partial, Open.write), signal);
    // What lies behind was not acknowledged in order. A server that cannot cut it off gets it written over.
    if (held > offset) await session.truncate(handle, offset).catch(() => undefined);
    return handle;
  }

  /** What was noted is true of what was written then: once more is written it is the least, and what is begun before it has nothing of it. */
  async #noteBegins({ memo }: Upload, offset: number): Promise<void> {
    const least = numberOf(memo.get(sureKey)) ?? numberOf(memo.get(leastKey)) ?? 0;
    if (least > offset) await memo.set(leastKey, undefined);
    else if (memo.get(sureKey) !== undefined) await memo.set(leastKey, least);
    if (memo.get(sureKey) !== undefined) await memo.set(sureKey, undefined);
  }

  async #begin(session: Session, partial: Buffer): Promise<Buffer> {
    const anew = Open.write | Open.create | Open.truncate;
    try {
      return await session.open(partial, anew);
    } catch (error) {
      if (!isAbsent(error) && !isRefusal(error, Status.failure)) throw await orFull(session, session.root, error);
      try {
        await makeDirsDurable(session, parentOf(partial));
        return await session.open(partial, anew);
      } catch (second) {
        throw await orFull(session, session.root, second);
      }
    }
  }

  splice(upload: Upload, from: Part, at: number, signal: AbortSignal): Promise<void> {
    return this.#with(signal, `cannot copy ${from.path} at the server`, async ({ session }) => {
      const partial = partialOf(session, upload);
      await opened(session, wirePath(session.root, from.path), Open.read, async (source) => {
        const { kind, size = 0 } = await session.fstat(source);
        if (kind !== "file" || size < from.offset + from.length) throw new Fault("changed", `${from.path} has ${size} bytes there`);
        this.#unproved(upload);
        const handle = await this.#openAt(session, upload, partial, at, signal);
        try {
          for (let done = 0; done < from.length;) {
            throwIfAborted(signal);
            const length = Math.min(copyBytes, from.length - done);
            await session.copy(source, from.offset + done, length, handle, at + done);
            done += length;
            // A server that says yes and copies less, or nothing.
            const held = (await session.fstat(handle)).size ?? 0;
            if (held !== at + done)
              throw new Fault("rejected", `the server says that it copied, and the partial has ${held} bytes, not ${at + done}`);
            this.#isSure(upload, session, held);
          }
        } catch (error) {
          throw await orFull(session, partial, error);
        } finally {
          await session.close(handle).catch(() => undefined);
        }
      });
    });
  }

  prove(upload: Upload, signal: AbortSignal): Promise<void> {
    return this.#with(signal, `cannot prove ${upload.path}`, async (login) => {
      const partial = partialOf(login.session, upload);
      const there = await login.session.lstat(partial);
      if (there === undefined) throw new Fault("conflict", "the partial at the server has gone");
      this.#proved.set(upload.id, await this.#provenWhole(login, upload, partial, there, signal));
    });
  }

  /** As it is there: of the right size, on the medium, and proved. */
  async #provenWhole(login: Login, upload: Upload, partial: Buffer, { size = -1 }: Attributes, signal: AbortSignal): Promise<Proved> {
    if (size !== upload.size)
      throw new Fault(size < upload.size ? "transient" : "conflict", `the partial at the server has ${size} bytes, not ${upload.size}`);
    expectTaken(upload);
    const { session } = login;
    if (!this.#synced.has(upload.id)) await opened(session, partial, Open.write, (handle) => this.#sync(session, upload, handle));
    this.#synced.add(upload.id);
    return this.#proved.get(upload.id) ?? this.#prove(login, upload, partial, signal);
  }

  /** Its partial is about to be written to, or cut off. */
  #unproved({ id }: Upload): void {
    this.#written.delete(id);
    this.#synced.delete(id);
    this.#digesting.delete(id);
    this.#proved.delete(id);
  }

  commit(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant> {
    return this.#with(signal, `cannot publish ${upload.path}`, async (login) => {
      const { session } = login;
      const [partial, name] = [partialOf(session, upload), wirePath(session.root, upload.path)];
      // A link tells whether the name is taken.
      const links = upload.expect.kind === "absent" && session.links;
      const given = links ? await this.#given(login, upload, partial, name, signal) : undefined;
      if (given !== undefined) return this.#forget(upload, given);
      const [there, seen] = await Promise.all([
        session.lstat(partial),
        links ? undefined : session.lstat(name),
        // A time that cannot be set changes nothing else.
        upload.modifiedMs === undefined ? undefined : session.setTime(partial, upload.modifiedMs).catch(ifRefused),
      ]);
      if (there === undefined)
        return this.#published(login, upload, name, links ? await session.lstat(name) : seen, upload.naming !== undefined);
      const proved = await this.#provenWhole(login, upload, partial, there, signal);
      const receipt = { path: upload.path, size: upload.size, ...proved };
      throwIfAborted(signal);
      upload.naming?.();
      if (links) {
        const shown = await session.link(partial, name).catch(ifRefused);
        if (shown !== undefined) return this.#named(session, upload, name, { ...receipt, ...shownBy(shown) });
      }
      const other = links ? await session.lstat(name) : seen;
      if (other !== undefined) {
        if (await isSameFile(session, partial, name, there, other, upload.modifiedMs)) {
          await session.endGiving(partial, signal);
          if ((await session.lstat(name)) === undefined) throw new Fault("transient", "the server took the name away again");
          return this.#named(session, upload, name, receipt);
        }
        const taken = await this.#taken(login, upload, partial, name, other);
        if (!("occupied" in taken) || !(await this.#replaceable(login, upload, name, taken))) return taken;
        await session.replace(partial, name);
        return this.#named(session, upload, name, receipt);
      }
      if (!(await publish(session, partial, name))) {
        const now = await session.lstat(name);
        if (now === undefined) throw new Fault("transient", "the server gave the file no name");
        return this.#taken(login, upload, partial, name, now);
      }
      return this.#named(session, upload, name, receipt);
    });
  }

  async #named(session: Session, upload: Upload, name: Buffer, receipt: Receipt): Promise<Receipt> {
    await session.syncs.name(name);
    return this.#forget(upload, receipt);
  }

  /** What was written a moment ago gets its name in one request; undefined where it is to be looked at first, and nothing is changed then. */
  async #given(login: Login, upload: Upload, partial: Buffer, name: Buffer, signal: AbortSignal): Promise<Receipt | undefined> {
    const { session } = login;
    const written = this.#written.get(upload.id);
    if (written === undefined || written.modifiedMs !== upload.modifiedMs || !session.gives(parentOf(partial))) return undefined;
    // Only once: what went wrong is looked at.
    this.#written.delete(upload.id);
    const proved = await this.#provenWhole(login, upload, partial, written.shown, signal);
    throwIfAborted(signal);
    upload.naming?.();
    const giving = session.give(partial, name).then(() => true, ifRefused);
    // Both go out together.
    const [given, synced] = await Promise.all([giving, session.syncs.dir(parentOf(name))]);
    if (given !== true) return undefined;
    if (!synced) await session.syncs.found(name, upload.size);
    return { path: upload.path, size: upload.size, ...proved, ...shownBy(written.shown) };
  }

  discard(upload: Upload, signal: AbortSignal): Promise<void> {
    this.#forget(upload, undefined);
    return this.#with(signal, `cannot discard ${upload.partialPath}`, async ({ session }) => {
      await session.removeDurable(partialOf(session, upload));
      // Nothing of what was noted is true of the next one.
      for (const key of [sureKey, leastKey, resumedKey]) if (upload.memo.get(key) !== undefined) await upload.memo.set(key, undefined);
      await begunAnew(upload);
    });
  }

  look(upload: Upload, signal: AbortSignal): Promise<Occupant | undefined> {
    return this.#with(signal, `cannot look at ${upload.path}`, async (login) => {
      const name = wirePath(login.session.root, upload.path);
      const there = await login.session.lstat(name);
      return there === undefined ? undefined : this.#occupant(login, upload, name, there);
    });
  }

  #forget<T>(upload: Upload, result: T): T {
    this.#sure.delete(upload.id);
    this.#unproved(upload);
    return result;
  }

  /** The partial has gone: then it was published before, or it was never whole. */
  async #published(login: Login, upload: Upload, name: Buffer, there: Attributes | undefined, unnamed = false): Promise<Receipt> {
    if (there?.kind === "file" && there.size === upload.size) {
      const { digest } = upload;
      const found = digest === undefined ? undefined : await this.#digestOf(login, name, upload.size);
      const receipt = { path: upload.path, size: upload.size, ...shownBy(there), ...(found ?? { proof: "size" as const }) };
      if (found === undefined ? !unnamed && !isAlike(upload) : found.digest === digest) {
        await login.session.syncs.found(name, upload.size);
        return receipt;
      }
    }
    throw new Fault("conflict", "the partial at the server has gone, and the file is not under its name");
  }

  /** Verifies the partial, as configured. Throws "mismatch". */
  async #prove(login: Login, upload: Upload, partial: Buffer, signal: AbortSignal): Promise<Proved> {
    const { verify } = this.#options;
    if (verify === "size" || upload.digest === undefined) return { proof: "size" };
    const early = this.#digesting.get(upload.id);
    // Only for who asks right behind the write.
    this.#digesting.delete(upload.id);
    const digest = early?.session.closed === false ? await early.digest : undefined;
    // A server may show its programs only what was closed.
    const found =
      digest === upload.digest ? { digest, proof: "digest" as const } : await this.#digestOf(login, partial, upload.size, upload.spliced);
    if (found === undefined) {
      if (verify === "digest") throw noDigest();
      await this.#expectKept(login.session, upload, partial, signal);
      return { proof: "size" };
    }
    if (found.digest === upload.digest) return found;
    // What was spliced may always have been another content.
    if (upload.spliced !== true) await this.#expectKept(login.session, upload, partial, signal);
    throw new Fault("mismatch", `the server holds ${found.digest}, not ${upload.digest}`);
  }

  /**
   * Of a file that was continued: whether its beginning is still what it was. Throws "conflict"; where nothing is left of it (`rclone serve sftp` has zeros there) it is wiser next time. What lost some of it
   * did so once, with its power.
   */
  async #expectKept(session: Session, upload: Upload, partial: Buffer, signal: AbortSignal): Promise<void> {
    const resumed = upload.memo.get(resumedKey);
    if (resumed === undefined) return;
    const begun = numberOf(resumed);
    const [kept, blank] = await opened(session, partial, Open.read, async (handle) => {
      if (await sampled(session, handle, upload, upload.size, signal)) return [true, false];
      return [false, begun !== undefined && (await isBlank(session, handle, begun, upload.partialPath))];
    });
    if (kept) return;
    if (blank) await this.#wholeOnly("loses the beginning of a file that is continued");
    throw new Fault("conflict", "what the server has of the file is not all that was sent");
  }

  /** Throws "conflict": the partial is begun anew. */
  async #wholeOnly(why: string): Promise<never> {
    await this.#memory.set(wholeOnlyKey, true);
    throw new Fault("conflict", `this server ${why}: files are sent to it whole from now on`);
  }

  async #digestOf(
    { session, digester }: Login,
    path: Buffer,
    size: number,
    spliced?: true,
  ): Promise<{ digest: Digest; proof: "digest" | "readback" } | undefined> {
    const { verify } = this.#options;
    if (verify === "size") return undefined;
    const digests = await digester;
    const digest = verify === "readback" ? undefined : await digests?.digest(path, size);
    if (digest !== undefined) return { digest, proof: "digest" };
    // A server that digests, but not this name, is read; so is what was not sent.
    if (verify !== "readback" && digests === undefined && (verify === "digest" || spliced !== true)) return undefined;
    return {
      digest: await opened(session, path, Open.read, (handle) => readDigest(session, handle, size, "the file")),
      proof: "readback",
    };
  }

  /** By another, or by this very file: a request whose answer was lost may be done at any time. */
  async #taken(login: Login, upload: Upload, partial: Buffer, name: Buffer, there: Attributes): Promise<Receipt | Occupant> {
    if ((await login.session.lstat(partial)) === undefined) return this.#forget(upload, await this.#published(login, upload, name, there));
    return this.#occupant(login, upload, name, there);
  }

  async #occupant(login: Login, upload: Upload, name: Buffer, { kind, size }: Attributes): Promise<Occupant> {
    const alike = kind === "file" && size === upload.size;
    const found = alike ? await this.#digestOf(login, name, size) : undefined;
    // It may be ours, by a try that was killed.
    if (alike && (found === undefined || upload.digest === undefined || found.digest === upload.digest))
      await login.session.syncs.found(name, upload.size);
    return { occupied: true, size: size ?? 0, ...found };
  }

  /** Whether what is there is our own earlier version, as far as the server can tell. */
  async #replaceable(login: Login, upload: Upload, name: Buffer, there: Occupant): Promise<boolean> {
    const { expect } = upload;
    if (expect.kind !== "replaces" || expect.size !== there.size) return false;
    if (expect.digest === undefined) return true;
    const found = there.digest ?? (await this.#digestOf(login, name, there.size))?.digest;
    return found === undefined || found === expect.digest;
  }
}

function shownBy({ kind, size, modifiedMs }: Attributes): { shown?: Stamp } {
  return kind !== "file" || size === undefined || modifiedMs === undefined ? {} : { shown: { size, modifiedMs } };
}

function partialOf(session: Session, upload: Upload): Buffer {
  wirePath(session.root, upload.path);
  return wirePath(session.root, upload.partialPath);
}

function numberOf(value: unknown): number | undefined {
  return typeof value === "number" && Number.isSafeInteger(value) && value > 0 ? value : undefined;
}

/** What `work` ends with; after a stop it has a moment to end, so that what was acknowledged counts. */
async function orStopped(work: Promise<void>, signal: AbortSignal): Promise<void> {
  try {
    await orAborted(work, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, graceMs)));
    await Promise.race([work.catch(() => undefined), late]);
    clearTimeout(timer);
    throw isFault(error) ? error : new Fault("aborted", "stopped", { cause: error });
  }
}
