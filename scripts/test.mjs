// `npm test [-- PATTERN…]`: makes the clone ready, runs every *.test.js of the build whose path holds a PATTERN (all of them without one),
// and closes with "N passed, N failed". A file runs in a process of its own; it must end by itself, so a leaked timer or socket is seen.
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { makeReady, root } from "./ready.mjs";

makeReady();
const patterns = process.argv.slice(2);
const dist = join(root, "dist");
const files = readdirSync(dist, { recursive: true })
  .filter((name) => name.endsWith(".test.js") && patterns.every((pattern) => name.includes(pattern)))
  .sort()
  .map((name) => relative(root, join(dist, name)));
if (files.length === 0) {
  console.error("no test file's path holds that");
  process.exit(2);
}
const child = spawn(process.execPath, ["--enable-source-maps", "--test", "--test-reporter=spec", "--test-concurrency=2", ...files], {
  cwd: root,
  stdio: ["ignore", "pipe", "inherit"],
});
const counts = { pass: 0, fail: 0, skipped: 0, cancelled: 0 };
let rest = "";
child.stdout.setEncoding("utf8");
child.stdout.on("data", (text) => {
  process.stdout.write(text);
  const lines = (rest + text).split("\n");
  rest = lines.pop();
  for (const line of lines) {
    const match = /^ℹ (pass|fail|skipped|cancelled) (\d+)$/.exec(line);
    if (match) counts[match[1]] = Number(match[2]);
  }
});
child.on("close", (code) => {
  const failed = counts.fail + counts.cancelled;
  console.log(`\n${counts.pass} passed, ${failed} failed${counts.skipped ? `, ${counts.skipped} skipped` : ""}`);
  process.exitCode = code === 0 && failed === 0 && counts.pass > 0 ? 0 : 1;
});
