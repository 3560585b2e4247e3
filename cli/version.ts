/** The program's version, from its package. */
import { createRequire } from "node:module";

export const programVersion = (createRequire(import.meta.url)("../../package.json") as { version: string }).version;
