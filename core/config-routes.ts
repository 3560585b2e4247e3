/**
 * The routes of a configuration: what may stand in one, and how it is read. What is wrong in one takes only that one out. One of mode "copy" whose
 * targets begin at different times is read as several.
 */
import picomatch from "picomatch";
import * as v from "valibot";
import { isObject, suggestion, type At, type ConfigProblem } from "./config-problems.js";
import { lineOrNothing, parseDuration, rate, size } from "./options.js";
import {
  copiesGoRound,
  copyComesBack,
  copyHoldsState,
  overlap,
  placeIn,
  syncComesBack,
  syncHoldsState,
  takesFromSync,
  wantTheSame,
} from "./places.js";
import type { Plugin, Role } from "./plugin.js";
import { halfBraced, intoOf, misledInto, type Route, type RouteTarget } from "./route.js";
import {
  fight,
  inCircle,
  intoProblem,
  mirrorSchema,
  type SyncConfig,
  syncConfigs,
  type SyncOutput,
  titleOf,
  twoWaySchema,
} from "./sync/options.js";
import { whenSchema, type When } from "./when.js";

const targetSchema = v.union(
  [
    v.string(),
    v.strictObject({
      device: v.string(),
      required: v.optional(v.pipe(v.boolean(), v.description("Whether release waits for this target.")), true),
      requires: v.optional(
        v.pipe(
          v.array(v.string("a device name"), "a list of device names"),
          v.description("Other targets of this route that must have a file first."),
        ),
        [],
      ),
    }),
  ],
  'a device name or { "device": NAME, "required": false }',
);

/** With a day that its month has: JavaScript takes the 31st of February for the 3rd of March, and "5" for a year. */
function isDate(text: string): boolean {
  const [day] = /^\d{4}-\d\d-\d\d(?!\d)/.exec(text) ?? [];
  return day !== undefined && !Number.isNaN(Date.parse(text)) && new Date(`${day}T00:00Z`).toISOString().startsWith(day);
}

const sinceSchema = v.pipe(
  v.string('"install", a date such as "2026-05-01", or an age such as "30d"'),
  v.check(
    (text) => text === "install" || isDate(text) || parseDuration(text) !== undefined,
    '"install", a date such as "2026-05-01", or an age such as "30d"',
  ),
);

export const routeSchema = v.strictObject({
  from: v.pipe(v.string("a device name"), v.description("The source: a device, or a service that receives files.")),
  to: v.pipe(
    v.array(targetSchema, "a list of device names"),
    v.minLength(1, "at least one target"),
    v.description("The targets, each at its own pace."),
  ),
  mode: v.optional(
    v.pipe(v.picklist(["copy"], '"copy", "mirror" or "two-way"'), v.description("What the route keeps true: copy (every file arrives).")),
    "copy",
  ),
  include: v.optional(
    v.pipe(v.array(v.string("a pattern")), v.description('Patterns of paths to take, such as "**/*.ulg"; none: all.')),
    [],
  ),
  exclude: v.optional(v.pipe(v.array(v.string("a pattern")), v.description("Patterns of files and directories to leave.")), []),
  minSize: v.optional(v.pipe(size(), v.description("Smaller files are left.")), 0),
  maxSize: v.optional(v.pipe(size(), v.description("Larger files are left."))),
  since: v.optional(
    v.pipe(
      sinceSchema,
      v.description('"install": only what came after this route ran first; or a date; or an age at the time of the listing.'),
    ),
  ),
  newest: v.optional(
    v.pipe(v.number("a whole number"), v.integer("a whole number"), v.minValue(1, "at least 1"), v.description("Only the N newest files.")),
  ),
  priority: v.optional(
    v.pipe(
      v.picklist(["newest", "oldest", "smallest"], '"newest", "oldest" or "smallest"'),
      v.description("Which file of this route goes first."),
    ),
    "newest",
  ),
  weight: v.optional(v.pipe(v.number("a number"), v.description("Between routes: the larger goes first.")), 1),
  into: v.optional(
    v.pipe(lineOrNothing("a directory"), v.description("Directory at the target, from {vehicle} {device} {installation} {date}.")),
    "{vehicle}/{device}",
  ),
  afterDelivery: v.optional(
    v.pipe(
      v.picklist(["keep", "delete", "archive"], '"keep", "delete" or "archive"'),
      v.description("What becomes of the source's copy when every required target has proved its own."),
    ),
    "keep",
  ),
  trustSize: v.optional(
    v.pipe(v.boolean("true or false"), v.description("Take a receipt by size alone as proof enough to delete or archive.")),
    false,
  ),
  maxRate: v.optional(v.pipe(rate(), v.description("The most bytes per second that this route sends to a target."))),
  when: v.optional(v.pipe(whenSchema, v.description("What must be so for files of this route to be sent."))),
});

