/** What random histories have in common: devices whose calls hang, fail and are late, and whose answers are lost, files that grow and are replaced, and who sees what targets are given. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Fault } from "../../core/errors.js";
import type { VersionRow } from "../../core/rows.js";
import { expire } from "../../core/space.js";
import type { Bench, FakeDevice } from "../fake-device.js";
import { Random } from "../faults/random.js";

/** A device, or what was in it. */
type Held = Pick<FakeDevice, "files" | "put">;

export class Scene {
  readonly random: Random;
  /** What each path held at any moment. */
  readonly held = new Map<string, Buffer[]>();
  readonly wrong: string[] = [];
  #calm = false;
  #timeMs = Date.UTC(2026, 4, 1);
  #goOn: (() => void)[] = [];

  constructor(readonly seed: number) {
    this.random = new Random(seed);
  }

  /** Its calls hang, fail and are late from now on, and answers are lost, until it is calm. */
  trouble(device: FakeDevice): void {
    device.before = () => this.#before();
    device.after = () => this.#after();
  }

  /** Sees that nothing is put there but what its source held, or grew to, over nothing but the beginning of that. */
  watch({ name, files: there }: FakeDevice): void {
    const give = there.set.bind(there);
    there.set = (path, file) => {
      const before = there.get(path)?.bytes;
      if (before !== undefined && !(file.bytes.length > before.length && file.bytes.subarray(0, before.length).equals(before)))
        this.wrong.push(`${name}: ${path}: ${file.bytes.length} bytes take the place of ${before.length} others`);
      if (!(this.held.get(ownName(path)) ?? []).some((it) => it.subarray(0, file.bytes.length).equals(file.bytes)))
        this.wrong.push(`${name}: ${path}: a mixture of ${file.bytes.length} bytes`);
      return give(path, file);
    };
  }

  #before(): Promise<void> | undefined {
    if (this.#calm) return undefined;
    const drawn = this.random.next();
    if (drawn < 0.6) return undefined;
    if (drawn < 0.85) return sleep(this.random.below(15));
    if (drawn < 0.92) return new Promise((resolve) => this.#goOn.push(resolve));
    throw new Fault(this.random.pick(["transient", "offline"]), "drawn");
  }

  #after(): Promise<void> | undefined {
    const drawn = this.#calm ? 1 : this.random.next();
    if (drawn < 0.15) throw new Fault(this.random.pick(["transient", "offline"]), "the answer is lost");
    return drawn < 0.25 ? new Promise((resolve) => this.#goOn.push(resolve)) : undefined;
  }

  /** What hangs goes on. */
  goOn(): void {
    for (const goOn of this.#goOn.splice(0)) goOn();
  }

  /** From now on all calls are done at once. */
  calm(): void {
    this.#calm = true;
    this.goOn();
  }

  put(device: Held, path: string, bytes: Buffer): void {
    this.#timeMs += 1000;
    this.held.set(path, [...(this.held.get(path) ?? []), bytes]);
    device.put(path, bytes, this.#timeMs);
  }

  grow(device: Held, path: string, length: number): void {
    const added = this.random.bytes(length);
    const now = device.files.get(path)?.bytes;
    this.put(device, path, now === undefined ? added : Buffer.concat([now, added]));
  }
}

interface History {
  readonly seed: number;
  readonly bench: Bench;
  readonly devices: readonly FakeDevice[];
  /** What was drawn at its begin, or what it became. */
  readonly plan: string;
  readonly wrong: readonly string[];
  /** What was done that no event tells. */
  readonly history?: readonly string[];
  start(): Promise<unknown>;
  step(): Promise<void>;
  /** Nothing fails any more; throws where not all is as it should be in the end. */
  end(): Promise<void>;
}

/** To its end. Throws where something was wrong, with what replays it and what was done, said and called. */
export async function live(made: History, steps = 60): Promise<void> {
  const { seed, bench, devices, wrong, history = [] } = made;
  try {
    await made.start();
    for (let step = 0; step < steps; step++) await made.step();
    await made.end();
    assert.deepEqual(wrong, []);
  } catch (error) {
    const calls = devices.map(({ name, calls }) => `${name}: ${calls.slice(-60).join("; ")}`);
    const said = bench.events.map(({ what, message }) => `${what}: ${message}`).slice(-100);
    throw new Error([`SEED=${seed} ${made.plan}`, String(error), ...wrong, ...history, ...said, ...calls].join("\n"), { cause: error });
  } finally {
    await bench.stop();
  }
}

/** The path at its source, which has no directories, of what a target has. */
export const ownName = (path: string): string => alikeName(path.replace(/^.*\//, ""));

/** Whether it has that content, under whatever name. */
export function holds({ files }: FakeDevice, path: string, content: Buffer): boolean {
  return [...files].some(([name, { bytes }]) => ownName(name) === path && bytes.equals(content));
}

/** What is there twice, under two names that one file may have; nothing of a target that proves no content. */
export function twice({ name, files, features }: FakeDevice): string[] {
  const all = features.target?.digests?.length === 0 ? [] : [...files];
  return all
    .filter(([path, { bytes }]) => all.some(([other, file]) => other !== path && alikeName(other) === path && file.bytes.equals(bytes)))
    .map(([path]) => `${name}: ${path} is there twice`);
}

const alikeName = (path: string): string => path.replace(/(~[0-9a-f]{8}(?:[0-9a-f]{8})?){1,2}\./, ".");

/** Once it is old nothing is left in the spool. */
export async function emptied(bench: Bench): Promise<void> {
  const { engine } = bench.daemon;
  await bench.pass(30);
  const end = performance.now() + 30_000;
  for (;;) {
    await expire(engine, new AbortController().signal);
    const left = engine.journal
      .all<VersionRow>("SELECT * FROM versions WHERE spooled > 0")
      .map((row) =>
        JSON.stringify({ ...row, deliveries: engine.queue.deliveriesOf(row.id).map(({ state, reason }) => ({ state, reason })) }),
      );
    const there = readdirSync(join(bench.dir, "spool"));
    const { usedBytes } = engine.spool;
    if (left.length === 0 && there.length === 0 && usedBytes === 0) break;
    assert.ok(performance.now() < end, `the spool has ${there.join(", ")}, ${usedBytes} bytes in all: ${left.join("; ")}`);
    await sleep(20);
  }
  bench.clock.offsetMs = 0;
}
