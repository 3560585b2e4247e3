// `npm run campaign -- [--seed S] [--minutes M] [--quiet]`: the daemon under a seeded schedule of faults; prints each fault, a table, and what was found.
import { makeReady } from "./ready.mjs";

makeReady();
const given = Object.fromEntries(
  process.argv
    .slice(2)
    .map((word, n, all) => (word.startsWith("--") ? [word.slice(2), all[n + 1]] : []))
    .filter((pair) => pair.length),
);
const seed = Number(given.seed ?? Math.floor(Math.random() * 2 ** 31));
const minutes = Number(given.minutes ?? 35);
if (!Number.isFinite(seed) || !(minutes > 0)) {
  console.error("npm run campaign -- --seed NUMBER --minutes NUMBER");
  process.exit(2);
}
const command = `npm run campaign -- --seed ${seed} --minutes ${minutes}`;
console.log(`seed ${seed}; the same schedule again: ${command}`);
const { campaign } = await import("../dist/test/faults/campaign/run.js");
const { missingHere } = await import("../dist/test/faults/campaign/abilities.js");
const without = missingHere();
if (without.size > 0) console.log(`cannot be done on this machine: ${[...without].join(", ")}`);
// A round takes about a minute and a half; the time ends it.
const report = await campaign({
  seed,
  minutes,
  rounds: Math.ceil(minutes * 3),
  livesPerRound: 16,
  lifeMs: 3500,
  stopMs: minutes >= 10 ? 60_000 : 10_000,
  without,
  say: "quiet" in given ? undefined : (line) => console.log(line),
});
console.table(report.counts);
console.log(
  `${report.faults} faults, ${report.kills} kills, ${report.rounds} rounds; ${report.files} files, ${report.megabytes} MB, ${report.receipts} receipts`,
);
console.table(report.again);
if (report.findings.length === 0) console.log("0 lost, 0 wrong, 0 overwritten, 0 stuck");
else {
  console.log(`${report.findings.length} found:`);
  for (const finding of report.findings.slice(0, 100)) console.log(`  ${finding}`);
  console.log(`the worlds are in ${report.dirs.join(", ")}; again: ${command}`);
}
process.exitCode = report.findings.length === 0 ? 0 : 1;
