// A Debian machine in QEMU, built at the first time (test/vm/build.sh); prints what happens, then a table. 1: something failed.
// `npm run vm -- disks [--pulls N] …`: USB sticks are plugged and pulled, and the power is cut.
// `npm run vm -- install [--cuts N] [--idle MINUTES] …`: FileSync is installed by its script, used, upgraded, broken, the power cut, and taken away.
// Both take [--seed S] [--only NAME,NAME] [--cache DIR] [--kvm] [--quiet].
import { makeReady } from "./ready.mjs";
import { countIn, end, numberIn, wordsOf } from "./words.mjs";

makeReady();
const usage =
  "npm run vm -- disks [--pulls N] | install [--cuts N] [--idle MINUTES], each with [--seed S] [--only NAME,NAME] [--cache DIR] [--kvm] [--quiet]";
const given = wordsOf(usage, { texts: ["pulls", "cuts", "idle", "seed", "only", "cache"], flags: ["kvm", "quiet"], positionals: true });
const seed = numberIn(given, "seed", Math.floor(Math.random() * 2 ** 31));
const pulls = countIn(given, "pulls", 50);
const cuts = countIn(given, "cuts", 50);
const idleMinutes = numberIn(given, "idle", 2, 0);
const [what] = given._;
const runs = {
  disks: async () => {
    const { disks, scenarios } = await import("../dist/test/vm/disks.js");
    return { names: scenarios, run: (options) => disks({ ...options, pulls }), count: `--pulls ${pulls}` };
  },
  install: async () => {
    const { install, steps } = await import("../dist/test/vm/install.js");
    return { names: steps, run: (options) => install({ ...options, cuts, idleMinutes }), count: `--cuts ${cuts}` };
  },
};
const only = given.only?.split(",");
const { names = [], run, count } = (await runs[what]?.()) ?? {};
if (run === undefined) end(usage);
const odd = only?.find((name) => !names.includes(name));
if (odd !== undefined) end(`--only ${odd}: it is not one of ${names.join(", ")}`);
const begun = Date.now();
console.log(`seed ${seed}; the same chances again: npm run vm -- ${what} --seed ${seed} ${count}`);
const say = (line) => {
  if (!given.quiet || /^(ok|FAIL|---)/.test(line)) console.log(line);
};
const rows = await run({
  seed,
  say,
  ...(only === undefined ? {} : { only }),
  ...(given.cache === undefined ? {} : { cache: given.cache }),
  ...(given.kvm ? { kvm: true } : {}),
});
if (typeof rows === "string") end(rows);
// All of it is above.
const short = (text) => (text.length > 100 ? `${text.slice(0, 99)}…` : text);
console.table(rows.map(({ scenario, what, value, ok }) => ({ scenario, what: short(what), value: short(value), ok: ok ? "ok" : "FAIL" })));
const failed = rows.filter(({ ok }) => !ok).length;
console.log(`${rows.length - failed} ok, ${failed} failed; ${Math.round((Date.now() - begun) / 1000)} s`);
process.exitCode = failed === 0 ? 0 : 1;
