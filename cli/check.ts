/** `check`: what is wrong with a configuration; with `--probe` each device and service is tried, without changing anything. */
import { reasonOf } from "../core/retry.js";
import { load, problemLines } from "./config.js";
import { barredFrom } from "./machine/rights.js";
import { daemonUser, unitOf } from "./machine/unit.js";
import { thisView } from "./machine/view.js";
import { tryOut } from "./probe.js";

/** Exit code 0, or 2 when something is wrong. */
export async function checkCommand(path: string, options: { probe: boolean }): Promise<number> {
  const loaded = await load(path);
  for (const line of problemLines(path, loaded)) process.stdout.write(`${line}\n`);
  let wrong = loaded.problems.length;
  if (loaded.config !== undefined && options.probe) {
    const view = thisView();
    const user = daemonUser(view, await unitOf(view));
    for (const device of loaded.config.devices) {
      const barred = barredFrom(view, device, loaded.config, user);
      if (barred !== undefined) wrong += 1;
      const said =
        barred ??
        (await tryOut(device, loaded.config).catch((error: unknown) => {
          wrong += 1;
          return reasonOf(error);
        }));
      process.stdout.write(`${device.name}: ${said}\n`);
    }
  }
  if (wrong === 0) process.stdout.write(`${path}: nothing is wrong\n`);
  return wrong === 0 ? 0 : 2;
}
