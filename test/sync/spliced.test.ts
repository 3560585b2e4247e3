/** Of a file that is at the server in an earlier version only what is new goes over the link: counted before a real OpenSSH that allows nothing but SFTP, with kills in the middle. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { codeOf } from "../../core/errors.js";
import { until } from "../conformance/clause.js";
import { apache, password as davPassword, user as davUser } from "../conformance/dav-servers.js";
import { ownPlain, proftpd } from "../conformance/ftp-servers.js";
import { chrooted } from "../conformance/sftp-servers.js";
import { bytes } from "../conformance/upload.js";
import { CountingRelay } from "../faults/counting-relay.js";
import { Program, type SeenEvent } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";
import { sharedIn } from "./servers.js";
import { type Shared, shared } from "./shared.js";

const skip = chrooted.skip === undefined ? {} : { skip: chrooted.skip };
const MiB = 2 ** 20;
/** What a session says beside the content. */
const talk = 200_000;

interface Spliced {
  readonly both: Shared;
  readonly relay: CountingRelay;
  /** Writes a file here, and lets the program run until it is there too: bytes over the link, and what was said. */
  bring(content: Buffer): Promise<{ readonly sent: number; readonly received: number; readonly said: readonly SeenEvent[] }>;
  /** The server's file, and what is in the trash there. */
  expect(content: Buffer, trash: readonly Buffer[]): void;
  readonly config: string;
}

const name = "log.bin";

async function spliced(t: TestContext, mode: "mirror" | "two-way", device: object = {}, route: object = {}): Promise<Spliced> {
  const both = await shared(t);
  const relay = await CountingRelay.start(Number(both.served.device.port));
  t.after(() => relay.close());
  const config = both.config({ mode, ...route }, {}, { port: relay.port, ...device });
  const place = join(both.nas, name);
  const trashed = () => {
    const dir = join(both.nas, ".filesync/trash");
    const all = existsSync(dir) ? readdirSync(dir, { recursive: true, withFileTypes: true }) : [];
    return all.flatMap((entry) => (entry.isFile() ? [readFileSync(join(entry.parentPath, entry.name))] : []));
  };
  return {
    ...{ both, relay, config },
    bring: async (content) => {
      const own = join(both.box, name);
      // Written again it is another version.
      if (!existsSync(own) || !readFileSync(own).equals(content)) writeFileSync(own, content);
      const [before, told] = [relay.sentBytes, relay.receivedBytes];
      const program = new Program(["run", "--once", "--json", "--verbose", "--config", config]);
      t.after(() => program.kill());
      assert.equal(await program.exited, 0, program.stderr + JSON.stringify(program.events));
      return {
        sent: relay.sentBytes - before,
        received: relay.receivedBytes - told,
        said: program.events.filter(({ what }) => what === "spliced"),
      };
    },
    expect: (content, trash) => {
      assert.ok(readFileSync(place).equals(content), "the server holds another content");
      const found = trashed();
      assert.equal(found.length, trash.length, "the trash");
      for (const one of trash)
        assert.ok(
          found.some((it) => it.equals(one)),
          "an old content is not in the trash",
        );
      assert.deepEqual(both.parts(), []);
    },
  };
}

