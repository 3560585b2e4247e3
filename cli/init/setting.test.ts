import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { placeDir } from "../edit-config.js";
import { settingOf, withSecrets } from "./setting.js";

/** A person's. */
const theirs = { "ground.old": "of last year\n" };

async function beside(t: TestContext) {
  const dir = mkdtempSync(join(tmpdir(), "filesync-setting-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const credentials = join(dir, "credentials");
  await placeDir(credentials, 0o700, undefined);
  for (const [name, text] of Object.entries({ ...theirs, ground: "the old one\n" }))
    writeFileSync(join(credentials, name), text, { mode: 0o600 });
  const all = () =>
    Object.fromEntries(
      readdirSync(credentials)
        .sort()
        .map((name) => [name, readFileSync(join(credentials, name), "utf8")]),
    );
  return { setting: await settingOf(join(dir, "config.json"), true), all };
}

test("a configuration that cannot be written leaves each password as it was: the old configuration is still in place", async (t) => {
  const { setting, all } = await beside(t);
  const failed = withSecrets(setting, { cloud: "first", ground: "the new one" }, () => {
    const both = { cloud: "first\n", ground: "the new one\n", ".ground.filesync-old": "the old one\n" };
    assert.deepEqual(all(), { ...theirs, ...both }, "it is judged with the new ones");
    return Promise.reject(new Error("no room"));
  });
  await assert.rejects(failed, /no room/);
  assert.deepEqual(all(), { ...theirs, ground: "the old one\n" });
});

test("a password that takes the place of another: nothing is left of that once the configuration is there", async (t) => {
  const { setting, all } = await beside(t);
  const { fresh } = await withSecrets(setting, { ground: "the new one", cloud: undefined }, () => Promise.resolve());
  assert.deepEqual([all(), fresh], [{ ...theirs, ground: "the new one\n" }, []]);
});
