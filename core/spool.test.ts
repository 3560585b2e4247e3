import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { isFault } from "./errors.js";
import { Spool, SpoolWriter, type Sidecar } from "./spool.js";

const id = "0123456789abcdef";
const sidecar: Sidecar = { version: id, source: "cam", path: "a", size: 100, generation: 0, digest: "sha256:00" };

async function spoolIn(t: TestContext, maxSizeBytes = 1000): Promise<{ spool: Spool; dir: string }> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-spool-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const spool = new Spool(dir, { maxSizeBytes, keepFreeBytes: 0 });
  await spool.open();
  return { spool, dir };
}

test("a sync covers what was appended before it, not what is written while it runs", async () => {
  let synced: () => void = () => undefined;
  const handle = {
    write: (_: Buffer, __: number, length: number) => Promise.resolve({ bytesWritten: length }),
    datasync: () => new Promise<void>((resolve) => (synced = resolve)),
  } as unknown as FileHandle;
  const writer = new SpoolWriter(handle, 0, "spool/x");
  await writer.append(Buffer.alloc(1000));
  await writer.flush();
  const sync = writer.sync();
  await Promise.resolve();
  await writer.append(Buffer.alloc(500));
  await writer.flush();
  synced();
  assert.equal(await sync, 1000);
  assert.equal(writer.offset, 1500);
});

test("a writer cuts off what lies behind the durable offset; a file that is shorter than that gives no writer", async (t) => {
  const { spool } = await spoolIn(t);
  let writer = await spool.writer(id, 0);
  await writer.append(Buffer.from("durable, then torn"));
  await writer.sync();
  await writer.close();
  writer = await spool.writer(id, 7);
  await writer.append(Buffer.from("!"));
  assert.equal(await writer.sync(), 8);
  await writer.close();
  assert.equal(readFileSync(spool.pathOf(id), "utf8"), "durable!");
  writer = await spool.writer(id, 9);
  assert.equal(writer.handle, undefined);
});

test("a sidecar for which there is no room is a spool without space", async (t) => {
  const { spool } = await spoolIn(t);
  symlinkSync("/dev/full", `${spool.pathOf(id)}.json`);
  await assert.rejects(spool.writeSidecar(sidecar), (error) => isFault(error, "full"));
});

test("space is promised once, and given back when the version is dropped", async (t) => {
  const { spool } = await spoolIn(t);
  assert.equal(await spool.reserve(id, 600), true);
  assert.equal(await spool.reserve(id, 600), true, "the same promise again takes nothing more");
  assert.equal(await spool.reserve("f".repeat(16), 600), false);
  assert.equal(spool.usedBytes, 600);
  await spool.drop(id);
  assert.equal(await spool.reserve("f".repeat(16), 600), true);
});

test("what is promised to files that are being written is not promised again, though the disk still has it free", async (t) => {
  const { spool } = await spoolIn(t, 1e6);
  let free = 1000;
  Object.assign(spool, { freeBytes: () => Promise.resolve(free) });
  spool.limit({ maxSizeBytes: 1e6, keepFreeBytes: 100 });
  const [one, two] = ["1".repeat(16), "2".repeat(16)];
  assert.deepEqual(await Promise.all([spool.reserve(one, 600), spool.reserve(two, 600)]), [true, false], "both at once");
  assert.equal(await spool.reserve(two, 301), false);
  assert.match(await spool.spaceText(), /stay free, beside 0 MB that still come/);
  // 500 of them have come.
  writeFileSync(spool.pathOf(one), Buffer.alloc(500));
  free = 500;
  assert.deepEqual([await spool.lacks(two, 301), await spool.lacks(two, 300)], [1, 0]);
  spool.comesNoMore(one);
  assert.equal(await spool.reserve(two, 400), true, "it broke off: the rest of it is free");
});

