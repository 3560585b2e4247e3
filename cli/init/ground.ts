/** The ground station's configuration: an FTP server with a certificate of its own, and a user with a password for each vehicle; or a registry, with which vehicles register by themselves. */
import { getNodeValue, parseTree } from "jsonc-parser";
import { X509Certificate } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { hostname, networkInterfaces } from "node:os";
import { join, resolve } from "node:path";
import { newCertificate } from "../../core/certificate.js";
import { codeOf, isFault } from "../../core/errors.js";
import { secretTextIn } from "../../core/options.js";
import { fingerprintOf, hostAndPort } from "../../core/net.js";
import { newPassword } from "../../core/password.js";
import { shellWord } from "../../core/text.js";
import { UsageError } from "../config.js";
import { changeConfig, isUntouched, memberText, placeConfig, placeDir, placeFile, withMember } from "../edit-config.js";
import { directoryFor, nextSteps, type Setting, withSecrets } from "./setting.js";
import type { Asker } from "../questions.js";
import { configText } from "./text.js";

const defaultPort = 2121;
const registryPort = 8443;

export interface Ground {
  readonly vehicles: readonly string[];
  /** Vehicles that register by themselves: none has to be named. */
  readonly registry: boolean;
}

export async function groundStation(setting: Setting, { vehicles: given, registry }: Ground, open: () => Asker): Promise<number> {
  const { path, force } = setting;
  const there = existsSync(path) ? readFileSync(path, "utf8") : undefined;
  const fresh = there === undefined || force || isUntouched(there);
  const users = fresh ? {} : stationIn(there).users;
  const before = Object.keys(users);
  const asker = open();
  try {
    const wrong = (name: string) =>
      /^\w[\w.-]*$/.test(name) ? undefined : "a vehicle's name has letters, digits, - and . in it, and no blanks";
    for (const name of given)
      if (wrong(name) !== undefined) throw new UsageError(`--vehicle ${JSON.stringify(name)}: ${wrong(name) ?? ""}`);
    const asked =
      given.length > 0 || before.length > 0 || registry ? given : [await asker.ask("Name of the first vehicle", "plane-1", wrong)];
    const names = [...new Set(asked)];
    // Also for a user whose file is gone, or empty: the server would not start without it.
    const secrets = Object.fromEntries(
      names.flatMap((name) => {
        const credential = credentialOf(users[name] ?? userOf(name));
        return credential === undefined || isFilled(fileOf(setting, credential)) ? [] : [[credential, newPassword()]];
      }),
    );
    const wanted = { names, secrets, registry };
    const said = fresh ? await writeNew(setting, wanted) : await addTo(setting, wanted);
    for (const line of said) asker.say(line);
    for (const line of await forVehicles(setting, names.length > 0 ? names : before, secrets)) asker.say(line);
    asker.say("");
    for (const line of await nextSteps(setting)) asker.say(line);
  } finally {
    asker.close();
  }
  return 0;
}

function fileOf({ dir }: Setting, credential: string): string {
  return join(dir, "credentials", credential);
}

function isFilled(file: string): boolean {
  return existsSync(file) && secretTextIn(file) !== "";
}

/** undefined: the user's password is no credential. */
function credentialOf(user: unknown): string | undefined {
  const { credential } = ((user as { password?: unknown } | null)?.password ?? {}) as { credential?: unknown };
  return typeof credential === "string" && !credential.includes("/") ? credential : undefined;
}

const userOf = (name: string) => ({ password: { credential: name } });

interface Wanted {
  readonly names: readonly string[];
  readonly secrets: Readonly<Record<string, string>>;
  readonly registry: boolean;
}

/** A service as it is written: `root`, the directory that it needs. */
interface NewService {
  readonly name: string;
  readonly comment: readonly string[];
  readonly root: string;
  readonly value: Readonly<Record<string, unknown>>;
  readonly added: string;
}

const certFiles = { cert: "certs/ftp.crt", key: "certs/ftp.key" };

const ftpRoot = ({ system }: Setting) => (system ? "/srv/filesync" : "files");
/** Accounts of vehicles that register. */
const usersFile = ({ stateDir }: Setting) => join(stateDir, "ftp-users.json");

