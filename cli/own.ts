/** A device for one command: from the configuration while no daemon runs, or from a URL. It is closed when the command ends. */
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { EMPTY } from "../core/rxjs.js";
import { RealClock } from "../core/clock.js";
import { loadConfig, type DeviceConfig } from "../core/config.js";
import { ControlError, exchangeFor, type Asking, type ControlRequest } from "../core/control.js";
import { Fault, isFault } from "../core/errors.js";
import { Events } from "../core/events.js";
import { expectWritable } from "../core/rights.js";
import { byHand, type Hands } from "../core/hand.js";
import { notesIn } from "../core/hand-shot.js";
import { Lane } from "../core/lane.js";
import { hostOf, isUnbelieved } from "../core/net.js";
import type { PluginContext } from "../core/plugin.js";
import { reasonOf } from "../core/retry.js";
import { shellWord } from "../core/text.js";
import { UsageError } from "./config.js";
import { noScratch } from "./scratch.js";
import { strangeText } from "./machine/state-dir.js";
import { plugins } from "./plugins.js";

export interface OwnNames {
  readonly vehicle: string;
  readonly installation: string;
  /** Where no configuration names the device. */
  readonly url?: string;
  /** Where what lasts is kept; a text says why it cannot be. */
  readonly home?: Home | string;
  /** What the device learned while a daemon had it. */
  readonly learned?: ReadonlyMap<string, unknown> | undefined;
}

export interface Home {
  readonly stateDir: string;
}

/** The state directory, where it is, or will be, this user's own: what another makes there the daemon could not change. */
export async function homeIn(stateDir: string): Promise<Home | string> {
  const strange = strangeText(stateDir);
  if (strange !== undefined) return `it is noted in the state directory first: ${strange}`;
  const there = statSync(stateDir, { throwIfNoEntry: false });
  if (there !== undefined && there.uid !== process.getuid?.())
    return `it is noted in ${stateDir} first, which belongs to the user with id ${there.uid}: run this as that user`;
  try {
    await expectWritable(stateDir, `it is noted in ${stateDir} first, which cannot be written`);
  } catch (error) {
    return `${reasonOf(error)}; or run this as the daemon's user`;
  }
  return { stateDir };
}

function scratchFor(name: string): string {
  try {
    return mkdtempSync(join(tmpdir(), "filesync-"));
  } catch (error) {
    throw noScratch(`what ${name} needs for the time of this command is kept in`, error);
  }
}

