/**
 * The options of a server that is reached by rsync over ssh: validation, defaults and help text in one table.
 *
 * Figures come out as milliseconds. Nothing here starts a program or opens a file.
 */
import * as v from "valibot";
import { believing, bothBelieved } from "../../core/host-key.js";
import { described, host, oneLine, path, patience, port, serverRoot, upToSixteen } from "../../core/options.js";

/** For what stands in a configuration of ssh between quotes. */
const word = (what: string) => v.pipe(oneLine(what), v.regex(/^[^\s"]+$/, `${what}, without spaces and quotes`));

const upToSeven = v.pipe(upToSixteen(), v.maxValue(7, "at most 7: sshd gives a connection 10 sessions, and shells take some"));

const given = v.strictObject({
  host: described(host(), "The server's name or address."),
  port: v.optional(described(port(), "Its port."), 22),
  user: described(word("a user name"), "The user to log in as."),
  privateKey: v.optional(described(path(), "A file with the private key, without a passphrase; or whose key the agent has.")),
  agent: v.optional(described(path(), "The socket of an SSH agent that has the key.")),
  ...believing,
  root: v.optional(described(serverRoot(), 'The directory below which all is; without a leading "/" below the login directory.'), "."),
  verify: v.optional(
    described(
      v.picklist(["auto", "size"]),
      "How an upload is proved. auto: by the server's sha256sum, or by rsync's own checksum where only rsync may run; size: by its size.",
    ),
    "auto",
  ),
  timeout: v.optional(described(patience(), "How long the server may take for an answer, or move no byte."), "30s"),
  concurrency: v.optional(described(upToSeven, "Runs of rsync at once; they share one connection."), 2),
  compress: v.optional(described(v.boolean(), "Compress what goes over the line, by the best way that both rsyncs know."), false),
  password: v.optional(v.never('no password: ssh takes none from a program; use a key, by "privateKey" or "agent"')),
});

type Given = v.InferOutput<typeof given>;
export type RsyncOptions = Given;

/** What cannot be with one another. */
export const options = v.pipe(
  given,
  v.rawCheck<Given>(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    const it = dataset.value;
    const wrong = (key: string, message: string) =>
      addIssue({ message, path: [{ type: "object", origin: "value", input: it, key, value: undefined }] });
    if (it.privateKey === undefined && it.agent === undefined) wrong("user", 'a key to log in with: "privateKey" or "agent"');
    const both = bothBelieved(it);
    if (both !== undefined) wrong("knownHosts", both);
  }),
);
