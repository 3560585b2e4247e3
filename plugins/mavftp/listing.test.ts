/** Listings in every dialect, trees, odd names, and what is said about a log's time and its being complete. */
import assert from "node:assert/strict";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Fault, isFault } from "../../core/errors.js";
import type { FileEntry } from "../../core/plugin.js";
import { Nak } from "../../mavlink/ftp.js";
import { listDirectory, listTree, parseEntries, timeInPath, withSettled, type Ask } from "./listing.js";
import { listAll, makeDir, makeLogs, makeRig, never, readAll } from "./harness.test.js";
import type { Reply } from "./requests.js";

const parsed = (text: string) => {
  const { entries, count } = parseEntries(Buffer.from(text, "latin1"));
  return [count, entries.map(({ kind, name, size }) => `${kind} ${name} ${size}`)];
};

test("the dialects: PX4 with skipped entries, ArduPilot with a second zero and dots, an end that is cut", () => {
  assert.deepEqual(parsed("Fempty.ulg\t0\0S\0Fzeros.ulg\t1000\0S\0Dsess001\0"), [
    5,
    ["file empty.ulg 0", "file zeros.ulg 1000", "directory sess001 0"],
  ]);
  assert.deepEqual(parsed("D.\0\0D..\0\0F00000042.BIN\t10485760\0\0"), [3, ["file 00000042.BIN 10485760"]]);
  assert.deepEqual(parsed("Fa\t1"), [1, ["file a 1"]]);
  assert.deepEqual(parsed(""), [0, []]);
});

test("an entry that cannot be understood costs only itself, and is counted", () => {
  assert.deepEqual(parsed("Fno size\0Fbad\t12x\0F\t5\0Xwhat\0Fa/b\t3\0Fwith\ttab\t7\0"), [
    6,
    ["unreadable no size 0", "unreadable bad 0", "unreadable ? 0", "unreadable Xwhat 0", "unreadable a_b 0", "file with‛09tab 7"],
  ]);
});

test("an autopilot that does not heed the offset is not asked for ever", async () => {
  let asked = 0;
  const ask = (): Promise<Reply> => {
    asked += 1;
    return Promise.resolve({ nak: undefined, errno: 0, session: 0, data: Buffer.from("Fa\t1\0Fb\t2\0") });
  };
  assert.equal((await listDirectory(ask, Buffer.from("/"))).length, 2);
  assert.equal(asked, 2);
});

test("a directory that cannot be read costs only itself; an autopilot that falls silent ends the listing", async () => {
  const answer = (data: string): Reply => ({ nak: undefined, errno: 0, session: 0, data: Buffer.from(data) });
  const refuse = (nak: number, errno = 0): Reply => ({ nak, errno, session: 0, data: Buffer.alloc(0) });
  const card: Readonly<Record<string, Reply>> = {
    "/": answer("Dbroken\0Dgone\0Dgood\0"),
    "/broken": refuse(Nak.FailErrno, 5),
    "/gone": refuse(Nak.FileNotFound),
    "/good": answer("Fa\t1\0"),
  };
  const ask: Ask = ({ data, offset }) =>
    Promise.resolve((offset ?? 0) > 0 ? refuse(Nak.Eof) : (card[Buffer.from(data ?? "").toString()] as Reply));
  const entries = await listTree(ask, { root: "" });
  assert.deepEqual(entries.map((e) => [e.path, e.kind]).sort(), [
    ["broken", "unreadable"],
    ["good/a", "file"],
  ]);
  const silent: Ask = (request) =>
    Buffer.from(request.data ?? "").toString() === "/good" ? Promise.reject(new Fault("transient", "no answer")) : ask(request);
  await assert.rejects(listTree(silent, { root: "" }), /no answer/);
});

test("names that are no UTF-8 are kept as bytes", async (t) => {
  const dir = makeDir(t);
  const name = Buffer.from([0x66, 0xff, 0xe4, 0x2e, 0x75]);
  writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), name]), "odd");
  writeFileSync(join(dir, "нет имени.ulg"), "even");
  const rig = await makeRig(t, { dir });
  const entries = await listAll(rig.source);
  assert.deepEqual(
    entries.map((e) => e.path),
    ["f‛FF‛E4.u", "нет имени.ulg"],
  );
  assert.equal((await readAll(rig.source, entries[0] as FileEntry)).toString(), "odd");
  assert.equal((await readAll(rig.source, entries[1] as FileEntry)).toString(), "even");
});

test("a tree: many entries, empty directories, directories left out, special files", async (t) => {
  const many = Object.fromEntries(
    Array.from({ length: 120 }, (_, i) => [`sess${String(i % 3).padStart(3, "0")}/log${String(i).padStart(3, "0")}.ulg`, i]),
  );
  const { dir } = makeLogs(t, { ...many, "private/secret.ulg": 5 });
  mkdirSync(join(dir, "empty"));
  symlinkSync("/etc/passwd", join(dir, "leak"));
  const rig = await makeRig(t, { dir });
  const entries: FileEntry[] = [];
  for await (const entry of rig.source.list(never, { enter: (path) => path !== "private" })) entries.push(entry);
  assert.deepEqual(entries.map((e) => [e.path, e.size]).sort(), Object.entries(many).sort());
});

test("a path that is too long for the protocol is unreadable, the rest is not", async (t) => {
  const deep = `${"d".repeat(100)}/${"e".repeat(100)}`;
  const { dir } = makeLogs(t, { [`${deep}/${"f".repeat(50)}.ulg`]: 1, [`${deep}/ok.ulg`]: 2 });
  const entries = await listAll((await makeRig(t, { dir })).source);
  assert.deepEqual(
    entries.map((e) => e.kind),
    ["unreadable", "file"],
  );
});

test("a root that is not there is said so", async (t) => {
  const { dir } = makeLogs(t, {});
  const rig = await makeRig(t, { dir }, { root: "/fs/microsd/log" });
  await assert.rejects(listAll(rig.source), (e) => isFault(e, "denied") && e.message.includes("/fs/microsd/log"));
  await assert.rejects(rig.device.probe(never), (e) => isFault(e, "denied"));
});

test("the time of a log is in its path, where it is plausible", () => {
  assert.equal(timeInPath("2024-05-17/13_05_59.ulg"), Date.UTC(2024, 4, 17, 13, 5, 59));
  assert.equal(timeInPath("log/2024-02-29/00_00_00_replayed.ulg"), undefined);
  assert.equal(timeInPath("log/2024-02-29/00_00_00.ulg"), Date.UTC(2024, 1, 29));
  for (const path of [
    "sess001/log001.ulg",
    "1970-01-01/00_00_00.ulg",
    "2023-02-29/00_00_00.ulg",
    "2024-05-17/25_00_00.ulg",
    "2024-05-17/x.ulg",
  ])
    assert.equal(timeInPath(path), undefined, path);
});

test("every log but the newest of its row is settled on a disarmed vehicle; armed, the newest is surely being written", () => {
  const file = (path: string): FileEntry => ({ path, kind: "file", size: 1 });
  const paths = ["2024-05-17/13_05_59.ulg", "2024-05-16/23_00_00.ulg", "sess001/log001.ulg", "sess002/log000.ulg"];
  const settled = (armed: boolean) => withSettled(paths.map(file), armed).map((e) => e.settled);
  assert.deepEqual(settled(false), [undefined, true, true, undefined]);
  assert.deepEqual(settled(true), [false, undefined, undefined, false]);
  assert.deepEqual(withSettled([{ path: "x", kind: "unreadable", size: 0 }], false), [{ path: "x", kind: "unreadable", size: 0 }]);
});
