/** A command asks the running daemon; without one it does the same itself. */
import { buildLane, type OwnEngine } from "../core/build.js";
import { RealClock } from "../core/clock.js";
import { answerWith } from "../core/commands.js";
import type { Config, DeviceConfig, Loaded } from "../core/config.js";
import { ask, exchangeFor, type Asking, type ControlRequest } from "../core/control.js";
import { load, problemLines, UsageError } from "./config.js";
import { askOrDoWith, type Asked } from "./offline.js";

/** What can be used of the configuration. Throws UsageError with all that is wrong when nothing can, or when what is wrong is the device that is needed. */
export async function usableConfig(path: string, device?: string): Promise<Config> {
  const { config, problems } = await load(path);
  const places = device === undefined ? [] : [`devices.${device}`, `services.${device}`];
  const ofDevice = problems.filter((problem) => places.some((place) => problem.path === place || problem.path.startsWith(`${place}.`)));
  if (config === undefined || ofDevice.length > 0)
    throw new UsageError(wordsOf(path, { problems: config === undefined ? problems : ofDevice }));
  return config;
}

/**
 * Secrets may be where only the service finds them: they are read when `own` devices need them, where no daemon runs. A configuration that cannot be used is no reason to hear nothing of
 * a daemon that runs with what stood there before: what is wrong is told on stderr. Throws UsageError with all that is wrong where none runs.
 */
export async function whomToAsk(path: string, own?: "own"): Promise<Asked> {
  const loaded = await load(path, "unread");
  const { config } = loaded;
  if (config !== undefined) return own === undefined ? askedWith(config) : { ...askedWith(config), usable: () => usableConfig(path) };
  const words = wordsOf(path, loaded);
  if ((await ask(loaded.stateDir, { command: "version" })) === undefined) throw new UsageError(words);
  process.stderr.write(`${words}\nthe daemon of ${loaded.stateDir} runs with what it read before:\n`);
  return {
    stateDir: loaded.stateDir,
    usable: () => {
      throw new UsageError(words);
    },
  };
}

export function askedWith(config: Config): Asked {
  return { stateDir: config.stateDir, config, usable: () => config };
}

function wordsOf(path: string, loaded: Pick<Loaded, "problems">): string {
  return problemLines(path, loaded).join("\n");
}

/** The daemon's answer, or our own from the journal; `own`: with devices, or services that are not started, of our own, where no daemon runs. */
export function askOrDo(asked: Asked, request: ControlRequest, asking: Asking = {}, own?: DeviceConfig["kind"]): Promise<unknown> {
  return askOrDoWith(asked, request, asking, request.command === "why", async (engine) => {
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
