import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { OnMount } from "./on-mount.js";

test("a link that leads to another place where the same file system is mounted: that place is missed then", async (t) => {
  const base = mkdtempSync(join(tmpdir(), "filesync-mount-"));
  const at = (name: string) => join(base, name);
  const run = (...words: string[]) => spawnSync(words[0] ?? "", words.slice(1)).status === 0;
  t.after(() => {
    for (const name of ["two", "one"]) run("umount", at(name));
    rmSync(base, { recursive: true, force: true });
  });
  for (const name of ["one", "two", "two/logs"]) mkdirSync(at(name));
  if (!run("mount", "-t", "tmpfs", "none", at("one"))) {
    t.skip("no file system can be mounted here");
    return;
  }
  mkdirSync(at("one/logs"));
  assert.ok(run("mount", "--bind", at("one"), at("two")));
  const known = new Map<string, unknown>();
  const memory = {
    get: (key: string) => known.get(key),
    set: (key: string, value: unknown) => Promise.resolve(void known.set(key, value)),
  };
  symlinkSync(at("one/logs"), at("dir"));
  const it = new OnMount(at("dir"), undefined, memory);
  assert.equal(await it.away(), undefined);
  rmSync(at("dir"));
  symlinkSync(at("two/logs"), at("dir"));
  assert.equal(await it.away(), undefined);
  assert.ok(run("umount", at("two")));
  assert.match((await it.away()) ?? "", /\/two is not mounted: /);
});
