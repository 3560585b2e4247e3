import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test, type TestContext } from "node:test";
import { bytes, sha256 } from "../test/conformance/upload.js";
import { isFault } from "./errors.js";
import { FileThread } from "./file-thread.js";
import type { DigestedReading, FileEntry } from "./plugin.js";
import { entryOf } from "./stat.js";

const dir = mkdtempSync(join(tmpdir(), "filesync-thread-"));
after(() => rmSync(dir, { recursive: true }));

const calm = () => new AbortController().signal;

function threadOf(t: TestContext): FileThread {
  const thread = new FileThread();
  t.after(() => thread.close());
  return thread;
}

function file(name: string, content: Buffer): { place: Buffer; entry: FileEntry } {
  const path = join(dir, name);
  writeFileSync(path, content);
  return { place: Buffer.from(path), entry: entryOf(name, statSync(path, { bigint: true })) };
}

async function rest(reading: DigestedReading, give: boolean): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (let chunk = await reading.next(); chunk !== undefined; chunk = await reading.next()) {
    parts.push(Buffer.from(chunk.bytes));
    if (give) chunk.release();
  }
  return Buffer.concat(parts);
}

test("chunks that are given back, or never are, hold their own bytes; many readings at once", async (t) => {
  const thread = threadOf(t);
  const contents = [3_000_000, 70_000, 600_000, 20, 0, 2_000_001].map((size) => bytes(size, size));
  const got = await Promise.all(
    contents.flatMap((content, n) =>
      [true, false].map(async (give) => {
        const { place, entry } = file(`many-${n}-${give}.bin`, content);
        const reading = thread.read(place, entry, 0, { digest: true, exact: false }, calm());
        assert.ok((await rest(reading, give)).equals(content));
        return reading.digest;
      }),
    ),
  );
  assert.deepEqual(
    got,
    contents.flatMap((content) => [sha256(content), sha256(content)]),
  );
});

test("a chunk that was given back is no longer there to be looked at", async (t) => {
  const thread = threadOf(t);
  const { place, entry } = file("lent.bin", bytes(3_000_000));
  const reading = thread.read(place, entry, 0, { digest: false, exact: false }, calm());
  const first = await reading.next();
  assert.ok(first !== undefined);
  first.release();
  await rest(reading, true);
  assert.equal(first.bytes.length, 0);
});

test("what is there is no plain file, or not to be opened: the fault says what", async (t) => {
  const thread = threadOf(t);
  const entry: FileEntry = { path: "x", kind: "file", size: 10 };
  await assert.rejects(thread.read(Buffer.from(dir), entry, 0, { digest: false, exact: false }, calm()).next(), /x is /);
  const gone = thread.read(Buffer.from(join(dir, "gone")), entry, 0, { digest: false, exact: false }, calm()).next();
  await assert.rejects(gone, (error: unknown) => isFault(error, "missing") && /cannot open x/.test(error.message));
});

test("a file that goes once it is open is read to its end where it may go, unless it was written before it went", async (t) => {
  const thread = threadOf(t);
  const content = bytes(9_000_000);
  const begun = async (name: string, mayGo: boolean) => {
    const { place, entry } = file(name, content);
    const reading = thread.read(place, entry, 0, { digest: true, exact: false, mayGo }, calm());
    const first = await reading.next();
    assert.ok(first !== undefined);
    return { reading, path: place.toString(), first: Buffer.from(first.bytes) };
  };
  const went = await begun("went.bin", true);
  rmSync(went.path);
  assert.ok(Buffer.concat([went.first, await rest(went.reading, false)]).equals(content));
  assert.equal(went.reading.digest, sha256(content));
  const written = await begun("written.bin", true);
  utimesSync(written.path, 1, 1);
  rmSync(written.path);
  await assert.rejects(rest(written.reading, false), (error: unknown) => isFault(error, "changed"));
  const needed = await begun("needed.bin", false);
  rmSync(needed.path);
  await assert.rejects(rest(needed.reading, false), (error: unknown) => isFault(error, "missing"));
});

const strace = spawnSync("strace", ["-f", "-qq", "-o", "/dev/null", "true"]).status === 0;

/** Reads a file of which it is told, and says how that ended. */
const reader = `
const [module, place, entry] = process.argv.slice(2);
const { FileThread } = await import(module);
const thread = new FileThread();
const reading = thread.read(Buffer.from(place), JSON.parse(entry), 0, { digest: true, exact: true, mayGrow: true }, new AbortController().signal);
try {
  while ((await reading.next()) !== undefined);
  console.log("whole");
} catch (error) {
  console.log(error.kind);
}
await thread.close();`;

test(
  "a file that a longer one is written over between the look at it and its first byte is another, though that begins with all that was read",
  { skip: strace ? false : "strace is missing, or may not trace here" },
  async () => {
    const { place, entry } = file("over.bin", bytes(1000));
    const path = place.toString();
    // Once it is open and was looked at it is held up, until the other one is there.
    const hold = ["-f", "-P", path, "-e", "trace=statx,fstat", "-e", "inject=statx,fstat:signal=SIGSTOP:when=1"];
    const script = join(dir, "reader.mjs");
    writeFileSync(script, reader);
    const module = new URL("./file-thread.js", import.meta.url).href;
    const child = spawn("strace", [...hold, process.execPath, script, module, path, JSON.stringify(entry)]);
    const closed = once(child, "close");
    let said = "";
    let trace = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      const held = /(\d+)\] --- stopped by SIGSTOP/.exec((trace += text))?.[1];
      if (held === undefined || statSync(path).size > 1000) return;
      writeFileSync(path, bytes(3000, 2));
      process.kill(Number(held), "SIGCONT");
    });
    await closed;
    assert.equal(said, "changed\n", trace);
  },
);

test("closing ends what is read and listed; nothing is begun afterwards", async (t) => {
  const thread = threadOf(t);
  const { place, entry } = file("closed.bin", bytes(3_000_000));
  const reading = thread.read(place, entry, 0, { digest: false, exact: false }, calm());
  await reading.next();
  const listing = thread.list(Buffer.from(dir), "", calm());
  const asked = [reading.next(), listing.next()];
  const settled = Promise.allSettled(asked);
  await thread.close();
  assert.ok((await settled).some(({ status }) => status === "rejected"));
  await assert.rejects(rest(reading, true), (error: unknown) => isFault(error, "aborted"));
  await assert.rejects(thread.read(place, entry, 0, { digest: false, exact: false }, calm()).next(), (error: unknown) =>
    isFault(error, "aborted"),
  );
});

test("a directory of thousands comes in parts, each name once", async (t) => {
  const thread = threadOf(t);
  const many = mkdtempSync(join(dir, "many-"));
  for (let n = 0; n < 1233; n++) writeFileSync(join(many, `f${n}`), "");
  symlinkSync("f0", join(many, "f1233"));
  const names = new Set<string>();
  let parts = 0;
  for await (const entries of thread.list(Buffer.from(many), "d", calm())) {
    parts += 1;
    for (const { path, kind } of entries) {
      names.add(path);
      assert.equal(kind, path === "d/f1233" ? "unreadable" : "file");
    }
  }
  assert.equal(names.size, 1234);
  assert.ok(parts > 1 && names.has("d/f1233"));
});
