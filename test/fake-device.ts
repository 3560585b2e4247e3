/** Devices in memory, and an engine over them in this process: every call is seen, and a test decides what it does. */
import { cpSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import type { TestContext } from "node:test";
import { BehaviorSubject, Subject } from "rxjs";
import { RealClock } from "../core/clock.js";
import type { Config, DeviceConfig } from "../core/config.js";
import { Daemon } from "../core/daemon.js";
import { Digester } from "../core/digest.js";
import { abortedFault, Fault, isFault, throwIfAborted } from "../core/errors.js";
import { type Event, Events } from "../core/events.js";
import { notePassed } from "../core/passed.js";
import type {
  Device,
  Digest,
  DigestKind,
  Expect,
  FileEntry,
  Occupant,
  Plugin,
  Presence,
  Receipt,
  Source,
  Stamp,
  Target,
  TargetFeatures,
  Tree,
  Upload,
} from "../core/plugin.js";
import type { Route, RouteTarget } from "../core/route.js";

function digestOf(kind: DigestKind, bytes: Uint8Array): Digest {
  const digester = new Digester(kind);
  digester.update(bytes);
  return digester.value();
}

export const sha256 = (bytes: Uint8Array): Digest => digestOf("sha256", bytes);
export const crc32 = (bytes: Uint8Array): Digest => digestOf("crc32-mavlink", bytes);

/** The contract: every call ends soon after its signal. */
async function withSignal(done: Promise<void> | undefined, signal: AbortSignal): Promise<void> {
  throwIfAborted(signal);
  let leave = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    leave = () => reject(abortedFault(signal));
    signal.addEventListener("abort", leave, { once: true });
  });
  try {
    await Promise.race([done, aborted]);
  } finally {
    signal.removeEventListener("abort", leave);
  }
}

interface FakeFile {
  bytes: Buffer;
  modifiedMs: number;
}

/** A source or target in memory. It outlives the daemons that use it. */
export class FakeDevice {
  readonly presence$ = new BehaviorSubject<Presence>({ state: "attached", epoch: "1" });
  /** Of it as a source. */
  readonly changes$ = new Subject<void>();
  readonly files = new Map<string, FakeFile>();
  readonly partials = new Map<string, Buffer>();
  /** What was called, in order: "open a.bin 0", "write a.bin 0", "commit a.bin", "remove a.bin". */
  readonly calls: string[] = [];
  /** How often it hands on what is written to it. */
  handsOn = 1;
  /** So many bytes it takes as a target. */
  room = Infinity;
  /** What it has no room for was handed on all the same, as over a wire. */
  handsAll = false;
  /** To tell how much it has of a file it compares that with the file, or does without where that has gone. */
  compares: boolean | "or not" = false;
  /** Is awaited before each call is done; throws what the call shall throw. */
  before: (call: string, signal: AbortSignal) => Promise<void> | undefined = () => undefined;
  /** Is awaited once a call that changed something is done, with its answer; throws where that is lost. */
  after: (call: string, signal: AbortSignal) => Promise<void> | undefined = () => undefined;
  /** Its `commit` tells that it asks for the name once `before` has let it, not before. */
  looksFirst = false;
  /** As a target it cannot be looked at. */
  blind = false;
  /** Its listings tell no times. */
  timeless = false;
  /** Its listings say of files that they are complete. */
  settles = true;
  /** What its own clock says as a source, where it can be asked. */
  clock: (() => number) | undefined;
  /** What its listings name beside its files. */
  besides: readonly FileEntry[] = [];
  besidesFirst = false;
  openNow = 0;
  openMost = 0;
  /** The medium that is in, where it takes such. */
  medium: string | undefined;
  /** What holds its files; another one while they are not mounted. */
  volume = "its disk";
  /** How often core said that nothing more is wanted of it. */
  rests = 0;

  constructor(
    readonly name: string,
    readonly features: {
      inPlace?: boolean;
      doubtedBytes?: number;
      concurrency?: number;
      crc?: (bytes: Buffer) => Digest;
      target?: Partial<TargetFeatures>;
      chunk?: number;
      tree?: boolean;
      /** A path on this machine for each file: what is there is the test's business. */
      localPath?: (path: string) => string | undefined;
    } = {},
  ) {}

