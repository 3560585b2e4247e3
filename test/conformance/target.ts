/**
 * The promises of a Target (`core/plugin.ts`), as clauses that run against any plugin and any server.
 *
 * A harness makes a device with an empty root and gives a way to the real files that does not go through the plugin. A clause that asks for
 * what the target says it has not (resume, atomic, digests) does not apply.
 */
import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { inspect } from "node:util";
import { Fault, isFault, type FaultKind } from "../../core/errors.js";
import type { Target } from "../../core/plugin.js";
import { calm, deviceClauses, expectFault, register, until } from "./clause.js";
import { spliceClauses } from "./target-splice.js";
import {
  commit,
  expectPublished,
  isReceipt,
  send,
  targetOf,
  visible,
  type TargetClause,
  type TargetHarness,
  type TargetUnderTest,
} from "./target-under-test.js";
import { cut, short, slow, stuck, wrong } from "./readers.js";
import { bytes, chunks, partialPathOf, sha256, upload, type TestUpload } from "./upload.js";

async function half(target: Target, it: TestUpload, content: Buffer): Promise<number> {
  const first = upload(it.path, content, { id: it.id, read: cut(content, content.length / 2) });
  await expectFault(
    target.write(first, 0, calm(), () => undefined),
    "changed",
  );
  return target.offset(it, calm());
}

/** How a commit of too few bytes ends: where nothing is continued, nothing may have been kept. */
function tooFew({ features }: Target): readonly FaultKind[] {
  return features.resume ? ["transient"] : ["transient", "conflict"];
}

const uglyNames: readonly (readonly [string, string])[] = [
  ["spaces", "with space in it.bin"],
  ["a leading and a trailing space", " both ends .bin "],
  ["quotes and a backslash", `it's "quoted" \\ here.bin`],
  ["other scripts", "полёт/飛行 ✈.ulg"],
  ["a leading dash", "-l.bin"],
  ["patterns", "a*?[b]{c,d}~$HOME.bin"],
  ["signs of URLs and shells", "100%41 & #1;a=b+c|d.bin"],
  ["a newline, as core writes it", "line\u201b0Abreak.bin"],
  ["255 bytes", `${"n".repeat(251)}.bin`],
  ["a deep directory", "a/b c/d/e/f/g/h.bin"],
];

const uglyClauses: readonly TargetClause[] = uglyNames.map(([what, path]) => ({
  name: `a name with ${what}`,
  run: async (under) => {
    const known = under.refuses?.[path];
    if (known !== undefined) return known;
    const content = bytes(1000, path.length);
    const it = upload(path, content);
    await expectPublished(under, it, content, await send(targetOf(under), it));
    return undefined;
  },
}));