/** Says what is wrong at a place. */
export type Add = (at: At, message: string) => void;

/** Says what is wrong with a value; undefined where anything is. */
export type Parse = <T>(at: At, schema: v.GenericSchema<unknown, T>, input: unknown) => T | undefined;

/** A device or service, also one that is wrong itself. */
export interface Known {
  /** undefined: of a type that nobody knows. */
  readonly plugin: Plugin<unknown> | undefined;
  readonly roles: readonly Role[];
  /** Roles that it has not with its options, each with what would give it. */
  readonly withheld: Partial<Record<Role, string>>;
}

/** What is around the routes in their configuration. */
export interface Around {
  readonly known: ReadonlyMap<string, Known>;
  /** Those that are right. */
  readonly devices: readonly {
    readonly name: string;
    readonly plugin: Plugin<unknown>;
    readonly options: unknown;
    readonly archiveDir?: string;
  }[];
  readonly vehicle: string;
  /** undefined: the configuration does not say it rightly. */
  readonly stateDir: string | undefined;
  /** What was found wrong until now. */
  readonly problems: readonly ConfigProblem[];
  readonly add: Add;
  readonly parse: Parse;
  /** Complains of a condition that no device here can ever meet. */
  readonly mayDisarm: (when: When | undefined, at: At) => void;
}

export interface ReadRoutes {
  readonly routes: Route[];
  readonly syncs: SyncConfig[];
  /** Of those entries that can run: one may have become several. */
  count: number;
  /** What does not happen, of those that are wrong. */
  readonly out: string[];
  /** Sources whose files may be wanted by more than is known here. */
  readonly unsure: Set<string>;
}

/** The modes whose routes may have this key. */
export function modesWith(key: string): string[] {
  const schemas = { copy: routeSchema, mirror: mirrorSchema, "two-way": twoWaySchema };
  return Object.entries(schemas).flatMap(([mode, { entries }]) => (Object.hasOwn(entries, key) ? [mode] : []));
}

export function readRoutes(entries: readonly unknown[], around: Around): ReadRoutes {
  const read: ReadRoutes = { routes: [], syncs: [], count: 0, out: [], unsure: new Set() };
  const counted = (work: () => void): void => {
    const before = read.routes.length + read.syncs.length;
    work();
    if (read.routes.length + read.syncs.length > before) read.count += 1;
  };
  // First those that others may not touch.
  entries.forEach((entry, index) => {
    const mode = syncMode(entry);
    if (mode !== undefined) counted(() => readSync(mode, entry, ["routes", index], entries, around, read));
  });
  entries.forEach((entry, index) => {
    if (syncMode(entry) === undefined) counted(() => readCopy(entry, ["routes", index], entries, around, read));
  });
  return read;
}

function syncMode(entry: unknown): SyncConfig["mode"] | undefined {
  return isObject(entry) && (entry.mode === "mirror" || entry.mode === "two-way") ? entry.mode : undefined;
}

