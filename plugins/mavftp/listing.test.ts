/** Listings in every dialect, trees, odd names, and what is said about a log's time and its being complete. */
import assert from "node:assert/strict";
import { appendFileSync, mkdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Fault, isFault } from "../../core/errors.js";
import type { FileEntry } from "../../core/plugin.js";
import { Nak, Op } from "../../mavlink/ftp.js";
import { AUTOPILOT_PX4 } from "../../mavlink/messages.js";
import { Card } from "./card.js";
import { entryOf, listDirectory, listTree, parseEntries, timeInPath, withSettled, type Ask } from "./listing.js";
import { eventually, listAll, makeDevice, makeDir, makeLogs, makeRig, makeSim, never, readAll } from "./harness.test.js";
import type { Peer } from "./peer.js";
import type { Reply } from "./requests.js";
import type { Sessions } from "./session.js";

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

test("an answer without entries is the end, as a PX4 says it of an empty directory", async () => {
  let asked = 0;
  const listed = await listDirectory(() => {
    if (++asked > 3) return Promise.reject(new Error("it is asked for ever"));
    return Promise.resolve({ nak: undefined, errno: 0, session: 0, data: Buffer.alloc(0) });
  }, Buffer.from("/"));
  assert.deepEqual([listed, asked], [[], 1]);
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

test("the time in a PX4's name goes before that of the listing, which its card's clock gave", () => {
  const listed = { kind: "file", size: 1, modifiedMs: 1_700_000_000_000 } as const;
  const began = entryOf("2024-05-17/13_05_59.ulg", { ...listed, name: "13_05_59.ulg" });
  assert.equal(began.modifiedMs, Date.UTC(2024, 4, 17, 13, 5, 59));
  assert.equal(entryOf("sess001/log001.ulg", { ...listed, name: "log001.ulg" }).modifiedMs, 1_700_000_000_000);
});

test("every log but the newest of its row is settled on a disarmed vehicle; armed, the newest is surely being written", () => {
  const file = (path: string): FileEntry => ({ path, kind: "file", size: 1 });
  const paths = ["2024-05-17/13_05_59.ulg", "2024-05-16/23_00_00.ulg", "sess001/log001.ulg", "sess002/log000.ulg"];
  const settled = (armed: boolean) => withSettled(paths.map(file), armed).map((e) => e.settled);
  assert.deepEqual(settled(false), [undefined, true, true, undefined]);
  assert.deepEqual(settled(true), [false, undefined, undefined, false]);
  assert.deepEqual(withSettled([{ path: "x", kind: "unreadable", size: 0 }], false), [{ path: "x", kind: "unreadable", size: 0 }]);
});

test("entries with times: of directories too, of a card without a clock, with a tab in a name", () => {
  const { entries, count } = parseEntries(
    Buffer.from("Dd\t0\t1700000000\0Fa\t5\t1700000001\0Fb\t6\t315532800\0S\0Fwith\ttab\t7\t0\0"),
    true,
  );
  assert.equal(count, 5);
  assert.deepEqual(
    entries.map(({ kind, name, size, modifiedMs }) => [kind, name, size, modifiedMs]),
    [
      ["directory", "d", 0, undefined],
      ["file", "a", 5, 1_700_000_001_000],
      ["file", "b", 6, undefined],
      ["file", "with‛09tab", 7, undefined],
    ],
  );
});

for (const [autopilot, timed] of [
  ["px4", false],
  ["px4-1.18", true],
  ["ardupilot-4.6", false],
  ["ardupilot-4.7", false],
  ["ardupilot-4.8", true],
  ["mavsdk", true],
] as const)
  test(`${autopilot} ${timed ? "says times" : "says no times"}, and is asked for them once`, async (t) => {
    const { dir } = makeLogs(t, { "d/00000001.BIN": 10, "d/00000002.BIN": 20, "e/a": 1, "f/b": 2 });
    utimesSync(join(dir, "d/00000002.BIN"), 1_700_000_000, 1_700_000_000);
    const rig = await makeRig(t, { dir, autopilot });
    for (let n = 0; n < 3; n++) {
      const entries = await listAll(rig.source);
      assert.deepEqual(
        entries.map((entry) => entry.size),
        [10, 20, 1, 2],
      );
      assert.equal(entries[1]?.modifiedMs, timed ? 1_700_000_000_000 : undefined);
    }
    const { ListDirectoryWithTime = 0 } = rig.sim.stats.requests;
    assert.ok(timed ? ListDirectoryWithTime > 3 : ListDirectoryWithTime === 1, `${ListDirectoryWithTime} times`);
  });

for (const autopilot of ["px4", "px4-1.18", "ardupilot-4.6", "ardupilot-4.8"] as const)
  test(`${autopilot}: a file of a directory of many is looked at by one request, wherever it has come to be, and told when it has gone`, async (t) => {
    const names = Array.from({ length: 300 }, (_, n) => `f${String(n).padStart(3, "0")}.ulg`);
    const { dir } = makeLogs(t, Object.fromEntries(names.map((name, n) => [`logs/${name}`, n + 1])));
    const rig = await makeRig(t, { dir, autopilot });
    await listAll(rig.source);
    const asked = async (name: string) => {
      const before = rig.device.requestsSent;
      const entry = await rig.device.stat(`logs/${name}`, never);
      return [entry?.size, rig.device.requestsSent - before];
    };
    for (const n of [0, 150, 299]) assert.deepEqual(await asked(names[n] ?? ""), [n + 1, 1]);
    writeFileSync(join(dir, "logs", names[150] ?? ""), "grown ".repeat(100));
    assert.deepEqual(await asked(names[150] ?? ""), [600, 1]);
    for (const name of names.slice(20, 140)) rmSync(join(dir, "logs", name));
    assert.equal((await asked(names[250] ?? ""))[0], 251);
    assert.deepEqual(await asked(names[250] ?? ""), [251, 1], "at its new place");
    assert.equal((await asked(names[30] ?? ""))[0], undefined);
  });

test("a server that answers nothing to what it does not know is asked as of old", async () => {
  let old = 0;
  const ask: Ask = ({ opcode, offset }) => {
    if (opcode !== Op.ListDirectory) return Promise.reject(new Fault("transient", "no answer"));
    old += 1;
    return Promise.resolve({ nak: (offset ?? 0) > 0 ? Nak.Eof : undefined, errno: 0, session: 0, data: Buffer.from("Fa\t1\0") });
  };
  const dialect = { timed: undefined };
  assert.equal((await listDirectory(ask, Buffer.from("/"), dialect)).length, 1);
  assert.equal(dialect.timed, false);
  assert.equal(old, 2);
});

for (const [autopilot, at] of [
  ["px4", "fs/microsd/log"],
  ["px4-1.18", "fs/microsd/log"],
  ["ardupilot-4.6", "APM/LOGS"],
  ["ardupilot-4.7", "logs"],
  ["ardupilot-4.8", "APM/LOGS"],
] as const)
  test(`${autopilot}: where no root is configured, logs are found in /${at}`, async (t) => {
    const { dir, content } = makeLogs(t, { [`${at}/d/a.bin`]: 1000, "other.bin": 5 });
    const sim = await makeSim(t, { dir, autopilot });
    const device = makeDevice(t, { url: sim.clientUrl });
    await device.attached();
    await device.device.probe(never);
    const entries = await listAll(device.source);
    assert.deepEqual(
      entries.map((entry) => entry.path),
      ["d/a.bin"],
    );
    assert.ok((await readAll(device.source, entries[0] as FileEntry)).equals(content.get(`${at}/d/a.bin`) as Buffer));
    assert.equal((await device.source.stat("d/a.bin", never))?.size, 1000);
  });

test("the directory of logs is asked for by its name first, which newer autopilots know; where it is written to, by its path only", async () => {
  for (const [write, found] of [
    [false, "@MAV_LOG"],
    [true, "/fs/microsd/log"],
  ] as const) {
    const attachment = () => ({ systemId: 1, signal: never });
    const ask = (): Promise<Reply> => Promise.resolve({ nak: undefined, errno: 0, session: 0, data: Buffer.from("Fa\t1\0") });
    const peer = { autopilot: AUTOPILOT_PX4, attachment };
    const card = new Card(peer as unknown as Peer, { ask } as unknown as Sessions, { crcMaxSize: 0, write });
    assert.equal(await card.with(never, (stay) => stay.root()), found);
  }
});

test("an autopilot without any place for logs is denied", async (t) => {
  const { dir } = makeLogs(t, { "other.bin": 5 });
  const sim = await makeSim(t, { dir, autopilot: "ardupilot-4.6" });
  const device = makeDevice(t, { url: sim.clientUrl });
  await device.attached();
  await assert.rejects(listAll(device.source), (e) => isFault(e, "denied") && e.message.includes("/APM/LOGS"));
});

test("of numbered logs the newest is the one that LASTLOG.TXT names, else that of the latest time, else the highest", () => {
  const log = (path: string, modifiedMs?: number): FileEntry => ({
    ...{ path, kind: "file", size: 1 },
    ...(modifiedMs === undefined ? {} : { modifiedMs }),
  });
  const open = (entries: FileEntry[], lastNumber?: number) =>
    withSettled(entries, false, lastNumber === undefined ? undefined : new Map([["", lastNumber]]))
      .filter((entry) => entry.settled !== true)
      .map((entry) => entry.path);
  const plain = ["00000001.BIN", "00000500.BIN", "00000002.BIN"].map((path) => log(path));
  assert.deepEqual(open(plain), ["00000500.BIN"]);
  assert.deepEqual(open(plain, 2), ["00000002.BIN"]);
  assert.deepEqual(open([log("00000001.BIN", 9), log("00000500.BIN", 5)]), ["00000001.BIN"]);
  assert.deepEqual(open([...plain, log("LASTLOG.TXT")]), ["00000500.BIN", "LASTLOG.TXT"]);
});

test("where LASTLOG.TXT could not be read, no numbered log is newly settled; that file itself never is: ArduPilot would begin at 1 without it", () => {
  const log = (path: string, size: number): FileEntry => ({ path, kind: "file", size });
  const entries = [log("00000001.BIN", 8), log("00000002.BIN", 9), log("00000500.BIN", 7), log("LASTLOG.TXT", 3), log("notes.txt", 1)];
  const open = (complete?: ReadonlyMap<string, number>) =>
    withSettled([...entries, log("zones.txt", 1)], false, new Map([["", "unread"]]), complete)
      .filter((entry) => entry.settled !== true)
      .map((entry) => entry.path);
  assert.deepEqual(open(), ["00000001.BIN", "00000002.BIN", "00000500.BIN", "LASTLOG.TXT", "zones.txt"]);
  const known = new Map([
    ["00000001.BIN", 8],
    ["00000002.BIN", 5],
  ]);
  assert.deepEqual(open(known), ["00000002.BIN", "00000500.BIN", "LASTLOG.TXT", "zones.txt"]);
});

test("rows of logs are told also where the root is above their directory", () => {
  const file = (path: string): FileEntry => ({ path, kind: "file", size: 1 });
  const paths = ["log/2024-05-17/13_05_59.ulg", "log/2024-05-16/23_00_00.ulg", "log/sess002/log000.ulg", "parameters_backup.bson", "a.txt"];
  const open = (them: string[]) =>
    withSettled(them.map(file), false)
      .filter((entry) => entry.settled !== true)
      .map((entry) => entry.path);
  assert.deepEqual(open(paths), ["log/2024-05-17/13_05_59.ulg", "log/sess002/log000.ulg", "parameters_backup.bson"]);
  // As of a PX4 that encrypts.
  assert.deepEqual(open(["2024-05-16/09_00_00.ulgc", "2024-05-16/09_00_00.ulgk", "2024-05-17/13_05_59.ulgc", "2024-05-17/13_05_59.ulgk"]), [
    "2024-05-17/13_05_59.ulgc",
    "2024-05-17/13_05_59.ulgk",
  ]);
  assert.deepEqual(open(["LOGS/00000001.BIN", "LOGS/00000002.BIN", "old/00000900.BIN"]), ["LOGS/00000002.BIN", "old/00000900.BIN"]);
});

for (const autopilot of ["ardupilot-4.6", "ardupilot-4.8"]) {
  test(`${autopilot}: LASTLOG.TXT is looked into again once a log has come or changed beside the last, also while a file is being read`, async (t) => {
    const { dir } = makeLogs(t, { "00000002.BIN": 20_000, "00000003.BIN": 10, "00000500.BIN": 500_000 });
    const last = (number: number) => writeFileSync(join(dir, "LASTLOG.TXT"), `${number}\r\n`);
    last(2);
    const rig = await makeRig(t, { dir, autopilot, link: "uart:921600" });
    const open = async () => (await listAll(rig.source)).filter(({ settled }) => settled !== true).map(({ path }) => path);
    assert.deepEqual(await open(), ["00000002.BIN", "LASTLOG.TXT"]);
    const entry = await rig.source.stat("00000500.BIN", never);
    assert.ok(entry);
    const reading = readAll(rig.source, entry);
    await eventually(() => rig.sim.openSessions() === 1, "it is being read");
    // Its log goes on.
    appendFileSync(join(dir, "00000002.BIN"), "more");
    assert.deepEqual(await open(), ["00000002.BIN", "LASTLOG.TXT"]);
    assert.equal(rig.sim.stats.requests.OpenFileRO, 2, "nothing beside it has changed: it is the last still");
    assert.ok(rig.source.mayGrow?.("00000002.BIN"));
    // The next one takes the name of one of before.
    writeFileSync(join(dir, "00000003.BIN"), "");
    last(3);
    assert.deepEqual(await open(), ["00000003.BIN", "LASTLOG.TXT"]);
    assert.ok(rig.source.mayGrow?.("00000003.BIN"));
    assert.ok(rig.source.mayGrow?.("00000002.BIN") === false);
    assert.equal((await reading).length, 500_000);
    assert.equal(rig.sim.stats.requests.OpenFileRO, 4, "the file that was read was closed for that, and opened again");
  });

  test(`${autopilot}: LASTLOG.TXT is looked into, and while a file is being read only if a log has changed`, async (t) => {
    const { dir } = makeLogs(t, { "00000001.BIN": 400_000, "00000002.BIN": 10, "00000500.BIN": 10 });
    writeFileSync(join(dir, "LASTLOG.TXT"), "2\r\n");
    const rig = await makeRig(t, { dir, autopilot, link: "usb" });
    const entries = await listAll(rig.source);
    assert.deepEqual(
      entries.map((entry) => entry.settled),
      [true, undefined, true, undefined],
    );
    assert.equal(rig.sim.openSessions(), 0);
    const opened = rig.sim.stats.requests.OpenFileRO ?? 0;
    const reading = readAll(rig.source, entries[0] as FileEntry);
    await rig.source.stat("00000001.BIN", never);
    await listAll(rig.source);
    await reading;
    assert.equal(rig.sim.stats.requests.OpenFileRO, opened + 1, "the reading is not interrupted for what is known");
  });
}

test("where a listing misses LASTLOG.TXT, because a log before it is deleted meanwhile, the log that is open is not taken for complete", async (t) => {
  const names = Array.from({ length: 11 }, (_, n) => `${String(n + 1).padStart(8, "0")}.BIN`);
  const { dir } = makeLogs(t, Object.fromEntries(names.map((name) => [name, 1000])));
  writeFileSync(join(dir, "LASTLOG.TXT"), "2\r\n");
  let removes = false;
  const trace = (line: string): void => {
    const [, way, opcode, , , offset] = line.startsWith("[") ? (JSON.parse(line) as unknown[]) : [];
    if (removes && way === ">" && opcode === Op.ListDirectory && offset !== 0) rmSync(join(dir, "00000001.BIN"), { force: true });
  };
  const { source } = await makeRig(t, { dir, autopilot: "ardupilot-4.6", trace });
  await listAll(source);
  removes = true;
  const entries = await listAll(source);
  assert.ok(!entries.some(({ path }) => path === "LASTLOG.TXT"), "it is missed");
  const open = entries.find(({ path }) => path === "00000002.BIN");
  assert.ok(open !== undefined && open.settled !== true && source.mayGrow?.(open.path) === true);
});

test("LASTLOG.TXT counts for its own directory", async (t) => {
  const { dir } = makeLogs(
    t,
    Object.fromEntries(["LOGS", "old"].flatMap((at) => [1, 2, 500].map((n) => [`${at}/${String(n).padStart(8, "0")}.BIN`, n]))),
  );
  writeFileSync(join(dir, "LOGS/LASTLOG.TXT"), "2\r\n");
  writeFileSync(join(dir, "old/LASTLOG.TXT"), "500\r\n");
  const { source } = await makeRig(t, { dir, autopilot: "ardupilot-4.6" });
  const open = (await listAll(source)).filter(({ settled }) => settled !== true).map(({ path }) => path);
  assert.deepEqual(open, ["LOGS/00000002.BIN", "LOGS/LASTLOG.TXT", "old/00000500.BIN", "old/LASTLOG.TXT"]);
});

test("a log that is there before LASTLOG.TXT names it, and is listed as empty for long, is the last by the next listing", async (t) => {
  const { dir } = makeLogs(t, { "00000002.BIN": 10, "00000500.BIN": 10 });
  const last = (number: number) => writeFileSync(join(dir, "LASTLOG.TXT"), `${number}\r\n`);
  last(2);
  const { source } = await makeRig(t, { dir, autopilot: "ardupilot-4.6" });
  writeFileSync(join(dir, "00000003.BIN"), "");
  await listAll(source);
  last(3);
  await listAll(source);
  assert.ok(source.mayGrow?.("00000003.BIN"));
});

for (const autopilot of ["px4", "ardupilot-4.6"] as const)
  test(`${autopilot}: without its card nothing is said of a file; it is missing only where the root is there`, async (t) => {
    const { dir } = makeLogs(t, { "log/s/a.bin": 5000 });
    const rig = await makeRig(t, { dir, autopilot }, { root: "/log" });
    const [entry] = await listAll(rig.source);
    assert.ok(entry?.path === "s/a.bin");
    renameSync(join(dir, "log"), join(dir, "pulled"));
    const away = (error: unknown) => isFault(error, "denied") && /there is no \/log on the autopilot: no SD card in it/.test(error.message);
    await assert.rejects(async () => rig.source.stat(entry.path, never), away);
    await assert.rejects(async () => rig.source.digest?.(entry, "crc32-mavlink", never), away);
    renameSync(join(dir, "pulled"), join(dir, "log"));
    assert.equal((await rig.source.stat(entry.path, never))?.size, 5000);
    rmSync(join(dir, "log/s"), { recursive: true });
    assert.equal(await rig.source.stat(entry.path, never), undefined);
    await assert.rejects(
      async () => rig.source.digest?.(entry, "crc32-mavlink", never),
      (error: unknown) => isFault(error, "missing"),
    );
  });
