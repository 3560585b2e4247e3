// `npm test [-- PATTERN…]`: makes the clone ready, runs every *.test.js of the build whose path holds a PATTERN (all of them without one),
// and closes with what failed and "N passed, N failed". A file runs in a process of its own; it must end by itself, so a leaked timer or socket is seen.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { SourceMap } from "node:module";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { clearTimeout, setTimeout } from "node:timers";
import { setTimeout as sleep } from "node:timers/promises";
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
// Those that wait for a slow wire more than they compute go first, beside others; short ones go last, so that no core is idle while one of minutes ends.
const turns = [/^dist\/(sim|plugins\/mavftp)\//, /^dist\/test\/(sync|faults|deploy|acceptance|conformance\/(rsync|sftp))/, /./];
const turnOf = (name) => turns.findIndex((turn) => turn.test(name));
const queue = files.sort((a, b) => turnOf(a) - turnOf(b));
// Where nobody looks on, a file that hangs is named and the others go on; by hand its long form may take hours.
const longestMs = process.env.CI ? 1_200_000 : 2 ** 31 - 1;
// Two cores are busy with these: a file takes less than half of one, as it waits for its processes.
const atOnce = 5;
const counts = { pass: 0, fail: 0, cancelled: 0, skipped: 0 };
let failures = "";
// Node's own runner of many files sorts them.
await Promise.all(
  Array.from({ length: atOnce }, async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) await run(file);
  }),
);
const failed = counts.fail + counts.cancelled;
console.log(`${failures}\n${counts.pass} passed, ${failed} failed${counts.skipped ? `, ${counts.skipped} skipped` : ""}`);
process.exitCode = failed === 0 && counts.pass > 0 ? 0 : 1;

/** Prints what the file said once it has ended, its failures at the end of all. */
async function run(file) {
  const reports = mkdtempSync(join(tmpdir(), "filesync-test-"));
  const reporting = ["--report-on-signal", `--report-directory=${reports}`, "--report-filename=hung.json"];
  const child = spawn(process.execPath, ["--test-reporter=spec", ...reporting, file], {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (said += text));
  let keeps;
  const hanging = setTimeout(async () => {
    keeps = whatKeeps(child, reports);
    await keeps;
    child.kill("SIGKILL");
    // What it left running may have it open.
    child.stdout.destroy();
  }, longestMs);
  const [code, signal] = await once(child, "close");
  clearTimeout(hanging);
  const waitsFor = await keeps;
  const hung = waitsFor !== undefined;
  rmSync(reports, { recursive: true });
  const [told, failing] = (code === 0 ? said : inSources(said)).split("✖ failing tests:\n");
  let failed = 0;
  for (const [, what, count] of told.matchAll(/^ℹ (pass|fail|cancelled|skipped) (\d+)$/gm)) {
    counts[what] += Number(count);
    if (what === "fail" || what === "cancelled") failed += Number(count);
  }
  process.stdout.write(told.replaceAll(/^ℹ (tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) .*\n+/gm, ""));
  if (failing !== undefined) failures += `\n✖ ${file}\n${failing}`;
  if (!hung && (failed > 0 || code === 0)) return;
  if (failed === 0) counts.fail += 1;
  failures += `\n✖ ${file} ${hung ? `did not end within ${longestMs / 60_000} minutes` : `ended with ${signal ?? code}`}\n${waitsFor ?? ""}`;
}

/** Places in the build as those in the sources. node can do it itself (--enable-source-maps), and reads the map of each module then: a fifth of what a file costs to start. */
function inSources(text) {
  return text.replaceAll(/(?:file:\/\/)?([^\s()]*\bdist\/[^\s()]+\.js):(\d+):(\d+)/g, (place, path, line, column) => {
    const map = `${resolve(root, path)}.map`;
    // Of a package, which has a dist/ of its own.
    if (path.includes("node_modules/") || !existsSync(map)) return place;
    const { originalSource, originalLine, originalColumn } = new SourceMap(JSON.parse(readFileSync(map, "utf8"))).findEntry(
      line - 1,
      column - 1,
    );
    return originalSource === undefined
      ? place
      : `${relative(root, resolve(map, "..", originalSource))}:${originalLine + 1}:${originalColumn + 1}`;
  });
}

/** Of a file that hangs: what its process runs, has open and has below it. */
async function whatKeeps(child, reports) {
  const below = spawnSync("ps", ["-o", "pid,stat,etime,wchan:20,args", "--pid", `${child.pid}`, "--ppid", `${child.pid}`], {
    encoding: "utf8",
  });
  child.kill("SIGUSR2");
  // By then its tests had ended, and node was closing what was open.
  const died = () => (child.signalCode === "SIGUSR2" ? "node did not come to its end after them\n" : "");
  // Nothing is written where it waits for a child, and for nothing else.
  await sleep(5000);
  try {
    const { javascriptStack, libuv } = JSON.parse(readFileSync(join(reports, "hung.json"), "utf8"));
    const handles = libuv.filter(({ is_active: active }) => active).map((handle) => JSON.stringify(handle));
    return [below.stdout ?? "", ...(javascriptStack?.stack ?? []), ...handles, ""].join("\n");
  } catch (error) {
    return `${below.stdout ?? ""}${died()}no report of it: ${error.message}\n`;
  }
}
