/**
 * Copy routes whose configuration changes while files are under way, drawn by a seed: targets come, go, move and are required or not, routes come and go, with other filters, paths and limits, by a reload, a start
 * anew or after a kill. Who looks on knows of the program only what the configuration said. SEED=7 ROUNDS=500 is another, longer one; what runs beside what is not the seed's alone.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Route } from "../../core/route.js";
import { Bench, crc32, FakeDevice } from "../fake-device.js";
import { emptied, holds, live, Scene, twice } from "./scene.js";

const seed = Number(process.env.SEED ?? 1);
const rounds = Number(process.env.ROUNDS ?? 4);

/** What a pattern takes, said once more in other words. */
const patterns: Readonly<Record<string, RegExp>> = {
  "*.bin": /\.bin$/,
  "*.txt": /\.txt$/,
  "*0.*": /0\.\w+$/,
  "*1.*": /1\.\w+$/,
};
/** Nobody says so. */
const never = { disarmed: true, whenClockUnknown: "wait" } as const;
const t0 = Date.UTC(2026, 4, 1);

interface To {
  readonly device: string;
  readonly required: boolean;
  readonly requires: readonly string[];
}
type Rule = Pick<Route, "from" | "include" | "exclude" | "into" | "afterDelivery" | "weight" | "priority"> &
  Partial<Pick<Route, "newest" | "maxRate" | "when">> & { readonly to: readonly To[]; readonly since?: number };

/** Who is to have what. */
interface Owed {
  readonly device: string;
  readonly path: string;
  readonly bytes: Buffer;
}

interface Plan {
  readonly routes: readonly Rule[];
  readonly maxSize: number;
  /** Those in the configuration, each with the place of that name of which it is. */
  readonly places: Readonly<Record<string, number>>;
}

function takes(rule: Rule, path: string, modifiedMs: number): boolean {
  const is = (pattern: string) => patterns[pattern]?.test(path) === true;
  return (rule.include.length === 0 || rule.include.some(is)) && !rule.exclude.some(is) && modifiedMs >= (rule.since ?? 0);
}

function leads(rules: readonly Rule[], path: string, device: string, modifiedMs = Infinity): boolean {
  return rules.some((rule) => takes(rule, path, modifiedMs) && rule.to.some((it) => it.device === device));
}

class Changes extends Scene {
  /** By name: the places that one after another go by it. */
  readonly places: Readonly<Record<string, readonly FakeDevice[]>>;
  readonly sources = ["card"];
  readonly targets = ["a", "b", "c"];
  readonly limits: readonly number[];
  /** Those that may be what runs now: two while one takes the place of the other. */
  readonly inForce = new Set<Plan>();
  readonly plans: Plan[] = [];
  readonly history: string[] = [];
  #plan: Plan;
  /** What was deleted at its source, and which targets are to have it, those that need not, too. */
  readonly #owed: Owed[] = [];
  /** Put aside, to come back as it was. */
  readonly #aside: Rule[] = [];

