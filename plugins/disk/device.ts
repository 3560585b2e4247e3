/**
 * A device of removable media: what is plugged in is looked at on each hint, and every few seconds without one; what matches is mounted and
 * recognised; what was pulled is noticed, and its dead mount taken away.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { BehaviorSubject, Observable, Subject } from "../../core/rxjs.js";
import { Fault, isFault, orAborted, throwIfAborted } from "../../core/errors.js";
import { freeBytesAt, realOf } from "../../core/fs.js";
import { NameWatch } from "../../core/name-watch.js";
import type { Device, PluginContext, Presence } from "../../core/plugin.js";
import { type Block, matches, readBlocks, refusalOf, stayOf, type Wanted, wantedText } from "./blocks.js";
import { isHelpers } from "./helper.js";
import { holdersOf } from "./holders.js";
import { Media, nameOf, type Remembered } from "./media.js";
import { looksIn } from "./content.js";
import { Medium } from "./medium.js";
import { adopt, type Machine, mount, placesOf, sweep, type Wish } from "./mounting.js";
import { OnSafe } from "./on-safe.js";
import { OwnMounts } from "./own-mount.js";
import { sharedMounts } from "./shared.js";
import { sampleOf } from "./sample.js";
import { signsOf } from "./signs.js";
import { DiskSource } from "./source.js";
import { DiskTarget } from "./target.js";
import { DiskTree } from "./tree.js";
import { Unused } from "./unused.js";

export interface DiskOptions {
  readonly wanted: Wanted;
  readonly mountPoint?: string;
  readonly root: string;
  readonly write?: boolean;
  readonly gadget: boolean;
  readonly onSafe?: readonly string[];
}

/** What source, target and tree need of the device. */
export interface Disks {
  /** Paths begin with the name of a medium. */
  readonly several: boolean;
  readonly media: readonly Medium[];
  /** Those to be listed now, as they are now. */
  toList(signal: AbortSignal): Promise<readonly Medium[]>;
  /** Nobody but this program writes on it. */
  alone(medium: Medium): boolean;
  /** Where a path is; with `id`: it has to be on that medium. Throws "offline" where that is not in. */
  at(path: string, id?: string): { readonly medium: Medium; readonly inner: string };
  pathOf(medium: Medium, inner: string): string;
  /** `left`: directories, each with its "/", that were not looked into. */
  remember(medium: Medium, files: readonly Remembered[], left: readonly string[], signal: AbortSignal): Promise<void>;
  hasNoRoot(medium: Medium): void;
}

/** The net below the hints. */
const lookMs = 5000;
/** What could not be mounted is tried again. */
const againMs = 30_000;
/** How often a medium is listed on which others may write. */
const listMs = 30_000;

export class DiskDevice implements Device, Disks {
  readonly presence$: Observable<Presence>;
  readonly source: DiskSource;
  readonly target: DiskTarget;
  readonly tree: DiskTree;
  readonly several: boolean;
  readonly #state = new BehaviorSubject<Presence>({ state: "detached", reason: "not looked at yet" });
  readonly #changes$ = new Subject<void>();
  readonly #known: Media;
  readonly #own: OwnMounts;
  /** By stay. */
  readonly #media = new Map<string, Medium>();
  readonly #unused = new Unused();
  /** What is on it and could not be had, when nothing more was wanted of it. */
  #left: string | undefined;
  /** By stay: ejected, and somebody else keeps it from being unmounted. */
  readonly #held = new Map<string, Medium>();
  readonly #told = new Set<string>();
  readonly #over = new AbortController();
  readonly #onSafe: OnSafe;
  /** A problem of the machine's, not of a disk's. */
  #problem: string | undefined;
  #seen = "";
  #looking: Promise<void> | undefined;
  #again = false;
  #watch: NameWatch | undefined;
  #timer: NodeJS.Timeout | undefined;
  #listing: NodeJS.Timeout | undefined;

