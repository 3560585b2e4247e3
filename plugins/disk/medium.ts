/**
 * A medium that is in. Whoever reads or writes on it holds a lease; while nobody does and nothing is wanted of it, it is unmounted, so that it may be
 * pulled; the next lease mounts it again. Once it was pulled or ejected every lease ends with that Fault.
 */
import { abortedFault, codeOf, Fault, isFault, throwIfAborted } from "../../core/errors.js";
import { FileThread } from "../../core/file-thread.js";
import { joinSignals, withSignals } from "../../core/signals.js";
import { type Block, stayOf } from "./blocks.js";
import { type Content, openContent } from "./content.js";
import { isAlive, mount, type Machine, type Mounted, placesOf, unmount, type Wish } from "./mounting.js";
import { sharedMounts } from "./shared.js";

export interface MediumGiven {
  readonly block: Block;
  /** Of the device: others may use the same disk. */
  readonly name: string;
  readonly mounted: Mounted;
  /** How it is mounted again; asked each time. */
  readonly wish: () => Wish;
  /** The directory of the device, below that of the file system. */
  readonly root: string;
  readonly machine: Machine;
  /** Something went wrong that may mean that it was pulled. */
  readonly suspect: () => void;
  /** It was mounted or unmounted. */
  readonly changed: () => void;
  /** Nothing was wanted of it any more, and it is mounted nowhere. */
  readonly rested: () => void;
}

/** While nothing is wanted of it, it stays mounted so long after a look. */
const lingerMs = 1000;
/** So long after an error of its own a medium may turn out to have been pulled. */
const pulledMs = 2000;

export class Medium {
  /** Its name in the journal, once it is recognised. */
  id = "";
  /** Its files are told to be so much later than they were when it was first seen (`media.ts`): whoever asks here hears of the time that they had then. */
  aheadMs = 0;
  readonly stay: string;
  readonly #files = new FileThread();
  readonly #over = new AbortController();
  #mounted: Mounted | undefined;
  #content: Content | undefined;
  #leases = 0;
  #resting = false;
  /** Something was wanted of it since it was said that it may be pulled. */
  #wanted = true;
  /** It is unmounted here, and another has it mounted: another device, or somebody else. */
  #elsewhere = false;
  #lingering: NodeJS.Timeout | undefined;
  /** It is mounted, and not as it should be: it is mounted anew. */
  #worn = false;
  /** Mounting or unmounting, in turn. */
  #turn: Promise<unknown> = Promise.resolve();
  #idle: (() => void)[] = [];

  constructor(readonly given: MediumGiven) {
    this.stay = given.mounted.stay;
    this.#mounted = given.mounted;
  }

  get block(): Block {
    return this.given.block;
  }

  /** undefined: it is unmounted. */
  get mounted(): Mounted | undefined {
    return this.#mounted;
  }

  /** It was mounted by somebody else, who may write on it. */
  get shared(): boolean {
    return this.#mounted?.way === "found";
  }

  /** It may be pulled: it is mounted nowhere, and nothing is wanted of it. */
  get safe(): boolean {
    return this.#resting && this.#mounted === undefined && !this.#elsewhere;
  }

  /** Other devices that have it mounted. */
  get users(): string[] {
    return sharedMounts.others(this.stay, this.given.name);
  }

  get gone(): boolean {
    return this.#over.signal.aborted;
  }

  /** Does work on it while it is mounted. `write`: the work changes it. Throws its Fault; "offline" where the medium is gone, whatever the work said. */
  async use<T>(write: boolean, signal: AbortSignal, work: (content: Content, signal: AbortSignal) => Promise<T>): Promise<T> {
    const lease = await this.lease(write, signal);
    try {
      return await work(lease.content, lease.signal);
    } catch (error) {
      throw await this.faultOf(error, signal);
    } finally {
      lease.end();
    }
  }

