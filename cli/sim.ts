/** `sim`: a simulated flight controller until SIGINT or SIGTERM; SIGUSR1 arms and disarms it. */
import { existsSync, readFileSync } from "node:fs";
import { faultOfErrno } from "../core/errors.js";
import { startSim } from "../sim/sim.js";
import { UsageError } from "./config.js";

export interface SimArguments {
  readonly listen?: string;
  readonly dir?: string;
  readonly autopilot?: string;
  readonly link?: string;
  readonly fault?: string | readonly string[];
  readonly seed?: string;
  readonly armed?: boolean;
  readonly ring?: string;
  readonly replay?: string;
}

export async function simCommand(given: SimArguments): Promise<number> {
  if (given.listen === undefined) throw new UsageError("sim needs --listen URL, such as tcpin://127.0.0.1:5760");
  const faults: Record<string, string> = {};
  for (const fault of given.fault === undefined ? [] : [given.fault].flat()) {
    const at = fault.indexOf("=");
    const name = at === -1 ? fault : fault.slice(0, at);
    if (name in faults) throw new UsageError(`fault ${name} is given twice`);
    faults[name] = at === -1 ? "" : fault.slice(at + 1);
  }
  const ring = wholeNumber(given.ring, "--ring: expected bytes, 280 at least", 280);
  const seed = wholeNumber(given.seed, "--seed: expected a whole number", 0);
  const { dir = "." } = given;
  if (!existsSync(dir)) throw new UsageError(`--dir: there is no directory ${dir}`);
  let sim: Awaited<ReturnType<typeof startSim>>;
  try {
    sim = await startSim({
      listen: given.listen,
      dir,
      faults,
      armed: given.armed === true,
      onText: ({ severity, text, systemId, componentId }) =>
        process.stdout.write(`text from ${systemId}/${componentId}, severity ${severity}: ${text}\n`),
      ...(given.autopilot === undefined ? {} : { autopilot: given.autopilot }),
      ...(given.link === undefined ? {} : { link: given.link }),
      ...(seed === undefined ? {} : { seed }),
      ...(ring === undefined ? {} : { transmitRing: ring }),
      ...(given.replay === undefined ? {} : { replay: textOf(given.replay) }),
    });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
  const onArm = () => {
    sim.setArmed(!sim.armed);
    process.stdout.write(sim.armed ? "armed\n" : "disarmed\n");
  };
  process.on("SIGUSR1", onArm);
  const stopped = new Promise<void>((resolve) => {
    process.once("SIGINT", () => resolve());
    process.once("SIGTERM", () => resolve());
  });
  // Whoever met something there can have it again.
  if (Object.keys(faults).length > 0) process.stderr.write(`faults are drawn from seed ${seed ?? 1}\n`);
  // Only now: whoever reads it may send a signal at once.
  process.stdout.write(`listening on ${sim.url}\n`);
  await stopped;
  process.removeListener("SIGUSR1", onArm);
  await sim.close();
  return 0;
}

function wholeNumber(text: string | undefined, wanted: string, least: number): number | undefined {
  if (text === undefined) return undefined;
  const number = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(number) || number < least)
    throw new UsageError(`${wanted}, got ${JSON.stringify(text)}`);
  return number;
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new UsageError(faultOfErrno(error, `cannot read ${path}`).message);
  }
}
