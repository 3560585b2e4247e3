/** `register`: this vehicle gets known to a ground station's registry, and a device and routes that send to it. Whatever ends it, the same command goes on where it was. */
import { existsSync } from "node:fs";
import { dirname, relative } from "node:path";
import { hostname } from "node:os";
import { RealClock } from "../core/clock.js";
import type { Config, DeviceConfig } from "../core/config.js";
import { codeOf, Fault, faultOfErrno, isFault, textOfErrno } from "../core/errors.js";
import { installationIn, installationOf, lockStateDir, machineName, StateDirHeld } from "../core/installation.js";
import { mayWriteIn } from "../core/fs.js";
import { parseFingerprint } from "../core/net.js";
import { reasonOf } from "../core/retry.js";
import { shellWord } from "../core/text.js";
import { Problem, RegistryClient } from "../plugins/apsync/client.js";
import { keyFileIn, madeForAnother, newKey, readKey } from "../plugins/apsync/key.js";
import type { ApsyncOptions } from "../plugins/apsync/options.js";
import { email as emailSchema, type Access, vehicleName } from "../plugins/registry/wire.js";
import * as v from "valibot";
import { interruptible } from "./ask.js";
import { load, problemLines, UsageError } from "./config.js";
import { changeConfig, type Owner, ownerIn, placeDir, placeFile, withItems, withMember, withSetting } from "./edit-config.js";
import { nextSteps, settingOf } from "./init/setting.js";
import { asOwnerOf } from "./machine/as-owner.js";
import { confirmed } from "./confirmation.js";
import { renewKey } from "./new-key.js";
import { type Asker, nobody, terminal, yes } from "./questions.js";
import { expectPlace, ftpDevice, keepPassword, rewriteFtp } from "./register-ftp.js";

export interface RegisterOptions {
  readonly config?: string;
  readonly server?: string;
  readonly email?: string;
  readonly vehicle?: string;
  readonly fingerprint?: string;
  readonly device?: string;
  readonly from?: string | string[];
  readonly ftp?: boolean;
  readonly renew?: boolean;
}

export const timeoutMs = 30_000;

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const takenByReload = "A daemon that runs takes it once it is started anew, or reads its configuration again (SIGHUP).";

