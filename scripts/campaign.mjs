// `npm run campaign -- [--seed S] [--kills N] [--files N] [--link L]`: kills the daemon over and over, prints what it cost, and its seed.
import { makeReady } from "./ready.mjs";

makeReady();
const given = Object.fromEntries(
  process.argv
    .slice(2)
    .map((word, n, all) => (word.startsWith("--") ? [word.slice(2), all[n + 1]] : []))
    .filter((pair) => pair.length),
);
const seed = Number(given.seed ?? Math.floor(Math.random() * 2 ** 31));
console.log(`seed ${seed}`);
const { campaign } = await import("../dist/test/faults/campaign.js");
const report = await campaign({
  seed,
  kills: Number(given.kills ?? 30),
  files: Number(given.files ?? 30),
  longestMs: Number(given.longest ?? 4000),
  link: given.link,
});
console.log(JSON.stringify(report, null, 2));