  /** The same for work that ends later; `end` once. */
  async lease(write: boolean, signal: AbortSignal): Promise<{ content: Content; signal: AbortSignal; end: () => void }> {
    throwIfAborted(signal);
    let tried = false;
    for (;;) {
      await this.#turn.catch(() => undefined);
      if (this.gone) throw abortedFault(this.#over.signal);
      const rewrite = !tried && this.#leases === 0 && (this.#worn || (write && this.#mounted?.readOnly === true && this.#mayBeWritten()));
      if (this.#content !== undefined && !rewrite) break;
      tried = true;
      await this.#inTurn(() => this.#begin(rewrite));
    }
    const content = this.#content;
    if (content === undefined) throw new Fault("offline", "it was unmounted");
    if (write && this.#mounted?.readOnly === true) throw this.#readOnly();
    // Core says when that is over.
    if (write) this.wake();
    this.#leases += 1;
    const joined = joinSignals(signal, this.#over.signal);
    let held = true;
    const end = () => {
      if (!held) return;
      held = false;
      joined.release();
      this.#leases -= 1;
      if (this.#leases === 0) this.#rested();
    };
    return { content, signal: joined.signal, end };
  }

  /** The Fault of work that failed: that it is gone, where it is. */
  async faultOf(error: unknown, signal: AbortSignal): Promise<unknown> {
    if (this.gone) return abortedFault(this.#over.signal);
    if (signal.aborted) return abortedFault(signal);
    if (isFault(error, "aborted")) return error;
    if (isFault(error, "transient", "denied") || !isFault(error)) await this.expectToStay(signal);
    else await this.expectAlive();
    return this.#turnedReadOnly(error) ?? this.#placed(this.#withOwner(error));
  }

  /** With the name of a place that a person knows, for that of the directory that is held open. */
  #placed(error: unknown): unknown {
    const { fd } = this.#content?.held ?? {};
    const held = new RegExp(`/proc/self/fd/${fd ?? ""}(?!\\d)`, "g");
    if (!isFault(error) || fd === undefined || !held.test(error.message)) return error;
    const { kind, message, cause, retryAfterMs, notTaken } = error;
    const dir = this.#mounted?.dir ?? this.block.path;
    return new Fault(kind, message.replaceAll(held, dir), {
      cause,
      notTaken,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }

  /**
   * The kernel makes a file system read-only on which it meets damage: what a pull or power cut left of FAT is often well again in a new mount, which
   * is made once nobody uses this one.
   */
  #turnedReadOnly(error: unknown): Fault | undefined {
    const mounted = this.#mounted;
    if (mounted === undefined || mounted.readOnly || this.shared || !isReadOnlyError(error)) return undefined;
    this.#worn = true;
    const dir = `${this.block.path} at ${mounted.dir}`;
    return new Fault(
      "transient",
      `the system made ${dir} read-only, because of damage (its log says which): it is mounted anew; if that goes on, check it with fsck`,
    );
  }

  /** Where files have owners, an ordinary user may not do all on a disk that is mounted for it. */
  #withOwner(error: unknown): unknown {
    const { fsType = "" } = this.block;
    if (!isFault(error, "denied") || this.shared || this.given.machine.mayMount() || !/^(ext|xfs|btrfs|f2fs)/.test(fsType)) return error;
    const who = `this user (uid ${process.getuid?.() ?? 0})`;
    return new Fault("denied", `${error.message}: on ${fsType} files have owners; ${who} needs a directory of its own there, as "root"`, {
      cause: error,
    });
  }

  /** After an error of the medium: a pull shows first in those, and only a little later in what the system tells of it. Throws "offline". */
  async expectToStay(signal: AbortSignal): Promise<void> {
    await withSignals([signal, this.#over.signal], async (over) => {
      for (let ms = 0; ms < pulledMs; ms += pulledMs / 10) {
        await this.expectAlive();
        await pause(pulledMs / 10, over);
      }
    });
    await this.expectAlive();
  }

  /** Throws "offline" where it was pulled, or is mounted no more: that nothing is found there then means nothing. */
  async expectAlive(): Promise<void> {
    if (this.gone) throw abortedFault(this.#over.signal);
    if (await this.#isAlive()) return;
    this.given.suspect();
    throw new Fault("offline", `${this.block.path} was pulled or unmounted`);
  }

  /** Nothing is wanted of it: it is unmounted once nobody uses it. */
  rest(): void {
    const before = this.#resting;
    this.#resting = true;
    if (this.#leases === 0 && !before) this.#retire();
  }

  /** Looks whether it may be pulled now, where something held it when it was to be unmounted. */
  retire(): void {
    if (this.#resting && this.#leases === 0 && !this.safe && !this.shared) this.#retire();
  }

  /** Whether it is in, and where it is mounted, mounted still. */
  async isThere(): Promise<boolean> {
    if (stayOf(this.block, this.given.machine.sys) !== this.stay) return false;
    let there = true;
    // Not while it is just being unmounted.
    await this.#inTurn(async () => {
      there = this.#mounted === undefined || (await this.#isAlive());
    });
    return there;
  }

  /** It is in, and mounted where it was mounted. */
  async #isAlive(): Promise<boolean> {
    return this.#mounted !== undefined && isAlive(this.#mounted, this.block, this.given.machine);
  }

  /** Somebody else has mounted what is unmounted here. */
  async take(find: () => Promise<Mounted | undefined>): Promise<boolean> {
    let taken = false;
    await this.#inTurn(async () => {
      if (this.#mounted !== undefined || this.gone) return;
      const mounted = await find();
      if (mounted?.stay !== this.stay) return;
      this.#mounted = mounted;
      taken = true;
    });
    if (taken) this.given.changed();
    return taken;
  }

  /** Something will be wanted of it. */
  wake(): void {
    this.#resting = false;
    this.#wanted = true;
    clearTimeout(this.#lingering);
  }

  /** Unmounted and mounted again, once nobody uses it: what a gadget wrote meanwhile is seen. */
  async anew(signal: AbortSignal): Promise<void> {
    while (this.#leases > 0 && !this.gone) await this.#untilIdle(signal);
    await this.#inTurn(async () => {
      if (this.#leases > 0) return;
      await this.#unmount();
      await this.#mount();
    });
  }

  /** Every lease ends with this Fault. Resolves once it is unmounted; why it is not, where it cannot be. */
  async end(fault: Fault, pulled: boolean): Promise<string | undefined> {
    this.#over.abort(fault);
    clearTimeout(this.#lingering);
    await this.#files.close();
    if (!pulled) while (this.#leases > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
    let why: string | undefined;
    await this.#inTurn(async () => {
      why = await this.#unmount(pulled);
    });
    return why;
  }

  /** Mounted, and to be written on where that is wanted: its content can be had. */
  async #begin(rewrite: boolean): Promise<void> {
    if (this.gone || this.#leases > 0) return;
    if (rewrite && (await this.#unmount()) === undefined) this.#worn = false;
    if (this.#mounted === undefined) await this.#mount();
    if (this.#mounted !== undefined && this.#content === undefined) this.#content = await this.#open(this.#mounted);
  }

  async #mount(): Promise<void> {
    if (this.gone) return;
    const { wish, machine, name } = this.given;
    this.#mounted = await sharedMounts.hold(this.stay, name, async () => {
      const mounted = await mount(wish(), machine);
      if (mounted.stay === this.stay) return mounted;
      await unmount(mounted, this.block, false, machine);
      throw new Fault("offline", `another medium is in ${this.block.path}`);
    });
    this.given.changed();
  }

  /** Why it is still mounted; undefined when it is not. */
  async #unmount(pulled = false): Promise<string | undefined> {
    const mounted = this.#mounted;
    if (mounted === undefined) return undefined;
    // While somebody still uses its number, that must not come to name another directory.
    if (this.#leases === 0) await this.#shut();
    if (mounted.way === "found") {
      if (!pulled && (await this.#isAlive())) return `it was mounted by somebody else, at ${mounted.dir}`;
      this.#mounted = undefined;
      return undefined;
    }
    const { machine, name, wish } = this.given;
    const why = await sharedMounts.release(this.stay, name, pulled, async () => {
      const said = await unmount(mounted, this.block, pulled, machine);
      if (said === undefined) await wish().own?.forget(mounted.dir);
      return said;
    });
    if (why !== undefined && !pulled) return why;
    this.#mounted = undefined;
    this.given.changed();
    return why;
  }

  async #open(mounted: Mounted): Promise<Content> {
    try {
      return await openContent(mounted, this.block, this.given.root, this.#files);
    } catch (error) {
      if (isFault(error, "offline")) this.given.suspect();
      else await this.expectAlive();
      throw error;
    }
  }

  /** Nothing of it is open any more. */
  async #shut(): Promise<void> {
    const content = this.#content;
    this.#content = undefined;
    await content?.held.close();
  }

  #mayBeWritten(): boolean {
    return !this.given.wish().readOnly && !this.shared && !this.block.readOnly;
  }

  #readOnly(): Fault {
    const dir = this.#mounted?.dir ?? "";
    if (this.shared) return new Fault("denied", `it is mounted read-only at ${dir} by somebody else: mount it for writing, or unmount it`);
    if (this.block.readOnly) return new Fault("denied", `${this.block.path} is write-protected: look for a switch on the card`);
    if (this.#leases > 0 && this.#mayBeWritten()) {
      this.#worn = true;
      return new Fault(
        "transient",
        "it is being read, and was mounted read-only for that: it is mounted for writing as soon as nobody reads",
      );
    }
    const [other] = this.users;
    if (other !== undefined && this.#mayBeWritten()) {
      this.#worn = true;
      return new Fault("transient", `it is mounted read-only for ${other}: it is mounted for writing as soon as that needs it no more`);
    }
    if (this.given.wish().readOnly)
      return new Fault("denied", 'it is mounted read-only, because no route changes it: "write": true in its options allows that');
    return new Fault("denied", `${this.block.path} could be mounted read-only only: it may be damaged (the system's log says more)`);
  }

  /** Nobody uses it for now. */
  #rested(): void {
    for (const resolve of this.#idle.splice(0)) resolve();
    // Whoever mounted it may want to unmount it.
    if (this.shared || this.gone)
      void this.#inTurn(async () => {
        if (this.#leases === 0) await this.#shut();
      }).catch(() => this.given.suspect());
    else if (this.#resting) {
      // One look often follows another.
      clearTimeout(this.#lingering);
      this.#lingering = setTimeout(() => this.#retire(), lingerMs);
    }
  }

  /** Unmounts it, where still nobody uses it and nothing is wanted. */
  #retire(): void {
    clearTimeout(this.#lingering);
    void this.#inTurn(async () => {
      if (this.#leases > 0 || !this.#resting || this.gone || this.shared) return;
      if ((await this.#unmount()) !== undefined) return;
      const before = this.#elsewhere;
      this.#elsewhere = (await placesOf(this.block, this.given.machine)).length > 0;
      if (before !== this.#elsewhere) this.given.changed();
      if (this.#elsewhere || !this.#wanted) return;
      this.#wanted = false;
      this.given.rested();
    }).catch(() => this.given.suspect());
  }

  #untilIdle(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = () => reject(abortedFault(signal));
      this.#idle.push(() => {
        signal.removeEventListener("abort", stop);
        resolve();
      });
      if (signal.aborted) stop();
      else signal.addEventListener("abort", stop, { once: true });
    });
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#turn.catch(() => undefined).then(work);
    this.#turn = turn;
    // Whoever began it hears of it.
    turn.catch(() => undefined);
    return turn;
  }
}

/** EROFS: what the mount table says of it differs from kernel to kernel. */
function isReadOnlyError(error: unknown): boolean {
  const cause = isFault(error) ? error.cause : error;
  return codeOf(cause) === "EROFS";
}

/** Ends early with the signal. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
  });
}