export async function registerCommand(config: string, options: RegisterOptions): Promise<number> {
  const { server, email, vehicle, from } = asked(options);
  const usable = await wholeConfig(config);
  const name = options.device ?? "station";
  await expectChangeable(config);
  // The same command again, of a vehicle that sends by FTP: it gets another password.
  const before = options.ftp === true ? usable.devices.find((it) => it.name === name && it.plugin.type === "ftp") : undefined;
  const again = options.ftp === true ? undefined : stationCalled(usable, name, server);
  const sources = before === undefined && again === undefined ? sourcesOf(usable, from, name) : [];
  const installation = await installationFor(usable.stateDir, ownerIn(dirname(config)));
  // One whose device is lost, and whose key is there, is known by that.
  if (options.renew === true && before === undefined && !existsSync(keyFileIn(dirOf(usable.stateDir, name), installation)))
    throw new UsageError(`--renew: the configuration has no device "${name}" that sends by FTP: "filesync register --ftp" without it`);
  const isOwn = again !== undefined && madeForAnother(again.privateKey, installation) === undefined && existsSync(again.privateKey);
  const keyFile = isOwn ? again.privateKey : await keyOf(usable, name, installation, options.renew !== true);
  const believed = options.fingerprint === undefined ? again?.tls : undefined;
  const fingerprint = believed === undefined ? await trusted(server, options) : undefined;
  const tls = believed ?? { fingerprint: fingerprint === undefined ? undefined : parseFingerprint(fingerprint) };
  const client = new RegistryClient({ url: server, tls, timeout: timeoutMs }, new RealClock(), () => readKey(keyFile));
  const place = before === undefined ? undefined : { config, device: before, server };
  const renew = renewingFtp(options, { server, email, vehicle: vehicle ?? usable.vehicle });
  const proposed = called(vehicle ?? usable.vehicle);
  try {
    const { access, ftp } = await interruptible(async (signal) => {
      // Before anybody is asked to confirm what would lead nowhere.
      if (options.ftp === true && (await client.about(signal)).ftp !== true)
        throw new UsageError(
          'the station gives vehicles no accounts at an FTP server, and nothing was registered: its operator adds "ftp" to the registry (docs/registry.md); or register without --ftp',
        );
      if (options.renew === true) {
        const owner = { email, vehicle: vehicle ?? usable.vehicle };
        await renewKey({ url: server, tls, timeout: timeoutMs }, keyFile, owner, signal);
      }
      if (again !== undefined) await expectNew(client, name, isOwn ? again : undefined, tls.fingerprint, signal);
      if (place !== undefined) await expectPlace(client, place, { vehicle: proposed.vehicle, renew }, signal);
      const key = await readKey(keyFile);
      say(`This vehicle's key has the fingerprint ${key.fingerprint}`);
      const first = await client.register({ email, ...proposed }, signal);
      const access = await confirmed(client, first, email, signal);
      return { access, ftp: options.ftp === true ? await client.ftpPassword(signal) : undefined };
    });
    // The station has it nowhere: it is kept before anything can go wrong.
    const secret = ftp === undefined ? undefined : await keepPassword(usable.stateDir, dirOf(usable.stateDir, name), ftp);
    if (place !== undefined && ftp !== undefined && secret !== undefined) {
      await rewriteFtp(place, ftp, secret, besides(config, secret));
      const isAnew = (place.device.options as { user?: string }).user !== ftp.user;
      if (isAnew) say(`Registered as ${access.vehicleId} ("${access.vehicle}"): the device "${name}" and its routes stay.`);
      else say(`${ftp.user} has a new password, and the one before has ended.`);
      say(takenByReload);
      for (const line of await nextSteps(await settingOf(config))) say(line);
      return 0;
    }
    if (again !== undefined) {
      const own = isOwn ? {} : { privateKey: besides(config, keyFile) };
      const isChanged = await rewrite(config, name, { ...deviceFor(server, fingerprint, access), ...own });
      if (isChanged) say(`Written to ${config}, the device "${name}", as the station says it now.`);
      say(`Registered as ${access.vehicleId} ("${access.vehicle}"): the device "${name}" and its routes stay.`);
      if (isChanged) say(takenByReload);
      for (const line of await nextSteps(await settingOf(config))) say(line);
      if (!isChanged) say(`A daemon that runs: filesync retry ${shellWord(name)}`);
      return 0;
    }
    const device =
      ftp === undefined || secret === undefined
        ? { ...deviceFor(server, fingerprint, access), privateKey: besides(config, keyFile) }
        : ftpDevice(server, ftp, besides(config, secret));
    await write(config, name, device, sources);
    say(`Registered as ${access.vehicleId} ("${access.vehicle}").`);
    if (ftp !== undefined && ftp.tls === undefined)
      say("The station's FTP server has no TLS: the password and all files go in clear, unless the way there is safe by itself.");
    say(`Written to ${config}: the device "${name}", and a route to it from ${sources.map(({ name: it }) => it).join(", ")}.`);
    for (const line of await nextSteps(await settingOf(config))) say(line);
    return 0;
  } catch (error) {
    if (isFault(error, "aborted")) {
      say("Stopped. The registration goes on: the same command waits for it again.");
      return 130;
    }
    if (options.ftp === true && error instanceof Problem && error.code === "revoked")
      throw new UsageError(`this key was revoked. Its owner is asked for a new one by: ${renew}`);
    const clear = server.startsWith("http:") && isFault(error, "offline", "transient") ? "; a station with TLS is asked by https://" : "";
    throw isFault(error) ? new UsageError(`${reasonOf(error)}${clear}`) : error;
  } finally {
    client.close();
  }
}

/** What is typed for a new key of a vehicle that sends by FTP. */
function renewingFtp(
  { fingerprint, device, config }: RegisterOptions,
  { server, email, vehicle }: { readonly server: string; readonly email: string; readonly vehicle: string },
): string {
  const all = Object.entries({ server, email, vehicle, fingerprint, device, config });
  const words = all.flatMap(([key, value]) => (value === undefined ? [] : [`--${key}`, shellWord(value)]));
  return ["filesync register --renew --ftp", ...words].join(" ");
}

