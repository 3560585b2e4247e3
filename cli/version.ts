/** The program's version, from its package, and where that is. */
import { statSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

export const programVersion = (createRequire(import.meta.url)("../../package.json") as { version: string }).version;

/** Where the program is: through the link of an installation, so that an upgrade does not leave what is written with an old path. */
export const packageRoot = ((): string => {
  const own = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
  const installed = "/opt/filesync/current";
  const same = (): boolean => {
    const [a, b] = [statSync(own), statSync(installed, { throwIfNoEntry: false })];
    return b !== undefined && a.ino === b.ino && a.dev === b.dev;
  };
  return same() ? installed : own;
})();
