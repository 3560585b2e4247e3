/** `run`: the daemon, until SIGTERM or SIGINT; `--once`: until all that can be done is done. */
import { ControlServer, type ControlRequest, ControlError } from "../core/control.js";
import type { Config } from "../core/config.js";
import { Daemon } from "../core/daemon.js";
import { Events } from "../core/events.js";
import { load, problemLines, UsageError } from "./config.js";
import { outputTo, printEvents, progressText, type Output } from "./output.js";
import { programVersion } from "./version.js";

export interface RunOptions {
  readonly once: boolean;
  readonly json: boolean;
  readonly verbose: boolean;
}

/** After this a second signal, or the clock, ends the process whatever it does. */
const stopMs = 5000;

/** Exit code: 0; 2 when something of the configuration was left out; 3 when `--once` left something behind. Throws UsageError for what a person has to mend. */
export async function runCommand(path: string, options: RunOptions): Promise<number> {
  const loaded = await load(path);
  const lines = problemLines(path, loaded);
  const output = outputTo(process.stdout);
  if (loaded.config === undefined) throw new UsageError(lines.join("\n"));
  for (const line of lines) process.stderr.write(`${line}\n`);
  if (lines.length > 0) process.stderr.write(`what is wrong above is left out; the rest runs ("filesync check" says it again)\n`);
  const reload = async (events: Events) => {
    const next = await load(path);
    for (const line of problemLines(path, next)) events.say("error", "config", line);
    return next.problems.length > 0 ? undefined : next.config;
  };
  const code = await serve(loaded.config, options, output, reload);
  return code === 0 && lines.length > 0 ? 2 : code;
}

/** Runs a configuration until a signal. `reload` gives the configuration for SIGHUP; undefined keeps the one that runs. */
export async function serve(
  config: Config,
  options: RunOptions,
  output: Output,
  reload?: (events: Events) => Promise<Config | undefined>,
  attach?: (daemon: Daemon, events: Events) => () => void,
): Promise<number> {
  const events = new Events();
  const unprint = printEvents(events, output, options);
  const stop = new AbortController();
  const asked = new Promise<void>((resolve) => stop.signal.addEventListener("abort", () => resolve(), { once: true }));
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
    setTimeout(() => process.exit(1), stopMs).unref();
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);

  let current = config;
  let daemon = new Daemon({ config, events, programVersion });
  const start = async () => {
    try {
      await daemon.start();
    } catch (error) {
      throw asUsage(error, current.stateDir);
    }
  };
  await start();
  const control = new ControlServer(config.stateDir, (request) => answer(daemon, request));
  await control.start();
  if (daemon.ready)
    events.say(
      "info",
      "ready",
      `FileSync ${programVersion} is ready: ${counted(current.devices.length, "device")}, ${counted(current.routes.length, "route")}, state in ${current.stateDir}`,
    );
  const detach = attach?.(daemon, events);
  const drawing = output.terminal ? setInterval(() => daemon.ready && output.progress(progressText(daemon.status())), 250) : undefined;

  let reloading: Promise<void> = Promise.resolve();
  const onHangup = () => {
    reloading = reloading.then(async () => {
      const next = await reload?.(events);
      if (next === undefined) {
        events.say("warn", "reload", "the configuration is not changed: it could not be used as it is now");
        return;
      }
      if (next.stateDir !== current.stateDir) {
        events.say("warn", "reload", '"stateDir" cannot change while it runs; restart it');
        return;
      }
      await daemon.stop();
      current = next;
      daemon = new Daemon({ config: next, events, programVersion });
      await start();
      events.say(
        "info",
        "reload",
        `the new configuration runs: ${counted(next.devices.length, "device")}, ${counted(next.routes.length, "route")}`,
      );
    });
  };
  if (reload !== undefined) process.on("SIGHUP", onHangup);

  let code = 0;
  try {
    if (options.once) {
      const drained = await Promise.race([daemon.drained(stop.signal).catch(() => undefined), asked.then(() => undefined)]);
      if (drained !== undefined) {
        const { waiting, parked, unlisted } = drained;
        const left = [
          ...(waiting > 0 ? [`${waiting} ${waiting === 1 ? "delivery" : "deliveries"} could not be made now`] : []),
          ...(parked > 0 ? [`${parked} ${parked === 1 ? "is" : "are"} set aside`] : []),
          ...unlisted.map((name) => `${name} could not be listed`),
        ];
        if (left.length > 0) {
          code = 3;
          events.say("warn", "left", `finished, but ${left.join(", ")} ("filesync status" says why)`);
        }
      }
    } else await asked;
    await reloading;
  } finally {
    clearInterval(drawing);
    detach?.();
    process.removeListener("SIGINT", onSignal);
    process.removeListener("SIGTERM", onSignal);
    process.removeListener("SIGHUP", onHangup);
    await control.close();
    await daemon.stop();
    events.say("info", "stopped", "stopped; what was on its way goes on at the next start");
    output.close();
    unprint();
  }
  return code;
}

function counted(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}

function answer(daemon: Daemon, request: ControlRequest): unknown {
  if (request.command === "status") return daemon.status();
  throw new ControlError(`the daemon does not know "${request.command}"`);
}

function asUsage(error: unknown, stateDir: string): unknown {
  const code = error instanceof Error && "code" in error ? error.code : "";
  if (code === "EACCES" || code === "EPERM" || code === "EROFS")
    return new UsageError(
      `the state directory ${stateDir} cannot be written (${code}): run as a user who may, or set "stateDir" to a directory of yours`,
    );
  if (code === "EIO" || code === "ENOSPC")
    return new Error(`the state directory ${stateDir} cannot be used: ${code === "EIO" ? "the medium fails (EIO)" : "no space is left"}`, {
      cause: error,
    });
  if (code === "ENOTDIR" || code === "EEXIST")
    return new UsageError(`the state directory ${stateDir} cannot be made: a part of that path is a file`);
  return error;
}
