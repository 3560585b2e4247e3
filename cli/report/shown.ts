/**
 * A configuration as it may be shown: only what the options of its own plugins know stands there, without comments; what is a secret, what may be one, and
 * what nobody knows is left out. Numbers and truth values stay: none of them opens anything.
 */
import type * as v from "valibot";
import { configSchema, deviceCommon } from "../../core/config.js";
import { routeSchema } from "../../core/config-routes.js";
import { entriesOf } from "../../core/config-problems.js";
import { isPath, secretKey } from "../../core/options.js";
import { hidden } from "./secrets.js";

interface Node {
  readonly entries?: Readonly<Record<string, unknown>>;
  readonly wrapped?: unknown;
  readonly pipe?: readonly unknown[];
  readonly options?: readonly unknown[];
  readonly value?: unknown;
  readonly item?: unknown;
}

const unknownText = "[not shown]";
/** Free texts that people put secrets into. */
const freeKeys: readonly string[] = ["fields", "headers", "onSafe", "command"];

/** `schemaOf`: the options of a type; undefined for one whose plugin is not ours, of which no text is shown. */
export function shownConfig(raw: unknown, schemaOf: (type: string) => v.GenericSchema | undefined): unknown {
  if (typeof raw !== "object" || raw === null || Array.isArray(raw)) return unknownText;
  return mapped(raw, (key, value) => {
    if (key === "devices" || key === "services") return mapped(value, (_name, entry) => shownEntry(entry, schemaOf));
    if (key === "routes") return Array.isArray(value) ? value.map((route) => shown(route, routeSchema)) : unknownText;
    return shown(value, own(entriesOf(configSchema), key), key);
  });
}

function shownEntry(entry: unknown, schemaOf: (type: string) => v.GenericSchema | undefined): unknown {
  const type = typeof entry === "object" && entry !== null && "type" in entry && typeof entry.type === "string" ? entry.type : "";
  const schema = schemaOf(type);
  const entries = schema === undefined ? undefined : entriesOf(schema);
  return mapped(entry, (key, value) => {
    if (key === "type") return schema === undefined ? unknownText : type;
    return shown(value, own(entries, key) ?? own(deviceCommon, key), key);
  });
}

function mapped(value: unknown, each: (key: string, value: unknown) => unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return unknownText;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, each(key, inner)]));
}

function shown(value: unknown, schema: unknown, key = ""): unknown {
  if (isSecret(schema) || (secretKey.test(key) && !isPath(value))) return where(value);
  if (freeKeys.includes(key)) return leftOut(value);
  if (typeof value === "boolean" || value === null) return value;
  if (typeof value === "number") return schema === undefined ? unknownText : value;
  if (typeof value === "string") return schema === undefined || takesNoText(schema) ? unknownText : value;
  if (Array.isArray(value)) return value.map((one) => shown(one, part(schema, "item")));
  const entries = schema === undefined ? undefined : entriesOf(schema);
  return mapped(value, (inner, one) => shown(one, own(entries, inner) ?? part(schema, "value"), inner));
}

/** A key such as "toString" is no option, whatever an object has under it. */
function own(entries: Readonly<Record<string, unknown>> | undefined, key: string): unknown {
  return entries !== undefined && Object.hasOwn(entries, key) ? entries[key] : undefined;
}

/** The keys of what is left out are told. */
function leftOut(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(() => hidden);
  return typeof value === "object" && value !== null ? mapped(value, () => hidden) : hidden;
}

/** Where a secret is kept, not what it is. */
function where(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return hidden;
  const keys = Object.keys(value);
  const [key] = keys;
  return keys.length === 1 && ["env", "file", "credential"].includes(key ?? "") ? { ...value } : hidden;
}

/** An object belongs there: a text may be anything, as a password right under a user's name. */
function takesNoText(schema: unknown): boolean {
  const node = schema as Node;
  if (node.wrapped !== undefined) return takesNoText(node.wrapped);
  if (node.options !== undefined) return node.options.every((one) => typeof one === "object" && takesNoText(one));
  return node.entries !== undefined || node.value !== undefined;
}

/** What `secret()` of `core/options.ts` makes: a text, or where it is. */
function isSecret(schema: unknown): boolean {
  const node = schema as Node | undefined;
  if (node === undefined) return false;
  if (node.wrapped !== undefined) return isSecret(node.wrapped);
  const options = node.options ?? (node.pipe?.[0] as Node | undefined)?.options ?? [];
  return options.some((one) => (one as Node | undefined)?.entries?.["env"] !== undefined);
}

/** The schema of what a list or a record holds. */
function part(schema: unknown, which: "item" | "value"): unknown {
  const node = schema as Node | undefined;
  if (node === undefined) return undefined;
  if (node[which] !== undefined) return node[which];
  if (node.wrapped !== undefined) return part(node.wrapped, which);
  return node.options?.map((one) => part(one, which)).find((one) => one !== undefined);
}
