import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { Random } from "../../test/faults/random.js";
import { type Chunk, Chunker, decoded, encoded, hashOf, sizes, type Step, stepsOf } from "./chunks.js";

const small = { least: 64, mean: 256, most: 1024 };
const seed = Number(process.env["FILESYNC_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

function made(random: Random, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at++) bytes[at] = random.below(256);
  return bytes;
}

function cut(content: Buffer, given = small, pieces: () => number = () => content.length): readonly Chunk[] {
  const chunker = new Chunker(given);
  for (let at = 0; at < content.length;) {
    const end = at + Math.max(1, pieces());
    chunker.update(content.subarray(at, end));
    at = end;
  }
  return chunker.end();
}

/** What steps make of the old version, with the new bytes given. */
function applied(steps: readonly Step[], old: Buffer, now: Buffer): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  for (const { length, from } of steps) {
    parts.push(from === undefined ? now.subarray(at, at + length) : old.subarray(from, from + length));
    at += length;
  }
  return Buffer.concat(parts);
}

const fresh = (steps: readonly Step[]) => steps.reduce((sum, { length, from }) => sum + (from === undefined ? length : 0), 0);

test("a file is cut into all of its bytes, each piece within the sizes, whatever it comes in", () => {
  const random = new Random(seed);
  for (const length of [0, 1, small.least, small.least + 1, 5000, 100_000]) {
    const content = made(random, length);
    const chunks = cut(content);
    let at = 0;
    for (const [n, { length: size, hash }] of chunks.entries()) {
      assert.ok(size <= small.most && (size >= small.least || n === chunks.length - 1), `seed ${seed}`);
      assert.equal(hash, hashOf(content.subarray(at, at + size)));
      at += size;
    }
    assert.equal(at, length);
    assert.deepEqual(
      cut(content, small, () => random.below(700)),
      chunks,
      `seed ${seed}`,
    );
  }
  // What never makes a cut.
  assert.deepEqual(
    cut(Buffer.alloc(5000)).map(({ length }) => length),
    [1024, 1024, 1024, 1024, 904],
  );
});

test("chunks are about as long as they should be", () => {
  const random = new Random(1);
  const content = made(random, 16 * 2 ** 20);
  const mean = content.length / cut(content, sizes).length;
  assert.ok(mean > sizes.mean / 2 && mean < sizes.mean * 2, `${mean} bytes`);
});

test("an edit makes new what is near it, and nothing else", () => {
  const random = new Random(seed);
  const old = made(random, 200_000);
  const insert = made(random, 10);
  const edits: Readonly<Record<string, Buffer>> = {
    "inserted at the front": Buffer.concat([insert, old]),
    "changed in the middle": Buffer.concat([old.subarray(0, 100_000), insert, old.subarray(100_010)]),
    removed: Buffer.concat([old.subarray(0, 70_000), old.subarray(71_000)]),
    "added at the end": Buffer.concat([old, insert]),
    shortened: old.subarray(0, 150_000),
    "the two halves changed places": Buffer.concat([old.subarray(100_000), old.subarray(0, 100_000)]),
  };
  for (const [name, now] of Object.entries(edits)) {
    const steps = stepsOf(cut(old), cut(now), 1);
    assert.ok(applied(steps, old, now).equals(now), `${name}: seed ${seed}`);
    // After an edit the cuts come together again within some chunks.
    assert.ok(fresh(steps) <= 10 * small.most, `${name}: ${fresh(steps)} bytes are new; seed ${seed}`);
  }
  assert.deepEqual(stepsOf(cut(old), cut(old), 1), [{ length: old.length, from: 0 }]);
  assert.deepEqual(stepsOf([], cut(old), 1), [{ length: old.length }]);
});

test(`random edits: the steps give the new version, and what they call new is what the old one's chunks have not; seed ${seed}`, () => {
  const random = new Random(seed);
  for (let n = 0; n < 200; n++) {
    // Few different bytes: the same chunks come more than once.
    const repeated = made(random, 600);
    const parts = Array.from({ length: random.below(20) }, () => (random.below(2) === 0 ? repeated : made(random, random.below(2000))));
    const old = Buffer.concat(parts);
    let now = old;
    for (let edits = random.below(5); edits > 0; edits--) {
      const [a, b] = [random.below(now.length + 1), random.below(now.length + 1)].sort((x, y) => x - y) as [number, number];
      const middle = [made(random, random.below(300)), now.subarray(a, b), Buffer.alloc(0)][random.below(3)] ?? Buffer.alloc(0);
      now = Buffer.concat([now.subarray(0, a), middle, now.subarray(random.below(2) === 0 ? a : b)]);
    }
    const [before, after] = [cut(old), cut(now)];
    const least = random.below(2) === 0 ? 1 : 700;
    const steps = stepsOf(before, after, least);
    assert.ok(applied(steps, old, now).equals(now), `world ${n}`);
    // By a naive look at each chunk.
    const known = new Set(before.map(({ hash }) => hash));
    const missing = after.reduce((sum, { hash, length }) => sum + (known.has(hash) ? 0 : length), 0);
    if (least === 1) assert.equal(fresh(steps), missing, `world ${n}`);
    else assert.ok(fresh(steps) >= missing, `world ${n}`);
    for (const { length, from } of steps) assert.ok(from === undefined || length >= least, `world ${n}`);
    const ends = new Set(
      after.map(
        (
          (end) =>
          ({ length }: Chunk) =>
            (end += length)
        )(0),
      ),
    );
    let end = 0;
    for (const { length } of steps) assert.ok(ends.has((end += length)), `world ${n}: a step ends within a chunk`);
  }
});

test("what is kept comes back as it was; what is damaged, cut, or of another file does not", () => {
  const content = made(new Random(seed), 20_000);
  const chunks = cut(content);
  const kept = encoded(chunks);
  assert.deepEqual(decoded(kept, content.length), chunks);
  assert.equal(decoded(kept, content.length + 1), undefined);
  assert.equal(decoded(Buffer.alloc(0), 0), undefined);
  for (let at = 0; at < kept.length; at++) {
    const damaged = Buffer.from(kept);
    damaged[at] = (damaged[at] ?? 0) ^ 0x10;
    assert.equal(decoded(damaged, content.length), undefined, `byte ${at}`);
    assert.equal(decoded(kept.subarray(0, at), content.length), undefined, `cut at ${at}`);
  }
});

test("cuts are where they were in every version of this program: chunks are kept", () => {
  const content = made(new Random(4712), 50_000);
  const lengths = cut(content).map(({ length }) => length);
  assert.equal(createHash("sha256").update(lengths.join(" ")).digest("hex").slice(0, 16), "45135f3b2c20e4e3");
});
