/**
 * Limits: what holds files back that could be sent. Conditions and budgets of targets and routes are looked at every 2 s, while anything waits; a route's
 * `requires` when its turn comes. What is held is put off in the queue, with its reason, and due again once what held it is over.
 */
import { Subject } from "./rxjs.js";
import { type Engine, type RouteLane, routeOf } from "./engine.js";
import { Fault } from "./errors.js";
import type { Gate } from "./gate.js";
import { isConsidered, unreadAt } from "./considered.js";
import type { Lane } from "./lane.js";
import { Machine } from "./machine.js";
import type { Clock } from "./plugin.js";
import type { DeliveryRow, VersionRow } from "./rows.js";
import { sizeText } from "./text.js";
import { heldBy, type Held, together, type When } from "./when.js";

const lookMs = 2000;
/** What no edge wakes is looked at again. */
const putOffMs = 600_000;
const atOnce = 64;
/** What is on its way may break off, and leave room. */
const besideMs = 10_000;

export class Limits {
  readonly machine: Machine;
  /** By device that tells it; undefined: not known now. */
  readonly armed = new Map<string, boolean | undefined>();
  /** A vehicle was armed or disarmed. */
  readonly #vehicle$ = new Subject<void>();
  /** By target: the day of its budget, when it was looked at last. */
  readonly #days = new Map<string, string>();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  /** Looks that began. One may wait for a server; those after it do not wait for it. */
  #looks = 0;
  /** By gate: the youngest look whose word it has. */
  readonly #told = new WeakMap<Gate, number>();

  constructor(
    readonly clock: Clock,
    metered: readonly string[],
  ) {
    this.machine = new Machine(clock, metered);
  }

  /** A device says whether its vehicle is armed; undefined when it cannot tell now. */
  tell(device: string, armed: boolean | undefined): void {
    if (this.armed.has(device) && this.armed.get(device) === armed) return;
    this.armed.set(device, armed);
    this.#vehicle$.next();
  }

  /** A device has left, or begins anew: what it said last counts no more. */
  forget(device: string): void {
    if (this.armed.delete(device)) this.#vehicle$.next();
  }

