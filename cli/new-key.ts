/** A new key for a vehicle that is registered. Whatever ends it, the same work goes on where it was. */
import { existsSync } from "node:fs";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { RealClock } from "../core/clock.js";
import { renameDurable } from "../core/fs.js";
import { type ClientOptions, Problem, RegistryClient } from "../plugins/apsync/client.js";
import { newKey, readKey } from "../plugins/apsync/key.js";
import type { Access } from "../plugins/registry/wire.js";
import { UsageError } from "./config.js";
import { confirmed } from "./confirmation.js";
import { ownerIn, placeFile } from "./edit-config.js";
import { asOwnerOf } from "./machine/as-owner.js";

const say = (line: string): void => void process.stdout.write(`${line}\n`);

export interface Station {
  readonly url: string;
  readonly tls: ClientOptions["tls"];
  readonly station?: string;
  readonly timeout: number;
}

interface Owner {
  readonly email: string | undefined;
  /** What it was registered as. */
  readonly vehicle: string;
}

/** By the vehicle itself while its key is good; else its owner is asked. Whatever ends it, it goes on where it was. Throws UsageError, and what RegistryClient throws. */
export async function renewKey(at: Station, privateKey: string, { email, vehicle }: Owner, signal: AbortSignal): Promise<void> {
  const fresh = `${privateKey}.new`;
  const { url, tls, station, timeout } = at;
  const clientOf = (file: string) => new RegistryClient({ url, tls, station, timeout }, new RealClock(), () => readKey(file));
  const [before, after] = [clientOf(privateKey), clientOf(fresh)];
  try {
    // One that is there was made by a run that was ended: the station may know it.
    const dir = dirname(privateKey);
    if (!existsSync(fresh)) await asOwnerOf(dir, () => placeFile(fresh, newKey(`filesync ${hostname()}`), 0o600, ownerIn(dir), false));
    let access: Access | undefined = await orStrange(after.vehicle(signal));
    if (access === undefined) {
      const key = await readKey(fresh);
      say(`The new key has the fingerprint ${key.fingerprint}`);
      const changed = existsSync(privateKey) && (await orStrange(before.rotate(key, signal).then(() => true)));
      if (changed === true) access = await after.vehicle(signal);
    }
    if (access === undefined) {
      if (email === undefined)
        throw new UsageError(
          "the key of before is not good any more: its owner is asked, with --email ADDRESS (and --vehicle NAME, where it was given) as at the first time",
        );
      access = await confirmed(after, await after.register({ email, vehicle, renew: true }, signal), email, signal);
    }
    await renameDurable(fresh, privateKey);
    say(`${access.vehicleId} has a new key: ${privateKey}. The one before is worth nothing any more.`);
  } finally {
    before.close();
    after.close();
  }
}

/** Undefined where the station does not let that key in. */
async function orStrange<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof Problem && ["unknown-key", "revoked"].includes(error.code)) return undefined;
    throw error;
  }
}
