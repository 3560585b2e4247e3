/** What was whole here and made room, as its source had it still, and whose place there another file took before every target had it. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { forget, retry } from "../../core/amend.js";
import { Fault } from "../../core/errors.js";
import { lostIn } from "../../core/status.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

const mb = 10 ** 6;
/** The card shows what it has when it is asked. */
const rarely = { device: { intervalMs: 3_600_000 } };

class Room {
  readonly bench: Bench;
  readonly card = new FakeDevice("card", { chunk: mb });
  readonly cam = new FakeDevice("cam");
  readonly out = new FakeDevice("out");
  readonly away: FakeDevice;
  readonly first = randomBytes(4 * mb);

  constructor(t: TestContext, away: ConstructorParameters<typeof FakeDevice>[1] = {}) {
    this.bench = new Bench(t);
    this.away = new FakeDevice("away", away);
    this.away.attach(false);
  }

  list(name: "card" | "cam"): void {
    this.bench.daemon.engine.relist$.next(name);
  }

  has(what: string): boolean {
    return this.bench.events.some((event) => event.what === what);
  }

  get found(): number {
    return this.bench.daemon.engine.journal.get<{ n: number }>("SELECT COUNT(*) AS n FROM versions WHERE path = 'log'")?.n ?? 0;
  }

  async listed(versions: number): Promise<void> {
    this.list("card");
    await until(this.bench, `${versions} versions`, () => this.found === versions);
  }

  async film(): Promise<void> {
    const { bench, cam, out } = this;
    cam.put("film", Buffer.alloc(5 * mb));
    this.list("cam");
    await until(bench, "it made room", () => this.has("given-up") && out.files.has("film"));
  }

  lost(): string[] {
    return this.bench.events.filter(({ what }) => what === "lost").map(({ message }) => message);
  }

  get told(): string[] {
    return lostIn(this.bench.daemon.engine.journal).map(({ path, size }) => `${path} ${size}`);
  }

  async start(): Promise<void> {
    const { bench, card, cam, out, away } = this;
    const routes = [
      { from: "card", to: ["out", "away"] },
      { from: "cam", to: ["out"] },
    ];
    await bench.start({ sources: [card, cam], targets: [out, away] }, routes, { ...rarely, maxSize: 6 * mb });
  }

  /** All of "log" came here again, and that is not said of it yet: where it is. */
  async here(): Promise<string> {
    const { bench, away } = this;
    const isSent = (call: string) => call.startsWith("write");
    away.before = (call) => (isSent(call) ? new Promise(() => undefined) : undefined);
    away.attach(true);
    await until(bench, "it is here again", () => away.calls.some(isSent));
    away.before = () => undefined;
    const { journal, spool } = bench.daemon.engine;
    const log = journal.get<{ id: string }>("SELECT id FROM versions WHERE path = 'log'") ?? assert.fail();
    await journal.commit(() => {
      journal.run("UPDATE versions SET state = 'found' WHERE id = ?", log.id);
      journal.run("UPDATE deliveries SET state = 'wanting' WHERE version = ? AND target = 'away'", log.id);
    });
    rmSync(`${spool.pathOf(log.id)}.json`);
    return spool.pathOf(log.id);
  }

  /** "log" came to one of two targets, and its copy here made room. */
  async begin(): Promise<void> {
    const { bench, card, out } = this;
    await this.start();
    card.put("log", this.first);
    this.list("card");
    await until(bench, "one has it", () => out.files.has("log") && bench.states("away")[0] === "ready");
    await this.film();
  }
}

const names = ({ files }: FakeDevice) => [...files.values()].map(({ bytes }) => bytes.length).sort((a, b) => a - b);

