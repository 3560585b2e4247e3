/**
 * The promises of a Source (`core/plugin.ts`), with those of a Tree, as clauses that run against any plugin and any server or medium.
 *
 * A harness makes a device with an empty root and changes the real files by a way that does not go through the plugin.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { isFault } from "../../core/errors.js";
import { calm, deviceClauses, expectFault, register, until } from "./clause.js";
import {
  all,
  bytesOf,
  found,
  readAll,
  sourceOf,
  type SourceClause,
  type SourceHarness,
  type SourceUnderTest,
} from "./source-under-test.js";
import { treeClauses } from "./tree.js";
import { bytes, sha256 } from "./upload.js";

const uglyNames: readonly (readonly [string, string])[] = [
  ["spaces", "with space in it.bin"],
  ["a leading and a trailing space", " both ends .bin "],
  ["quotes and a backslash", `it's "quoted" \\ here.bin`],
  ["other scripts", "полёт/飛行 ✈.ulg"],
  ["a leading dash", "-l.bin"],
  ["patterns", "a*?[b]{c,d}~$HOME.bin"],
  ["an arrow, as links are listed", "a -> b.bin"],
  ["bytes that are no UTF-8", "caf\u201bE9.bin"],
  ["255 bytes", `${"n".repeat(251)}.bin`],
  ["a deep directory", "a/b c/d/e/f/g/h.bin"],
];

const uglyClauses: readonly SourceClause[] = uglyNames.map(([what, path]) => ({
  name: `a name with ${what} is listed and read`,
  run: async (under) => {
    const known = under.refuses?.[path];
    if (known !== undefined) return known;
    const source = sourceOf(under);
    const content = bytes(2000, path.length);
    const entry = await found(under, path, content);
    assert.equal(entry.kind, "file");
    assert.ok((await bytesOf(source, entry, 0)).equals(content));
    assert.equal((await source.stat(path, calm()))?.size, content.length);
    return undefined;
  },
}));

async function readSome(stream: Readable): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    stream.once("error", reject);
    stream.once("readable", () => {
      stream.read(1);
      stream.off("error", reject);
      resolve();
    });
  });
}

/** How the stream ends after this: its error, or undefined when it ends well. What still comes is thrown away. */
function endOf(stream: Readable): Promise<unknown> {
  return new Promise((resolve) => {
    stream.once("error", resolve);
    stream.once("end", () => resolve(undefined));
    stream.resume();
  });
}

