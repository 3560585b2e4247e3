/** A pseudo-terminal carries bytes both ways, with socat and without, outlives its clients, and comes back where it was. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { SerialPort } from "serialport";
import { openPty } from "./pty.js";

function makeDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "pty-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Opens the port, sees every byte value go each way, and closes it. */
async function talk(path: string, terminal: { write(frame: Buffer): void }, came: () => Buffer): Promise<void> {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  const port = new SerialPort({ path, baudRate: 57600, autoOpen: false });
  await new Promise<void>((resolve, reject) => port.open((error) => (error === null ? resolve() : reject(error))));
  const before = came().length;
  let got = Buffer.alloc(0);
  await new Promise<void>((resolve) => {
    const look = (): void => {
      if (got.length >= 256 && came().length - before >= 256) {
        clearInterval(timer);
        resolve();
      }
    };
    const timer = setInterval(look, 5);
    port.on("data", (chunk: Buffer) => (got = Buffer.concat([got, chunk])));
    port.write(bytes);
    terminal.write(bytes);
  });
  assert.deepEqual(got, bytes);
  assert.deepEqual(came().subarray(before), bytes);
  await new Promise<void>((resolve) => port.close(() => resolve()));
}

async function both(t: TestContext): Promise<void> {
  const path = join(makeDir(t), "ttyDRONE");
  let came = Buffer.alloc(0);
  const terminal = await openPty(path, () => (chunk) => (came = Buffer.concat([came, chunk])));
  t.after(() => terminal.close());
  assert.equal(terminal.clientUrl, `serial://${path}:57600`);
  await talk(path, terminal, () => came);
  await talk(path, terminal, () => came);
  const back = terminal.drop(50);
  await back;
  await talk(path, terminal, () => came);
  await terminal.close();
  assert.equal(existsSync(path), false);
}

test("with socat", both);

/** What runs with something of that directory among its words. */
const below = (dir: string) =>
  readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(dir);
    } catch {
      // It has ended.
      return false;
    }
  });

test("pulled again while it comes back, and closed while it does, it leaves no terminal behind", { timeout: 30_000 }, async (t) => {
  const dir = makeDir(t);
  // What is left keeps this file from ending.
  t.after(() => below(dir).forEach((pid) => process.kill(Number(pid), "SIGKILL")));
  for (const meanwhile of ["drop", "close"] as const) {
    const path = join(dir, meanwhile);
    let came = Buffer.alloc(0);
    const terminal = await openPty(path, () => (chunk) => (came = Buffer.concat([came, chunk])));
    const [first] = below(path);
    assert.ok(first !== undefined);
    const back = terminal.drop(0);
    // It is being made.
    for (let made: string[] = []; made.length === 0 || made.includes(first);) {
      await new Promise((resolve) => setImmediate(resolve));
      made = below(path);
    }
    await Promise.all([back, meanwhile === "drop" ? terminal.drop(50) : terminal.close()]);
    if (meanwhile === "drop") await talk(path, terminal, () => came);
    assert.equal(below(path).length, meanwhile === "drop" ? 1 : 0);
    await terminal.close();
    assert.deepEqual([existsSync(path), below(path)], [false, []]);
  }
});

test("without socat, by the package", async (t) => {
  const bin = makeDir(t);
  for (const tool of ["stty", "tty", "sleep"])
    symlinkSync(["/bin", "/usr/bin"].map((dir) => join(dir, tool)).find((path) => existsSync(path)) ?? "/nonexistent", join(bin, tool));
  const before = process.env.PATH;
  process.env.PATH = bin;
  t.after(() => (process.env.PATH = before));
  await both(t);
});