function readSync(
  mode: SyncConfig["mode"],
  entry: unknown,
  at: At,
  entries: readonly unknown[],
  around: Around,
  { syncs, out }: ReadRoutes,
): void {
  const { devices, vehicle, problems, add, parse } = around;
  const before = problems.length;
  const parsed = parse<SyncOutput>(at, mode === "mirror" ? mirrorSchema : twoWaySchema, entry);
  if (parsed === undefined) {
    out.push(`a ${mode} route does not run`);
    return;
  }
  checkPatterns(parsed, at, add);
  const misled = intoProblem(parsed.into);
  if (misled !== undefined) add([...at, "into"], misled);
  syncConfigs(parsed, vehicle).forEach((sync, n) => {
    const { from, to, deletes } = sync;
    if (from === to) add([...at, "to", n], "a route cannot lead to where it comes from");
    checkDevice(from, "source", [...at, "from"], around);
    if (mode === "two-way" && around.known.get(from)?.plugin?.neverExclusive === true)
      add(
        [...at, "from"],
        `"${from}" cannot be this side of a two-way route: at no ${around.known.get(from)?.plugin?.type ?? ""} server a name is surely nobody else's; make it the other side ("to")`,
      );
    if (deletes && isRole(from, "source", around)) {
      const writes = mode === "mirror" ? 'a mirror with "deletes" puts a mark there' : "both sides of a two-way route are written";
      checkDevice(from, "target", [...at, "from"], around, writes);
    }
    if (checkDevice(to, "target", [...at, "to", n], around) && !isRole(to, "source", around))
      add(
        [...at, "to", n],
        `"${to}" cannot be kept the same as another device: what it holds cannot be listed; a copy route can lead there`,
      );
    const placeOf = (device: string, below: string) => placeIn(devices, device, below);
    const takes = (other: unknown) => {
      if (!isObject(other) || !takesAway(other) || typeof other["from"] !== "string") return false;
      const [include, exclude] = [patternsIn(other["include"]), patternsIn(other["exclude"])];
      return takesFromSync(devices, sync, { ...sync.rules, from: other["from"], include, exclude });
    };
    if (deletes && problems.length === before && entries.some(takes))
      add(at, `another route takes delivered files away from "${from}" or "${to}": here that would remove them on both sides`);
    const back = problems.length > before ? undefined : syncComesBack(devices, sync);
    if (back !== undefined) add([...at, "to", n], back);
    const held = problems.length > before ? undefined : syncHoldsState(around, sync);
    if (held !== undefined) add(at, held);
    const against = syncs.map((other) => fight(other, sync, placeOf)).find((why) => why !== undefined);
    if (against !== undefined) add(at, against);
    if (inCircle(sync, syncs, placeOf)) add(at, `mirrors lead in a circle: ${from} would follow itself`);
    const usable = [from, to].every((side) => devices.some(({ name }) => name === side));
    if (usable && problems.length === before) syncs.push(sync);
    else out.push(`${titleOf(sync)} does not run`);
  });
}

