/**
 * Uploads to a partial beside the final name, which is then moved: continued by a PUT with Content-Range where the server is known to take it, else sent
 * whole. Whatever is answered, the size is asked afterwards.
 */
import { abortedFault, Fault, isFault } from "../../core/errors.js";
import { parentOf } from "../../core/paths.js";
import type { Occupant, Part, Receipt, Upload } from "../../core/plugin.js";
import { comparedBytes, isOwn } from "../../core/remote.js";
import { isUnanswered, statusOf } from "./answers.js";
import { Bodies } from "./body.js";
import type { WebdavOptions } from "./options.js";
import { timeHeader, type Proved, type Publisher } from "./publish.js";
import { lockedMs, type DavServer, type Seen } from "./server.js";
import type { Ways } from "./ways.js";

/** So little goes out in one request also where it could be continued: it costs one answer less. */
const smallBytes = 65_536;
/** From here on a refusal may come before the bytes have gone out. */
const asksFrom = 2 ** 20;
/** A partial that has not changed for so long has all that was sent to it; longer where a write broke off just now. */
const partStillMs = 200;
const brokenStillMs = 1000;
const lookMs = 100;
const maxRemovals = 5;
const mostStuck = 3;

/** Nothing of it was kept: a write that broke off is still at work there. */
class Locked extends Fault {}

export class Files {
  readonly #server: DavServer;
  readonly #ways: Ways;
  readonly #publisher: Publisher;
  readonly #options: WebdavOptions;
  /** Uploads whose last write broke off: the server may still be at work with what it was sent. */
  readonly #broken = new Set<string>();
  /** Uploads whose last write came to its end, or was ended by us or by a word of the server, and those that were looked at since: what is there of them is theirs. */
  readonly #known = new Set<string>();
  /** Uploads of whose partial the end is another's: it is no sign that what goes there next has arrived. */
  readonly #wrong = new Set<string>();
  /** Uploads of which the last writes, so many, broke off at one offset: of those the server keeps nothing. */
  readonly #stuck = new Map<string, { readonly offset: number; readonly times: number }>();
  /** Directories of partials that a server which keeps only whole files refused to write. */
  readonly #refusing = new Set<string>();
  /** Uploads whose partial was proved as it is, before `commit`. */
  readonly #proved = new Map<string, Proved>();

  constructor(options: WebdavOptions, ways: Ways, publisher: Publisher) {
    this.#options = options;
    this.#server = publisher.server;
    this.#ways = ways;
    this.#publisher = publisher;
  }

  async offset(upload: Upload, signal: AbortSignal): Promise<number> {
    const what = `cannot ask for the size of ${upload.partialPath}`;
    const { clock } = this.#server;
    const look = () => this.#server.look(this.#server.at(upload.partialPath), signal, what);
    let size = (await look())?.size;
    if (size === undefined || size > upload.size) return size ?? 0;
    if (size === upload.size) return size > 0 ? this.#held(upload, size, what, signal) : size;
    // A server that keeps half of a PUT that broke off does not continue it.
    if (this.#ways.way !== "ranges" && (size === 0 || !(await this.#ways.ranges(upload, signal)))) return 0;
    // What was on its way when a write broke off may still be coming in.
    const stillMs = this.#broken.delete(upload.id) ? brokenStillMs : partStillMs;
    for (let sinceMs = clock.monotonicMs(); clock.monotonicMs() - sinceMs < stillMs;) {
      await clock.sleep(lookMs, signal);
      const now = (await look())?.size ?? 0;
      if (now !== size) sinceMs = clock.monotonicMs();
      size = now;
    }
    return size === 0 ? 0 : this.#held(upload, size, what, signal);
  }

  /** So much as is there, or 0 where its end is not that of the file: a server that lost its power may have lost of what it had taken, and keep its size. */
  async #held(upload: Upload, size: number, what: string, signal: AbortSignal): Promise<number> {
    if (!this.#known.has(upload.id) && !(await this.#isOurs(upload, size, what, signal))) {
      this.#wrong.add(upload.id);
      return 0;
    }
    this.#known.add(upload.id);
    return size;
  }

