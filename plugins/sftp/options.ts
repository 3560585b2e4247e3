/**
 * The options of an SFTP server as a device: validation, defaults and help text in one table.
 *
 * Figures come out as milliseconds. Nothing here opens a connection or a file but what `{ "file": … }` of a secret names.
 */
import * as v from "valibot";
import { believing, bothBelieved } from "../../core/host-key.js";
import { described, host, oneLine, path, patience, port, secret, serverRoot, upToSixteen } from "../../core/options.js";

const given = v.strictObject({
  host: described(host(), "The server's name or address."),
  port: v.optional(described(port(), "Its port."), 22),
  user: described(oneLine("a user name"), "The user to log in as."),
  password: v.optional(described(secret(), "The password, or where it is kept.")),
  privateKey: v.optional(
    described(path(), "A file with the private key, as ssh-keygen makes it: OpenSSH or PEM; of PuTTY's exported for OpenSSH."),
  ),
  passphrase: v.optional(described(secret(), "The passphrase of the private key.")),
  agent: v.optional(described(path(), "The socket of an SSH agent that has the key.")),
  ...believing,
  root: v.optional(described(serverRoot(), 'The directory below which all is; without a leading "/" below the login directory.'), "."),
  verify: v.optional(
    described(
      v.picklist(["auto", "digest", "readback", "size"]),
      "How an upload is proved. auto: by the server's sha256sum where it allows commands, else by size, and by reading back what was not all sent; readback: all is read again.",
    ),
    "auto",
  ),
  timeout: v.optional(described(patience(), "How long the server may take for an answer, or move no byte."), "30s"),
  concurrency: v.optional(described(upToSixteen(), "Files at once; they share at most two connections."), 4),
  compress: v.optional(described(v.boolean(), "Compress what goes over the line, where the server can."), false),
});

type Given = v.InferOutput<typeof given>;
export type SftpOptions = Given;

/** Whether the server's own digests are wanted. */
export const asksForDigests = ({ verify }: SftpOptions): boolean => verify === "auto" || verify === "digest";

/** What cannot be with one another. */
export const options = v.pipe(
  given,
  v.rawCheck<Given>(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    const it = dataset.value;
    const wrong = (key: string, message: string) =>
      addIssue({ message, path: [{ type: "object", origin: "value", input: it, key, value: undefined }] });
    if (it.password === undefined && it.privateKey === undefined && it.agent === undefined)
      wrong("user", 'a way to log in beside the user: "password", "privateKey" or "agent"');
    if (it.passphrase !== undefined && it.privateKey === undefined) wrong("passphrase", 'the "privateKey" that this passphrase is for');
    const both = bothBelieved(it);
    if (both !== undefined) wrong("knownHosts", both);
  }),
);
