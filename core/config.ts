/**
 * The configuration: one schema, all errors at once, each with its line, its path, and the nearest right word. What is wrong in one
 * device or route takes only that one out; the rest can run. What is for a device that is out waits for it, and what a route that is out would
 * have taken is not removed at its source. Here: the whole, and its devices and services; `config-routes.ts` reads the routes, `config-problems.ts`
 * has the words for what is wrong.
 */
import { getNodePath, getNodeValue, parseTree, type ParseError } from "jsonc-parser";
import * as v from "valibot";
import { eventNames } from "./events.js";
import type { HookRule } from "./hooks.js";
import {
  asText,
  duplicateKeys,
  reservedKeys,
  eachUnknown,
  entriesOf,
  isObject,
  isUnseen,
  lineOf,
  listsForObjects,
  messageOf,
  strangeTexts,
  suggestion,
  syntaxProblem,
  tooDeep,
  type At,
  type ConfigProblem,
} from "./config-problems.js";
import { modesWith, readRoutes, type Add, type Known, type Parse } from "./config-routes.js";
import { command, duration, lineOrNothing, oneLine, parseIn, path, rate, secretWords, size, wait, type Surroundings } from "./options.js";
import { printable } from "./names.js";
import { plainPath } from "./paths.js";
import type { Plugin, Role } from "./plugin.js";
import { misledInto, ownDir, type Route } from "./route.js";
import type { BudgetLimits } from "./budget.js";
import type { SyncConfig } from "./sync/options.js";
import { whenSchema, type When } from "./when.js";

/** What core must know of plugins, given by the command line: core itself knows none by name. */
export interface PluginList {
  /** The built-in types, for suggestions and for the JSON Schema. */
  readonly types: readonly string[];
  /** Loads a type; undefined when there is none. `baseDir` resolves "./my-plugin.js". */
  load(type: string, baseDir: string): Promise<Plugin<unknown> | undefined>;
}

export const deviceCommon = {
  interval: v.optional(
    v.pipe(wait(), v.minValue(1000, "at least 1s"), v.description("How often a source is listed while it is attached.")),
  ),
  settle: v.optional(v.pipe(wait(), v.description("How long a file must stay the same before it counts as complete.")), "10s"),
  concurrency: v.optional(
    v.pipe(
      v.number("a whole number"),
      v.integer("a whole number"),
      v.minValue(1, "at least 1"),
      v.maxValue(64, "at most 64"),
      v.description("How many files move at once; never more than the device can."),
    ),
  ),
  maxRate: v.optional(v.pipe(rate(), v.description("The most bytes per second that this device is read or written with."))),
  budget: v.optional(
    v.pipe(
      v.strictObject(
        {
          day: v.optional(
            v.pipe(size(), v.minValue(1, "at least one byte"), v.description("The most bytes that are sent to it in a day.")),
          ),
          month: v.optional(
            v.pipe(size(), v.minValue(1, "at least one byte"), v.description("The most bytes that are sent to it in a month.")),
          ),
        },
        'an object, as { "day": "500 MB" }',
      ),
      v.check(({ day, month }) => day !== undefined || month !== undefined, '"day" or "month"'),
      v.description("The most that is sent to this target, counting what is sent again."),
    ),
  ),
  when: v.optional(v.pipe(whenSchema, v.description("What must be so for files to be sent to this target."))),
  archiveDir: v.optional(
    v.pipe(
      lineOrNothing("a directory below the source's root"),
      v.description('Where `afterDelivery: "archive"` moves delivered files.'),
      v.transform(plainPath),
      v.check(
        (dir) => dir !== "" && misledInto(dir) === undefined,
        'a directory below the source\'s root, without "..", and none that is named ".filesync"',
      ),
    ),
  ),
};