  put(path: string, bytes: Buffer | string, modifiedMs = Date.UTC(2026, 4, 1)): void {
    this.files.set(path, { bytes: Buffer.from(bytes), modifiedMs });
  }

  attach(attached: boolean): void {
    this.presence$.next(attached ? { state: "attached", epoch: String(Math.random()) } : { state: "detached", reason: "unplugged" });
  }

  /** Takes out what is in, and puts in another medium with these files; undefined: none. */
  insert(medium: string | undefined, files: ReadonlyMap<string, FakeFile> = new Map()): void {
    this.medium = medium;
    this.files.clear();
    for (const [path, file] of files) this.files.set(path, file);
    if (medium === undefined) this.presence$.next({ state: "detached", reason: "nothing is in" });
    else this.presence$.next({ state: "attached", epoch: String(Math.random()), media: [medium] });
  }

  protected async call(call: string, signal: AbortSignal): Promise<void> {
    this.calls.push(call);
    await withSignal(this.before(call, signal), signal);
  }

  #entry(path: string): FileEntry | undefined {
    const file = this.files.get(path);
    if (file === undefined) return undefined;
    const { bytes, modifiedMs } = file;
    return {
      path,
      kind: "file",
      size: bytes.length,
      ...(this.timeless ? {} : { modifiedMs }),
      ...this.#on(),
      ...(this.settles ? { settled: true } : {}),
    };
  }

  #on(): { medium?: string } {
    return this.medium === undefined ? {} : { medium: this.medium };
  }

  readonly #plugins = new Map<string, Plugin<unknown>>();

  /** The same each time: a reload finds nothing changed. */
  plugin(role: "source" | "target"): Plugin<unknown> {
    const plugin =
      this.#plugins.get(role) ?? ({ type: "fake", roles: [role], device: () => this.device(role) } as unknown as Plugin<unknown>);
    this.#plugins.set(role, plugin);
    return plugin;
  }

  device(role: "source" | "target"): Device {
    return {
      presence$: this.presence$,
      probe: (signal) => this.call("probe", signal),
      close: () => Promise.resolve(),
      rest: () => void (this.rests += 1),
      ...(role === "source"
        ? { source: this.#source(), ...(this.features.tree === true ? { tree: this.#answering(this.#tree(), "move", "remove") } : {}) }
        : { target: this.#answering(this.#target(), "write", "commit", "discard") }),
    };
  }

  /** The same, whose answers to these may be lost. */
  #answering<T extends Tree | Target>(of: T, ...calls: readonly (keyof T & string)[]): T {
    const answering = { ...of };
    for (const call of calls) {
      const work = of[call] as (...given: unknown[]) => Promise<unknown>;
      const answered = async (...given: unknown[]) => {
        const answer = await work(...given);
        const signal = given.find((it) => it instanceof AbortSignal);
        if (signal !== undefined) await withSignal(this.after(call, signal), signal);
        return answer;
      };
      Object.assign(answering, { [call]: answered });
    }
    return answering;
  }

  #source(): Source {
    const { features } = this;
    return {
      features: {
        ranges: true,
        digests: features.crc === undefined ? [] : ["crc32-mavlink"],
        concurrency: features.concurrency ?? 2,
        inPlace: features.inPlace === true,
        ...(features.doubtedBytes === undefined ? {} : { doubtedBytes: features.doubtedBytes }),
      },
      changes$: this.changes$,
      ...(this.clock === undefined ? {} : { now: this.clock }),
      list: (signal) => this.#list(signal),
      stat: async (path, signal) => {
        await this.call(`stat ${path}`, signal);
        return this.#entry(path);
      },
      open: async (entry, offset, signal) => {
        await this.call(`open ${entry.path} ${offset}`, signal);
        this.#expectIn(entry);
        const file = this.files.get(entry.path);
        const bytes = file?.bytes.subarray(offset, entry.size) ?? Buffer.alloc(0);
        const short = file === undefined ? "missing" : "changed";
        const ends = offset + bytes.length < entry.size ? new Fault(short, `it ended after ${offset + bytes.length} bytes`) : undefined;
        this.openMost = Math.max(this.openMost, ++this.openNow);
        const stream = Readable.from(this.#chunks(entry.path, offset, bytes, ends, signal), { objectMode: false });
        stream.once("close", () => (this.openNow -= 1));
        return stream;
      },
      ...(features.inPlace === true
        ? {
            volume: async (dir: string, signal: AbortSignal) => {
              await this.call(`volume ${dir}`, signal);
              return this.volume;
            },
          }
        : {}),
      ...(features.localPath === undefined ? {} : { localPath: (entry: FileEntry) => features.localPath?.(entry.path) }),
      ...(features.crc === undefined
        ? {}
        : {
            digest: async (entry: FileEntry, _kind: unknown, signal: AbortSignal) => {
              await this.call(`digest ${entry.path}`, signal);
              this.#expectIn(entry);
              return features.crc?.(this.files.get(entry.path)?.bytes.subarray(0, entry.size) ?? Buffer.alloc(0));
            },
          }),
    };
  }

  async *#list(signal: AbortSignal): AsyncGenerator<FileEntry> {
    await this.call("list", signal);
    if (this.besidesFirst) yield* this.besides;
    for (const path of [...this.files.keys()]) {
      const entry = this.#entry(path);
      if (entry !== undefined) yield entry;
    }
    if (!this.besidesFirst) yield* this.besides;
  }

  async *#chunks(path: string, offset: number, bytes: Buffer, ends: Fault | undefined, signal: AbortSignal): AsyncGenerator<Buffer> {
    const size = this.features.chunk ?? 65536;
    for (let at = 0; at < bytes.length; at += size) {
      await withSignal(this.before(`read ${path} ${offset + at}`, signal), signal);
      yield bytes.subarray(at, at + size);
    }
    if (ends !== undefined) throw ends;
  }

  #tree(): Tree {
    const none = () => Promise.reject(new Error("not here"));
    return {
      list: () => this.#list(new AbortController().signal),
      stat: (path) => Promise.resolve(this.#entry(path)),
      ...{ mkdir: none, makeNew: none, rmdir: none, tryOut: none },
      move: async (from: string, to: string, expect: Stamp, signal: AbortSignal) => {
        await this.call(`move ${from} ${to}`, signal);
        if (this.files.has(to)) throw new Fault("conflict", "something is there");
        const file = this.files.get(from);
        this.#take(from, expect);
        if (file !== undefined) this.files.set(to, file);
      },
      remove: async (path: string, expect: Stamp, signal: AbortSignal) => {
        await this.call(`remove ${path}`, signal);
        this.#take(path, expect);
      },
    };
  }

  #expectIn({ medium }: Stamp): void {
    if (medium !== this.medium) throw new Fault("offline", "another medium is in");
  }

  #take(path: string, expect: Stamp): void {
    this.#expectIn(expect);
    const entry = this.#entry(path);
    if (entry !== undefined && (entry.size !== expect.size || entry.modifiedMs !== expect.modifiedMs))
      throw new Fault("changed", "another file");
    this.files.delete(path);
  }

  #used(): number {
    return [...this.partials.values(), ...[...this.files.values()].map(({ bytes }) => bytes)].reduce((sum, { length }) => sum + length, 0);
  }

  #target(): Target {
    const digests = this.features.target?.digests ?? ["sha256"];
    const occupant = (path: string): Occupant | undefined => {
      const file = this.files.get(path);
      if (file === undefined) return undefined;
      return {
        occupied: true,
        size: file.bytes.length,
        ...(digests.length > 0 ? { digest: sha256(file.bytes), proof: "digest" as const } : {}),
      };
    };
    return {
      features: {
        needs: "stream",
        resume: true,
        atomic: true,
        tellsNaming: true,
        singleShot: false,
        concurrency: 2,
        ...this.features.target,
        digests,
      },
      offset: async (upload, signal) => {
        await this.call(`offset ${upload.path}`, signal);
        const held = this.partials.get(upload.partialPath)?.length ?? 0;
        try {
          if (this.compares !== false) for await (const _ of upload.read(Math.max(0, held - 1), signal)) break;
        } catch (error) {
          if (this.compares === true || !isFault(error, "missing")) throw error;
        }
        return held;
      },
      write: async (upload: Upload, offset, signal, onBytes) => {
        await this.call(`write ${upload.path} ${offset}`, signal);
        const there = this.partials.get(upload.partialPath)?.length ?? 0;
        if (there !== offset) throw new Fault("conflict", `the partial has ${there} bytes, not ${offset}`);
        for await (const chunk of upload.read(offset, signal)) {
          const before = this.partials.get(upload.partialPath) ?? Buffer.alloc(0);
          const taken = (chunk as Buffer).subarray(0, this.room - this.#used());
          this.partials.set(upload.partialPath, Buffer.concat([before, taken]));
          for (let n = 0; n < this.handsOn; n++) onBytes((this.handsAll ? (chunk as Buffer) : taken).length);
          if (taken.length < (chunk as Buffer).length) throw new Fault("full", "no space is left");
        }
        if (!this.partials.has(upload.partialPath)) this.partials.set(upload.partialPath, Buffer.alloc(0));
      },
      commit: async (upload: Upload, signal): Promise<Receipt | Occupant> => {
        const unnamed = upload.naming !== undefined;
        if (!this.looksFirst) upload.naming?.();
        await this.call(`commit ${upload.path}`, signal);
        const there = occupant(upload.path);
        const partial = this.partials.get(upload.partialPath);
        // It was given its name before.
        if (partial === undefined && there?.size === upload.size && !unnamed)
          return {
            path: upload.path,
            size: upload.size,
            ...(there.digest === undefined ? { proof: "size" } : { digest: there.digest, proof: "digest" }),
          };
        const { expect } = upload;
        const isOurs = ({ size, digest }: Extract<Expect, { kind: "replaces" }>) =>
          there?.size === size && (digest === undefined || there.digest === undefined || there.digest === digest);
        const replaced = expect.kind === "replaces" && isOurs(expect);
        if (there !== undefined && !replaced) return there;
        if (partial?.length !== upload.size)
          throw new Fault(
            partial !== undefined && partial.length < upload.size ? "transient" : "conflict",
            `the partial has ${partial?.length ?? 0} bytes, not ${upload.size}`,
          );
        if (digests.length > 0 && upload.digest !== undefined && upload.digest !== sha256(partial))
          throw new Fault("mismatch", "it has another digest");
        upload.naming?.();
        this.files.set(upload.path, { bytes: partial, modifiedMs: upload.modifiedMs ?? 0 });
        this.partials.delete(upload.partialPath);
        const proved = digests.length > 0 ? ({ digest: sha256(partial), proof: "digest" } as const) : ({ proof: "size" } as const);
        return { path: upload.path, size: partial.length, ...proved };
      },
      discard: async (upload, signal) => {
        await this.call(`discard ${upload.path}`, signal);
        this.partials.delete(upload.partialPath);
      },
      ...(this.blind
        ? {}
        : {
            look: async (upload: Upload, signal: AbortSignal) => {
              await this.call(`look ${upload.path}`, signal);
              return occupant(upload.path);
            },
          }),
    };
  }
}