test("what is written between two looks at the disk is not taken for free", async (t) => {
  const { spool } = await spoolIn(t, 2 ** 30);
  const [first, second] = [id, "0123456789abcdee"];
  const size = (version: string) => statSync(spool.pathOf(version), { throwIfNoEntry: false })?.size ?? 0;
  let asked: () => void = () => undefined;
  spool.freeBytes = () => {
    const free = 150 - size(first) - size(second);
    asked();
    return Promise.resolve(free);
  };
  assert.equal(await spool.reserve(first, 100), true);
  // All that was promised to it, and is on the disk by the time that is asked.
  asked = () => writeFileSync(spool.pathOf(first), randomBytes(100));
  assert.equal(await spool.reserve(second, 100), false);
});

test("what a killed write left behind is taken away; spool files are named", async (t) => {
  const { spool, dir } = await spoolIn(t);
  await spool.writeSidecar(sidecar);
  writeFileSync(spool.pathOf(id), "x");
  writeFileSync(join(dir, "spool", `.${"0".repeat(8)}-0000-0000-0000-${"0".repeat(12)}.tmp`), "half a sidecar");
  writeFileSync(join(dir, "spool", `${"e".repeat(16)}.json`), "{}");
  assert.deepEqual(await spool.open(), [id]);
  assert.deepEqual(readdirSync(join(dir, "spool")).sort(), [id, `${id}.json`]);
  assert.deepEqual(await spool.readSidecar(id), sidecar);
});

test("what is given up while it is noted that a longer one took its place leaves nothing behind", async (t) => {
  const { spool, dir } = await spoolIn(t);
  for (let n = 0; n < 20; n++) {
    writeFileSync(spool.pathOf(id), "x");
    await spool.writeSidecar(sidecar);
    await Promise.all([spool.noteSuperseded(id), spool.drop(id)]);
    assert.deepEqual(readdirSync(join(dir, "spool")), []);
  }
  await spool.writeSidecar(sidecar);
  await spool.noteSuperseded(id);
  assert.deepEqual(await spool.readSidecar(id), { ...sidecar, superseded: true });
});

test("of what is set aside only what is the beginning of the whole file goes: not what differs at its end, nor what cannot be looked at", async (t) => {
  const { spool, dir } = await spoolIn(t);
  const whole = randomBytes(700_000);
  writeFileSync(spool.pathOf(id), whole);
  const aside: Readonly<Record<string, Uint8Array | string>> = {
    [id]: "anything",
    begin: whole.subarray(0, 600_000),
    another: whole.subarray(0, 500_000),
    other: Buffer.concat([whole.subarray(0, 500_000), Buffer.from("x")]),
    longer: Buffer.concat([whole, whole]),
    empty: "",
  };
  mkdirSync(join(dir, "damaged/unreadable"), { recursive: true });
  for (const [name, bytes] of Object.entries(aside)) writeFileSync(join(dir, "damaged", name), bytes);
  await spool.open();
  await spool.dropAside(id, (version) => version !== "another");
  assert.deepEqual(readdirSync(join(dir, "damaged")).sort(), ["another", "empty", "longer", "other", "unreadable"]);
});

test("a spool that cannot be written is a spool without space: the source is not at fault", async (t) => {
  const { spool, dir } = await spoolIn(t);
  rmSync(join(dir, "spool"), { recursive: true });
  await assert.rejects(spool.writer(id, 0), (error: unknown) => isFault(error, "full"), "its directory is gone: the source's file is not");
  writeFileSync(join(dir, "spool"), "in the way");
  await assert.rejects(spool.writer(id, 0), (error: unknown) => isFault(error, "full"));
});

test("what is set aside is named where there is no room: nobody else removes it", async (t) => {
  const { dir, spool } = await spoolIn(t);
  mkdirSync(join(dir, "damaged"));
  writeFileSync(join(dir, "damaged", id), Buffer.alloc(2e6));
  await spool.open();
  assert.match(await spool.spaceText(), /; 2 MB are in \S+\/damaged, which only a person removes$/);
});