  constructor(
    readonly options: DiskOptions,
    readonly context: PluginContext,
    readonly machine: Machine,
  ) {
    this.several = "any" in options.wanted;
    this.#known = new Media(context.stateDir, (text) => context.say("warn", text));
    this.#own = new OwnMounts(context.stateDir);
    this.#onSafe = new OnSafe(options.onSafe, context, machine.run);
    this.source = new DiskSource(this, this.#changes$, options.gadget);
    this.target = new DiskTarget(this);
    this.tree = new DiskTree(this);
    this.presence$ = new Observable((subscriber) => {
      this.#start();
      return this.#state.subscribe(subscriber);
    });
  }

  get media(): readonly Medium[] {
    return [...this.#media.values()];
  }

  async probe(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    await orAborted(this.#look(true), signal);
    const { state, reason } = this.#state.value;
    if (state === "detached") throw new Fault("offline", reason ?? "it is away");
  }

  async probeTarget(signal: AbortSignal): Promise<void> {
    await this.probe(signal);
    for (const medium of this.media) await medium.use(true, signal, () => Promise.resolve());
  }

  async room(signal: AbortSignal): Promise<number | undefined> {
    await this.probe(signal);
    const free = await Promise.all(
      this.media.map((medium) => medium.use(false, signal, async ({ held }) => freeBytesAt(`/proc/self/fd/${held.fd}`))),
    );
    return free.length === 0 ? undefined : Math.min(...free);
  }

  async close(): Promise<void> {
    this.#over.abort();
    clearInterval(this.#timer);
    clearInterval(this.#listing);
    this.#watch?.close();
    await this.#looking;
    await this.#onSafe.close();
    const closed = new Fault("aborted", "the device was closed");
    for (const medium of this.media) {
      const why = await medium.end(closed, false);
      if (why !== undefined) this.context.say("debug", `it stays mounted: ${why}`);
    }
    this.#media.clear();
    this.#changes$.complete();
    this.#state.complete();
  }

  rest(left?: string): void {
    this.#left = left;
    for (const medium of this.media) medium.rest();
  }

  async eject(signal: AbortSignal): Promise<string> {
    throwIfAborted(signal);
    const before = this.#unused.safe;
    await orAborted(this.#look(true), signal);
    const media = [...this.media, ...this.#held.values()];
    if (media.length === 0) {
      const { safe } = this.#unused;
      const since = safe.every((name) => before.includes(name)) ? "already" : "now";
      if (safe.length > 0) return `${safe.join(", ")}: may be pulled ${since}; plugged in again, it is used again`;
      throw new Fault("offline", this.#state.value.reason ?? "nothing is plugged in");
    }
    const done: string[] = [];
    for (const medium of media) {
      const name = `${medium.id} (${medium.block.path})`;
      this.#unused.eject(medium.stay, `${name} is being ejected`);
      this.#media.delete(medium.stay);
      const why = await this.#ejected(medium);
      if (why !== undefined) throw new Fault("transient", `${name} is used no more, but cannot be unmounted: ${why}; do not pull it yet`);
      done.push(name);
    }
    // Another one of that name may have waited for this.
    void this.#look(true);
    return `${done.join(", ")}: may be pulled now; plugged in again, it is used again`;
  }

  /** Ends its use. Why it cannot be pulled yet: whoever holds it may end later. */
  async #ejected(medium: Medium): Promise<string | undefined> {
    const name = `${medium.id} (${medium.block.path})`;
    const ending = medium.end(new Fault("offline", `${name} is ejected`), false);
    this.#tell();
    const why = await this.#whyHeld(medium, await ending);
    const said = why === undefined ? "it may be pulled; plugged in again, it is used again" : `do not pull it yet: ${why}`;
    this.#unused.eject(medium.stay, `it is ejected: ${said}`, why === undefined ? name : undefined);
    if (why === undefined) this.#held.delete(medium.stay);
    else this.#held.set(medium.stay, medium);
    this.#tell();
    if (why === undefined) this.#sayGone(medium, `${name} may be pulled now`);
    return why;
  }

  /** Why it cannot be pulled though it is used no more here; by whom. */
  async #whyHeld({ block, mounted, users }: Medium, why: string | undefined): Promise<string | undefined> {
    if (why === undefined) {
      if (users.length > 0) return `${users.join(" and ")} still has it: filesync eject ${users[0] ?? ""}`;
      const places = await placesOf(block, this.machine);
      return places.length === 0 ? undefined : `it is mounted by somebody else too, at ${places.join(", ")}`;
    }
    const who = mounted === undefined || mounted.way === "found" ? "" : await holdersOf(mounted.dir, block, this.machine);
    return who === "" ? why : `${why}; held by ${who}`;
  }

  // ---------------------------------------------------------------- Disks

  async toList(signal: AbortSignal): Promise<readonly Medium[]> {
    const media = this.media;
    for (const medium of media) {
      medium.wake();
      if (this.options.gadget) await medium.anew(signal);
    }
    return media;
  }

  alone(medium: Medium): boolean {
    return !medium.shared && !this.options.gadget;
  }

  at(path: string, id?: string): { medium: Medium; inner: string } {
    const slash = path.indexOf("/");
    const name = this.several ? (slash === -1 ? path : path.slice(0, slash)) : id;
    const medium = name === undefined ? this.media[0] : this.media.find((one) => one.id === name);
    if (medium === undefined) throw this.#notIn(name, id);
    if (id !== undefined && medium.id !== id) throw new Fault("offline", `${id} is not plugged in`);
    return { medium, inner: this.several ? (slash === -1 ? "" : path.slice(slash + 1)) : path };
  }

  #notIn(name: string | undefined, id: string | undefined): Fault {
    const { media } = this;
    if (id !== undefined) return new Fault("offline", `${id} is not plugged in`);
    if (name === undefined || media.length === 0) return new Fault("offline", this.#state.value.reason ?? "nothing is plugged in");
    const names = media.map((one) => `"${one.id}/…"`).join(" or ");
    return new Fault("offline", `"${name}" is no disk that is plugged in: a path begins with the name of one, ${names}`);
  }

  pathOf(medium: Medium, inner: string): string {
    return this.several ? `${medium.id}/${inner}` : inner;
  }

  async remember(medium: Medium, files: readonly Remembered[], left: readonly string[], signal: AbortSignal): Promise<void> {
    const sample = (path: string, size: number) => medium.use(false, signal, (content) => sampleOf(content.root, path, size));
    await this.#known.remember(medium.id, medium.block, files, sample, left);
  }

  hasNoRoot(medium: Medium): void {
    this.#tellOnce(`no root ${medium.stay}`, "warn", `${medium.id} has no directory "${this.options.root}": nothing is found on it`);
  }

  // ---------------------------------------------------------------- what is plugged in

  #start(): void {
    if (this.#watch !== undefined || this.#over.signal.aborted) return;
    this.#watch = new NameWatch(this.machine.byUuid, () => void this.#look(true));
    // Neither keeps a process alive that has nothing else to do.
    this.#timer = setInterval(() => void this.#look(false), lookMs).unref();
    this.#listing = setInterval(() => {
      if (this.media.some((medium) => !this.alone(medium))) this.#changes$.next();
    }, listMs).unref();
    void this.#look(true);
  }

  /** Looks once; what asks meanwhile gets one more look. Never throws. */
  #look(surely: boolean): Promise<void> {
    if (this.#over.signal.aborted) return Promise.resolve();
    this.#again ||= surely;
    this.#looking ??= this.#lookAll(surely).finally(() => (this.#looking = undefined));
    return this.#looking;
  }

  async #lookAll(surely: boolean): Promise<void> {
    do {
      this.#again = false;
      try {
        await this.#lookOnce(surely);
      } catch (error) {
        this.#problem = error instanceof Error ? error.message : String(error);
        this.#seen = "";
        this.#tell();
      }
    } while (this.#again && !this.#over.signal.aborted);
  }

  async #lookOnce(surely: boolean): Promise<void> {
    for (const medium of this.media) {
      if (!(await medium.isThere())) await this.#lose(medium);
      else {
        medium.retire();
        const found = async () => {
          const mounted = await adopt(medium.block, this.#ours(), this.machine);
          return mounted?.way === "found" && medium.users.length === 0 ? mounted : undefined;
        };
        if (medium.mounted === undefined && (await medium.take(found))) this.#sayTaken(medium);
      }
    }
    for (const [stay, medium] of this.#held)
      if (stayOf(medium.block, this.machine.sys) !== stay) this.#held.delete(stay);
      else await this.#ejected(medium);
    const seen = signsOf(this.machine);
    const now = this.context.clock.monotonicMs();
    if (!surely && seen === this.#seen && !this.#unused.isDue(now)) return;
    this.#seen = seen;
    const blocks = (await readBlocks(this.machine.run, this.#ours())).filter(
      (block) => matches(block, this.options.wanted) && this.#isLookedAt(block),
    );
    this.#problem = undefined;
    await sweep(this.#ours(), this.machine, (dir) => this.#own.forget(dir));
    const stays = new Map<string, Block>();
    for (const block of blocks) {
      const stay = stayOf(block, this.machine.sys);
      if (stay !== undefined) stays.set(stay, block);
    }
    this.#unused.keep(stays);
    // Unmounted by us, and taken out.
    for (const medium of this.media) if (!stays.has(medium.stay) && medium.mounted === undefined) await this.#lose(medium);
    for (const [stay, block] of stays) {
      if (this.#over.signal.aborted) return;
      if (this.#media.has(stay) || this.#unused.holds(stay, now)) continue;
      if (!this.several && this.#media.size > 0) {
        const [other] = this.media;
        const why = `${block.path} answers the description too: it waits until ${other?.block.path ?? "the other"} is pulled or ejected`;
        this.#unused.wait(stay, why);
        this.#tellOnce(`twin ${stay}`, "warn", why);
        continue;
      }
      await this.#meet(block, stay);
    }
    this.#tell();
  }

  /** Before udev has looked at it, a good one seems to hold nothing. */
  #isLookedAt({ fsType, device }: Block): boolean {
    return fsType !== undefined || existsSync(join(this.machine.udev, `b${device}`));
  }

  /** Mounts and recognises one that was not here before. */
  async #meet(block: Block, stay: string): Promise<void> {
    const again = (why: string, ms: number) => this.#unused.refuse(stay, why, this.context.clock.monotonicMs() + ms);
    const refusal = refusalOf(block) ?? (this.several && nameOf(block) === "" ? `${block.path} has neither UUID nor label` : undefined);
    if (refusal !== undefined) {
      again(refusal, againMs);
      this.#tellOnce(`refused ${stay}`, "warn", refusal);
      return;
    }
    let medium: Medium | undefined;
    try {
      const found = await this.#mediumOn(block, stay);
      medium = found;
      const { id, aheadMs } = await medium.use(false, this.#over.signal, (content, on) =>
        this.#known.recognise(
          block,
          looksIn(content, () => found.expectToStay(on)),
        ),
      );
      Object.assign(medium, { id, aheadMs });
      this.#unused.use(stay);
      this.#media.set(stay, medium);
      this.#sayIn(medium);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      // It is not left mounted where nobody uses it.
      await medium?.end(new Fault("offline", why), false);
      if (this.#over.signal.aborted) return;
      if (stayOf(block, this.machine.sys) !== stay) return;
      again(why, isFault(error) ? againMs : lookMs);
      this.#tellOnce(`refused ${stay} ${why}`, "warn", why);
    }
  }

  /** By the mount that there is, or a new one. */
  async #mediumOn(block: Block, stay: string): Promise<Medium> {
    const { machine, options } = this;
    const { name } = this.context;
    const wish = () => this.#wish(block);
    const make = async () => (await adopt(block, this.#ours(), machine)) ?? (await mount(wish(), machine));
    const mounted = await sharedMounts.hold(stay, name, make);
    const medium: Medium = new Medium({
      ...{ block, name, mounted, wish, root: options.root, machine },
      suspect: () => void this.#look(true),
      changed: () => {
        if (this.#media.has(medium.stay)) this.#tell();
      },
      rested: () => {
        if (this.#media.has(medium.stay)) this.#sayGone(medium, this.#goneText(medium.id));
      },
    });
    return medium;
  }

  async #lose(medium: Medium): Promise<void> {
    if (!this.#media.delete(medium.stay)) return;
    // It may be in all the same, and only its mount have gone.
    this.#seen = "";
    const used = medium.mounted !== undefined;
    const ending = medium.end(new Fault("offline", `${medium.id} was pulled`), true);
    // At once: what it takes to end the dead mount is nobody's concern.
    this.#tell();
    this.context.say(used ? "warn" : "info", `${medium.id} was pulled${used ? " while it was in use" : ""}`, { medium: medium.id });
    const why = await ending;
    if (why !== undefined) this.context.say("warn", `the dead mount of ${medium.id} stays: ${why}`);
  }

  #wish(block: Block): Wish {
    const { mountPoint, write } = this.options;
    return {
      block,
      readOnly: !(write ?? this.context.changed === true),
      ...(mountPoint === undefined ? {} : { mountPoint: realOf(mountPoint) }),
      own: this.#own,
      ownDir: this.#own.dirFor(`${nameOf(block)}-${block.device.replace(":", ".")}`),
    };
  }

  /** For one look: mounted by this program, also before it was killed. Without the right to mount, what the helper says that it mounted. */
  #ours(): (dir: string) => boolean {
    return this.machine.mayMount() ? this.#own.forOneLook() : (dir) => isHelpers(dir, this.machine.helper);
  }

  // ---------------------------------------------------------------- what is told

  #sayIn({ id, block, mounted }: Medium): void {
    const { dir = "", way = "", readOnly = false } = mounted ?? {};
    const how = way === "found" ? `mounted by somebody else at ${dir}` : `at ${dir}, by ${way}`;
    this.context.say("info", `${id} is in: ${block.path}, ${block.fsType ?? ""}, ${readOnly ? "read-only " : ""}${how}`, { medium: id });
  }

  #sayTaken({ id, mounted }: Medium): void {
    this.context.say("info", `${id} was mounted by somebody else, at ${mounted?.dir ?? ""}: unmount it there before it is pulled`);
  }

  #goneText(id: string): string {
    if (this.context.read !== true) return `nothing more is sent to ${id} now: it may be pulled`;
    return this.#left === undefined
      ? `everything on ${id} is here: it may be pulled`
      : `${id} may be pulled, but not all that is on it is here: ${this.#left}`;
  }

  #sayGone(medium: Medium, text: string): void {
    this.context.say("info", text, { medium: medium.id, safe: true });
    this.#onSafe.begin(medium.id);
  }

  #tellOnce(key: string, level: "warn" | "info", text: string): void {
    if (this.#told.has(key)) return;
    this.#told.add(key);
    this.context.say(level, text);
  }

  #tell(): void {
    const media = this.media;
    const next: Presence =
      media.length === 0
        ? { state: "detached", reason: this.#whyAway() }
        : {
            state: "attached",
            // Mounted by somebody else it is listed anew.
            epoch: media.map(({ stay, shared }) => `${stay}${shared ? "+" : ""}`).join(" "),
            media: media.map(({ id }) => id),
            ...(media.every(({ safe }) => safe) ? { safe: true as const } : {}),
            ...(this.#unused.text === undefined ? {} : { unused: this.#unused.text }),
          };
    if (!this.#over.signal.aborted && JSON.stringify(next) !== JSON.stringify(this.#state.value)) this.#state.next(next);
  }

  #whyAway(): string {
    return this.#problem ?? this.#unused.text ?? wantedText(this.options.wanted);
  }
}
