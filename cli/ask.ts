/** A command asks the running daemon; without one it does the same itself. */
import { buildLane, type OwnEngine } from "../core/build.js";
import { RealClock } from "../core/clock.js";
import { answerWith } from "../core/commands.js";
import type { Config, DeviceConfig } from "../core/config.js";
import { ask, exchangeFor, type Asking, type ControlRequest } from "../core/control.js";
import { load, problemLines, UsageError } from "./config.js";
import { askOrDoWith, Broken } from "./offline.js";

/** What can be used of the configuration. Throws UsageError with all that is wrong when nothing can, or when what is wrong is the device that is needed. */
export async function usableConfig(path: string, device?: string, secrets?: "unread"): Promise<Config> {
  const { config, problems } = await load(path, secrets);
  const places = device === undefined ? [] : [`devices.${device}`, `services.${device}`];
  const ofDevice = problems.filter((problem) => places.some((place) => problem.path === place || problem.path.startsWith(`${place}.`)));
  if (config === undefined || ofDevice.length > 0)
    throw new UsageError(problemLines(path, { problems: config === undefined ? problems : ofDevice }).join("\n"));
  return config;
}

/** The same for what is asked of the daemon or of the journal alone: secrets may be where only the service finds them. */
export function configForJournal(path: string): Promise<Config> {
  return usableConfig(path, undefined, "unread");
}

/** The same for what only tells. One that cannot be used is told on stderr, and is no reason to hear nothing of a daemon that runs with what stood there before. */
export async function configToTell(path: string): Promise<Config | Broken> {
  const loaded = await load(path, "unread");
  if (loaded.config !== undefined) return loaded.config;
  const broken = new Broken(loaded.stateDir, problemLines(path, loaded).join("\n"));
  if ((await ask(broken.stateDir, { command: "version" })) === undefined) throw new UsageError(broken.words);
  process.stderr.write(`${broken.words}\nthe daemon of ${broken.stateDir} runs with what it read before:\n`);
  return broken;
}

/** The daemon's answer, or our own from the journal; `own`: with devices, or services that are not started, of our own, where no daemon runs. */
export function askOrDo(
  config: Config | Broken,
  request: ControlRequest,
  asking: Asking = {},
  own?: DeviceConfig["kind"],
): Promise<unknown> {
  return askOrDoWith(config, request, asking, request.command === "why", async (engine) => {
    const closing = own === undefined ? [] : ownLanes(engine, engine.config, own);
    try {
      return await answerWith(engine, false)(request, exchangeFor(asking));
    } finally {
      await Promise.all(closing.map((lane) => lane.close()));
    }
  });
}

function ownLanes(engine: OwnEngine, config: Config, wanted: DeviceConfig["kind"]): { close(): Promise<void> }[] {
  const lanes = config.devices
    .filter(({ kind }) => kind === wanted)
    .flatMap((device) => buildLane(engine, device, engine.clock instanceof RealClock ? engine.clock : new RealClock()) ?? []);
  for (const lane of lanes) {
    engine.lanes.set(lane.name, lane);
    lane.start();
  }
  return lanes;
}

/** Work that Ctrl-C ends: the first asks it to, the second does. */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
  };
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  try {
    return await work(stop.signal);
  } finally {
    process.removeListener("SIGINT", onSignal).removeListener("SIGTERM", onSignal);
  }
}
