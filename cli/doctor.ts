/** `doctor`: everything on this machine that keeps files from arriving, and what to type about it. Changes nothing. */
import { findConfig, type Found } from "./config.js";
import { examine } from "./doctor/examine.js";
import { type Finding, findingsText } from "./doctor/finding.js";
import { thisView } from "./machine/view.js";
import { programVersion } from "./version.js";

/** 0: nothing is bad; 3: something is; 2: the configuration cannot be used at all. */
export async function doctorCommand(given: string | undefined, json: boolean): Promise<number> {
  const { findings, usable } = await diagnosis(await findConfig(given));
  process.stdout.write(`${json ? JSON.stringify({ version: programVersion, findings }) : findingsText(findings)}\n`);
  return usable ? (findings.some(({ severity }) => severity === "bad") ? 3 : 0) : 2;
}

/** `usable`: what there is of a configuration can be used; none is no mistake unless it was named. */
export async function diagnosis(file: Found | undefined): Promise<{ findings: Finding[]; usable: boolean }> {
  const findings = await examine(thisView(), { file, filesync: programVersion, node: process.versions.node, arch: process.arch });
  const loaded = file?.loaded;
  return { findings, usable: file === undefined || (typeof loaded === "object" && loaded.config !== undefined) };
}