  constructor(
    readonly bench: Bench,
    seed: number,
  ) {
    super(seed);
    const { random } = this;
    const inPlace = random.below(3) === 0;
    const needs = () => random.pick(["stream", "sealed"] as const);
    const card = () => {
      const made = new FakeDevice("card", {
        tree: true,
        inPlace,
        chunk: random.pick([4096, 65536]),
        concurrency: random.between(1, 4),
        ...(random.below(3) === 0 ? { crc: crc32 } : {}),
      });
      const remove = made.files.delete.bind(made.files);
      made.files.delete = (path) => {
        const file = made.files.get(path);
        if (file !== undefined) this.#deleted(path, file.bytes, file.modifiedMs);
        return remove(path);
      };
      return made;
    };
    const target = (name: string) => {
      const digests = random.below(4) > 0 ? (["sha256"] as const) : [];
      const made = new FakeDevice(name, {
        target: { resume: random.below(3) > 0, digests, concurrency: random.between(1, 4), needs: needs() },
      });
      made.looksFirst = random.below(2) === 0;
      this.watch(made);
      return made;
    };
    const pair = (name: string) => [target(name), target(name)];
    this.places = { card: [card(), card()], a: pair("a"), b: pair("b"), c: pair("c") };
    const streams = this.targets.every((name) => this.places[name]?.every(({ features }) => features.target?.needs === "stream"));
    this.limits = streams ? [2 ** 30, 400_000, 60_000] : [2 ** 30];
    for (const device of this.devices) this.trouble(device);
    const rules = Array.from({ length: random.between(1, 3) }, () => this.#rule());
    this.#plan = { routes: rules, maxSize: random.pick(this.limits), places: { card: 0, a: 0, b: 0, c: 0 } };
  }

  get devices(): readonly FakeDevice[] {
    return Object.values(this.places).flat();
  }

  get card(): FakeDevice {
    return this.placeOf("card");
  }

  placeOf(name: string): FakeDevice {
    const place = this.places[name]?.[this.#plan.places[name] ?? 0];
    if (place === undefined) throw new Error(`no place of ${name}`);
    return place;
  }

  #to(device: string): To {
    return { device, required: this.random.below(3) > 0, requires: [] };
  }

  #rule(): Rule {
    const { random } = this;
    const to = this.targets.filter(() => random.below(2) === 0).map((name) => this.#to(name));
    return {
      from: "card",
      to: to.length > 0 ? to : [this.#to("a")],
      include: random.below(2) === 0 ? [] : [random.pick(Object.keys(patterns))],
      exclude: random.below(4) > 0 ? [] : [random.pick(Object.keys(patterns))],
      into: random.pick(["", "", "x", "{device}"]),
      afterDelivery: random.pick(["keep", "delete", "delete", "archive"]),
      weight: random.between(1, 3),
      priority: random.pick(["newest", "oldest", "smallest"]),
    };
  }

  /** Another plan, and what it has. */
  #another(): [string, Plan] {
    const { random } = this;
    const plan = this.#plan;
    const { routes, places } = plan;
    const at = random.below(Math.max(1, routes.length));
    const route = routes[at];
    const with_ = (what: string, change: Partial<Rule>): [string, Plan] => [
      `route ${at}: ${what} ${JSON.stringify(change)}`,
      { ...plan, routes: routes.map((it, n) => (n === at ? { ...it, ...change } : it)) },
    ];
    const what = random.below(16);
    if (route === undefined || what === 0) {
      const rule = this.#aside.pop() ?? this.#rule();
      const known = { ...rule, to: rule.to.filter(({ device }) => places[device] !== undefined) };
      if (known.to.length === 0 || places["card"] === undefined || routes.length > 3) return this.#devices();
      return [`route ${JSON.stringify(known)}`, { ...plan, routes: [...routes, known] }];
    }
    const k = random.below(route.to.length);
    switch (what) {
      case 1:
        this.#aside.push(route);
        return [`without route ${at}`, { ...plan, routes: routes.filter((_, n) => n !== at) }];
      case 2:
      case 3:
      case 4:
        return with_("required", { to: route.to.map((it, n) => (n === k ? { ...it, required: !it.required } : it)) });
      case 5: {
        const free = this.targets.filter((name) => places[name] !== undefined && !route.to.some(({ device }) => device === name));
        return free.length === 0 ? this.#devices() : with_("more", { to: [...route.to, this.#to(random.pick(free))] });
      }
      case 6: {
        const to = route.to.filter((_, n) => n !== k).map((it) => ({ ...it, requires: [] }));
        return to.length === 0 ? this.#devices() : with_("less", { to });
      }
      case 7:
        return with_("into", { into: random.pick(["", "x", "y", "{device}"]) });
      case 8: {
        const include = random.below(2) === 0 ? [] : [random.pick(Object.keys(patterns))];
        return with_("filter", { include, exclude: random.below(3) > 0 ? [] : [random.pick(Object.keys(patterns))] });
      }
      case 9: {
        const { since: _, newest: __, ...rest } = route;
        const change = random.pick([{}, { since: t0 + random.below(60) * 1000 }, { newest: random.between(1, 4) }]);
        return [
          `route ${at}: ${JSON.stringify(change)}`,
          { ...plan, routes: routes.map((it, n) => (n === at ? { ...rest, ...change } : it)) },
        ];
      }
      case 10:
        return with_("after", { afterDelivery: random.pick(["keep", "delete", "archive"]) });
      case 11: {
        const { when: _, maxRate: __, ...rest } = route;
        const change = random.pick([{}, { when: never }, { maxRate: 200_000 }]);
        return [
          `route ${at}: ${JSON.stringify(change)}`,
          { ...plan, routes: routes.map((it, n) => (n === at ? { ...rest, ...change } : it)) },
        ];
      }
      case 12: {
        const other = route.to.find((_, n) => n !== k);
        if (other === undefined || other.requires.length > 0) return this.#devices();
        return with_("requires", {
          to: route.to.map((it, n) => (n === k ? { ...it, requires: it.requires.length > 0 ? [] : [other.device] } : it)),
        });
      }
      case 13:
        return with_("order", { weight: random.between(1, 4), priority: random.pick(["newest", "oldest", "smallest"]) });
      case 14:
        return [`spool`, { ...plan, maxSize: random.pick(this.limits) }];
      default:
        return this.#devices();
    }
  }

  /** One goes, with what leads there, comes back, or is at another place. */
  #devices(): [string, Plan] {
    const { random } = this;
    const plan = this.#plan;
    const name = random.pick(Object.keys(this.places));
    const { [name]: place, ...others } = plan.places;
    const count = this.places[name]?.length ?? 1;
    if (place === undefined) return [`device ${name}`, { ...plan, places: { ...others, [name]: random.below(count) } }];
    if (count > 1 && random.below(3) === 0)
      return [`device ${name} elsewhere`, { ...plan, places: { ...others, [name]: (place + 1) % count } }];
    const without = ({ to, ...rest }: Rule): Rule[] => {
      const left = to
        .filter(({ device }) => device !== name)
        .map(({ requires, ...it }) => ({ ...it, requires: requires.filter((other) => other !== name) }));
      return rest.from === name || left.length === 0 ? [] : [{ ...rest, to: left }];
    };
    const routes = plan.routes.flatMap(without);
    this.#aside.push(...plan.routes.filter((route) => without(route).length === 0));
    return [`without device ${name}`, { ...plan, routes, places: others }];
  }

