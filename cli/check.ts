/** `check`: what is wrong with a configuration; with `--probe` each device is tried, without changing anything. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { firstValueFrom, filter, timeout } from "rxjs";
import { RealClock } from "../core/clock.js";
import type { DeviceConfig } from "../core/config.js";
import { reasonOf } from "../core/retry.js";
import { load, problemLines } from "./config.js";

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
  const stateDir = mkdtempSync(join(tmpdir(), "filesync-check-"));
  const memory = { get: () => undefined, set: () => Promise.resolve() };
  const clock = new RealClock();
  try {
    const device = config.plugin.device?.(config.options, {
      name: config.name,
      vehicle,
      installation: "00000000",
      stateDir,
      clock,
      memory,
      say: () => undefined,
      tellTime: (ms) => void clock.tell(ms),
    });
    if (device === undefined) return true;
    let reason = "";
    try {
      await firstValueFrom(
        device.presence$.pipe(
          filter((presence) => {
            reason = presence.reason ?? reason;
            return presence.state === "attached";
          }),
          timeout(probeMs),
        ),
      ).catch((error: unknown) => {
        throw reason === "" ? error : new Error(reason);
      });
      await device.probe(AbortSignal.timeout(probeMs));
      process.stdout.write(`${config.name}: works\n`);
      return true;
    } catch (error) {
      process.stdout.write(`${config.name}: ${reasonOf(error)}\n`);
      return false;
    } finally {
      await device.close();
    }
  } finally {
    rmSync(stateDir, { recursive: true, force: true });
  }
}