/** What a plugin needs around it for one command. */
export async function withContext<T>(
  name: string,
  names: OwnNames,
  work: (context: PluginContext, clock: RealClock) => Promise<T>,
  say: PluginContext["say"] = () => undefined,
): Promise<T> {
  const scratch = scratchFor(name);
  const clock = new RealClock();
  const memory = new Map(names.learned);
  const context: PluginContext = {
    name,
    vehicle: names.vehicle,
    installation: names.installation,
    stateDir: typeof names.home === "object" ? join(names.home.stateDir, "devices", name) : scratch,
    clock,
    memory: { get: (key) => memory.get(key), set: (key, value) => Promise.resolve(void memory.set(key, value)) },
    say,
    tellTime: (ms) => void clock.tell(ms),
    tellArmed: () => undefined,
  };
  try {
    return await work(context, clock);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Throws the Fault that says why it can never work as configured. */
export function withLane<T>(
  config: DeviceConfig,
  names: OwnNames,
  work: (lane: Lane) => Promise<T>,
  say?: PluginContext["say"],
): Promise<T> {
  const withDevice = async (context: PluginContext, clock: RealClock) => {
    const rated = config.maxRate === undefined ? context : { ...context, maxRate: config.maxRate };
    const device = config.plugin.device?.(config.options, rated);
    if (device === undefined) throw new UsageError(`"${config.name}" is a service: it can be used by hand only while its daemon runs`);
    const lane = new Lane(config, device, clock, new Events(), Math.random);
    try {
      lane.start();
      return await work(lane);
    } finally {
      await lane.close();
    }
  };
  return withContext(config.name, names, withDevice, say);
}

/** The same device, recording what is asked and answered on its link. Throws UsageError where it has no option for that. */
export function withTrace(config: DeviceConfig, path: string): DeviceConfig {
  const { options } = config.plugin;
  if (!("entries" in options && typeof options.entries === "object" && options.entries !== null && "trace" in options.entries))
    throw new UsageError(`--trace: a device of type "${config.type}" records nothing; a flight controller (mavftp) does`);
  const trace = resolve(path);
  // A recording that somebody may still want to send is never lost to a second one; /dev/null and a pipe may be named again.
  if (statSync(trace, { throwIfNoEntry: false })?.isFile() === true)
    throw new UsageError(`--trace: ${path} is there already: name another file, or remove it`);
  return { ...config, options: { ...(config.options as object), trace } };
}

/** A hand command on a device of our own. */
export function doByHand(lane: Lane, { installation, url, home }: OwnNames, request: ControlRequest, asking: Asking): Promise<unknown> {
  const hands: Hands = {
    lanes: new Map([[lane.name, lane]]),
    installation,
    among: url ?? installation,
    notes: typeof home === "object" ? { dir: notesIn(home.stateDir) } : (home ?? "there is no state directory to note it in"),
    sending: () => 0,
    work$: EMPTY,
    copy: () => Promise.reject(new Error("there is no spool: the file is taken where it is")),
  };
  return byHand(hands, request, exchangeFor(asking));
}

/**
 * `path`: what the person wrote after it; one that begins with "/" is seen from the top of what is there, another from where logs are. `changes`: the
 * command is to change something there; no configuration says that it may not.
 */
export async function deviceOfUrl(url: string, path: string, changes: boolean): Promise<DeviceConfig> {
  const device = /^ftps?:\/\//.test(url)
    ? await ftpOptions(url)
    : { type: "mavftp", url, write: changes, ...(path.startsWith("/") ? { root: "/" } : {}) };
  const text = JSON.stringify({ devices: { device } });
  const { config, problems } = await loadConfig(text, plugins, {
    baseDir: process.cwd(),
    env: process.env,
    hostName: hostname(),
  });
  const made = config?.devices[0];
  if (made === undefined)
    throw new UsageError(`--url ${url}: ${problems[0]?.message ?? "is none"}, or "ftp://USER@HOST/", "ftps://USER@HOST/"`);
  return { ...made, name: device.type === "ftp" ? "server" : "autopilot" };
}

/**
 * The password comes from FILESYNC_PASSWORD, else it is asked for: what stands in a URL is seen by everybody on this machine.
 * "ftps" is TLS as the port has it: from the first byte on 990, else asked for (AUTH TLS), as "secure": true does.
 */
async function ftpOptions(text: string): Promise<{ type: string } & Record<string, unknown>> {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new UsageError(`--url ${text.replace(/\/\/.*@/, "//…@")}: expected ftp://USER@HOST:PORT/ or ftps://USER@HOST:PORT/`);
  }
  if (url.password !== "")
    throw new UsageError(
      "--url: a password in it would be seen by everybody on this machine; set FILESYNC_PASSWORD, or type it when asked",
    );
  const user = decodeURIComponent(url.username);
  const fingerprint = process.env.FILESYNC_FINGERPRINT;
  const tls = {
    secure: url.port === "990" ? "implicit" : true,
    ...(fingerprint === undefined ? {} : { tls: { fingerprint } }),
  };
  return {
    type: "ftp",
    host: hostOf(url),
    ...(url.port === "" ? {} : { port: Number(url.port) }),
    ...(user === "" ? {} : { user, password: process.env.FILESYNC_PASSWORD ?? (await typed(`password of ${user} at ${url.hostname}: `)) }),
    ...(url.protocol === "ftps:" ? tls : {}),
    root: decodeURIComponent(url.pathname) || "/",
  };
}

/** Of a certificate that nobody believes: with what a person has to compare, and may say is believed. */
export async function withShown({ device }: Lane, error: unknown, signal: AbortSignal): Promise<unknown> {
  if (!isUnbelieved(error)) return error;
  const shown = await device.certificate?.(signal).catch(() => undefined);
  if (shown === undefined) return error;
  const { name, fingerprint } = shown;
  return new Fault("denied", `${reasonOf(error)}: the one that is shown there (${name}) has the "fingerprint": "${fingerprint}"`, {
    cause: error,
  });
}

/** Advice that names keys and devices of the configuration, for who has a URL in its place. `at`: the path that was given. */
export function inWordsOfUrl(error: unknown, name: string, url: string, at: string): unknown {
  if (error instanceof ControlError) {
    const listed = (path: string) => `"filesync ls --url ${shellWord(url)}${path === "" ? "" : ` ${shellWord(path)}`}"`;
    const top = at.startsWith("/") ? "/" : "";
    return new ControlError(error.message.replace(new RegExp(`"filesync ls ${name}:(.*?)"`), (_, path: string) => listed(`${top}${path}`)));
  }
  if (!isFault(error, "denied") || !/"(secure|tls)"/.test(error.message)) return error;
  const how = "with --url, ftps://… has TLS (from the first byte on port 990), and FILESYNC_FINGERPRINT says which certificate is believed";
  return new Fault(error.kind, `${error.message}; ${how}`, { cause: error });
}

async function typed(question: string): Promise<string> {
  const { stdin, stderr } = process;
  if (!stdin.isTTY) throw new UsageError("set FILESYNC_PASSWORD: there is no terminal to ask for the password");
  stderr.write(question);
  // No echo: nothing is written while it is typed.
  const lines = createInterface({ input: stdin, terminal: true });
  try {
    return await new Promise<string>((resolve) => lines.question("", resolve));
  } finally {
    lines.close();
    stderr.write("\n");
  }
}
