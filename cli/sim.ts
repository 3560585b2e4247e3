/** `sim`: a simulated flight controller until SIGINT or SIGTERM; SIGUSR1 arms and disarms it. */
import { existsSync, readFileSync } from "node:fs";
import { codeOf, faultOfErrno } from "../core/errors.js";
import { parseSize } from "../core/options.js";
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
  readonly param?: string | readonly string[];
  readonly cardFree?: string;
  readonly replay?: string;
}

export async function simCommand(given: SimArguments): Promise<number> {
  if (given.listen === undefined) throw new UsageError("sim needs --listen URL, such as tcpin://127.0.0.1:5760");
  const faults = named("fault", given.fault);
  const settings = Object.fromEntries(
    Object.entries(named("param", given.param)).map(([name, value]) => {
      if (value !== "none" && !/^-?\d{1,9}$/.test(value))
        throw new UsageError(`--param ${name}=${value}: expected a whole number, or "none" for one that is not there`);
      return [name, value === "none" ? undefined : Number(value)];
    }),
  );
  const { cardFree } = given;
  const free = cardFree === undefined ? undefined : cardFree === "none" || cardFree === "silent" ? cardFree : parseSize(cardFree);
  if (cardFree !== undefined && free === undefined)
    throw new UsageError(`--card-free ${cardFree}: expected a size such as "4GB", "none" where no card is in, or "silent"`);
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
      settings,
      armed: given.armed === true,
      onText: ({ severity, text, systemId, componentId }) =>
        process.stdout.write(`text from ${systemId}/${componentId}, severity ${severity}: ${text}\n`),
      ...(given.autopilot === undefined ? {} : { autopilot: given.autopilot }),
      ...(given.link === undefined ? {} : { link: given.link }),
      ...(free === undefined ? {} : { cardFree: free }),
      ...(seed === undefined ? {} : { seed }),
      ...(ring === undefined ? {} : { transmitRing: ring }),
      ...(given.replay === undefined ? {} : { replay: textOf(given.replay) }),
    });
  } catch (error) {
    if (codeOf(error) === "EADDRINUSE")
      throw new UsageError(`--listen: another program uses the port of ${given.listen}: stop that, or give another; 0 takes a free one`);
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

/** NAME=VALUE, each name once. */
function named(what: string, given: string | readonly string[] | undefined): Record<string, string> {
  const found: Record<string, string> = {};
  for (const one of given === undefined ? [] : [given].flat()) {
    const at = one.indexOf("=");
    const name = at === -1 ? one : one.slice(0, at);
    if (name in found) throw new UsageError(`${what} ${name} is given twice`);
    found[name] = at === -1 ? "" : one.slice(at + 1);
  }
  return found;
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