function ftpService(setting: Setting, name: string, { names, registry }: Pick<Wanted, "names" | "registry">): NewService {
  const root = ftpRoot(setting);
  return {
    ...{ name, root },
    comment: [
      "Each vehicle sees a directory of its own below root, and nothing else.",
      ...(registry ? ["The registry below writes the accounts of usersFile: filesync register --ftp, filesync registry password"] : []),
    ],
    value: {
      type: "ftp-server",
      listen: `0.0.0.0:${defaultPort}`,
      passivePorts: "30000-30099",
      root,
      tls: { ...certFiles, required: true },
      ...(names.length > 0 ? { users: Object.fromEntries(names.map((user) => [user, userOf(user)])) } : {}),
      ...(registry ? { usersFile: usersFile(setting) } : {}),
    },
    added: names.length > 0 ? `the FTP server, with ${names.join(", ")}` : "the FTP server",
  };
}

/** `ftp`: with accounts at the FTP server that is made with it. */
function registryService(setting: Setting, name: string, ftp: boolean): NewService {
  const root = setting.system ? "/srv/filesync-vehicles" : "vehicles";
  return {
    ...{ name, root },
    comment: [
      'Vehicles register by themselves ("filesync register" there), and send by rsync. docs/registry.md',
      'Who registers waits for "filesync registry confirm"; with "mail" its owner confirms, by a mail.',
    ],
    value: {
      ...{ type: "registry", listen: `0.0.0.0:${registryPort}`, root, tls: certFiles, door: { listen: "0.0.0.0:2222" } },
      ...(ftp ? { ftp: { usersFile: usersFile(setting), root: ftpRoot(setting), tls: { cert: certFiles.cert } } } : {}),
    },
    added: "the registry of vehicles",
  };
}

async function writeNew(setting: Setting, { names, secrets, registry }: Wanted): Promise<string[]> {
  const { path, schema, stateDir } = setting;
  const services = [ftpService(setting, "ftp", { names, registry }), ...(registry ? [registryService(setting, "registry", true)] : [])];
  const text = configText({
    head: [
      `FileSync on the ground, as "filesync init --ground" made it: an FTP server for the vehicles. docs/ftp-server.md${registry ? " And a registry of vehicles. docs/registry.md" : ""}`,
      'One more vehicle that sends by FTP: "filesync init --ground --vehicle NAME" adds it here. config.ground.example.json has a copy on another disk too.',
    ],
    schema,
    vehicle: hostname(),
    stateDir,
    devices: [],
    routes: [],
    noRoutes: ['What arrives stays where it is kept. A route from "ftp" to a device of "devices" copies it on.'],
    services,
  });
  return written(setting, secrets, services, async () => {
    const kept = await placeConfig(path, text, { over: existsSync(path) });
    return [`Written: ${path}`, ...(kept === undefined ? [] : [`The one before is ${kept}`])];
  });
}

async function addTo(setting: Setting, { names, secrets, registry }: Wanted): Promise<string[]> {
  const { path, dir } = setting;
  const { ftp, registry: known, users, services } = stationIn(readFileSync(path, "utf8"));
  // On a copy of a card (deploy-filesync.sh --prepare-image) there is none.
  const own = join(dir, certFiles.cert);
  const uses = (it: FoundService | undefined) => {
    const { tls } = (it?.value ?? {}) as { tls?: { cert?: string } };
    return tls?.cert !== undefined && resolve(dir, tls.cert) === own;
  };
  const made = (uses(ftp) || uses(known)) && !existsSync(own) ? await certificate(setting) : [];
  // Its fingerprint is what vehicles are told: better known before anything is changed.
  for (const it of [ftp, known]) if (it !== undefined) await placeOf(setting, it, 0);
  const news = names.filter((name) => !Object.hasOwn(users, name));
  const old = names
    .filter((name) => Object.hasOwn(users, name))
    .map((name) => {
      const credential = credentialOf(users[name]) ?? "";
      return secrets[credential] === undefined
        ? `${name} is a user already, and stays as it is`
        : `${name} is a user already, but its password was not there any more: ${fileOf(setting, credential)} has a new one, and the one before is good no longer`;
    });
  if (registry && known !== undefined) old.push("the registry is there already, and stays as it is");
  const free = (name: string, other: string) => (services.includes(name) ? other : name);
  // An FTP server that is there stays as it is: docs/registry.md says what joins the two.
  const joined = registry && known === undefined && ftp === undefined;
  const fresh = [
    ...(ftp === undefined && (news.length > 0 || joined)
      ? [ftpService(setting, free("ftp", "ftp-server"), { names: news, registry: joined })]
      : []),
    ...(registry && known === undefined ? [registryService(setting, free("registry", "vehicle-registry"), joined)] : []),
  ];
  const newUsers = ftp === undefined ? [] : news;
  if (fresh.length === 0 && newUsers.length === 0) {
    await withSecrets(setting, secrets, () => Promise.resolve());
    return [...made, ...old, `${path} stays as it is`];
  }
  const change = (text: string) => {
    const withUsers = newUsers.reduce((now, name) => withMember(now, ["services", ftp?.name ?? "", "users"], name, userOf(name)), text);
    return fresh.reduce((now, { name, value }) => withMember(now, ["services"], name, value), withUsers);
  };
  const added = `Added to ${path}: ${[...newUsers, ...fresh.map((it) => it.added)].join(", ")}`;
  const write = async () => {
    await changeConfig(path, change);
    return [added];
  };
  if (fresh.length > 0) return [...made, ...old, ...(await written(setting, secrets, fresh, write))];
  const { done } = await withSecrets(setting, secrets, write);
  return [...made, ...old, ...done];
}