const clauses: readonly SourceClause[] = [
  ...deviceClauses<SourceUnderTest>((device) => {
    assert.ok(device.source);
    return all(device.source);
  }),
  {
    name: "an empty root lists nothing",
    run: async (under) => {
      assert.deepEqual(await all(sourceOf(under)), []);
      return undefined;
    },
  },
  {
    name: "each file is listed once, with its size",
    run: async (under) => {
      const wanted = new Map<string, number>();
      for (let i = 0; i < 40; i++) {
        const path = `${i % 3 === 0 ? "" : `dir ${i % 7}/${i % 2 === 0 ? "sub/" : ""}`}log${i}.bin`;
        wanted.set(path, i * 10);
        await under.put(path, bytes(i * 10, i));
      }
      const listed = await all(sourceOf(under));
      assert.deepEqual(
        listed.map((it) => `${it.kind} ${it.path} ${it.size}`),
        [...wanted].map(([path, size]) => `file ${path} ${size}`).sort(byPath),
      );
      return undefined;
    },
  },
  {
    name: "enter leaves out a directory with all below it",
    run: async (under) => {
      await under.put("in/a.bin", bytes(1));
      await under.put("out/deep/b.bin", bytes(1));
      const asked: string[] = [];
      const listed = await all(sourceOf(under), { enter: (dir) => (asked.push(dir), dir !== "out") });
      assert.deepEqual(
        listed.map((it) => it.path),
        ["in/a.bin"],
      );
      assert.deepEqual(asked.sort(), ["in", "out"]);
      return undefined;
    },
  },
  {
    name: "a list ends with its signal",
    run: async (under) => {
      for (let i = 0; i < 5; i++) await under.put(`a${i}.bin`, bytes(1));
      const stop = new AbortController();
      const stopped = new Promise<void>((resolve) => stop.signal.addEventListener("abort", () => resolve()));
      const iterate = async (): Promise<void> => {
        for await (const entry of sourceOf(under).list(stop.signal)) if (entry.path !== "") stop.abort();
      };
      const listing = iterate();
      // A login comes first, which takes as long as it takes.
      await Promise.race([stopped, listing]);
      await expectFault(listing, "aborted", 2000);
      return undefined;
    },
  },
  {
    name: "a symbolic link is unreadable, and costs only itself",
    run: async (under) => {
      if (under.link === undefined) return "no links here";
      await under.put("real.bin", bytes(10));
      await under.link("link.bin", "/etc/passwd");
      const listed = await all(sourceOf(under));
      assert.equal(listed.find((it) => it.path === "real.bin")?.kind, "file");
      const link = listed.find((it) => it.path.startsWith("link.bin"));
      if (link !== undefined) assert.ok(link.kind === "unreadable" && link.reason !== undefined, `it is listed as a ${link.kind}`);
      return undefined;
    },
  },
  ...uglyClauses,
  {
    name: "open at 0, in the middle and at the size gives what is there",
    run: async (under) => {
      const source = sourceOf(under);
      const content = bytes(700_000);
      const entry = await found(under, "log.bin", content);
      for (const offset of source.features.ranges ? [0, 1, 350_000, 699_999, 700_000] : [0]) {
        const got = await bytesOf(source, entry, offset);
        assert.ok(got.equals(content.subarray(offset)), `${got.length} other bytes from ${offset}`);
      }
      return undefined;
    },
  },
  {
    name: "an empty file gives an empty stream",
    run: async (under) => {
      const entry = await found(under, "empty.bin", Buffer.alloc(0));
      assert.equal(entry.size, 0);
      assert.equal(await readAll(sourceOf(under), entry), 0);
      return undefined;
    },
  },
  {
    name: "an offset past the size is changed",
    run: async (under) => {
      const entry = await found(under, "log.bin", bytes(1000));
      await expectFault(readAll(sourceOf(under), entry, 1001), "changed");
      return undefined;
    },
  },
  {
    name: "a file that grew gives no byte beyond the size that was listed",
    run: async (under) => {
      const content = bytes(300_000);
      const entry = await found(under, "grows.bin", content);
      await under.append("grows.bin", bytes(2_000_000, 2));
      for (const offset of [0, 100_000, 300_000]) {
        const got = await bytesOf(sourceOf(under), entry, offset);
        assert.ok(got.equals(content.subarray(offset)), `${got.length} bytes from ${offset}`);
      }
      return undefined;
    },
  },
  {
    name: "a file that became shorter is changed",
    run: async (under) => {
      const entry = await found(under, "shrinks.bin", bytes(300_000));
      await under.put("shrinks.bin", bytes(1000));
      await expectFault(readAll(sourceOf(under), entry), "changed");
      return undefined;
    },
  },
  {
    name: "a file that has gone is missing",
    run: async (under) => {
      const entry = await found(under, "gone.bin", bytes(1000));
      await under.remove("gone.bin");
      await expectFault(readAll(sourceOf(under), entry), "missing");
      assert.equal(await sourceOf(under).stat("gone.bin", calm()), undefined);
      assert.equal(await sourceOf(under).stat("no/such/dir.bin", calm()), undefined);
      return undefined;
    },
  },
  {
    name: "in place it gives the bytes from an offset, and the digest of all",
    run: async (under) => {
      const source = sourceOf(under);
      if (source.readInPlace === undefined) return "not read in place";
      for (const size of [0, 1, 20_000, 512 * 1024, 1_500_000]) {
        const content = bytes(size, size);
        const entry = await found(under, `in-place-${size}.bin`, content);
        for (const offset of [0, size >> 1, size])
          for (const digest of [true, false]) {
            const reading = source.readInPlace(entry, offset, calm(), { digest, exact: false });
            const parts: Buffer[] = [];
            for (let chunk = await reading.next(); chunk !== undefined; chunk = await reading.next()) {
              parts.push(Buffer.from(chunk.bytes));
              chunk.release();
            }
            assert.ok(Buffer.concat(parts).equals(content.subarray(offset)), `${size} from ${offset}`);
            assert.equal(reading.digest, digest ? sha256(content) : undefined);
            reading.close();
          }
      }
      return undefined;
    },
  },
  {
    name: "in place: written, cut or removed while it is read, it has no end",
    run: async (under) => {
      const source = sourceOf(under);
      if (source.readInPlace === undefined) return "not read in place";
      const content = bytes(3_000_000);
      const changes = {
        // Until its time is another one: exFAT counts in steps of two seconds.
        written: async () => {
          const before = await source.stat("moving.bin", calm());
          do await under.put("moving.bin", bytes(3_000_000, 2));
          while ((await source.stat("moving.bin", calm()))?.modifiedMs === before?.modifiedMs);
        },
        grown: () => under.append("moving.bin", bytes(10)),
        cut: () => under.put("moving.bin", content.subarray(0, 100)),
        removed: () => under.remove("moving.bin"),
      };
      for (const [what, change] of Object.entries(changes)) {
        const entry = await found(under, "moving.bin", content);
        const reading = source.readInPlace(entry, 0, calm(), { digest: true, exact: what === "grown" });
        const first = await reading.next();
        assert.ok(first !== undefined && first.bytes.length < content.length);
        await change();
        const rest = async () => {
          for (let chunk = await reading.next(); chunk !== undefined; chunk = await reading.next()) chunk.release();
        };
        await assert.rejects(rest(), (error: unknown) => isFault(error, "changed") || isFault(error, "missing"), what);
        assert.equal(reading.digest, undefined);
        reading.close();
      }
      return undefined;
    },
  },
  {
    name: "in place: one that grew while it is read may end, when that is asked for, where its beginning is still what was given",
    run: async (under) => {
      const source = sourceOf(under);
      if (source.readInPlace === undefined) return "not read in place";
      const content = bytes(3_000_000);
      const other = bytes(3_000_010, 3);
      for (const [what, change] of [
        ["grown", () => under.append("growing.bin", bytes(10))],
        ["another, longer one", () => under.put("growing.bin", other)],
      ] as const) {
        const entry = await found(under, "growing.bin", content);
        const reading = source.readInPlace(entry, 0, calm(), { digest: true, exact: true, mayGrow: true });
        const hash = createHash("sha256");
        const rest = async (): Promise<number> => {
          let size = 0;
          for (let chunk = await reading.next(); chunk !== undefined; chunk = await reading.next()) {
            hash.update(chunk.bytes);
            size += chunk.bytes.length;
            chunk.release();
            if (size < content.length / 2) await change();
          }
          return size;
        };
        if (what === "grown") {
          assert.equal(await rest(), content.length);
          assert.equal(reading.digest, sha256(content));
          assert.equal(`sha256:${hash.digest("hex")}`, sha256(content));
        } else await expectFault(rest(), "changed");
        reading.close();
        // Longer before it is open: nothing tells whether it is that file.
        if (what === "grown")
          await expectFault(source.readInPlace(entry, 0, calm(), { digest: true, exact: true, mayGrow: true }).next(), "changed");
      }
      return undefined;
    },
  },
  {
    name: "in place: an abort ends it, and a reading that nobody ends can be left",
    run: async (under) => {
      const source = sourceOf(under);
      if (source.readInPlace === undefined) return "not read in place";
      const content = bytes(3_000_000);
      const entry = await found(under, "left.bin", content);
      const stop = new AbortController();
      const reading = source.readInPlace(entry, 0, stop.signal, { digest: true, exact: false });
      assert.ok((await reading.next()) !== undefined);
      stop.abort();
      await assert.rejects(reading.next(), (error: unknown) => isFault(error, "aborted"));
      const left = source.readInPlace(entry, 0, calm(), { digest: true, exact: false });
      await left.next();
      left.close();
      assert.equal(await readAll(source, entry), content.length);
      return undefined;
    },
  },
  {
    name: "stat tells the same as the list",
    run: async (under) => {
      const entry = await found(under, "dir/log.bin", bytes(1234));
      assert.deepEqual(await sourceOf(under).stat("dir/log.bin", calm()), entry);
      return undefined;
    },
  },
  {
    name: "the source's own digest is that of the bytes",
    run: async (under) => {
      const source = sourceOf(under);
      const content = bytes(200_000);
      const entry = await found(under, "log.bin", content);
      // Some know it once a file was opened.
      await bytesOf(source, entry, 0);
      if (source.digest === undefined || !source.features.digests.includes("sha256")) return "no digest";
      assert.equal(await source.digest(entry, "sha256", calm()), sha256(content));
      await under.append("log.bin", bytes(10, 3));
      const later = await source.digest(entry, "sha256", calm());
      assert.ok(later === undefined || later === sha256(content), "the digest is of more than the entry's bytes");
      return undefined;
    },
  },
  {
    name: "an abort ends an open stream within 2 s, and the device goes on",
    run: async (under) => {
      const source = sourceOf(under);
      const content = bytes(6_000_000);
      const entry = await found(under, "long.bin", content);
      const stop = new AbortController();
      const stream = await source.open(entry, 0, stop.signal);
      await readSome(stream);
      stop.abort();
      await expectFault(
        endOf(stream).then((error) => (error === undefined ? "whole" : Promise.reject(error as Error))),
        "aborted",
        2000,
      );
      assert.ok((await bytesOf(source, entry, 5_900_000)).equals(content.subarray(5_900_000)));
      return undefined;
    },
  },
  {
    name: "a stream that nobody reads to its end can be left",
    run: async (under) => {
      const source = sourceOf(under);
      const content = bytes(6_000_000);
      const entry = await found(under, "left.bin", content);
      for (let i = 0; i < source.features.concurrency + 1; i++) {
        const stream = await source.open(entry, 0, calm());
        await readSome(stream);
        stream.destroy();
      }
      assert.ok((await bytesOf(source, entry, 5_999_000)).equals(content.subarray(5_999_000)));
      return undefined;
    },
  },
  {
    name: "a slow reader gets all",
    run: async (under) => {
      const content = bytes(3_000_000);
      const entry = await found(under, "slow.bin", content);
      const stream = await sourceOf(under).open(entry, 0, calm());
      const parts: Buffer[] = [];
      for await (const chunk of stream) {
        parts.push(chunk as Buffer);
        if (parts.length % 8 === 0) await delay(5);
      }
      assert.ok(Buffer.concat(parts).equals(content));
      return undefined;
    },
  },
  {
    name: "as many files at once as it says, while it lists and looks",
    run: async (under) => {
      const source = sourceOf(under);
      const count = source.features.concurrency;
      for (let i = 0; i < count; i++) await under.put(`p${i}.bin`, bytes(1_000_000, i));
      const entries = await all(source);
      const streams = await Promise.all(entries.map((entry) => source.open(entry, 0, calm())));
      assert.equal((await all(source)).length, count);
      assert.equal((await source.stat("p0.bin", calm()))?.size, 1_000_000);
      const got = await Promise.all(streams.map((stream) => buffer(stream)));
      // A list is in any order.
      entries.forEach(({ path }, i) => assert.ok(got[i]!.equals(bytes(1_000_000, Number(/\d+/.exec(path)?.[0]))), path));
      assert.ok((under.mostOpen?.() ?? 0) <= count, "more files were open at the device than it says");
      return undefined;
    },
  },
  {
    name: "beyond 4 GiB it reads at the byte",
    run: async (under) => {
      if (under.sparse === undefined || !sourceOf(under).features.ranges) return "no sparse files here";
      await under.sparse("huge.bin", 2 ** 32 + 1);
      await under.append("huge.bin", bytes(1000));
      const entry = await found(under, "huge.bin");
      assert.equal(entry.size, 2 ** 32 + 1001);
      assert.ok((await bytesOf(sourceOf(under), entry, 2 ** 32 + 1)).equals(bytes(1000)));
      return undefined;
    },
  },
  {
    name: "unplugged in the middle it says so within 5 s, and comes back as it was",
    run: async (under) => {
      if (under.unplug === undefined || under.replug === undefined) return "it cannot be unplugged here";
      const source = sourceOf(under);
      const entry = await found(under, "cut.bin", bytes(30_000_000));
      const stream = await source.open(entry, 0, calm());
      await readSome(stream);
      const end = endOf(stream);
      await under.unplug();
      await expectFault(
        end.then((error) => (error === undefined ? "whole" : Promise.reject(error as Error))),
        ["offline", "transient"],
        5000,
      );
      await expectFault(all(source), ["offline", "transient"], 5000);
      await under.replug();
      await until("the device to be back", async () => (await all(source).catch(() => [])).length === 1);
      assert.deepEqual(await found(under, "cut.bin"), entry);
      return undefined;
    },
  },
];

function byPath(a: string, b: string): number {
  return a.split(" ").slice(1).join(" ") < b.split(" ").slice(1).join(" ") ? -1 : 1;
}

export const allSourceClauses: readonly SourceClause[] = [...clauses, ...treeClauses];

/** Registers the suite for this source. */
export function sourceClauses(harness: SourceHarness): void {
  register(allSourceClauses, harness);
}
