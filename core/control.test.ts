/** The conversation over the control socket: bytes both ways, keeping pace, and who goes away ends the work. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { ask, ControlError, ControlServer, type Answer } from "./control.js";
import { Fault, isFault } from "./errors.js";

async function serverFor(t: TestContext, answer: Answer, deep = false): Promise<string> {
  const home = mkdtempSync(join(tmpdir(), "filesync-control-"));
  const dir = deep ? join(home, "d".repeat(120)) : home;
  const { mkdir } = await import("node:fs/promises");
  await mkdir(dir, { recursive: true });
  const server = new ControlServer(dir, answer);
  await server.start();
  t.after(async () => {
    await server.close();
    rmSync(home, { recursive: true });
  });
  return dir;
}

async function* chunks(count: number, size: number): AsyncGenerator<Buffer> {
  for (let n = 0; n < count; n++) yield await Promise.resolve(Buffer.alloc(size, n));
}

test("facts and bytes go both ways, in order and whole, also to a path that is too long for a socket", async (t) => {
  const dir = await serverFor(
    t,
    async (request, { say, give, take }) => {
      say({ offset: 7, request });
      let taken = 0;
      for await (const chunk of take()) taken += chunk.length;
      for await (const chunk of chunks(100, 200_000)) await give(chunk);
      return { taken };
    },
    true,
  );
  let got = 0;
  let fact: unknown;
  const answer = await ask(
    dir,
    { command: "put", path: "ü" },
    {
      said: (said) => {
        fact = said;
        return chunks(50, 300_001);
      },
      given: async (bytes) => {
        got += bytes.length;
        await Promise.resolve();
      },
    },
  );
  assert.deepEqual(fact, { offset: 7, request: { command: "put", path: "ü" } });
  assert.deepEqual(answer, { ok: { taken: 50 * 300_001 } });
  assert.equal(got, 100 * 200_000);
});

test("who gives pauses while who takes is slow", async (t) => {
  let given = 0;
  const dir = await serverFor(t, async (_request, { give }) => {
    for await (const chunk of chunks(400, 100_000)) {
      await give(chunk);
      given += 1;
    }
    return {};
  });
  let most = 0;
  let got = 0;
  await ask(
    dir,
    { command: "get" },
    {
      given: async (bytes) => {
        got += bytes.length;
        await new Promise((resolve) => setImmediate(resolve));
        most = Math.max(most, given * 100_000 - got);
      },
    },
  );
  assert.equal(got, 40_000_000);
  assert.ok(most < 5_000_000, `${most} bytes were ahead`);
});

test("who takes slowly is waited for many times, and nothing is left of it", async (t) => {
  const warnings: Error[] = [];
  const warned = (warning: Error) => warnings.push(warning);
  process.on("warning", warned);
  t.after(() => process.off("warning", warned));
  const dir = await serverFor(t, async (_request, { say, take }) => {
    say({});
    let taken = 0;
    for await (const chunk of take()) {
      taken += chunk.length;
      for (let n = 0; n < 30; n++) await new Promise((resolve) => setImmediate(resolve));
    }
    return taken;
  });
  assert.deepEqual(await ask(dir, { command: "put" }, { said: () => chunks(100, 1_000_000) }), { ok: 100_000_000 });
  assert.deepEqual(warnings, []);
});

test("who takes nothing for longer than a daemon may be silent, as a card that hangs, is no reason to call the daemon silent", async (t) => {
  const dir = await serverFor(t, async (_request, { give }) => {
    for await (const chunk of chunks(100, 200_000)) await give(chunk);
    return "done";
  });
  let taken = 0;
  const given = async (bytes: Buffer) => {
    taken += bytes.length;
    if (taken === bytes.length) await new Promise((resolve) => setTimeout(resolve, 11_000));
  };
  assert.deepEqual(await ask(dir, { command: "get" }, { given }), { ok: "done" });
  assert.equal(taken, 20_000_000);
});

test("what is asked for several times, and read to its end or not, comes each time from where it was asked for", async (t) => {
  const places = [5, 0, 700, 3, 900];
  const dir = await serverFor(t, async (_request, { say, take }) => {
    const taken: number[] = [];
    for (const [n, offset] of places.entries()) {
      say({ offset });
      let count = 0;
      for await (const chunk of take()) {
        assert.equal(chunk[0], (offset + Math.floor(count / 10_000)) % 256);
        count += chunk.length;
        // Of some no more than the first, while more waits than there is room for.
        if (n % 2 === 0 && n < places.length - 1) break;
        if (n === 1 && count > 2_000_000) break;
      }
      taken.push(count);
    }
    return taken;
  });
  let ended = 0;
  const from = async function* (offset: number): AsyncGenerator<Buffer> {
    try {
      for (let n = offset; n < 1000; n++) yield await Promise.resolve(Buffer.alloc(10_000, n));
    } finally {
      ended += 1;
    }
  };
  const answer = await ask(dir, { command: "put" }, { said: (fact) => from((fact as { offset: number }).offset) });
  const [first, second, third, ...rest] = answer?.ok as number[];
  assert.ok((first ?? 0) > 0 && (second ?? 0) > 2_000_000 && (third ?? 0) > 0);
  assert.deepEqual(rest, [9_970_000, 1_000_000]);
  assert.equal(ended, places.length);
});

test("who goes away ends the work; what it was sending ends with a fault", async (t) => {
  const ended: unknown[] = [];
  let begun: () => void = () => undefined;
  const started = new Promise<void>((resolve) => (begun = resolve));
  let over: () => void = () => undefined;
  const finished = new Promise<void>((resolve) => (over = resolve));
  const dir = await serverFor(t, async (_request, { signal, take, say }) => {
    say({ offset: 0 });
    signal.addEventListener("abort", () => ended.push("aborted"));
    try {
      for await (const chunk of take()) if (chunk.length > 0) begun();
    } catch (error) {
      ended.push(isFault(error, "aborted") ? "broken" : error);
    }
    over();
  });
  const stop = new AbortController();
  const endless = (async function* () {
    for (;;) {
      yield Buffer.alloc(1000);
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  const asking = ask(dir, { command: "put" }, { signal: stop.signal, said: () => endless });
  await started;
  stop.abort();
  await assert.rejects(asking, (error) => isFault(error, "aborted"));
  await finished;
  assert.deepEqual(ended.sort(), ["aborted", "broken"]);
});

test("an answer's error keeps its kind; nobody there is no error; rubbish is shown the door", async (t) => {
  const dir = await serverFor(t, ({ command }) => {
    if (command === "fault") throw new Fault("offline", "it is away");
    if (command === "usage") throw new ControlError("no such thing");
    throw new Error("a defect");
  });
  await assert.rejects(ask(dir, { command: "fault" }), (error) => isFault(error, "offline") && error.message === "it is away");
  await assert.rejects(ask(dir, { command: "usage" }), ControlError);
  await assert.rejects(ask(dir, { command: "x" }), (error) => !(error instanceof ControlError) && (error as Error).message === "a defect");
  assert.equal(await ask("/nowhere", { command: "x" }), undefined);
  const socket = createConnection(join(dir, "control.sock"));
  socket.write("no json at all\n");
  await new Promise((resolve) => socket.on("close", resolve).resume());
});

test("who asks, and was stopped for longer than a daemon may be silent, goes on", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-control-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const daemon = spawn(process.execPath, [
    "--input-type=module",
    "-e",
    `const { ControlServer } = await import(${JSON.stringify(new URL("control.js", import.meta.url))});
     const server = new ControlServer(${JSON.stringify(dir)}, async (_, { give }) => {
       for (let n = 0; n < 30; n++) await give(Buffer.alloc(1_000_000));
     });
     await server.start();
     process.stdout.write("ready");`,
  ]);
  t.after(() => daemon.kill("SIGKILL"));
  await once(daemon.stdout, "data");
  let got = 0;
  const asked = ask(
    dir,
    { command: "get" },
    {
      given: (bytes) => {
        // As SIGSTOP does: nothing of this process goes on, and then what was due comes first.
        if (got === 0) setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5100));
        got += bytes.length;
        return Promise.resolve();
      },
    },
  );
  assert.deepEqual(await asked, { ok: null });
  assert.equal(got, 30_000_000);
});
