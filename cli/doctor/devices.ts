/** Each device and service of the configuration, tried or asked of the daemon that runs; and the certificates of servers. */
import { type Advised, adviceOf } from "../../core/advice.js";
import type { Config, DeviceConfig } from "../../core/config.js";
import { ask, ControlError } from "../../core/control.js";
import { isFault } from "../../core/errors.js";
import type { Lane } from "../../core/lane.js";
import { isHanging, isOfMount } from "../../core/on-mount.js";
import { reasonOf } from "../../core/retry.js";
import type { Certificate, Device } from "../../core/plugin.js";
import type { Status } from "../../core/status.js";
import { plausibleSinceMs } from "../../core/clock.js";
import type { Learned } from "../offline.js";
import { withContext } from "../own.js";
import { barredFrom, dirOf } from "../machine/rights.js";
import { hiddenText, type Unit } from "../machine/unit.js";
import type { User, View } from "../machine/view.js";
import { probeMs, tryOut } from "../probe.js";
import { type Finding, findingsOf } from "./finding.js";

const finding = findingsOf("devices");
const soonMs = 30 * 86_400_000;

export interface Looked {
  readonly config: Config;
  /** Of the daemon that runs. */
  readonly status: Status | undefined;
  /** One may run, and does not tell us. */
  readonly silent: boolean;
  /** Devices of which other checks said why they cannot be used. */
  readonly broken: ReadonlySet<string>;
  readonly view: View;
  /** Who the daemon is, or will be. */
  readonly user: User;
  /** That runs this configuration. */
  readonly unit: Unit;
  readonly learned: Learned;
}

export async function checkDevices(looked: Looked): Promise<Finding[]> {
  const { config } = looked;
  const found = await Promise.all(
    config.devices.map(async (device) => {
      const [well, shown] = await Promise.all([checkDevice(device, looked), checkCertificate(device, looked)]);
      return [...well, ...shown];
    }),
  );
  return [...found.flat(), ...(looked.status === undefined ? [] : await adviceOfDaemon(looked.config.stateDir))];
}

/** What each device says of its own settings, by the daemon that has them. */
async function adviceOfDaemon(stateDir: string): Promise<Finding[]> {
  try {
    const told = ((await ask(stateDir, { command: "advice" }))?.ok ?? []) as Advised[];
    return told.flatMap(adviceFindings);
  } catch (error) {
    if (!(error instanceof ControlError) && !isFault(error)) throw error;
    return [finding("unseen", "the devices", `their own settings: ${reasonOf(error)}`, "sudo systemctl restart filesync")];
  }
}

function adviceFindings({ device, advice, unseen }: Advised): Finding[] {
  const found = advice.map(({ severity, about, text, todo }) => finding(severity, device, `${about} ${text}`, ...todo));
  return unseen === undefined ? found : [...found, finding("unseen", device, `its own settings: ${unseen}`)];
}

/** What is across a network. */
const servers: readonly string[] = ["ftp", "sftp", "rsync", "webdav", "post"];

/** With a disk that is not mounted no other try helps. */
function todoOf(name: string, reason = ""): string {
  if (isHanging(reason)) return "findmnt   # then see to that server or disk: what waits goes on by itself";
  return isOfMount(reason) ? "lsblk -f   # then mount it: what waits goes on by itself" : `filesync retry ${name}`;
}

/** Of what only one program can have open the daemon knows; a disk is mounted by its probe, which is the daemon's to do. */
function isDaemons({ type, kind }: DeviceConfig): boolean {
  return type === "mavftp" || type === "disk" || kind === "service";
}

