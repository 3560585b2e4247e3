/** The promises of a Target whose server copies by itself: `splice` and `prove`. */
import assert from "node:assert/strict";
import type { Target } from "../../core/plugin.js";
import { calm, expectFault } from "./clause.js";
import { commit, expectPublished, send, targetOf, visible, type TargetClause } from "./target-under-test.js";
import { bytes, upload, type TestUpload } from "./upload.js";

export const spliceClauses: readonly TargetClause[] = [
  {
    name: "what the peer holds is spliced without being sent, and stays as it is",
    run: async (under) => {
      const target = targetOf(under);
      const old = bytes(500_000, 5);
      await under.put("logs/old 1.bin", old);
      if (!(await splices(target))) return "the peer copies nothing by itself";
      const rest = bytes(100_000, 6);
      const content = Buffer.concat([old, rest]);
      const it = spliced(upload("logs/new.bin", content));
      await target.splice!(it, { path: "logs/old 1.bin", offset: 0, length: old.length }, 0, calm());
      assert.equal(await target.offset(it, calm()), old.length);
      it.reading.given = 0;
      await target.write(it, old.length, calm(), () => undefined);
      assert.equal(it.reading.given, rest.length, "more than the rest was sent");
      assert.deepEqual(visible(await under.list()), ["logs/old 1.bin"], "visible before the commit");
      await target.prove?.(it, calm());
      await commit(under, it, content);
      assert.ok((await under.read("logs/old 1.bin"))?.equals(old), "what was spliced from was changed");
      return undefined;
    },
  },
  {
    name: "any bytes of a file are spliced between what is sent, and what was cut goes on",
    run: async (under) => {
      const target = targetOf(under);
      const old = bytes(900_000, 5);
      await under.put("old.bin", old);
      if ((await splices(target)) !== "ranges") return "no ranges";
      const between = bytes(70_000, 6);
      // The last bytes of the old one, then new ones, then its first.
      const content = Buffer.concat([old.subarray(400_000), between, old.subarray(0, 300_000)]);
      const it = spliced(upload("mixed.bin", content));
      const first = old.length - 400_000;
      await target.splice!(it, { path: "old.bin", offset: 400_000, length: 200_000 }, 0, calm());
      assert.equal(await target.offset(it, calm()), 200_000);
      await target.splice!(it, { path: "old.bin", offset: 600_000, length: first - 200_000 }, 200_000, calm());
      const middle = first + between.length;
      const until = spliced(upload(it.path, content.subarray(0, middle), { id: it.id }));
      await target.write(until, first, calm(), () => undefined);
      assert.equal(until.reading.given, between.length);
      assert.equal(await target.offset(it, calm()), middle);
      await target.splice!(it, { path: "old.bin", offset: 0, length: 300_000 }, middle, calm());
      await target.prove?.(it, calm());
      await commit(under, it, content);
      return undefined;
    },
  },
  {
    name: "a splice at another offset than the partial's size is a conflict, and of what is not there nothing is copied",
    run: async (under) => {
      const target = targetOf(under);
      const old = bytes(100_000, 5);
      await under.put("old.bin", old);
      const way = await splices(target);
      if (way === undefined) return "the peer copies nothing by itself";
      const it = spliced(upload("spliced.bin", Buffer.concat([old, old])));
      const part = { path: "old.bin", offset: 0, length: old.length };
      await expectFault(target.splice!(it, part, 5000, calm()), "conflict");
      await expectFault(target.splice!(it, { ...part, path: "no/such.bin" }, 0, calm()), "missing");
      await expectFault(target.splice!(it, { ...part, length: old.length + 1 }, 0, calm()), "changed");
      if (way === "whole") await expectFault(target.splice!(it, { ...part, length: old.length - 1 }, 0, calm()), "changed");
      await expectFault(target.splice!(it, { ...part, path: "../old.bin" }, 0, calm()), "rejected");
      await target.splice!(it, part, 0, calm());
      await expectFault(target.splice!(it, part, old.length - 1, calm()), "conflict");
      assert.equal(await target.offset(it, calm()), old.length, "the refused splice changed the partial");
      return undefined;
    },
  },
  {
    name: "what was spliced and is another content is a mismatch, and is not published",
    run: async (under) => {
      const target = targetOf(under);
      const [old, other] = [bytes(300_000, 5), bytes(300_000, 6)];
      await under.put("old.bin", other);
      if (!(await splices(target))) return "the peer copies nothing by itself";
      const rest = bytes(50_000, 7);
      const it = spliced(upload("wrong.bin", Buffer.concat([old, rest]), { modifiedMs: 1_700_000_000_000 }));
      await target.splice!(it, { path: "old.bin", offset: 0, length: old.length }, 0, calm());
      await target.write(it, old.length, calm(), () => undefined);
      if (target.prove !== undefined) await expectFault(target.prove(it, calm()), "mismatch");
      await expectFault(target.commit(it, calm()), "mismatch");
      assert.equal(await under.read(it.path), undefined, "it was published");
      await target.discard(it, calm());
      await expectPublished(under, it, Buffer.concat([old, rest]), await send(target, it));
      return undefined;
    },
  },
];

/** What it splices, once it is known: servers are asked when something is sent. */
async function splices(target: Target): Promise<"ranges" | "whole" | undefined> {
  const it = upload("asked.bin", bytes(300_000));
  await target.write(it, 0, calm(), () => undefined);
  await target.discard(it, calm());
  const { splices: way } = target.features;
  assert.equal(way === undefined || target.splice !== undefined, true, "it says that it splices, and has no way to ask for it");
  return way;
}

const spliced = (it: TestUpload): TestUpload => ({ ...it, spliced: true });
