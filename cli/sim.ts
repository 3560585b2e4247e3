/** `sim`: a simulated flight controller until SIGINT or SIGTERM; SIGUSR1 arms and disarms it. */
import { startSim } from "../sim/sim.js";
import { UsageError } from "./config.js";

export interface SimArguments {
  readonly listen?: string;
  readonly dir?: string;
  readonly autopilot?: string;
  readonly link?: string;
  readonly fault?: string | readonly string[];
  readonly seed?: number;
  readonly armed?: boolean;
}

export async function simCommand(given: SimArguments): Promise<number> {
  if (given.listen === undefined) throw new UsageError("sim needs --listen URL, such as tcpin://127.0.0.1:5760");
  const faults: Record<string, string> = {};
  for (const fault of given.fault === undefined ? [] : [given.fault].flat()) {
    const at = fault.indexOf("=");
    faults[at === -1 ? fault : fault.slice(0, at)] = at === -1 ? "" : fault.slice(at + 1);
  }
  let sim: Awaited<ReturnType<typeof startSim>>;
  try {
    sim = await startSim({
      listen: given.listen,
      dir: given.dir ?? ".",
      faults,
      armed: given.armed === true,
      ...(given.autopilot === undefined ? {} : { autopilot: given.autopilot }),
      ...(given.link === undefined ? {} : { link: given.link }),
      ...(given.seed === undefined ? {} : { seed: given.seed }),
    });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
  process.stdout.write(`listening on ${sim.url}\n`);
  const onArm = () => {
    sim.setArmed(!sim.armed);
    process.stdout.write(sim.armed ? "armed\n" : "disarmed\n");
  };
  process.on("SIGUSR1", onArm);
  await new Promise<void>((resolve) => {
    process.once("SIGINT", () => resolve());
    process.once("SIGTERM", () => resolve());
  });
  process.removeListener("SIGUSR1", onArm);
  await sim.close();
  return 0;
}
