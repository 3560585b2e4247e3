/** A two-way route in the configuration. */
import * as v from "valibot";
import { duration, rate } from "../options.js";
import type { Route } from "../route.js";
import type { MaxDeletes } from "./guard.js";

const patterns = (what: string) => v.optional(v.pipe(v.array(v.string("a pattern")), v.description(what)), []);

export const syncSchema = v.strictObject({
  from: v.pipe(v.string("a device name"), v.description("One side: a directory on this machine, as a rule.")),
  to: v.pipe(
    v.tuple([v.string("a device name")], "a list of one device name"),
    v.description("The other side: the server that several machines share."),
  ),
  mode: v.pipe(v.literal("two-way", '"two-way"'), v.description("two-way: both sides follow each other.")),
  into: v.optional(v.pipe(v.string("a directory"), v.description("The directory at the other side; default: the device's root.")), ""),
  include: patterns('Patterns of files to take, such as "**/*.ulg"; none: all.'),
  exclude: patterns("Patterns of files and directories to leave as they are, on both sides."),
  maxRate: v.optional(v.pipe(rate(), v.description("The most bytes per second that this route brings to a side."))),
  maxDeletes: v.optional(
    v.pipe(
      v.union(
        [
          v.pipe(v.number(), v.integer(), v.minValue(0)),
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
});

export interface SyncConfig {
  readonly from: string;
  readonly to: string;
  /** Below the root of `to`; "" is the root itself. */
  readonly into: string;
  /** `include` and `exclude`, as a route has them. */
  readonly rules: Route;
  readonly maxRate?: number;
  readonly maxDeletes: MaxDeletes;
  readonly trashKeepMs: number;
}

export function syncConfig({
  from,
  to: [to],
  into,
  include,
  exclude,
  maxRate,
  maxDeletes,
  trashKeep,
}: v.InferOutput<typeof syncSchema>): SyncConfig {
  const everything = {
    minSize: 0,
    maxSize: Number.MAX_SAFE_INTEGER,
    priority: "newest",
    weight: 1,
    into: "",
    afterDelivery: "keep",
    trustSize: false,
  } as const;
  return {
    ...{
      from,
      to,
      into: into
        .split("/")
        .filter((part) => part !== "")
        .join("/"),
    },
    rules: { from, to: [], include, exclude, ...everything },
    ...(maxRate === undefined ? {} : { maxRate }),
    maxDeletes: typeof maxDeletes === "number" ? { share: 0, least: maxDeletes } : { share: maxDeletes.share, least: 20 },
    trashKeepMs: trashKeep,
  };
}

/** Why two of these cannot both be kept; undefined when they can. */
export function fight(one: SyncConfig, two: SyncConfig): string | undefined {
  for (const [device, dir] of placesOf(one))
    for (const [other, below] of placesOf(two))
      if (device === other && (`${dir}/`.startsWith(`${below}/`) || `${below}/`.startsWith(`${dir}/`) || dir === "" || below === ""))
        return `another route keeps ${device}:${dir} the same as something else: they would undo one another's changes`;
  return undefined;
}

const placesOf = ({ from, to, into }: SyncConfig) =>
  [
    [from, ""],
    [to, into],
  ] as const;
