/** Whether a device or service works, tried without changing anything: for `check --probe` and `doctor`. */
import type { Config, DeviceConfig } from "../core/config.js";
import { ask } from "../core/control.js";
import { lookInto } from "../core/entries.js";
import { Fault, isFault } from "../core/errors.js";
import { installationIn } from "../core/installation.js";
import type { Lane } from "../core/lane.js";
import { isOfMount } from "../core/on-mount.js";
import { withinMs } from "../core/signals.js";
import { isChanged } from "../core/sync/options.js";
import { reasonOf } from "../core/retry.js";
import type { Status } from "../core/status.js";
import { whyWritten } from "./machine/rights.js";
import type { Learned } from "./offline.js";
import { withContext, withLane, withShown } from "./own.js";

export const probeMs = 15_000;

/** What is known of it then, in a few words; `learned`: of all that are tried, read before (`learnedOf`); `also`: asked of a device that is there, at the same opportunity, also where it does not work. Throws what is wrong with it. */
export function tryOut(config: DeviceConfig, all: Config, learned: Learned, also?: (lane: Lane) => Promise<void>): Promise<string> {
  return config.kind === "service" ? tryService(config, all, learned) : tryDevice(config, all, learned, also);
}

async function tryDevice(config: DeviceConfig, all: Config, learned: Learned, also?: (lane: Lane) => Promise<void>): Promise<string> {
  const { vehicle, routes, syncs, stateDir } = all;
  const isSource = [...routes, ...syncs].some(({ from }) => from === config.name);
  const isTarget = routes.some(({ to }) => to.some(({ device }) => device === config.name));
  const installation = (await installationIn(stateDir).catch(() => undefined)) ?? "00000000";
  // Who may not ask the daemon tries it without.
  if (config.plugin.dirOf !== undefined) expectMounted(config, await statusOf(stateDir).catch(() => undefined));
  return withLane(config, { vehicle, installation, learned: learned.get(config.name) }, (lane) =>
    withinMs(probeMs, [], async (signal) => {
      try {
        await lane.lookNow(signal);
      } catch (error) {
        throw await withShown(lane, error, signal);
      } finally {
        if (lane.present) await also?.(lane);
      }
      if (isSource && lane.device.probeTarget === undefined) await expectListed(lane, signal);
      // What is only sent to, or by hand, makes its root where that is not there yet: it is told, and no mistake.
      const unlisted = isSource || lane.device.probeTarget !== undefined ? undefined : await whyNotListed(lane, signal);
      const answers = unlisted === undefined ? "answers" : `answers, and its root cannot be listed (${unlisted})`;
      if (!isTarget) {
        // Of the others only a write would tell.
        if (isChanged(all, config.name))
          await lane.device.probeTarget?.(signal).catch((error: unknown) => {
            const why = whyWritten(all, config.name);
            throw isFault(error) && why !== "" ? new Fault(error.kind, `${why}: ${error.message}`, { cause: error }) : error;
          });
        return unlisted === undefined ? "works" : answers;
      }
      if (lane.device.probeTarget === undefined) return `${answers}; whether it can be written is not tried`;
      await lane.device.probeTarget(signal);
      return "works";
    }),
  );
}

/** Where a directory of this machine was mounted the daemon that runs knows. Throws Fault "offline". */
function expectMounted({ name }: DeviceConfig, status: Status | undefined): void {
  const known = status?.devices.find((one) => one.name === name);
  if (known?.presence === "detached" && isOfMount(known.reason ?? "")) throw new Fault("offline", known.reason ?? "");
}

const statusOf = async (stateDir: string) => (await ask(stateDir, { command: "status" }))?.ok as Status | undefined;

/** Where only writing would tell, a root that is not there may be made by the first upload: what is sent from there has to be in it. Throws "missing" and "denied" alone: a slow link, or a long listing, is no mistake. */
async function expectListed({ device }: Lane, signal: AbortSignal): Promise<void> {
  try {
    if (device.source !== undefined) await lookInto(device.source, signal);
  } catch (error) {
    if (isFault(error, "missing", "denied")) throw error;
  }
}

async function whyNotListed(lane: Lane, signal: AbortSignal): Promise<string | undefined> {
  return expectListed(lane, signal).then(() => undefined, reasonOf);
}

async function tryService(config: DeviceConfig, all: Config, learned: Learned): Promise<string> {
  const { vehicle, stateDir } = all;
  const status = await statusOf(stateDir);
  // The port of one that runs is held, by the daemon itself.
  const isServed = status?.devices.find(({ name }) => name === config.name)?.presence === "attached";
  if (!isServed) expectMounted(config, status);
  return withContext(config.name, { vehicle, installation: "00000000", learned: learned.get(config.name) }, async (context) => {
    const service = config.plugin.service?.(config.options, context);
    const signal = AbortSignal.timeout(probeMs);
    try {
      if (!isServed && service?.probeStart === undefined)
        return `not tried: only a start tells whether a service of type "${config.type}" works`;
      if (!isServed) await service?.probeStart?.(signal);
      await service?.probeNeeds?.(signal);
      return isServed ? "works: the daemon that runs serves it" : "can be started";
    } finally {
      await service?.close();
    }
  });
}
