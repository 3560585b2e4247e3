/** The promises of a Tree (`core/plugin.ts`), as clauses that run with those of the source. */
import assert from "node:assert/strict";
import { isFault } from "../../core/errors.js";
import type { FileEntry, Tree } from "../../core/plugin.js";
import { calm, expectFault } from "./clause.js";
import { found, sourceOf, type SourceClause, type SourceUnderTest } from "./source-under-test.js";
import { bytes } from "./upload.js";

function treeOf(under: SourceUnderTest): Tree | undefined {
  return under.device.tree;
}

async function listed(tree: Tree, dir = ""): Promise<string[]> {
  const seen: string[] = [];
  for await (const entry of tree.list(dir, calm())) seen.push(`${entry.kind} ${entry.path}`);
  return seen.sort();
}

/** How many of them ended well; the others with one of these faults. */
async function winners(works: readonly Promise<unknown>[], lost: string): Promise<number> {
  let won = 0;
  for (const it of await Promise.allSettled(works)) {
    if (it.status === "fulfilled") won += it.value === false ? 0 : 1;
    else assert.ok(isFault(it.reason) && it.reason.kind === lost, `who lost was told ${String(it.reason)}`);
  }
  return won;
}

const rivals = 8;

export const treeClauses: readonly SourceClause[] = [
  {
    name: "tree: one directory is listed, files and directories",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      await under.put("top.bin", bytes(1));
      await under.put("dir/in.bin", bytes(2));
      const seen: string[] = [];
      for await (const entry of tree.list("", calm())) seen.push(`${entry.kind} ${entry.path}`);
      for await (const entry of tree.list("dir", calm())) seen.push(`${entry.kind} ${entry.path}`);
      assert.deepEqual(seen.sort(), ["directory dir", "file dir/in.bin", "file top.bin"]);
      const gone = async (): Promise<void> => {
        for await (const entry of tree.list("nowhere", calm())) seen.push(entry.path);
      };
      await expectFault(gone(), "missing");
      return undefined;
    },
  },
  {
    name: "tree: remove takes only the file that was meant, and twice is success",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      const entry = await found(under, "dir/log.bin", bytes(100));
      await under.append("dir/log.bin", bytes(1));
      await expectFault(tree.remove("dir/log.bin", entry, calm()), "changed");
      assert.equal((await under.read("dir/log.bin"))?.length, 101);
      const now = await found(under, "dir/log.bin");
      await tree.remove("dir/log.bin", now, calm());
      assert.equal(await under.read("dir/log.bin"), undefined);
      await tree.remove("dir/log.bin", now, calm());
      return undefined;
    },
  },
  {
    name: "tree: where times are asked for, a listing and a look tell the same; what has another time is not the file that was meant",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      const times = { times: true } as const;
      for (const path of ["a b.bin", "dir/in.bin", "dir/two.bin"]) await under.put(path, bytes(10));
      const seen: FileEntry[] = [];
      for await (const entry of sourceOf(under).list(calm(), times)) if (entry.kind === "file") seen.push(entry);
      assert.equal(seen.length, 3);
      for (const { path, modifiedMs } of seen) assert.equal((await tree.stat(path, calm(), times))?.modifiedMs, modifiedMs, path);
      const [entry] = seen;
      if (entry?.modifiedMs === undefined) return "no times";
      const other = { size: entry.size, modifiedMs: entry.modifiedMs - 60_000 };
      await expectFault(tree.move(entry.path, "moved.bin", other, calm()), "changed");
      await expectFault(tree.remove(entry.path, other, calm()), "changed");
      await tree.move(entry.path, "moved.bin", entry, calm());
      return undefined;
    },
  },
  {
    name: "tree: move makes directories, goes over nothing, and takes only the file that was meant",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      const content = bytes(100);
      const entry = await found(under, "log.bin", content);
      await tree.move("log.bin", "archive/2024/log.bin", entry, calm());
      assert.ok((await under.read("archive/2024/log.bin"))?.equals(content));
      assert.equal(await under.read("log.bin"), undefined);
      const second = await found(under, "log.bin", bytes(50, 2));
      await expectFault(tree.move("log.bin", "archive/2024/log.bin", second, calm()), "conflict");
      assert.ok((await under.read("archive/2024/log.bin"))?.equals(content), "it went over the other");
      await expectFault(tree.move("log.bin", "other.bin", { ...second, size: 51 }, calm()), "changed");
      assert.equal((await under.read("log.bin"))?.length, 50);
      return undefined;
    },
  },
  {
    name: "tree: a move that is to make no directory finds none where it has got another name",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      if (under.promises?.exclusive === "nothing") return "this server makes what is missing of a path, or a directory for several";
      const content = bytes(100);
      await under.put("d/in.bin", bytes(5));
      await tree.mkdir("hold", calm());
      const how = { ours: true, made: true } as const;
      await tree.move("log.bin", "hold/1", await found(under, "log.bin", content), calm(), how);
      assert.ok((await under.read("hold/1"))?.equals(content));
      await tree.move("hold", "left", "directory", calm(), { ours: true });
      await expectFault(tree.move("hold/1", "log.bin", await found(under, "left/1"), calm()), "missing");
      await expectFault(tree.move("left/1", "hold/1", await found(under, "left/1"), calm(), how), "missing");
      await expectFault(tree.move("d", "hold/2", "directory", calm(), how), "missing");
      assert.ok((await under.read("left/1"))?.equals(content));
      assert.deepEqual(await listed(tree), ["directory d", "directory left"]);
      return undefined;
    },
  },
  {
    name: "tree: a directory is not taken for the file that was meant",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      await tree.mkdir("was-a-file.bin", calm());
      const entry = (await tree.stat("was-a-file.bin", calm())) ?? { size: 0 };
      await expectFault(tree.remove("was-a-file.bin", entry, calm()), "changed");
      await expectFault(tree.move("was-a-file.bin", "elsewhere", entry, calm()), "changed");
      assert.equal((await tree.stat("was-a-file.bin", calm()))?.kind, "directory");
      return undefined;
    },
  },
  {
    name: "tree: mkdir makes parents, and twice is success",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      await tree.mkdir("a/b c/d", calm());
      await tree.mkdir("a/b c/d", calm());
      assert.equal((await tree.stat("a/b c/d", calm()))?.kind, "directory");
      assert.equal(await tree.stat("a/x", calm()), undefined);
      return undefined;
    },
  },
  {
    name: "tree: a source lists directories where they are wanted, each before what is in it",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      await under.put("dir/sub/in.bin", bytes(1));
      await under.put("out/deep/in.bin", bytes(1));
      await under.put("top.bin", bytes(1));
      await tree.mkdir("empty", calm());
      const seen: FileEntry[] = [];
      for await (const entry of sourceOf(under).list(calm(), { directories: true, enter: (dir) => dir !== "out" })) seen.push(entry);
      const texts = seen.map(({ kind, path }) => `${kind} ${path}`);
      assert.deepEqual([...texts].sort(), ["directory dir", "directory dir/sub", "directory empty", "file dir/sub/in.bin", "file top.bin"]);
      assert.ok(texts.indexOf("directory dir") < texts.indexOf("directory dir/sub"), texts.join());
      assert.ok(texts.indexOf("directory dir/sub") < texts.indexOf("file dir/sub/in.bin"), texts.join());
      return undefined;
    },
  },
  {
    name: "tree: a link is neither entered, moved nor removed as what it leads to",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      if (under.link === undefined) return "no links here";
      await under.put("real/in.bin", bytes(10));
      await under.link("link", "real");
      const seen: FileEntry[] = [];
      for await (const entry of sourceOf(under).list(calm(), { directories: true })) seen.push(entry);
      const texts = seen.map(({ kind, path }) => `${kind} ${path}`).sort();
      if (!texts.includes("unreadable link")) {
        assert.deepEqual(texts, ["directory real", "file real/in.bin"]);
        return "the server shows no links";
      }
      assert.deepEqual(texts, ["directory real", "file real/in.bin", "unreadable link"]);
      await expectFault(tree.rmdir("link", calm()), "changed");
      await expectFault(tree.move("link", "elsewhere", "directory", calm()), "changed");
      assert.equal((await under.read("real/in.bin"))?.length, 10);
      return undefined;
    },
  },
  {
    name: "tree: an identity is the thing's, whatever it is called, and no other's",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      const entry = await found(under, "dir/a.bin", bytes(100));
      if (entry.identity === undefined) return "nothing says so here";
      assert.equal((await tree.stat("dir/a.bin", calm()))?.identity, entry.identity);
      const dir = (await tree.stat("dir", calm()))?.identity;
      assert.ok(dir !== undefined && dir !== entry.identity);
      await tree.move("dir/a.bin", "b.bin", entry, calm());
      await tree.move("dir", "other", "directory", calm());
      assert.equal((await found(under, "b.bin")).identity, entry.identity);
      assert.equal((await tree.stat("other", calm()))?.identity, dir);
      await under.append("b.bin", bytes(10));
      const known = new Set([entry.identity, dir]);
      assert.equal((await found(under, "b.bin")).identity, entry.identity);
      // A file system gives a number that is free again to the next file.
      for (let n = 0; n < 50; n++) {
        await under.remove("b.bin");
        const { identity } = await found(under, "b.bin", bytes(100));
        assert.ok(identity !== undefined && !known.has(identity), `${String(identity)} was another file's`);
        known.add(identity);
      }
      return undefined;
    },
  },
  {
    name: "tree: a directory moves with all that is in it, over nothing, and only where a directory is meant",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      const content = bytes(100);
      await under.put("dir/sub/in.bin", content);
      await under.put("file.bin", bytes(10));
      await under.put("full/other.bin", bytes(20));
      await tree.mkdir("empty", calm());
      for (const taken of ["full", "empty", "file.bin"]) await expectFault(tree.move("dir", taken, "directory", calm()), "conflict");
      assert.equal((await under.read("full/other.bin"))?.length, 20);
      assert.equal((await under.read("file.bin"))?.length, 10);
      assert.deepEqual(await listed(tree, "empty"), []);
      await expectFault(tree.move("file.bin", "elsewhere", "directory", calm()), "changed");
      await expectFault(tree.move("nowhere", "elsewhere", "directory", calm()), "missing");
      assert.equal(await tree.stat("elsewhere", calm()), undefined);
      await tree.move("dir", "new/place", "directory", calm());
      assert.ok((await under.read("new/place/sub/in.bin"))?.equals(content));
      assert.equal(await tree.stat("dir", calm()), undefined);
      await tree.move("empty", "full/empty", "directory", calm());
      assert.deepEqual(await listed(tree, "full"), ["directory full/empty", "file full/other.bin"]);
      return undefined;
    },
  },
  {
    name: "tree: nothing is moved into itself, and the root stays",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      await under.put("dir/sub/in.bin", bytes(100));
      for (const to of ["dir/inside", "dir/sub/inside"]) await expectFault(tree.move("dir", to, "directory", calm()), "rejected");
      await expectFault(tree.move("", "elsewhere", "directory", calm()), "rejected");
      await expectFault(tree.rmdir("", calm()), "rejected");
      await expectFault(tree.makeNew("", calm()), "rejected");
      assert.deepEqual(await listed(tree), ["directory dir"]);
      assert.deepEqual(await listed(tree, "dir"), ["directory dir/sub"]);
      return undefined;
    },
  },
  {
    name: "tree: rmdir takes only an empty directory, and twice is success",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      await under.put("dir/in.bin", bytes(10));
      await tree.mkdir("dir/sub/deep", calm());
      await expectFault(tree.rmdir("dir", calm()), "conflict");
      await expectFault(tree.rmdir("dir/sub", calm()), "conflict");
      await expectFault(tree.rmdir("dir/in.bin", calm()), "changed");
      assert.equal((await under.read("dir/in.bin"))?.length, 10);
      await tree.rmdir("dir/sub/deep", calm());
      await tree.rmdir("dir/sub/deep", calm());
      await tree.rmdir("dir/sub", calm());
      await tree.rmdir("nowhere/at/all", calm());
      assert.deepEqual(await listed(tree, "dir"), ["file dir/in.bin"]);
      return undefined;
    },
  },
  {
    name: "tree: what is there is synced, whatever it is, and so is that it has gone",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree?.sync === undefined) return "its server cannot be asked for that";
      const content = bytes(100_000);
      await under.put("dir/in.bin", content);
      await under.put("empty.bin", bytes(0));
      for (const path of ["dir/in.bin", "empty.bin", "dir", "dir/nothing", "nowhere/at/all", "empty.bin/below"])
        await tree.sync(path, content.length, calm());
      assert.ok((await under.read("dir/in.bin"))?.equals(content));
      assert.deepEqual(await listed(tree), ["directory dir", "file empty.bin"]);
      assert.deepEqual(await listed(tree, "dir"), ["file dir/in.bin"]);
      return undefined;
    },
  },
  {
    name: "tree: makeNew tells who made a directory",
    run: async (under) => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      assert.equal(await tree.makeNew("a/b c/lock", calm()), true);
      assert.equal((await tree.stat("a/b c/lock", calm()))?.kind, "directory");
      await under.put("file.bin", bytes(10));
      assert.equal(await tree.makeNew("file.bin", calm()), false);
      assert.equal((await under.read("file.bin"))?.length, 10);
      if (under.promises?.exclusive === "nothing") return "this server makes no directory for one alone";
      assert.equal(await tree.makeNew("a/b c/lock", calm()), false);
      for (let round = 0; round < 4; round++)
        assert.equal(
          await winners(
            Array.from({ length: rivals }, (): Promise<boolean> => tree.makeNew(`lock-${round}`, calm())),
            "none",
          ),
          1,
        );
      return undefined;
    },
  },
  {
    name: "tree: of several who move to one name at once one wins",
    run: async (under): Promise<string | undefined> => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      if (under.promises?.exclusive !== "names") return "this server promises no names";
      const all = Array.from({ length: rivals }, (_, n) => n);
      for (const n of all) {
        await under.put(`file-${n}.bin`, bytes(100 + n));
        await under.put(`dir-${n}/${n}.bin`, bytes(200 + n));
        await tree.mkdir(`none-${n}`, calm());
      }
      const stamps = await Promise.all(all.map((n) => tree.stat(`file-${n}.bin`, calm())));
      const files = all.map((n) => tree.move(`file-${n}.bin`, "one.bin", stamps[n] ?? assert.fail(), calm()));
      assert.equal(await winners(files, "conflict"), 1);
      const sizes = [(await under.read("one.bin"))?.length];
      for (const n of all) sizes.push((await under.read(`file-${n}.bin`))?.length);
      assert.deepEqual(
        sizes.filter((it) => it !== undefined).sort(),
        all.map((n) => 100 + n),
      );
      assert.equal(
        await winners(
          all.map((n) => tree.move(`dir-${n}`, "one", "directory", calm())),
          "conflict",
        ),
        1,
      );
      const left = await listed(tree, "one");
      for (const n of all) if (!left.includes(`file one/${n}.bin`)) assert.equal((await under.read(`dir-${n}/${n}.bin`))?.length, 200 + n);
      assert.equal(left.length, 1);
      // rename(2) would go over an empty one.
      const moved = all.map((n) => tree.move(`none-${n}`, "none", "directory", calm()));
      assert.equal(await winners(moved, "conflict"), 1);
      assert.equal((await listed(tree)).filter((it) => it.startsWith("directory none-")).length, rivals - 1);
      return undefined;
    },
  },
  {
    name: "tree: what is tried out is what is known of this server, and nothing is left of it",
    run: async (under): Promise<string | undefined> => {
      const tree = treeOf(under);
      if (tree === undefined) return "no tree";
      assert.ok(under.promises, `the harness does not say what is promised there: ${JSON.stringify(await tree.tryOut("", calm()))}`);
      await under.put("there/before.bin", bytes(10));
      assert.deepEqual(await tree.tryOut("there", calm()), under.promises);
      assert.deepEqual(await listed(tree, "there"), ["file there/before.bin"]);
      assert.deepEqual(await tree.tryOut("", calm()), under.promises);
      assert.deepEqual(await listed(tree), ["directory there"]);
      return undefined;
    },
  },
];
