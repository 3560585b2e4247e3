/**
 * Settings of an autopilot that keep its logs from coming, each in words. Only those whose meaning is known from the autopilot's own sources:
 * PX4 src/modules/logger (params.c; module.yaml since 1.17), its check of USB in commander/HealthAndArmingChecks/checks/systemCheck.cpp; ArduPilot libraries/AP_Logger.
 */
import type { Advice } from "../../core/plugin.js";
import { AUTOPILOT_ARDUPILOT, AUTOPILOT_PX4 } from "../../mavlink/messages.js";

export interface Asked {
  /** MAV_AUTOPILOT. */
  readonly autopilot: number;
  readonly version: readonly [number, number, number] | undefined;
  /** The link is the autopilot's own USB port. */
  readonly usb: boolean;
}

/** With fewer, a log goes before it is missed. */
const FEW = 10;
/** CBRK_USB_CHK_KEY (src/lib/circuit_breaker). */
const USB_KEY = 197_848;
/** SDLOG_BACKEND came with 1.17 (pull request 25478), and SDLOG_MODE lost its -1. */
const BACKENDS_SINCE = 17;

/** What it is asked for; the first says whether it logs at all, and each has it. Empty: nobody knows what to ask such an autopilot. */
export function settingsToAsk({ autopilot, version, usb }: Asked): readonly string[] {
  if (autopilot === AUTOPILOT_ARDUPILOT)
    return ["LOG_BACKEND_TYPE", "LOG_DISARMED", "LOG_FILE_DSRMROT", "LOG_FILE_MB_FREE", "LOG_MAX_FILES"];
  if (autopilot !== AUTOPILOT_PX4) return [];
  const backends = version === undefined || version[0] > 1 || version[1] >= BACKENDS_SINCE;
  return ["SDLOG_MODE", ...(backends ? ["SDLOG_BACKEND"] : []), "SDLOG_DIRS_MAX", ...(usb ? ["CBRK_USB_CHK"] : [])];
}

/** `values`: those that it told, by name. */
export function adviceOf(asked: Asked, values: ReadonlyMap<string, number>): Advice[] {
  const [first] = settingsToAsk(asked);
  if (first === undefined) return [];
  const silent: Advice[] = values.has(first)
    ? []
    : [{ severity: "unseen", about: first, text: "is not known: the autopilot did not answer three requests for it", todo: [] }];
  const found = asked.autopilot === AUTOPILOT_PX4 ? [...ofPx4(values)] : [...ofArdupilot(values)];
  return [...silent, ...found];
}

/** Whose files are known to be read well, and since which version (sim/px4.ts, sim/ardupilots.ts). */
const KNOWN: ReadonlyMap<number, { readonly name: string; readonly since: readonly [number, number] }> = new Map([
  [AUTOPILOT_PX4, { name: "PX4", since: [1, 12] }],
  [AUTOPILOT_ARDUPILOT, { name: "ArduPilot", since: [4, 3] }],
]);

const isBefore = ([major, minor]: readonly number[], [wantedMajor, wantedMinor]: readonly [number, number]) =>
  major !== wantedMajor ? (major ?? 0) < wantedMajor : (minor ?? 0) < wantedMinor;

/** What is known of its file transfer (docs/mavftp-quirks.md). */
export function firmwareAdvice(autopilot: number, version: readonly [number, number, number] | undefined): Advice[] {
  const known = KNOWN.get(autopilot);
  if (known === undefined) return [];
  const about = "its firmware";
  if (version === undefined) return [{ severity: "unseen", about, text: `is a ${known.name} that does not tell its version`, todo: [] }];
  const text = `is ${known.name} ${version.join(".")}`;
  if (isBefore(version, known.since)) {
    const since = known.since.join(".");
    const todo = [`# ${known.name} ${since} or later, if files do not come or are told to differ`];
    return [{ severity: "warn", about, text: `${text}: how it moves files is known only from ${since} on`, todo }];
  }
  if (autopilot === AUTOPILOT_ARDUPILOT && isBefore(version, [4, 7]))
    return [{ severity: "ok", about, text: `${text}: one program at a time can move files, on all its links; 4.7 lets five`, todo: [] }];
  return [{ severity: "ok", about, text, todo: [] }];
}

const set = (name: string, value: number, then = "") => `# in a ground station: set ${name} to ${value}${then}`;
const restart = ", then restart the autopilot";

