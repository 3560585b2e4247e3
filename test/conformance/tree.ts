/** The promises of a Tree (`core/plugin.ts`), as clauses that run with those of the source. */
import assert from "node:assert/strict";
import type { Tree } from "../../core/plugin.js";
import { calm, expectFault } from "./clause.js";
import { found, type SourceClause, type SourceUnderTest } from "./source-under-test.js";
import { bytes } from "./upload.js";

function treeOf(under: SourceUnderTest): Tree | undefined {
  return under.device.tree;
}

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
];
