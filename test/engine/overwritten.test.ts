/** What was whole here and made room, as its source had it still, and whose place there another file took before every target had it. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { Readable } from "node:stream";
import { test, type TestContext } from "node:test";
import { forget, retry } from "../../core/amend.js";
import { Fault } from "../../core/errors.js";
import type { Device } from "../../core/plugin.js";
import { lostIn } from "../../core/status.js";
import { Bench, crc32, FakeDevice, until } from "../fake-device.js";

const mb = 10 ** 6;
const ended = (bench: Bench) => bench.states("away").every((state) => state === "done" || state === "dropped");
/** The card shows what it has when it is asked. */
const rarely = { device: { intervalMs: 3_600_000 } };

class Room {
  readonly bench: Bench;
  readonly card: FakeDevice;
  readonly cam = new FakeDevice("cam");
  readonly out = new FakeDevice("out");
  readonly away: FakeDevice;
  readonly first = randomBytes(4 * mb);

  constructor(t: TestContext, away: ConstructorParameters<typeof FakeDevice>[1] = {}, card = new FakeDevice("card", { chunk: mb })) {
    this.card = card;
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

  async startOne(): Promise<void> {
    const { bench, card, cam, out, away } = this;
    const routes = [
      { from: "card", to: ["away"] },
      { from: "cam", to: ["out"] },
    ];
    await bench.start({ sources: [card, cam], targets: [out, away] }, routes, { ...rarely, maxSize: 6 * mb });
  }

  /** "log" has one target, which went with all of it before it gave the name; its copy here made room. */
  async unnamed(): Promise<void> {
    const { bench, card, away } = this;
    await this.startOne();
    goesAtName(away, new Fault("offline", "the lid was closed"));
    away.attach(true);
    card.put("log", this.first);
    this.list("card");
    await until(bench, "all is there", () => [...away.partials.values()].some(({ length }) => length === 4 * mb));
    await this.film();
    away.before = () => undefined;
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

/** It goes as it is asked for the name of "log". */
function goesAtName(target: FakeDevice, fault: Fault): void {
  target.before = (call) => {
    if (call !== "commit log") return undefined;
    target.attach(false);
    throw fault;
  };
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
  goesAtName(away, new Fault("mismatch", "it has another digest"));
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

for (const [what, size] of [
  ["shorter", mb],
  ["as long, with the same time", 4 * mb],
  ["longer", 5 * mb],
] as const)
  test(`its place is taken by one that is ${what}, and power goes, once all of it is here again, and that is not said of it yet: it arrives; what is damaged here by then is lost`, async (t) => {
    for (const damaged of [false, true]) {
      const room = new Room(t);
      const { bench, card, away } = room;
      await room.begin();
      const copy = await room.here();
      if (damaged) writeFileSync(copy, randomBytes(4 * mb));
      await bench.kill();
      const other = randomBytes(size);
      card.put("log", other);
      await room.start();
      const has = (bytes: Buffer) => [...away.files.values()].some((file) => file.bytes.equals(bytes));
      // One that nothing tells from what it was is not found beside it.
      const arrives = size === 4 * mb && !damaged ? room.first : other;
      await until(bench, "what is left arrives", () => has(arrives) && ended(bench) && (!damaged || size === 4 * mb || room.has("lost")));
      assert.deepEqual([has(room.first), room.lost().length], damaged ? [false, 1] : [true, 0]);
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

/** Its reading of "log" ends with a fault behind the last byte, once. */
class Breaks extends FakeDevice {
  breaks: (() => Fault) | undefined;

  override device(role: "source" | "target"): Device {
    const device = super.device(role);
    const { source } = device;
    if (source === undefined) return device;
    const open: typeof source.open = async (entry, offset, signal) => {
      const stream = await source.open(entry, offset, signal);
      const { breaks } = this;
      if (entry.path !== "log" || breaks === undefined) return stream;
      this.breaks = undefined;
      const bytes = async function* () {
        for await (const chunk of stream) yield chunk as Buffer;
        throw breaks();
      };
      return Readable.from(bytes(), { objectMode: false });
    };
    return { ...device, source: { ...source, open } };
  }
}

test("it is read again, the cable breaks right behind its last byte, and a longer one takes its place before it is asked for again: it arrives", async (t) => {
  const card = new Breaks("card", { chunk: mb });
  const room = new Room(t, {}, card);
  const { bench, away } = room;
  await room.begin();
  card.breaks = () => {
    card.put("log", randomBytes(5 * mb));
    return new Fault("transient", "a cable, instead of the answer");
  };
  away.attach(true);
  await until(bench, "it broke, and arrives", () => room.has("again") && names(away).length > 0 && ended(bench));
  room.list("card");
  await until(bench, "so does the other one", () => names(away).includes(5 * mb));
  assert.deepEqual([names(away), room.lost(), room.told], [[4 * mb, 5 * mb], [], []]);
});

test("its place is taken, and that is known, while other files are asked for that are to make room: its copy stays", async (t) => {
  const room = new Room(t);
  const { bench, card, cam, out, away } = room;
  await room.start();
  for (const path of ["log", "other"]) {
    card.put(path, randomBytes(2.5 * mb));
    room.list("card");
    await until(bench, "one has it", () => out.files.has(path) && bench.states("away").every((state) => state === "ready"));
  }
  const { bytes } = out.files.get("log") ?? assert.fail();
  card.before = (call) => {
    if (call !== "stat other") return undefined;
    card.before = () => undefined;
    card.put("log", randomBytes(mb));
    room.list("card");
    return until(bench, "it is known", () => room.found === 2);
  };
  cam.put("film", Buffer.alloc(5.5 * mb));
  room.list("cam");
  await until(bench, "the film waits", () => room.found === 2 && room.has("spool-full"));
  away.attach(true);
  await until(bench, "all arrives", () => names(away).length === 3 && out.files.has("film"));
  assert.ok([...away.files.values()].some((file) => file.bytes.equals(bytes)));
  assert.deepEqual(room.lost(), []);
});

for (const size of [3, 5])
  test(`what took its place is delivered, and has left the spool, before it is read again: that it is lost is told (of ${size} MB)`, async (t) => {
    const room = new Room(t);
    const { bench, card, away } = room;
    await room.begin();
    card.before = (call) => {
      if (call !== "read log 1000000") return undefined;
      card.before = () => undefined;
      card.put("log", randomBytes(size * mb));
      room.list("card");
      return until(bench, "it is found", () => room.found === 2).then(() => {
        throw new Fault("transient", "a cable");
      });
    };
    away.attach(true);
    await until(bench, "all has ended", () => names(away).includes(size * mb) && ended(bench) && room.has("lost"));
    assert.deepEqual([room.lost().length, room.told], [1, ["log 4000000"]]);
  });

test("what a target had, and a person wants sent there again, has gone from its source, and another takes its name: it is not lost for it", async (t) => {
  const room = new Room(t);
  const { bench, card, cam, out, away } = room;
  await room.begin();
  away.attach(true);
  await until(bench, "both have it", () => away.files.has("log") && bench.states("away")[0] === "done");
  cam.put("film2", Buffer.alloc(5.5 * mb));
  room.list("cam");
  await until(bench, "its copy here makes room", () => out.files.has("film2"));
  card.files.delete("log");
  const row = bench.daemon.engine.journal.get<{ id: string }>("SELECT id FROM deliveries WHERE source = 'card' AND target = 'away'");
  await retry(bench.daemon.engine, row?.id, new AbortController().signal);
  await until(
    bench,
    "that is said",
    () => bench.events.some(({ message }) => message.endsWith("; it cannot be sent again")) && ended(bench),
  );
  card.put("log", randomBytes(mb));
  room.list("card");
  await until(bench, "the other arrives", () => names(away).includes(mb));
  assert.deepEqual([room.lost(), room.told], [[], []]);
});

test("what took its place has gone, too, before it was whole here: both are told", async (t) => {
  for (const size of [1, 5]) {
    const room = new Room(t);
    const { bench, card, away } = room;
    await room.begin();
    if (size === 5) {
      // It is found, and has gone as it is asked for.
      card.put("log", randomBytes(size * mb));
      card.before = (call) => {
        if (call === "stat log") card.files.delete("log");
        return undefined;
      };
      room.list("card");
    } else
      card.before = (call) => {
        if (call !== "read log 1000000") return undefined;
        card.before = () => undefined;
        card.put("log", randomBytes(size * mb));
        room.list("card");
        return until(bench, "it is found", () => room.found === 2).then(() => {
          card.files.delete("log");
          throw new Fault("missing", "it is no longer there");
        });
      };
    away.attach(true);
    await until(bench, "all has ended", () => room.found === 2 && room.has("lost") && ended(bench));
    assert.deepEqual(room.told.sort(), [`log ${size * mb}`, "log 4000000"].sort());
  }
});

for (const [how, digests, killed] of [
  ["overwritten", ["sha256"], false],
  ["gone", ["sha256"], false],
  ["overwritten", [], false],
  ["overwritten", ["sha256"], true],
  ["overwritten", [], true],
] as const)
  test(`the only target has all of it and goes before it has its name, the copy here makes room, and it is ${how} at its source: what is there is not taken away, it gets its name${digests.length === 0 ? ", by its size" : ""}${killed ? ", also when power goes right after that" : ""}`, async (t) => {
    const room = new Room(t, { target: { digests } });
    const { bench, card, away } = room;
    // As over a new connection.
    away.compares = "or not";
    await room.unnamed();
    if (how === "gone") card.files.delete("log");
    else {
      card.put("log", randomBytes(mb));
      room.list("card");
      await until(bench, "another is there", () => room.found === 2);
    }
    if (killed) {
      away.after = (call) => (call === "commit" ? new Promise(() => undefined) : undefined);
      away.attach(true);
      await until(bench, "it has its name", () => [...away.files.values()].some(({ bytes }) => bytes.equals(room.first)));
      await bench.kill();
      away.after = () => undefined;
      await room.startOne();
    }
    away.attach(true);
    await until(bench, "all has ended", () => ended(bench) && away.files.size === (how === "gone" ? 1 : 2));
    assert.deepEqual([[...away.files.values()].filter(({ bytes }) => bytes.equals(room.first)).length, away.partials.size], [1, 0]);
    assert.deepEqual(room.told, []);
  });

for (const [what, spoil, ends] of [
  ["only half of it is there, which cannot be compared with anything any more: it is taken away", "half", /another file took its place/],
  [
    "its name can never be given: it stays as it is there, and that is told",
    "rejected",
    /a directory has that name; all of it is at away as .*, and stays there/,
  ],
] as const)
  test(`its copy here made room, and it was overwritten, while its only target was away, and ${what}`, async (t) => {
    const room = new Room(t);
    const { bench, card, away } = room;
    await room.unnamed();
    away.before = (call) => {
      if (spoil === "rejected" && call === "commit log" && away.files.size === 0) throw new Fault("rejected", "a directory has that name");
      return undefined;
    };
    away.compares = spoil === "half";
    if (spoil === "half") for (const [path, bytes] of away.partials) away.partials.set(path, bytes.subarray(0, 2 * mb));
    card.put("log", randomBytes(mb));
    room.list("card");
    await until(bench, "another is there", () => room.found === 2);
    away.attach(true);
    await until(bench, "that has ended", () => bench.states("away").includes("dropped") && room.lost().some((text) => ends.test(text)));
    assert.equal(away.partials.size, spoil === "half" ? 0 : 1);
    assert.deepEqual(room.told, ["log 4000000"]);
  });

test("of what grew nothing of its beginning gets a name for itself where its copy made room after it was sent whole", async (t) => {
  const room = new Room(t);
  const { bench, card, away } = room;
  await room.unnamed();
  const grown = Buffer.concat([room.first, randomBytes(mb)]);
  card.put("log", grown, Date.UTC(2026, 4, 2));
  room.list("card");
  await until(bench, "it is here", () => bench.events.some(({ what, message }) => what === "pulled" && message.includes("5000000")));
  away.attach(true);
  await until(bench, "it arrives", () => ended(bench) && names(away).includes(5 * mb));
  assert.deepEqual([names(away), away.files.get("log")?.bytes.equals(grown), room.lost()], [[5 * mb], true, []]);
});

test("read where it lies, and another takes its place, or it is touched, before the second target has it: only the other one is a loss", async (t) => {
  for (const [size, first] of [
    [1, false],
    [1, true],
    [5, true],
    [4, true],
    ["touched", false],
    ["touched", true],
  ] as const) {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { inPlace: true });
    const [out, away] = [new FakeDevice("out"), new FakeDevice("away")];
    away.attach(false);
    const bytes = randomBytes(4 * mb);
    card.put("log", bytes);
    await bench.start({ sources: [card], targets: [out, away] }, [{ from: "card", to: ["out", "away"] }], rarely);
    await until(bench, "one has it", () => out.files.has("log"));
    const other = size === "touched" ? bytes : randomBytes(size * mb);
    const list = () => bench.daemon.engine.relist$.next("card");
    const open = () => bench.states("out").every((state) => state === "done");
    card.put("log", other, Date.UTC(2026, 4, 2));
    // What took its place is found, and read, before or after that is noticed.
    if (first) {
      list();
      await until(bench, "it is found, and there", () => bench.states("out").length === 2 && open());
    }
    away.attach(true);
    const isIn = () => [...away.files.values()].some((file) => file.bytes.equals(other));
    await until(bench, "what is there arrives", () => isIn() && bench.states("out").length === 2 && open() && ended(bench));
    const said = () => bench.events.filter(({ what }) => what === "lost").length;
    if (size !== "touched") await until(bench, "that is said", () => said() > 0);
    const told = lostIn(bench.daemon.engine.journal).map(({ path, size }) => `${path} ${size}`);
    assert.deepEqual([said(), told], size === "touched" ? [0, []] : [1, ["log 4000000"]], `${size} ${first}`);
  }
});

for (const size of [1, 5])
  test(`all of it came, its source was switched off before it said what it was, and another takes its place (of ${size} MB): what came is kept, and that it is lost is told`, async (t) => {
    const bench = new Bench(t);
    const card = new FakeDevice("card", { chunk: mb, crc: crc32 });
    const away = new FakeDevice("away");
    const first = randomBytes(4 * mb);
    card.put("log", first);
    card.before = (call) => {
      if (!call.startsWith("digest")) return undefined;
      card.before = () => undefined;
      card.attach(false);
      throw new Fault("offline", "switched off");
    };
    await bench.start({ sources: [card], targets: [away] }, [{ from: "card", to: ["away"] }], rarely);
    const { journal, spool } = bench.daemon.engine;
    const all = () => journal.get<{ id: string }>("SELECT id FROM versions WHERE durable = 4000000")?.id;
    await until(bench, "all is here", () => all() !== undefined && bench.daemon.engine.lanes.get("card")?.attached === false);
    const id = all() ?? assert.fail();
    const other = randomBytes(size * mb);
    card.put("log", other, Date.UTC(2026, 4, 2));
    card.attach(true);
    const lost = () => bench.events.find(({ what }) => what === "lost")?.message ?? "";
    await until(
      bench,
      "the other one arrives, and that is said",
      () => away.files.get("log")?.bytes.equals(other) === true && lost() !== "",
    );
    const aside = spool.asideOf(id) ?? assert.fail();
    assert.match(
      lost(),
      /^card:log: another file took its place at card after all of it came \(4000000 bytes\), and before that was proved; what came of it is kept as /,
    );
    assert.ok(lost().endsWith(aside) && readFileSync(aside).equals(first));
    const told = () => lostIn(journal).map(({ path, size: bytes }) => `${path} ${bytes}`);
    assert.deepEqual(told(), ["log 4000000"]);
    // What is there again, and whole, has all of it.
    card.put("log", Buffer.concat([first, randomBytes(3 * mb)]), Date.UTC(2026, 4, 3));
    bench.daemon.engine.relist$.next("card");
    await until(bench, "nothing is lost any more", () => told().length === 0);
    assert.equal(spool.asideOf(id), undefined);
  });

test("read where it lies, all of it is at its target without its name, and it is touched: what is found then is that, and nothing is told as lost", async (t) => {
  const bench = new Bench(t);
  const card = new FakeDevice("card", { inPlace: true });
  const [out, away] = [new FakeDevice("out"), new FakeDevice("away")];
  const bytes = randomBytes(4 * mb);
  goesAtName(away, new Fault("offline", "the lid was closed"));
  card.put("log", bytes);
  await bench.start({ sources: [card], targets: [out, away] }, [{ from: "card", to: ["out", "away"] }], rarely);
  await until(bench, "all is there", () => out.files.has("log") && [...away.partials.values()].some(({ length }) => length === 4 * mb));
  card.put("log", bytes, Date.UTC(2026, 4, 2));
  bench.daemon.engine.relist$.next("card");
  await until(bench, "it is found", () => bench.states("out").length === 2 && bench.states("out").every((state) => state === "done"));
  away.before = () => undefined;
  away.attach(true);
  await until(bench, "it arrives", () => away.files.has("log") && ended(bench));
  assert.deepEqual(
    [...away.files.values()].map((file) => file.bytes.equals(bytes)),
    [true],
  );
  assert.deepEqual(
    bench.events.filter(({ what }) => what === "lost"),
    [],
  );
  assert.deepEqual(lostIn(bench.daemon.engine.journal), []);
});
