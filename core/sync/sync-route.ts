/**
 * A mirror or two-way route at work: while both of its devices are attached, and something may have changed, one round after the other; never two at once.
 * What a person has to decide stops it until `approve`.
 */
import { join } from "node:path";
import { EMPTY, interval, merge, type Observable, of, tap } from "../rxjs.js";
import { bootId } from "../boot.js";
import type { Engine } from "../engine.js";
import { Fault, isFault } from "../errors.js";
import type { Lane } from "../lane.js";
import { Looks } from "../looks.js";
import { syncComesBack, syncHoldsState } from "../places.js";
import type { Memo } from "../plugin.js";
import { backoffMs, reasonOf } from "../retry.js";
import { bothSides, type Side, twoWay } from "../reconcile.js";
import { ownDir, Rules } from "../route.js";
import { joinSignals } from "../signals.js";
import { Throttle } from "../throttle.js";
import { Turns } from "../turns.js";
import { Asked } from "./asked.js";
import { Contested } from "./contested.js";
import { recover, unsyncedOf, type World } from "./carry.js";
import { DeviceReplica, type ReplicaGiven } from "./device-replica.js";
import { JournalStore, markKey } from "./journal-store.js";
import { MirrorTable } from "./mirror-table.js";
import { Known } from "./known.js";
import { ChunkIndex } from "./chunk-index.js";
import { routeNames } from "./route-names.js";
import { nameOf, routeId, type SyncConfig, titleOf } from "./options.js";
import { NoRoom } from "./no-room.js";
import { forgetAgreed, outlived, type OutlivedGiven } from "./outlived.js";
import { awayDir } from "./own-dir.js";
import { type Plan, planned } from "./plan.js";
import { Promised } from "./promised.js";
import { type Done, round } from "./round.js";
import { type Guards, hiddenIn, stillAgreed, stopIn, Stopped, stopOf, strangeIn, strangeText } from "./stop.js";
import { type Ages, lookEveryMs } from "./trash.js";

const defaultIntervalMs = 30_000;
/** So often the side of a mirror is listed, where its device has no interval of its own: it is known what this route put there. */
const followerIntervalMs = 3_600_000;
const triesOnce = 5;
/** For each file that a device is given, so many are under way: most of the time they wait for the journal's medium. Fewer where it takes many at once. */
const underWay = 8;
const pipelinedUnderWay = 3;
const inTheWay =
  "something that is not listed is in the way: a name that differs only in case or in how its letters are written, a file that changes all the time, what a side does not list and has all the same, or what this route leaves out in a directory that was removed";
/** What did not fit in so many rounds is told. */
const stuckRounds = 4;

export type SyncState =
  /** A device is away, or takes nothing now. */
  | "waiting"
  | "working"
  /** Both sides held the same when they were listed last, but for what `troubles` names. */
  | "even"
  /** A person has to look: `filesync plan` shows what it would do, `filesync approve` lets it go on once. */
  | "stopped"
  /** It can never work with these devices. */
  | "refused";

export class SyncRoute {
  /** "inbox:nas", as people name it in a command. */
  readonly name: string;
  state: SyncState = "waiting";
  #reason: string | undefined;
  /** The side that is waited for. */
  #away: Lane | undefined;
  /** What cannot be done, or could not be seen: path → reason. */
  left: ReadonlyMap<string, string> = new Map();
  /** What is brought, but could not be synced where it was read, or was lost there since: path → reason. */
  unsynced: ReadonlyMap<string, string> = new Map();
  /** Paths with which something is still to be done, of so many, as the last round knew it that came so far. */
  pending: { readonly paths: ReadonlySet<string>; readonly of: number } | undefined;
  /** Files that did not count as complete then. */
  settling: ReadonlySet<string> = new Set();
  /** Wall time of the last round that left both sides the same. */
  evenMs: number | undefined;
  /** Done since the start. */
  done = 0;
  /** The stays of its devices in which both sides were the same last, with nothing left to be done. */
  readonly #evenIn = new Map<Lane, string | undefined>();
  readonly #looks = new Looks((stop) => this.#round(stop));
  readonly #replicas: Readonly<Record<Side, DeviceReplica>>;
  readonly #world: World;
  readonly #own: Memo;
  #failures = 0;
  /** What the last round failed with, until one comes to its end. */
  #fault: string | undefined;
  /** What did not fit in so many rounds one after the other. */
  readonly #stuck = new Map<string, number>();
  readonly #contested = new Contested();
  readonly #mirror: MirrorTable | undefined;
  #turns: Readonly<Record<Side, Turns>> = { here: new Turns(), there: new Turns() };
  readonly #known = new Known();
  readonly #noRoom = new NoRoom();
  readonly #chunks: ChunkIndex;
  /** Something was agreed since what is kept of contents was looked through. */
  #agreed = true;
  #expiredMs = 0;
  /** The attachment in which it was looked for what other mirrors left aside. */
  #cleared: { readonly epoch: string | undefined } | undefined;
  /** What routes that came before this one had begun is ended, and what they had agreed forgotten. */
  #outlived = false;
  /** Only two-way: what belongs to a mirror nobody else writes, and it takes nothing away but to the trash. */
  readonly #promised: Promised | undefined;
  readonly asked: Asked;

