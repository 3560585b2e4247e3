/** `npm run bench [-- NAME…]`: runs the named benchmarks, or all; each prints a table in Markdown. */
import { cutThrough } from "./cut-through.js";
import { idle } from "./idle.js";
import { many } from "./many.js";
import { push } from "./push.js";
import { resume } from "./resume.js";
import { slowCard } from "./slow-card.js";

const all: Readonly<Record<string, () => Promise<void>>> = { idle, many, "slow-card": slowCard, "cut-through": cutThrough, push, resume };

const named = process.argv.slice(2);
for (const name of named.length > 0 ? named : Object.keys(all)) {
  const bench = all[name];
  if (bench === undefined) throw new Error(`there is no benchmark "${name}"; there are: ${Object.keys(all).join(", ")}`);
  await bench();
}