function readCopy(entry: unknown, at: At, entries: readonly unknown[], around: Around, { routes, syncs, out, unsure }: ReadRoutes): void {
  const { known, devices, vehicle, problems, add, parse, mayDisarm } = around;
  const before = problems.length;
  const parsed = parse(at, routeSchema, entry);
  const route = parsed ?? roughRoute(entry);
  if (parsed !== undefined || route.from !== "") checkDevice(route.from, "source", [...at, "from"], around);
  const to = targetsOf(route);
  to.forEach((target, n) => {
    checkDevice(target.device, "target", [...at, "to", n], around);
    if (target.device === route.from) add([...at, "to", n], "a route cannot lead to where it comes from");
    if (to.findIndex((other) => other.device === target.device) < n) add([...at, "to", n], `"${target.device}" is there twice`);
    for (const name of target.requires)
      if (name === target.device || !to.some(({ device }) => device === name))
        add([...at, "to", n], `"requires" names "${name}", which is no other target of this route`);
  });
  mayDisarm(parsed?.when, at);
  if (requiresInCircle(to)) add([...at, "to"], '"requires" leads in a circle: nothing would ever be sent');
  const misled = misledInto(route.into) ?? halfBraced(route.into);
  if (misled !== undefined) add([...at, "into"], misled);
  for (const [key, word] of [...route.into.matchAll(/\{([^}]*)\}/g)])
    if (!["vehicle", "device", "installation", "date"].includes(word ?? ""))
      add([...at, "into"], `${key} is not known; there are {vehicle} {device} {installation} {date}`);
  if (parsed?.maxSize !== undefined && parsed.maxSize < parsed.minSize)
    add([...at, "maxSize"], `no file is as large as "minSize" (${parsed.minSize}) and no larger than this (${parsed.maxSize})`);
  checkPatterns(route, at, add);
  // Of a device that is wrong itself nothing more is known.
  const source = devices.find(({ name }) => name === route.from);
  if (route.afterDelivery === "archive" && source !== undefined && source.archiveDir === undefined)
    add([...at, "afterDelivery"], `"archive" needs "archiveDir" on the device "${route.from}"`);
  const whole = parsed === undefined ? undefined : wholeOf(parsed);
  if (whole !== undefined && problems.length === before) {
    const held = copyHoldsState(around, whole);
    if (held !== undefined) add([...at, "from"], held);
    to.forEach(({ device }, n) => {
      const back = copyComesBack(devices, whole, device, { vehicle });
      if (back !== undefined) add([...at, "to", n], back);
      if (whole.afterDelivery === "keep") return;
      const filled = placeIn(devices, device, intoOf(whole, { vehicle }));
      const mirror = syncs.find(
        ({ mode, deletes, to: other, into }) => mode === "mirror" && deletes && overlap(placeIn(devices, other, into), filled),
      );
      if (mirror !== undefined)
        add(
          [...at, "to", n],
          `a mirror with "deletes" fills ${mirror.to}:${mirror.into}: what is delivered there may be replaced or removed, and "afterDelivery" would have taken away the other copy; choose another directory, or "keep"`,
        );
    });
    const also = whole.afterDelivery === "keep" ? undefined : alsoWanted(entries, whole, devices);
    if (also !== undefined)
      add(
        [...at, "afterDelivery"],
        `another route brings files of the same directory from "${also}": this one would take them away before they went there; let both routes come from one device, then it waits, or "keep"`,
      );
    const round = problems.length > before ? undefined : copiesGoRound(devices, [...routes, whole], { vehicle });
    if (round !== undefined) add([...at, "to"], round);
  }
  if (parsed === undefined || whole === undefined || problems.length > before) {
    out.push(`the route from ${route.from || "?"} to ${to.map(({ device }) => device).join(", ") || "?"} does not run`);
    for (const name of route.from === "" ? known.keys() : [route.from]) unsure.add(name);
    return;
  }
  // Of a type that nobody knows nothing is sent that it may not want.
  const isUnknown = ({ device: name }: RouteTarget) => known.get(name)?.plugin === undefined;
  if (to.some(isUnknown)) unsure.add(parsed.from);
  const startsNow = ({ device: name }: RouteTarget) => known.get(name)?.plugin?.fromFirstRun === true;
  const isLate = (target: RouteTarget) =>
    parsed.since === undefined && parsed.newest === undefined && (isUnknown(target) || startsNow(target));
  const targets = to.map((target) => ({
    ...target,
    ...(startsNow(target) ? { once: true as const } : {}),
    ...(isUnknown(target) && isLate(target) ? { unknownType: true as const } : {}),
  }));
  const startsLate = (target: RouteTarget) => whole.since === "install" || isLate(target);
  const rest = targets.filter((target) => !startsLate(target));
  if (rest.length > 0) routes.push({ ...whole, to: rest });
  // Each as a route of its own: what the others get is not bound by it, and when it ran first stays known whatever targets come beside it, or go.
  for (const late of targets.filter(startsLate)) routes.push({ ...whole, to: [late], since: "install" });
}

type ParsedRoute = v.InferOutput<typeof routeSchema>;