  /** `id`: `routeId`; also of a route that was, for what it had begun. Throws Fault "config" where a device cannot be a side of it. */
  constructor(
    readonly engine: Engine,
    readonly config: SyncConfig,
    readonly here: Lane,
    readonly there: Lane,
    id = routeId(engine.names.installation, config),
  ) {
    const { clock, journal } = engine;
    const { mode } = config;
    this.name = nameOf(config);
    const store = new JournalStore(journal, id);
    const rules = new Rules(config.rules);
    const throttle = new Throttle(config.maxRate, clock);
    const made = routeNames(engine, id);
    const side = (on: Side, dir: string, more: Pick<ReplicaGiven, "marked" | "away" | "names" | "chunks">) =>
      new DeviceReplica({
        ...{ engine, lane: this[on], dir, rules, throttle, turns: () => this.#turns[on], route: id, title: this.title, ...more },
        agreed: (path) => store.base.get(path)?.[on],
        memo: (upload) => store.memo(upload),
        mark: {
          get: () => textIn(store.own.get(markKey(on))),
          set: (mark) => store.own.set(markKey(on), mark),
        },
      });
    const away = `${ownDir}/${awayDir}/${id}`;
    this.#chunks = new ChunkIndex(join(engine.config.stateDir, "chunks", id));
    this.#replicas = {
      here: side("here", "", { marked: config.deletes }),
      there: side("there", config.into, {
        ...{ marked: true, chunks: this.#chunks },
        ...(mode === "mirror" ? { away } : { names: made }),
      }),
    };
    const fresh = () => made.intent();
    this.#mirror = mode === "mirror" ? new MirrorTable(store, { deletes: config.deletes, away, fresh }) : undefined;
    this.#own = store.own;
    this.asked = new Asked(store.own, clock);
    this.#promised = mode === "mirror" ? undefined : new Promised({ lanes: { here, there }, replicas: this.#replicas, memo: store.own });
    const table = this.#mirror ?? { actions: twoWay };
    this.#world = {
      sides: this.#replicas,
      store,
      names: made,
      table,
      untaken: new Map(),
      boot: bootId(),
      unsynced: unsyncedOf(store),
      learned: new Map(),
      ...(mode === "mirror" ? { known: this.#known } : {}),
    };
  }

  /** As `status` shows it. */
  get title(): string {
    return titleOf(this.config);
  }

  /** Runs until `stop`; completes when the last round has ended. */
  async run(stop: AbortSignal): Promise<void> {
    const { here, there, config } = this;
    const own = ({ config: { intervalMs }, device }: Lane) => intervalMs ?? device.source?.features.intervalMs;
    const gateOf = ({ gate }: Lane): Observable<unknown> => gate?.changes$ ?? EMPTY;
    const hintsOf = ({ edge$, device }: Lane, intervalMs: number) =>
      merge(edge$, device.source?.changes$ ?? EMPTY, Number.isFinite(intervalMs) ? interval(intervalMs) : EMPTY);
    const hints$ =
      config.mode === "two-way"
        ? merge(...[here, there].map((lane) => hintsOf(lane, Math.min(own(here) ?? defaultIntervalMs, own(there) ?? defaultIntervalMs))))
        : merge(
            hintsOf(here, own(here) ?? defaultIntervalMs),
            hintsOf(there, there.config.intervalMs ?? followerIntervalMs).pipe(tap(() => this.#known.forget())),
          );
    // The first look is one for both.
    await this.#looks.run(merge(of(undefined), hints$, gateOf(here), gateOf(there)), stop);
  }

  /** What was too much for a budget may fit now. */
  hint(): void {
    this.#looks.hint();
  }

  /** A person says that it is time: also what was refused is tried. */
  retry(): void {
    for (const side of bothSides) this.#replicas[side].retry();
    this.#looks.hint();
  }

  /** Whether anything more can be done now: `--once` waits for that. */
  isBusy(upMs: number): boolean {
    if (this.state === "stopped" || this.state === "refused") return false;
    if (this.state === "waiting") {
      const sides = [this.here, this.there];
      if (sides.every(({ takes }) => takes)) return this.#failures < triesOnce;
      // A device may still be attaching; what a condition or budget holds back is left.
      return upMs < 15_000 && !sides.some(({ gate, state }) => state.attached && gate?.looked === true && gate.held !== undefined);
    }
    return this.state === "working" || this.settling.size > 0;
  }

  /** Nothing more is wanted of this device since it came, as far as the last round saw. */
  isDoneWith(lane: Lane): boolean {
    return this.#evenIn.has(lane) && this.#evenIn.get(lane) === lane.state.epoch;
  }

  /** That another machine has its turn, for a person; undefined: that is not what it waits for. */
  get turnText(): string | undefined {
    const sinceMs = this.#replicas.there.waitsSinceMs;
    if (sinceMs === undefined) return undefined;
    const seconds = Math.round((this.engine.clock.monotonicMs() - sinceMs) / 1000);
    return `another machine has its turn at ${this.there.name}, for ${seconds} s now; one that died is waited for about a minute`;
  }

  /** Why it is in its state, for a person. Of a side that is away as it is now: when that was looked at first nobody knew, perhaps. */
  get reason(): string | undefined {
    return this.#away === undefined || this.#away.takes ? this.#reason : awayText(this.#away);
  }

  /** What it leaves when nothing more can be done now, for a person; undefined: nothing. */
  get leftText(): string | undefined {
    if (this.state !== "even") return `${this.title}: ${this.reason ?? this.state}`;
    const [left, unsynced] = [this.left.size, this.unsynced.size];
    const texts = [
      ...(left === 0 ? [] : [`${left} ${left === 1 ? "path is left as it is" : "paths are left as they are"}`]),
      ...(unsynced === 0
        ? []
        : [`${unsynced} ${unsynced === 1 ? "path" : "paths"} could not be synced where ${unsynced === 1 ? "it was" : "they were"} read`]),
    ];
    return texts.length === 0 ? undefined : `${this.title}: ${texts.join(", and ")}`;
  }

  /** What a person is told: path → reason. */
  get troubles(): ReadonlyMap<string, string> {
    return new Map([...this.left, ...this.unsynced]);
  }

  /** What a person was asked is done, once. */
  approve(stop: Stopped): void {
    this.asked.approved = stop;
    this.#looks.hint();
  }

  /** What would stop a round now. Throws the Fault of a device. */
  stops(signal: AbortSignal): Promise<Stopped | undefined> {
    const { known: _, ...world } = this.#world;
    return stopOf(world, this.#guards(undefined), signal);
  }

  #guards(approved: Stopped | undefined): Guards {
    return {
      neverMarked: this.#neverMarked,
      named: this.named,
      maxDeletes: this.config.deletes ? this.config.maxDeletes : undefined,
      approved: approved?.gone,
      forgets: (hidden: Stopped) => approved?.covers(hidden) === true || this.asked.isApproved(hidden),
      // A mirror that has gone is made again, by itself.
      anew: bothSides.filter((side) => approved?.strange.includes(side) === true || !this.#asksAnew(side)),
    };
  }

  /** Why it cannot work with these devices, as far as it was tried, now or when it ran last. */
  get refusal(): string | undefined {
    return this.state === "refused" ? this.reason : this.#promised?.refusal;
  }

  /** The sides, as people know them. */
  get named(): Readonly<Record<Side, string>> {
    return { here: this.config.from, there: this.config.to };
  }

  readonly #neverMarked = (side: Side) => !this.#replicas[side].own.wasMarked;

  /** What a round would do now, where it may (`stop`); where a side is not the directory that was agreed with (`strange`), once what was agreed of `forgotten` is. Throws the Fault of a device. */
  async plan(
    signal: AbortSignal,
  ): Promise<Plan & { readonly strange: readonly Side[]; readonly forgotten: ReadonlySet<string>; readonly stop?: Stopped }> {
    const { known: _, ...world } = this.#world;
    const { base } = world.store;
    const plan = await planned(world, signal);
    const strange = strangeIn(plan.scans, base, this.#neverMarked);
    const stop = await stopIn(world, plan, strange, this.#guards(this.asked.approved), signal);
    if (stop !== undefined) this.asked.show(stop);
    const stops = stop === undefined ? {} : { stop };
    if (strange.length === 0) return { ...plan, strange, forgotten: new Set(), ...stops };
    const still = stillAgreed(strange, plan.scans, base, this.#neverMarked);
    const forgotten = new Set([...base.keys()].filter((path) => !still.has(path)));
    return { ...(await planned({ ...world, store: { base: still } }, signal)), strange, forgotten, ...stops };
  }

  /** Why a side is none that was agreed with, for a person. */
  strangeText(side: Side): string {
    return strangeText(this.named[side], this.#neverMarked(side));
  }

  /** What is done where such a side is begun with anew, for a person. */
  forgotten(side: Side): string {
    return this.#neverMarked(side) ? "what it does not hold any more is forgotten" : "what was agreed is forgotten";
  }

  /** Whether such a side is begun anew only when a person says so. */
  #asksAnew(side: Side): boolean {
    return this.config.mode === "two-way" || side === "here";
  }

  async #round(stop: AbortSignal): Promise<void> {
    this.#away = [this.here, this.there].find(({ takes }) => !takes);
    if (this.#away !== undefined) {
      this.#now("waiting", awayText(this.#away));
      return;
    }
    // What cannot be resumed is not broken off by a condition that is no longer met.
    const gates = [this.here, this.there].flatMap(({ device, gate }) =>
      device.target?.features.resume === true ? (gate?.signal ?? []) : [],
    );
    const { signal, release } = joinSignals(stop, ...gates);
    try {
      // What stopped it stops the next round too, as a rule; and what was even is so until something else is seen.
      if (this.state === "waiting") this.#now("working", this.#fault === undefined ? undefined : `the round before failed: ${this.#fault}`);
      await this.#once(signal);
      this.#failures = 0;
      this.#fault = undefined;
      for (const lane of [this.here, this.there]) lane.noteSuccess();
    } catch (error) {
      if (stop.aborted) return;
      if (this.engine.journal.failed) throw error;
      // The next round says what is not met, or used up: a gate that closes is a hint.
      if (signal.aborted || isFault(error, "aborted")) return;
      if (error instanceof Stopped && (await this.asked.takeApproval(error))) this.approve(error);
      else this.#failed(error);
    } finally {
      release();
      await this.#replicas.there.rest(stop);
    }
  }

  async #once(stop: AbortSignal): Promise<void> {
    const { config, engine } = this;
    const { approved } = this.asked;
    const stays = new Map([this.here, this.there].map((lane) => [lane, lane.state.epoch]));
    const slots = [this.here.slots("source"), this.there.slots("target")];
    if (config.mode === "two-way") slots.push(this.here.slots("target"), this.there.slots("source"));
    const atOnce = Math.max(1, Math.min(...slots));
    const turns = (lane: Lane) => new Turns(atOnce, () => lane.pipeline);
    this.#turns = { here: turns(this.here), there: turns(this.there) };
    const pipelined = [this.here, this.there].map(({ device }) => pipelinedUnderWay * (device.target?.features.pipeline?.uploads ?? 0));
    const rules = {
      ...this.#guards(approved),
      begunAnew: (side: Side) =>
        engine.events.say(
          "warn",
          "sync-anew",
          `${this.title}: the directory of ${this.named[side]} is ${this.#neverMarked(side) ? "taken as it is" : "not the one of before"}: ${this.forgotten(side)}, and nothing is removed`,
          { route: this.name },
        ),
      told: (plan: Plan) => {
        if (config.mode === "mirror") this.#warn(new Map(this.#contested.note(plan).map((path) => [path, this.#contestedText])));
        this.#pends(plan);
      },
      lost: (told: ReadonlyMap<string, string>) => {
        this.#warn(told);
        this.unsynced = new Map([...this.unsynced, ...told]);
      },
      together: Math.max(atOnce * underWay, ...pipelined),
      noRoom: this.#noRoom,
      before: async (side: Side, signal: AbortSignal) => {
        await this.#promised?.tryOut(side, signal);
        await this.#replicas[side].lookAtClock(signal);
        if (side === "there") await this.#clearAway(signal);
      },
      begins: () => {
        if (this.state === "stopped" || this.state === "refused") this.#now("working", undefined);
        return this.#forgetOutlived(stop);
      },
    };
    // What is a link may lead elsewhere since the configuration was read.
    const back = syncComesBack(engine.config.devices, config) ?? syncHoldsState(engine.config, config);
    if (back !== undefined) throw new Fault("config", back);
    // Not both directories listed, only to be refused again.
    this.#promised?.expect();
    await this.#endOutlived(stop);
    const result = await round(this.#world, rules, stop);
    // Not what was approved meanwhile.
    if (!result.more && this.asked.approved === approved) this.asked.approved = undefined;
    await this.asked.takeApproval();
    this.done += result.done;
    const { left } = result;
    if (this.pending !== undefined) this.pending = { ...this.pending, paths: new Set([...left, ...result.failed.keys()]) };
    for (const path of this.#stuck.keys()) if (!left.has(path)) this.#stuck.delete(path);
    for (const path of left) this.#stuck.set(path, (this.#stuck.get(path) ?? 0) + 1);
    this.#tell(result);
    const { broke } = result;
    if (broke !== undefined) {
      this.#agreed ||= result.done > 0;
      // What is old enough makes room.
      await this.#expire(stop);
      if (broke.kind !== "full") throw broke;
      throw new Fault(
        "full",
        `${broke.message}; make room there: what was removed and replaced is in .filesync/trash, as long as "trashKeep" says`,
      );
    }
    if (result.done > 0) this.#agreed = true;
    const rounds = Math.max(0, ...this.#stuck.values());
    // What did not fit is decided anew; what was done may have made room for more. Not for ever: what a side does not list may be done again in each round.
    if (result.done > 0 && (result.more || rounds < stuckRounds)) this.#looks.hint();
    else if (left.size > 0) {
      this.#looks.hintIn(backoffMs(rounds - 1, engine.upMs(), engine.random()));
      if (rounds >= stuckRounds) this.#now("even", undefined);
    } else {
      await this.#expire(stop);
      await this.#forgetChunks();
      // As long as something does not go otherwise either it would only be tried again.
      if (result.failed.size === 0) this.#mirror?.forget();
      this.evenMs = engine.clock.wallMs();
      this.#now("even", undefined);
      if (result.settling === 0) this.#isDone(stays);
    }
    if (result.settling > 0) this.#looks.hintIn(Math.max(500, this.here.config.settleMs, this.there.config.settleMs));
  }

  get #beside(): OutlivedGiven {
    const { names, config, journal } = this.engine;
    return { journal, running: new Set(config.syncs.map((one) => routeId(names.installation, one))), sides: this.#replicas };
  }

  /** Once, before anything is listed: what such a route had taken aside when it was killed may be nowhere else. */
  async #endOutlived(signal: AbortSignal): Promise<void> {
    if (this.#outlived) return;
    const { engine, here, there, config } = this;
    const { target, tree } = here.device;
    const deletes = config.deletes || (target !== undefined && tree !== undefined);
    // What it was nobody knows: only a two-way route has what others may want in a hold, and its way of ending things is the more careful one.
    const modes = deletes ? (["two-way", config.mode] as const) : [config.mode];
    const turnedAs = { from: config.to, to: config.from };
    for (const { route, turned } of await outlived(this.#beside, "intents", signal)) {
      // A side below a root can only be the other one: what that had begun stays.
      if (turned && config.into !== "") continue;
      const [was, sides] = turned ? [{ ...config, ...turnedAs }, [there, here] as const] : [config, [here, there] as const];
      for (const [n, mode] of modes.entries())
        try {
          await new SyncRoute(engine, { ...was, deletes, mode }, ...sides, route).#endBegun(signal);
          break;
        } catch (error) {
          // Where a side promises too little for that it was a mirror.
          if (!isFault(error, "config") || (n === modes.length - 1 && !turned)) throw error;
        }
    }
  }

  async #endBegun(signal: AbortSignal): Promise<void> {
    try {
      await recover(this.#world, new Map(), [], async (side) => this.#promised?.tryOut(side, signal), signal);
    } finally {
      await this.#replicas.there.rest(signal);
    }
  }

  /** Once: none of them comes back without another start of this. */
  async #forgetOutlived(signal: AbortSignal): Promise<void> {
    if (this.#outlived) return;
    const { journal, events } = this.engine;
    const routes = await outlived(this.#beside, "agreed", signal);
    if (routes.length > 0) {
      await forgetAgreed(journal, routes);
      events.say(
        "info",
        "sync-anew",
        `${this.title}: what a route of another name or mode had agreed between these directories is forgotten`,
        {
          route: this.name,
        },
      );
    }
    this.#outlived = true;
  }

  #isDone(stays: ReadonlyMap<Lane, string | undefined>): void {
    for (const [lane, epoch] of stays) {
      if (this.isDoneWith(lane)) continue;
      this.#evenIn.set(lane, epoch);
      // It may be unmounted.
      lane.wake$.next();
    }
  }

  /** Of what is not agreed any more. */
  async #forgetChunks(): Promise<void> {
    if (!this.#agreed) return;
    try {
      await this.#chunks.keep(new Set([...this.#world.store.base.values()].flatMap(({ digest }) => digest ?? [])));
      this.#agreed = false;
    } catch (error) {
      this.engine.events.say("debug", "spliced", `${this.title}: what files were made of cannot be taken away: ${reasonOf(error)}`);
    }
  }

  get #contestedText(): string {
    return `others changed it at ${this.named.there} again and again, and each time what they put there goes to the trash: where that is another mirror, give each a directory of its own ("into")`;
  }

  #pends(plan: Plan): void {
    const { actions, tables, scans } = plan;
    const { base, here, there } = tables;
    if (this.state !== "stopped") this.asked.show(hiddenIn(plan, this.named));
    const noted = new Set(["adopt", "forget", "learn"]);
    const isOurs = (path: string) => path.startsWith(`${ownDir}/`);
    const known = new Set([...base.keys(), ...here.keys(), ...there.keys()].filter((path) => !isOurs(path)));
    const paths = new Set(actions.flatMap(({ do: what, path }) => (noted.has(what) || isOurs(path) ? [] : [path])));
    this.pending = { paths, of: new Set([...known, ...paths]).size };
    this.settling = new Set([...scans.here.settling, ...scans.there.settling]);
    if (paths.size + this.settling.size > 0) this.#evenIn.clear();
    if (this.state === "even" && paths.size > 0) this.#now("working", undefined);
  }

  /** Now and then, by a clock that can be believed. */
  async #expire(signal: AbortSignal): Promise<void> {
    const { clock, events } = this.engine;
    const nowMs = clock.wallMs();
    if (!clock.trusted() || Math.abs(nowMs - this.#expiredMs) < lookEveryMs(this.config.trashKeepMs)) return;
    for (const side of this.config.mode === "mirror" ? (["there"] as const) : bothSides) {
      const key = `trash ${side}`;
      const was = (this.#own.get(key) as Ages | undefined) ?? {};
      const open = [...this.#world.store.intents.values()].flatMap(({ on, old }) => (on === side && old !== undefined ? [old.trash] : []));
      const { gone: days, ages, stays } = await this.#replicas[side].own.expire(was, this.config.trashKeepMs, nowMs, open, signal);
      await this.#own.set(key, ages);
      if (days > 0)
        events.say(
          "info",
          "expired",
          `${this.title}: the trash at ${this.named[side]}: ${days === 1 ? "1 day is old enough, and is" : `${days} days are old enough, and are`} gone`,
        );
      for (const [day, why] of stays)
        events.say(
          "warn",
          "expired",
          `${this.title}: the trash at ${this.named[side]}: ${day} is old enough, and something of it cannot be removed: ${why}; it stays until a person removes it there`,
          { route: this.name },
        );
    }
    this.#expiredMs = nowMs;
  }

  #tell({ done, failed, unsynced, unseen }: Done): void {
    const { events } = this.engine;
    if (done > 0)
      events.say("info", "synced", `${this.title}: ${done} ${done === 1 ? "change" : "changes"}`, { route: this.name, count: done });
    const hidden = (device: string, of: ReadonlyMap<string, string>) => [...of].map(([path, why]) => [`${device}:${path}`, why] as const);
    const stuck = [...this.#stuck].flatMap(([path, rounds]) => (rounds < stuckRounds ? [] : [[path, inTheWay] as const]));
    const unseenAt = [...hidden(this.config.from, unseen.here), ...hidden(this.config.to, unseen.there)];
    const left = new Map([...failed, ...stuck, ...unseenAt]);
    const brought = new Map([...unsynced].filter(([path]) => !left.has(path)));
    this.#warn(new Map([...brought, ...left]));
    [this.left, this.unsynced] = [left, brought];
  }

  /** Each once, as long as it is there. */
  #warn(troubles: ReadonlyMap<string, string>): void {
    const told = this.troubles;
    for (const [path, why] of troubles)
      if (withoutNames(told.get(path)) !== withoutNames(why))
        this.engine.events.say("warn", "sync-trouble", `${this.title}: ${path}: ${why}`, { route: this.name, path, reason: why });
  }

  #failed(error: unknown): void {
    if (isFault(error, "config")) {
      this.#now("refused", error.message);
      return;
    }
    if (error instanceof Stopped) {
      // As it was told first, or `plan` showed it: what is removed meanwhile nobody has seen.
      if (this.state !== "stopped") this.asked.show(error);
      this.#fault = undefined;
      this.#evenIn.clear();
      this.#now(
        "stopped",
        `${error.message}: nothing is changed until a person said so; filesync plan ${this.name} shows it, filesync approve ${this.name} lets it go on`,
      );
      return;
    }
    const away = isFault(error, "offline");
    this.engine.events.say(this.#failures === 0 && !away ? "warn" : "debug", "sync-failed", `${this.title}: ${reasonOf(error)}`, {
      route: this.name,
    });
    this.#fault = reasonOf(error);
    this.#now("waiting", this.#fault);
    this.#looks.hintIn(backoffMs(this.#failures++, this.engine.upMs(), this.engine.random()));
  }

  #now(state: SyncState, reason: string | undefined): void {
    const news = state !== this.state || reason !== this.#reason;
    this.state = state;
    this.#reason = reason;
    if (news && (state === "stopped" || state === "refused"))
      this.engine.events.say("error", "sync-stopped", `${this.title}: ${reason ?? state}`, { route: this.name });
  }

  /** What another mirror left aside there is looked for once for each attachment. */
  async #clearAway(signal: AbortSignal): Promise<void> {
    const { epoch } = this.there.state;
    if (this.#cleared !== undefined && this.#cleared.epoch === epoch) return;
    const { names } = this.#world;
    const { moved, stays } = await this.#replicas.there.own.clearAway((name) => names.trash("there", name, names.intent()), signal);
    this.#cleared = { epoch };
    const left = `what a mirror that does not run any more (one of another name, or that lost its state) had put aside at ${this.named.there}`;
    const say = (text: string) => this.engine.events.say("warn", "sync-aside", `${this.title}: ${left} ${text}`, { route: this.name });
    for (const path of moved) say(`is in the trash now, as ${path}: it may be the only copy of a file of others there`);
    for (const [path, { message }] of stays) say(`is in ${path}, and cannot be moved to the trash: ${message}; look at it there`);
  }
}

const awayText = ({ name, held, state }: Lane) => `${name}: ${held?.reason ?? state.reason ?? "detached"}`;

/** Where clients take turns each try names another directory. */
const withoutNames = (why: string | undefined) => why?.replaceAll(/[0-9a-f]{12,}/g, "");

const textIn = (value: unknown) => (typeof value === "string" ? value : undefined);