async function checkDevice(
  device: DeviceConfig,
  { config, status, silent, broken, view, user, unit, learned }: Looked,
): Promise<Finding[]> {
  const { name, type } = device;
  const known = status?.devices.find((one) => one.name === name);
  if (known !== undefined && isDaemons(device)) {
    if (known.presence === "attached") return [finding("ok", name, "attached: the daemon that runs uses it")];
    return [
      finding(
        type === "disk" ? "warn" : "bad",
        name,
        `${known.presence}: ${known.reason ?? "nobody knows why"}`,
        todoOf(name, known.reason),
      ),
    ];
  }
  if (type === "disk" || broken.has(name)) return [];
  if (silent && isDaemons(device))
    return [finding("unseen", name, "whether it works: a daemon that may have it does not tell", "sudo filesync doctor")];
  const hidden = hiddenText(unit, dirOf(device));
  if (hidden !== undefined) return [finding("bad", name, hidden, `# another directory in the configuration of ${name}`)];
  const barred = barredFrom(view, device, config, user);
  if (barred !== undefined) return [finding("bad", name, barred.words, barred.todo)];
  const advised: Finding[] = [];
  // Of what the daemon has it is asked (`adviceOfDaemon`).
  const also =
    status === undefined
      ? async (lane: Lane) => void advised.push(...adviceFindings(await adviceOf(lane, AbortSignal.timeout(probeMs))))
      : undefined;
  try {
    const well = await tryOut(device, config, learned, also);
    if (known !== undefined && known.presence !== "attached")
      return [
        finding(
          servers.includes(type) ? "warn" : "bad",
          name,
          `it works for ${view.me.name}, and for the daemon it is ${known.presence}: ${known.reason ?? "nobody knows why"}`,
          todoOf(name, known.reason),
        ),
        ...advised,
      ];
    return [finding("ok", name, well), ...advised];
  } catch (error) {
    if (type === "local" && isFault(error, "denied") && user.uid !== view.me.uid) {
      if (known?.presence === "attached") return [finding("ok", name, "attached: the daemon that runs uses it")];
      return [finding("unseen", name, `whether ${user.name} may use it: ${reasonOf(error)}`, "sudo filesync doctor")];
    }
    // In the field a server is often out of reach: what is for it waits.
    const away = isFault(error, "offline") && servers.includes(type);
    const todo = isOfMount(reasonOf(error)) ? todoOf(name, reasonOf(error)) : "# when that is mended: filesync check --probe";
    return [finding(away ? "warn" : "bad", name, reasonOf(error), todo), ...advised];
  }
}

async function checkCertificate(device: DeviceConfig, { config, view: { nowMs } }: Looked): Promise<Finding[]> {
  const { name, plugin, options } = device;
  const shown = await withContext(name, { vehicle: config.vehicle, installation: "00000000" }, async (context) => {
    let made: Device | undefined;
    try {
      made = plugin.device?.(options, context);
      if (made?.certificate === undefined) return undefined;
      made.presence$.subscribe();
      return await made.certificate(AbortSignal.timeout(probeMs));
    } catch {
      // Why the device cannot be made, or its server reached, is what its probe says.
      return undefined;
    } finally {
      await made?.close();
    }
  });
  return shown === undefined ? [] : certificateFindings(name, shown, nowMs);
}

/** Of one that the configuration pins only the fingerprint counts. */
export function certificateFindings(name: string, { name: of, fromMs, untilMs, pinned }: Certificate, nowMs: number): Finding[] {
  const day = (ms: number) => new Date(ms).toISOString().slice(0, 10);
  const days = (ms: number) => {
    const n = Math.floor(ms / 86_400_000);
    return `${n} day${n === 1 ? "" : "s"}`;
  };
  const what = `the server's certificate (${of})`;
  const todo = ["# renew it on the server", "timedatectl   # is this machine's clock right?"];
  if (pinned) return [finding("ok", name, `${what} is known by its fingerprint: that it is valid until ${day(untilMs)} does not count`)];
  if (nowMs < fromMs)
    return [finding("bad", name, `${what} is valid from ${day(fromMs)}, and it is ${day(nowMs)} here`, ...todo.slice(1), todo[0] ?? "")];
  if (nowMs > untilMs) return [finding("bad", name, `${what} expired on ${day(untilMs)}, ${days(nowMs - untilMs)} ago`, ...todo)];
  if (untilMs - nowMs < soonMs && nowMs >= plausibleSinceMs)
    return [
      finding("warn", name, `${what} expires in ${days(untilMs - nowMs)}, on ${day(untilMs)}: nothing is sent to it from then on`, ...todo),
    ];
  return [finding("ok", name, `${what} is valid until ${day(untilMs)}`)];
}