export const configSchema = v.strictObject({
  $schema: v.optional(v.string()),
  vehicle: v.optional(
    v.pipe(
      oneLine("a name"),
      // It is a directory at targets, and a part of a name where two have changed a file.
      v.check(
        (name) => ![".", "..", ownDir].includes(name) && Buffer.byteLength(name) <= 100,
        `a name that a directory may have: at most 100 bytes, and not ".", ".." or "${ownDir}"`,
      ),
      v.description("The vehicle's name; default: the host name."),
    ),
  ),
  stateDir: v.optional(v.pipe(path(), v.description("Journal and spool.")), "/var/lib/filesync"),
  spool: v.optional(
    v.strictObject({
      maxSize: v.optional(v.pipe(size(), v.description("The most that the spool takes.")), "16GiB"),
      keepFree: v.optional(v.pipe(size(), v.description("What it leaves free on the disk.")), "1GiB"),
      keep: v.optional(v.pipe(duration(), v.description("How long a delivered file is kept in the spool.")), "7d"),
    }),
    {},
  ),
  journal: v.optional(
    v.strictObject({
      keep: v.optional(
        v.pipe(
          duration(),
          v.minValue(86_400_000, "at least 1d"),
          v.description("How long it is known of a file that was delivered and has left its source since."),
        ),
        "365d",
      ),
    }),
    {},
  ),
  metered: v.optional(
    v.pipe(
      v.array(v.string("a name"), "a list of names"),
      v.description('Network interfaces that cost by the byte, such as "wwan0" or "ppp*", where NetworkManager does not know.'),
    ),
    [],
  ),
  onEvent: v.optional(
    v.pipe(
      v.array(
        v.strictObject({
          event: v.pipe(
            v.union(
              [
                v.literal("*"),
                v.pipe(
                  v.array(v.picklist(eventNames, "the name of an event (docs/signals.md has them all)")),
                  v.minLength(1, 'at least one event, or "*"'),
                ),
              ],
              '"*", or a list of names of events',
            ),
            v.description('Which events: a list of their names, or "*" for all that the log shows.'),
          ),
          command: v.pipe(command(), v.description("What is run for each: the program, then its arguments.")),
        }),
        "a list of hooks",
      ),
      v.description("Commands that are run for events, with the event on stdin and in FILESYNC_EVENT, _DEVICE, _PATH, _TO and _MESSAGE."),
    ),
    [],
  ),
  devices: v.optional(
    v.record(v.string(), v.looseObject({ type: v.string("the type of a device") }, "a device: an object"), "devices by name"),
    {},
  ),
  routes: v.optional(v.array(v.unknown(), "a list of routes"), []),
  services: v.optional(
    v.record(v.string(), v.looseObject({ type: v.string("the type of a service") }, "a service: an object"), "services by name"),
    {},
  ),
});

export interface DeviceConfig {
  readonly name: string;
  readonly type: string;
  readonly kind: "device" | "service";
  readonly plugin: Plugin<unknown>;
  readonly options: unknown;
  readonly intervalMs?: number;
  readonly settleMs: number;
  readonly concurrency?: number;
  readonly maxRate?: number;
  readonly budget?: BudgetLimits;
  readonly when?: When;
  /** A path of core. */
  readonly archiveDir?: string;
}

export interface Config {
  readonly vehicle: string;
  readonly stateDir: string;
  readonly spool: { readonly maxSize: number; readonly keepFree: number; readonly keep: number };
  readonly journal: { readonly keep: number };
  /** Names of network interfaces that are metered, with patterns. */
  readonly metered: readonly string[];
  readonly onEvent: readonly HookRule[];
  readonly devices: readonly DeviceConfig[];
  /** Those of mode "copy"; also those from and to devices that are wrong. */
  readonly routes: readonly Route[];
  /** The others; only those whose devices are right. */
  readonly syncs: readonly SyncConfig[];
  /** As they are written, of those that run: one may be several of `routes` or `syncs`. */
  readonly routeCount: number;
  /** Absent where all is right. */
  readonly wrong?: Wrong;
}

/** What is wrong in a configuration of which the rest runs. */
export interface Wrong {
  readonly problems: readonly ConfigProblem[];
  /** The devices and services that are not started for it. */
  readonly devices: readonly { readonly name: string; readonly type: string; readonly roles: readonly Role[] }[];
  /** What does not happen therefore, in words for a person. */
  readonly therefore: readonly string[];
}

/** The names of all devices and services, also of those that are wrong. */
export function namesIn({ devices, wrong }: Pick<Config, "devices" | "wrong">): string[] {
  return [...devices, ...(wrong?.devices ?? [])].map(({ name }) => name);
}

export interface Loaded {
  /** What is right of it; undefined when the whole cannot be used. */
  readonly config?: Config;
  /** Also of a whole that cannot be used: where a daemon is that runs with what stood there before. As far as it can be read, else the default. */
  readonly stateDir: string;
  readonly problems: readonly ConfigProblem[];
}

export interface LoadOptions extends Surroundings {
  readonly hostName: string;
}

/** Windows' editors begin a text with a byte order mark: it says nothing. */
export function withoutMark(text: string): string {
  return text.startsWith("\uFEFF") ? text.slice(1) : text;
}

