/** The options of a station as target: `filesync register` writes them. Figures come out as milliseconds; nothing here opens a connection or a file. */
import * as v from "valibot";
import { described, duration, host, oneLine, path, patience, port } from "../../core/options.js";
import { fingerprint, tls } from "../../core/net.js";
import { httpUrl } from "../registry/wire.js";

const word = (what: string) => v.pipe(oneLine(what), v.regex(/^[^\s"]+$/, `${what}, without spaces and quotes`));

export const options = v.strictObject({
  url: described(httpUrl, "The registry of the station."),
  tls: v.optional(described(tls(), "Which certificate of the registry is believed, where it is none of the system's."), {}),
  station: described(word("the station's id"), "Which registry it is: another one that answers there is not believed."),
  host: v.optional(described(host(), "Where files go by ssh. Default: the host of `url`.")),
  port: v.optional(described(port(), "The port there."), 2222),
  user: described(word("a user name"), "The user to log in as."),
  hostKey: described(fingerprint('the fingerprint of the host key, "SHA256:…"'), "The fingerprint of the station's host key."),
  privateKey: described(
    path(),
    "The file of the vehicle's key, ed25519, without a passphrase; `filesync register` makes it, for this installation alone.",
  ),
  flightGap: v.optional(
    described(duration(), "What is found within so long of another file is of the same flight, and goes into the same slot."),
    "5min",
  ),
  timeout: v.optional(described(patience(), "How long the station may take for an answer, or move no byte."), "30s"),
  compress: v.optional(described(v.boolean(), "Compress what goes over the line, by the best way that both rsyncs know."), false),
});
export type ApsyncOptions = v.InferOutput<typeof options>;
