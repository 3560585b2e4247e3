/**
 * The options of the FTP server: validation, defaults and help text in one table.
 *
 * Figures come out as bytes and milliseconds. Nothing here opens a port or a file but what `{ "file": … }` of a password names.
 */
import * as v from "valibot";
import { mounted } from "../../core/on-mount.js";
import { described, listenAddress, oneLine, path, patience, secret } from "../../core/options.js";
import { isSafePath } from "../../core/names.js";
import { isPasswordHash } from "../../core/password.js";

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

const passwordHash = v.pipe(v.string("a text"), v.check(isPasswordHash, 'a hash such as "scrypt$16384$8$1$…"'));

const rights = {
  root: v.optional(described(subdirectory(), 'The directory below `root` that this user sees as "/". Default: the user\'s name.')),
  write: v.optional(described(v.boolean("true or false"), "May upload, make directories and set times."), true),
  rename: v.optional(
    described(v.boolean("true or false"), "May rename and move. Default: as `write`. A partial upload may always be given its name."),
  ),
  delete: v.optional(described(v.boolean("true or false"), "May delete. Default: as `write`. A partial upload may always be discarded.")),
};

const user = v.pipe(
  v.strictObject({
    password: v.optional(described(secret("refused"), "The password as a text, or where it is kept.")),
    passwordHash: v.optional(described(passwordHash, "The scrypt hash of the password, in place of `password`.")),
    ...rights,
  }),
  v.check((it) => (it.password === undefined) !== (it.passwordHash === undefined), 'either "password" or "passwordHash", and not both'),
);

/** A user of `usersFile`. `full`: why `write` is false for now, in the words that the client is told; what it has sent may still get its name, or be deleted. */
export const fileUser = v.strictObject({ passwordHash, ...rights, full: v.optional(oneLine("a text")) });
export type FileUser = v.InferOutput<typeof fileUser>;

/** Whether it is clear which directory is the user's. */
export function hasDirectory(name: string, { root }: { readonly root?: string | undefined }): boolean {
  return root !== undefined || (isSafePath(name) && !name.includes("/"));
}

const limits = v.strictObject({
  maxConnections: v.optional(
    described(
      count(),
      "Control connections in all; one more is answered 421, unless another has not logged in within 5 s, which then makes room.",
    ),
    100,
  ),
  maxPerUser: v.optional(described(count(), "Control connections of one user."), 32),
  maxPerAddress: v.optional(described(count(), "Control connections from one address."), 32),
  login: v.optional(described(patience(), "How long a client may take to log in."), "30s"),
  idle: v.optional(described(patience(), "How long a logged-in client may send no command."), "5min"),
  stall: v.optional(
    described(patience(), "How long a transfer may move no byte; also how long a data connection may take to come."),
    "60s",
  ),
});

const table = v.strictObject({
  listen: v.optional(described(listenAddress(), 'Where to listen: "HOST:PORT" or ":PORT"; port 0 takes any free one.'), "0.0.0.0:2121"),
  passivePorts: v.optional(described(portRange(), 'Ports for data connections, "FROM-TO". Default: any free one.')),
  passiveHost: v.optional(
    described(
      v.pipe(v.string("an address"), v.ipv4("an IPv4 address")),
      "The IPv4 address to announce for data connections (PASV) when this machine is behind NAT.",
    ),
  ),
  root: described(path(), "The directory that holds the users' directories; made when it is missing."),
  mounted: mounted(),
  users: v.optional(
    described(
      v.pipe(
        v.record(v.string(), user),
        v.check(
          (users) => Object.entries(users).every(([name, it]) => hasDirectory(name, it)),
          "a root for each user whose name is no directory name",
        ),
      ),
      "Who may log in, by name.",
    ),
    {},
  ),
  usersFile: v.optional(
    described(path(), "A file with more users, which may change at any time: a `registry` writes it for its vehicles. Not below `root`."),
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

export const options = v.pipe(
  table,
  v.forward(
    v.check(({ users, usersFile }) => usersFile !== undefined || Object.keys(users).length > 0, 'at least one user, or "usersFile"'),
    ["users"],
  ),
);

export type FtpServerOptions = v.InferOutput<typeof options>;
/** Of the configuration, or of the file. */
export type User = FtpServerOptions["users"][string] & Pick<FileUser, "full">;