test("another file that is shorter takes its place: that it is lost for the target that waited is said at once, and told until a person knows", async (t) => {
  const room = new Room(t);
  const { bench, card, away } = room;
  await room.begin();
  card.put("log", randomBytes(mb));
  room.list("card");
  await until(bench, "it is said", () => room.has("lost"));
  assert.deepEqual(room.lost(), [
    "card:log: another file took its place at card before away had its 4000000 bytes, of which no copy is here",
  ]);
  away.attach(true);
  await until(bench, "the other one arrives", () => away.files.size > 0);
  room.list("card");
  await bench.pass(0.001);
  assert.deepEqual([room.told, room.lost().length], [["log 4000000"], 1]);
  await bench.kill();
  await room.start();
  assert.deepEqual(room.told, ["log 4000000"]);
  await forget(bench.daemon.engine, "log");
  assert.deepEqual(room.told, []);
});

test("a longer one that does not begin with it takes its place: that is said once it was read", async (t) => {
  const room = new Room(t);
  const { bench, card, out, away } = room;
  await room.begin();
  card.put("log", randomBytes(5 * mb));
  room.list("card");
  away.attach(true);
  await until(bench, "the other one arrives", () => names(away).includes(5 * mb) && out.files.size === 3);
  assert.deepEqual([room.lost().length, room.told], [1, ["log 4000000"]]);
});

test("the file grew: what it was is its beginning, and nothing is lost; nor is that told when another takes the place of all", async (t) => {
  const room = new Room(t);
  const { bench, card, away } = room;
  await room.begin();
  card.put("log", Buffer.concat([room.first, randomBytes(mb)]));
  room.list("card");
  away.attach(true);
  await until(bench, "the longer one arrives", () => names(away).includes(5 * mb));
  card.put("log", randomBytes(mb));
  room.list("card");
  await until(bench, "the other one arrives", () => names(away).includes(mb));
  assert.deepEqual([room.lost(), room.told], [[], []]);
});

test("it takes its place while it is read again: found before that is noticed, or after", async (t) => {
  for (const seen of [false, true]) {
    const room = new Room(t);
    const { bench, card, away } = room;
    await room.begin();
    card.before = (call) => {
      if (call !== "read log 1000000") return undefined;
      card.before = () => undefined;
      card.put("log", randomBytes(mb));
      const fails = () => {
        throw new Fault("changed", "another file is there now");
      };
      if (!seen) return fails();
      room.list("card");
      const isListed = () => bench.events.some(({ message }) => message === "card: 1 new file" && room.has("given-up"));
      return until(bench, "it is listed", isListed).then(fails);
    };
    away.attach(true);
    await until(bench, "the other one arrives, and that is said", () => names(away).includes(mb) && room.has("lost"));
    assert.deepEqual([room.lost().length, room.told], [1, ["log 4000000"]]);
  }
});

test("one that is too large for the spool takes its place: nobody reads it before it goes, and that is said", async (t) => {
  const room = new Room(t);
  const { bench, card, away } = room;
  await room.begin();
  card.put("log", randomBytes(8 * mb));
  room.list("card");
  away.attach(true);
  await until(bench, "the other one arrives", () => names(away).includes(8 * mb));
  const said = bench.events.filter(({ what, message }) => what === "changed" && message.includes("too many for the spool"));
  assert.deepEqual([said.length, room.lost(), room.told], [1, [], []]);
});

test("a listing shows it shorter, or longer, for a while, and then as it was, or trimmed: it is not lost", async (t) => {
  const room = (then: (first: Buffer) => [Buffer, Buffer]) => ({ then, room: new Room(t) });
  const grown = (first: Buffer) => Buffer.concat([first, Buffer.alloc(mb, 7)]);
  for (const { then, room: it } of [
    room((first) => [first.subarray(0, mb), first]),
    room((first) => [grown(first), first]),
    room((first) => [Buffer.concat([grown(first), Buffer.alloc(mb / 2)]), grown(first)]),
  ]) {
    const { bench, card, out, away } = it;
    await it.begin();
    out.attach(false);
    const [meanwhile, last] = then(it.first);
    card.put("log", meanwhile);
    await it.listed(2);
    card.put("log", last, Date.UTC(2026, 4, 2));
    await it.listed(3);
    out.attach(true);
    away.attach(true);
    await until(bench, "it arrives", () => names(away).includes(last.length));
    assert.deepEqual(it.told, []);
  }
});