/** Reads the text of a configuration. Never throws for what a person wrote. */
export async function loadConfig(given: string, plugins: PluginList, options: LoadOptions): Promise<Loaded> {
  const text = withoutMark(given);
  const deep = tooDeep(text);
  if (deep !== undefined) return { stateDir: stateDirIn(undefined, options), problems: [deep] };
  const parseErrors: ParseError[] = [];
  const tree = parseTree(text, parseErrors, { allowTrailingComma: true, disallowComments: false });
  const lineAt = (offset: number) => text.slice(0, offset).split("\n").length;
  const raw = (tree === undefined ? undefined : getNodeValue(tree)) as unknown;
  const stateDir = stateDirIn(raw, options);
  if (tree === undefined || parseErrors.length > 0) {
    if (text.trim() === "") return { stateDir, problems: [{ line: 1, path: "", message: "the file is empty; see config.example.json" }] };
    return { stateDir, problems: parseErrors.slice(0, 1).map((error) => syntaxProblem(text, error)) };
  }
  const problems: ConfigProblem[] = [];
  const add = (at: At, message: string, more: Pick<ConfigProblem, "unseen"> = {}) =>
    void problems.push({ line: lineOf(tree, at, lineAt), path: printable(asText(at)), message: printable(message), ...more });
  const parse: Parse = (at, schema, input) => {
    const lists = [...listsForObjects(schema, input)];
    for (const { at: inner, wanted } of lists) add([...at, ...inner], `expected ${wanted}, got a list`);
    if (lists.length > 0) return undefined;
    const result = parseIn(options, schema, input);
    if (result.success) return result.output;
    for (const issue of result.issues.flatMap(inList).flatMap((one) => eachUnknown(one, schema))) {
      const inner = (issue.path ?? []).map((item) => item.key as string | number);
      const written = inner.reduce<unknown>(
        (value, key) => (value as Readonly<Record<string | number, unknown>> | undefined)?.[key],
        input,
      );
      const message = messageOf(issue, schema, inner, written, Object.keys(deviceCommon), modesWith);
      add([...at, ...inner], message, isUnseen(issue) ? { unseen: true } : {});
    }
    return undefined;
  };

  duplicateKeys(tree, (node, key) =>
    problems.push({
      line: lineAt(node.offset),
      path: printable(key),
      message: printable(`"${key}" is there twice; only one of them can count`),
    }),
  );
  reservedKeys(tree, (node, key) =>
    problems.push({ line: lineAt(node.offset), path: printable(key), message: "nothing can be called so; take another name" }),
  );
  // A text is not said again: it may be a password.
  strangeTexts(tree, (node) =>
    problems.push({
      line: lineAt(node.offset),
      path: printable(asText(getNodePath(node))),
      message: "this has the sign \uFFFD, which stands where a text is no UTF-8: write it anew, and save the file as UTF-8",
    }),
  );
  const whole = parse([], configSchema, raw);
  // Where the top is wrong, what stands below it is checked all the same: all errors are told at once.
  const top = whole ?? roughly(raw);

  const devices: DeviceConfig[] = [];
  const broken: Wrong["devices"][number][] = [];
  const known = new Map<string, Known>();
  for (const [kind, group, entries] of [
    ["device", "devices", top.devices],
    ["service", "services", top.services],
  ] as const) {
    for (const [name, entry] of Object.entries(entries)) {
      const at = [group, name];
      if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name))
        add(at, "a name has letters, digits, dots, dashes and underlines, and begins with a letter or digit");
      if (known.has(name)) add(at, "a device and a service cannot have the same name");
      const plugin = await loadPlugin(kind, entry.type, at, plugins, options, add);
      const device = plugin === undefined ? undefined : loadDevice(kind, name, plugin, entry, at, parse);
      const roles = plugin?.roles ?? ["source", "target"];
      known.set(name, { plugin, roles, withheld: device?.plugin.withheld?.(device.options) ?? {} });
      if (device === undefined) broken.push({ name, type: entry.type, roles });
      else devices.push(device);
    }
  }

  const mayDisarm = (when: When | undefined, at: At) => {
    if (when?.disarmed === true && ![...known.values()].some(({ plugin }) => plugin === undefined || plugin.tellsArmed === true))
      add([...at, "when", "disarmed"], "no device here says whether the vehicle is armed: nothing would ever be sent");
  };
  for (const { name, kind, plugin, when, budget } of devices) {
    const at = [kind === "device" ? "devices" : "services", name];
    for (const [key, value] of Object.entries({ when, budget }))
      if (value !== undefined && (!plugin.roles.includes("target") || known.get(name)?.withheld.target !== undefined))
        add([...at, key], `nothing is sent to "${name}": it cannot be a target`);
    mayDisarm(when, at);
  }

  const vehicle = whole?.vehicle ?? options.hostName;
  const around = { known, devices, vehicle, stateDir: whole?.stateDir, problems, add, parse, mayDisarm };
  const { routes, syncs, count, out, unsure } = readRoutes(top.routes, around);

  if (whole === undefined) return { stateDir, problems: sorted(problems) };
  const removes = [...unsure].filter((name) => routes.some(({ from, afterDelivery }) => from === name && afterDelivery !== "keep"));
  const therefore = [
    ...broken.map(({ name }) => `${name} is not started${stillFor(name, routes)}`),
    ...out,
    ...removes.map((name) => `nothing is deleted or archived at ${name}`),
  ];
  return {
    config: {
      vehicle,
      stateDir: whole.stateDir,
      spool: whole.spool,
      journal: whole.journal,
      metered: whole.metered,
      onEvent: whole.onEvent,
      devices,
      routes: routes.map((route) => (removes.includes(route.from) ? { ...route, afterDelivery: "keep" } : route)),
      syncs,
      routeCount: count,
      ...(problems.length === 0 ? {} : { wrong: { problems: sorted(problems), devices: broken, therefore } }),
    },
    stateDir,
    problems: sorted(problems),
  };
}

