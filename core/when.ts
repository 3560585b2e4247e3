/**
 * `when`: what must be so for files to be sent, to a device or along a route. Here are its options and what they mean; `limits.ts` looks, and holds
 * back. What cannot be found out is not so, and the reason says why.
 */
import * as v from "valibot";
import type { Machine } from "./machine.js";
import { durationText } from "./text.js";

/** From and to in minutes of the day, by the machine's own time zone; over midnight where `to` is the smaller. */
export interface Window {
  readonly text: string;
  readonly from: number;
  readonly to: number;
}

export interface Reach {
  readonly url: string;
  readonly status: number;
  readonly contains?: string | undefined;
}

export interface When {
  readonly time?: readonly Window[] | undefined;
  readonly whenClockUnknown: "wait" | "go";
  readonly interface?: readonly string[] | undefined;
  readonly ssid?: readonly string[] | undefined;
  readonly metered?: boolean | undefined;
  readonly disarmed?: true | undefined;
  readonly reach?: Reach | undefined;
}

/** Why nothing is sent now. */
export interface Held {
  readonly reason: string;
  /** When it is over, in ms from now, where that is known. */
  readonly inMs?: number;
}

export interface Facts {
  readonly wallMs: number;
  readonly trusted: boolean;
  readonly machine: Machine;
  /** By device that can tell; undefined: not known now. */
  readonly armed: ReadonlyMap<string, boolean | undefined>;
}

const windowText = 'two times that differ, such as "22:00-06:00"';

const window = v.pipe(
  v.string(windowText),
  v.rawTransform<string, Window>(({ dataset, addIssue, NEVER }) => {
    const [, first = "", last = ""] = /^(\d\d?:\d\d)-(\d\d?:\d\d)$/.exec(dataset.value.replaceAll(" ", "")) ?? [];
    const from = minutes(first, 1439);
    const to = minutes(last, 1440);
    if (from !== undefined && to !== undefined && from !== to) return { text: dataset.value, from, to };
    const none = first === "" ? undefined : from === undefined ? first : to === undefined ? last : undefined;
    addIssue({ message: none === undefined ? windowText : `times from 00:00 to 23:59, or to 24:00: ${none} is none of them` });
    return NEVER;
  }),
);

function minutes(text: string, most: number): number | undefined {
  const [hours = NaN, minutes = NaN] = text.split(":").map(Number);
  const all = hours * 60 + minutes;
  return minutes < 60 && all <= most ? all : undefined;
}

/** One, or a list of them. */
function oneOrMore<T>(item: v.GenericSchema<string, T>, what: string) {
  return v.pipe(
    v.union([item, v.pipe(v.array(item, what), v.minLength(1, "at least one"))], ({ issues }) => closest(issues) ?? what),
    v.transform((given) => (Array.isArray(given) ? given : [given]) as readonly T[]),
  );
}

/** What the item itself says of a text that it does not take. */
function closest(issues: readonly v.BaseIssue<unknown>[] = []): string | undefined {
  return issues.find(({ type }) => type === "raw_transform")?.message;
}

const name = v.pipe(v.string("a name"), v.nonEmpty("a name"));

