/** A command asks the running daemon; without one it does the same itself, and only then is the engine loaded: that takes longer than to ask. */
import type { OwnEngine } from "../core/build.js";
import type { Config, DeviceConfig, Loaded } from "../core/config.js";
import { ask, exchangeFor, type Asking, type ControlRequest } from "../core/control.js";
import { isFault } from "../core/errors.js";
import { JournalHeld, StateDirHeld } from "../core/installation.js";
import { load, problemLines, UsageError } from "./config.js";
import type { Asks, Patience } from "./offline.js";

/** Whom a command asks: the daemon of a state directory, whatever stands in its configuration by now; where none runs, itself. */
export interface Asked {
  readonly stateDir: string;
  /** What can be used of the configuration, its secrets unread. undefined: nothing. */
  readonly config?: Config;
  /** What the command does it with itself. Throws UsageError where it cannot be used. */
  readonly usable: () => Config | Promise<Config>;
}

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

/** The daemon's answer, or, where none runs, what `work` says with the journal. Throws UsageError where there is no journal, it is another user's, or somebody keeps it. */
export async function askOrDoWith<T>(
  { stateDir, usable }: Asked,
  request: ControlRequest,
  asking: Asking,
  asks: Asks,
  work: (engine: OwnEngine) => T | Promise<T>,
): Promise<unknown> {
  let patience: Patience | undefined;
  for (;;)
    try {
      const answer = await ask(stateDir, request, asking);
      if (answer !== undefined) return answer.ok;
      const { withJournal } = await import("./offline.js");
      return await withJournal(await usable(), asks, work);
    } catch (error) {
      // A daemon that stops may have done what it was asked.
      if (!(error instanceof StateDirHeld) && !(asks === "reads" && isFault(error, "offline"))) throw error;
      patience ??= new (await import("./offline.js")).Patience();
      if (await patience.wait()) continue;
      throw isFault(error) || error instanceof JournalHeld
        ? error
        : new UsageError(`another FileSync has ${stateDir} and does not answer: it is starting or stopping; try again`);
    }
}

/** The daemon's answer, or our own from the journal; `own`: with devices, or services that are not started, of our own, where no daemon runs. */
export function askOrDo(asked: Asked, request: ControlRequest, asking: Asking = {}, own?: DeviceConfig["kind"]): Promise<unknown> {
  const asks = ({ why: "reads", plan: "foresees" } as const)[request.command] ?? "changes";
  return askOrDoWith(asked, request, asking, asks, async (engine) => {
    const [{ answerWith }, { asOwnerOf }] = await Promise.all([import("../core/commands.js"), import("./machine/as-owner.js")]);
    // Loaded before this is another user, who may not look where the program is.
    const open = own === undefined ? () => [] : await opening(engine, own);
    const answer = async () => {
      const closing = open();
      try {
        return await answerWith(engine, false)(request, exchangeFor(asking));
      } finally {
        await Promise.all(closing.map((lane) => lane.close()));
      }
    };
    // What a service keeps is its daemon's to read and change, whoever orders.
    return own === "service" ? asOwnerOf(engine.config.stateDir, answer) : answer();
  });
}

/** What opens all that is of that kind. */
async function opening(engine: OwnEngine, wanted: DeviceConfig["kind"]): Promise<() => { close(): Promise<void> }[]> {
  const [{ buildLane }, { RealClock }] = await Promise.all([import("../core/build.js"), import("../core/clock.js")]);
  const clock = engine.clock instanceof RealClock ? engine.clock : new RealClock();
  return () => {
    const lanes = engine.config.devices.filter(({ kind }) => kind === wanted).flatMap((device) => buildLane(engine, device, clock) ?? []);
    for (const lane of lanes) {
      engine.lanes.set(lane.name, lane);
      lane.start();
    }
    return lanes;
  };
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
