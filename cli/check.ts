/** `check`: what is wrong with a configuration; with `--probe` each device and service is tried, without changing anything. */
import type { Config, DeviceConfig } from "../core/config.js";
import { ask } from "../core/control.js";
import { reasonOf } from "../core/retry.js";
import type { Status } from "../core/status.js";
import { load, problemLines } from "./config.js";
import { withContext, withLane } from "./own.js";

const probeMs = 15_000;

/** Exit code 0, or 2 when something is wrong. */
export async function checkCommand(path: string, options: { probe: boolean }): Promise<number> {
  const loaded = await load(path);
  for (const line of problemLines(path, loaded)) process.stdout.write(`${line}\n`);
  let wrong = loaded.problems.length;
  if (loaded.config !== undefined && options.probe) {
    for (const device of loaded.config.devices) {
      const tried = device.kind === "service" ? tryService : tryDevice;
      const said = await tried(device, loaded.config).catch((error: unknown) => {
        wrong += 1;
        return reasonOf(error);
      });
      process.stdout.write(`${device.name}: ${said}\n`);
    }
  }
  if (wrong === 0) process.stdout.write(`${path}: nothing is wrong\n`);
  return wrong === 0 ? 0 : 2;
}

/** What is known of it then. Throws what is wrong with it. */
async function tryDevice(config: DeviceConfig, { vehicle, routes }: Config): Promise<string> {
  const isTarget = routes.some(({ to }) => to.some(({ device }) => device === config.name));
  return withLane(config, { vehicle, installation: "00000000" }, async (lane) => {
    const signal = AbortSignal.timeout(probeMs);
    await lane.lookNow(signal);
    if (!isTarget) return "works";
    if (lane.device.probeTarget === undefined) return "answers; whether it can be written is not tried";
    await lane.device.probeTarget(signal);
    return "works";
  });
}

async function tryService(config: DeviceConfig, { vehicle, stateDir }: Config): Promise<string> {
  // The port of one that runs is held, by the daemon itself.
  const status = (await ask(stateDir, { command: "status" }))?.ok as Status | undefined;
  const running = status?.devices.find(({ name }) => name === config.name);
  if (running?.presence === "attached") return "works: the daemon that runs serves it";
  return withContext(config.name, { vehicle, installation: "00000000" }, async (context) => {
    const service = config.plugin.service?.(config.options, context);
    try {
      if (service?.probeStart === undefined) return `not tried: only a start tells whether a service of type "${config.type}" works`;
      await service.probeStart(AbortSignal.timeout(probeMs));
      return "can be started";
    } finally {
      await service?.close();
    }
  });
}
