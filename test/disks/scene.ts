/** What the tests of disks that are plugged and pulled have in common. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { Program, type SeenEvent, statusNow } from "../faults/process.js";
import { DiskLab } from "./lab.js";

/** A laboratory for as long as the test lasts; undefined: it cannot be had here, and the test was skipped with the reason. */
export async function labFor(t: TestContext): Promise<DiskLab | undefined> {
  const lab = await DiskLab.open();
  if (typeof lab === "string") {
    t.skip(lab);
    return undefined;
  }
  t.after(() => lab.close());
  return lab;
}

/** The daemon in the laboratory, with this configuration; killed after the test. */
export function daemonIn(t: TestContext, lab: DiskLab, config: string): Program {
  const program = new Program(["run", "--json", "--config", config], { wrap: lab.wrap() });
  t.after(() => program.kill());
  return program;
}

/** It was said that a disk may be pulled. */
export const isSafe = ({ facts }: SeenEvent): boolean => facts?.["safe"] === true;

/** Waits until that is said after this event: a target may be pulled, too, before anything was found for it. */
export function safeAfter(program: Program, event: SeenEvent): Promise<SeenEvent> {
  const { events } = program;
  return program.until((other) => isSafe(other) && events.indexOf(other) > events.indexOf(event), "that it may be pulled then");
}

/** Waits until the first transfer has come so far. The daemon is asked itself: before a command has started, a transfer may be through. */
export async function reached(program: Program, config: string, bytes: number): Promise<void> {
  await program.until(({ message }) => message.includes("is ready"), "that it is ready");
  for (const until = performance.now() + 120_000; performance.now() < until;) {
    const status = await statusNow(config);
    if (status === undefined) assert.fail(`nobody answers; ${await program.ending(5000)}`);
    const { transfers } = status;
    if ((transfers[0]?.offset ?? 0) >= bytes) return;
    await new Promise((go) => setTimeout(go, 20));
  }
  assert.fail(`no transfer came as far as ${bytes}:\n${program.events.map(({ message }) => message).join("\n")}`);
}

/** Waits until nothing is mounted below `dir`. */
export async function noMount(lab: DiskLab, dir: string, program?: Program): Promise<void> {
  for (const until = performance.now() + 60_000; lab.mounts().some(({ target }) => target.startsWith(dir));) {
    assert.ok(performance.now() < until, `it is still mounted:\n${program?.events.map(({ message }) => message).join("\n") ?? ""}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