test("an empty file that made room, and grew, is not lost", async (t) => {
  const room = new Room(t);
  const { bench, card, out, away } = room;
  await room.start();
  card.put("log", "");
  room.list("card");
  await until(bench, "it is here", () => out.files.has("log") && bench.states("away")[0] === "ready");
  card.put("other", room.first);
  room.list("card");
  await until(bench, "both are here", () => out.files.has("other") && bench.states("away").every((state) => state === "ready"));
  // Empty as it is it would be read again at once.
  card.before = (call) => {
    if (call !== "stat log" || !room.has("given-up")) return undefined;
    card.before = () => undefined;
    card.attach(false);
    throw new Fault("offline", "taken out");
  };
  await room.film();
  await until(bench, "the card is out", () => bench.daemon.engine.lanes.get("card")?.attached === false);
  card.put("log", randomBytes(mb));
  card.attach(true);
  await room.listed(2);
  away.attach(true);
  await until(bench, "it arrives", () => names(away).includes(mb));
  assert.deepEqual([room.lost(), room.told], [[], []]);
});

test("what a target had, and a person wants sent there again, is not lost for it", async (t) => {
  const room = new Room(t);
  const { bench, card, cam, out, away } = room;
  await room.begin();
  away.attach(true);
  await until(bench, "both have it", () => away.files.has("log") && bench.states("away").every((state) => state === "done"));
  cam.put("film2", Buffer.alloc(5.5 * mb));
  room.list("cam");
  await until(bench, "its copy here makes room", () => out.files.has("film2"));
  card.attach(false);
  const row = bench.daemon.engine.journal.get<{ id: string }>("SELECT id FROM deliveries WHERE source = 'card' AND target = 'away'");
  await retry(bench.daemon.engine, row?.id, new AbortController().signal);
  card.put("log", randomBytes(mb));
  card.attach(true);
  room.list("card");
  await until(bench, "the other arrives", () => names(away).includes(mb));
  assert.deepEqual([room.lost(), room.told], [[], []]);
});

test("it is found to be another as it is read again, and that one goes before it is listed: that is told", async (t) => {
  const room = new Room(t);
  const { bench, card, away } = room;
  await room.begin();
  card.before = (call) => {
    if (call !== "read log 1000000") return undefined;
    card.before = (next) => {
      if (next === "list") card.files.delete("log");
      return undefined;
    };
    card.put("log", randomBytes(mb));
    throw new Fault("changed", "another file is there now");
  };
  away.attach(true);
  await until(bench, "it is told", () => room.told.length > 0);
  assert.deepEqual(room.told, ["log 4000000"]);
});

test("a target that was asked for the name says that it got another content: what has to be sent to it again, and is overwritten, is lost for it", async (t) => {
  const room = new Room(t, { target: { resume: false } });
  const { bench, card, cam, out, away } = room;
  await room.begin();
  away.before = (call) => {
    if (call !== "commit log") return undefined;
    away.attach(false);
    throw new Fault("mismatch", "it has another digest");
  };
  away.attach(true);
  await until(bench, "it is to be sent again", () => room.has("restarted"));
  cam.put("film2", Buffer.alloc(5.5 * mb));
  room.list("cam");
  await until(bench, "its copy here makes room", () => out.files.has("film2"));
  card.put("log", randomBytes(mb));
  room.list("card");
  await until(bench, "the other one arrives, and that is said", () => names(out).includes(mb) && room.has("lost"));
  assert.deepEqual([room.lost().length, room.told], [1, ["log 4000000"]]);
});