/** What the configuration needs beside it comes first: without it, it would be wrong. */
async function written(
  setting: Setting,
  secrets: Readonly<Record<string, string>>,
  services: readonly NewService[],
  write: () => Promise<string[]>,
): Promise<string[]> {
  const made = await certificate(setting);
  const { done: said } = await withSecrets(setting, secrets, write);
  const dirs: string[] = [];
  for (const { root } of services) dirs.push(await directoryFor(setting, resolve(setting.dir, root)));
  return [...made, ...said, ...dirs];
}

/** A key and a certificate of its own, where there are none. */
async function certificate({ dir, owner, view }: Setting): Promise<string[]> {
  const certs = join(dir, "certs");
  const [cert, key] = [join(dir, certFiles.cert), join(dir, certFiles.key)];
  if (existsSync(cert) && existsSync(key)) return [`The certificate that is there is used: ${cert}`];
  if (existsSync(cert)) throw new UsageError(`${cert} is there without its key ${key}: put the key there, or take the certificate away`);
  const made = await newCertificate(view.run, hostname()).catch((error: unknown) => {
    throw isFault(error, "config") ? new UsageError(error.message) : error;
  });
  await placeDir(certs, 0o750, owner);
  await placeFile(key, made.key, 0o640, owner, true);
  await placeFile(cert, made.cert, 0o644, owner, true);
  return [`Made: ${cert} and its key, for 20 years`];
}

interface FoundService {
  readonly name: string;
  readonly value: Readonly<Record<string, unknown>>;
}

/** What a configuration has of a ground station. Throws UsageError where it is no JSON. */
function stationIn(text: string): {
  readonly ftp: FoundService | undefined;
  readonly registry: FoundService | undefined;
  /** Of the FTP server. */
  readonly users: Readonly<Record<string, unknown>>;
  readonly services: readonly string[];
} {
  const tree = parseTree(text, [], { allowTrailingComma: true });
  const whole = (tree === undefined ? undefined : getNodeValue(tree)) as { services?: Record<string, Record<string, unknown>> } | undefined;
  if (typeof whole !== "object") throw new UsageError('the configuration is no JSON: "filesync check" says where');
  const services = Object.entries(whole.services ?? {}).map(([name, value]) => ({ name, value }));
  const ofType = (type: string) => services.find(({ value }) => value["type"] === type);
  const ftp = ofType("ftp-server");
  return {
    ftp,
    registry: ofType("registry"),
    users: (ftp?.value["users"] ?? {}) as Record<string, unknown>,
    services: services.map(({ name }) => name),
  };
}

