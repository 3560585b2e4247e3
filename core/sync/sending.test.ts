/** A target in memory that copies by itself, is cut at any moment, or lies about it: what is whole in the end is what was sent. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { Random } from "../../test/faults/random.js";
import { Fault, isFault } from "../errors.js";
import type { Digest, DigestedReading, Memo, Part, Target, Upload } from "../plugin.js";
import { readableOf } from "../reading.js";
import { type Chunk, Chunker, stepsOf } from "./chunks.js";
import { leastFound, type Old, Sending, type Sent } from "./sending.js";

const seed = Number(process.env["FILESYNC_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const digestOf = (content: Buffer): Digest => `sha256:${createHash("sha256").update(content).digest("hex")}`;
const calm = () => new AbortController().signal;

function chunksOf(content: Buffer): readonly Chunk[] {
  const chunker = new Chunker();
  chunker.update(content);
  return chunker.end();
}

type Lie = "copies nothing" | "copies other bytes" | "refuses" | "fails";

class Memory implements Target {
  partial: Buffer | undefined;
  sent = 0;
  spliced = 0;
  proofs = 0;
  /** Before each piece that is written or copied: a test throws there. */
  gate: () => void = () => undefined;

  constructor(
    readonly splices: "ranges" | "whole",
    /** What has the name. */
    public held: Buffer | undefined,
    readonly lie?: Lie,
  ) {}

  get features(): Target["features"] {
    const { splices } = this;
    return { needs: "stream", resume: true, splices, atomic: true, singleShot: false, digests: [], concurrency: 1 };
  }

  offset(): Promise<number> {
    return Promise.resolve(this.partial?.length ?? 0);
  }

  async write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    if ((this.partial?.length ?? 0) !== offset) throw new Fault("conflict", "another size");
    this.partial ??= Buffer.alloc(0);
    const reading = upload.chunks(offset, signal);
    try {
      for (let chunk = await reading.next(); chunk !== undefined; chunk = await reading.next()) {
        this.gate();
        this.partial = Buffer.concat([this.partial, chunk.bytes]);
        this.sent += chunk.bytes.length;
        onBytes(chunk.bytes.length);
        chunk.release();
      }
    } finally {
      reading.close();
    }
    if (this.partial.length !== upload.size) throw new Fault("transient", `it ended at ${this.partial.length}`);
  }

  splice(_upload: Upload, { offset, length }: Part, at: number): Promise<void> {
    return Promise.resolve().then(() => {
      this.gate();
      if (this.lie === "refuses") throw new Fault("rejected", "nothing is copied here");
      if (this.lie === "fails") throw new Fault("transient", "failure");
      if ((this.partial?.length ?? 0) !== at) throw new Fault("conflict", "another size");
      if (this.held === undefined) throw new Fault("missing", "it has gone");
      if (this.held.length < offset + length) throw new Fault("changed", "it is shorter");
      if (this.lie === "copies nothing") return;
      const bytes = Buffer.from(this.held.subarray(offset, offset + length));
      if (this.lie === "copies other bytes") bytes[0] = (bytes[0] ?? 0) ^ 1;
      for (let done = 0; done < length; done += 300_000) {
        if (done > 0) this.gate();
        this.partial = Buffer.concat([this.partial ?? Buffer.alloc(0), bytes.subarray(done, done + 300_000)]);
      }
      this.spliced += length;
    });
  }

  prove({ digest, spliced }: Upload): Promise<void> {
    this.proofs += 1;
    return spliced === true && digestOf(this.partial ?? Buffer.alloc(0)) !== digest
      ? Promise.reject(new Fault("mismatch", "it is another content"))
      : Promise.resolve();
  }

  commit(): Promise<never> {
    throw new Error("nobody publishes here");
  }

  discard(): Promise<void> {
    this.partial = undefined;
    return Promise.resolve();
  }
}

class Content implements DigestedReading {
  digest: Digest | undefined;

