/** `register --ftp`: what of the configuration is a vehicle's account at the station's FTP server, and when it may be written over. */
import { parse } from "jsonc-parser";
import { dirname, join, resolve } from "node:path";
import type { DeviceConfig } from "../core/config.js";
import { Fault } from "../core/errors.js";
import { hostOf, parseFingerprint } from "../core/net.js";
import { reasonOf } from "../core/retry.js";
import { Problem, type RegistryClient } from "../plugins/apsync/client.js";
import type { FtpOptions } from "../plugins/ftp/options.js";
import { type FtpAccess, idWord } from "../plugins/registry/wire.js";
import { load, problemLines, UsageError } from "./config.js";
import { changeConfig, ownerIn, placeFile, withSetting } from "./edit-config.js";
import { asOwnerOf } from "./machine/as-owner.js";
import { withLane } from "./own.js";

/** What has its place in the configuration by then. */
export interface Place {
  readonly config: string;
  readonly device: DeviceConfig;
  readonly server: string;
}

const say = (line: string): void => void process.stdout.write(`${line}\n`);

/**
 * Before anything is registered: whether the account that the station will give is the device's, or takes the place of one that is gone there. A device that leads elsewhere, or whose account
 * lets it in, is another vehicle's. `vehicle`: undefined where the registry makes a name; `renew`: what gives the device's own vehicle another key. Throws UsageError.
 */
export async function expectPlace(
  client: RegistryClient,
  { config, device, server }: Place,
  { vehicle, renew }: { readonly vehicle: string | undefined; readonly renew: string },
  signal: AbortSignal,
): Promise<void> {
  const known = await client.vehicle(signal).catch((error: unknown) => {
    if (error instanceof Problem && error.code === "unknown-key") return undefined;
    throw error;
  });
  const { user, host } = device.options as FtpOptions;
  if (known?.vehicleId === user) return;
  const [leads, at] = [`the device "${device.name}" logs in as ${user} at ${host}`, hostOf(new URL(server))];
  const ways = `. Name the device of another vehicle with --device; a new key for ${user}: ${renew}`;
  if (host !== at) throw new UsageError(`${leads}, and the station is ${at}${ways}`);
  const word = known === undefined ? idWord(vehicle ?? "") : wordOf(known.vehicleId);
  if (word !== wordOf(user)) throw new UsageError(`${leads}, which is another vehicle than "${vehicle ?? word}"${ways}`);
  const letIn = await isLetIn(config, device.name, signal);
  if (letIn === true) throw new UsageError(`${leads}, and is let in there: that vehicle has another key than this one${ways}`);
  if (letIn !== false)
    throw new UsageError(`${leads}, and whether that account is gone cannot be seen now (${letIn}): the same command tries again${ways}`);
  if (known === undefined) say("The station does not know this vehicle's key: it is registered anew.");
}

/** An id without what nobody else has. */
const wordOf = (id: string): string => id.replace(/-[0-9a-f]{8}$/, "");

/** A text: why nobody can tell. */
async function isLetIn(config: string, name: string, signal: AbortSignal): Promise<boolean | string> {
  // Its password was not read yet.
  const { config: all, problems } = await load(config);
  const device = all?.devices.find((it) => it.name === name);
  if (all === undefined || device === undefined || problems.length > 0) return problemLines(config, { problems }).join("; ");
  try {
    await withLane(device, { vehicle: all.vehicle, installation: "00000000" }, (lane) => lane.lookNow(signal));
    return true;
  } catch (error) {
    if (!(error instanceof Fault) || error.kind === "aborted") throw error;
    return (error.cause as { code?: unknown } | undefined)?.code === 530 ? false : reasonOf(error);
  }
}

export function ftpDevice(server: string, { host, port, user, tls }: FtpAccess, passwordFile: string): Record<string, unknown> {
  return {
    type: "ftp",
    host: host ?? hostOf(new URL(server)),
    ...{ port, user, password: { file: passwordFile }, secure: tls !== undefined },
    ...(tls?.fingerprint === undefined ? {} : { tls: { fingerprint: tls.fingerprint } }),
  };
}

/** The file of the password, beside the key: for the daemon's user alone. One that is there was of an earlier try, and is good no longer. */
export async function keepPassword(stateDir: string, dir: string, { password }: FtpAccess): Promise<string> {
  const file = join(dir, "ftp.secret");
  await asOwnerOf(stateDir, () => placeFile(file, `${password}\n`, 0o600, ownerIn(stateDir), true));
  return file;
}

/** Of a device that is there: what the station says now is written where it is another, and told. `file`: where the password is already. Throws UsageError. */
export async function rewriteFtp({ config, device, server }: Place, ftp: FtpAccess, file: string, named: string): Promise<void> {
  const { name } = device;
  const given = device.options as FtpOptions;
  const { host, port, user, secure, tls } = ftpDevice(server, ftp, named) as { tls?: { fingerprint: string } } & Record<string, unknown>;
  const told: string[] = [];
  try {
    await changeConfig(config, (text) => {
      const { devices } = parse(text) as { devices: Record<string, { password?: { file?: unknown }; tls?: object }> };
      const raw = devices[name] ?? {};
      const isOther = (key: string, before: unknown, now: unknown) => {
        if (before === now) return false;
        told.push(`"${key}" is ${JSON.stringify(now)}${before === undefined ? "" : ` (it was ${JSON.stringify(before)})`}`);
        return true;
      };
      const set = (all: string, key: string, value: unknown) => withSetting(all, ["devices", name], key, value);
      let now = text;
      for (const [key, value] of Object.entries({ host, port, user, secure }))
        if (isOther(key, given[key as keyof FtpOptions], value)) now = set(now, key, value);
      if (given.tls.fingerprint !== (tls === undefined ? undefined : parseFingerprint(tls.fingerprint))) {
        const whom = Object.entries({ ...raw.tls, fingerprint: tls?.fingerprint }).filter(([, value]) => value !== undefined);
        if (isOther("tls", raw.tls, Object.fromEntries(whom)))
          now =
            tls === undefined
              ? set(now, "tls", Object.fromEntries(whom))
              : withSetting(now, ["devices", name, "tls"], "fingerprint", tls.fingerprint);
      }
      const kept = raw.password?.file;
      if (typeof kept !== "string" || resolve(dirname(config), kept) !== resolve(file)) {
        told.push(`"password" is in ${named}`);
        now = set(now, "password", { file: named });
      }
      return now;
    });
  } catch (error) {
    throw new UsageError(`${reasonOf(error)}\n${ftp.user} has a new password all the same, which is in ${file}: the same command goes on`);
  }
  if (told.length > 0) say(`Written to ${config}, the device "${name}", as the station says it now: ${told.join(", ")}.`);
}
