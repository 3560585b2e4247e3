/** All the checks, of one machine and one configuration. Nothing is changed. */
import { dirname } from "node:path";
import type { Loaded } from "../../core/config.js";
import { problemText } from "../../core/config-problems.js";
import { ask, ControlError } from "../../core/control.js";
import { isFault } from "../../core/errors.js";
import type { HookRule } from "../../core/hooks.js";
import { reasonOf } from "../../core/retry.js";
import type { Status } from "../../core/status.js";
import { systemConfig } from "../config.js";
import { checkClock } from "./clock.js";
import { checkDevices } from "./devices.js";
import { checkDisks, disksOf } from "./disks.js";
import { type Family, type Finding, findingsOf } from "./finding.js";
import { checkJournal } from "./journal.js";
import { checkPower } from "./power.js";
import { checkSerial, serialDevices } from "./serial.js";
import { checkSpace } from "./space.js";
import { checkUnit } from "./unit.js";
import { daemonUser, forUnit, unitOf } from "../machine/unit.js";
import { unreadable } from "../machine/rights.js";
import { checkVersions } from "./versions.js";
import { isThere, type View } from "../machine/view.js";
import { type Learned, learnedOf } from "../offline.js";
import { shellWord } from "../../core/text.js";

export interface Given {
  /** undefined: there is none. */
  readonly file: { readonly path: string; readonly text: string; readonly loaded: Loaded | string } | undefined;
  readonly filesync: string;
  readonly node: string;
  readonly arch: string;
}

const ofConfiguration = findingsOf("configuration");
const ofDaemon = findingsOf("daemon");

export async function examine(view: View, { file, ...versions }: Given): Promise<Finding[]> {
  const loaded = typeof file?.loaded === "object" ? file.loaded : undefined;
  const config = loaded?.config;
  const daemon = config === undefined ? undefined : await daemonOf(config.stateDir);
  const unit = await unitOf(view);
  const user = daemonUser(view, unit, config === undefined ? undefined : { dir: config.stateDir, runs: daemon?.runs === true });
  const devices = config?.devices ?? [];
  const serial = await guarded("serial", "serial ports", () => checkSerial(view, serialDevices(devices), user, config?.stateDir ?? ""));
  // Before what is looked at side by side.
  const learned: Learned = config === undefined ? new Map() : await learnedOf(devices, config);
  const broken = new Set(serial.flatMap(({ severity, about }) => (severity === "bad" ? [about] : [])));
  const looks = [
    guarded("versions", "versions", () => checkVersions(view, { ...versions, daemon: daemon?.version })),
    guarded("unit", "systemd", () => checkUnit(view, unit, daemon?.runs === true)),
    guarded("disks", "disks", () => checkDisks(view, disksOf(devices), user)),
    guarded("clock", "clock", () => checkClock(view)),
    guarded("power", "power", () => checkPower(view)),
  ];
  if (config !== undefined)
    looks.push(
      guarded("devices", "devices", () =>
        checkDevices({
          config,
          status: daemon?.status,
          silent: daemon?.runs === true && daemon.status === undefined,
          broken,
          view,
          user,
          // A configuration of another place is run by hand.
          unit: file?.path === systemConfig ? unit : undefined,
          learned,
        }),
      ),
      guarded("space", config.stateDir, () => checkSpace(view, config, user)),
      guarded("space", "the journal", () => checkJournal(view, config.stateDir)),
    );
  const found = await Promise.all(looks);
  const ofDaemonItself = daemon === undefined || config === undefined ? [] : checkDaemon(daemon, config.stateDir);
  const all = [...checkConfiguration(file), ...checkHooks(view, config?.onEvent ?? []), ...ofDaemonItself, ...serial, ...found.flat()];
  if (file?.path === systemConfig)
    for (const { path, words, todo } of unreadable(view, file.path, file.text, user)) all.push(ofConfiguration("bad", path, words, todo));
  return all.map((one) => ({ ...one, todo: one.todo.map((line) => forUnit(unit, line)) }));
}

/** A check that fails for a reason of its own is one that did not see; the others go on. */
async function guarded(family: Family, about: string, check: () => Finding[] | Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await check();
  } catch (error) {
    return [findingsOf(family)("unseen", about, `this check failed: ${reasonOf(error)}`)];
  }
}

function checkConfiguration(file: Given["file"]): Finding[] {
  if (file === undefined)
    return [
      ofConfiguration(
        "warn",
        "configuration",
        "there is none here, and none in /etc/filesync: only this machine is looked at",
        "filesync init   # or give --config FILE",
      ),
    ];
  const { path, loaded } = file;
  if (typeof loaded === "string") return [ofConfiguration("bad", path, loaded)];
  if (loaded.problems.length === 0) return [ofConfiguration("ok", path, "nothing is wrong with it")];
  return loaded.problems.map((problem) => {
    const text = problemText(path, problem).slice(path.length + 1);
    return problem.unseen === true
      ? ofConfiguration("unseen", path, text, "sudo filesync doctor")
      : ofConfiguration("bad", path, text, `filesync check --config ${shellWord(path)}`);
  });
}

/** One without a path is looked for where the daemon looks: that is not known here. */
function checkHooks(view: View, rules: readonly HookRule[]): Finding[] {
  const programs = new Set(rules.map(({ command: [program = ""] }) => program));
  return [...programs]
    .filter((program) => program.startsWith("/") && !isThere(view, program))
    .map((program) =>
      ofConfiguration("bad", "onEvent", `there is no ${program}: nothing is run for its events`, `ls -l ${shellWord(dirname(program))}`),
    );
}

interface DaemonSeen {
  readonly runs: boolean;
  readonly version?: string;
  readonly status?: Status;
  /** Why it cannot be asked, or does not say. */
  readonly trouble?: string;
}

async function daemonOf(stateDir: string): Promise<DaemonSeen> {
  let version: string | undefined;
  try {
    version = (await ask(stateDir, { command: "version" }))?.ok as string | undefined;
    if (version === undefined) return { runs: false };
    const status = (await ask(stateDir, { command: "status" }))?.ok as Status | undefined;
    return { runs: true, version, ...(status === undefined ? {} : { status }) };
  } catch (error) {
    if (!(error instanceof ControlError) && !isFault(error)) throw error;
    return { runs: true, trouble: error.message, ...(version === undefined ? {} : { version }) };
  }
}

function checkDaemon({ runs, status, version, trouble }: DaemonSeen, stateDir: string): Finding[] {
  if (trouble !== undefined)
    return version === undefined
      ? [ofDaemon("unseen", "the daemon", trouble, "sudo filesync doctor")]
      : [ofDaemon("bad", "the daemon", trouble, "journalctl -u filesync -n 50 --no-pager")];
  if (!runs)
    return [
      ofDaemon(
        "warn",
        "the daemon",
        `none runs with ${stateDir}: nothing is found or delivered`,
        "filesync run   # or: sudo systemctl restart filesync",
      ),
    ];
  const parked = status?.queue.parked ?? 0;
  const found = [ofDaemon("ok", "the daemon", `it runs: ${status?.summary ?? ""}`)];
  if (parked > 0)
    found.push(
      ofDaemon("warn", "deliveries", `${parked} ${parked === 1 ? "is" : "are"} set aside`, "filesync status", "filesync retry --all"),
    );
  if (status?.spool.waiting !== undefined) found.push(ofDaemon("bad", "the spool", status.spool.waiting, "filesync ready"));
  return found;
}
