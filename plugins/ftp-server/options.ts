/**
 * The options of the FTP server: validation, defaults and help text in one table.
 *
 * Figures come out as bytes and milliseconds. Nothing here opens a port or a file but what `{ "file": … }` of a password names.
 */
import * as v from "valibot";
import { described, duration, listenAddress, path, secret } from "../../core/options.js";
import { isSafePath } from "../../core/names.js";
import { isPasswordHash } from "./password.js";

export interface PortRange {
  readonly from: number;
  readonly to: number;
}

const portRange = () =>
  v.pipe(
    v.string('ports such as "30000-30099"'),
    v.rawTransform<string, PortRange>(({ dataset, addIssue, NEVER }) => {
      const match = /^\s*(\d{1,5})\s*-\s*(\d{1,5})\s*$/.exec(dataset.value);
      const [from, to] = [Number(match?.[1] ?? 0), Number(match?.[2] ?? 0)];
      if (from >= 1 && to >= from && to <= 65535) return { from, to };
      addIssue({ message: 'ports such as "30000-30099", from 1 to 65535' });
      return NEVER;
    }),
  );

const subdirectory = () =>
  v.pipe(
    v.string("a directory below the server's root"),
    v.check(
      (text) => text === "" || text === "." || isSafePath(text),
      'a directory below the server\'s root, without ".." ("." is the root)',
    ),
    v.transform((text) => (text === "." ? "" : text)),
  );

const count = () => v.pipe(v.number("a number"), v.integer("a whole number"), v.minValue(1, "at least 1"));

const user = v.pipe(
  v.strictObject({
    password: v.optional(described(secret("refused"), "The password as a text, or where it is kept.")),
    passwordHash: v.optional(
      described(
        v.pipe(v.string("a text"), v.check(isPasswordHash, 'a hash such as "scrypt$16384$8$1$…"')),
        "The scrypt hash of the password, in place of `password`.",
      ),
    ),
    root: v.optional(described(subdirectory(), 'The directory below `root` that this user sees as "/". Default: the user\'s name.')),
    write: v.optional(described(v.boolean(), "May upload, make directories and set times."), true),
    rename: v.optional(described(v.boolean(), "May rename and move. Default: as `write`. A partial upload may always be given its name.")),
    delete: v.optional(described(v.boolean(), "May delete. Default: as `write`. A partial upload may always be discarded.")),
  }),
  v.check((it) => (it.password === undefined) !== (it.passwordHash === undefined), 'either "password" or "passwordHash", and not both'),
);

const limits = v.strictObject({
  maxConnections: v.optional(described(count(), "Control connections in all; one more is answered 421."), 100),
  maxPerUser: v.optional(described(count(), "Control connections of one user."), 32),
  maxPerAddress: v.optional(described(count(), "Control connections from one address."), 32),
  login: v.optional(described(duration(), "How long a client may take to log in."), "30s"),
  idle: v.optional(described(duration(), "How long a logged-in client may send no command."), "5min"),
  stall: v.optional(
    described(duration(), "How long a transfer may move no byte; also how long a data connection may take to come."),
    "60s",
  ),
});

export const options = v.strictObject({
  listen: v.optional(described(listenAddress(), 'Where to listen: "HOST:PORT" or ":PORT"; port 0 takes any free one.'), "0.0.0.0:2121"),
  passivePorts: v.optional(described(portRange(), 'Ports for data connections, "FROM-TO". Default: any free one.')),
  passiveHost: v.optional(
    described(
      v.pipe(v.string("an address"), v.ipv4("an IPv4 address")),
      "The IPv4 address to announce for data connections (PASV) when this machine is behind NAT.",
    ),
  ),
  root: described(path(), "The directory that holds the users' directories; made when it is missing."),
  users: described(
    v.pipe(
      v.record(v.string(), user),
      v.check((users) => Object.keys(users).length > 0, "at least one user"),
      v.check(
        (users) => Object.entries(users).every(([name, it]) => it.root !== undefined || (isSafePath(name) && !name.includes("/"))),
        "a root for each user whose name is no directory name",
      ),
    ),
    "Who may log in, by name.",
  ),
  overwrite: v.optional(described(v.boolean(), "Whether an upload or a rename may replace a file that is there."), true),
  tls: v.optional(
    described(
      v.strictObject({
        cert: described(path(), "The certificate chain, PEM."),
        key: described(path(), "Its private key, PEM."),
        required: v.optional(described(v.boolean(), "Refuse a login and data without TLS."), false),
      }),
      "Explicit TLS (AUTH TLS).",
    ),
  ),
  limits: v.optional(described(limits, "Bounds that keep one client from disturbing the others."), {}),
});

export type FtpServerOptions = v.InferOutput<typeof options>;
export type UserOptions = FtpServerOptions["users"][string];
