import { parseArgs } from "node:util";

/** The command line of a script: its options by name, and what else was said in `_`. `--help`, or what it does not know, ends it with the usage. */
export function wordsOf(usage, { texts = [], flags = [], positionals = false }) {
  const options = Object.fromEntries([
    ...texts.map((name) => [name, { type: "string" }]),
    ...[...flags, "help"].map((name) => [name, { type: "boolean" }]),
  ]);
  try {
    const { values, positionals: _ } = parseArgs({ options, allowPositionals: positionals });
    if (values.help) {
      console.log(usage);
      process.exit(0);
    }
    return { ...values, _ };
  } catch (error) {
    return end(`${error.message}\n${usage}`);
  }
}

/** A number, or `fallback` where nothing was given. */
export function numberIn(given, name, fallback, least = -Infinity) {
  const n = given[name] === undefined ? fallback : Number(given[name]);
  if (Number.isFinite(n) && n >= least) return n;
  return end(`--${name}: expected a number${least === -Infinity ? "" : ` from ${least} up`}, got "${given[name]}"`);
}

/** A whole number from 1 up. */
export function countIn(given, name, fallback) {
  const n = numberIn(given, name, fallback, 1);
  return Number.isInteger(n) ? n : end(`--${name}: expected a whole number, got "${given[name]}"`);
}

export function end(message) {
  console.error(message);
  process.exit(2);
}
