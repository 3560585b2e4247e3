/** Where files are to go, asked of a person: the device, what has to be kept secret for it, and whom to believe there. */
import { hostname } from "node:os";
import * as v from "valibot";
import { RealClock } from "../../core/clock.js";
import type { DeviceConfig } from "../../core/config.js";
import { isFault } from "../../core/errors.js";
import { typeOf } from "../../core/host-key.js";
import { fingerprintOf, parseFingerprint } from "../../core/net.js";
import { host as hostOption, path } from "../../core/options.js";
import { url as formUrl } from "../../plugins/post/plugin.js";
import { presets } from "../../plugins/post/presets.js";
import { hostKeyOf } from "../../plugins/sftp/login.js";
import type { SftpOptions } from "../../plugins/sftp/options.js";
import { options as webdavOptions } from "../../plugins/webdav/options.js";
import { judged } from "../edit-config.js";
import { withContext } from "../own.js";
import { type Asker, choose, yes } from "../questions.js";
import type { Part } from "./text.js";

export interface Target {
  readonly device: Part;
  /** Beside `from` and `to`. */
  readonly route: Readonly<Record<string, unknown>>;
  /** By the name of the credential. A text: what is to be kept; undefined: what is there stays. */
  readonly secrets: Readonly<Record<string, string | undefined>>;
  /** A directory of this machine that has to be there. */
  readonly directory?: string;
}

export interface Asking {
  readonly asker: Asker;
  readonly vehicle: string;
  /** The configuration that is to be written. */
  readonly config: string;
  /** Whether there is a credential of this name beside the configuration. */
  readonly has: (credential: string) => boolean;
}

const lookMs = 15_000;
const needed = (answer: string) => (answer === "" ? "it cannot be left out" : undefined);
/** As the option of the device takes it: what is wrong is told before the next question. */
const asOption = (option: v.GenericSchema) => (answer: string) => needed(answer) ?? v.safeParse(option, answer).issues?.[0].message;
const aHost = asOption(hostOption());
const aPath = asOption(path());
const aPort = (answer: string) =>
  /^\d+$/.test(answer) && Number(answer) > 0 && Number(answer) < 65_536 ? undefined : "a port, from 1 to 65535";

/** undefined: nothing yet. */
export async function askTarget(asking: Asking): Promise<Target | undefined> {
  const ways: readonly (readonly [string, (asking: Asking) => Promise<Target>])[] = [
    ["the FTP server of a ground station (FileSync's own, or another)", ftp],
    ["an SFTP server", sftp],
    ["a WebDAV server, such as Nextcloud", webdav],
    ["PX4 Flight Review", review],
    ["a directory of this machine", directory],
  ];
  const chosen = await choose(asking.asker, "Where are the files to go?", [...ways.map(([text]) => text), "nothing yet"], ways.length);
  return ways[chosen]?.[1](asking);
}

async function ftp({ asker, vehicle, config, has }: Asking): Promise<Target> {
  const host = await asker.ask("Its name or address", "", aHost);
  const port = Number(await asker.ask("Its port", "2121", aPort));
  const user = await asker.ask("User", vehicle, needed);
  const { value: password, secrets } = await kept(asker, "ground", has);
  const server = { type: "ftp", host, port, user, password };
  const bare = { ...server, password: "" };
  let believing: Record<string, unknown> = { secure: true };
  try {
    const certificate = await certificateAt({ ...bare, secure: true }, config, asker.signal);
    const { fingerprint, name, untilMs } = certificate;
    asker.say(`It shows the certificate of "${name}", until ${new Date(untilMs).toISOString().slice(0, 10)}: ${fingerprint}`);
    asker.say('The ground station says its own: there, "sudo filesync init --ground --yes" prints it.');
    // Whoever is on the way can show another one: it is believed because a person says so.
    if (await yes(asker, "Is it the one? Then this certificate is believed, and no other", false))
      believing = { secure: true, tls: { fingerprint } };
    else asker.say("Then only a certificate that this system's authorities have signed for that name is believed.");
  } catch (error) {
    if (!isFault(error)) throw error;
    asker.say(`Its certificate cannot be looked at: ${error.message}`);
    if (error.kind === "denied" && /offers no TLS/.test(error.message)) {
      if (await yes(asker, "Send all in clear, the password too", false)) believing = { secure: false };
    } else {
      const wrong = (answer: string) => (answer === "" || parseFingerprint(answer) !== undefined ? undefined : 'it looks like "SHA256:…"');
      const fingerprint = await asker.ask("Its fingerprint, where you know it (else Enter)", "", wrong);
      if (fingerprint !== "") believing = { secure: true, tls: { fingerprint } };
    }
  }
  return {
    device: { name: "ground", comment: ["The ground station. docs/ftp.md"], value: { ...server, ...believing } },
    // Its user has a directory of its own.
    route: { into: "{device}" },
    secrets,
  };
}

