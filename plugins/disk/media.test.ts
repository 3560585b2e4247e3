/** Which medium it is: by its UUID, and by what it holds where cards share one. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { FileEntry } from "../../core/plugin.js";
import type { Block } from "./blocks.js";
import { compared, type Found, isSame, type Looks, Media, mostRemembered, newest, type Remembered } from "./media.js";

const file = (path: string, size: number, modifiedMs = 1000): Remembered => ({ path, size, modifiedMs });
const entry = (it: Remembered): FileEntry => ({ ...it, kind: "file" });

test("a file: the same, grown, another of its name, gone, a directory", () => {
  const it = file("a", 100);
  assert.equal(compared(it, entry(it)), "same");
  assert.equal(compared(it, entry(file("a", 150, 2000))), "same");
  assert.equal(compared(it, entry(file("a", 100, 2000))), "other");
  assert.equal(compared(it, entry(file("a", 50, 2000))), "other");
  assert.equal(compared({ ...it, sample: "x" }, entry(it), "y"), "foreign");
  assert.equal(compared({ ...it, sample: "x" }, entry(it), "x"), "same");
  assert.equal(compared({ ...it, sample: "x" }, entry(it)), "same", "one that could not be read says nothing");
  assert.equal(compared({ ...it, sample: "x" }, entry(file("a", 150, 2000)), "y"), "same", "what grew has another end");
  assert.equal(compared(it, undefined), "none");
  assert.equal(compared(it, { path: "a", kind: "directory", size: 0 }), "none");
});

test("the table of what decides", () => {
  const many = (n: number, what: Found) => Array.from({ length: n }, () => what);
  const table: readonly (readonly [why: string, found: ReturnType<typeof many>, sameSerial: boolean, same: boolean])[] = [
    ["untouched, in another reader", many(32, "same"), false, true],
    ["files were deleted in the camera, in another reader", [...many(2, "same"), ...many(30, "none")], false, true],
    ["an index was rewritten", [...many(31, "same"), "other"], false, true],
    ["a clone that went its own way from a common beginning", [...many(12, "same"), ...many(20, "other")], false, false],
    ["one of two was rewritten", ["same", "other"], false, true],
    ["the only one was rewritten", ["other"], false, true],
    ["a clone in the same reader that went its own way altogether", many(32, "other"), true, false],
    ["half was rewritten on the same stick", [...many(16, "same"), ...many(16, "other")], true, true],
    ["emptied, the same stick", many(32, "none"), true, true],
    ["nothing of it, another stick", many(32, "none"), false, false],
    ["it was empty before, too", [], false, true],
    ["a clone of a camera without a clock, in the same reader", many(32, "foreign"), true, false],
    ["its only file", ["foreign"], true, false],
    ["a clone that went its own way, without a clock", [...many(20, "same"), ...many(12, "foreign")], true, false],
    ["an index was rewritten, with the time that it had, on the same stick", [...many(31, "same"), "foreign"], true, true],
    ["the same, and nobody knows which stick it is", [...many(31, "same"), "foreign"], false, false],
    ["two of many differ", [...many(30, "same"), ...many(2, "foreign")], true, false],
  ];
  for (const [why, found, sameSerial, same] of table) assert.equal(isSame(found, sameSerial), same, why);
});

test("the newest are remembered, as many as tell enough", () => {
  const files = Array.from({ length: 100 }, (_, n) => file(`f${n}`, n, n));
  const kept = newest(files);
  assert.equal(kept.length, mostRemembered);
  assert.deepEqual([kept[0]?.path, kept.at(-1)?.path], ["f99", `f${100 - mostRemembered}`]);
});

const unwarned = (text: string): void => assert.equal(text, "nothing is wrong");

function stateOf(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "filesync-media-"));
  t.after(() => rmSync(dir, { recursive: true }));
  return join(dir, "devices", "flir");
}

const block = (serial?: string): Block => ({
  ...{
    path: "/dev/sda1",
    device: "8:1",
    type: "part",
    fsType: "vfat",
    uuid: "5C3D-DD9E",
    bytes: 1,
    readOnly: false,
    removable: true,
    divided: false,
  },
  ...(serial === undefined ? {} : { serial }),
});
/** A medium with these files; `content` is of all of them. */
const holding = (files: readonly Remembered[], content = "as it was"): Looks => ({
  stat: (path) => Promise.resolve(files.map(entry).find((one) => one.path === path)),
  sample: () => Promise.resolve(content),
});
const { sample } = holding([]);

test("clones of one UUID get names of their own, and keep them over a restart", async (t) => {
  const dir = stateOf(t);
  const warned: string[] = [];
  const open = () => new Media(dir, (text) => warned.push(text));
  const first = [file("DCIM/1.JPG", 10), file("DCIM/2.JPG", 20)];
  const second = [file("DCIM/1.JPG", 9, 5000), file("DCIM/2.JPG", 7, 6000)];
  const media = open();
  assert.equal((await media.recognise(block("A"), holding(first))).id, "5C3D-DD9E");
  await media.remember("5C3D-DD9E", block("A"), first, sample);
  assert.equal((await media.recognise(block("B"), holding(second))).id, "5C3D-DD9E~2");
  await media.remember("5C3D-DD9E~2", block("B"), second, sample);
  const later = open();
  assert.equal((await later.recognise(block("READER"), holding(second))).id, "5C3D-DD9E~2");
  assert.equal((await later.recognise(block("READER"), holding(first))).id, "5C3D-DD9E");
  assert.equal((await later.recognise(block("READER"), holding([]))).id, "5C3D-DD9E~3");
  assert.deepEqual(warned, []);
});

