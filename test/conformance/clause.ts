/**
 * A clause is one promise of the contract, tried against one device. It passes, fails with an error, or says why it does not apply.
 *
 * The same clause runs in two ways: as a test of node:test (`register`), and as a function that tells whether it passed (`verdict`), which is
 * how planted bugs are proved to turn it red.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { isFault, type FaultKind } from "../../core/errors.js";
import type { Device } from "../../core/plugin.js";

export interface UnderTest {
  readonly device: Device;
  /** Ends everything that was made for it, the device too. */
  close(): Promise<void>;
}

export interface Clause<T extends UnderTest> {
  readonly name: string;
  /** Returns why it does not apply, or nothing. */
  run(under: T): Promise<string | undefined>;
}

export interface Harness<T extends UnderTest> {
  readonly name: string;
  /** Why nothing of it can run here ("vsftpd is not installed"). */
  readonly skip?: string;
  /** Clauses that this server is known to break, with the reason: they are skipped, and the reason is printed. */
  readonly known?: Readonly<Record<string, string>>;
  /** A device of its own with an empty root. */
  make(): Promise<T>;
}

/** Passes, fails or does not apply: undefined, an error, or the reason as text. */
export async function verdict<T extends UnderTest>(
  clause: Clause<T>,
  harness: Harness<T>,
  timeoutMs = 60_000,
): Promise<Error | string | undefined> {
  const under = await harness.make();
  const stop = new AbortController();
  try {
    const late = delay(timeoutMs, undefined, { signal: stop.signal }).then(() => {
      throw new Error(`the clause did not end within ${timeoutMs} ms`);
    });
    late.catch(() => undefined);
    return await Promise.race([clause.run(under), late]);
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  } finally {
    stop.abort();
    await under.close();
  }
}

/** Registers the clauses as tests under the harness's name. */
export function register<T extends UnderTest>(clauses: readonly Clause<T>[], harness: Harness<T>): void {
  for (const clause of clauses) {
    const skip = harness.skip ?? harness.known?.[clause.name];
    test(`${harness.name}: ${clause.name}`, { skip: skip ?? false }, async (t) => {
      const result = await verdict(clause, harness);
      if (typeof result === "string") t.skip(result);
      else if (result !== undefined) throw result;
    });
  }
}

/** So much of this process's own time: while it stands still, as on a machine that is busy, nothing that it promises can come either. */
async function ownTime(ms: number, signal: AbortSignal): Promise<void> {
  for (let left = ms; left > 0; left -= 20) await delay(20, undefined, { signal });
}

/** The Fault that `work` ends with; fails when it ends well, with another kind, or later than `withinMs` of this process's own time. */
export async function expectFault(work: Promise<unknown>, kinds: FaultKind | readonly FaultKind[], withinMs = 60_000): Promise<string> {
  const stop = new AbortController();
  const late = Symbol("late");
  const ended = await Promise.race([
    work.then(
      (value) => ({ value }),
      (error: unknown) => ({ error }),
    ),
    ownTime(withinMs, stop.signal).then(
      () => late,
      () => late,
    ),
  ]);
  stop.abort();
  if (typeof ended === "symbol") throw new assert.AssertionError({ message: `it did not end within ${withinMs} ms` });
  if (!("error" in ended)) throw new assert.AssertionError({ message: `it ended well, with ${JSON.stringify(ended.value)}` });
  const wanted: readonly FaultKind[] = typeof kinds === "string" ? [kinds] : kinds;
  const { error } = ended;
  if (!isFault(error)) throw new assert.AssertionError({ message: `it threw no Fault but ${String(error)}` });
  assert.ok(wanted.includes(error.kind), `the Fault is "${error.kind}" and not "${wanted.join('" or "')}": ${error.message}`);
  return error.message;
}

/** Waits until `is` holds; fails after `withinMs`. A look that costs much is taken less often: what is waited for needs the processor. */
export async function until(what: string, is: () => boolean | Promise<boolean>, withinMs = 30_000): Promise<void> {
  const end = performance.now() + withinMs;
  for (;;) {
    const beganMs = performance.now();
    if (await is()) return;
    const now = performance.now();
    if (now > end) throw new assert.AssertionError({ message: `not within ${withinMs} ms: ${what}` });
    await delay(Math.max(10, 4 * (now - beganMs)));
  }
}

/** What it ends with once the server was reached: with a timeout of a moment a machine that is busy may not have logged in. The engine tries again then, too. */
export async function onceReached<T>(work: () => Promise<T>, withinMs = 60_000): Promise<T> {
  for (const end = performance.now() + withinMs; ;) {
    try {
      return await work();
    } catch (error) {
      if (!isFault(error, "offline") || performance.now() > end) throw error;
    }
  }
}

/** A signal that nobody gives. */
export function calm(): AbortSignal {
  return new AbortController().signal;
}

const lasting = ["TCPSocketWrap", "TCPServerWrap", "TLSWrap", "PipeWrap", "ProcessWrap", "UDPWRAP", "FSEventWrap", "Timeout", "Immediate"];

/** How many handles of each lasting kind keep this process alive. */
export function handles(): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) if (lasting.includes(kind)) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}

/** Clauses that hold for any device. `touch` makes it do some work. */
export function deviceClauses<T extends UnderTest & { readonly secrets?: readonly string[]; readonly stranger?: () => Promise<Device> }>(
  touch: (device: Device) => Promise<unknown>,
): readonly Clause<T>[] {
  return [
    {
      name: "presence$ gives the present state on subscribe",
      run: ({ device }) => {
        const seen: string[] = [];
        device.presence$.subscribe((presence) => seen.push(presence.state)).unsubscribe();
        assert.deepEqual(seen, ["attached"]);
        return Promise.resolve(undefined);
      },
    },
    {
      name: "probe is content with a usable root",
      run: async ({ device }) => {
        await device.probe(calm());
        return undefined;
      },
    },
    {
      name: "a login that is refused is denied, and no secret is in the message",
      run: async ({ stranger, secrets }) => {
        if (stranger === undefined || secrets === undefined) return "this device has no login";
        const device = await stranger();
        try {
          for (const work of [() => device.probe(calm()), () => touch(device)]) {
            const message = await expectFault(work(), "denied");
            for (const secret of secrets) assert.ok(!message.includes(secret), `a secret is in "${message.replaceAll(secret, "***")}"`);
          }
        } finally {
          await device.close();
        }
        return undefined;
      },
    },
    {
      name: "close leaves no handle, and may be called twice",
      run: async ({ device }) => {
        await until("the handles of earlier work to go", () => handles().TCPSocketWrap === undefined, 500).catch(() => undefined);
        const before = handles();
        await touch(device);
        let completed = false;
        device.presence$.subscribe({ complete: () => (completed = true) });
        await device.close();
        await device.close();
        const more = (): string[] =>
          Object.entries(handles()).flatMap(([kind, n]) => (n > (before[kind] ?? 0) && kind !== "Timeout" ? [kind] : []));
        await until("sockets and children to be gone", () => more().length === 0, 3000).catch((error: unknown) => {
          throw new assert.AssertionError({ message: `left open: ${more().join(", ")} (${String(error)})` });
        });
        assert.ok(completed, "presence$ did not complete");
        return undefined;
      },
    },
  ];
}
