/** A name that a shell gives is synced before it is believed: with a `sync` that writes down what it was asked, at a real sh. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { upload } from "../../test/conformance/upload.js";
import { Children } from "./children.js";
import { FarShell } from "./far-shell.js";
import { Shell } from "./shell.js";

test("the directories of new names are synced, then the files, many together; a sync that fails keeps nothing from its name", async (t) => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-far-"));
  const children = new Children();
  t.after(() => children.close().finally(() => fs.rm(dir, { recursive: true })));
  const [log, root] = [join(dir, "log"), join(dir, "root")];
  await fs.mkdir(join(dir, "bin"));
  await fs.writeFile(join(dir, "bin", "sync"), `#!/bin/sh\necho "$@" >>'${log}'\nls -A '${root}/a' >>'${log}'\nexit 1\n`, { mode: 0o755 });
  const open = () => new Shell(children, ["env", `PATH=${join(dir, "bin")}:${process.env.PATH}`, "sh", "-c"], () => false);
  const far = new FarShell(open(), open, root, 10_000);
  const given = ["a/one", "a/two"].map((path) => upload(path, Buffer.from(path)));
  await fs.mkdir(join(root, "a"), { recursive: true });
  for (const { partialPath } of given) await fs.writeFile(join(root, partialPath), "");
  const signal = new AbortController().signal;
  assert.deepEqual(await Promise.all(given.map((it) => far.publish(it, false, signal))), ["published", "published"]);
  // Both have their names by then, and nothing else is there.
  assert.equal(await fs.readFile(log, "utf8"), `-- ${root}/a ${root}/a/one ${root}/a/two\none\ntwo\n`);
  await far.keep("a/one", signal);
  assert.match(await fs.readFile(log, "utf8"), new RegExp(`\n-- ${root}/a ${root}/a/one\none\ntwo\n$`));
});
