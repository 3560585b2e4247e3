/** `init`: looks at what is plugged in and running, asks few questions, and writes a configuration that works. Nothing is written before the last answer. */
import { existsSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { reasonOf } from "../core/retry.js";
import { parseAddress } from "../plugins/mavftp/address.js";
import { lookAt } from "../plugins/mavftp/look.js";
import { UsageError } from "./config.js";
import { isUntouched, placeConfig } from "./edit-config.js";
import { aboutAutopilot, type Autopilot, findAutopilots, isAnswer, listenOn, type Look } from "./init/autopilots.js";
import { type Disk, findDisks } from "./init/disks.js";
import { groundStation } from "./init/ground.js";
import { configOption, directoryFor, nextSteps, type Setting, settingOf, withSecrets } from "./init/setting.js";
import { askTarget, type Target } from "./init/targets.js";
import { configText, type Part, type RoutePart } from "./init/text.js";
import { unitOf } from "./machine/unit.js";
import { withContext } from "./own.js";
import { type Asker, nobody, terminal, yes } from "./questions.js";
import { packageRoot } from "./version.js";

export interface InitArguments {
  readonly config?: string;
  readonly yes: boolean;
  readonly ground: boolean;
  /** Of a ground station: vehicles register by themselves. */
  readonly registry: boolean;
  readonly vehicles: readonly string[];
  readonly force: boolean;
}

/** How long a port is listened at; a heartbeat comes every second. */
const listenMs = 3300;

export async function initCommand(given: InitArguments): Promise<number> {
  const setting = await settingOf(given.config, given.force);
  const { path } = setting;
  if (!given.yes && !(process.stdin.isTTY && process.stdout.isTTY))
    throw new UsageError("init asks questions, and there is no terminal here: --yes takes the default of each");
  const asker = given.yes ? () => nobody(process.stdout) : () => terminal(process.stdin, process.stdout);
  if (given.ground) return groundStation(setting, given, asker);
  if (given.registry) throw new UsageError("--registry goes with --ground: it is the ground station that has the registry");
  if (given.vehicles.length > 1) throw new UsageError("--vehicle is given twice: a vehicle has one name; several go with --ground");
  if (existsSync(path) && !given.force && !isUntouched(readFileSync(path, "utf8")))
    throw new UsageError(`${path} is there already: --force writes a new one, and keeps this one as ${path}.old`);
  return vehicle(setting, given.vehicles[0], asker);
}

async function vehicle(setting: Setting, named: string | undefined, open: () => Asker): Promise<number> {
  const { view, path } = setting;
  const write = (text: string) => void process.stdout.write(`${text}\n`);
  const unit = setting.system ? await unitOf(setting.view) : undefined;
  if (typeof unit === "object" && unit.ActiveState === "active" && existsSync(path) && !isUntouched(readFileSync(path, "utf8")))
    write(
      `${unit.Id ?? "filesync.service"} runs, and has its ports: what it has is seen once it is stopped (sudo systemctl stop ${(unit.Id ?? "filesync").replace(/\.service$/, "")})`,
    );
  write("Looking at serial ports, programs that pass MAVLink on, and disks …");
  const look = lookHere();
  const [{ autopilots, notes }, disks] = await Promise.all([
    findAutopilots(view, look),
    findDisks(view).catch((error: unknown) => {
      write(`  disks: ${reasonOf(error)}`);
      return [];
    }),
  ]);
  for (const { text, answers } of autopilots) write(`  ${text}${answers?.logs === undefined ? "" : `, its logs are in ${answers.logs}`}`);
  for (const note of notes) write(`  ${note}`);
  for (const { text } of disks) write(`  ${text}`);
  if (autopilots.length + notes.length + disks.length === 0) write("  nothing was found");
  const asker = open();
  try {
    const isName = (answer: string) => (/^\w[\w.-]{0,99}$/.test(answer) ? undefined : "at most 100 letters, digits, - and . are allowed");
    const name = named ?? (await asker.ask("Name of this vehicle", hostname(), isName));
    const wrong = isName(name);
    if (wrong !== undefined) throw new UsageError(`--vehicle ${name}: ${wrong}`);
    const sources = [...(await chooseAutopilots(asker, autopilots, look)).map(asSource), ...(await chooseDisks(asker, disks)).map(asCard)];
    const has = (credential: string) => existsSync(join(setting.dir, "credentials", credential));
    const target = await askTarget({ asker, vehicle: name, config: path, has });
    await writeAll(setting, name, numbered(sources), target, asker);
  } finally {
    asker.close();
  }
  return 0;
}

function lookHere(): Look {
  return (url) => {
    const address = parseAddress(url);
    if (address === undefined) return Promise.resolve({ opened: false, reason: `${url} is no address` });
    const names = { vehicle: hostname(), installation: "00000000" };
    return withContext("autopilot", names, (context) => lookAt(address, context, listenMs));
  };
}

async function chooseAutopilots(asker: Asker, found: readonly Autopilot[], look: Look): Promise<Autopilot[]> {
  const chosen: Autopilot[] = [];
  for (const one of found) {
    // The same autopilot may be heard in several ways: once is enough.
    const byDefault = chosen.length === 0;
    if (await yes(asker, `Take the logs of ${one.text}${byDefault ? "" : " too (if it is another one)"}?`, byDefault)) chosen.push(one);
  }
  if (chosen.length > 0) return chosen;
  const objection = (answer: string) =>
    answer === "" || answer.startsWith("/dev/") || parseAddress(answer) !== undefined
      ? undefined
      : "an address is serial:///dev/serial0:57600, tcpout://HOST:PORT, udpin://HOST:PORT, …";
  const address = await asker.ask(
    "Address of the autopilot, such as serial:///dev/serial0:57600 or tcpout://127.0.0.1:5760 (Enter: none)",
    "",
    objection,
  );
  if (address === "") return [];
  const { url, seen } = address.startsWith("/dev/") ? await listenOn(address, false, look) : { url: address, seen: await look(address) };
  asker.say(
    isAnswer(seen) ? `  ${seen.autopilot} answers there` : `  nobody answers there now (${seen.reason}); it is written all the same`,
  );
  return [{ url, text: url, ...(isAnswer(seen) ? { answers: seen } : {}) }];
}

async function chooseDisks(asker: Asker, disks: readonly Disk[]): Promise<Disk[]> {
  const chosen: Disk[] = [];
  for (const disk of disks) {
    const known = disk.photos === true ? ", which has photos (DCIM)" : "";
    // A stick without photos is more likely what this was installed from.
    if (await yes(asker, `Take the files of ${disk.text}${known}, whenever it is plugged in?`, disk.photos !== false)) chosen.push(disk);
  }
  return chosen;
}

interface Source {
  readonly device: Part;
  readonly route: Readonly<Record<string, unknown>>;
}

function asSource(autopilot: Autopilot): Source {
  // A file that is rewritten at each flight, and says nothing that the logs do not.
  const route = autopilot.answers?.autopilot === "PX4" ? { weight: 10 } : { exclude: ["**/LASTLOG.TXT"], weight: 10 };
  return { device: { name: "autopilot", comment: [aboutAutopilot(autopilot)], value: { type: "mavftp", url: autopilot.url } }, route };
}

function asCard({ uuid, text, label, photos }: Disk): Source {
  const slug = (label ?? "")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-|-$/g, "");
  const value = { type: "disk", uuid, ...(photos === true ? { root: "DCIM" } : {}) };
  return {
    device: { name: slug === "" ? "card" : slug, comment: [`A disk that is plugged and pulled: ${text}. docs/disk.md`], value },
    route: {},
  };
}

