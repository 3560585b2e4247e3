/** The plugin `local`: a directory of this machine, as source and target. */
import { promises as fs, watch } from "node:fs";
import {
  BehaviorSubject,
  defer,
  distinctUntilChanged,
  EMPTY,
  exhaustMap,
  Observable,
  Subject,
  switchMap,
  takeUntil,
  timer,
} from "../../core/rxjs.js";
import * as v from "valibot";
import { Fault, faultOfErrno, throwIfAborted } from "../../core/errors.js";
import { FileThread } from "../../core/file-thread.js";
import { freeBytesAt } from "../../core/fs.js";
import { hanging, Look, lookMs, mounted, OnMount } from "../../core/on-mount.js";
import { path } from "../../core/options.js";
import type { Device, Plugin, PluginContext, Presence } from "../../core/plugin.js";
import { expectWritable, withRights } from "../../core/rights.js";
import { deadLink, ifThere } from "../../core/stat.js";
import { LocalSource } from "./source.js";
import { LocalTarget } from "./target.js";
import { LocalTree } from "./tree.js";

const options = v.strictObject({
  dir: v.pipe(path(), v.description("The directory.")),
  inPlace: v.optional(
    v.pipe(
      v.boolean("true or false"),
      v.description("Read files where they are; otherwise they are copied to the spool first, as from a device that may go away."),
    ),
    true,
  ),
  create: v.optional(
    v.pipe(
      v.boolean("true or false"),
      v.description("Make the directory where it is missing; otherwise it is detached until somebody does."),
    ),
    false,
  ),
  mounted: mounted(),
});
export type LocalOptions = v.InferOutput<typeof options>;

export const plugin: Plugin<LocalOptions> = {
  type: "local",
  about: { what: "a directory of this machine", resumes: "at the byte", proves: "by digest: what was written is read again" },
  options,
  roles: ["source", "target"],
  dirOf: ({ dir }) => dir,
  device: (given, context) => new LocalDevice(given, context),
};

class LocalDevice implements Device {
  readonly presence$: Observable<Presence>;
  readonly source: LocalSource;
  readonly target: LocalTarget;
  readonly tree: LocalTree;
  readonly #state = new BehaviorSubject<Presence>({ state: "detached", reason: "not looked at yet", unseen: true });
  readonly #closed = new Subject<void>();
  #looking = false;
  readonly #options: LocalOptions;
  readonly #files = new FileThread();
  readonly #mount: OnMount;
  readonly #place = new Look(() => this.#looked());

  constructor(given: LocalOptions, context: PluginContext) {
    this.#options = given;
    this.#mount = new OnMount(given.dir, given.mounted, context.memory);
    // It may be unmounted between two looks.
    const place = { ...given, expectHere: () => this.#mount.expectHere(), withRights };
    const looks$ = timer(0, lookMs).pipe(
      exhaustMap(() => this.#look()),
      distinctUntilChanged((a, b) => a.state === b.state && a.reason === b.reason && a.epoch === b.epoch),
      takeUntil(this.#closed),
    );
    this.presence$ = defer(() => {
      if (!this.#looking) looks$.subscribe(this.#state);
      this.#looking = true;
      return this.#state;
    });
    const watched$ = new Observable<void>((subscriber) => {
      // A hint only: a directory that cannot be watched is still listed.
      try {
        const watcher = watch(given.dir, () => subscriber.next());
        watcher.on("error", () => watcher.close());
        return () => watcher.close();
      } catch (error) {
        context.say("debug", `${given.dir} cannot be watched: ${String(error)}`);
        return undefined;
      }
    });
    // That it is watched is asked of it synchronously: not before it has answered.
    const changes$ = this.presence$.pipe(
      switchMap(({ state }) => (state === "attached" ? watched$ : EMPTY)),
      takeUntil(this.#closed),
    );
    this.source = new LocalSource(place, changes$, this.#files);
    this.target = new LocalTarget(place);
    this.tree = new LocalTree(place, this.#files, this.source, this.target);
  }

  async probe(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const presence = await this.#look();
    if (presence.state === "detached") throw new Fault("offline", presence.reason ?? "away");
    try {
      // One that is not there yet is made when it is first needed.
      await ifThere(fs.readdir(this.#options.dir));
    } catch (error) {
      throw await withRights(faultOfErrno(error, `cannot read ${this.#options.dir}`), "rx", this.#options.dir);
    }
  }

  async probeTarget(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    await this.#mount.expectHere();
    await expectWritable(this.#options.dir, `cannot write in ${this.#options.dir}`);
  }

  async room(signal: AbortSignal): Promise<number | undefined> {
    throwIfAborted(signal);
    await this.#mount.expectHere();
    try {
      return await freeBytesAt(this.#options.dir);
    } catch (error) {
      throw faultOfErrno(error, `cannot use ${this.#options.dir}`);
    }
  }

  close(): Promise<void> {
    this.#closed.next();
    this.#state.complete();
    return this.#files.close();
  }

  async #look(): Promise<Presence> {
    const away = await this.#mount.away();
    if (away !== undefined) return { state: "detached", reason: away };
    // What answered may hang now.
    return (await this.#place.asked())?.found ?? { state: "detached", reason: hanging(this.#options.dir) };
  }

  async #looked(): Promise<Presence> {
    const { dir, create } = this.#options;
    try {
      const stat = await ifThere(fs.stat(dir));
      if (stat === undefined) {
        const dead = await deadLink(dir);
        // It is made when it is first needed: a look changes nothing.
        if (create && dead === undefined) return { state: "attached" };
        return { state: "detached", reason: dead ?? `${dir} does not exist` };
      }
      if (!stat.isDirectory()) return { state: "detached", reason: `${dir} is not a directory` };
      return { state: "attached", epoch: `${stat.dev}:${stat.ino}` };
    } catch (error) {
      return { state: "detached", reason: (await withRights(faultOfErrno(error, `cannot use ${dir}`), "rx", dir)).message };
    }
  }
}
