// `npm test [-- PATTERN…]`: makes the clone ready, runs every *.test.js of the build whose path holds a PATTERN (all of them without one),
// and closes with what failed and "N passed, N failed". A file runs in a process of its own; it must end by itself, so a leaked timer or socket is seen.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { createInterface } from "node:readline";
import { makeReady, root } from "./ready.mjs";

makeReady();
const patterns = process.argv.slice(2);
const dist = join(root, "dist");
const files = readdirSync(dist, { recursive: true })
  .filter((name) => name.endsWith(".test.js") && (patterns.length === 0 || patterns.some((pattern) => name.includes(pattern))))
  .sort()
  .map((name) => relative(root, join(dist, name)));
if (files.length === 0) {
  console.error("no test file's path holds that");
  process.exit(2);
}
// Those that wait for a slow wire more than they compute go first.
const waits = (name) => /^dist\/(sim|plugins\/mavftp)\//.test(name);
// Where nobody looks on, a file that hangs is named and the others go on; by hand its long form may take hours.
const longest = process.env.CI ? ["--test-timeout=1200000"] : [];
// A file takes about half of a core, as it waits for its processes.
const atOnce = 4;
const counts = { pass: 0, fail: 0, skipped: 0, cancelled: 0 };
let failures = "";
let ended = true;
for (const some of [files.filter(waits), files.filter((name) => !waits(name))])
  if (some.length > 0 && (await run(some)) !== 0) ended = false;
const failed = counts.fail + counts.cancelled;
console.log(`${failures}\n${counts.pass} passed, ${failed} failed${counts.skipped ? `, ${counts.skipped} skipped` : ""}`);
process.exitCode = ended && failed === 0 && counts.pass > 0 ? 0 : 1;

/** The exit code of Node's runner. */
async function run(files) {
  const child = spawn(
    process.execPath,
    ["--enable-source-maps", "--test", "--test-reporter=spec", `--test-concurrency=${atOnce}`, ...longest, ...files],
    { cwd: root, stdio: ["ignore", "pipe", "inherit"] },
  );
  const closed = once(child, "close");
  let failing = false;
  for await (const line of createInterface({ input: child.stdout })) {
    const match = /^ℹ (pass|fail|skipped|cancelled) (\d+)$/.exec(line);
    if (match) counts[match[1]] += Number(match[2]);
    failing ||= line === "✖ failing tests:";
    if (failing) failures += `${line}\n`;
    else console.log(line);
  }
  return (await closed)[0];
}
