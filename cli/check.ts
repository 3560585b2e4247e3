/** `check`: what is wrong with a configuration; with `--probe` each device is tried, without changing anything. */
import type { DeviceConfig } from "../core/config.js";
import { reasonOf } from "../core/retry.js";
import { load, problemLines } from "./config.js";
import { withLane } from "./own.js";

const probeMs = 15_000;

/** Exit code 0, or 2 when something is wrong. */
export async function checkCommand(path: string, options: { probe: boolean }): Promise<number> {
  const loaded = await load(path);
  for (const line of problemLines(path, loaded)) process.stdout.write(`${line}\n`);
  let wrong = loaded.problems.length;
  if (loaded.config !== undefined && options.probe)
    for (const device of loaded.config.devices) if (!(await probe(device, loaded.config.vehicle))) wrong += 1;
  if (wrong === 0) process.stdout.write(`${path}: nothing is wrong\n`);
  return wrong === 0 ? 0 : 2;
}

async function probe(config: DeviceConfig, vehicle: string): Promise<boolean> {
  if (config.kind === "service") return true;
  try {
    await withLane(config, { vehicle, installation: "00000000" }, (lane) => lane.lookNow(AbortSignal.timeout(probeMs)));
    process.stdout.write(`${config.name}: works\n`);
    return true;
  } catch (error) {
    process.stdout.write(`${config.name}: ${reasonOf(error)}\n`);
    return false;
  }
}