  constructor(
    readonly bytes: Buffer,
    readonly piece: number,
    public at: number,
  ) {}

  next() {
    const part = this.bytes.subarray(this.at, this.at + this.piece);
    this.at += part.length;
    if (part.length === 0) this.digest = digestOf(this.bytes);
    return Promise.resolve(part.length === 0 ? undefined : { bytes: Buffer.from(part), release: () => undefined });
  }

  close(): void {
    // Nothing is open.
  }
}

function memoOf(): Memo {
  const kept = new Map<string, unknown>();
  return { get: (key) => kept.get(key), set: (key, value) => Promise.resolve(void kept.set(key, value)) };
}

interface Scene {
  readonly target: Memory;
  readonly content: Buffer;
  readonly old?: Buffer;
  /** false: what the old one was made of is lost. */
  readonly known?: boolean;
  readonly memo?: Memo;
  readonly read?: (offset: number) => DigestedReading;
}

async function bring({ target, content, old, known = true, memo = memoOf(), read }: Scene): Promise<Sent & { readonly said: string[] }> {
  const said: string[] = [];
  const held: Old | undefined =
    old === undefined
      ? undefined
      : { path: "a", size: old.length, digest: digestOf(old), chunks: () => Promise.resolve(known ? chunksOf(old) : undefined) };
  const sending = new Sending({
    target,
    upload: { id: "0", path: "a", partialPath: ".a.part", size: content.length, sealed: false, expect: { kind: "absent" }, memo },
    read: read ?? ((offset) => new Content(content, 50_000, offset)),
    readable: readableOf,
    room: () => Promise.resolve(),
    outgoing: (reading) => reading,
    ...(held === undefined ? {} : { old: held }),
    begun: true,
    chunked: target.splices === "ranges",
    went: () => undefined,
    whole: (_level, why) => void said.push(why),
  });
  let sent = await sending.run(calm());
  if (!(await sending.prove(sent.digest ?? digestOf(content), calm()))) sent = await sending.run(calm());
  return { ...sent, said };
}

const random = new Random(seed);
const old = random.bytes(3_000_000);
const grown = Buffer.concat([old, random.bytes(40_000)]);
const changed = Buffer.concat([random.bytes(100), old.subarray(0, 1_000_000), random.bytes(30_000), old.subarray(1_100_000)]);

test("what was not begun is not asked for, but when it is tried again", async () => {
  const target = new Memory("ranges", undefined);
  let asked = 0;
  const offset = target.offset.bind(target);
  target.offset = () => {
    asked += 1;
    return offset();
  };
  const content = random.bytes(1000);
  const sending = new Sending({
    ...{ target, begun: false, chunked: false },
    upload: { id: "0", path: "a", partialPath: ".a.part", size: content.length, sealed: false, expect: { kind: "absent" }, memo: memoOf() },
    read: (at) => new Content(content, 300, at),
    readable: readableOf,
    room: () => Promise.resolve(),
    outgoing: (reading) => reading,
    went: () => undefined,
    whole: () => undefined,
  });
  await sending.run(calm());
  assert.equal(asked, 0);
  await sending.run(calm());
  assert.equal(asked, 1);
  assert.deepEqual(target.partial, content);
});

test("what grew: its tail is sent, and the rest copied in one piece, by any server that copies", async () => {
  for (const splices of ["ranges", "whole"] as const) {
    const target = new Memory(splices, old);
    const { digest, chunks } = await bring({ target, content: grown, old });
    assert.ok(target.partial?.equals(grown));
    assert.deepEqual([target.sent, target.spliced, target.proofs], [40_000, old.length, 1]);
    assert.equal(digest, digestOf(grown));
    assert.deepEqual(chunks, splices === "ranges" ? chunksOf(grown) : undefined);
  }
});

