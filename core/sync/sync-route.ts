/**
 * A mirror or two-way route at work: while both of its devices are attached, and something may have changed, one round after the other; never two at once.
 * What a person has to decide stops it until `approve`.
 */
import { randomBytes } from "node:crypto";
import { EMPTY, merge, tap, timer } from "rxjs";
import type { Engine } from "../engine.js";
import { Fault, isFault } from "../errors.js";
import type { Lane } from "../lane.js";
import { Looks } from "../looks.js";
import type { TreePromises } from "../plugin.js";
import { backoffMs, reasonOf } from "../retry.js";
import { type Side, type Tables, twoWay } from "../reconcile.js";
import { mirror } from "../reconcile-mirror.js";
import { asPart, beforeExt, Rules, shortHash } from "../route.js";
import { Throttle } from "../throttle.js";
import { Turns } from "../turns.js";
import type { Names, World } from "./carry.js";
import { awayDir, DeviceReplica, ownDir, type ReplicaGiven, trashDir } from "./device-replica.js";
import { JournalStore } from "./journal-store.js";
import { Known } from "./known.js";
import { nameOf, type SyncConfig, titleOf } from "./options.js";
import { type Done, type Plan, planned, round, Stopped } from "./round.js";

const defaultIntervalMs = 30_000;
/** So often the side of a mirror is listed, where its device has no interval of its own: it is known what this route put there. */
const followerIntervalMs = 3_600_000;
const triesOnce = 5;
/** For each file that a device is given, so many are under way: most of the time they wait for the journal's medium. */
const underWay = 8;
const inTheWay =
  "something that is not listed is in the way: a name that differs only in case or in how its letters are written, a file that changes all the time, or what this route leaves out in a directory that was removed";