/** A clock whose wall time a test sets. */
export class SetClock extends RealClock {
  offsetMs = 0;
  upMs = Infinity;
  override wallMs(): number {
    return Date.now() + this.offsetMs;
  }
  override machineUpMs(): number {
    return this.upMs;
  }
}

type Devices = { readonly sources: readonly FakeDevice[]; readonly targets: readonly FakeDevice[] };
type Routes = readonly (Partial<Omit<Route, "to">> & {
  readonly from: string;
  readonly to: readonly (string | (Partial<RouteTarget> & { readonly device: string }))[];
})[];
type Options = { readonly vehicle?: string; readonly maxSize?: number; readonly device?: Partial<DeviceConfig> };

/** A state directory, and daemons on it one after another. */
export class Bench {
  readonly dir = mkdtempSync(join(tmpdir(), "filesync-bench-"));
  readonly clock = new SetClock(false);
  readonly events: Event[] = [];
  readonly #said = new Events();
  #daemon: Daemon | undefined;

  constructor(t: TestContext) {
    this.#said.all$.subscribe((event) => this.events.push(event));
    t.after(async () => {
      await this.stop();
      rmSync(this.dir, { recursive: true, force: true });
    });
  }

  /** So many days pass while it runs, so that each counts: a clock that is set by more than a week, or a quarter of what is to pass, is not believed. */
  async pass(days: number, eachMs = this.daemon.engine.config.spool.keep / 4): Promise<void> {
    for (let leftMs = days * 86_400_000; leftMs > 0; leftMs -= eachMs) {
      this.clock.offsetMs += Math.min(leftMs, eachMs);
      await notePassed(this.daemon.engine);
    }
  }

