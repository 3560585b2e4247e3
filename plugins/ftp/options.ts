/**
 * The options of an FTP server as a device: validation, defaults and help text in one table.
 *
 * Figures come out as milliseconds. Nothing here opens a connection or a file but what `{ "file": … }` of a password names.
 */
import * as v from "valibot";
import { duration, path, port, secret } from "../../core/options.js";

/** "SHA256:<base64>" or hexadecimal with or without colons → 64 lower-case hexadecimal digits; undefined for anything else. */
export function parseFingerprint(text: string): string | undefined {
  const bare = text.trim().replace(/^sha-?256:/i, "");
  const hex = bare.replaceAll(":", "");
  if (/^[0-9a-f]{64}$/i.test(hex)) return hex.toLowerCase();
  if (!/^[A-Za-z0-9+/]{43}=?$/.test(bare)) return undefined;
  return Buffer.from(bare, "base64").toString("hex");
}

const fingerprint = () =>
  v.pipe(
    v.string('a fingerprint such as "SHA256:…"'),
    v.rawTransform<string, string>(({ dataset, addIssue, NEVER }) => {
      const hex = parseFingerprint(dataset.value);
      if (hex !== undefined) return hex;
      addIssue({ message: 'the SHA-256 fingerprint of the certificate: "SHA256:…" in base64, or hexadecimal' });
      return NEVER;
    }),
  );

const described = <T extends v.GenericSchema>(schema: T, text: string) => v.pipe(schema, v.description(text));
const oneLine = (what: string) =>
  v.pipe(
    v.string(what),
    v.nonEmpty(what),
    v.check((text) => !/\p{Cc}/u.test(text), "a text without control characters"),
  );

export const options = v.strictObject({
  host: described(oneLine("a host name or an address"), "The server's name or address."),
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
  tls: v.optional(
    described(
      v.strictObject({
        fingerprint: v.optional(
          described(
            fingerprint(),
            "SHA-256 fingerprint of the server's certificate: this one is believed, self-signed or not, and no other.",
          ),
        ),
        ca: v.optional(described(path(), "A file of certificates, PEM, that are believed in place of the system's.")),
      }),
      "Whom to believe. Without it: the system's certificates and the host's name.",
    ),
    {},
  ),
  root: v.optional(described(oneLine("a path"), 'The directory below which all is; without a leading "/" below the login directory.'), "/"),
  verify: v.optional(
    described(
      v.picklist(["auto", "digest", "readback", "size"]),
      "How an upload is proved. auto: by the server's own digest (HASH, XSHA256) where it has one, else by size; readback: all is read again.",
    ),
    "auto",
  ),
  timeout: v.optional(described(duration(), "How long the server may take for an answer, or move no byte."), "30s"),
  concurrency: v.optional(
    described(
      v.pipe(v.number("a number"), v.integer("a whole number"), v.minValue(1, "at least 1"), v.maxValue(16, "at most 16")),
      "Connections for transfers at once; small files share them.",
    ),
    4,
  ),
});

export type FtpOptions = v.InferOutput<typeof options>;
