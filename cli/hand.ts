/** `ls`, `get`, `put`, `rm`, `mkdir`, `mv`: any device by hand; through the daemon if one runs, so that link, login and lock are shared. */
import { ask, ControlError, type Asking, type ControlRequest } from "../core/control.js";
import { namesIn, type DeviceConfig } from "../core/config.js";
import { suggestion } from "../core/config-problems.js";
import { installationIn } from "../core/installation.js";
import type { Lane } from "../core/lane.js";
import type { FileEntry, PluginContext } from "../core/plugin.js";
import { dateText } from "../core/route.js";
import { interruptible, usableConfig, whomToAsk } from "./ask.js";
import { configPath, UsageError } from "./config.js";
import { getFile } from "./get.js";
import { learnedOf } from "./offline.js";
import { deviceOfUrl, doByHand, homeIn, inWordsOfUrl, withLane, withShown, withTrace, type OwnNames } from "./own.js";
import { putFile } from "./put.js";

export interface HandOptions {
  readonly config?: string;
  readonly url?: string;
  readonly json?: boolean;
  readonly force?: boolean;
  readonly recursive?: boolean;
  /** Where to record what is asked and answered on the link. */
  readonly trace?: string;
}

/** Asks one thing of one device, as often as is needed. */
export type Device = (request: ControlRequest, asking?: Asking) => Promise<unknown>;

export interface Place {
  /** For a person: "pixhawk". */
  readonly name: string;
  readonly path: string;
  readonly ask: Device;
  readonly signal: AbortSignal;
  /** The names of the configuration's devices. */
  readonly devices: readonly string[];
}

const write = (line: string) => process.stdout.write(`${line}\n`);

export async function lsCommand(at: string, options: HandOptions): Promise<number> {
  await withPlace(at, options, async ({ path, ask, signal }) => {
    const entries: FileEntry[] = [];
    const said = (fact: unknown) => {
      if (isWait(fact, options.json)) return undefined;
      if (options.json === true) write(JSON.stringify(fact));
      else entries.push(fact as FileEntry);
      return undefined;
    };
    await ask({ command: "ls", path, recursive: options.recursive === true }, { signal, said });
    entries.sort((a, b) => (a.path < b.path ? -1 : 1));
    const width = Math.max(0, ...entries.map(({ kind, size }) => (kind === "directory" ? 1 : String(size).length)));
    // As it is typed: what is seen from the top of a flight controller is asked for from there.
    const top = options.url !== undefined && at.startsWith("/") ? "/" : "";
    for (const entry of entries) write(entryText({ ...entry, path: `${top}${entry.path}` }, width, options.recursive === true));
  });
  return 0;
}

/** Whether it is a word of why nothing comes yet; it is told then. */
function isWait(fact: unknown, json = false): boolean {
  const { waiting } = fact as { waiting?: string };
  if (waiting !== undefined && !json) process.stderr.write(`${waiting}\n`);
  return waiting !== undefined;
}

export const onlyWaits =
  ({ json }: { readonly json?: boolean }) =>
  (fact: unknown): undefined =>
    void isWait(fact, json);

function entryText(entry: FileEntry, width: number, recursive: boolean): string {
  const name = recursive ? entry.path : entry.path.slice(entry.path.lastIndexOf("/") + 1);
  const time = entry.modifiedMs === undefined ? "-".padEnd(20) : dateText(entry.modifiedMs);
  if (entry.kind === "directory") return `${"-".padStart(width)}  ${time}  ${name}/`;
  return `${String(entry.size).padStart(width)}  ${time}  ${name}${entry.kind === "unreadable" ? `  (${entry.reason ?? "cannot be read"})` : ""}`;
}

export async function getCommand(at: string, local: string | undefined, options: HandOptions): Promise<number> {
  await withPlace(at, options, (place) => getFile(place, local, { force: options.force === true, json: options.json === true }));
  return 0;
}

export async function putCommand(local: string, at: string, options: HandOptions): Promise<number> {
  await changePlace(at, options, (place) => putFile(local, place, { force: options.force === true, json: options.json === true }));
  return 0;
}

export async function rmCommand(at: string, options: HandOptions): Promise<number> {
  await changePlace(at, options, async ({ name, path, ask, signal }) => {
    const entry = (await ask({ command: "rm", path }, { signal, said: onlyWaits(options) })) as FileEntry;
    write(options.json === true ? JSON.stringify(entry) : `${name}:${path}: removed (${entry.size} bytes)`);
  });
  return 0;
}