function stateDirIn(raw: unknown, options: LoadOptions): string {
  const schema = configSchema.entries.stateDir;
  const read = parseIn(options, schema, isObject(raw) ? raw.stateDir : undefined);
  return read.success ? read.output : v.getDefault(schema);
}

/** What its routes do meanwhile. */
function stillFor(name: string, routes: readonly Route[]): string {
  const waits = routes.some(({ to }) => to.some(({ device }) => device === name)) ? ", and files for it wait" : "";
  return `${routes.some(({ from }) => from === name) ? ", nothing is found there" : ""}${waits}`;
}

/** The parts that can be looked into, of a configuration whose top is wrong. */
function roughly(raw: unknown): Pick<v.InferOutput<typeof configSchema>, "devices" | "routes" | "services"> {
  const { devices, routes, services } = isObject(raw) ? raw : {};
  const entries = (group: unknown) =>
    Object.fromEntries(
      Object.entries(isObject(group) ? group : {}).filter(([, entry]) => isObject(entry) && typeof entry.type === "string"),
    ) as Record<string, { type: string }>;
  return { devices: entries(devices), routes: Array.isArray(routes) ? routes : [], services: entries(services) };
}

/** Of a list that is one of several things that may stand there: what is wrong in it. */
function inList(issue: v.BaseIssue<unknown>): v.BaseIssue<unknown>[] {
  const isSecret = issue.message === secretWords;
  const within =
    issue.type === "union" && Array.isArray(issue.input) && !isSecret ? (issue.issues ?? []).filter((one) => one.path !== undefined) : [];
  if (within.length === 0) return [issue];
  return within.map((one) => ({ ...one, path: [...(issue.path ?? []), ...(one.path ?? [])] as unknown as typeof one.path }));
}

async function loadPlugin(
  kind: "device" | "service",
  type: string,
  at: At,
  plugins: PluginList,
  options: LoadOptions,
  add: Add,
): Promise<Plugin<unknown> | undefined> {
  let plugin: Plugin<unknown> | undefined;
  try {
    plugin = await plugins.load(type, options.baseDir);
  } catch (error) {
    add([...at, "type"], `the plugin "${type}" cannot be loaded: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
  if (plugin === undefined) {
    add([...at, "type"], `there is no plugin "${type}"${suggestion(type, plugins.types)}; there are: ${plugins.types.join(", ")}`);
    return undefined;
  }
  if (!(kind in plugin)) {
    add([...at, "type"], `"${type}" is a ${kind === "device" ? 'service: put it under "services"' : 'device: put it under "devices"'}`);
    return undefined;
  }
  return plugin;
}

function loadDevice(
  kind: "device" | "service",
  name: string,
  plugin: Plugin<unknown>,
  entry: { type: string } & Record<string, unknown>,
  at: At,
  parse: Parse,
): DeviceConfig | undefined {
  const commonKeys = Object.keys(deviceCommon);
  const entries = entriesOf(plugin.options) ?? {};
  const own = Object.fromEntries(Object.entries(entry).filter(([key]) => key !== "type" && (key in entries || !commonKeys.includes(key))));
  const shared = Object.fromEntries(Object.entries(entry).filter(([key]) => commonKeys.includes(key)));
  const commonOptions = parse(at, v.strictObject(deviceCommon), shared);
  const pluginOptions = parse(at, plugin.options, own);
  if (commonOptions === undefined || pluginOptions === undefined) return undefined;
  return {
    name,
    type: entry.type,
    kind,
    plugin,
    options: pluginOptions,
    settleMs: commonOptions.settle,
    ...(commonOptions.interval === undefined ? {} : { intervalMs: commonOptions.interval }),
    ...(commonOptions.concurrency === undefined ? {} : { concurrency: commonOptions.concurrency }),
    ...(commonOptions.maxRate === undefined ? {} : { maxRate: commonOptions.maxRate }),
    ...(commonOptions.budget === undefined ? {} : { budget: commonOptions.budget }),
    ...(commonOptions.when === undefined ? {} : { when: commonOptions.when }),
    ...(commonOptions.archiveDir === undefined ? {} : { archiveDir: commonOptions.archiveDir }),
  };
}

function sorted(problems: ConfigProblem[]): ConfigProblem[] {
  return problems.sort((a, b) => a.line - b.line);
}
