/** What the tests beside it share: a directory of logs, a simulated vehicle that serves it, and a device that reads it; all gone after the test. */
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { TestContext } from "node:test";
import * as v from "valibot";
import { Fault } from "../../core/errors.js";
import type { Clock, FileEntry, PluginContext, Presence, Source } from "../../core/plugin.js";
import { startSim, type Sim, type SimOptions } from "../../sim/sim.js";
import { holdsTo, Served, STOOD_MOST_MS } from "./manners.test.js";
import type { MavftpDevice } from "./device.js";
import { plugin } from "./plugin.js";

export const clock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  trusted: () => true,
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      const stop = (): void => {
        clearTimeout(timer);
        reject(new Fault("aborted", "stopped"));
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", stop);
        resolve();
      }, ms);
      if (signal?.aborted === true) stop();
      else signal?.addEventListener("abort", stop, { once: true });
    }),
};

/** Bounds are of this process's own time: while it stands still, as on a machine that is busy, neither the device nor its vehicle can do anything. */
const tickMs = 5;

const endings = new WeakMap<TestContext, (() => unknown)[]>();

/** What is done after the test, the last of it first; all of it, whatever fails. */
export function lastly(t: TestContext, end: () => unknown): void {
  const known = endings.get(t);
  if (known !== undefined) {
    known.push(end);
    return;
  }
  const ends = [end];
  endings.set(t, ends);
  t.after(async () => {
    const failures: unknown[] = [];
    for (const one of ends.reverse())
      try {
        await one();
      } catch (error) {
        failures.push(error);
      }
    if (failures.length > 0) throw failures[0];
  });
}

/** A directory below the system's temporary one; removed after the test. */
export function makeDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "mavftp-"));
  lastly(t, () => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Files of random bytes; returns their content by path. */
export function makeLogs(
  t: TestContext,
  sizes: Readonly<Record<string, number>>,
): { readonly dir: string; readonly content: Map<string, Buffer> } {
  const dir = makeDir(t);
  const content = new Map<string, Buffer>();
  for (const [path, size] of Object.entries(sizes)) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    const bytes = randomBytes(size);
    writeFileSync(join(dir, path), bytes);
    content.set(path, bytes);
  }
  return { dir, content };
}

export interface Recorded {
  readonly device: MavftpDevice;
  readonly source: Source;
  readonly states: Presence[];
  readonly said: string[];
  readonly memory: Map<string, unknown>;
  readonly told: number[];
  /** Resolves with the first state, now or later, that fits; rejects after `withinMs`. Looks from number `from` of `states` on. */
  until(fits: (presence: Presence, index: number) => boolean, withinMs?: number, from?: number): Promise<Presence>;
  attached(): Promise<Presence>;
  /** The device's clock goes so far ahead; waiting by it takes as long as before. */
  skip(ms: number): void;
}

export function makeDevice(
  t: TestContext,
  options: Record<string, unknown>,
  memory = new Map<string, unknown>(),
  around: Partial<PluginContext> = {},
): Recorded {
  const states: Presence[] = [];
  const said: string[] = [];
  const told: number[] = [];
  const watchers = new Set<() => void>();
  let aheadMs = 0;
  const context: PluginContext = {
    name: "pixhawk",
    vehicle: "plane-1",
    installation: "0123abcd",
    stateDir: "/nonexistent",
    clock: { ...clock, monotonicMs: () => performance.now() + aheadMs },
    memory: { get: (key) => memory.get(key), set: (key, value) => Promise.resolve(void memory.set(key, value)) },
    say: (_level, message) => said.push(message),
    tellTime: (ms) => told.push(ms),
    tellArmed: () => undefined,
    ...around,
  };
  const parsed = v.parse(plugin.options, options);
  const device = plugin.device?.(parsed, context) as MavftpDevice;
  device.presence$.subscribe((presence) => {
    states.push(presence);
    for (const look of watchers) look();
  });
  lastly(t, () => device.close());
  function until(fits: (presence: Presence, index: number) => boolean, withinMs = 8000, from = 0): Promise<Presence> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const found = states.find((presence, index) => index >= from && fits(presence, index));
        if (found === undefined) return;
        clearInterval(timer);
        watchers.delete(look);
        resolve(found);
      };
      let leftMs = withinMs;
      const timer = setInterval(() => {
        if ((leftMs -= tickMs) > 0) return;
        clearInterval(timer);
        watchers.delete(look);
        reject(new Error(`that did not come within ${withinMs} ms; there came ${JSON.stringify(states.slice(from))}`));
      }, tickMs);
      watchers.add(look);
      look();
    });
  }
  return {
    ...{ device, source: device, states, said, told, memory, until },
    attached: () => until((p) => p.state === "attached"),
    skip: (ms) => void (aheadMs += ms),
  };
}

/** Remembers that bursts are the faster, of whatever is asked. */
export class BurstMemory extends Map<string, unknown> {
  override get(key: string): unknown {
    return key.startsWith("way:") ? { way: "bursts", bursts: 1, reads: 1, why: "a test" } : super.get(key);
  }
}

export interface Rig extends Recorded {
  readonly sim: Sim;
  /** This process stood still for so long, in ms, that how often something was asked for says nothing of the device. */
  readonly stood: (ms?: number) => boolean;
}

/** A vehicle and a device that is attached to it. */
export async function makeRig(
  t: TestContext,
  sim: Partial<SimOptions> & { readonly dir: string },
  options: Record<string, unknown> = {},
  memory?: Map<string, unknown>,
): Promise<Rig> {
  const vehicle = await makeSim(t, sim);
  const delay = watchDelay(t);
  const recorded = makeDevice(t, { url: vehicle.clientUrl, root: "/", ...options }, memory);
  if (sim.armed !== true && sim.ftp !== false) await recorded.attached();
  return { ...recorded, sim: vehicle, stood: (ms = STOOD_MOST_MS) => delay() > ms };
}

/** The longest that this process has stood still since, in ms. */
function watchDelay(t: TestContext): () => number {
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  lastly(t, () => delay.disable());
  return () => delay.max / 1e6;
}

export async function makeSim(t: TestContext, options: Partial<SimOptions> & { readonly dir: string }, watch = new Served()): Promise<Sim> {
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", link: "none", opened: () => watch.opening(), ...options });
  const delay = watchDelay(t);
  lastly(t, async () => {
    const open = sim.openSessions();
    await sim.close();
    holdsTo(sim.stats, { open, stoodMs: delay() }, watch, options);
  });
  return sim;
}

export const never: AbortSignal = new AbortController().signal;

export async function listAll(source: Source): Promise<FileEntry[]> {
  const entries: FileEntry[] = [];
  for await (const entry of source.list(never)) entries.push(entry);
  return entries.sort((a, b) => (a.path < b.path ? -1 : 1));
}

export async function readAll(source: Source, entry: FileEntry, offset = 0, signal: AbortSignal = never): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of await source.open(entry, offset, signal)) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

/** Resolves once it holds; rejects after `withinMs`. */
export async function eventually(holds: () => boolean, what: string, withinMs = 4000): Promise<void> {
  for (let leftMs = withinMs; !holds(); leftMs -= tickMs) {
    if (leftMs <= 0) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, tickMs));
  }
}

/** A UDP port that was free a moment ago. */
export async function freeUdpPort(): Promise<number> {
  const { createSocket } = await import("node:dgram");
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(() => resolve()));
  return port;
}
