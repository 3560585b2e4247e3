import assert from "node:assert/strict";
import { test } from "node:test";
import type { FileEntry } from "./plugin.js";
import { otherName } from "./names.js";
import { dayOf, partialPath, Rules, versionId, type Route } from "./route.js";

const route: Route = {
  from: "cam",
  to: [{ device: "ground", required: true, requires: [] }],
  include: [],
  exclude: [],
  minSize: 0,
  maxSize: Number.MAX_SAFE_INTEGER,
  priority: "newest",
  weight: 1,
  into: "{vehicle}/{device}",
  afterDelivery: "keep",
  trustSize: false,
};
const names = { vehicle: "plane-1", installation: "0a1b2c3d" };
const entry = (path: string, size = 10, modifiedMs?: number): FileEntry => ({
  path,
  kind: "file",
  size,
  ...(modifiedMs === undefined ? {} : { modifiedMs }),
});
const rules = (changes: Partial<Route>) => new Rules({ ...route, ...changes });

test("include and exclude act on files and on directories", () => {
  const some = rules({ include: ["**/*.ulg", "**/*.BIN"], exclude: ["**/tmp", "private/**", "**/.*"] });
  for (const path of ["a.ulg", "x/y/z.BIN"]) assert.equal(some.wants(entry(path)), true, path);
  for (const path of ["a.txt", "tmp/a.ulg", "x/tmp/b.ulg", "private/c.ulg", ".hidden.ulg", "x/.dir/a.ulg"])
    assert.equal(some.wants(entry(path)), false, path);
  assert.equal(some.enters("x/tmp"), false);
  assert.equal(some.enters("private"), false);
  assert.equal(some.enters("x"), true);
});

test("sizes bound what is wanted", () => {
  const some = rules({ minSize: 5, maxSize: 10 });
  assert.deepEqual(
    [4, 5, 10, 11].map((size) => some.wants(entry("a", size))),
    [false, true, true, false],
  );
});

test("newest takes the N newest; without times the later name counts as newer", () => {
  const dated = [entry("a", 1, Date.UTC(2026, 1, 1)), entry("b", 1, Date.UTC(2026, 1, 3)), entry("c", 1, Date.UTC(2026, 1, 2))];
  assert.deepEqual(
    rules({ newest: 2 })
      .newestOf(dated)
      .map(({ path }) => path),
    ["b", "c"],
  );
  const undated = [entry("00000001.BIN"), entry("00000010.BIN"), entry("00000009.BIN", 1, 0)];
  assert.deepEqual(
    rules({ newest: 2 })
      .newestOf(undated)
      .map(({ path }) => path),
    ["00000010.BIN", "00000009.BIN"],
  );
});

test("since install: what has no time is old in the first listing, new in later ones", () => {
  const some = rules({ since: "install" });
  const start = Date.UTC(2026, 5, 1);
  assert.equal(some.isSince(entry("a", 1, start - 1), start, true, start), false);
  assert.equal(some.isSince(entry("a", 1, start + 1), start, true, start), true);
  assert.equal(some.isSince(entry("a"), start, true, start), false);
  assert.equal(some.isSince(entry("a"), start, false, start), true);
  assert.equal(some.isSince(entry("a", 1, 0), start, false, start), true, "1970 is no time");
  assert.equal(rules({ since: start }).isSince(entry("a"), 0, true, start), true, "what cannot be dated is not left behind");
});

test("since as an age: counted from the time of the listing", () => {
  const day = 86_400_000;
  const [some, start] = [rules({ since: { ageMs: 30 * day } }), Date.UTC(2026, 5, 1)];
  for (const [ageDays, is] of [
    [29, true],
    [31, false],
  ] as const) {
    assert.equal(some.isSince(entry("a", 1, start - ageDays * day), 0, false, start), is);
    assert.equal(some.refusal(entry("a", 1, start - ageDays * day), start) === undefined, is);
  }
  assert.equal(some.isSince(entry("a", 1, start - 29 * day), 0, false, start + 2 * day), false);
  assert.equal(some.isSince(entry("a"), 0, true, start), true, "what cannot be dated is not left behind");
});