for (const mode of ["mirror", "two-way"] as const)
  test(`${mode}: only the tail of a file that grew is sent, and only what is new of one that changed`, skip, async (t) => {
    const it = await spliced(t, mode);
    const old = bytes(12 * MiB, 1);
    const first = await it.bring(old);
    assert.ok(first.sent > old.length);
    it.expect(old, []);

    const grown = Buffer.concat([old, bytes(100_000, 2)]);
    const tail = await it.bring(grown);
    t.diagnostic(`grown by 100,000: ${tail.sent} bytes sent of ${grown.length}`);
    assert.ok(tail.sent < 100_000 + talk, `${tail.sent} bytes were sent`);
    it.expect(grown, [old]);

    const changed = Buffer.from(grown);
    bytes(50_000, 3).copy(changed, 5 * MiB + 777);
    const middle = await it.bring(changed);
    t.diagnostic(`50,000 changed in the middle: ${middle.sent} bytes sent`);
    assert.ok(middle.sent < 600_000 + talk, `${middle.sent} bytes were sent`);
    it.expect(changed, [old, grown]);

    const front = Buffer.concat([bytes(1000, 4), changed.subarray(0, 9 * MiB)]);
    const inserted = await it.bring(front);
    t.diagnostic(`1000 inserted at the front, and cut: ${inserted.sent} bytes sent`);
    assert.ok(inserted.sent < 600_000 + talk, `${inserted.sent} bytes were sent`);
    it.expect(front, [old, grown, changed]);
    // Each content that is agreed has its own, and no other.
    const [route] = readdirSync(join(it.both.world.dir, "state/chunks"));
    assert.equal(readdirSync(join(it.both.world.dir, "state/chunks", route ?? "")).length, 1);
  });

test("what was killed in the middle of it goes on, and sends nothing twice", skip, async (t) => {
  const it = await spliced(t, "mirror", {}, { maxRate: "400kB/s" });
  const old = bytes(8 * MiB, 1);
  writeFileSync(join(it.both.box, name), old);
  const [fast] = [it.both.config({ mode: "mirror" }, {}, { port: it.relay.port })];
  const run = new Program(["run", "--once", "--config", fast]);
  assert.equal(await run.exited, 0, run.stderr);
  const config = it.both.config({ mode: "mirror", maxRate: "400kB/s" }, {}, { port: it.relay.port });

  // New bytes at two places, and more behind.
  const next = Buffer.concat([
    old.subarray(0, 2 * MiB),
    bytes(600_000, 2),
    old.subarray(2 * MiB, 6 * MiB),
    bytes(600_000, 3),
    old.subarray(6 * MiB),
  ]);
  writeFileSync(join(it.both.box, name), next);
  const before = it.relay.sentBytes;
  const partial = () => Math.max(-1, ...it.both.parts());
  for (const [reached, end] of [
    [2 * MiB + 100_000, 2 * MiB],
    [6 * MiB + 700_000, 2 * MiB + 600_000],
  ] as const) {
    // However late this is seen, it does not come to its end: what is left of the place before, and most of this one, may be sent.
    it.relay.holdsAt = it.relay.sentBytes + Math.max(0, end - Math.max(partial(), 2 * MiB)) + 500_000;
    const program = new Program(["run", "--json", "--config", config]);
    t.after(() => program.kill());
    await until(`the partial to have ${reached} bytes`, () => partial() > reached, 30_000);
    await program.kill();
    it.relay.cut();
    assert.ok(readFileSync(join(it.both.nas, name)).equals(old), "the old version has gone before the new one is whole");
    assert.ok(partial() < next.length);
  }
  it.relay.holdsAt = Infinity;
  const { sent } = { sent: it.relay.sentBytes - before };
  await it.bring(next);
  const sentInAll = it.relay.sentBytes - before;
  t.diagnostic(`${sent} bytes until the second kill, ${sentInAll} in all, of which 1,200,000 are new`);
  assert.ok(sentInAll < 1_200_000 + 600_000 + 3 * talk, `${sentInAll} bytes were sent`);
  it.expect(next, [old]);
});

test("what was not sent is read back, unless the configuration says that the size will do", skip, async (t) => {
  const [old, tail] = [bytes(5 * MiB, 1), bytes(1000, 2)];
  const grown = Buffer.concat([old, tail]);
  for (const [verify, least, most] of [
    ["auto", grown.length, grown.length + MiB],
    ["size", 0, talk],
  ] as const) {
    const it = await spliced(t, "mirror", { verify });
    await it.bring(old);
    const { sent, received } = await it.bring(grown);
    t.diagnostic(`${verify}: ${sent} bytes sent, ${received} received`);
    assert.ok(sent < talk && received >= least && received < most, `${verify}: ${sent} bytes sent, ${received} received`);
    it.expect(grown, [old]);
  }
});

