/** `check`: what is wrong with a configuration; with `--probe` each device and service is tried, without changing anything. */
import { readFileSync } from "node:fs";
import type { Config, Loaded } from "../core/config.js";
import type { ConfigProblem } from "../core/config-problems.js";
import { reasonOf } from "../core/retry.js";
import { load, problemLines, stateDirProblem, systemConfig, UsageError } from "./config.js";
import { barredFrom, dirOf, unreadable } from "./machine/rights.js";
import { unwritableText } from "./machine/state-dir.js";
import { daemonUser, hiddenText, unitOf } from "./machine/unit.js";
import { thisView } from "./machine/view.js";
import { learnedOf } from "./offline.js";
import { tryOut } from "./probe.js";

interface Probed {
  readonly name: string;
  readonly works: boolean;
  readonly said: string;
}

/** Exit code 0, or 2 when something is wrong. `json`: one line that says too whether anything of it can be used. */
export async function checkCommand(path: string, options: { probe: boolean; json: boolean }): Promise<number> {
  const loaded = await load(path).catch((error: unknown): Pick<Loaded, "config" | "problems"> => {
    if (!options.json || !(error instanceof UsageError)) throw error;
    return { problems: [{ line: 0, path: "", message: error.message }] };
  });
  const { config } = loaded;
  const barred = config === undefined ? [] : await unreadableFor(path, config.stateDir);
  const unusable =
    config === undefined
      ? undefined
      : (stateDirProblem(path, config.stateDir) ??
        barred.find(({ file }) => file === path) ??
        (options.probe ? await unwritableFor(path, config.stateDir) : undefined));
  const problems = [...loaded.problems, ...(unusable === undefined || "file" in unusable ? [] : [unusable]), ...barred];
  const probing = config !== undefined && options.probe ? probes(config, path) : undefined;
  const probed: Probed[] = [];
  const say = (line: string) => options.json || process.stdout.write(`${line}\n`);
  problemLines(path, { problems }).forEach(say);
  for await (const one of probing ?? []) {
    probed.push(one);
    say(`${one.name}: ${one.said}`);
  }
  const wrong = problems.length > 0 || probed.some(({ works }) => !works);
  if (!wrong) say(`${path}: nothing is wrong`);
  if (options.json)
    process.stdout.write(
      `${JSON.stringify({ usable: config !== undefined && unusable === undefined, problems, ...(probing === undefined ? {} : { probed }) })}\n`,
    );
  return wrong ? 2 : 0;
}

/** What the service of this machine could not read, where root asks, who may read all. */
async function unreadableFor(path: string, stateDir: string): Promise<(ConfigProblem & { readonly file: string })[]> {
  const view = thisView();
  if (path !== systemConfig || view.me.uid !== 0) return [];
  const user = daemonUser(view, await unitOf(view), { dir: stateDir, runs: false });
  return unreadable(view, path, readFileSync(path, "utf8"), user).map(({ path: file, words, todo }) => ({
    ...{ file, line: 0, path: "", message: `${file === path ? "" : `${file}: `}${words}: ${todo}` },
  }));
}

/** What the daemon could not begin with. A configuration of another place is run by hand. */
async function unwritableFor(path: string, stateDir: string): Promise<ConfigProblem | undefined> {
  const view = thisView();
  const user = daemonUser(view, path === systemConfig ? await unitOf(view) : undefined, { dir: stateDir, runs: false });
  return stateDirProblem(path, stateDir, await unwritableText(view, stateDir, user));
}

async function* probes(config: Config, path: string): AsyncGenerator<Probed> {
  const view = thisView();
  const unit = await unitOf(view);
  const user = daemonUser(view, unit, { dir: config.stateDir, runs: false });
  const learned = await learnedOf(config.devices, config);
  for (const device of config.devices) {
    const hidden = path === systemConfig ? hiddenText(unit, dirOf(device)) : undefined;
    const barred = barredFrom(view, device, config, user);
    const why = hidden ?? (barred === undefined ? undefined : `${barred.words}: ${barred.todo}`);
    const { name } = device;
    yield why !== undefined
      ? { name, works: false, said: why }
      : await tryOut(device, config, learned).then(
          (said) => ({ name, works: true, said }),
          (error: unknown) => ({ name, works: false, said: reasonOf(error) }),
        );
  }
}
