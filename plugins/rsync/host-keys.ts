/**
 * The file of host keys that ssh believes: only what the configuration believes is in it, under a name of our own. Which keys the server has is
 * asked by ssh-keyscan, once: what was believed before is believed again without a question. One type after the other, until one is believed:
 * asked for all of them it comes by as many connections at once as there are types, of which a server that lets few strangers in takes some.
 */
import { readFile, writeFile } from "node:fs/promises";
import { believed, type Believed } from "../../core/host-key.js";
import type { Children } from "./children.js";
import type { RsyncOptions } from "./options.js";

/** Under which ssh looks for the server's keys. */
export const hostAlias = "filesync";

/** As ssh prefers them. */
const types = ["ed25519", "ecdsa", "rsa"];

export interface HostKeys {
  /** Why none of the server's keys is believed, for a person; undefined where one is. */
  readonly objection: string | undefined;
  /** The server showed a key, or one is known: without any ssh takes whatever it sees for a key that is not believed. */
  readonly any: boolean;
}

/** Writes `file`. `anew`: asks the server, whatever is known. Throws "denied" where a configured file cannot be read. */
export async function writeHostKeys(
  file: string,
  options: RsyncOptions,
  children: Children,
  signal: AbortSignal,
  anew: boolean,
): Promise<HostKeys> {
  const keys = await believed(options);
  if (!anew && (await anyBelieved(file, keys))) return { objection: undefined, any: true };
  const seconds = String(Math.max(1, Math.ceil(options.timeout / 1000)));
  let objection: string | undefined;
  let good: string | undefined;
  for (const type of types) {
    const { out, err } = await children.run(["ssh-keyscan", "-t", type, "-T", seconds, "-p", String(options.port), "--", options.host], {
      signal,
    });
    for (const { line, bytes } of keysIn(out)) {
      const against = keys.objection(bytes);
      if (against === undefined) good ??= line;
      else objection ??= against;
    }
    // Who does not even say what server it is answers nothing else either.
    if (good !== undefined || !/SSH-\d/.test(out + err)) break;
  }
  await writeFile(file, good === undefined ? "" : `${hostAlias} ${good}\n`, { mode: 0o600 });
  return good === undefined ? { objection, any: objection !== undefined } : { objection: undefined, any: true };
}

async function anyBelieved(file: string, keys: Believed): Promise<boolean> {
  let text: string;
  try {
    text = await readFile(file, "latin1");
  } catch {
    // There is none yet.
    return false;
  }
  const known = keysIn(text);
  return known.length > 0 && known.every(({ bytes }) => keys.objection(bytes) === undefined);
}

function keysIn(text: string): { readonly line: string; readonly bytes: Buffer }[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", type = "", key = ""] = line.trim().split(/\s+/);
    return name.startsWith("#") || key === "" ? [] : [{ line: `${type} ${key}`, bytes: Buffer.from(key, "base64") }];
  });
}