test("a content that somebody changed there, with its size and time kept, is never taken for the old one", skip, async (t) => {
  const it = await spliced(t, "mirror");
  const old = bytes(6 * MiB, 1);
  await it.bring(old);
  const place = join(it.both.nas, name);
  const { mtime, atime } = statSync(place);
  const foreign = Buffer.from(old);
  bytes(1000, 9).copy(foreign, 3 * MiB);
  writeFileSync(place, foreign);
  utimesSync(place, atime, mtime);
  const grown = Buffer.concat([old, bytes(1000, 2)]);
  const { sent, said } = await it.bring(grown);
  assert.ok(
    said.some(({ level, message }) => level === "warn" && message.includes("not what was taken for it")),
    JSON.stringify(said),
  );
  assert.ok(sent > grown.length, "it was not sent whole");
  it.expect(grown, [foreign]);
});

test("what it was made of is damaged or lost here: it is sent whole, and that is told", skip, async (t) => {
  const it = await spliced(t, "mirror");
  const old = bytes(5 * MiB, 1);
  await it.bring(old);
  const chunks = join(it.both.world.dir, "state/chunks");
  const [route = ""] = readdirSync(chunks);
  const [file = ""] = readdirSync(join(chunks, route));
  const at = join(chunks, route, file);
  const damaged = readFileSync(at);
  damaged[100] = (damaged[100] ?? 0) ^ 1;
  writeFileSync(at, damaged);
  const next = Buffer.from(old);
  bytes(1000, 2).copy(next, MiB);
  const { sent, said } = await it.bring(next);
  assert.ok(
    said.some(({ level }) => level === "debug"),
    JSON.stringify(said),
  );
  assert.ok(sent > next.length);
  it.expect(next, [old]);
});

