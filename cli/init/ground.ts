/** The ground station's configuration: an FTP server with a certificate of its own, and a user with a password for each vehicle. */
import { getNodeValue, parseTree } from "jsonc-parser";
import { randomInt, X509Certificate } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { hostname, networkInterfaces, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { secretTextIn } from "../../core/options.js";
import { certificateFingerprint } from "../../core/net.js";
import { UsageError } from "../config.js";
import { changeConfig, isUntouched, memberText, placeConfig, placeDir, placeFile, withMember } from "../edit-config.js";
import { directoryFor, nextSteps, type Setting, withSecrets } from "./setting.js";
import type { Asker } from "../questions.js";
import { configText } from "./text.js";

/** None of them is taken for another: no 0 O, 1 l I, 5 S, 2 Z, 8 B. */
const letters = "abcdefghijkmnpqrstuvwxyzACDEFGHJKLMNPQRTUVWXY34679";
const passwordLength = 24;
const certificateDays = 7305;
const defaultPort = 2121;

export async function groundStation(setting: Setting, given: readonly string[], open: () => Asker): Promise<number> {
  const { path, force } = setting;
  const there = existsSync(path) ? readFileSync(path, "utf8") : undefined;
  const fresh = there === undefined || force || isUntouched(there);
  const users = fresh ? {} : serverIn(there).users;
  const before = Object.keys(users);
  const asker = open();
  try {
    const wrong = (name: string) =>
      /^\w[\w.-]*$/.test(name) ? undefined : "a vehicle's name has letters, digits, - and . in it, and no blanks";
    for (const name of given)
      if (wrong(name) !== undefined) throw new UsageError(`--vehicle ${JSON.stringify(name)}: ${wrong(name) ?? ""}`);
    const asked = given.length > 0 || before.length > 0 ? given : [await asker.ask("Name of the first vehicle", "plane-1", wrong)];
    const names = [...new Set(asked)];
    // Also for a user whose file is gone, or empty: the server would not start without it.
    const secrets = Object.fromEntries(
      names.flatMap((name) => {
        const credential = credentialOf(users[name] ?? userOf(name));
        return credential === undefined || isFilled(fileOf(setting, credential)) ? [] : [[credential, newPassword()]];
      }),
    );
    const said = fresh ? await writeNew(setting, names, secrets) : await addTo(setting, names, secrets);
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

function newPassword(): string {
  return Array.from({ length: passwordLength }, () => letters[randomInt(letters.length)]).join("");
}

const userOf = (name: string) => ({ password: { credential: name } });

async function writeNew(setting: Setting, names: readonly string[], secrets: Readonly<Record<string, string>>): Promise<string[]> {
  const { path, schema, stateDir, system } = setting;
  const root = system ? "/srv/filesync" : "files";
  const text = configText({
    head: [
      'FileSync on the ground, as "filesync init --ground" made it: an FTP server for the vehicles. docs/ftp-server.md',
      'Another vehicle: "filesync init --ground --vehicle NAME" adds it here. config.ground.example.json has a copy on another disk too.',
    ],
    schema,
    vehicle: hostname(),
    stateDir,
    devices: [],
    routes: [],
    noRoutes: ['What arrives stays where the server keeps it. A route from "ftp" to a device of "devices" copies it on.'],
    services: [
      { name: "ftp", comment: ["Each vehicle sees a directory of its own below root, and nothing else."], value: service(root, names) },
    ],
  });
  return written(setting, secrets, root, async () => {
    const kept = await placeConfig(path, text, { over: existsSync(path) });
    return [`Written: ${path}`, ...(kept === undefined ? [] : [`The one before is ${kept}`])];
  });
}

function service(root: string, names: readonly string[]) {
  return {
    type: "ftp-server",
    listen: `0.0.0.0:${defaultPort}`,
    passivePorts: "30000-30099",
    root,
    tls: { cert: "certs/ftp.crt", key: "certs/ftp.key", required: true },
    users: Object.fromEntries(names.map((name) => [name, userOf(name)])),
  };
}

async function addTo(setting: Setting, names: readonly string[], secrets: Readonly<Record<string, string>>): Promise<string[]> {
  const { path, dir, system } = setting;
  const { service: found, users, services } = serverIn(readFileSync(path, "utf8"));
  const { tls } = (found?.value ?? {}) as { tls?: { cert?: string } };
  // On a copy of a card (deploy-filesync.sh --prepare-image) there is none.
  const own = join(dir, "certs/ftp.crt");
  const made = tls?.cert !== undefined && resolve(dir, tls.cert) === own && !existsSync(own) ? await certificate(setting) : [];
  const news = names.filter((name) => !Object.hasOwn(users, name));
  const old = names
    .filter((name) => Object.hasOwn(users, name))
    .map((name) => {
      const credential = credentialOf(users[name]) ?? "";
      return secrets[credential] === undefined
        ? `${name} is a user already, and stays as it is`
        : `${name} is a user already, but its password was not there any more: ${fileOf(setting, credential)} has a new one, and the one before is good no longer`;
    });
  if (news.length === 0) {
    await withSecrets(setting, secrets, () => Promise.resolve());
    return [...made, ...old, `${path} stays as it is`];
  }
  if (found === undefined) {
    const root = system ? "/srv/filesync" : "files";
    const name = services.includes("ftp") ? "ftp-server" : "ftp";
    return written(setting, secrets, root, async () => {
      await changeConfig(path, (text) => withMember(text, ["services"], name, service(root, news)));
      return [`Added to ${path}: the FTP server, with ${news.join(", ")}`];
    });
  }
  await withSecrets(setting, secrets, () =>
    changeConfig(path, (text) => news.reduce((now, name) => withMember(now, ["services", found.name, "users"], name, userOf(name)), text)),
  );
  return [...made, ...old, `Added to ${path}: ${news.join(", ")}`];
}

/** What the configuration needs beside it comes first: without it, it would be wrong. */
async function written(
  setting: Setting,
  secrets: Readonly<Record<string, string>>,
  root: string,
  write: () => Promise<string[]>,
): Promise<string[]> {
  const made = await certificate(setting);
  const { done: said } = await withSecrets(setting, secrets, write);
  return [...made, ...said, await directoryFor(setting, resolve(setting.dir, root))];
}

/** A key and a certificate of its own, where there are none. */
async function certificate({ dir, owner, view }: Setting): Promise<string[]> {
  const certs = join(dir, "certs");
  const [cert, key] = [join(certs, "ftp.crt"), join(certs, "ftp.key")];
  if (existsSync(cert) && existsSync(key)) return [`The certificate that is there is used: ${cert}`];
  if (existsSync(cert)) throw new UsageError(`${cert} is there without its key ${key}: put the key there, or take the certificate away`);
  const work = await mkdtemp(join(tmpdir(), "filesync-"));
  try {
    const [newCert, newKey] = [join(work, "crt"), join(work, "key")];
    const name = hostname();
    const { code, complaint } = await view.run("openssl", [
      ...[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-sha256",
        "-days",
        String(certificateDays),
      ],
      ...["-subj", `/CN=${name.slice(0, 64)}`, "-addext", `subjectAltName=DNS:${name}`, "-keyout", newKey, "-out", newCert],
    ]);
    if (code !== 0)
      throw new UsageError(
        /ENOENT/.test(complaint)
          ? "openssl is missing, which makes the certificate: sudo apt install openssl"
          : `openssl made no certificate: ${complaint}`,
      );
    await placeDir(certs, 0o750, owner);
    await placeFile(key, await readFile(newKey, "utf8"), 0o640, owner, true);
    await placeFile(cert, await readFile(newCert, "utf8"), 0o644, owner, true);
    return [`Made: ${cert} and its key, for 20 years`];
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

interface Server {
  readonly name: string;
  readonly value: Readonly<Record<string, unknown>>;
}

/** The FTP server of a configuration, and its users. Throws UsageError where it is no JSON. */
function serverIn(text: string): {
  readonly service: Server | undefined;
  readonly users: Readonly<Record<string, unknown>>;
  readonly services: readonly string[];
} {
  const tree = parseTree(text, [], { allowTrailingComma: true });
  const whole = (tree === undefined ? undefined : getNodeValue(tree)) as { services?: Record<string, Record<string, unknown>> } | undefined;
  if (typeof whole !== "object") throw new UsageError('the configuration is no JSON: "filesync check" says where');
  const services = Object.entries(whole.services ?? {});
  const found = services.find(([, { type }]) => type === "ftp-server");
  const users = (found?.[1].users ?? {}) as Record<string, unknown>;
  return {
    service: found === undefined ? undefined : { name: found[0], value: found[1] },
    users,
    services: services.map(([name]) => name),
  };
}

/** The lines for each vehicle's configuration. */
async function forVehicles(setting: Setting, names: readonly string[], secrets: Readonly<Record<string, string>>): Promise<string[]> {
  const { service: found, users } = serverIn(readFileSync(setting.path, "utf8"));
  if (found === undefined) return [];
  const { listen = `0.0.0.0:${defaultPort}`, tls } = found.value as { listen?: string; tls?: { cert?: string } };
  const fingerprint = tls?.cert === undefined ? undefined : await fingerprintOf(resolve(setting.dir, tls.cert));
  const [, host = "", port = String(defaultPort)] = /^(.*):(\d+)$/.exec(listen) ?? [];
  const addresses = /^(0\.0\.0\.0|\[::\]|)$/.test(host) ? ownAddresses() : [host.replace(/^\[(.*)\]$/, "$1")];
  const believing = fingerprint === undefined ? { secure: false } : { secure: true, tls: { fingerprint } };
  const lines = names.flatMap((name) => {
    const device = {
      type: "ftp",
      host: addresses[0] ?? hostname(),
      port: Number(port),
      user: name,
      password: { credential: "ground" },
      ...believing,
    };
    return [
      "",
      `${name}: into "devices" of its config.json (or "filesync init" there asks for the same):`,
      `  ${memberText("ground", device, "  ")}`,
      `into "routes", for each of its sources:`,
      `  { "from": "SOURCE", "to": ["ground"], "into": "{device}" }`,
      `its password, into credentials/ground there: ${passwordOf(setting, name, users[name], secrets)}`,
    ];
  });
  const others = addresses.slice(1);
  return [...lines, ...(others.length === 0 ? [] : ["", `This machine has other addresses too: ${others.join(", ")}`])];
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

async function fingerprintOf(cert: string): Promise<string> {
  return certificateFingerprint(new X509Certificate(await readFile(cert)).raw);
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
