/** The words of the command line as names have them: what is no UTF-8 node turns into U+FFFD, and names no file then. */
import { readFileSync } from "node:fs";
import { nameFromBytes } from "../core/names.js";

/** `argv` of node, each word in which bytes were lost as `nameFromBytes` of those: "bad‛FF.txt". Where the system does not tell them it stays as it is. */
export function typedWords(argv: readonly string[], commandLine: () => Buffer = () => readFileSync("/proc/self/cmdline")): string[] {
  if (!argv.some((word) => word.includes("\ufffd"))) return [...argv];
  let raw: Buffer[];
  try {
    // Each word ends with a zero.
    raw = partsOf(commandLine()).slice(0, -1);
  } catch {
    return [...argv];
  }
  // Options of node stand before.
  const skipped = raw.length - argv.length;
  return argv.map((word, n) => {
    const bytes = raw[n + skipped];
    return word.includes("\ufffd") && bytes?.toString() === word && !bytes.equals(Buffer.from(word)) ? nameFromBytes(bytes) : word;
  });
}

function partsOf(bytes: Buffer): Buffer[] {
  const parts: Buffer[] = [];
  for (let from = 0; from <= bytes.length;) {
    const zero = bytes.indexOf(0, from);
    const end = zero === -1 ? bytes.length : zero;
    parts.push(bytes.subarray(from, end));
    from = end + 1;
  }
  return parts;
}