const edits = Number(process.env["FILESYNC_TEST_SYNC_EDITS"] ?? 16);
const seed = Number(process.env["FILESYNC_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

interface Served {
  readonly device: (port: number) => Readonly<Record<string, unknown>>;
  readonly port: number;
  readonly dir: string;
  stop(): Promise<void>;
}

const servers: readonly { readonly name: string; readonly skip?: string; start(): Promise<Served> }[] = [
  {
    ...chrooted,
    start: async () => {
      const server = await chrooted.start();
      const device = (port: number) => ({ type: "sftp", host: "127.0.0.1", port, root: server.seen, ...server.options });
      return { device, port: server.port, dir: server.dir, stop: () => server.stop() };
    },
  },
  {
    ...apache,
    start: async () => {
      const server = await apache.start();
      const url = new URL(server.url);
      const device = (port: number) => {
        const through = new URL(server.url);
        through.port = String(port);
        return { type: "webdav", url: through.href, user: davUser, password: davPassword, ...server.options };
      };
      return { device, port: Number(url.port), dir: server.dir, stop: () => server.stop() };
    },
  },
  ...[ownPlain, proftpd].map((kind) => ({
    ...kind,
    // Only what is asked goes by the relay: the bytes have ports of their own.
    start: async () => {
      const server = await kind.start();
      const login = { host: "127.0.0.1", user: server.user, password: server.password };
      const device = (port: number) => ({ type: "ftp", port, ...login, ...server.options });
      return { device, port: server.port, dir: server.dir, stop: () => server.stop() };
    },
  })),
];

for (const kind of servers)
  test(
    `${kind.name}: large files are edited while the program is killed and its link cut: whatever was there is a version that was here, whole; seed ${seed}`,
    kind.skip === undefined ? {} : { skip: kind.skip },
    async (t) => {
      const random = new Random(seed);
      const server = await kind.start();
      t.after(() => server.stop());
      const relay = await CountingRelay.start(server.port);
      t.after(() => relay.close());
      const world = new World(t);
      const [box, stash, served] = [world.mkdir("box"), world.mkdir("stash"), sharedIn(server.dir)];
      const own = { settle: "0s", interval: "1s" };
      const config = world.config({
        devices: { box: { type: "local", dir: "box", ...own }, nas: { ...server.device(relay.port), ...own } },
        routes: [{ from: "box", to: ["nas"], mode: "mirror", into: "shared", maxRate: "6MB/s" }],
      });
      const names = ["a", "b", "d/c"];
      const versions = new Set<string>();
      const now = new Map<string, Buffer>();
      const shaOf = (content: Buffer) => createHash("sha256").update(content).digest("hex");
      let [written, kills, cuts] = [0, 0, 0];
      const write = (path: string, content: Buffer) => {
        const at = join(stash, String((written += 1)));
        writeFileSync(at, content);
        mkdirSync(dirname(join(box, path)), { recursive: true });
        renameSync(at, join(box, path));
        now.set(path, content);
        versions.add(shaOf(content));
      };
      const edit = (old: Buffer): Buffer => {
        const at = random.below(old.length);
        const some = random.bytes(random.below(2) === 0 ? 1000 : 200_000);
        switch (random.below(6)) {
          case 0:
          case 1:
            return Buffer.concat([old, some]);
          case 2:
            return Buffer.concat([old.subarray(0, at), some, old.subarray(at)]);
          case 3:
            return Buffer.concat([old.subarray(0, at), some, old.subarray(Math.min(old.length, at + some.length))]);
          case 4:
            return Buffer.concat([old.subarray(0, at), old.subarray(Math.min(old.length, at + some.length)), some]);
          default:
            return Buffer.concat([old.subarray(at), old.subarray(0, at), some]);
        }
      };
      for (const path of names) write(path, random.bytes(5 * MiB));
      const begin = () => new Program(["run", "--json", "--verbose", "--config", config]);
      let program = begin();
      t.after(() => program.kill());
      const said: SeenEvent[] = [];
      const even = () => names.every((path) => isThere(join(served, path), now.get(path)));
      for (let made = 0; made < edits; made++) {
        const path = random.pick(names);
        write(path, edit(now.get(path) ?? Buffer.alloc(0)));
        if (random.below(3) === 0) await until("both to be the same", even, 60_000);
        else await sleep(random.below(1500));
        if (random.below(3) === 0) {
          await program.kill();
          kills += 1;
          said.push(...program.events);
          program = begin();
        } else if (random.below(4) === 0) {
          relay.cut();
          cuts += 1;
        }
      }
      await until("both to be the same in the end", even, 60_000);
      // Whatever the seed: one that only grew, undisturbed.
      write("a", Buffer.concat([now.get("a") ?? Buffer.alloc(0), random.bytes(1000)]));
      await until("the last to be there, too", even, 60_000);
      await program.kill();
      said.push(...program.events);
      const spared = said.filter(({ what, facts }) => what === "spliced" && Number(facts?.["spliced"]) > 0).length;
      t.diagnostic(JSON.stringify({ edits, kills, cuts, spared, sent: relay.sentBytes }));
      for (const entry of readdirSync(served, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || entry.name.endsWith(".part")) continue;
        const content = readFileSync(join(entry.parentPath, entry.name));
        assert.ok(versions.has(shaOf(content)), `${join(entry.parentPath, entry.name)} was never here (seed ${seed})`);
      }
      assert.ok(spared > 0, "nothing was spliced");
    },
  );

/** Between the look and the reading its name may be on the way from the old content to the new one. */
function isThere(place: string, content: Buffer | undefined): boolean {
  try {
    return content !== undefined && statSync(place).size === content.length && readFileSync(place).equals(content);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
}
