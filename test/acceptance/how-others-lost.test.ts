/** How other programs that keep directories the same lost files, as their issue trackers tell it; each on a real OpenSSH, for mirrors that delete and for two-way routes. */
import assert from "node:assert/strict";
import { chmodSync, existsSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { until } from "../conformance/clause.js";
import { chrooted } from "../conformance/sftp-servers.js";
import { clockEnv, hasFakeClock } from "../faults/fake-clock.js";
import { Program, runProgram } from "../faults/process.js";
import { once, type Shared, shared, statusOf } from "../sync/shared.js";

const skip = chrooted.skip === undefined ? {} : { skip: chrooted.skip };

for (const route of [{ mode: "mirror", deletes: true }, { mode: "two-way" }] as const) {
  const { mode } = route;
  const begun = async (t: TestContext, files: Readonly<Record<string, string>>, more: object = {}): Promise<[Shared, string]> => {
    const both = await shared(t);
    const config = both.config({ ...route, ...more });
    for (const [path, content] of Object.entries(files)) both.put("here", path, content);
    await once(config);
    assert.deepEqual(both.tree("there"), both.tree("here"));
    return [both, config];
  };
  const files = { "d/a": "a", "d/e/b": "b", c: "c" };

  test(`${mode}: a directory of the server that cannot be listed is not an empty one`, skip, async (t) => {
    const [both, config] = await begun(t, files);
    chmodSync(join(both.nas, "d"), 0);
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    await program.until(({ what, message }) => what === "sync-trouble" && message.includes("nas:d"), "it is told");
    both.put("here", "new", "new");
    await program.until(
      () => both.tree("here")["new"] === "new" && statSync(join(both.nas, "new"), { throwIfNoEntry: false })?.size === 3,
      "the rest goes on",
    );
    await program.kill();
    chmodSync(join(both.nas, "d"), 0o755);
    assert.deepEqual(both.tree("here"), { ...files, "d/": "", "d/e/": "", new: "new" });
    assert.deepEqual(both.tree("there"), both.tree("here"));
  });

  test(
    `${mode}: "chmod -R 644" at the server, of which OpenSSH lists the directories as empty: nothing goes, and that is told`,
    skip,
    async (t) => {
      const [both, config] = await begun(t, files);
      const change = (bits: number) => chmodSync(join(both.nas, "d"), bits);
      change(0o644);
      both.put("here", "new", "new");
      const said = await once(config, 3);
      assert.match(said, /nas:d: cannot list .*permission denied/i);
      change(0o755);
      await once(config);
      assert.deepEqual(both.tree("here"), { ...files, "d/": "", "d/e/": "", new: "new" });
      assert.deepEqual(both.tree("there"), both.tree("here"));
      assert.deepEqual([both.trashed("here"), both.trashed("there")], [[], []]);
    },
  );

  test(`${mode}: a journal that is lost removes nothing, and sends nothing again`, skip, async (t) => {
    const [both, config] = await begun(t, files);
    const sent = statSync(join(both.nas, "c"));
    rmSync(both.world.path("state"), { recursive: true });
    both.put("here", "c", undefined);
    both.put("here", "d/a", "changed here");
    await once(config);
    // What was removed while nobody knew what was agreed: nobody's wish that can be proved.
    assert.equal(both.tree("there")["c"], "c");
    assert.equal(statSync(join(both.nas, "c")).ino, sent.ino);
    const contents = [...Object.values(both.tree("there")), ...both.trashed("there").map(([, content]) => content)];
    for (const content of ["a", "b", "c", "changed here"]) assert.ok(contents.includes(content), content);
  });

  test(
    `${mode}: what another program is just writing at the server, under a hidden name that ends with ".part", is left alone`,
    skip,
    async (t) => {
      const [both, config] = await begun(t, files);
      both.put("there", "d/.film.part", "not whole yet");
      utimesSync(join(both.nas, "d/.film.part"), 1_780_000_000, 1_780_000_000);
      await once(config);
      await once(config);
      assert.deepEqual(both.tree("there"), { ...files, "d/": "", "d/e/": "", "d/.film.part": "not whole yet" });
      assert.deepEqual(both.tree("here"), { ...files, "d/": "", "d/e/": "" });
      assert.deepEqual([both.trashed("here"), both.trashed("there")], [[], []]);
    },
  );

  test(`${mode}: another content with the same size and time is another one`, skip, async (t) => {
    const [both, config] = await begun(t, { a: "one" });
    const { atime, mtime } = statSync(join(both.box, "a"));
    writeFileSync(join(both.box, "b"), "two");
    utimesSync(join(both.box, "b"), atime, mtime);
    renameSync(join(both.box, "b"), join(both.box, "a"));
    await once(config);
    assert.deepEqual(both.tree("there"), { a: "two" });
  });

  test(`${mode}: times that are all 0 say nothing`, skip, async (t) => {
    const both = await shared(t);
    const config = both.config(route);
    for (const [side, root] of [
      ["here", both.box],
      ["there", both.nas],
    ] as const) {
      both.put(side, "same", "same");
      both.put(side, "differs", side);
      for (const name of ["same", "differs"]) utimesSync(join(root, name), 0, 0);
    }
    await once(config);
    const all = [...Object.values(both.tree("there")), ...both.trashed("there").map(([, content]) => content)].sort();
    assert.deepEqual(all, ["here", "same", "there"]);
    assert.deepEqual(both.tree("here"), both.tree("there"));
  });

  test(`${mode}: a rename that changes only capitals, and names that differ only in how a letter is written`, skip, async (t) => {
    const [both, config] = await begun(t, { "Log.txt": "log", "\u00fc": "one letter", "u\u0308": "two signs", "é/a": "in one" });
    renameSync(join(both.box, "Log.txt"), join(both.box, "log.TXT"));
    renameSync(join(both.box, "é"), join(both.box, "e\u0301"));
    await once(config);
    assert.deepEqual(both.tree("there"), {
      "log.TXT": "log",
      "\u00fc": "one letter",
      "u\u0308": "two signs",
      "e\u0301/": "",
      "e\u0301/a": "in one",
    });
    assert.deepEqual(both.tree("there"), both.tree("here"));
  });

  test(`${mode}: names that were only changed are not counted as removed`, skip, async (t) => {
    const [both, config] = await begun(t, Object.fromEntries(Array.from({ length: 30 }, (_, n) => [`d/${n}`, `content ${n}`])), {
      maxDeletes: 1,
    });
    renameSync(join(both.box, "d"), join(both.box, "e"));
    await once(config);
    assert.equal((await statusOf(config)).syncs[0]?.troubles.length, 0);
    assert.deepEqual(both.tree("there"), both.tree("here"));
  });

  test(`${mode}: a file against a directory of the same name`, skip, async (t) => {
    const [both, config] = await begun(t, { x: "a file", "y/a": "in a directory" });
    both.put("here", "x", undefined);
    both.put("here", "x/a", "now in one");
    both.put("here", "y", undefined);
    both.put("here", "y", "now a file");
    await once(config);
    assert.deepEqual(both.tree("there"), { "x/": "", "x/a": "now in one", y: "now a file" });
    assert.deepEqual(both.tree("there"), both.tree("here"));
    assert.deepEqual(
      both
        .trashed("there")
        .map(([, content]) => content)
        .sort(),
      ["a file", "in a directory"],
    );
  });

  test(`${mode}: one name in the trash twice`, skip, async (t) => {
    const [both, config] = await begun(t, { a: "first" });
    for (const content of [undefined, "second", undefined]) {
      both.put("here", "a", content);
      both.put("here", "keeps it from being everything", String(content));
      await once(config);
    }
    const first = both.trashed("there").filter(([path]) => path === "a");
    assert.deepEqual(first.map(([, content]) => content).sort(), ["first", "second"]);
  });

  test(`${mode}: what was sent in part before the file changed is not continued with the new one`, skip, async (t) => {
    const [both] = await begun(t, { c: "c" });
    const config = both.config({ ...route, maxRate: "1MB/s" });
    const old = Buffer.alloc(3_000_000, "old ");
    writeFileSync(join(both.box, "big"), old);
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    await until("a part is there", () => both.parts().some((size) => size > 300_000));
    await program.kill();
    const now = Buffer.concat([Buffer.alloc(3_000_000, "new "), Buffer.from("and more")]);
    writeFileSync(join(both.box, "big"), now);
    await once(both.config(route));
    assert.equal(both.tree("there")["big"], now.toString());
    assert.deepEqual(both.parts(), []);
  });

  test(`${mode}: a file that changes while it is sent arrives as it is in the end`, skip, async (t) => {
    const [both] = await begun(t, { c: "c" });
    const config = both.config({ ...route, maxRate: "1MB/s" });
    writeFileSync(join(both.box, "big"), Buffer.alloc(2_000_000, "old "));
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    await until("a part is there", () => both.parts().some((size) => size > 300_000));
    writeFileSync(join(both.box, "big"), Buffer.alloc(500_000, "new "));
    await until("it is there", () => statSync(join(both.nas, "big"), { throwIfNoEntry: false })?.size === 500_000);
    truncateSync(join(both.box, "big"), 0);
    await until("it is there", () => statSync(join(both.nas, "big"), { throwIfNoEntry: false })?.size === 0);
    await program.kill();
    assert.deepEqual(both.tree("there"), both.tree("here"));
  });
}

const clock = { skip: skip.skip ?? (hasFakeClock ? false : 'libfaketime is not installed (Debian: "faketime")') };

for (const route of [{ mode: "mirror", deletes: true }, { mode: "two-way" }] as const)
  test(
    `${route.mode}: the trash is emptied of what has been in it for trashKeep, and of nothing else; a wrong clock takes nothing`,
    clock,
    async (t) => {
      const both = await shared(t);
      const config = both.config({ ...route, trashKeep: "30d" });
      const file = both.world.path("clock");
      const env = { ...process.env, ...clockEnv(file) };
      const at = async (offset: string) => {
        writeFileSync(file, offset);
        const { code, out, err } = await runProgram(["run", "--once", "--config", config], { env });
        assert.equal(code, 0, out + err);
        return out + err;
      };
      both.put("here", "a", "a");
      both.put("here", "b", "b");
      await at("+0");
      const nowMs = Date.now();
      const day = (ago: number) => new Date(nowMs - ago * 86_400_000).toISOString().slice(0, 10);
      for (const side of ["here", "there"] as const)
        for (const name of [day(200), "undated", "of a person"]) {
          both.put(side, `.filesync/trash/${name}/0/deep/${name}`, name);
          both.put(side, `.filesync/trash/${name}/1/${name}`, name);
        }
      // Listed before the other day, and with something that stays.
      both.put("there", `.filesync/trash/${day(300)}/0/gone`, "beside a link");
      symlinkSync("../../undated/0/deep/undated", join(both.nas, `.filesync/trash/${day(300)}/0/link`));
      // Of a machine that came no more.
      both.put("there", ".filesync/staged/.0123456789abcdef.0a1b2c3d-0123456789abcdef.part", "half");
      both.put("there", ".filesync/try-0123456789abcdef/.filesync-try-0123456789abcdef/a", "tried");
      // That a day is long past says only what some clock believed.
      for (const offset of ["+0", "+3650d", "+1d", "+8d", "+15d", "+22d"]) await at(offset);
      both.put("here", "b", undefined);
      await at("+23d");
      const left = (side: "here" | "there") => [...new Set(both.trashed(side).map(([, content]) => content))].sort();
      const kept = ["of a person", "undated"];
      assert.deepEqual(left("there"), [day(200), "b", "beside a link", ...kept].sort());
      assert.deepEqual(both.parts(), [4]);
      assert.ok(existsSync(join(both.nas, ".filesync/try-0123456789abcdef")));
      const said = await at("+31d");
      assert.match(said, /the trash at nas: 1 day is old enough, and is gone/);
      assert.match(said, /0\/link is a symbolic link; it stays until a person removes it there/);
      assert.deepEqual(left("there"), ["b", ...kept].sort());
      assert.deepEqual(both.parts(), []);
      assert.equal(existsSync(join(both.nas, ".filesync/try-0123456789abcdef")), false);
      // A mirror has no trash here: whatever is there is not its own.
      assert.deepEqual(left("here"), (route.mode === "mirror" ? [day(200), ...kept] : kept).sort());
    },
  );
