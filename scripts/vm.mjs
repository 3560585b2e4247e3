// A Debian machine in QEMU, built at the first time (test/vm/build.sh); prints what happens, then a table. 1: something failed.
// `npm run vm -- disks [--pulls N] …`: USB sticks are plugged and pulled, and the power is cut.
// `npm run vm -- install [--cuts N] [--idle MINUTES] …`: FileSync is installed by its script, used, upgraded, broken, the power cut, and taken away.
// Both take [--seed S] [--only NAME,NAME] [--cache DIR] [--kvm] [--quiet].
import { makeReady } from "./ready.mjs";

makeReady();
const [what, ...words] = process.argv.slice(2);
const given = Object.fromEntries(
  words.map((word, n, all) => (word.startsWith("--") ? [word.slice(2), all[n + 1]] : [])).filter((pair) => pair.length),
);
const seed = Number(given.seed ?? Math.floor(Math.random() * 2 ** 31));
const times = Number(given.pulls ?? given.cuts ?? 50);
const runs = {
  disks: async () => {
    const { disks, scenarios } = await import("../dist/test/vm/disks.js");
    return { names: scenarios, run: (options) => disks({ ...options, pulls: times }), count: "--pulls" };
  },
  install: async () => {
    const { install, steps } = await import("../dist/test/vm/install.js");
    return { names: steps, run: (options) => install({ ...options, cuts: times, idleMinutes: Number(given.idle ?? 2) }), count: "--cuts" };
  },
};
const only = given.only?.split(",");
const { names = [], run, count } = (await runs[what]?.()) ?? {};
if (
  run === undefined ||
  !Number.isInteger(seed) ||
  !(Number.isInteger(times) && times > 0) ||
  only?.some((name) => !names.includes(name))
) {
  console.error(
    `npm run vm -- ${run === undefined ? "disks|install" : what} --seed NUMBER ${count ?? "--pulls|--cuts"} NUMBER --only ${names.join(",")} --cache DIR --kvm --quiet`,
  );
  process.exit(2);
}
const begun = Date.now();
console.log(`seed ${seed}; the same chances again: npm run vm -- ${what} --seed ${seed} ${count} ${times}`);
const say = (line) => {
  if (!("quiet" in given) || /^(ok|FAIL|---)/.test(line)) console.log(line);
};
const rows = await run({
  seed,
  say,
  ...(only === undefined ? {} : { only }),
  ...(given.cache === undefined ? {} : { cache: given.cache }),
  ...("kvm" in given ? { kvm: true } : {}),
});
if (typeof rows === "string") {
  console.error(rows);
  process.exit(2);
}
// All of it is above.
const short = (text) => (text.length > 100 ? `${text.slice(0, 99)}…` : text);
console.table(rows.map(({ scenario, what, value, ok }) => ({ scenario, what: short(what), value: short(value), ok: ok ? "ok" : "FAIL" })));
const failed = rows.filter(({ ok }) => !ok).length;
console.log(`${rows.length - failed} ok, ${failed} failed; ${Math.round((Date.now() - begun) / 1000)} s`);
process.exitCode = failed === 0 ? 0 : 1;
