/** `npm run bench [-- NAME…]`: runs the named benchmarks, or all (`mavftp --full`, `mavftp px4 usb`, `push 0 4`: some of its cells); each prints a table in Markdown. */
import { compact } from "./compact.js";
import { cutThrough } from "./cut-through.js";
import { disk } from "./disk.js";
import { growth } from "./growth.js";
import { idle } from "./idle.js";
import { many } from "./many.js";
import { mavftp } from "./mavftp.js";
import { memory } from "./memory.js";
import { push } from "./push.js";
import { resume } from "./resume.js";
import { rsync } from "./rsync.js";
import { sftp } from "./sftp.js";
import { slowCard } from "./slow-card.js";
import { sync } from "./sync.js";
import { webdav } from "./webdav.js";

const all: Readonly<Record<string, (given?: readonly string[]) => Promise<void>>> = {
  idle,
  many,
  compact,
  "slow-card": slowCard,
  "cut-through": cutThrough,
  push,
  webdav,
  sftp,
  sync,
  rsync,
  resume,
  memory,
  growth,
  disk,
  mavftp,
};

const [first, ...rest] = process.argv.slice(2);
// What follows one of these says which of its cells.
const [named, given] =
  first !== undefined && ["mavftp", "rsync", "memory", "push", "sync"].includes(first)
    ? [[first], rest]
    : [first === undefined ? Object.keys(all) : [first, ...rest], []];
const unknown = named.find((name) => !Object.hasOwn(all, name));
if (unknown !== undefined) {
  process.stderr.write(`npm run bench [-- NAME…]: there is no benchmark "${unknown}"; there are: ${Object.keys(all).join(", ")}\n`);
  process.exitCode = 2;
} else for (const name of named) await all[name]?.(given);
