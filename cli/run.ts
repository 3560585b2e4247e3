/** `run`: the daemon, until SIGTERM or SIGINT; `--once`: until all that can be done is done. */
import { statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { answerWith } from "../core/commands.js";
import { mistakesText, wrongText } from "../core/config-problems.js";
import { ask, ControlError, ControlServer, type ControlRequest, type Exchange } from "../core/control.js";
import { RealClock } from "../core/clock.js";
import type { Config, Loaded } from "../core/config.js";
import { Daemon, whyNotWritten } from "../core/daemon.js";
import { codeOf } from "../core/errors.js";
import { Events } from "../core/events.js";
import { Hooks } from "../core/hooks.js";
import { StateDirHeld } from "../core/installation.js";
import { reasonOf, toldFailed } from "../core/retry.js";
import type { Reloaded } from "../core/run.js";
import { deadLink } from "../core/stat.js";
import { configPath, load, problemLines, UsageError } from "./config.js";
import { endWithin } from "./ending.js";
import { takeHangup } from "./hangup.js";
import { deniedText, strangeText } from "./machine/state-dir.js";
import { followZone } from "./machine/zone.js";
import { isDenied, Patience } from "./offline.js";
import { outputTo, printEvents, progressText, type Output } from "./output.js";
import { Supervisor, type Health } from "./supervisor.js";
import { programVersion } from "./version.js";

export interface RunOptions {
  readonly once: boolean;
  readonly json: boolean;
  readonly verbose: boolean;
}

/** After this a second signal, or the clock, ends the process whatever it does. */
const stopMs = 5000;
/** The same for the end of `--once`, but for the commands of `onEvent`: each of them is ended in time, and hundreds may wait. */
const onceMs = 60_000;
/** So often it is looked whether another time zone is set. */
const zoneMs = 10_000;
/** So long after it could not begin, a supervised daemon tries again. */
const againMs = 10_000;

/**
 * `given`: the configuration's file, where one was named. Exit code: 0; 2 when something of the configuration was left out; 3 when `--once` left something
 * behind; 130 when Ctrl-C stopped it, or SIGTERM `--once` before its end. Throws UsageError for what a person has to mend.
 */
export async function runCommand(given: string | undefined, options: RunOptions): Promise<number> {
  const { path, loaded, config } = await configOnceThere(given);
  const lines = problemLines(path, loaded);
  const output = outputTo(process.stdout);
  for (const line of lines) process.stderr.write(`${line}\n`);
  if (lines.length > 0) process.stderr.write(`what is wrong above is left out; the rest runs ("filesync check" says it again)\n`);
  const reload = async (events: Events) => {
    const next = await load(path);
    for (const line of problemLines(path, next)) events.say("error", "config", line);
    return next.config === undefined || next.problems.length > 0 ? `the new one has ${mistakesText(next.problems)}` : next.config;
  };
  const code = await serve(config, options, output, reload);
  return code === 0 && lines.length > 0 ? 2 : code;
}

/** The same; under systemd, which starts nothing again after a mistake, one on a disk that is not mounted yet is waited for. */
async function configOnceThere(given: string | undefined): ReturnType<typeof configOf> {
  const supervisor = Supervisor.of(process.env, complain);
  for (;;)
    try {
      return await configOf(given);
    } catch (error) {
      if (!(error instanceof UsageError) || supervisor === undefined) throw error;
      const words = error.message.replaceAll("\n", "; ");
      if (given === undefined || (await deadLink(resolve(given))) === undefined) {
        await supervisor.mistake(words);
        throw error;
      }
      complain(`${words}; tried again in ${againMs / 1000} s`);
      await supervisor.waits(words);
      await new RealClock().sleep(againMs);
    }
}

/** Throws UsageError where there is none, or nothing of it can be used. */
async function configOf(given: string | undefined): Promise<{ path: string; loaded: Loaded; config: Config }> {
  const path = configPath(given);
  const loaded = await load(path);
  if (loaded.config === undefined) throw new UsageError(problemLines(path, loaded).join("\n"));
  return { path, loaded, config: loaded.config };
}

/**
 * Runs a configuration until a signal. `reload` gives the configuration for SIGHUP, or says why the one that runs is kept. Under systemd it does not give
 * up a state directory that cannot be used now: nobody is there to start it again.
 */
export async function serve(
  config: Config,
  options: RunOptions,
  output: Output,
  reload?: (events: Events) => Promise<Config | string>,
  attach?: (daemon: Daemon, events: Events) => () => void,
): Promise<number> {
  const events = new Events();
  const unprint = printEvents(events, output, options);
  const hooks = new Hooks(events, config.onEvent);
  const stop = new AbortController();
  const asked = new Promise<void>((resolve) => stop.signal.addEventListener("abort", () => resolve(), { once: true }));
  let interrupted = false;
  const onSignal = (signal: NodeJS.Signals) => {
    if (stop.signal.aborted) process.exit(130);
    interrupted = signal === "SIGINT";
    stop.abort();
    hooks.hurry();
    endWithin(stopMs);
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);

  const supervisor = Supervisor.of(process.env, (message) => events.say("error", "systemd", message));
  const daemon = new Daemon({ config, events, programVersion, wentBack: process.env["FILESYNC_WENT_BACK"] });
  const starting = start(daemon, config.stateDir, supervisor, events, stop.signal);
  // From here on: one that came while it starts would end the process.
  let reloading: Promise<unknown> = starting.catch(() => undefined);
  const reloadOnce = async () => {
    if (stop.signal.aborted) return;
    // Whatever goes wrong with the file, what runs goes on.
    const next = await reload?.(events).catch(reasonOf);
    if (next === undefined) return;
    const kept = typeof next === "string" ? next : fixedKeys(config, next);
    if (typeof next === "string" || kept !== undefined) {
      const refused = `the configuration stays as it was: ${kept}`;
      events.say("warn", "reload", refused);
      daemon.refuse(refused);
    } else {
      hooks.use(next.onEvent);
      events.say("info", "reload", reloadedText(await daemon.reload(next)));
    }
  };
  const onHangup = () => {
    reloading = reloading.then(reloadOnce).catch((error: unknown) => {
      events.say("error", "reload", `the configuration cannot be applied: ${reasonOf(error)}`);
    });
  };
  if (reload !== undefined) {
    process.on("SIGHUP", onHangup);
    if (takeHangup()) onHangup();
  }
  // What began is not left behind, whether it can start or not.
  if (
    !(await starting.catch(async (error: unknown) => {
      await hooks.close();
      throw error;
    }))
  ) {
    await hooks.close();
    return options.once || interrupted ? 130 : 0;
  }
  const control = new ControlServer(config.stateDir, (request, exchange) => answer(daemon, request, exchange));
  await control.start().catch(async (error: unknown) => {
    await daemon.stop();
    await hooks.close();
    const said = error instanceof ControlError ? error : await asUsage(error, config.stateDir);
    // systemd starts it again where no person has to mend anything.
    if (supervisor !== undefined && said !== error) throw new Error(reasonOf(said), { cause: error });
    await supervisor?.mistake(reasonOf(said));
    throw said;
  });
  const unwatch = supervisor?.watch(() => askHealth(config.stateDir));
  if (daemon.ready)
    events.say(
      "info",
      "ready",
      `FileSync ${programVersion} is ready: ${counted(config.devices.length, "device")}, ${counted(config.routeCount, "route")}, state in ${config.stateDir}${config.wrong === undefined ? "" : `; ${wrongText(config.wrong)}`}`,
    );
  const detach = attach?.(daemon, events);
  followZone();
  const zoning = setInterval(followZone, zoneMs);
  const drawing = output.terminal ? setInterval(() => daemon.ready && output.progress(progressText(daemon.progress())), 250) : undefined;

  let code = 0;
  try {
    if (options.once && !daemon.ready) {
      // A full or failing disk: a daemon looks again, one that is to end does not wait for it.
      code = 3;
      events.say("warn", "left", `finished, but nothing could be done: ${daemon.trouble ?? "it was stopped"}`);
    } else if (options.once) {
      const ended = daemon.drained(stop.signal).catch((error: unknown) => {
        if (!stop.signal.aborted) throw error;
        return undefined;
      });
      const drained = await Promise.race([ended, asked.then(() => undefined)]);
      if (drained === undefined) code = 130;
      else {
        const { waiting, parked, lost, unreleased, kept, unlisted, unread, uneven } = drained;
        const left = [
          ...(waiting > 0 ? [`${waiting} ${waiting === 1 ? "delivery" : "deliveries"} could not be made now`] : []),
          ...(parked > 0 ? [`${parked} ${parked === 1 ? "is" : "are"} set aside`] : []),
          ...(lost > 0
            ? [
                `${counted(lost, "file")} ${lost === 1 ? "was" : "were"} lost at the source ("filesync status" names ${lost === 1 ? "it" : "them"})`,
              ]
            : []),
          ...(unreleased + kept.length > 0
            ? [`${counted(unreleased + kept.length, "file")} could not be deleted or archived at the source${namedText(kept)}`]
            : []),
          ...unlisted.map((name) => `${name} could not be listed`),
          ...(unread > 0 ? [`${counted(unread, "path")} at the source could not be read`] : []),
          ...uneven,
        ];
        if (left.length > 0) {
          code = 3;
          events.say("warn", "left", `finished, but ${left.join(", ")}; the lines above say why`);
        }
      }
    } else {
      await asked;
      if (interrupted) code = 130;
    }
    await reloading;
  } finally {
    clearInterval(drawing);
    clearInterval(zoning);
    unwatch?.();
    void supervisor?.stopping();
    detach?.();
    process.removeListener("SIGINT", onSignal);
    process.removeListener("SIGTERM", onSignal);
    process.removeListener("SIGHUP", onHangup);
    await control.close();
    const goOn = options.once ? endWithin(onceMs) : undefined;
    await daemon.stop();
    goOn?.();
    events.say("info", "stopped", "stopped; what was on its way goes on at the next start");
    await hooks.close();
    output.close();
    unprint();
  }
  return code;
}

/** False: it was stopped before it could begin. Throws what a person has to mend. */
async function start(
  daemon: Daemon,
  stateDir: string,
  supervisor: Supervisor | undefined,
  events: Events,
  stop: AbortSignal,
): Promise<boolean> {
  for (const patience = new Patience(); ;)
    try {
      const strange = strangeText(stateDir);
      if (strange !== undefined) throw new UsageError(strange);
      expectOwner(stateDir);
      await daemon.start();
      return true;
    } catch (error) {
      // A command has it while it reads the journal; a daemon answers, and keeps it.
      if (error instanceof StateDirHeld && !(await isAnswered(stateDir)) && (await patience.wait(stop))) continue;
      if (stop.aborted) return false;
      const said = await asUsage(error, stateDir);
      if (supervisor === undefined) throw said;
      // Whoever holds it may end, and a disk may be mounted later; another version's journal stays what it is.
      if (said === error && !(error instanceof StateDirHeld || error instanceof UsageError)) {
        await supervisor.mistake(reasonOf(said));
        throw said;
      }
      events.say("error", "start", `${reasonOf(said)}; tried again in ${againMs / 1000} s`);
      await supervisor.waits(reasonOf(said));
      await new RealClock().sleep(againMs, stop).catch(() => undefined);
      if (stop.aborted) return false;
    }
}

async function isAnswered(stateDir: string): Promise<boolean> {
  try {
    return (await ask(stateDir, { command: "version" })) !== undefined;
  } catch {
    return false;
  }
}

/** What root makes in another user's state directory that user could not use: the service would not start again, or not read what was pulled. Throws UsageError. */
function expectOwner(stateDir: string): void {
  const uidOf = (path: string) => statSync(path, { throwIfNoEntry: false })?.uid;
  const uid = uidOf(join(stateDir, "journal.db")) ?? uidOf(stateDir) ?? 0;
  if (process.geteuid?.() !== 0 || uid === 0) return;
  throw new UsageError(
    `the state directory ${stateDir} belongs to the user with id ${uid}, who could not use what root makes there: run this as that user (sudo -u '#${uid}' …), or give root a "stateDir" of its own`,
  );
}

/** The way that a person's command takes: through the socket, the loop and the journal. */
async function askHealth(stateDir: string): Promise<Health> {
  const answered = await ask(stateDir, { command: "health" });
  if (answered === undefined) throw new Error("its socket is not there");
  return answered.ok as Health;
}

/** What differs that only a restart can change. */
function fixedKeys(config: Config, next: Config): string | undefined {
  const keys = (["stateDir", "vehicle"] as const).filter((key) => config[key] !== next[key]);
  return keys.length === 0 ? undefined : `${keys.map((key) => `"${key}"`).join(" and ")} cannot change while it runs; restart it`;
}

function reloadedText(done: Reloaded | undefined): string {
  if (done === undefined) return "the new configuration runs as soon as the medium works again";
  const said = (["added", "changed", "removed"] as const).flatMap((what) =>
    done[what].length === 0 ? [] : [`${done[what].join(", ")} ${what}`],
  );
  if (done.rerouted.length > 0) said.push(`routes from ${done.rerouted.join(", ")} changed`);
  return said.length === 0
    ? "the new configuration runs: devices and routes are the same"
    : `the new configuration runs: ${said.join("; ")}`;
}

/** The first of them: they are told when they are tried, which may have been runs ago. */
function namedText(names: readonly string[]): string {
  if (names.length === 0) return "";
  return ` (${names.slice(0, toldFailed).join(", ")}${names.length > toldFailed ? ", …" : ""}: "filesync why" says why)`;
}

function counted(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}

function answer(daemon: Daemon, request: ControlRequest, exchange: Exchange): unknown {
  if (request.command === "version") return programVersion;
  if (request.command === "health") return healthOf(daemon);
  if (!daemon.ready) throw new ControlError(daemon.trouble ?? "the daemon is starting, or stopping");
  return request.command === "status" ? daemon.status() : answerWith(daemon.engine, true)(request, exchange);
}

async function healthOf(daemon: Daemon): Promise<Health> {
  await daemon.alive();
  if (!daemon.ready) return { ready: false, summary: daemon.trouble ?? "it is starting, or stopping" };
  const { summary, spool } = daemon.status();
  return { ready: true, summary: spool.waiting === undefined ? summary : `${summary}; ${spool.waiting}` };
}

function complain(message: string): void {
  process.stderr.write(`${message}\n`);
}

async function asUsage(error: unknown, stateDir: string): Promise<unknown> {
  const code = codeOf(error);
  if (code === "EROFS")
    return new UsageError(
      `the state directory ${stateDir} cannot be written: the file system is read-only; mount it for writing, or set "stateDir" to a directory elsewhere`,
    );
  if (isDenied(error)) return new UsageError(await deniedText(stateDir, error));
  if (code === "EIO" || code === "ENOSPC" || code === "EDQUOT")
    return new UsageError(
      `the state directory ${stateDir} cannot be used: ${code === "EIO" ? "the medium fails (EIO)" : await whyNotWritten(stateDir, error)}`,
    );
  if (code === "ENOTDIR" || code === "EEXIST")
    return new UsageError(`the state directory ${stateDir} cannot be made: a part of that path is a file`);
  // As /proc does.
  const { syscall, path } = error as NodeJS.ErrnoException;
  if (code === "ENOENT" && syscall === "mkdir" && path !== undefined && `${stateDir}/`.startsWith(`${path}/`))
    return new UsageError(
      `the state directory ${stateDir} cannot be made: no directory can be made in ${dirname(path)}; set "stateDir" to a directory elsewhere`,
    );
  return error;
}
