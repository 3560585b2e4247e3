// `npm run vm -- disks [--seed S] [--pulls N] [--only uuid,any,target,twins,power] [--cache DIR] [--kvm] [--quiet]`: a Debian machine in QEMU, built at the
// first time (test/vm/build.sh), in which USB sticks are plugged and pulled and the power is cut; prints what happens, then a table. 1: something failed.
import { makeReady } from "./ready.mjs";

makeReady();
const [what, ...words] = process.argv.slice(2);
const given = Object.fromEntries(
  words.map((word, n, all) => (word.startsWith("--") ? [word.slice(2), all[n + 1]] : [])).filter((pair) => pair.length),
);
const seed = Number(given.seed ?? Math.floor(Math.random() * 2 ** 31));
const pulls = Number(given.pulls ?? 50);
const { disks, scenarios } = await import("../dist/test/vm/disks.js");
const only = given.only?.split(",");
if (
  what !== "disks" ||
  !Number.isInteger(seed) ||
  !(Number.isInteger(pulls) && pulls > 0) ||
  only?.some((name) => !scenarios.includes(name))
) {
  console.error(`npm run vm -- disks --seed NUMBER --pulls NUMBER --only ${scenarios.join(",")} --cache DIR --kvm --quiet`);
  process.exit(2);
}
const begun = Date.now();
console.log(`seed ${seed}; the same chances again: npm run vm -- disks --seed ${seed} --pulls ${pulls}`);
const say = (line) => {
  if (!("quiet" in given) || /^(ok|FAIL|---)/.test(line)) console.log(line);
};
const rows = await disks({
  seed,
  pulls,
  say,
  ...(only === undefined ? {} : { only }),
  ...(given.cache === undefined ? {} : { cache: given.cache }),
  ...("kvm" in given ? { kvm: true } : {}),
});
if (typeof rows === "string") {
  console.error(rows);
  process.exit(2);
}
console.table(rows.map(({ ok, ...row }) => ({ ...row, ok: ok ? "ok" : "FAIL" })));
const failed = rows.filter(({ ok }) => !ok).length;
console.log(`${rows.length - failed} ok, ${failed} failed; ${Math.round((Date.now() - begun) / 1000)} s`);
process.exitCode = failed === 0 ? 0 : 1;