  async #isOurs(upload: Upload, size: number, what: string, signal: AbortSignal): Promise<boolean> {
    const from = Math.max(0, size - comparedBytes);
    const theirs = await this.#server.part(this.#server.at(upload.partialPath), from, size, what, signal);
    return theirs === undefined || isOwn(upload, from, theirs, signal);
  }

  async write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    const server = this.#server;
    const at = server.at(upload.partialPath);
    const what = `cannot write ${upload.path}`;
    server.at(upload.path);
    if (offset > 0) {
      const held = (await server.look(at, signal, what))?.size ?? 0;
      if (held !== offset) throw new Fault("conflict", `${what}: the partial has ${held} bytes, not ${offset}`);
      if (offset === upload.size) return;
    }
    this.#broken.delete(upload.id);
    this.#known.delete(upload.id);
    this.#proved.delete(upload.id);
    await this.#ways.tidy(signal);
    if (this.#wrong.has(upload.id)) await this.discard(upload, signal);
    await server.ensureDirOf(upload.partialPath, signal);
    const ranges = upload.size > smallBytes && (await this.#ways.ranges(upload, signal));
    if (offset > 0 && !ranges) throw new Fault("conflict", `${what}: this server keeps only whole files`);
    // A plain PUT that breaks off leaves nothing at Apache; what is put into a file that is there stays.
    if (ranges && offset === 0) await this.#put(upload, what, signal, "");
    // Who refuses may read all of it before (nginx, by a directory's rights: 500). Nothing is sent there until one of no bytes is taken.
    const dir = parentOf(upload.partialPath);
    const asks = !ranges && upload.size > smallBytes;
    if (asks && this.#refusing.has(dir)) await this.#put(upload, what, signal, "");
    for (const waitMs of [...lockedMs, undefined]) {
      const bodies = upload.size === 0 ? undefined : new Bodies(upload, offset, signal, onBytes);
      try {
        await this.#put(upload, what, signal, bodies?.next(upload.size - offset) ?? "", ranges ? offset : undefined);
        break;
      } catch (error) {
        if (ranges || statusOf(error) === undefined) this.#broken.add(upload.id);
        if (!ranges && statusOf(error) === undefined) this.#ways.doubt();
        if (ranges && bodies?.failed !== true && isFault(error, "transient") && (statusOf(error) ?? 500) >= 500)
          await this.#noteStuck(upload, offset);
        if (bodies?.failed === true || isOwnStop(signal) || (statusOf(error) !== undefined && !isUnanswered(error)))
          this.#known.add(upload.id);
        if (asks && statusOf(error) !== undefined) this.#refusing.add(dir);
        // Much of it would go out in vain each time.
        if (!(error instanceof Locked) || waitMs === undefined || (bodies?.given ?? 0) > asksFrom) throw error;
        await server.clock.sleep(waitMs, signal);
      } finally {
        bodies?.close();
      }
    }
    this.#refusing.delete(dir);
    this.#stuck.delete(upload.id);
    if (ranges) await this.#expectContinued(upload, offset, await server.look(at, signal, what), signal);
    this.#known.add(upload.id);
  }

  /** Another server, or a proxy, may be there now, which breaks at ranges: whether it continues files is tried out again. */
  async #noteStuck({ id }: Upload, offset: number): Promise<void> {
    const before = this.#stuck.get(id);
    const times = before?.offset === offset ? before.times + 1 : 1;
    this.#stuck.set(id, { offset, times });
    if (times < mostStuck) return;
    this.#stuck.delete(id);
    await this.#ways.forget();
  }

  async #put(upload: Upload, what: string, signal: AbortSignal, body: ReturnType<Bodies["next"]> | "", from?: number): Promise<void> {
    const { size, partialPath } = upload;
    const length = body === "" ? 0 : size - (from ?? 0);
    const headers = {
      "Content-Type": "application/octet-stream",
      "Content-Length": length,
      ...(from === undefined ? timeHeader(upload) : { "Content-Range": `bytes ${from}-${size - 1}/${size}` }),
    };
    const question = { method: "PUT", at: this.#server.at(partialPath), what, headers, body, slow: true, mayBeRefused: length > asksFrom };
    const whole = from === undefined && length > 0;
    const said = await this.#server.said(question, signal).catch(async (error: unknown) => {
      // What has no cause is no error of the network: the bytes ended.
      if (!whole || !isFault(error, "transient") || error.notTaken || error.cause === undefined) throw error;
      return this.#arrives(upload, error, signal);
    });
    if (said === undefined || [200, 201, 202, 204].includes(said.status)) return;
    const fault = this.#server.refusal(said, what);
    if (said.status === 423) throw new Locked(fault.kind, fault.message, { cause: fault });
    // A proxy did not wait for the answer.
    if (whole && isUnanswered(fault)) return this.#arrives(upload, fault, signal);
    if (from !== undefined && [400, 405, 415, 416, 501].includes(said.status)) {
      await this.#ways.forget();
      throw new Fault("transient", `${fault.message}; it does not continue files any more`, { cause: fault });
    }
    if (fault.kind === "missing" || said.status === 409) this.#server.forgetDirs();
    throw fault.kind === "missing" ? new Fault("transient", fault.message, { cause: fault }) : fault;
  }

  /** All of it went out and nobody answered: Yandex may still be digesting it. */
  async #arrives({ size, partialPath }: Upload, fault: Fault, signal: AbortSignal): Promise<undefined> {
    const { clock } = this.#server;
    const at = this.#server.at(partialPath);
    const end = clock.monotonicMs() + this.#options.timeout;
    for (let waitMs = 500; ; waitMs = Math.min(2 * waitMs, 5000)) {
      if ((await this.#server.look(at, signal))?.size === size) return undefined;
      if (clock.monotonicMs() + waitMs > end) throw fault;
      await clock.sleep(waitMs, signal);
    }
  }

  async #expectContinued(upload: Upload, offset: number, seen: Seen | undefined, signal: AbortSignal): Promise<void> {
    const size = seen?.size ?? 0;
    if (size === upload.size) return;
    const message = `the server says that it has taken all, and the partial has ${size} bytes, not ${upload.size}`;
    if (size > upload.size) throw new Fault("conflict", message);
    // The rest in place of the whole: another server answers now than the one that was tried. What it holds is no beginning.
    if (size < offset || size === upload.size - offset) {
      await this.#ways.forget();
      await this.discard(upload, signal);
    }
    throw new Fault("transient", message);
  }

  /** Where a partial can be continued behind it. */
  async splice(upload: Upload, from: Part, at: number, signal: AbortSignal): Promise<void> {
    const server = this.#server;
    const what = `cannot copy ${from.path} at the server`;
    const [source, partial] = [server.at(from.path), server.at(upload.partialPath)];
    server.at(upload.path);
    if (at !== 0 || from.offset !== 0) throw new Fault("conflict", `${what}: only all of a file is copied, to begin with`);
    const there = await server.look(source, signal, what);
    if (there === undefined) throw new Fault("missing", `${what}: it is not there`);
    if (there.collection || there.size !== from.length) throw new Fault("changed", `${what}: it has ${there.size} bytes`);
    this.#broken.delete(upload.id);
    this.#known.delete(upload.id);
    this.#proved.delete(upload.id);
    await server.ensureDirOf(upload.partialPath, signal);
    const headers = { Destination: server.destination(partial), Overwrite: "T", Depth: "0" };
    const said = await server.said({ method: "COPY", at: source, what, headers, slow: true }, signal);
    if (said.status !== 201 && said.status !== 204) {
      const fault = server.refusal(said, what);
      throw [403, 405, 501].includes(said.status) ? new Fault("rejected", fault.message, { cause: fault }) : fault;
    }
    const copied = await server.look(partial, signal, what);
    if (copied?.size === from.length) {
      this.#known.add(upload.id);
      return;
    }
    throw new Fault("rejected", `${what}: the server says that it is done, and the partial has ${copied?.size ?? 0} bytes`);
  }

  async prove(upload: Upload, signal: AbortSignal): Promise<void> {
    const held = await this.#server.look(this.#server.at(upload.partialPath), signal, `cannot prove ${upload.path}`);
    if (held === undefined) throw new Fault("conflict", "the partial at the server has gone");
    this.#proved.set(upload.id, await this.#provenWhole(upload, held, signal));
  }

  async #provenWhole(upload: Upload, { size }: Seen, signal: AbortSignal): Promise<Proved> {
    if (size !== upload.size)
      throw new Fault(size < upload.size ? "transient" : "conflict", `the partial at the server has ${size} bytes, not ${upload.size}`);
    const before = this.#proved.get(upload.id);
    const proved = before ?? (await this.#publisher.prove(upload, this.#server.at(upload.partialPath), signal));
    if (
      (proved.proof === "size" || before !== undefined) &&
      size > 0 &&
      (await this.#held(upload, size, `cannot prove ${upload.path}`, signal)) === 0
    )
      throw new Fault("conflict", "the partial at the server does not end as the file does");
    return proved;
  }

  async commit(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant> {
    return this.#publish(upload, signal).catch((error: unknown) => {
      // The server may have lost its power. Where it answered, what was read back is not read once more: its end is.
      this.#known.delete(upload.id);
      if (statusOf(error) === undefined || isUnanswered(error)) this.#proved.delete(upload.id);
      throw error;
    });
  }

  async #publish(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant> {
    const publisher = this.#publisher;
    const partial = this.#server.at(upload.partialPath);
    const name = this.#server.at(upload.path);
    const [held, there] = await Promise.all([
      this.#server.look(partial, signal, `cannot publish ${upload.path}`),
      publisher.occupant(upload, name, signal),
    ]);
    if (held === undefined) return publisher.published(upload, name, signal, upload.naming !== undefined);
    const proved = await this.#provenWhole(upload, held, signal);
    const over = there !== undefined && (await publisher.replaceable(upload, name, there, signal));
    if (there !== undefined && !over) return upload.naming === undefined ? this.#unlessOurs(upload, there, signal) : there;
    await this.#server.ensureDirOf(upload.path, signal);
    const occupant = await publisher.move(upload, partial, over, signal).catch((error: unknown) => {
      if (!isFault(error, "transient") || !(error.cause !== undefined || isUnanswered(error))) throw error;
      return this.#isMoved(upload, error, signal);
    });
    if (occupant !== undefined) return this.#unlessOurs(upload, occupant, signal);
    this.#known.delete(upload.id);
    this.#proved.delete(upload.id);
    return publisher.receipt(upload, proved);
  }

  /** A MOVE whose answer was lost may be done in the moment in which another one is tried: then what has the name is ours, and the partial is gone. */
  async #unlessOurs(upload: Upload, there: Occupant, signal: AbortSignal): Promise<Receipt | Occupant> {
    const held = await this.#server.look(this.#server.at(upload.partialPath), signal, `cannot publish ${upload.path}`);
    return held === undefined ? this.#publisher.published(upload, this.#server.at(upload.path), signal) : there;
  }

  /** No answer to a MOVE: a server that copies for it shows both names until it is done, the new one shorter. Throws `fault` where it does not seem to be at it. */
  async #isMoved(upload: Upload, fault: Fault, signal: AbortSignal): Promise<undefined> {
    const server = this.#server;
    const { clock } = server;
    const [from, to] = [server.at(upload.partialPath), server.at(upload.path)];
    const end = clock.monotonicMs() + this.#options.answerTimeout;
    for (let waitMs = 500; ; waitMs = Math.min(2 * waitMs, 5000)) {
      const [held, there] = await Promise.all([server.look(from, signal), server.look(to, signal)]);
      if (held === undefined && there?.size === upload.size) return undefined;
      if (held === undefined || there === undefined || upload.expect.kind === "replaces" || clock.monotonicMs() + waitMs > end) throw fault;
      await clock.sleep(waitMs, signal);
    }
  }

  async discard(upload: Upload, signal: AbortSignal): Promise<void> {
    const what = `cannot discard ${upload.partialPath}`;
    const at = this.#server.at(upload.partialPath);
    const { clock } = this.#server;
    this.#stuck.delete(upload.id);
    this.#known.delete(upload.id);
    this.#proved.delete(upload.id);
    await this.#server.delete(at, what, signal);
    // `rclone serve webdav` keeps what a write that broke off had brought, and may do so only now; nobody would take that away.
    const stillMs = this.#broken.has(upload.id) ? brokenStillMs : 0;
    let removals = 1;
    for (let sinceMs = clock.monotonicMs(); clock.monotonicMs() - sinceMs < stillMs;) {
      await clock.sleep(lookMs, signal);
      if ((await this.#server.look(at, signal, what)) === undefined) continue;
      if (removals === maxRemovals) {
        // Said once: who begins anew takes the server's word, and a file is never held up by what stays of it.
        this.#broken.delete(upload.id);
        throw new Fault("transient", `${what}: the server says that it is removed, and has it still`);
      }
      await this.#server.delete(at, what, signal);
      removals += 1;
      sinceMs = clock.monotonicMs();
    }
    this.#broken.delete(upload.id);
    this.#wrong.delete(upload.id);
    await this.#ways.tidy(signal);
  }
}

/** A stop that says nothing of the server: that of a device which is away has the Fault of that. */
function isOwnStop(signal: AbortSignal): boolean {
  return signal.aborted && abortedFault(signal).kind === "aborted";
}
