import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { test } from "node:test";
import { alone } from "./alone.js";
import { isFault } from "./errors.js";

const never = () => new AbortController().signal;

test("each waits for the one before, whoever is first", async () => {
  const what = `test-${randomUUID()}`;
  let inside = 0;
  let waited = 0;
  const all = Array.from({ length: 20 }, async () => {
    const next = await alone(what, never(), () => (waited += 1));
    assert.equal((inside += 1), 1);
    await new Promise((resolve) => setImmediate(resolve));
    inside -= 1;
    next();
  });
  await Promise.all(all);
  assert.equal(waited, 19, "each but one is told, once");
});

test("who waits ends with its signal; another thing is not waited for", async () => {
  const what = `test-${randomUUID()}`;
  const next = await alone(what, never(), () => assert.fail("nobody does it"));
  const over = new AbortController();
  const waiting = alone(what, over.signal, () => over.abort());
  await assert.rejects(waiting, (error) => isFault(error, "aborted"));
  (await alone(`${what}x`, never(), () => assert.fail("nobody does that")))();
  next();
});

test("what a process that was killed did is nobody's", async (t) => {
  const what = `test-${randomUUID()}`;
  const script = `const { alone } = await import(${JSON.stringify(new URL("alone.js", import.meta.url))});
    await alone(${JSON.stringify(what)}, new AbortController().signal, () => undefined);
    process.stdout.write("has it");`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  await once(child.stdout, "data");
  (await alone(what, never(), () => child.kill("SIGKILL")))();
  assert.ok(child.killed, "it was waited for");
});