/** What did not fit in so many rounds is told. */
const stuckRounds = 4;
const dailyMs = 86_400_000;

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
  /** Why it is in this state, for a person. */
  reason: string | undefined;
  /** What cannot be done, or could not be seen: path → reason. */
  troubles: ReadonlyMap<string, string> = new Map();
  /** Wall time of the last round that left both sides the same. */
  evenMs: number | undefined;
  /** Done since the start. */
  done = 0;
  readonly #looks = new Looks((stop) => this.#round(stop));
  readonly #replicas: Readonly<Record<Side, DeviceReplica>>;
  readonly #world: World;
  #approved = false;
  #failures = 0;
  #settling = 0;
  /** What did not fit in so many rounds one after the other. */
  readonly #stuck = new Map<string, number>();
  /** What a server did not move: it is sent anew. */
  readonly #fixed = new Set<string>();
  #turns = new Turns();
  readonly #known = new Known();
  #expiredMs = 0;
  /** By device. */
  readonly #promises = new Map<string, { readonly epoch: string | undefined; readonly refusal: string | undefined }>();

  /** Throws Fault "config" where a device cannot be a side of it. */
  constructor(
    readonly engine: Engine,
    readonly config: SyncConfig,
    readonly here: Lane,
    readonly there: Lane,
  ) {
    const { names, clock, journal } = engine;
    const { mode } = config;
    this.name = nameOf(config);
    const id = shortHash(mode, names.installation, config.from, config.to, config.into);
    const store = new JournalStore(journal, id);
    const rules = new Rules(config.rules);
    const throttle = new Throttle(config.maxRate, clock);
    const side = (lane: Lane, dir: string, more: Pick<ReplicaGiven, "marked" | "away">) =>
      new DeviceReplica({
        ...{ engine, lane, dir, rules, throttle, turns: () => this.#turns, route: id, title: this.title, ...more },
        memo: (upload) => store.memo(upload),
      });
    const away = `${ownDir}/${awayDir}/${id}`;
    this.#replicas = {
      here: side(here, "", { marked: config.deletes }),
      there: side(there, config.into, { marked: true, ...(mode === "mirror" ? { away } : {}) }),
    };
    const routeNames = this.#names(id);
    const table =
      mode === "two-way"
        ? { actions: twoWay }
        : {
            alone: true as const,
            actions: (tables: Tables) =>
              mirror(tables, { deletes: config.deletes, away, fresh: () => routeNames.intent(), fixed: this.#fixed }),
            notMoved: (from: string) => void this.#fixed.add(from),
          };
    this.#world = { sides: this.#replicas, store, names: routeNames, table, ...(mode === "mirror" ? { known: this.#known } : {}) };
  }

  /** As `status` shows it. */
  get title(): string {
    return titleOf(this.config);
  }

  /** Runs until `stop`; completes when the last round has ended. */
  async run(stop: AbortSignal): Promise<void> {
    const { here, there, config } = this;
    const own = ({ config: { intervalMs }, device }: Lane) => intervalMs ?? device.source?.features.intervalMs;
    const hintsOf = ({ edge$, device }: Lane, intervalMs: number) =>
      merge(edge$, device.source?.changes$ ?? EMPTY, Number.isFinite(intervalMs) ? timer(0, intervalMs) : timer(0));
    const hints$ =
      config.mode === "two-way"
        ? merge(...[here, there].map((lane) => hintsOf(lane, Math.min(own(here) ?? defaultIntervalMs, own(there) ?? defaultIntervalMs))))
        : merge(
            hintsOf(here, own(here) ?? defaultIntervalMs),
            hintsOf(there, there.config.intervalMs ?? followerIntervalMs).pipe(tap(() => this.#known.forget())),
          );
    await this.#looks.run(hints$, stop);
  }

  /** Whether anything more can be done now: `--once` waits for that. */
  isBusy(upMs: number): boolean {
    if (this.state === "stopped" || this.state === "refused") return false;
    // A device may still be attaching.
    if (this.state === "waiting") return [this.here, this.there].every(({ takes }) => takes) ? this.#failures < triesOnce : upMs < 15_000;
    return this.state === "working" || this.#settling > 0;
  }

  /** Once, whatever it would remove, and whichever directories they are. */
  approve(): void {
    this.#approved = true;
    this.#looks.hint();
  }

  /** What a round would do now. Throws the Fault of a device. */
  plan(signal: AbortSignal): Promise<Plan> {
    const { known: _, ...world } = this.#world;
    return planned(world, signal);
  }

  async #round(stop: AbortSignal): Promise<void> {
    const away = [this.here, this.there].find(({ takes }) => !takes);
    if (away !== undefined) {
      this.#now("waiting", `${away.name}: ${away.held?.reason ?? away.state.reason ?? "detached"}`);
      return;
    }
    try {
      // What stopped it stops the next round too, as a rule.
      if (this.state !== "stopped" && this.state !== "refused") this.#now("working", undefined);
      await this.#once(stop);
      this.#failures = 0;
      for (const lane of [this.here, this.there]) lane.noteSuccess();
    } catch (error) {
      if (stop.aborted) return;
      if (this.engine.journal.failed) throw error;
      this.#failed(error);
    }
  }

  async #once(stop: AbortSignal): Promise<void> {
    const { config, engine } = this;
    const approved = this.#approved;
    const slots = [this.here.slots("source"), this.there.slots("target")];
    if (config.mode === "two-way") slots.push(this.here.slots("target"), this.there.slots("source"));
    const atOnce = Math.max(1, Math.min(...slots));
    this.#turns = new Turns(atOnce);
    const rules = {
      maxDeletes: approved || !config.deletes ? undefined : config.maxDeletes,
      // A mirror that has gone is made again, by itself.
      anew: approved ? (["here", "there"] as const) : config.mode === "mirror" ? (["there"] as const) : [],
      begunAnew: (side: Side) =>
        engine.events.say(
          "warn",
          "sync-anew",
          `${this.title}: the directory of ${side === "here" ? config.from : config.to} is not the one of before: what was agreed is forgotten, and nothing is removed`,
          { route: this.name },
        ),
      named: { here: config.from, there: config.to },
      together: atOnce * underWay,
      before: (signal: AbortSignal) => this.#tryOut(signal),
    };
    // Not both directories listed, only to be refused again.
    this.#expectPromises();
    const result = await round(this.#world, rules, stop);
    this.#approved = false;
    this.done += result.done;
    const { left } = result;
    for (const path of this.#stuck.keys()) if (!left.has(path)) this.#stuck.delete(path);
    for (const path of left) this.#stuck.set(path, (this.#stuck.get(path) ?? 0) + 1);
    this.#tell(result);
    // What did not fit is decided anew; what was done may have made room for more.
    if (result.done > 0) this.#looks.hint();
    else if (left.size > 0) {
      const rounds = Math.max(...this.#stuck.values());
      this.#looks.hintIn(backoffMs(rounds - 1, engine.upMs(), engine.random()));
      if (rounds >= stuckRounds) this.#now("even", undefined);
    } else {
      await this.#expire(stop);
      this.#fixed.clear();
      this.evenMs = engine.clock.wallMs();
      this.#now("even", undefined);
    }
    this.#settling = result.settling;
    if (result.settling > 0) this.#looks.hintIn(Math.max(500, this.here.config.settleMs, this.there.config.settleMs));
  }

  /** Once a day, by a clock that can be believed. */
  async #expire(signal: AbortSignal): Promise<void> {
    const { clock, events } = this.engine;
    const nowMs = clock.wallMs();
    if (!clock.trusted() || nowMs - this.#expiredMs < dailyMs) return;
    const sides: readonly Side[] = this.config.mode === "mirror" ? ["there"] : ["here", "there"];
    for (const side of sides) {
      const days = await this.#replicas[side].expire(dayText(nowMs - this.config.trashKeepMs), signal);
      if (days > 0)
        events.say(
          "info",
          "expired",
          `${this.title}: the trash at ${this.config[side === "here" ? "from" : "to"]}: ${days === 1 ? "1 day is old enough, and is" : `${days} days are old enough, and are`} gone`,
        );
    }
    this.#expiredMs = nowMs;
  }

  #tell({ done, failed, unseen }: Done): void {
    const { events } = this.engine;
    if (done > 0)
      events.say("info", "synced", `${this.title}: ${done} ${done === 1 ? "change" : "changes"}`, { route: this.name, count: done });
    const hidden = (device: string, of: ReadonlyMap<string, string>) => [...of].map(([path, why]) => [`${device}:${path}`, why] as const);
    const stuck = [...this.#stuck].flatMap(([path, rounds]) => (rounds < stuckRounds ? [] : [[path, inTheWay] as const]));
    const troubles = new Map([...failed, ...stuck, ...hidden(this.config.from, unseen.here), ...hidden(this.config.to, unseen.there)]);
    for (const [path, why] of troubles)
      if (this.troubles.get(path) !== why)
        events.say("warn", "sync-trouble", `${this.title}: ${path}: ${why}`, { route: this.name, path, reason: why });
    this.troubles = troubles;
  }

  #failed(error: unknown): void {
    if (isFault(error, "config")) {
      this.#now("refused", error.message);
      return;
    }
    if (error instanceof Stopped) {
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
    this.#now("waiting", reasonOf(error));
    this.#looks.hintIn(backoffMs(this.#failures++, this.engine.upMs(), this.engine.random()));
  }

  #now(state: SyncState, reason: string | undefined): void {
    const news = state !== this.state || reason !== this.reason;
    this.state = state;
    this.reason = reason;
    if (news && (state === "stopped" || state === "refused"))
      this.engine.events.say("error", "sync-stopped", `${this.title}: ${reason ?? state}`, { route: this.name });
  }

  /** What a side promises is tried once for each attachment. Throws "config" where it promises too little. */
  async #tryOut(signal: AbortSignal): Promise<void> {
    // What belongs to a mirror nobody else writes, and it takes nothing away but to the trash.
    if (this.config.mode === "mirror") return;
    for (const side of ["here", "there"] as const) {
      const lane = this[side];
      const { epoch } = lane.state;
      const known = this.#promises.get(lane.name);
      if (known === undefined || known.epoch !== epoch)
        this.#promises.set(lane.name, { epoch, refusal: refusalOf(lane.name, await this.#replicas[side].tryOut(signal)) });
    }
    this.#expectPromises();
  }

  /** As far as it was tried. Throws "config". */
  #expectPromises(): void {
    for (const { name, state } of [this.here, this.there]) {
      const known = this.#promises.get(name);
      if (known !== undefined && known.epoch === state.epoch && known.refusal !== undefined) throw new Fault("config", known.refusal);
    }
  }

  #names(route: string): Names {
    const { clock, names } = this.engine;
    const time = () => new Date(clock.wallMs()).toISOString().slice(0, 19).replaceAll(/[-:]/g, "");
    return {
      trash: (_side, path, id) => `${ownDir}/${trashDir}/${clock.trusted() ? dayText(clock.wallMs()) : "undated"}/${id}/${path}`,
      conflict: (path, n) => beforeExt(path, `.conflict-${asPart(names.vehicle)}-${time()}${n === 1 ? "" : `-${n}`}`),
      staging: (side, path, { stamp }) => shortHash(route, side, path, String(stamp.size), String(stamp.modifiedMs ?? "")),
      intent: () => randomBytes(8).toString("hex"),
    };
  }
}

/** "2026-05-01" */
const dayText = (ms: number) => new Date(ms).toISOString().slice(0, 10);

function refusalOf(name: string, { exclusive, rmdirIsSafe }: TreePromises): string | undefined {
  if (exclusive !== "names")
    return `${name} may give a name that something has to something else (tried): two who write there at once would lose one another's files, so that it cannot be kept the same both ways`;
  return rmdirIsSafe
    ? undefined
    : `${name} removes directories with what is in them (tried): a file that comes at that moment would be lost, so that it cannot be kept the same both ways`;
}
