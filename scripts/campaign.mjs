// `npm run campaign -- [--seed S] [--minutes M] [--quiet]`: the daemon under a seeded schedule of faults; prints each fault, a table, and what was found.
// `--target sftp|webdav|rsync`: the ground station is such a server instead of FTP servers; `post`: a single shot at a double of Flight Review.
// `--disk source|target [--fs ext4|exfat] [--pulls N] [--megabytes M]`: a disk that is pulled again and again while it is read or written.
// `--mavftp [--files N]`: the same beside six autopilots, which are read by MAVLink FTP.
// `--cuts [--scene S] [--most N]`: power is cut at each sync of a disk, or at so many of them, in each scene or in one.
import { makeReady } from "./ready.mjs";
import { countIn, end, numberIn, wordsOf } from "./words.mjs";

makeReady();
const given = wordsOf(
  "npm run campaign -- [--target ftp|sftp|webdav|rsync|post | --mavftp [--files N] | --disk source|target [--fs ext4|exfat] [--pulls N] [--megabytes M] | --cuts [--scene S] [--most N]] [--seed S] [--minutes M] [--quiet]",
  {
    texts: ["seed", "minutes", "target", "disk", "fs", "pulls", "megabytes", "files", "scene", "most"],
    flags: ["mavftp", "cuts", "quiet"],
  },
);
const seed = numberIn(given, "seed", Math.floor(Math.random() * 2 ** 31));
const minutes = numberIn(given, "minutes", given.mavftp ? 120 : 35, 0.1);
const files = countIn(given, "files", 500);
const pulls = countIn(given, "pulls", 100);
const megabytes = countIn(given, "megabytes", 2000);
const say = given.quiet ? undefined : (line) => console.log(line);
const target = given.target ?? "ftp";
const what = given.disk
  ? `--disk ${given.disk} --fs ${given.fs ?? "ext4"} --pulls ${pulls} --megabytes ${megabytes} `
  : given.target
    ? `--target ${target} `
    : given.mavftp
      ? `--mavftp --files ${files} `
      : "";
const command = given.cuts
  ? `npm run campaign -- --cuts${given.scene ? ` --scene "${given.scene}"` : ""}${given.most ? ` --most ${given.most}` : ""} --seed ${seed}`
  : `npm run campaign -- ${what}--seed ${seed} --minutes ${minutes}`;
// How many syncs a scene makes depends on the machine.
console.log(`seed ${seed}; ${given.cuts ? "about " : ""}the same schedule again: ${command}`);
const findings = given.cuts
  ? await cut()
  : given.disk
    ? await disk()
    : given.mavftp
      ? await fleet()
      : target === "post"
        ? await single()
        : await world();
process.exitCode = findings.length === 0 ? 0 : 1;

async function cut() {
  const { cuts, whyNoCuts } = await import("../dist/test/faults/cuts/disks.js");
  const { scenes } = await import("../dist/test/faults/cuts/scenes.js");
  const names = given.scene ? [given.scene] : Object.keys(scenes);
  const why = names.every((name) => name in scenes) ? whyNoCuts() : `it is not one of ${Object.keys(scenes).join("; ")}`;
  if (why !== undefined) end(`--cuts: ${why}`);
  const most = given.most ? countIn(given, "most") : undefined;
  const all = [];
  const dirs = [];
  for (const name of names) {
    if (scenes[name].skip !== undefined) {
      console.log(`${name}: skipped: ${scenes[name].skip}`);
      continue;
    }
    const report = await cuts(scenes[name], { seed, most, say: (line) => say?.(`${name}: ${line}`) });
    console.log(`${name}: ${report.cuts} cuts at ${report.syncs} syncs, ${report.findings.length} found`);
    all.push(...report.findings.map((finding) => `${name}: ${finding}`));
    if (report.findings.length > 0) dirs.push(report.dir);
  }
  tell(all, dirs);
  return all;
}

async function fleet() {
  const { fleetCampaign } = await import("../dist/test/faults/campaign/fleet.js");
  const rounds = Math.max(1, Math.ceil(files / 250));
  const long = { lives: 8, lifeMs: 24_000, usualBytes: 200_000, loss: 0.3, restMs: 600_000 };
  const report = await fleetCampaign({ seed, minutes, files, rounds, ...long, say });
  console.table(report.counts);
  console.table(report.vehicles);
  const { faults, kills, receipts, seconds } = report;
  console.log(`${faults} faults, ${kills} kills, ${report.rounds} rounds; ${report.files} files, ${receipts} receipts; ${seconds} s`);
  tell(report.findings, report.dir === undefined ? [] : [report.dir]);
  return report.findings;
}

async function disk() {
  const { diskCampaign } = await import("../dist/test/faults/campaign/disk.js");
  if (given.disk !== "source" && given.disk !== "target") end("--disk is source or target: what the disk is");
  const how = { role: given.disk, fs: given.fs ?? "ext4", pulls, megabytes, rate: 100 * 2 ** 20, restMs: 600_000, say };
  const report = await diskCampaign({ seed, ...how });
  if (typeof report === "string") end(report);
  const { findings, dir, ...counts } = report;
  console.table(counts);
  tell(findings, [dir]);
  return findings;
}

async function single() {
  const { postCampaign } = await import("../dist/test/faults/campaign/post.js");
  const report = await postCampaign({ seed, minutes, rounds: Math.ceil(minutes * 3), livesPerRound: 6, lifeMs: 3500, say });
  console.table(report.counts);
  console.log(`${report.rounds} rounds; ${report.files} files, ${report.posted} posted, ${report.inDoubt} decided by a person`);
  tell(report.findings, report.dir === undefined ? [] : [report.dir]);
  return report.findings;
}

async function world() {
  const { campaign } = await import("../dist/test/faults/campaign/run.js");
  const { missingHere } = await import("../dist/test/faults/campaign/abilities.js");
  const { whyNoPlace, places } = await import("../dist/test/faults/campaign/place.js");
  const why = places.includes(target) ? whyNoPlace(target) : `it is not one of ${places.join(", ")}, post`;
  if (why !== undefined) end(`--target ${target}: ${why}`);
  const without = missingHere(target);
  if (without.size > 0) console.log(`cannot be done on this machine: ${[...without].join(", ")}`);
  // A round takes about a minute and a half; the time ends it.
  const report = await campaign({
    seed,
    minutes,
    rounds: Math.ceil(minutes * 3),
    target,
    livesPerRound: 16,
    lifeMs: 3500,
    stopMs: minutes >= 10 ? 60_000 : 10_000,
    without,
    say,
  });
  console.table(report.counts);
  console.log(
    `${report.faults} faults, ${report.kills} kills, ${report.rounds} rounds; ${report.files} files, ${report.megabytes} MB, ${report.receipts} receipts`,
  );
  console.table(report.again);
  tell(report.findings, report.dirs);
  return report.findings;
}

function tell(findings, dirs) {
  if (findings.length === 0) {
    console.log("0 lost, 0 wrong, 0 overwritten, 0 stuck");
    return;
  }
  console.log(`${findings.length} found:`);
  for (const finding of findings.slice(0, 100)) console.log(`  ${finding}`);
  console.log(`the worlds are in ${dirs.join(", ")}; again: ${command}`);
}