function* ofPx4(values: ReadonlyMap<string, number>): Generator<Advice> {
  const mode = values.get("SDLOG_MODE");
  const backend = values.get("SDLOG_BACKEND");
  if (mode !== undefined) yield px4Mode(mode, backend !== undefined);
  if (backend !== undefined) {
    const about = "SDLOG_BACKEND";
    if ((backend & 1) === 1) yield { severity: "ok", about, text: `is ${backend}: logs are written to the card`, todo: [] };
    else {
      const text = backend === 0 ? "is 0: no log is written" : `is ${backend}: logs go out by MAVLink only, none is written to the card`;
      yield { severity: "bad", about, text, todo: [set(about, backend | 1, restart)] };
    }
  }
  const dirs = values.get("SDLOG_DIRS_MAX") ?? 0;
  if (dirs > 0) {
    const text = `is ${dirs}: of its directories of logs, one for each day or start, only the newest ${dirs} stay, whether they have arrived or not`;
    yield {
      severity: dirs < FEW ? "warn" : "ok",
      about: "SDLOG_DIRS_MAX",
      text,
      todo: dirs < FEW ? [set("SDLOG_DIRS_MAX", 0, restart)] : [],
    };
  }
  const usb = values.get("CBRK_USB_CHK");
  if (usb !== undefined && usb !== USB_KEY)
    yield {
      severity: "warn",
      about: "CBRK_USB_CHK",
      text: `is ${usb}: a PX4 does not arm while its USB port is connected, and this link is that port`,
      todo: [`# connect a TELEM port in its place; or, who answers for it: set CBRK_USB_CHK to ${USB_KEY}`],
    };
}

const MODES: ReadonlyMap<number, string> = new Map([
  [0, "a log from arming to disarming"],
  [1, "a log from the start to the first disarming, then one for each flight"],
]);

function px4Mode(mode: number, hasBackends: boolean): Advice {
  const about = "SDLOG_MODE";
  const flights = [set(about, 0, restart)];
  if (mode === -1 && !hasBackends) return { severity: "bad", about, text: "is -1: no log is written", todo: flights };
  if (mode === 3)
    return { severity: "warn", about, text: "is 3: a log is written only while the pilot's channel AUX1 is high", todo: flights };
  if (mode === 2 || mode === 4)
    return {
      severity: "warn",
      about,
      text: `is ${mode}: a log ends only when the autopilot is switched off, so that of the last flight comes after its next start`,
      todo: flights,
    };
  const text = MODES.get(mode);
  if (text === undefined) return { severity: "warn", about, text: `is ${mode}, which means nothing to this version`, todo: flights };
  return { severity: "ok", about, text: `is ${mode}: ${text}`, todo: [] };
}

function* ofArdupilot(values: ReadonlyMap<string, number>): Generator<Advice> {
  const backends = values.get("LOG_BACKEND_TYPE");
  if (backends !== undefined) yield ardupilotBackends(backends);
  const disarmed = values.get("LOG_DISARMED");
  const rotates = values.get("LOG_FILE_DSRMROT");
  if (disarmed !== undefined) yield whileDisarmed(disarmed, rotates);
  const free = values.get("LOG_FILE_MB_FREE");
  if (free !== undefined)
    yield {
      severity: "ok",
      about: "LOG_FILE_MB_FREE",
      text: `is ${free}: with less than ${free} MB free on its card it deletes its oldest logs, whether they have arrived or not`,
      todo: [],
    };
  const files = values.get("LOG_MAX_FILES");
  if (files !== undefined && files < FEW)
    yield {
      severity: "warn",
      about: "LOG_MAX_FILES",
      text: `is ${files}: after ${files} logs the next one takes the place of the oldest, whether that has arrived or not`,
      todo: [set("LOG_MAX_FILES", 500, restart)],
    };
}

/** Bits: 1 file, 2 MAVLink, 4 a flash chip by blocks. */
function ardupilotBackends(backends: number): Advice {
  const about = "LOG_BACKEND_TYPE";
  if ((backends & 1) === 1) return { severity: "ok", about, text: `is ${backends}: logs are written to files`, todo: [] };
  const text =
    backends === 0
      ? "is 0: no log is written"
      : (backends & 4) === 4
        ? `is ${backends}: logs are in a flash chip, not in files, and MAVLink FTP gives files only`
        : `is ${backends}: logs go out by MAVLink only, none is written to a file`;
  const todo = [set(about, 1, `${restart}: where the board has a card`)];
  return { severity: "bad", about, text, todo };
}

function whileDisarmed(disarmed: number, rotates: number | undefined): Advice {
  const about = "LOG_DISARMED";
  if (disarmed === 0) return { severity: "ok", about, text: "is 0: nothing is logged on the ground", todo: [] };
  if (rotates === 1)
    return { severity: "ok", about, text: `is ${disarmed}, and LOG_FILE_DSRMROT is 1: a flight's log ends with its disarming`, todo: [] };
  const usb = disarmed === 2 ? " (but for a vehicle on USB)" : "";
  return {
    severity: "warn",
    about,
    text: `is ${disarmed}: the log goes on after the flight${usb}, so it comes only once another has followed it`,
    todo: ["# in a ground station: set LOG_FILE_DSRMROT to 1, or LOG_DISARMED to 0", '# or "settle": "0s" on this device (docs/mavftp.md)'],
  };
}