test("clones whose files have the same names, sizes and times are told apart by what is in them; samples are taken once", async (t) => {
  const dir = stateOf(t);
  const media = new Media(dir, unwarned);
  const files = [file("DCIM/1.JPG", 10), file("DCIM/2.JPG", 10)];
  const read: string[] = [];
  const watched: Looks["sample"] = (path, size) => {
    read.push(path);
    return sample(path, size);
  };
  await media.remember("5C3D-DD9E", block("A"), files, watched);
  await media.remember("5C3D-DD9E", block("A"), files, watched);
  assert.deepEqual(read, ["DCIM/2.JPG", "DCIM/1.JPG"].sort());
  assert.equal((await media.recognise(block("A"), holding(files, "of the other"))).id, "5C3D-DD9E~2");
  assert.equal((await media.recognise(block("B"), holding(files))).id, "5C3D-DD9E");
});

test("what was remembered before there were samples is believed by its stamps", async (t) => {
  const dir = stateOf(t);
  const files = [file("a", 1), file("b", 1)];
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "media.json"), JSON.stringify({ media: [{ id: "5C3D-DD9E", uuid: "5C3D-DD9E", files }] }));
  assert.equal((await new Media(dir, unwarned).recognise(block(), holding(files, "whatever"))).id, "5C3D-DD9E");
});

test("a card that counted as another one in this zone already, before zones were known of, stays that; in its first zone it is the first", async (t) => {
  const dir = stateOf(t);
  const media = new Media(dir, unwarned);
  const hour = 3_600_000;
  const files = (n: number, laterMs: number) => Array.from({ length: n }, (_, i) => file(`DCIM/${i}.JPG`, 10, 1000 * i + laterMs));
  await media.remember("5C3D-DD9E", block("A"), files(10, 0), sample);
  assert.deepEqual(await media.recognise(block("A"), holding(files(10, hour))), { id: "5C3D-DD9E", aheadMs: hour });
  await media.remember("5C3D-DD9E~2", block("A"), files(20, hour), sample);
  assert.deepEqual(await media.recognise(block("A"), holding(files(20, hour))), { id: "5C3D-DD9E~2", aheadMs: 0 });
  assert.deepEqual(await media.recognise(block("A"), holding(files(10, 0))), { id: "5C3D-DD9E", aheadMs: 0 });
  // A clone that has less of it is not taken for it.
  await media.remember("5C3D-DD9E~2", block("A"), files(5, hour), sample);
  assert.deepEqual(await media.recognise(block("A"), holding(files(10, hour))), { id: "5C3D-DD9E", aheadMs: hour });
});

test("a card that was emptied is still known by what it had; what did not change is not written", async (t) => {
  const dir = stateOf(t);
  const media = new Media(dir, unwarned);
  await media.remember("5C3D-DD9E", block("A"), [file("a", 1)], sample);
  const before = readFileSync(join(dir, "media.json"), "utf8");
  await media.remember("5C3D-DD9E", block("A"), [], sample);
  assert.equal(readFileSync(join(dir, "media.json"), "utf8"), before);
});

test("a look into some directories only takes nothing from what is remembered of the others, and reads nothing there", async (t) => {
  const media = new Media(stateOf(t), unwarned);
  const [image, map] = [file("DCIM/1.JPG", 10), file("maps/1.map", 10)];
  await media.remember("5C3D-DD9E", block("A"), [image], sample, ["maps/"]);
  const read: string[] = [];
  const watched: Looks["sample"] = (path, size) => (read.push(path), sample(path, size));
  await media.remember("5C3D-DD9E", block("A"), [map], watched, ["DCIM/"]);
  assert.deepEqual(read, ["maps/1.map"]);
  assert.equal((await media.recognise(block("A"), holding([image], "of the other"))).id, "5C3D-DD9E~2");
  await media.remember("5C3D-DD9E", block("A"), [map], sample);
  assert.equal((await media.recognise(block("A"), holding([image], "of the other"))).id, "5C3D-DD9E");
});

test("a file that is damaged is said, and begun anew", async (t) => {
  const dir = stateOf(t);
  await new Media(dir, unwarned).remember("5C3D-DD9E", block(), [file("a", 1)], sample);
  writeFileSync(join(dir, "media.json"), '{"media": [{"id"');
  const warned: string[] = [];
  assert.equal((await new Media(dir, (text) => warned.push(text)).recognise(block(), holding([]))).id, "5C3D-DD9E");
  assert.match(warned[0] ?? "", /media\.json is damaged .*learned anew/);
});