export const whenSchema = v.strictObject({
  time: v.optional(
    v.pipe(
      oneOrMore(window, windowText),
      v.description('Only at these times of the day, as the machine\'s time zone has it: "22:00-06:00".'),
    ),
  ),
  whenClockUnknown: v.optional(
    v.pipe(
      v.picklist(["wait", "go"], '"wait" or "go"'),
      v.description("What `time` means while nobody knows the time: wait until it is known, or send."),
    ),
    "wait",
  ),
  interface: v.optional(
    v.pipe(
      oneOrMore(name, "the name of a network interface"),
      v.description("Only while one of these network interfaces is up and has an address."),
    ),
  ),
  ssid: v.optional(
    v.pipe(oneOrMore(name, "the name of a wireless network"), v.description("Only while connected to one of these wireless networks.")),
  ),
  metered: v.optional(
    v.pipe(v.boolean("true or false"), v.description("false: only while the way out is not metered; true: only while it is.")),
  ),
  disarmed: v.optional(v.pipe(v.literal(true, "true"), v.description("Only while the vehicle is known to be disarmed."))),
  reach: v.optional(
    v.pipe(
      v.strictObject({
        url: v.pipe(
          v.string("a URL"),
          v.check((text) => /^https?:\/\//.test(text) && URL.canParse(text), 'a URL that begins with "http://" or "https://"'),
          v.description("Asked before anything is sent, and every 30 s."),
        ),
        status: v.optional(
          v.pipe(v.number("a number"), v.integer("a number"), v.description("The status that the right server answers with.")),
          200,
        ),
        contains: v.optional(v.pipe(v.string("a text"), v.nonEmpty("a text"), v.description("What the right server's answer holds."))),
      }),
      v.check(
        ({ url, contains }) => url.startsWith("https:") || contains !== undefined,
        'with "contains": over http:// any captive portal can answer, so only a text tells the right server',
      ),
      v.description("Only while the right server can be reached: its answer proves it."),
    ),
  ),
});

/** All conditions that are not met; undefined when files may be sent. `reach` costs bytes on the way out: it is asked once the others are met. */
export async function heldBy(when: When, facts: Facts): Promise<Held | undefined> {
  const { machine } = facts;
  const held = together([
    timeHolds(when, facts),
    armedHolds(when, facts),
    said(when.interface && machine.interfaceHolds(when.interface)),
    said(when.ssid && (await machine.ssidHolds(when.ssid))),
    said(when.metered === undefined ? undefined : await machine.meteredHolds(when.metered, when.interface)),
  ]);
  return held ?? said(when.reach && (await machine.reachHolds(when.reach)));
}

/** Several that hold, as one: over when the last of them is, where each says when that is. */
export function together(all: readonly (Held | undefined)[]): Held | undefined {
  const held = all.filter((one) => one !== undefined);
  if (held.length === 0) return undefined;
  const reason = held.map((one) => one.reason).join("; ");
  const inMs = Math.max(...held.map((one) => one.inMs ?? Infinity));
  return { reason, ...(inMs === Infinity ? {} : { inMs }) };
}

function said(reason: string | undefined): Held | undefined {
  return reason === undefined ? undefined : { reason };
}

function timeHolds({ time, whenClockUnknown }: When, { wallMs, trusted }: Facts): Held | undefined {
  if (time === undefined) return undefined;
  if (!trusted)
    return whenClockUnknown === "go"
      ? undefined
      : { reason: 'nobody knows the time since this machine started ("whenClockUnknown": "go" sends all the same)' };
  if (isOpen(time, wallMs)) return undefined;
  const inMs = beginsMs(time, wallMs) - wallMs;
  return { reason: `only at ${time.map(({ text }) => text).join(", ")} ("time"), which begins in ${durationText(inMs / 1000)}`, inMs };
}

const minuteMs = 60_000;

function isOpen(time: readonly Window[], atMs: number): boolean {
  const at = new Date(atMs);
  const minute = at.getHours() * 60 + at.getMinutes();
  return time.some(({ from, to }) => (from < to ? minute >= from && minute < to : minute >= from || minute < to));
}

/** When the next window begins. Where the clocks change before that, an hour comes twice, or a window never, or only its end: then each minute is looked at. */
function beginsMs(time: readonly Window[], wallMs: number): number {
  const now = new Date(wallMs);
  const minute = now.getHours() * 60 + now.getMinutes();
  const days = (n: number, from: number) => new Date(now.getFullYear(), now.getMonth(), now.getDate() + n, 0, from);
  const next = Math.min(...time.map(({ from }) => days(from > minute ? 0 : 1, from).getTime()));
  if (new Date(next).getTimezoneOffset() === now.getTimezoneOffset()) return next;
  let at = wallMs - (wallMs % minuteMs) + minuteMs;
  while (!isOpen(time, at) && at < wallMs + 3 * 1440 * minuteMs) at += minuteMs;
  return at;
}

function armedHolds({ disarmed }: When, { armed }: Facts): Held | undefined {
  if (disarmed !== true) return undefined;
  const states = [...armed];
  const flying = states.find(([, state]) => state === true);
  if (flying !== undefined) return { reason: `${flying[0]} says that the vehicle is armed` };
  const unknown = states.find(([, state]) => state === undefined);
  if (unknown !== undefined) return { reason: `${unknown[0]} does not say whether the vehicle is armed, which counts as armed` };
  return states.length > 0 ? undefined : { reason: "no device says whether the vehicle is armed, which counts as armed" };
}
