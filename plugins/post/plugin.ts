/** The plugin `post`: one multipart request per file. Its options, and what becomes of a preset. */
import * as v from "valibot";
import { tls } from "../../core/net.js";
import { described, duration, path, patience, secret, type Secret } from "../../core/options.js";
import type { Plugin } from "../../core/plugin.js";
import { PostDevice } from "./device.js";
import { presets, type Preset, type PresetName } from "./presets.js";

/** The server's parser takes no more of one (PX4/flight_review). */
const mostFieldBytes = 10 * 1024;

export const url = v.pipe(
  v.string("a URL"),
  v.check((text) => /^https?:\/\//.test(text) && URL.canParse(text), 'a URL that begins with "https://" or "http://"'),
  v.check((text) => {
    if (!URL.canParse(text)) return true;
    const { username, password } = new URL(text);
    return username === "" && password === "";
  }, 'a URL without a user or password in it: put those into "headers", where they can be secrets'),
);

const field = v.pipe(
  v.union([v.string(), v.boolean(), v.number()], "a text, true or false, or a number"),
  v.transform(String),
  v.check((text) => Buffer.byteLength(text) <= mostFieldBytes, "at most 10 KiB"),
);

/** What no request could be made with is told here, not at each file (RFC 9110 §5.1, §5.5; node sends the characters of Latin-1). */
const headerName = v.pipe(v.string(), v.regex(/^[\w!#$%&'*+.^`|~-]+$/, "the name of a header"));
const headerText = v.pipe(
  secret(),
  v.check(
    (it) => it.fits((text) => /^[\t\x20-\x7e\x80-\xff]*$/.test(text)),
    "a text that a header can hold: one line, without signs beyond Latin-1",
  ),
);

const pointer = (what: string) =>
  v.pipe(
    v.string(what),
    v.check((text) => text === "location" || /^(\/[^/]*)+$/.test(text), what),
  );

const given = v.strictObject({
  url: described(url, "Where the form is posted to."),
  preset: v.optional(
    described(
      v.picklist(Object.keys(presets) as PresetName[]),
      "A server that is known: flight-review (PX4 Flight Review), flight-review-key (ARK's, with a key), flight-review-v2 (flight-review-rs).",
    ),
  ),
  file: v.optional(described(v.pipe(v.string("a name"), v.nonEmpty("a name")), 'The form\'s field that holds the file; default: "file".')),
  fields: v.optional(
    described(
      v.record(v.string(), field, "fields by name"),
      "The form's other fields. In their texts {vehicle} {installation} {path} {name} {size} {date} are filled in.",
    ),
    {},
  ),
  headers: v.optional(described(v.record(headerName, headerText, "headers by name"), "Headers of the request, such as Authorization."), {}),
  key: v.optional(described(headerText, "The key of flight-review-key.")),
  answer: v.optional(
    described(
      v.strictObject({
        status: v.optional(
          described(
            v.array(v.pipe(v.number("a number"), v.integer("a number")), "a list of numbers"),
            "What says that it was taken; default: 200, 201, 202, 204.",
          ),
        ),
        url: v.optional(
          described(
            pointer('"location", or a JSON pointer such as "/url"'),
            'Where the answer tells the URL of what was posted: "location" (the header), or a JSON pointer.',
          ),
        ),
        contains: v.optional(described(v.pipe(v.string("a text"), v.nonEmpty("a text")), "What the right server's answer holds.")),
      }),
      "How the answer is read.",
    ),
    {},
  ),
  only: v.optional(
    described(v.picklist(["ulog"], '"ulog"'), "ulog: only files that begin as a ULog does; others are not for this target."),
  ),
  minDuration: v.optional(described(duration(), "ULogs that last less are not for this target.")),
  whenInDoubt: v.optional(
    described(
      v.picklist(["ask", "again"], '"ask" or "again"'),
      "When the answer was lost and nobody can tell whether it arrived: send it once more after 24 h, or ask a person.",
    ),
    "again",
  ),
  verify: v.optional(
    described(
      v.picklist(["answer", "readback"], '"answer" or "readback"'),
      "What proves it: the server's answer, or that the server gives the same bytes back (flight-review presets).",
    ),
    "answer",
  ),
  index: v.optional(
    described(
      path(),
      "A web page that lists what was posted, with its URLs; default: index.html in the device's directory below stateDir.",
    ),
  ),
  timeout: v.optional(described(patience(), "How long nothing may move."), "30s"),
  answerTimeout: v.optional(
    described(patience(), "How long the server may take for its answer: it may look through the log before."),
    "10min",
  ),
  tls: v.optional(described(tls(), "Whom to believe. Without it: the system's certificates and the host's name."), {}),
});

type Given = v.InferOutput<typeof given>;

export interface PostOptions extends Omit<Given, "preset" | "file" | "only" | "headers" | "key"> {
  readonly preset: Preset | undefined;
  readonly file: string;
  readonly only: "ulog" | undefined;
  readonly headers: Readonly<Record<string, Secret>>;
  readonly key: Secret | undefined;
}

/** What a preset makes of the options, and what cannot be with it. */
const options = v.pipe(
  given,
  v.rawTransform<Given, PostOptions>(({ dataset, addIssue }) => {
    const it = dataset.value;
    const preset: Preset | undefined = it.preset === undefined ? undefined : presets[it.preset];
    const wrong = (key: string, message: string) =>
      addIssue({ message, path: [{ type: "object", origin: "value", input: it, key, value: undefined }] });
    const fields: Record<string, string> = { ...preset?.fields };
    for (const [name, text] of Object.entries(it.fields)) {
      const known = preset?.aliases[name] ?? name;
      if (preset !== undefined && !preset.known.includes(known))
        wrong("fields", `a field that this server knows instead of "${name}": ${preset.known.join(", ")}`);
      fields[known] = text;
    }
    if (preset !== undefined && fields.type !== "flightreport")
      for (const name of preset.reportOnly)
        if (name in fields)
          wrong("fields", `"type": "flightreport" with "${name}": the server heeds it only there, and publishes such a log`);
    if (preset?.wantsKey === true && it.key === undefined) wrong("key", "the key of this server, which refuses everything without it");
    if (it.key !== undefined && preset?.wantsKey !== true)
      wrong("key", 'no key with this preset: put what the server wants into "headers"');
    if (it.verify === "readback" && preset?.download === undefined)
      wrong("verify", '"answer": only of the presets it is known where to read back');
    return { ...it, fields, preset, file: it.file ?? preset?.file ?? "file", only: it.only ?? preset?.only, key: it.key };
  }),
);

export const plugin: Plugin<PostOptions> = {
  type: "post",
  about: { what: "a web form, such as PX4 Flight Review", proves: "by the server's answer" },
  roles: ["target"],
  fromFirstRun: true,
  options,
  device: (options, context) => new PostDevice(options, context),
};
