/** The options of a WebDAV server as a device: validation, defaults and help text in one table. Figures come out as milliseconds and bytes. */
import * as v from "valibot";
import { isSafePath } from "../../core/names.js";
import { tls } from "../../core/net.js";
import { described, lineOrNothing, patience, secret, size, upToSixteen } from "../../core/options.js";
import { plainPath } from "../../core/paths.js";

function isUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, username, password, search, hash } = new URL(text);
  return /^https?:$/.test(protocol) && `${username}${password}${search}${hash}` === "" && !/%(?![0-9A-Fa-f]{2})/.test(text);
}

const root = v.pipe(
  lineOrNothing("a path"),
  v.transform(plainPath),
  // Each file would be refused by itself.
  v.check((path) => path === "" || isSafePath(path), 'a path without ".."'),
);

const url = v.pipe(
  v.string("a URL"),
  v.check(
    isUrl,
    'a URL such as "https://cloud.example.org/remote.php/dav/files/me", with nothing after "?" or "#" (the user and password have options of their own)',
  ),
);

const given = v.strictObject({
  url: described(url, "Where the server's WebDAV is. For Nextcloud the address of its web page is enough."),
  user: v.optional(described(lineOrNothing("a user name"), "The user to log in as; without one no login is sent.")),
  password: v.optional(described(secret(), "The password, or where it is kept. Nextcloud and Yandex want one made for this program.")),
  root: v.optional(described(root, 'The directory below which all is, below "url".'), "/"),
  tls: v.optional(described(tls(), "Whom to believe. Without it: the system's certificates and the host's name."), {}),
  verify: v.optional(
    described(
      v.picklist(["auto", "readback", "size"], '"auto", "readback" or "size"'),
      "How an upload is proved. auto: by its size, and by reading back what was not all sent; readback: all is read again.",
    ),
    "auto",
  ),
  timeout: v.optional(described(patience(), "How long the server may take for an answer, or move no byte."), "30s"),
  answerTimeout: v.optional(
    described(patience(), "How long it may take for its answer to a whole file: some digest or put it together before they answer."),
    "10min",
  ),
  chunkSize: v.optional(
    described(
      v.pipe(size(), v.minValue(1024, 'at least "1KiB"'), v.maxValue(5 * 2 ** 30, 'at most "5GiB"')),
      "Nextcloud only: what goes in one request, and is sent again after a break. On S3 at least 5 MiB; a file has at most 10,000 of them.",
    ),
    "8MiB",
  ),
  concurrency: v.optional(described(upToSixteen(), "Transfers at once."), 4),
});

export const options = v.pipe(
  given,
  v.forward(
    v.check(
      ({ user, password }) => user !== undefined || password === undefined,
      'the "user" whose password this is ("" where the server wants none)',
    ),
    ["password"],
  ),
);

export type WebdavOptions = v.InferOutput<typeof options>;