test("it goes as it is read again, and another takes its name later: it is lost once, and told until a person knows; what comes back, or grew from it, is not", async (t) => {
  for (const back of ["", "as it was", "grown"]) {
    const room = new Room(t);
    const { bench, card, away } = room;
    await room.begin();
    card.before = (call) => {
      if (call !== "read log 1000000") return undefined;
      card.before = () => undefined;
      card.files.delete("log");
      throw new Fault("missing", "it is no longer there");
    };
    away.attach(true);
    await until(bench, "it is told", () => room.told.length > 0);
    const arrives = async (content: Buffer, found: string): Promise<void> => {
      card.put("log", content, Date.parse(found));
      room.list("card");
      await until(bench, "it arrives", () => names(away).includes(content.length));
    };
    if (back !== "") await arrives(Buffer.concat([room.first, randomBytes(back === "grown" ? mb : 0)]), "2026-05-02");
    await arrives(randomBytes(mb), "2026-05-03");
    assert.deepEqual([room.lost().length, room.told], [1, back === "" ? ["log 4000000"] : []]);
  }
});

test("it grew, was found longer while it was read again, and that broke off: it does not wait for room that the longer one has", async (t) => {
  const room = new Room(t);
  const { bench, card, out, away } = room;
  await room.begin();
  card.before = (call) => {
    if (call !== "read log 1000000") return undefined;
    card.before = () => undefined;
    card.put("log", Buffer.concat([room.first, randomBytes(mb)]), Date.UTC(2026, 4, 2));
    room.list("card");
    return until(bench, "it is found", () => room.found === 2).then(() => {
      throw new Fault("transient", "a cable");
    });
  };
  away.attach(true);
  // Of the film, too.
  await until(
    bench,
    "the longer one arrives",
    () => names(away).includes(5 * mb) && names(out).filter((size) => size === 5 * mb).length === 2,
  );
  assert.deepEqual([room.lost(), room.told], [[], []]);
});

test("its place is taken once its last byte was read again: it is what it was, and arrives", async (t) => {
  const room = new Room(t);
  const { bench, card, away } = room;
  await room.begin();
  card.before = (call) => {
    if (call === "read log 3000000") card.put("log", randomBytes(mb));
    return undefined;
  };
  away.attach(true);
  await until(bench, "it arrives", () => names(away).includes(4 * mb));
  room.list("card");
  await until(bench, "so does the other one", () => names(away).includes(mb));
  assert.deepEqual([room.lost(), room.told], [[], []]);
});

test("its place is taken, and power goes, once all of it is here again, and that is not said of it yet: it arrives; what is damaged here by then is lost", async (t) => {
  for (const damaged of [false, true]) {
    const room = new Room(t);
    const { bench, card, away } = room;
    await room.begin();
    const copy = await room.here();
    if (damaged) writeFileSync(copy, randomBytes(4 * mb));
    await bench.kill();
    card.put("log", randomBytes(mb));
    await room.start();
    await until(bench, "what is left arrives", () => names(away).length === (damaged ? 1 : 2) && (!damaged || room.has("lost")));
    assert.deepEqual([names(away), room.lost().length], damaged ? [[mb], 1] : [[mb, 4 * mb], 0]);
  }
});

test("its place is taken, and its copy here cannot be read for a while: that is told with the place, and it arrives once it can", async (t) => {
  const room = new Room(t);
  const { bench, card, away } = room;
  await room.begin();
  await room.here();
  await bench.kill();
  card.put("log", randomBytes(mb));
  card.attach(false);
  await room.start();
  const { spool } = bench.daemon.engine;
  const writer = spool.writer.bind(spool);
  const failed = Object.assign(new Error("EIO: i/o error, read"), { code: "EIO", syscall: "read" });
  let fails = true;
  spool.writer = async (...which) => {
    const opened = await writer(...which);
    if (opened.handle !== undefined && fails) Object.assign(opened.handle, { read: () => Promise.reject(failed) });
    return opened;
  };
  card.attach(true);
  const told = () => bench.events.find(({ what, message }) => what === "again" && message.includes("spool"));
  await until(bench, "that is told", () => told() !== undefined);
  assert.match(
    told()?.message ?? "",
    /^card:log: cannot read the spool file .*\/spool\/[0-9a-f]{16}: .*; its source has it no more; again in /,
  );
  fails = false;
  await retry(bench.daemon.engine, "card", new AbortController().signal);
  await until(bench, "it arrives, and so does the other one", () => names(away).length === 2);
  assert.deepEqual([names(away), room.lost()], [[mb, 4 * mb], []]);
});