test("priority ranks within a route", () => {
  assert.ok(rules({ priority: "newest" }).rank(entry("a", 1, Date.UTC(2026, 1, 2))) > rules({}).rank(entry("a", 1, Date.UTC(2026, 1, 1))));
  assert.ok(
    rules({ priority: "oldest" }).rank(entry("a", 1, Date.UTC(2026, 1, 2))) <
      rules({ priority: "oldest" }).rank(entry("a", 1, Date.UTC(2026, 1, 1))),
  );
  assert.ok(rules({ priority: "smallest" }).rank(entry("a", 1)) > rules({ priority: "smallest" }).rank(entry("a", 2)));
});

test("into makes the directory; names cannot lead out of it", () => {
  const plan = (into: string, vehicle = "plane-1") =>
    rules({ into }).plan("v", entry("x/a.ulg"), "2026-05-01", { ...names, vehicle })[0]?.path;
  assert.equal(plan("{vehicle}/{device}"), "plane-1/cam/x/a.ulg");
  assert.equal(plan(""), "x/a.ulg");
  assert.equal(plan("logs/{date}/{installation}/"), "logs/2026-05-01/0a1b2c3d/x/a.ulg");
  assert.equal(plan("/a/../../{vehicle}", "../up"), "a/.._up/x/a.ulg");
});

test("ids come from what they name", () => {
  const planned = rules({}).plan("v", entry("a"), "undated", names);
  assert.deepEqual(planned, rules({}).plan("v", entry("a"), "undated", names));
  assert.match(planned[0]?.id ?? "", /^[0-9a-f]{16}$/);
  assert.notEqual(versionId("cam", entry("a", 1, 5)), versionId("cam", entry("a", 1, 6)));
  assert.notEqual(versionId("cam", entry("a", 1, 5)), versionId("cam", entry("a", 1, 5), "1"));
});

test("the day comes from the path, else from the time, each only where plausible", () => {
  assert.equal(dayOf(entry("2026-05-01/10_00_00.ulg", 1, Date.UTC(2020, 0, 1))), "2026-05-01");
  assert.equal(dayOf(entry("DCIM/20260501_101112.jpg")), "2026-05-01");
  assert.equal(dayOf(entry("2026-13-41/a", 1, Date.UTC(2026, 2, 3))), "2026-03-03");
  assert.equal(dayOf(entry("sess001/log001.ulg", 1, 0)), "undated");
  assert.equal(dayOf(entry("1980-01-01/a")), "undated");
});

test("a partial's name has at most 255 bytes, and so has the other name of a collision", () => {
  const long = `${"ё".repeat(120)}.ulg`;
  assert.equal(partialPath("a/b.ulg", "0a1b2c3d", "0123456789abcdef"), "a/.b.ulg.0a1b2c3d-0123456789abcdef.part");
  assert.ok(Buffer.byteLength(partialPath(`x/${long}`, "0a1b2c3d", "0123456789abcdef").slice(2)) <= 255);
  assert.equal(otherName("a/00000001.BIN", "sha256:deadbeefcafe"), "a/00000001~deadbeef.BIN");
  assert.equal(otherName("noext", "sha256:deadbeefcafe"), "noext~deadbeef");
  assert.ok(Buffer.byteLength(otherName(`${"ё".repeat(125)}.ulg`, "sha256:deadbeefcafe")) <= 255);
});

test("what is in a directory .filesync is the program's own, at any depth, whatever the patterns say", () => {
  const all = rules({ include: ["**"] });
  for (const dir of [".filesync", "box/.filesync", "a/.filesync/trash"]) assert.ok(!all.enters(dir), dir);
  assert.ok(!all.wants(entry("box/.filesync/trash/2026-05-01/id/a.ulg")));
  assert.match(all.refusal(entry(".filesync/trash/x"), 0) ?? "", /^it is FileSync's own/);
  for (const path of ["box/filesync/a", ".filesync", "a.filesync/b", ".filesync-try-1/b"]) assert.ok(all.wants(entry(path)), path);
});

test("what this program has begun to send to a place that is read is no file yet, on whichever machine it runs", () => {
  const all = rules({ include: ["**"] });
  const id = "0a1b2c3d-0123456789abcdef";
  for (const path of [`.b.ulg.${id}.part`, `a/.b.ulg.${id}.part`, `a/.${id}.part`, `.${id}.try.part`]) {
    assert.ok(!all.wants(entry(path)), path);
    assert.match(all.refusal(entry(path), 0) ?? "", /^it is what FileSync has sent so far/);
  }
  for (const path of [".b.part", `b.ulg.${id}.part`, `.b.ulg.${id}`, `.${id}.part/b`, ".b.0a1b2c3d.part"])
    assert.ok(all.wants(entry(path)), path);
});