  #given({ routes, maxSize, places }: Plan): Parameters<Bench["start"]> {
    const here = (names: readonly string[]) =>
      names.flatMap((name) => (places[name] === undefined ? [] : (this.places[name]?.[places[name]] ?? [])));
    return [{ sources: here(this.sources), targets: here(this.targets) }, routes, { maxSize, device: { archiveDir: "archive" } }];
  }

  async start(): Promise<void> {
    this.inForce.add(this.#plan);
    this.plans.push(this.#plan);
    await this.bench.start(...this.#given(this.#plan));
  }

  async change(how: "reload" | "stop" | "kill", [what, plan]: [string, Plan]): Promise<void> {
    this.history.push(`${how}: ${what}`);
    const before = this.#plan;
    this.#plan = plan;
    this.inForce.add(plan);
    this.plans.push(plan);
    if (how === "reload") await this.bench.reload(...this.#given(plan));
    else {
      await (how === "stop" ? this.bench.stop() : this.bench.kill());
      await this.bench.start(...this.#given(plan));
    }
    if (before !== plan) this.inForce.delete(before);
  }

  /** By the rules of then: all targets that are required have it, here or where they were before, and one of the routes asks for it. */
  #deleted(path: string, bytes: Buffer, modifiedMs: number): void {
    const whyNot = ({ routes }: Plan): string | undefined => {
      const rules = routes.filter((rule) => takes(rule, path, modifiedMs));
      if (rules.every(({ afterDelivery }) => afterDelivery === "keep")) return "no route asks for that";
      const required = rules.filter(({ newest }) => newest === undefined).flatMap(({ to }) => to.filter((it) => it.required));
      const lacks = required.find(({ device }) => !this.has(device, path, bytes));
      return lacks === undefined ? undefined : `${lacks.device} has not got it`;
    };
    const why = [...this.inForce].map(whyNot);
    if (why.every((it) => it !== undefined)) this.wrong.push(`${path}: ${bytes.length} bytes are deleted: ${why.join(", ")}`);
    this.history.push(`${path}: ${bytes.length} bytes are deleted`);
    const [plan, other] = [...this.inForce];
    if (plan === undefined || other !== undefined) return;
    const rules = plan.routes.filter((rule) => rule.newest === undefined && takes(rule, path, modifiedMs));
    for (const { device } of rules.flatMap(({ to }) => to)) this.#owed.push({ device, path, bytes });
  }

  has(device: string, path: string, bytes: Buffer): boolean {
    return this.places[device]?.some((place) => holds(place, path, bytes)) === true;
  }

  async step(): Promise<void> {
    const { random, bench } = this;
    const path = random.pick(["log0.bin", "log1.bin", "log1.txt", "log2.txt"]);
    // Mostly that which is in.
    const card = random.below(4) > 0 ? this.card : random.pick(this.places["card"] ?? []);
    const now = card.files.get(path)?.bytes;
    const length = random.pick([10, 3000, 30_000, 150_000]);
    const what = random.next();
    if (what < 0.25) this.grow(card, path, length);
    else if (what < 0.32) this.put(card, path, random.bytes(random.below(3) === 0 ? (now?.length ?? length) : length));
    else if (what < 0.34) Map.prototype.delete.call(card.files, path);
    else if (what < 0.42) bench.daemon.engine.relist$.next("card");
    else if (what < 0.5) this.goOn();
    else if (what < 0.62) random.pick(this.devices).attach(true);
    else if (what < 0.66) random.pick(this.devices).attach(false);
    else if (what < 0.96) await this.change(random.pick(["reload", "reload", "reload", "stop", "kill"]), this.#another());
    await sleep(random.below(25));
  }

  /** What the last plan asks of what is at the source: which targets get it. */
  #due(): Owed[] {
    // What was decided when others were newer stays so.
    const rules = this.#plan.routes.filter(({ newest }) => newest === undefined);
    return [...this.card.files].flatMap(([path, { bytes, modifiedMs }]) =>
      rules
        .filter((rule) => !path.startsWith("archive/") && takes(rule, path, modifiedMs))
        .flatMap(({ to }) => to.map(({ device }) => ({ device, path, bytes }))),
    );
  }

  #open(): string[] {
    return this.bench.daemon.engine.journal
      .all<{ target: string; path: string; state: string; reason: string | null }>(
        "SELECT target, path, state, reason FROM deliveries WHERE state NOT IN ('done', 'dropped')",
      )
      .map(({ target, path, state, reason }) => `${path} to ${target} is ${state}${reason === null ? "" : ` (${reason})`}`);
  }

  /** What is not yet as the last plan says, but for what waits for one of `away`. */
  missing(away: readonly string[] = []): string | undefined {
    if (away.length === 0 && this.#open().length > 0) return this.#open().join("; ");
    const lacks = ({ device, path, bytes }: Owed) => !away.includes(device) && !this.has(device, path, bytes);
    const owed = this.#owed.find(lacks);
    if (owed !== undefined) return `${owed.path}: ${owed.bytes.length} bytes have gone from the source and never came to ${owed.device}`;
    const due = this.#due().find(lacks);
    if (due !== undefined) return `${due.path}: ${due.bytes.length} bytes have not come to ${due.device}`;
    for (const [path, { modifiedMs }] of this.card.files) {
      if (path.startsWith("archive/")) continue;
      const rules = this.#plan.routes.filter((rule) => takes(rule, path, modifiedMs));
      const goes =
        rules.some(({ afterDelivery, newest }) => afterDelivery !== "keep" && newest === undefined) &&
        rules.some(({ to, newest }) => newest === undefined && to.some(({ required }) => required)) &&
        // By its size alone nothing is proved.
        this.targets.every((name) => this.places[name]?.every(({ features }) => features.target?.digests?.length !== 0));
      // What another route brought there once waits for that all the same.
      const waits = away.some(
        (name) =>
          this.plans.some(({ routes }) => leads(routes, path, name)) &&
          !leads(
            rules.filter(({ newest }) => newest === undefined),
            path,
            name,
            modifiedMs,
          ),
      );
      if (goes && this.maySpool && !waits) return `${path} stays at its source`;
    }
    return undefined;
  }

  /** The last plan. */
  get plan(): string {
    return JSON.stringify(this.#plan);
  }

  /** What that can never hold stays at its source for targets that need not have it. */
  get maySpool(): boolean {
    return this.#plan.maxSize === 2 ** 30;
  }

  /** Waits for that, while these are away. */
  async #until(away: readonly string[]): Promise<void> {
    const end = performance.now() + 30_000;
    for (let n = 0; this.missing(away) !== undefined; n++) {
      if (n % 40 === 0) {
        for (const device of this.devices) device.attach(!away.includes(device.name));
        this.bench.daemon.engine.relist$.next("card");
      }
      assert.ok(performance.now() < end, `${away.join(", ")} away: ${this.missing(away) ?? ""}`);
      await sleep(20);
    }
  }

  async end(): Promise<void> {
    this.calm();
    const places = { card: 0, a: 0, b: 0, c: 0, ...this.#plan.places };
    const routes = this.#plan.routes.map(({ when: _, maxRate: __, ...route }) => ({
      ...route,
      to: route.to.map((it) => ({ ...it, requires: [] })),
    }));
    // What only targets that need not have it wait for does not hold back the rest; what was found while they had to goes by what they are now.
    const optional = this.targets.filter((name) =>
      routes.every(({ to }) => to.every(({ device, required }) => device !== name || !required)),
    );
    const away = optional.filter((name) => routes.some(({ to }) => to.some(({ device }) => device === name)));
    for (const device of this.devices) device.attach(!away.includes(device.name));
    await this.change(this.random.pick(["reload", "stop"]), ["the last", { ...this.#plan, places, routes }]);
    await this.#until(away);
    await this.#until([]);
    await emptied(this.bench);
    for (const name of this.targets) this.wrong.push(...twice(this.placeOf(name)));
  }
}

test("copy routes that change while files are under way", async (t) => {
  for (let round = 0; round < rounds; round++) await live(new Changes(new Bench(t), seed * 1000 + round), 40);
});
