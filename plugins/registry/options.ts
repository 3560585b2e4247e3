/** The options of the registry: validation, defaults and help text in one table. Figures come out as bytes and milliseconds; nothing here opens a port or a file but what a secret names. */
import * as v from "valibot";
import { mounted } from "../../core/on-mount.js";
import { described, duration, host, listenAddress, oneLine, path, port, secret, size } from "../../core/options.js";
import { email, httpUrl } from "./wire.js";

const door = v.strictObject({
  listen: v.optional(described(listenAddress(), "Where vehicles come in by ssh; port 0 takes any free one."), "0.0.0.0:2222"),
  host: v.optional(described(host(), "The host that vehicles are told. Default: the one that they asked for the registry.")),
  port: v.optional(described(port(), "The port that vehicles are told, where it is another than that of `listen`.")),
});

const mail = v.strictObject({
  host: described(host(), "The mail server's name or address."),
  port: v.optional(described(port(), "Its port."), 587),
  secure: v.optional(
    described(
      v.union([v.boolean(), v.literal("starttls")], 'true, "starttls" or false'),
      '"starttls": nothing is sent without TLS; true: TLS from the first byte (port 465); false: as the server can.',
    ),
    "starttls",
  ),
  user: v.optional(described(oneLine("a user name"), "The user to log in as.")),
  password: v.optional(described(secret("refused"), "The password as a text, or where it is kept.")),
  from: described(email, "The address that the mails come from."),
  tls: v.optional(
    described(
      v.strictObject({
        ca: v.optional(
          described(path(), "Certificates, PEM, that are believed in place of the system's: of a mail server that made its own."),
        ),
      }),
      "Whom to believe. Without it: the system's certificates and the host's name.",
    ),
    {},
  ),
});

const quota = v.strictObject({
  vehicle: v.optional(described(size(), "Bytes of one vehicle.")),
  owner: v.optional(described(size(), "Bytes of all vehicles of one owner.")),
});

const ftp = v.strictObject({
  usersFile: described(path(), "The file that the FTP server has as `usersFile`: the vehicles' accounts are written there."),
  root: described(
    path(),
    "The FTP server's `root`: each vehicle has a directory there that is called by its id, and counts for its quota.",
  ),
  host: v.optional(described(host(), "The host that vehicles are told. Default: the one that they asked for the registry.")),
  port: v.optional(described(port(), "The port that vehicles are told."), 2121),
  tls: v.optional(
    described(
      v.strictObject({
        cert: v.optional(
          described(path(), "The FTP server's certificate, PEM: vehicles pin it. Default: they believe the system's authorities."),
        ),
      }),
      "The FTP server has TLS. Without this, vehicles are told to send in clear.",
    ),
  ),
});
export type FtpOptions = v.InferOutput<typeof ftp>;

const table = v.strictObject({
  listen: v.optional(described(listenAddress(), "Where the API and the page for people are; port 0 takes any free one."), "0.0.0.0:8443"),
  publicUrl: v.optional(
    described(
      httpUrl,
      "How people and vehicles reach it, for links in mails. Default: https, this machine's name and the port of `listen`; with `proxy` and `mail` it has to be given.",
    ),
  ),
  root: described(path(), "The directory that gets a directory per owner, vehicle and slot; made when it is missing."),
  mounted: mounted(),
  tls: v.optional(
    described(
      v.strictObject({ cert: described(path(), "The certificate chain, PEM."), key: described(path(), "Its private key, PEM.") }),
      "A certificate that is given. Default: one of its own, made once; its fingerprint is told, for vehicles to pin.",
    ),
  ),
  proxy: v.optional(
    described(
      v.boolean(),
      "It is behind a proxy that speaks TLS and sets X-Forwarded-For: plain HTTP, and the last address there is the client's.",
    ),
    false,
  ),
  door: v.optional(described(door, "Where files come in: an sshd of its own."), {}),
  ftp: v.optional(described(ftp, "Vehicles get accounts at an FTP server of this station, which reads them from a file.")),
  mail: v.optional(described(mail, "Mails ask owners to confirm. Without it the operator does: filesync registry confirm.")),
  legacy: v.optional(
    described(v.boolean(), "Vehicles that still have the client of APSync may register and send: its endpoints, and RSA keys at the door."),
    false,
  ),
  linkValid: v.optional(described(duration(), "So long a registration waits to be confirmed, while the registry runs."), "24h"),
  slotIdle: v.optional(described(duration(), "A slot to which nothing came for so long is closed."), "10min"),
  quota: v.optional(described(quota, "What vehicles may keep here; the operator may give one another quota."), {}),
  keepFree: v.optional(described(size(), "So much of the disk stays free: what does not fit is refused before it is sent."), "1GiB"),
});

export const options = v.pipe(
  table,
  v.forward(
    v.check(
      ({ proxy, mail, publicUrl }) => !proxy || mail === undefined || publicUrl !== undefined,
      'the URL of the proxy, which is in the mails, such as "https://ground.example.org"',
    ),
    ["publicUrl"],
  ),
);
export type RegistryOptions = v.InferOutput<typeof options>;
