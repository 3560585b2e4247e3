/** A mirror or two-way route in the configuration. */
import * as v from "valibot";
import { duration, lineOrNothing, rate } from "../options.js";
import { overlap, type Place } from "../places.js";
import { halfBraced, intoOf, misledInto, type Route, shortHash } from "../route.js";
import type { MaxDeletes } from "./guard.js";

const patterns = (what: string) => v.optional(v.pipe(v.array(v.string("a pattern")), v.description(what)), []);

const shared = {
  into: v.optional(
    v.pipe(
      lineOrNothing("a directory"),
      v.description("The directory at the other side, from {vehicle} {device}; default: the device's root."),
    ),
    "",
  ),
  include: patterns('Patterns of files to take, such as "**/*.ulg"; none: all.'),
  exclude: patterns("Patterns of files and directories to leave as they are, on each side."),
  maxRate: v.optional(v.pipe(rate(), v.description("The most bytes per second that this route brings to a side."))),
  maxDeletes: v.optional(
    v.pipe(
      v.union(
        [
          v.pipe(v.number(), v.integer("a whole number"), v.minValue(0, "at least 0")),
          v.pipe(
            v.string(),
            v.regex(/^(\d|[1-9]\d|100)\s*%$/),
            v.transform((text) => ({ share: Number.parseInt(text, 10) / 100 })),
          ),
        ],
        'a whole number, or a share such as "10%"',
      ),
      v.description(
        "How many files and directories may be removed from a side in one round without a person's approval; a share counts from 20 on.",
      ),
    ),
    "10%",
  ),
  trashKeep: v.optional(
    v.pipe(
      duration(),
      v.minValue(86_400_000, "at least 1d"),
      v.description("How long what was removed or replaced is kept, on either side."),
    ),
    "30d",
  ),
};

export const twoWaySchema = v.strictObject({
  from: v.pipe(v.string("a device name"), v.description("One side: a directory on this machine, as a rule.")),
  to: v.pipe(
    v.strictTuple([v.string("a device name")], "a list of one device name: each other device has a route of its own"),
    v.description("The other side: the server that several machines share."),
  ),
  mode: v.pipe(v.literal("two-way", '"two-way"'), v.description("two-way: both sides follow each other.")),
  ...shared,
});

export const mirrorSchema = v.strictObject({
  from: v.pipe(v.string("a device name"), v.description("What is followed.")),
  to: v.pipe(
    v.pipe(v.array(v.string("a device name")), v.minLength(1, "at least one device")),
    v.description("What follows; each device by itself."),
  ),
  mode: v.pipe(v.literal("mirror", '"mirror"'), v.description("mirror: the other sides hold what this one does.")),
  deletes: v.optional(
    v.pipe(
      v.boolean("true or false"),
      v.description("What has gone from this side goes at the others too, to the trash there; false: it stays there."),
    ),
    false,
  ),
  ...shared,
});

export type SyncOutput = v.InferOutput<typeof twoWaySchema> | v.InferOutput<typeof mirrorSchema>;

export interface SyncConfig {
  readonly mode: "mirror" | "two-way";
  readonly from: string;
  readonly to: string;
  /** Below the root of `to`; "" is the root itself. */
  readonly into: string;
  /** `include` and `exclude`, as a route has them. */
  readonly rules: Route;
  readonly maxRate?: number;
  readonly maxDeletes: MaxDeletes;
  readonly trashKeepMs: number;
  /** What has gone from one side is taken away at the other; of a two-way route always. */
  readonly deletes: boolean;
}

/** In the journal and in the marks of its directories; another one after the state was copied to another machine. */
export const routeId = (installation: string, { mode, from, to, into }: SyncConfig): string =>
  shortHash(mode, installation, from, to, into);
/** As people name it in a command. */
export const nameOf = ({ from, to, into, mode }: SyncConfig): string =>
  `${from}:${to}${mode === "mirror" && into !== "" ? `/${into}` : ""}`;