/** No two of one name, and none of a target's. */
function numbered(sources: readonly Source[]): Source[] {
  const taken = new Set(["ground", "server", "cloud", "review", "archive"]);
  return sources.map((source) => {
    const { name } = source.device;
    let own = name;
    for (let n = 2; taken.has(own); n++) own = `${name}-${n}`;
    taken.add(own);
    return { ...source, device: { ...source.device, name: own } };
  });
}

async function writeAll(
  setting: Setting,
  name: string,
  sources: readonly Source[],
  target: Target | undefined,
  asker: Asker,
): Promise<void> {
  const { path, stateDir, schema } = setting;
  const routes: RoutePart[] =
    target === undefined
      ? []
      : sources.map(({ device, route }, i) => ({
          comment:
            i === 0
              ? ['Every file is copied, and stays where it was: "afterDelivery" can delete or archive it once its copy is proved.']
              : [],
          value: { from: device.name, to: [target.device.name], ...route, ...target.route },
        }));
  const text = configText({
    head: [
      `FileSync on ${name}, as "filesync init" found it. Every key there is: ${join(packageRoot, "config.example.json")};`,
      `a page for each kind of device: ${join(packageRoot, "docs")}. After a change: "filesync check", then restart or reload the service.`,
    ],
    schema,
    vehicle: name,
    stateDir,
    devices: [...sources.map(({ device }) => device), ...(target === undefined ? [] : [target.device])],
    routes,
    noRoutes: [
      target === undefined
        ? 'Nothing is delivered yet: add a device to "devices" that files are sent to, and here a route from each source to it, such as'
        : 'Nothing is delivered yet: add a source to "devices", and here a route, such as',
      `{ "from": "${sources[0]?.device.name ?? "autopilot"}", "to": ["${target?.device.name ?? "ground"}"] }`,
    ],
  });
  // After the last question: from here on it is done.
  const { fresh, done: kept } = await withSecrets(setting, target?.secrets ?? {}, () =>
    placeConfig(path, text, { over: existsSync(path) }),
  );
  asker.say(`\nWritten: ${path}${fresh.map((file) => `, ${file}`).join("")}`);
  if (kept !== undefined) asker.say(`The one before is ${kept}`);
  if (target?.directory !== undefined) asker.say(await directoryFor(setting, target.directory));
  if (routes.length === 0)
    asker.say(
      `Nothing is delivered yet: ${sources.length === 0 ? "no autopilot or disk was found" : "it is not said where files go"}. What is missing stands in ${path}: write it there; or begin anew, with all plugged in: filesync init --force${configOption(setting)}`,
    );
  for (const line of await nextSteps(setting)) asker.say(line);
}