const clauses: readonly TargetClause[] = [
  ...deviceClauses<TargetUnderTest>((device) => {
    assert.ok(device.target);
    return device.target.offset(upload("log.bin", bytes(10)), calm());
  }),
  {
    name: "the whole bytes arrive",
    run: async (under) => {
      const content = bytes(300_000);
      const it = upload("dir/log 1.bin", content);
      let told = 0;
      const target = targetOf(under);
      await target.write(it, 0, calm(), (n) => (told += n));
      assert.equal(told, content.length, "onBytes did not tell of each byte");
      await commit(under, it, content);
      assert.deepEqual(await under.list(), [it.path], "something else was left behind");
      return undefined;
    },
  },
  {
    name: "an empty file arrives",
    run: async (under) => {
      const it = upload("empty.bin", Buffer.alloc(0));
      await expectPublished(under, it, Buffer.alloc(0), await send(targetOf(under), it));
      return undefined;
    },
  },
  ...uglyClauses,
  {
    name: "the offset of what is not known is 0",
    run: async (under) => {
      assert.equal(await targetOf(under).offset(upload("no/such/dir/log.bin", bytes(10)), calm()), 0);
      return undefined;
    },
  },
  {
    name: "nothing is visible before the commit",
    run: async (under) => {
      const target = targetOf(under);
      if (!target.features.atomic) return "not atomic";
      const it = upload("seen.bin", bytes(200_000));
      await half(target, it, bytes(200_000));
      assert.deepEqual(visible(await under.list()), [], "visible in the middle");
      await target.write(it, await target.offset(it, calm()), calm(), () => undefined);
      assert.deepEqual(visible(await under.list()), [], "visible before the commit");
      return undefined;
    },
  },
  {
    name: "a resume sends no prefix again",
    run: async (under) => {
      const target = targetOf(under);
      if (!target.features.resume) return "no resume";
      const content = bytes(800_000);
      const it = upload("resumed.bin", content);
      const offset = await half(target, it, content);
      assert.ok(offset > 0, "nothing of the first part was kept");
      assert.ok(offset <= content.length / 2, "more is there than was given");
      let told = 0;
      await target.write(it, offset, calm(), (n) => (told += n));
      assert.deepEqual(it.reading.offsets, [offset]);
      assert.ok(it.reading.given <= content.length - offset && told === content.length - offset, "more than the rest was sent");
      await commit(under, it, content);
      return undefined;
    },
  },
  {
    name: "a write at another offset than the partial's size is a conflict",
    run: async (under) => {
      const target = targetOf(under);
      if (!target.features.resume) return "no resume";
      const content = bytes(100_000);
      const it = upload("offset.bin", content);
      await expectFault(
        target.write(it, 5000, calm(), () => undefined),
        "conflict",
      );
      const offset = await half(target, it, content);
      for (const bad of [offset - 1, offset + 1])
        await expectFault(
          target.write(it, bad, calm(), () => undefined),
          "conflict",
        );
      assert.equal(await target.offset(it, calm()), offset, "the refused write changed the partial");
      // From the first byte it may be begun anew: whole, or not at all.
      const anew = await target
        .write(it, 0, calm(), () => undefined)
        .then(
          () => undefined,
          (error: unknown) => error,
        );
      if (anew !== undefined) assert.ok(isFault(anew, "conflict"), inspect(anew));
      assert.equal(await target.offset(it, calm()), anew === undefined ? it.size : offset);
      return undefined;
    },
  },
  {
    name: "a commit of too few bytes publishes nothing, and the rest can be sent",
    run: async (under) => {
      const target = targetOf(under);
      const it = upload("short.bin", bytes(100_000));
      await half(target, it, bytes(100_000));
      await expectFault(target.commit(it, calm()), tooFew(target));
      assert.equal(await under.read(it.path), undefined, "it was published");
      return undefined;
    },
  },
  {
    name: "a commit of nothing is a conflict",
    run: async (under) => {
      await expectFault(targetOf(under).commit(upload("nothing.bin", bytes(100)), calm()), "conflict");
      return undefined;
    },
  },
  {
    name: "a commit twice gives the same receipt",
    run: async (under) => {
      const content = bytes(50_000);
      const it = upload("twice.bin", content);
      const first = await send(targetOf(under), it);
      const again = await targetOf(under).commit(it, calm());
      assert.deepEqual({ ...again, shown: undefined }, { ...first, shown: undefined });
      await expectPublished(under, it, content, first);
      return undefined;
    },
  },
  {
    name: "what was lost before its name was asked for is not another's file that has it",
    run: async (under) => {
      const target = targetOf(under);
      if (target.features.tellsNaming !== true) return "it does not tell that it asks for a name";
      let told = 0;
      const telling = (path: string, content: Buffer) => ({ ...upload(path, content), naming: () => void (told += 1) });
      const theirs = bytes(4000, 7);
      const it = telling("lost.bin", bytes(4000, 8));
      await target.write(it, 0, calm(), () => undefined);
      // Some keep it otherwise.
      if ((await under.list()).includes(it.partialPath)) await under.remove(it.partialPath);
      else await target.discard(it, calm());
      await under.put(it.path, theirs);
      const result = await target.commit(it, calm()).catch((error: unknown) => error as Error);
      assert.ok(result instanceof Error || !isReceipt(result), `it has a receipt: ${inspect(result)}`);
      assert.ok((await under.read(it.path))?.equals(theirs), "the other's bytes were touched");
      told = 0;
      await send(target, telling("named.bin", bytes(4000, 9)));
      assert.ok(told > 0, "it was not told");
      return undefined;
    },
  },
  {
    name: "what another put under the name stays, and is told",
    run: async (under) => {
      const target = targetOf(under);
      const theirs = bytes(4000, 7);
      // What the target has learned of a name that was free says nothing of this one.
      await send(target, upload("taken/first.bin", bytes(4000, 6)));
      await under.put("taken/log.bin", theirs);
      for (const content of [bytes(5000, 8), bytes(4000, 9)]) {
        const it = upload("taken/log.bin", content);
        await target.write(it, 0, calm(), () => undefined);
        const result = await target.commit(it, calm());
        assert.ok("occupied" in result, "it was published over the other's file");
        assert.equal(result.size, theirs.length);
        if (result.digest !== undefined) assert.equal(result.digest, sha256(theirs));
        assert.ok((await under.read(it.path))?.equals(theirs), "the other's bytes were touched");
        assert.equal(await target.offset(it, calm()), content.length, "the partial was not kept");
        const elsewhere = { ...it, path: "taken/log~1.bin" };
        const second = await target.commit(elsewhere, calm());
        assert.ok(isReceipt(second), "the kept partial could not be published under another name");
        assert.ok((await under.read(elsewhere.path))?.equals(content));
        await under.remove(elsewhere.path);
      }
      return undefined;
    },
  },
  {
    name: "our own earlier version is replaced, and nothing else",
    run: async (under) => {
      const target = targetOf(under);
      const whole = bytes(60_000);
      const old = whole.subarray(0, 20_000);
      await send(target, upload("grows.bin", Buffer.from(old)));
      const it = upload("grows.bin", whole, { expect: { kind: "replaces", size: old.length, digest: sha256(old) } });
      await expectPublished(under, it, whole, await send(target, it));
      const other = upload("grows.bin", bytes(70_000, 3), { expect: { kind: "replaces", size: 1234, digest: sha256(old) } });
      await target.write(other, 0, calm(), () => undefined);
      assert.ok("occupied" in (await target.commit(other, calm())), "it replaced what is not the earlier version");
      assert.ok((await under.read("grows.bin"))?.equals(whole));
      return undefined;
    },
  },
  {
    name: "our own earlier version has the size of the one that replaces it: where the partial has gone it is not taken for that",
    run: async (under) => {
      const target = targetOf(under);
      if (target.features.singleShot) return "no partial";
      const [old, content] = [bytes(60_000, 4), bytes(60_000, 5)];
      await send(target, upload("alike.bin", old));
      const it = upload("alike.bin", content, { expect: { kind: "replaces", size: old.length, digest: sha256(old) } });
      await target.write(it, 0, calm(), () => undefined);
      await target.discard(it, calm());
      await expectFault(target.commit(it, calm()), "conflict");
      await expectPublished(under, it, content, await send(target, it));
      return undefined;
    },
  },
  {
    name: "look tells what is there",
    run: async (under) => {
      const target = targetOf(under);
      if (target.look === undefined) return "no look";
      assert.equal(await target.look(upload("seen.bin", bytes(10)), calm()), undefined);
      await under.put("seen.bin", bytes(10, 5));
      const seen = await target.look(upload("seen.bin", bytes(10)), calm());
      assert.equal(seen?.size, 10);
      if (seen.digest !== undefined) assert.equal(seen.digest, sha256(bytes(10, 5)));
      return undefined;
    },
  },
  {
    name: "discard forgets the partial, and nothing there is success",
    run: async (under) => {
      const target = targetOf(under);
      const it = upload("gone/away.bin", bytes(100_000));
      await target.discard(it, calm());
      await half(target, it, bytes(100_000));
      await target.discard(it, calm());
      assert.equal(await target.offset(it, calm()), 0);
      assert.deepEqual(await under.list(), []);
      await target.discard(it, calm());
      return undefined;
    },
  },
  {
    name: "where the device has a tree a partial may be in another directory than its name",
    run: async (under) => {
      if (under.device.tree === undefined) return "no tree";
      const target = targetOf(under);
      const apart = (path: string, content: Buffer): TestUpload => {
        const it = upload(path, content);
        return { ...it, partialPath: partialPathOf(`.own/staged/${it.id}`, it.id) };
      };
      const content = bytes(300_000);
      const it = apart("far/off/elsewhere.bin", content);
      await target.write(it, 0, calm(), () => undefined);
      assert.deepEqual(visible(await under.list()), [], "visible before the commit");
      assert.equal(await target.offset(it, calm()), content.length);
      await commit(under, it, content);
      const unwanted = apart("never/made/nowhere.bin", content);
      await target.write(unwanted, 0, calm(), () => undefined);
      await target.discard(unwanted, calm());
      assert.deepEqual(await under.list(), [it.path], "something was left behind");
      return undefined;
    },
  },
  {
    name: "discard where a directory above has become a file is success: nothing is there",
    run: async (under) => {
      const target = targetOf(under);
      await under.put("was-a-directory", bytes(10));
      for (const path of ["was-a-directory/log.bin", "was-a-directory/below/log.bin"]) {
        const it = upload(path, bytes(1000));
        await target.discard(it, calm());
        assert.equal(await target.offset(it, calm()), 0);
      }
      assert.deepEqual(await under.list(), ["was-a-directory"]);
      return undefined;
    },
  },
  {
    name: "a path that leaves the root is rejected",
    run: async (under) => {
      const target = targetOf(under);
      const before = await under.outside?.();
      for (const path of ["../escape.bin", "a/../../escape.bin", "/escape.bin", "..", "a//b.bin", "nul\0.bin"]) {
        const it = upload(path, bytes(100));
        await expectFault(
          target.write(it, 0, calm(), () => undefined),
          "rejected",
        );
        await expectFault(target.commit(it, calm()), "rejected");
      }
      assert.deepEqual(await under.list(), []);
      assert.deepEqual(await under.outside?.(), before);
      return undefined;
    },
  },
  {
    name: "an abort ends a write within 2 s, and it can go on",
    run: async (under) => {
      const target = targetOf(under);
      const content = bytes(400_000);
      const id = "00000000000000aa";
      const stop = new AbortController();
      let taken: () => void = () => undefined;
      const reached = new Promise<void>((resolve) => (taken = resolve));
      const first = upload("stopped.bin", content, { id, read: stuck(content, 300_000, () => taken()) });
      const writing = target.write(first, 0, stop.signal, () => undefined);
      await Promise.race([reached, writing]);
      stop.abort();
      await expectFault(writing, "aborted", 2000);
      const it = upload("stopped.bin", content, { id });
      await untilStable(target, it);
      await expectPublished(under, it, content, await send(target, it));
      return undefined;
    },
  },
  {
    name: "a signal that was given before stops everything, with its reason",
    run: async (under) => {
      const target = targetOf(under);
      const it = upload("late.bin", bytes(100));
      const why = AbortSignal.abort(new Fault("offline", "the vehicle is armed"));
      await expectFault(target.offset(it, AbortSignal.abort()), "aborted", 2000);
      await expectFault(target.offset(it, why), "offline", 2000);
      await expectFault(
        target.write(it, 0, why, () => undefined),
        "offline",
        2000,
      );
      await expectFault(target.commit(it, why), "offline", 2000);
      assert.deepEqual(await under.list(), []);
      return undefined;
    },
  },
  {
    name: "as many uploads at once as it says",
    run: async (under) => {
      const target = targetOf(under);
      const uploads = Array.from({ length: target.features.concurrency }, (_, i) => upload(`many/${i}.bin`, bytes(150_000, i + 1)));
      const receipts = await Promise.all(uploads.map((it) => send(target, it)));
      for (const [i, it] of uploads.entries()) await expectPublished(under, it, bytes(150_000, i + 1), receipts[i]!);
      return undefined;
    },
  },
  {
    name: "wrong bytes are a mismatch where the target can tell, and are not published",
    run: async (under) => {
      const target = targetOf(under);
      const content = bytes(200_000);
      const it = upload("wrong.bin", content, { read: wrong(content, 150_000) });
      await target.write(it, 0, calm(), () => undefined);
      const committed = target.commit(it, calm());
      if (target.features.digests.length === 0) {
        const result = await committed.catch(() => undefined);
        if (result !== undefined && isReceipt(result)) {
          assert.ok(result.proof === "size" || result.proof === "answer", `wrong bytes are said to be proved by ${result.proof}`);
          return "this target cannot tell, and says so";
        }
      }
      await expectFault(committed, "mismatch");
      assert.equal(await under.read(it.path), undefined, "it was published");
      return undefined;
    },
  },
  {
    name: "a stream that ends early is never a whole file",
    run: async (under) => {
      const target = targetOf(under);
      const content = bytes(200_000);
      const it = upload("early.bin", content, { read: short(content, 1) });
      await expectFault(
        target.write(it, 0, calm(), () => undefined),
        ["transient", "rejected"],
      );
      await expectFault(target.commit(it, calm()), tooFew(target));
      assert.equal(await under.read(it.path), undefined, "it was published");
      return undefined;
    },
  },
  {
    name: "a slow stream arrives whole",
    run: async (under) => {
      const content = bytes(50_000);
      const it = upload("slow.bin", content, { read: slow(content, 10_000, 30) });
      await expectPublished(under, it, content, await send(targetOf(under), it));
      return undefined;
    },
  },
  {
    name: "the Fault that withdraws the bytes is the Fault of the write, and what came is kept",
    run: async (under) => {
      const target = targetOf(under);
      const content = bytes(400_000);
      for (const kind of ["changed", "offline"] as const) {
        const it = upload(`withdrawn ${kind}.bin`, content, { read: cut(content, 200_000, kind) });
        const message = await expectFault(
          target.write(it, 0, calm(), () => undefined),
          kind,
        );
        assert.equal(message, "withdrawn by the test");
        if (target.features.resume) assert.ok((await target.offset(it, calm())) > 0, "nothing was kept");
      }
      return undefined;
    },
  },
  {
    name: "the time of the file is kept",
    run: async (under) => {
      if (under.modifiedMs === undefined) return "this target keeps no times";
      const modifiedMs = Date.UTC(2021, 4, 17, 3, 4, 5);
      const it = upload("timed.bin", bytes(100), { modifiedMs });
      await send(targetOf(under), it);
      assert.equal(await under.modifiedMs(it.path), modifiedMs);
      return undefined;
    },
  },
  {
    name: "beyond 4 GiB it goes on at the byte",
    run: async (under) => {
      const target = targetOf(under);
      if (under.sparse === undefined || !target.features.resume) return "no sparse files here";
      const held = 2 ** 32 + 1;
      const rest = bytes(100_000);
      const it = upload("huge.bin", rest, { size: held + rest.length, read: (offset) => chunks(rest.subarray(offset - held)) });
      await under.sparse(it.partialPath, held);
      await under.vouch?.(it, held);
      assert.equal(await target.offset(it, calm()), held);
      await target.write(it, held, calm(), () => undefined);
      assert.deepEqual(it.reading.offsets, [held]);
      assert.equal(await under.size(it.partialPath), held + rest.length);
      await target.discard(it, calm());
      return undefined;
    },
  },
  ...spliceClauses,
];

/** After an abort a server may still take what was under way: waits until the offset stays. */
async function untilStable(target: Target, it: TestUpload): Promise<void> {
  let last = -1;
  await until("the offset to stay", async () => {
    const now = await target.offset(it, calm());
    const stable = now === last;
    last = now;
    if (!stable) await delay(100);
    return stable;
  });
}

export const allTargetClauses = clauses;

/** Registers the suite for this target. */
export function targetClauses(harness: TargetHarness): void {
  register(clauses, harness);
}
