/**
 * The options of an FTP server as a device: validation, defaults and help text in one table.
 *
 * Figures come out as milliseconds. Nothing here opens a connection or a file but what `{ "file": … }` of a password names.
 */
import * as v from "valibot";
import { tls } from "../../core/net.js";
import { described, host, oneLine, patience, port, secret, serverRoot, upToSixteen } from "../../core/options.js";

export const options = v.strictObject({
  host: described(host(), "The server's name or address."),
  port: v.optional(described(port(), "Its port. Default: 21, and 990 for implicit TLS.")),
  user: v.optional(described(oneLine("a user name"), "The user to log in as."), "anonymous"),
  password: v.optional(described(secret(), "The password, or where it is kept."), "anonymous@"),
  secure: v.optional(
    described(
      v.union([v.boolean(), v.literal("implicit")], 'true, false or "implicit"'),
      'true: explicit TLS for control and data; "implicit": TLS from the first byte; false: all is sent in clear.',
    ),
    false,
  ),
  tls: v.optional(described(tls(), "Whom to believe. Without it: the system's certificates and the host's name."), {}),
  root: v.optional(described(serverRoot(), 'The directory below which all is; without a leading "/" below the login directory.'), "/"),
  verify: v.optional(
    described(
      v.picklist(["auto", "digest", "readback", "size"]),
      "How an upload is proved. auto: by the server's own digest (HASH, XSHA256) where it has one, else by size; readback: all is read again.",
    ),
    "auto",
  ),
  timeout: v.optional(described(patience(), "How long the server may take for an answer, or move no byte."), "30s"),
  concurrency: v.optional(described(upToSixteen(), "Connections for transfers at once; small files share them."), 4),
});

export type FtpOptions = v.InferOutput<typeof options>;
