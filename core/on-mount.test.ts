import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { promises as fs, mkdirSync, mkdtempSync, rmSync, type Stats, symlinkSync } from "node:fs";
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

test("who asks while it is looked at is told what is so then, not what was before", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-mount-"));
  const run = (...words: string[]) => spawnSync(words[0] ?? "", words.slice(1)).status === 0;
  t.after(() => {
    run("umount", dir);
    rmSync(dir, { recursive: true });
  });
  if (!run("mount", "-t", "tmpfs", "none", dir)) {
    t.skip("nothing can be mounted here");
    return;
  }
  const it = new OnMount(dir, undefined, { get: () => undefined, set: () => Promise.resolve() });
  assert.equal(await it.away(), undefined);
  await it.expectHere();
  const stat = fs.stat.bind(fs) as (path: string) => Promise<Stats>;
  let asked: Promise<void> | undefined;
  t.mock.method(fs, "stat", async (path: string) => {
    const seen = await stat(path);
    if (path !== dir || asked !== undefined) return seen;
    assert.ok(run("umount", dir));
    asked = it.expectHere();
    asked.catch(() => undefined);
    return seen;
  });
  await it.away();
  await assert.rejects(asked ?? Promise.resolve(), /is not mounted: /);
});