  get daemon(): Daemon {
    if (this.#daemon === undefined) throw new Error("not started");
    return this.#daemon;
  }

  async start(devices: Devices, routes: Routes, options: Options = {}): Promise<Daemon> {
    const config = this.#config(devices, routes, options);
    this.#daemon = new Daemon({ config, events: this.#said, programVersion: "test", clock: this.clock, machine: "test" });
    await this.#daemon.start();
    return this.#daemon;
  }

  /** SIGHUP. Devices with the same name and options go on. */
  async reload(devices: Devices, routes: Routes, options: Options = {}): Promise<void> {
    await this.daemon.reload(this.#config(devices, routes, options));
  }

  #config(devices: Devices, routes: Routes, options: Options): Config {
    const device = (fake: FakeDevice, role: "source" | "target"): DeviceConfig => ({
      name: fake.name,
      kind: "device",
      type: "fake",
      plugin: fake.plugin(role),
      options: {},
      settleMs: 0,
      ...options.device,
    });
    return {
      vehicle: options.vehicle ?? "v",
      metered: [],
      onEvent: [],
      stateDir: this.dir,
      spool: { maxSize: options.maxSize ?? 2 ** 30, keepFree: 0, keep: 7 * 86_400_000 },
      journal: { keep: 365 * 86_400_000 },
      devices: [...devices.sources.map((fake) => device(fake, "source")), ...devices.targets.map((fake) => device(fake, "target"))],
      routes: routes.map((route) => ({
        include: [],
        exclude: [],
        minSize: 0,
        maxSize: Number.MAX_SAFE_INTEGER,
        priority: "newest",
        weight: 1,
        into: "",
        afterDelivery: "keep",
        trustSize: false,
        ...route,
        to: route.to.map((to) => ({ required: true, requires: [], ...(typeof to === "string" ? { device: to } : to) })),
      })),
      syncs: [],
      routeCount: routes.length,
    };
  }

  /** As kill -9 at this moment: the next start finds the state directory as it is now. */
  async kill(): Promise<void> {
    const image = `${this.dir}.image`;
    cpSync(this.dir, image, { recursive: true, filter: (path) => !path.endsWith("-shm") && !path.endsWith("/reserve") });
    await this.stop();
    rmSync(this.dir, { recursive: true });
    renameSync(image, this.dir);
  }

  /** Starts, and is killed when a call that begins so is made to a device: that call does nothing but `meanwhile`, and never ends. */
  async killedAt(device: FakeDevice, call: string, start: () => Promise<unknown>, meanwhile: () => void = () => undefined): Promise<void> {
    let met = (): void => undefined;
    const there = new Promise<void>((resolve) => (met = resolve));
    device.before = (made) => {
      if (!made.startsWith(call)) return undefined;
      meanwhile();
      met();
      return new Promise(() => undefined);
    };
    await start();
    await there;
    await this.kill();
    device.before = () => undefined;
  }

  async stop(): Promise<void> {
    const daemon = this.#daemon;
    this.#daemon = undefined;
    await daemon?.stop();
  }

  states(target: string): string[] {
    return this.daemon.engine.journal
      .all<{ state: string }>("SELECT state FROM deliveries WHERE target = ? ORDER BY path, state", target)
      .map(({ state }) => state);
  }
}

/** Looks until it is so; fails, with what was said, after `ms`. */
export async function until(bench: Bench, what: string, isSo: () => boolean, ms = 15_000): Promise<void> {
  const before = performance.now();
  while (!isSo()) {
    if (performance.now() - before > ms)
      throw new Error(
        `not within ${ms} ms: ${what}\n${bench.events
          .map(({ message }) => message)
          .slice(-30)
          .join("\n")}`,
      );
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
