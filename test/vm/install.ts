/**
 * FileSync installed by its own script in a machine of its own (machine.ts) that has neither Node.js nor a network: used, upgraded, broken, killed, its power
 * cut, and taken away. `npm run vm -- install`.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Row } from "./evidence.js";
import { type InstallGiven, Installed } from "./install/installed.js";
import { cuts, years } from "./install/power.js";
import { registry } from "./install/registry.js";
import { checkout, gone, ground, image, mistakes } from "./install/scripts.js";
import { bare, broken, disk, idle, service, upgrade } from "./install/service.js";
import { Machine } from "./machine.js";

/** In this order: each stands on those before it. */
const inOrder: Readonly<Record<string, (on: Installed) => Promise<void>>> = {
  ...{ bare, service, idle, disk, upgrade, broken, cuts, years, mistakes, gone, image, ground, registry, checkout },
};
export const steps = Object.keys(inOrder);

/** A string says why there can be no machine here. */
export async function install(given: InstallGiven): Promise<readonly Row[] | string> {
  const machine = await Machine.start(given);
  if (typeof machine === "string") return machine;
  const dir = mkdtempSync(join(tmpdir(), "filesync-install-"));
  const on = new Installed(machine, given, dir);
  try {
    await on.prepare();
    for (const [name, step] of Object.entries(inOrder)) {
      if (given.only !== undefined && !given.only.includes(name)) continue;
      const begun = performance.now();
      given.say(`--- ${name}`);
      try {
        await step(on);
      } catch (error) {
        on.results.row(name, "ran to its end", error instanceof Error ? error.message : String(error), false);
      }
      given.say(`--- ${name}: ${Math.round((performance.now() - begun) / 1000)} s`);
    }
    return on.results.rows;
  } finally {
    await on.close();
    await machine.close();
    rmSync(dir, { recursive: true });
  }
}