async function certificateAt(device: object, config: string, signal: AbortSignal) {
  const made = await deviceOf(device, config);
  return withContext(made.name, { vehicle: hostname(), installation: "00000000" }, async (context) => {
    const built = made.plugin.device?.(made.options, context);
    try {
      const certificate = await built?.certificate?.(AbortSignal.any([signal, AbortSignal.timeout(lookMs)]));
      if (certificate === undefined) throw new Error("no certificate was shown");
      return certificate;
    } finally {
      await built?.close();
    }
  });
}

async function deviceOf(device: object, config: string): Promise<DeviceConfig> {
  const { config: loaded, problems } = await judged(config, JSON.stringify({ devices: { target: device } }));
  const made = loaded?.devices[0];
  if (made === undefined) throw new Error(problems.map(({ message }) => message).join("; "));
  return made;
}

async function sftp({ asker, config, has }: Asking): Promise<Target> {
  const host = await asker.ask("Its name or address", "", aHost);
  const port = Number(await asker.ask("Its port", "22", aPort));
  const user = await asker.ask("User", "", needed);
  const key = await asker.ask("The file of its private key, which the user filesync may read (Enter: a password)", "", (answer) =>
    answer === "" ? undefined : aPath(answer),
  );
  const { value: password, secrets } = key === "" ? await kept(asker, "server", has) : { value: undefined, secrets: {} };
  const root = await asker.ask("Directory there", ".");
  const server = { type: "sftp", host, ...(port === 22 ? {} : { port }), user, ...(key === "" ? { password } : { privateKey: key }), root };
  let believing: Record<string, unknown> = {};
  try {
    const { options } = await deviceOf({ ...server, password: "", privateKey: undefined }, config);
    const shown = await hostKeyOf(options as SftpOptions, new RealClock(), AbortSignal.any([asker.signal, AbortSignal.timeout(lookMs)]));
    const fingerprint = fingerprintOf(shown);
    asker.say(`It shows the host key ${fingerprint} (${typeOf(shown)}).`);
    asker.say('On the server, "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" (or another of these files) prints it.');
    if (await yes(asker, "Is it the one? Then this key is believed, and no other", false)) believing = { hostKey: fingerprint };
  } catch (error) {
    if (!isFault(error)) throw error;
    asker.say(`Its host key cannot be looked at: ${error.message}`);
  }
  if (believing.hostKey === undefined) {
    const wrong = (answer: string) => (answer === "" || parseFingerprint(answer) !== undefined ? undefined : 'it looks like "SHA256:…"');
    const fingerprint = await asker.ask("Its fingerprint, where you know it (Enter: nothing is sent until it is said)", "", wrong);
    if (fingerprint !== "") believing = { hostKey: fingerprint };
  }
  return {
    device: { name: "server", comment: ["A server with SFTP. docs/sftp.md"], value: { ...server, ...believing } },
    route: {},
    secrets,
  };
}

async function webdav({ asker, has }: Asking): Promise<Target> {
  const url = await asker.ask("Its URL", "", asOption(webdavOptions.entries.url));
  const user = await asker.ask("User", "", needed);
  const { value: password, secrets } = await kept(asker, "cloud", has);
  const root = await asker.ask("Directory there", "/", asOption(webdavOptions.entries.root));
  const value = { type: "webdav", url, user, password, root };
  return { device: { name: "cloud", comment: ["A server with WebDAV. docs/webdav.md"], value }, route: {}, secrets };
}

async function review({ asker }: Asking): Promise<Target> {
  const url = await asker.ask("Its URL", "https://logs.px4.io/upload", asOption(formUrl));
  const email = await asker.ask("Your e-mail address, to which it sends the link of each log (or Enter)", "");
  const value = { type: "post", preset: "flight-review", url, fields: { ...presets["flight-review"].fields, email, redirect: undefined } };
  return {
    device: {
      name: "review",
      comment: ["PX4 Flight Review: logs that are made from now on, privately. docs/post.md"],
      value: withoutGaps(value),
    },
    route: { include: ["**/*.ulg"] },
    secrets: {},
  };
}

async function directory({ asker }: Asking): Promise<Target> {
  const dir = await asker.ask("Which", "", (answer) => (answer.startsWith("/") ? undefined : 'a path that begins with "/"'));
  return {
    device: {
      name: "archive",
      comment: ["A directory of this machine, which the service's user has to be able to write. docs/local.md"],
      value: { type: "local", dir },
    },
    route: {},
    secrets: {},
    directory: dir,
  };
}

/** A password, which goes into a file of its own. */
async function kept(asker: Asker, name: string, has: (credential: string) => boolean) {
  const value = { credential: name };
  const there = has(name);
  const typed = await asker.secret(
    `Password (it is not shown${there ? `; Enter keeps what credentials/${name} has` : ""})`,
    there ? undefined : "an empty password is none",
  );
  return { value, secrets: { [name]: typed === "" ? undefined : typed } };
}

function withoutGaps<T extends object>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}