const targetsOf = ({ to }: Pick<ParsedRoute, "to">): RouteTarget[] =>
  to.map((target) => (typeof target === "string" ? { device: target, required: true, requires: [] } : target));

const wholeOf = (parsed: ParsedRoute): Route => ({
  ...parsed,
  to: targetsOf(parsed),
  maxSize: parsed.maxSize ?? Number.MAX_SAFE_INTEGER,
  since: sinceOf(parsed.since),
});

/** The device from which another copy route wants files that this one, by way of its own, takes away: nothing would wait for that one. */
function alsoWanted(entries: readonly unknown[], route: Route, devices: Around["devices"]): string | undefined {
  for (const entry of entries) {
    const { success, output } = v.safeParse(routeSchema, entry);
    if (!success || [output.include, output.exclude].some((patterns) => patternsIn(patterns).length < patterns.length)) continue;
    if (wantTheSame(devices, route, wholeOf(output))) return output.from;
  }
  return undefined;
}

/** Complains where it cannot be that; whether it can. `needs`: why it has to, where a person did not call it that. */
function checkDevice(name: string, role: "source" | "target", at: At, around: Around, needs?: string): boolean {
  const { known, add } = around;
  const found = known.get(name);
  const cannot = needs === undefined ? `"${name}" cannot be a ${role}` : `${needs}, and "${name}" cannot be written`;
  if (found === undefined) add(at, `there is no device "${name}"${suggestion(name, [...known.keys()])}`);
  else if (!found.roles.includes(role)) add(at, cannot);
  else if (found.withheld[role] !== undefined) add(at, `${cannot}: ${found.withheld[role]}`);
  return isRole(name, role, around);
}

function isRole(name: string, role: "source" | "target", { known }: Around): boolean {
  const found = known.get(name);
  return found?.roles.includes(role) === true && found.withheld[role] === undefined;
}

function checkPatterns(route: { readonly include: readonly string[]; readonly exclude: readonly string[] }, at: At, add: Add): void {
  for (const key of ["include", "exclude"] as const)
    route[key].forEach((pattern, n) => {
      try {
        picomatch.makeRe(pattern);
      } catch (error) {
        add([...at, key, n], `this pattern cannot be used: ${error instanceof Error ? error.message : String(error)}`);
      }
    });
}

/** Of a route that may be wrong: those that are right. */
function patternsIn(value: unknown): string[] {
  const patterns = Array.isArray(value) ? value.filter((pattern) => typeof pattern === "string") : [];
  const told: unknown[] = [];
  return patterns.filter((pattern) => {
    checkPatterns({ include: [pattern], exclude: [] }, [], (...wrong) => told.push(wrong));
    return told.splice(0).length === 0;
  });
}

const takesAway = ({ afterDelivery }: Record<string, unknown>) => afterDelivery === "delete" || afterDelivery === "archive";

function requiresInCircle(targets: Route["to"]): boolean {
  let left = targets;
  for (;;) {
    const free = left.filter(({ requires }) => !requires.some((name) => left.some(({ device }) => device === name)));
    if (free.length === 0) return left.length > 0;
    left = left.filter((target) => !free.includes(target));
  }
}

/** What can be looked into, of a route that is wrong. */
function roughRoute(
  raw: unknown,
): Pick<v.InferOutput<typeof routeSchema>, "from" | "to" | "into" | "include" | "exclude" | "afterDelivery"> {
  const { from, to, into } = isObject(raw) ? raw : {};
  return {
    from: typeof from === "string" ? from : "",
    to: Array.isArray(to) ? to.filter((target) => typeof target === "string") : [],
    into: typeof into === "string" ? into : "",
    include: [],
    exclude: [],
    afterDelivery: "keep",
  };
}

function sinceOf(since: string | undefined): Route["since"] {
  if (since === undefined || since === "install") return since;
  const ageMs = parseDuration(since);
  return ageMs === undefined ? Date.parse(since) : { ageMs };
}
