// `npm start [-- ARGUMENTS]`: makes the clone ready, then runs FileSync in this process: with arguments as they are, else the configuration
// beside it if there is one, else the demo.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { makeReady, root } from "./ready.mjs";

makeReady();
const given = process.argv.slice(2);
const own = existsSync(join(root, "config.json")) ? ["run"] : ["demo"];
// Options alone belong to the command that would run.
process.argv = [
  process.argv[0],
  join(root, "dist/cli/main.js"),
  ...(given.length > 0 && !given[0].startsWith("-") ? given : [...own, ...given]),
];
await import("../dist/cli/main.js");