/** The lines for each vehicle's configuration, and what is typed on those that register. */
async function forVehicles(setting: Setting, names: readonly string[], secrets: Readonly<Record<string, string>>): Promise<string[]> {
  const { ftp, registry, users } = stationIn(readFileSync(setting.path, "utf8"));
  const lines: string[] = [];
  const others = new Set<string>();
  if (ftp !== undefined && names.length > 0) {
    const { address, port, fingerprint, more } = await placeOf(setting, ftp, defaultPort);
    const believing = fingerprint === undefined ? { secure: false } : { secure: true, tls: { fingerprint } };
    for (const name of names) {
      const device = { type: "ftp", host: address, port, user: name, password: { credential: "ground" }, ...believing };
      lines.push(
        "",
        `${name}: into "devices" of its config.json (or "filesync init" there asks for the same):`,
        `  ${memberText("ground", device, "  ")}`,
        `into "routes", for each of its sources:`,
        `  { "from": "SOURCE", "to": ["ground"], "into": "{device}" }`,
        `its password, into credentials/ground there: ${passwordOf(setting, name, users[name], secrets)}`,
      );
    }
    for (const it of more) others.add(it);
  }
  if (registry !== undefined) {
    const { address, port, fingerprint, more } = await placeOf(setting, registry, registryPort);
    const [sudo, named] = setting.system ? ["sudo ", ""] : ["", ` --config ${shellWord(setting.path)}`];
    const {
      publicUrl,
      mail,
      proxy,
      ftp: ftpAccounts,
    } = registry.value as { publicUrl?: string; mail?: unknown; proxy?: boolean; ftp?: unknown };
    const server = publicUrl ?? `${proxy === true ? "http" : "https"}://${hostAndPort(address, port)}`;
    lines.push(
      "",
      `On each vehicle that shall register (rsync and ssh have to be installed there${ftpAccounts === undefined ? "" : "; with --ftp it sends by FTP"}):`,
      `  sudo filesync register --server ${server}${fingerprint === undefined ? "" : ` --fingerprint ${fingerprint}`} --email YOU@EXAMPLE.ORG --vehicle NAME`,
      ...(mail === undefined
        ? ["and here, once it waits:", ...["list", "confirm REGISTRATION"].map((words) => `  ${sudo}filesync registry ${words}${named}`)]
        : ["and its owner presses the button on the page that the mail leads to."]),
    );
    for (const it of more) others.add(it);
  }
  return [...lines, ...(others.size === 0 ? [] : ["", `This machine has other addresses too: ${[...others].join(", ")}`])];
}

/** Where vehicles reach a service, and what they know it by; `more`: this machine's other addresses. */
async function placeOf({ dir }: Setting, { value }: FoundService, usualPort: number) {
  const { listen = `0.0.0.0:${usualPort}`, tls } = value as { listen?: string; tls?: { cert?: string } };
  const [, host = "", port = String(usualPort)] = /^(.*):(\d+)$/.exec(listen) ?? [];
  const [address = hostname(), ...more] = /^(0\.0\.0\.0|\[::\]|)$/.test(host) ? ownAddresses() : [host.replace(/^\[(.*)\]$/, "$1")];
  return {
    address,
    more,
    port: Number(port),
    fingerprint: tls?.cert === undefined ? undefined : await certificateFingerprintOf(resolve(dir, tls.cert)),
  };
}

/** In words, where it is not one of `secrets`. */
function passwordOf(setting: Setting, name: string, user: unknown, secrets: Readonly<Record<string, string>>): string {
  const credential = credentialOf(user);
  if (credential === undefined) return `the one that ${setting.path} has, or whose hash it has`;
  const made = secrets[credential];
  if (made !== undefined) return made;
  const file = fileOf(setting, credential);
  return isFilled(file)
    ? `what ${file} has here`
    : `${file} is ${existsSync(file) ? "empty" : "missing"} here, and without it the server does not start: put it back, or "filesync init --ground --yes --vehicle ${name}" makes a new one`;
}

async function certificateFingerprintOf(cert: string): Promise<string> {
  try {
    return fingerprintOf(new X509Certificate(await readFile(cert)).raw);
  } catch (error) {
    const why = codeOf(error) === "ENOENT" ? "is not there" : `cannot be read (${error instanceof Error ? error.message : String(error)})`;
    throw new UsageError(`${cert}, the certificate that vehicles are to believe, ${why}: put it there, or mend "tls"; nothing was changed`);
  }
}

/** Where vehicles may reach this machine: IPv4 first. */
function ownAddresses(): string[] {
  // What leads to containers of this machine is nothing to a vehicle.
  const outside = Object.entries(networkInterfaces()).filter(([name]) => !/^(docker|br-|veth|virbr|lxc)/.test(name));
  const all = outside.flatMap(([, one]) => one ?? []);
  const outer = all.filter(({ internal, address }) => !internal && !address.startsWith("fe80:"));
  return [...outer.filter(({ family }) => family === "IPv4"), ...outer.filter(({ family }) => family === "IPv6")].map(
    ({ address }) => address,
  );
}