/** Throws UsageError with all that is missing or wrong. */
function asked(options: RegisterOptions): { server: string; email: string; vehicle: string | undefined; from: readonly string[] } {
  const wrong: string[] = [];
  const server = options.server?.replace(/\/$/, "");
  if (server === undefined) wrong.push("--server URL is missing: the station, such as https://ground.example.org:8443");
  else if (!/^https?:\/\/[^/?#@\s]+$/.test(server) || !URL.canParse(server))
    wrong.push(
      `--server ${server}: a URL with a host and no path is expected${/:\d{5,}$/.test(server) ? ", and a port up to 65535" : ""}, such as https://ground.example.org:8443`,
    );
  const { email, vehicle } = options;
  if (email === undefined) wrong.push("--email ADDRESS is missing: who owns the vehicle");
  wrong.push(...wrongNames(options));
  if (options.device !== undefined && !/^[A-Za-z0-9][\w.-]*$/.test(options.device))
    wrong.push(`--device ${JSON.stringify(options.device)}: a name has letters, digits, _ . and - in it`);
  if (options.fingerprint !== undefined && parseFingerprint(options.fingerprint) === undefined)
    wrong.push(`--fingerprint ${options.fingerprint}: a SHA-256 fingerprint is expected, "SHA256:…" or hexadecimal`);
  if (server === undefined || email === undefined || wrong.length > 0) throw new UsageError(wrong.join("\n"));
  return { server, email, vehicle, from: [options.from ?? []].flat() };
}

/** Of the owner and the vehicle, as far as they are given. */
export function wrongNames({ email, vehicle }: Pick<RegisterOptions, "email" | "vehicle">): string[] {
  const isNone = (schema: v.GenericSchema, given: string | undefined) => given !== undefined && !v.safeParse(schema, given).success;
  return [
    ...(isNone(emailSchema, email) ? [`--email ${email ?? ""}: is no e-mail address`] : []),
    ...(isNone(vehicleName, vehicle)
      ? [`--vehicle ${JSON.stringify(vehicle)}: letters, digits, spaces and . _ - between them, at most 64`]
      : []),
  ];
}

/** A name that is none of a vehicle is left out: the registry makes one. */
export const called = (vehicle: string) => (v.safeParse(vehicleName, vehicle).success ? { vehicle } : {});

/** Before anybody is asked to confirm. Throws UsageError. */
export async function expectChangeable(config: string): Promise<void> {
  await mayWriteIn(dirname(config)).catch((error: unknown) => {
    const { message } = faultOfErrno(error, `${config} cannot be changed`);
    throw new UsageError(`${message}${codeOf(error) === "EROFS" ? "" : `; as root (sudo), or as who may write in ${dirname(config)}`}`);
  });
}

/** It is going to be changed: nothing may be wrong with it. Throws UsageError. */
export async function wholeConfig(path: string): Promise<Config> {
  const { config, problems } = await load(path, "unread");
  if (config === undefined || problems.length > 0) throw new UsageError(problemLines(path, { problems }).join("\n"));
  return config;
}

/** The device of that name, where it is for that station. Throws UsageError where it is for another. */
function stationCalled({ devices }: Config, name: string, server: string): ApsyncOptions | undefined {
  const found = devices.find((it) => it.name === name && it.plugin.type === "apsync");
  if (found === undefined) return undefined;
  const given = found.options as ApsyncOptions;
  if (new URL(given.url).origin === new URL(server).origin) return given;
  throw new UsageError(`the configuration has a device "${name}" already, for ${given.url}: name the new one with --device`);
}

/**
 * A device that is there is registered again where the station does not know it (it was taken away there, or the registry was lost), and written again where what is written is not what the
 * station says, as after a run that was ended between the two, or where the station has another certificate. Throws UsageError with what to do else.
 */
async function expectNew(
  client: RegistryClient,
  device: string,
  given: ApsyncOptions | undefined,
  fingerprint: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const known = await client.vehicle(signal).catch((error: unknown) => {
    if (error instanceof Problem && error.code === "unknown-key") return undefined;
    throw error;
  });
  if (known === undefined) {
    say("The station does not know this vehicle's key: it is registered anew.");
    return;
  }
  const isWritten =
    given?.station === known.station &&
    given.tls.fingerprint === fingerprint &&
    given.port === known.port &&
    given.user === known.user &&
    given.hostKey === parseFingerprint(known.hostKey);
  if (isWritten)
    throw new UsageError(
      `this vehicle is registered already, as ${known.vehicleId} ("${known.vehicle}"), by the device "${device}": name a new one with --device`,
    );
}

/** What shall send to it. Throws UsageError. */
function sourcesOf({ devices }: Config, from: readonly string[], name: string): readonly DeviceConfig[] {
  if (devices.some((it) => it.name === name))
    throw new UsageError(`the configuration has a device "${name}" already, of another type: name the new one with --device`);
  const readable = devices.filter(({ plugin }) => plugin.roles.includes("source"));
  const unknown = from.find((it) => !readable.some((source) => source.name === it));
  const there = readable.length === 0 ? "it has none" : `there are: ${readable.map((it) => it.name).join(", ")}`;
  if (unknown !== undefined) throw new UsageError(`--from ${unknown}: the configuration has no source of that name; ${there}`);
  const chosen =
    from.length > 0
      ? readable.filter((it) => from.includes(it.name))
      : readable.filter(({ kind, plugin }) => kind === "device" && plugin.type !== "post");
  if (chosen.length === 0)
    throw new UsageError('the configuration has no device that files could come from: add one first ("filesync init")');
  return chosen;
}

/** The id that the daemon has, or will have. */
export async function installationFor(stateDir: string, configs: Owner | undefined): Promise<string> {
  try {
    // As root: what is made belongs to whose the directory is, or will be.
    await placeDir(stateDir, 0o750, configs);
    return await asOwnerOf(stateDir, async () => {
      const lock = await lockStateDir(stateDir);
      try {
        return (await installationOf(stateDir, machineName(ownerIn(stateDir)?.uid))).id;
      } finally {
        lock.release();
      }
    });
  } catch (error) {
    const known = error instanceof StateDirHeld ? await installationIn(stateDir) : undefined;
    if (known !== undefined) return known;
    throw new UsageError(
      `${textOfErrno(error, `the state directory ${stateDir} cannot be used`)}; run this as the daemon's user, or as root`,
    );
  }
}

/** Where a device keeps what is its own. */
const dirOf = (stateDir: string, device: string): string => `${stateDir}/devices/${device}`;

/** The file of the key, in its directory. `make`: for the daemon's user alone where there is none. */
export async function keyOf({ stateDir }: Config, device: string, installation: string, make: boolean): Promise<string> {
  const dir = dirOf(stateDir, device);
  const file = keyFileIn(dir, installation);
  return asOwnerOf(stateDir, async () => {
    const owner = ownerIn(stateDir);
    await placeDir(dirname(dir), 0o750, owner);
    await placeDir(dir, 0o750, owner);
    if (make && !existsSync(file)) await placeFile(file, newKey(`filesync ${hostname()}`), 0o600, owner, false);
    return file;
  });
}

/** The certificate to pin: the one that was given, or one that a person at the terminal compares; undefined where the system believes it. */
async function trusted(server: string, { fingerprint }: RegisterOptions): Promise<string | undefined> {
  if (fingerprint !== undefined) return fingerprint;
  if (server.startsWith("http:")) {
    say("The station is asked without TLS: what is said can be read and changed on the way, unless that way is safe by itself.");
    return undefined;
  }
  const probe = new RegistryClient({ url: server, tls: {}, timeout: timeoutMs }, new RealClock(), () =>
    Promise.reject(new Fault("denied", "no key")),
  );
  try {
    const signal = AbortSignal.timeout(timeoutMs);
    try {
      await probe.station(signal);
      return undefined;
    } catch (error) {
      if (!isFault(error, "denied")) throw error;
    }
    const shown = (await probe.certificate(signal))?.fingerprint ?? "";
    const asker: Asker = process.stdin.isTTY && process.stdout.isTTY ? terminal(process.stdin, process.stdout) : nobody(process.stdout);
    try {
      say(`The station's certificate is its own. Its fingerprint is\n  ${shown}\nThe station's operator sees the same in its log.`);
      if (asker.answers && (await yes(asker, "Is it the same?", false))) return shown;
    } finally {
      asker.close();
    }
    throw new UsageError(`nothing was registered: with the right fingerprint this goes on: --fingerprint ${shellWord(shown)}`);
  } catch (error) {
    throw isFault(error) ? new UsageError(reasonOf(error)) : error;
  } finally {
    probe.close();
  }
}

function deviceFor(
  server: string,
  fingerprint: string | undefined,
  { station, host, port, user, hostKey }: Access,
): Record<string, unknown> {
  return {
    type: "apsync",
    url: server,
    ...(fingerprint === undefined ? {} : { tls: { fingerprint } }),
    station,
    ...(host === undefined ? {} : { host }),
    ...{ port, user, hostKey },
  };
}

/** As the configuration names a file: from its own directory where that is below it. */
export function besides(config: string, file: string): string {
  const path = relative(dirname(config), file);
  return path.startsWith("..") ? file : path;
}

/** Of a device that is there: only what the station says of itself. Whether that is something else than before. */
async function rewrite(config: string, name: string, device: Readonly<Record<string, unknown>>): Promise<boolean> {
  let isChanged = false;
  await changeConfig(config, (text) => {
    // What else is said of whom it believes is a person's.
    const settings = Object.entries(device).flatMap(([key, value]): [readonly string[], string, unknown][] =>
      key === "tls" ? Object.entries(value as object).map(([of, it]) => [["tls"], of, it]) : [[[], key, value]],
    );
    const now = settings.reduce((all, [of, key, value]) => withSetting(all, ["devices", name, ...of], key, value), text);
    isChanged = now !== text;
    return now;
  });
  return isChanged;
}

/** By one change of the file, its comments and order kept. */
async function write(
  config: string,
  name: string,
  device: Readonly<Record<string, unknown>>,
  sources: readonly DeviceConfig[],
): Promise<void> {
  const routes = sources.map(({ name: from, archiveDir }) => ({
    from,
    to: [name],
    into: "{device}",
    ...(archiveDir === undefined ? {} : { afterDelivery: "archive" }),
  }));
  await changeConfig(config, (text) => withItems(withMember(text, ["devices"], name, device), ["routes"], routes));
}