export async function mkdirCommand(at: string, options: HandOptions): Promise<number> {
  await changePlace(at, options, async ({ name, path, ask, signal }) => {
    await ask({ command: "mkdir", path }, { signal, said: onlyWaits(options) });
    write(options.json === true ? JSON.stringify({ path }) : `${name}:${path}/: is there`);
  });
  return 0;
}

export async function mvCommand(at: string, to: string, options: HandOptions): Promise<number> {
  await changePlace(at, options, async ({ name, path, ask, signal, devices }) => {
    const other = to.includes(":") ? to.slice(0, to.indexOf(":")) : name;
    if (other !== name && devices.includes(other))
      throw new UsageError(
        `mv moves within ${name}, and "${other}" is another device: bring it there by get and put; a name that begins so: ${name}:${to}`,
      );
    const into = to.startsWith(`${name}:`) ? to.slice(name.length + 1) : to;
    const moved = (await ask({ command: "mv", path, to: into }, { signal, said: onlyWaits(options) })) as { path: string };
    write(options.json === true ? JSON.stringify(moved) : `${name}:${path} → ${name}:${moved.path}`);
  });
  return 0;
}

function changePlace(at: string, options: HandOptions, work: (place: Place) => Promise<void>): Promise<void> {
  return withPlace(at, options, work, true);
}

/** `at`: DEVICE:PATH, or with `--url` a path. `changes`: the command is to change something there. */
async function withPlace(at: string, options: HandOptions, work: (place: Place) => Promise<void>, changes = false): Promise<void> {
  return interruptible(async (signal) => {
    if (options.url !== undefined) {
      const { url } = options;
      const device = traced(await deviceOfUrl(url, at, changes), options);
      const names: OwnNames = { vehicle: "", installation: "00000000", url };
      const onLane = (lane: Lane) =>
        work({
          name: device.name,
          path: at,
          signal,
          devices: [],
          ask: (request, asking = {}) =>
            doByHand(lane, names, { ...request, device: lane.name }, asking).catch(async (error: unknown) => {
              throw await withShown(lane, error, signal);
            }),
        });
      return withLane(device, names, onLane, warningsOf(device.name)).catch((error: unknown) => {
        throw inWordsOfUrl(error, device.name, url, at);
      });
    }
    const colon = at.indexOf(":");
    const name = colon === -1 ? at : at.slice(0, colon);
    const path = colon === -1 ? "" : at.slice(colon + 1);
    const file = configPath(options.config);
    const { stateDir, config: there } = await whomToAsk(file, "own");
    const names = there === undefined ? [name] : namesIn(there);
    if (!names.includes(name))
      throw new UsageError(
        colon === -1
          ? `expected DEVICE:PATH, got "${at}"; the devices are: ${names.join(", ")}`
          : `there is no device "${name}"${suggestion(name, names)}; there are: ${names.join(", ")}`,
      );
    // Asked once whether somebody is there: a daemon that stops meanwhile is an error, not a reason to open the link ourselves.
    const running = await ask(stateDir, { command: "version" });
    if (running !== undefined) {
      if (options.trace !== undefined) {
        const device = there?.devices.find((known) => known.name === name);
        if (device !== undefined) traced(device, options);
        throw new UsageError(
          `--trace: a daemon runs and has the link of ${name}: set "trace" of ${name} in its configuration, or stop it for so long`,
        );
      }
      const through: Device = async (request, asking) => {
        const answer = await ask(stateDir, { ...request, device: name }, asking);
        if (answer === undefined) throw new ControlError("the daemon has stopped meanwhile; the same command again works without it");
        return answer.ok;
      };
      return work({ name, path, signal, devices: names, ask: through });
    }
    const config = await usableConfig(file, name);
    const device = config.devices.find((known) => known.name === name);
    if (device === undefined) throw new UsageError(`there is no device "${name}" any more`);
    const installation = (await installationIn(config.stateDir).catch(() => undefined)) ?? "00000000";
    const learned = (await learnedOf([device], config)).get(name);
    const own: OwnNames = { vehicle: config.vehicle, installation, home: await homeIn(config.stateDir), learned };
    const onLane = (lane: Lane) =>
      work({
        name,
        path,
        signal,
        devices: names,
        ask: (request, asking = {}) => doByHand(lane, own, { ...request, device: name }, asking),
      });
    return withLane(traced(device, options), own, onLane, warningsOf(name));
  });
}

function traced(device: DeviceConfig, { trace }: HandOptions): DeviceConfig {
  return trace === undefined ? device : withTrace(device, trace);
}

/** Of what a device of our own says, what a person has to know beside the answer. */
function warningsOf(name: string): PluginContext["say"] {
  return (level, message) => {
    if (level === "warn" || level === "error") process.stderr.write(`${name}: ${message}\n`);
  };
}