  /** Looks at all gates, now and then. `keep` hears of work that has to end with the engine. */
  start(engine: Engine, keep: (work: Promise<unknown>) => void): void {
    const look = () => {
      if (hasGates(engine)) keep(this.#look(engine, ++this.#looks));
    };
    this.#timer = setInterval(look, lookMs);
    this.#vehicle$.subscribe(look);
    look();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#vehicle$.complete();
    this.#stopped = true;
    this.machine.end();
  }

  async #look(engine: Engine, look: number): Promise<void> {
    const routes = [...engine.routes.values()].flat();
    await Promise.all([
      ...[...engine.lanes.values()].map((lane) => this.#lookAtTarget(engine, lane, look)),
      ...routes.map((route) => this.#lookAtRoute(engine, route, look)),
    ]);
  }

  async #lookAtTarget(engine: Engine, lane: Lane, look: number): Promise<void> {
    const { gate, budget } = lane;
    if (gate === undefined) return;
    if (gate.looked && !isWaitedFor(engine, lane)) {
      // A budget alone changes by what is sent, and by the day, which opens it.
      gate.resting = lane.config.when !== undefined;
      this.#counts(gate, look);
      return;
    }
    const unmet = await this.#holds(lane.config.when);
    if (!this.#counts(gate, look)) return;
    gate.set(together([budget?.held, unmet]), unmet !== undefined);
    const before = this.#days.get(lane.name);
    if (budget === undefined || before === budget.day) return;
    this.#days.set(lane.name, budget.day);
    if (before === undefined) return;
    // What was too large for what was left may fit now.
    await wake(engine, [lane.name]);
    for (const sync of syncsOf(engine, lane)) sync.hint();
  }

  async #lookAtRoute(engine: Engine, { gate, rules }: RouteLane, look: number): Promise<void> {
    if (gate === undefined) return;
    if (gate.looked && !rules.route.to.some(({ device }) => engine.queue.hasOpen(device))) {
      gate.resting = true;
      this.#counts(gate, look);
      return;
    }
    const unmet = await this.#holds(rules.route.when);
    if (this.#counts(gate, look)) gate.set(unmet);
  }

  /** False where one that began later has told already what is so, or nobody hears it any more. */
  #counts(gate: Gate, look: number): boolean {
    if (this.#stopped || look < (this.#told.get(gate) ?? 0)) return false;
    this.#told.set(gate, look);
    return true;
  }

  async #holds(when: When | undefined): Promise<Held | undefined> {
    if (when === undefined) return undefined;
    const { clock, machine, armed } = this;
    return heldBy(when, { wallMs: clock.wallMs(), trusted: clock.trusted(), machine, armed });
  }
}

/** A mirror or two-way route has no deliveries, and begins a round at any time. */
function isWaitedFor(engine: Engine, lane: Lane): boolean {
  return engine.queue.hasOpen(lane.name) || syncsOf(engine, lane).length > 0;
}

const syncsOf = ({ syncs }: Engine, lane: Lane) => [...syncs.values()].filter(({ here, there }) => here === lane || there === lane);

function hasGates({ lanes, routes }: Engine): boolean {
  for (const { gate } of lanes.values()) if (gate !== undefined) return true;
  for (const lane of routes.values()) if (lane.some(({ gate }) => gate !== undefined)) return true;
  return false;
}

/** Why this delivery is not sent though its target takes others; undefined when it may go. */
export function heldBack(engine: Engine, lane: Lane, version: VersionRow, delivery: DeliveryRow): Held | undefined {
  const route = routeOf(engine, version, delivery);
  const { missing, never } = required(engine, version, delivery, route);
  const first =
    missing.length === 0
      ? undefined
      : {
          reason: `it goes only when ${missing.join(" and ")} ${missing.length === 1 ? "has" : "have"} it ("requires")${
            never === undefined
              ? ""
              : `, and that will never be: to ${never.target} it does not go (${never.reason}); "filesync forget" gives it up here, too`
          }`,
        };
  const slow = lane.device.target?.features.resume === false ? lane.uptime?.held(version.size) : undefined;
  const spent = overBudget(lane, version.size, () => toCome(engine, lane, delivery.id));
  const before = engine.queue.goesFirst(delivery);
  const behind =
    before === undefined ? undefined : { reason: `the version before it (${sizeText(before.size)}) is on its way there, and goes first` };
  return together([route?.gate?.barred, behind, first, slow, spent]);
}

/** Which targets, by "requires", must get the file of this delivery first; `never`: one of them to which it will not go. */
export function required(
  engine: Engine,
  version: VersionRow,
  delivery: DeliveryRow,
  route = routeOf(engine, version, delivery),
): { readonly missing: readonly string[]; readonly never?: { readonly target: string; readonly reason: string } } {
  const needed = route?.rules.route.to.find(({ device }) => device === delivery.target)?.requires ?? [];
  const others = needed.length === 0 ? [] : engine.queue.deliveriesOf(version.id);
  const missing = needed.filter((name) => !others.some(({ target, state }) => target === name && state === "done"));
  for (const target of missing) {
    const given = others.filter((other) => other.target === target);
    if (!given.every(({ state }) => state === "dropped" || state === "discard")) continue;
    // Each target of a route may have its own beginning, or have come later.
    if (given.length === 0 && (!isConsidered(engine, version.source, version.medium) || unreadAt(engine, version.source)(version)))
      continue;
    return { missing, never: { target, reason: given.length === 0 ? "no route took it there" : (given[0]?.reason ?? "it was given up") } };
  }
  return { missing };
}

/** The same for who asks: not known where its target is not there, undefined where it goes soon. */
export function heldNow(engine: Engine, version: VersionRow, delivery: DeliveryRow): Held | undefined {
  const lane = engine.lanes.get(delivery.target);
  return lane === undefined ? undefined : heldBack(engine, lane, version, delivery);
}

/**
 * Why a target that takes no parts is not sent so many bytes: its budget would cut them, and all of it be sent again. `beside`: what is on its way there
 * already; two that are begun together would both be cut, day after day.
 */
export function overBudget(lane: Lane, size: number, beside: () => number = () => 0): Held | undefined {
  const { budget, name } = lane;
  if (budget === undefined || !takesNoParts(lane) || size <= budget.left - beside()) return undefined;
  if (size <= budget.left)
    return {
      reason: `it has ${sizeText(size)}, and ${name}, which cannot take it in parts, is being sent what its budget still allows`,
      inMs: besideMs,
    };
  const when = size > budget.most ? "ever" : "still";
  return { reason: `it has ${sizeText(size)}, more than the budget of ${name} ${when} allows, and ${name} cannot take it in parts` };
}

/** How many bytes are still to come of what is on its way to that target, but for this delivery. */
function toCome({ queue, transfers }: Engine, lane: Lane, id: string): number {
  const sent = new Map(transfers.running.map(({ facts, offset }) => [facts.id, offset]));
  const others = [...queue.pushing.values()]
    .map(({ delivery }) => delivery)
    .filter((it) => it.target === lane.name && it.state !== "discard" && it.id !== id);
  return others.reduce((sum, it) => sum + Math.max(0, it.size - (sent.get(it.id) ?? 0)), 0);
}

function takesNoParts({ device }: Lane): boolean {
  const features = device.target?.features;
  return features?.resume === false && features.triesResume !== true;
}

/** Whether anything but the target itself can hold back what is sent to it. */
function canBeHeld(engine: Engine, lane: Lane): boolean {
  if (lane.device.target?.features.resume === false || engine.queue.following.has(lane.name)) return true;
  return [...engine.routes.values()].some((routes) =>
    routes.some(({ gate, rules }) =>
      rules.route.to.some(({ device, requires }) => device === lane.name && (gate !== undefined || requires.length > 0)),
    ),
  );
}

/** What would be next for a target and is held back is put off, so that the rest goes. `refusedLast`: as `Queue.claim` takes it. */
export async function putOffHeld(engine: Engine, lane: Lane, refusedLast: boolean): Promise<void> {
  if (!canBeHeld(engine, lane)) return;
  if (refusedLast) await putOffFirst(engine, lane, false);
  await putOffFirst(engine, lane, true);
}

/** Until the first of them is not held back; `refused`: as `Queue.bestOf` takes it. */
async function putOffFirst(engine: Engine, lane: Lane, refused: boolean): Promise<void> {
  const { queue, journal, clock } = engine;
  // Mostly nothing is held back: one row tells that.
  for (let looked = 1; ; looked = atOnce) {
    const held: { id: string; held: Held }[] = [];
    const best = queue.bestOf(lane.name, looked, { refused });
    for (const delivery of best) {
      const version = queue.version(delivery.version);
      const why = version === undefined ? undefined : heldBack(engine, lane, version, delivery);
      if (why === undefined) break;
      held.push({ id: delivery.id, held: why });
    }
    if (held.length === 0) return;
    const now = clock.monotonicMs();
    await journal.apply(() => {
      for (const { id, held: why } of held) queue.putOff(id, now + Math.min(putOffMs, why.inMs ?? putOffMs), why.reason);
    });
    if (held.length < best.length) return;
  }
}

/** Tells of gates that open and close, and wakes what they held; learns how long the target is up. Ends with the lane. */
export function watchGate(engine: Engine, lane: Lane, keep: (work: Promise<unknown>) => void): void {
  const { uptime } = lane;
  if (uptime !== undefined) lane.state$.subscribe(({ attached }) => keep(uptime.is(attached)));
  let told = false;
  lane.gate?.changes$.subscribe((held) => {
    told = tell(engine, lane.name, held, told);
    if (held === undefined) keep(wake(engine, [lane.name]));
  });
}

export function watchRoutes(engine: Engine, source: string, keep: (work: Promise<unknown>) => void): void {
  for (const { gate, rules } of engine.routes.get(source) ?? []) {
    if (gate === undefined || gate.changes$.observed) continue;
    const to = rules.route.to.map(({ device }) => device);
    let told = false;
    gate.changes$.subscribe((held) => {
      told = tell(engine, `the route ${source} → ${to.join(", ")}`, held, told);
      if (held === undefined) keep(wake(engine, to));
    });
  }
}

/** A version has arrived at a target, or will never: what waited for that may go, or says so. */
export function decided(engine: Engine, version: VersionRow, target: string): Promise<void> | undefined {
  const routes = engine.routes.get(version.source) ?? [];
  const waiting = routes.flatMap(({ rules }) =>
    rules.route.to.filter(({ requires }) => requires.includes(target)).map(({ device }) => device),
  );
  if (waiting.length === 0) return undefined;
  return engine.journal.apply(() => {
    for (const device of waiting) engine.queue.dueAt(device, version.id);
  });
}

/**
 * What is called once the routes are others: what is sent along one that has another rate or other conditions by then, or is there no more, is broken off, and goes
 * on as the routes of then say. What cannot be resumed ends first.
 */
export function beforeReroute(engine: Engine): () => void {
  const { queue, lanes } = engine;
  const along = ({ version, target }: DeliveryRow): RouteLane | undefined => {
    const row = queue.version(version);
    return row === undefined ? undefined : routeOf(engine, row, { target });
  };
  const sent = [...queue.pushing.values()]
    .filter(({ delivery }) => lanes.get(delivery.target)?.device.target?.features.resume === true)
    .map(({ delivery, stop }) => ({ delivery, stop, before: along(delivery) }));
  return () => {
    for (const { delivery, stop, before } of sent) {
      const now = along(delivery);
      if (now !== before && [before, now].some((route) => route?.gate !== undefined || route?.rules.route.maxRate !== undefined))
        stop?.(new Fault("aborted", "its route is another now"));
    }
  };
}

/** What is held back at these targets is looked at anew. */
export async function wake(engine: Engine, targets: readonly string[]): Promise<void> {
  await engine.journal.apply(() => {
    for (const target of targets) engine.queue.dueAt(target);
  });
  for (const target of targets) engine.lanes.get(target)?.wake$.next();
  engine.work$.next();
}

/** What was never held needs no word when it opens. Returns whether it is said to be held now. */
function tell(engine: Engine, what: string, held: Held | undefined, told: boolean): boolean {
  if (held !== undefined)
    engine.events.say("info", "held", `${what}: nothing is sent: ${held.reason}`, { device: what, reason: held.reason });
  else if (told) engine.events.say("info", "open", `${what}: files may be sent again`, { device: what });
  return held !== undefined;
}