test("what changed: what is new is sent; all of it where the server copies only whole files, or nobody knows what it was made of", async () => {
  const target = new Memory("ranges", old);
  const { digest, chunks } = await bring({ target, content: changed, old });
  assert.ok(target.partial?.equals(changed));
  const steps = stepsOf(chunksOf(old), chunksOf(changed), leastFound);
  const fresh = steps.reduce((sum, { length, from }) => sum + (from === undefined ? length : 0), 0);
  assert.deepEqual([target.sent, target.spliced], [fresh, changed.length - fresh], `seed ${seed}`);
  assert.equal(digest, digestOf(changed));
  assert.deepEqual(chunks, chunksOf(changed));
  for (const scene of [
    { target: new Memory("whole", old), known: true },
    { target: new Memory("ranges", old), known: false },
  ]) {
    assert.deepEqual((await bring({ ...scene, content: changed, old })).digest, digestOf(changed));
    assert.ok(scene.target.partial?.equals(changed));
    assert.deepEqual([scene.target.sent, scene.target.spliced, scene.target.proofs], [changed.length, 0, 0]);
  }
});

test("a server that lies, refuses or fails: all of it is sent, and that is said", async () => {
  for (const lie of ["copies nothing", "copies other bytes", "refuses", "fails"] as const)
    for (const splices of ["ranges", "whole"] as const) {
      const target = new Memory(splices, old, lie);
      const scene = { target, content: grown, old };
      // That it copied nothing shows when the tail is written.
      const { said } = lie === "copies nothing" ? await bring(scene).catch(() => bring({ ...scene, old: undefined })) : await bring(scene);
      assert.ok(target.partial?.equals(grown), `${lie}: another content`);
      assert.ok(lie === "copies nothing" || said.length === 1, `${lie}: ${said.join()}`);
    }
});

test("what has the name is another content than was agreed, or has gone: all of it is sent", async () => {
  const foreign = Buffer.from(old);
  foreign[2_000_000] = (foreign[2_000_000] ?? 0) ^ 1;
  for (const held of [foreign, foreign.subarray(5), undefined])
    for (const content of [grown, changed]) {
      const target = new Memory("ranges", held);
      const { said } = await bring({ target, content, old });
      assert.ok(target.partial?.equals(content));
      assert.ok(said.length > 0 || content === changed);
    }
});

test("what is written while it is sent is changed, and never whole", async () => {
  const target = new Memory("ranges", old);
  let reads = 0;
  const read = (offset: number) => {
    const now = Buffer.from(changed);
    // After it was compared.
    if (reads++ > 0) now.fill(7);
    return new Content(now, 50_000, offset);
  };
  await assert.rejects(bring({ target, content: changed, old, read }), (error: unknown) => isFault(error, "changed"));
  assert.notEqual(target.partial?.length, changed.length);
});

test(`cut at any moment, again and again: it goes on, and the partial is always a beginning of it; seed ${seed}`, async () => {
  for (let n = 0; n < 60; n++) {
    const content = random.pick([grown, changed, Buffer.concat([changed, old.subarray(500_000)]), old.subarray(0, 2_000_000)]);
    const target = new Memory(random.pick(["ranges", "whole"]), old);
    const memo = memoOf();
    target.gate = () => {
      if (random.below(12) === 0) throw new Fault("offline", "the link is gone");
    };
    let cuts = 0;
    for (;;) {
      try {
        await bring({ target, content, old, memo, known: random.below(4) > 0 });
        break;
      } catch (error) {
        assert.ok(isFault(error, "offline"), String(error));
        const { partial } = target;
        assert.ok(partial === undefined || content.subarray(0, partial.length).equals(partial), `world ${n}: it is no beginning`);
        assert.ok((cuts += 1) < 500, `world ${n}: it does not come to an end`);
      }
    }
    assert.ok(target.partial?.equals(content), `world ${n}`);
    assert.ok(target.sent <= content.length, `world ${n}: ${target.sent} bytes were sent of ${content.length}`);
  }
});
