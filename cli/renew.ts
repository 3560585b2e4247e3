/** `register --renew`: a new key for a vehicle that sends by the target `apsync`. One that sends by FTP: `register`. */
import { dirname } from "node:path";
import type { Config, DeviceConfig } from "../core/config.js";
import { isFault } from "../core/errors.js";
import { reasonOf } from "../core/retry.js";
import { shellWord } from "../core/text.js";
import { madeForAnother } from "../plugins/apsync/key.js";
import type { ApsyncOptions } from "../plugins/apsync/options.js";
import { interruptible } from "./ask.js";
import { UsageError } from "./config.js";
import { changeConfig, ownerIn, withValue } from "./edit-config.js";
import { nextSteps, settingOf } from "./init/setting.js";
import { renewKey } from "./new-key.js";
import { besides, expectChangeable, installationFor, keyOf, type RegisterOptions, wholeConfig, wrongNames } from "./register.js";

const say = (line: string): void => void process.stdout.write(`${line}\n`);

export async function renewCommand(config: string, options: RegisterOptions): Promise<number> {
  const { email, vehicle } = options;
  const wrong = wrongNames(options);
  if (wrong.length > 0) throw new UsageError(wrong.join("\n"));
  const usable = await wholeConfig(config);
  const device = stationIn(usable, options.device);
  const needless = (["server", "fingerprint", "from"] as const).filter((it) => options[it] !== undefined).map((it) => `--${it}`);
  if (needless.length > 0) throw new UsageError(`${needless.join(", ")}: with --renew the configuration says that`);
  const given = device.options as ApsyncOptions;
  const installation = await installationFor(usable.stateDir, ownerIn(dirname(config)));
  // A new card or computer has a key of its own. That of before may be another vehicle's by now, whose card this one was cloned from: it signs nothing here, and the owner is asked.
  const elsewhere = madeForAnother(given.privateKey, installation) !== undefined;
  if (elsewhere) await expectChangeable(config);
  const keyFile = elsewhere ? await keyOf(usable, device.name, installation, false) : given.privateKey;
  try {
    await interruptible((signal) => renewKey(given, keyFile, { email, vehicle: vehicle ?? usable.vehicle }, signal));
    if (elsewhere) {
      await changeConfig(config, (text) => withValue(text, ["devices", device.name, "privateKey"], besides(config, keyFile)));
      say(`Written to ${config}: the key of "${device.name}".`);
      for (const line of await nextSteps(await settingOf(config))) say(line);
      return 0;
    }
    say(`The daemon takes it at its next try; at once: filesync retry ${shellWord(device.name)}`);
    return 0;
  } catch (error) {
    if (isFault(error, "aborted")) {
      say("Stopped. The same command goes on.");
      return 130;
    }
    throw isFault(error) ? new UsageError(reasonOf(error)) : error;
  }
}

/** Throws UsageError. */
function stationIn({ devices }: Config, named: string | undefined): DeviceConfig {
  const stations = devices.filter(({ plugin }) => plugin.type === "apsync");
  const names = stations.map(({ name }) => name).join(", ");
  const [only] = stations;
  const byFtp = devices.filter(({ plugin }) => plugin.type === "ftp").map(({ name }) => name);
  if (named === undefined ? only === undefined && byFtp.length > 0 : byFtp.includes(named)) {
    const which = named ?? (byFtp.includes("station") ? "station" : byFtp[0]) ?? "station";
    const more = which === "station" ? "" : ` --device ${shellWord(which)}`;
    throw new UsageError(
      `the device "${which}" sends by FTP. A new key for a vehicle that sends by FTP: "filesync register --renew --ftp --server URL --email ADDRESS --vehicle NAME${more}", as at the first time`,
    );
  }
  if (named === undefined && only !== undefined && stations.length === 1) return only;
  if (named === undefined)
    throw new UsageError(
      only === undefined
        ? 'the configuration has no station: "filesync register" without --renew'
        : `which station? --device, one of: ${names}`,
    );
  const found = stations.find(({ name }) => name === named);
  if (found === undefined)
    throw new UsageError(`--device ${named}: is no station of the configuration${names === "" ? "" : `; there is: ${names}`}`);
  return found;
}