/** As `status` shows it. */
export const titleOf = ({ from, to, into, mode }: SyncConfig): string =>
  mode === "two-way" ? `${from} ↔ ${to}` : `${from} ⇒ ${to}${into === "" ? "" : `/${into}`}`;

/** Whether it changes anything at a device. */
export const changes = ({ mode, from, to, deletes }: SyncConfig, device: string): boolean =>
  to === device || (from === device && (mode === "two-way" || deletes));

/** Whether any route changes something at a device: brings files there, or takes them away where they are found. */
export const isChanged = (
  { routes, syncs }: { readonly routes: readonly Pick<Route, "from" | "to" | "afterDelivery">[]; readonly syncs: readonly SyncConfig[] },
  name: string,
): boolean =>
  routes.some(({ from, to, afterDelivery }) => to.some(({ device }) => device === name) || (from === name && afterDelivery !== "keep")) ||
  syncs.some((sync) => changes(sync, name));

/** Why a route cannot keep a directory of that name; undefined: it can. For a person. */
export function intoProblem(into: string): string | undefined {
  const known = "there are {vehicle} {device}";
  const misled = misledInto(into) ?? halfBraced(into);
  if (misled !== undefined) return misled;
  for (const [whole, word] of into.matchAll(/\{([^}]*)\}/g))
    if (word === "date") return `${whole} is not the same every day, and this route keeps one directory: ${known}`;
    else if (word === "installation")
      return `${whole} is another one after a card was copied, and this route keeps one directory: ${known}`;
    else if (word !== "vehicle" && word !== "device") return `${whole} is not known; ${known}`;
  return undefined;
}

/** One for each device that it leads to. */
export function syncConfigs(given: SyncOutput, vehicle: string): SyncConfig[] {
  const { mode, from, include, exclude, maxRate, maxDeletes, trashKeep } = given;
  const everything = {
    minSize: 0,
    maxSize: Number.MAX_SAFE_INTEGER,
    priority: "newest",
    weight: 1,
    into: "",
    afterDelivery: "keep",
    trustSize: false,
  } as const;
  const into = intoOf({ from, into: given.into }, { vehicle });
  return given.to.map((to) => ({
    ...{ mode, from, to, into },
    rules: { from, to: [], include, exclude, ...everything },
    ...(maxRate === undefined ? {} : { maxRate }),
    maxDeletes: typeof maxDeletes === "number" ? { share: 0, least: maxDeletes } : { share: maxDeletes.share, least: 20 },
    trashKeepMs: trashKeep,
    deletes: given.mode === "two-way" || given.deletes,
  }));
}

type PlaceOf = (device: string, below: string) => Place;

/** Whether what a mirror brings would come back to where it is from, by way of others. */
export function inCircle(mirrored: SyncConfig, others: readonly SyncConfig[], placeOf: PlaceOf): boolean {
  const mirrors = [mirrored, ...others].filter(({ mode }) => mode === "mirror");
  const seen = new Set<SyncConfig>([mirrored]);
  for (const one of seen)
    for (const next of mirrors)
      if (overlap(placeOf(one.to, one.into), placeOf(next.from, ""))) {
        if (next === mirrored && one !== mirrored) return true;
        seen.add(next);
      }
  return false;
}

/** Why two of these cannot both be kept; undefined when they can. */
export function fight(one: SyncConfig, two: SyncConfig, placeOf: PlaceOf): string | undefined {
  for (const [device, dir, written] of placesOf(one))
    for (const [other, below, writtenToo] of placesOf(two))
      if (written && writtenToo && overlap(placeOf(device, dir), placeOf(other, below)))
        return `another route keeps ${device}:${dir} the same as something else: they would undo one another's changes`;
  return undefined;
}

/** Whether its contents come from elsewhere. */
const placesOf = ({ mode, from, to, into }: SyncConfig) =>
  [
    [from, "", mode === "two-way"],
    [to, into, true],
  ] as const;
