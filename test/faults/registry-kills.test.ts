/**
 * A station with a registry, and a vehicle of it, killed at durable calls (sync, rename, link, unlink) that are drawn by a seed: while a vehicle registers and sends, from the first start on. Started
 * again, all comes to its end, once. KILLS=1000 kills at each call.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test, type TestContext } from "node:test";
import { parse } from "jsonc-parser";
import { parseFingerprint } from "../../core/net.js";
import { openDatabase } from "../../core/sqlite.js";
import { RegistryClient } from "../../plugins/apsync/client.js";
import { newKey, readKey } from "../../plugins/apsync/key.js";
import type { Access, Slot } from "../../plugins/registry/wire.js";
import { page, planeIn } from "../acceptance/plane.js";
import { until } from "../conformance/clause.js";
import { realClock } from "../conformance/upload.js";
import { whyNoDoor } from "../doubles/door-at-work.js";
import { linkIn, mailServer, type MailServer } from "../mail-server.js";
import { countedIn, drawnFrom, durableCalls, killedLater, skipKilledAt } from "./killed-at.js";
import { Program, runProgram } from "./process.js";
import { Random } from "./random.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "./trees.js";
import { World } from "./world.js";

const noDoor = whyNoDoor() ?? (spawnSync("openssl", ["version"]).status === 0 ? undefined : "openssl is not installed");
const skip = noDoor === undefined ? skipKilledAt : { skip: noDoor };
const signal = new AbortController().signal;
const owner = "pilot@example.org";

function seeded(t: TestContext): Random {
  const seed = Number(process.env.SEED ?? 1);
  t.diagnostic(`SEED=${seed}`);
  return new Random(seed);
}

const most = (kills: number): number => Number(process.env.KILLS ?? kills);

class Station {
  readonly args: readonly string[];

  constructor(
    readonly world: World,
    readonly post: MailServer,
  ) {
    world.mkdir("ground");
    const { host, port, from } = post.options;
    const registry = {
      ...{ type: "registry", listen: "127.0.0.1:0", root: "vehicles", door: { listen: "127.0.0.1:0" }, keepFree: 0 },
      mail: { host, port, secure: false, user: "u", password: "p", from },
    };
    this.args = ["run", "--json", "--config", world.config({ stateDir: "state", services: { registry } }, "ground/config.json")];
  }

  get root(): string {
    return this.world.path("ground/vehicles");
  }

  /** Plain files and what they hold, by their paths below the directory of their slot; `slots`: how many there are. */
  arrived(): { readonly files: ReadonlyMap<string, string>; readonly slots: ReadonlySet<string> } {
    const tree = treeOf(this.root);
    return {
      files: new Map([...tree].map(([path, content]) => [path.split("/").slice(3).join("/"), content])),
      slots: new Set([...tree.keys()].map((path) => path.split("/")[2] ?? "")),
    };
  }

  /** What its catalogue says, once it has ended. */
  async rows(sql: string): Promise<Record<string, unknown>[]> {
    const database = await openDatabase(this.world.path("ground/state/devices/registry/registry.sqlite"));
    try {
      // Those of SQLite have no prototype.
      return database
        .prepare(sql)
        .all()
        .map((row) => ({ ...(row as Record<string, unknown>) }));
    } finally {
      database.close();
    }
  }
}

interface Told {
  readonly port: number;
  readonly certificate: string;
}

async function started(program: Program): Promise<Told> {
  const { facts } = await program.until(({ facts }) => facts?.certificate !== undefined, "its certificate");
  const listens = await program.until(({ facts }) => facts?.doorPort !== undefined, "its port");
  return { port: Number(listens.facts?.port), certificate: String(facts?.certificate) };
}

/** The n-th of them; undefined where the program ends before. */
async function letterTo(
  { letters }: MailServer,
  address: string,
  n: number,
  program: Program,
): Promise<MailServer["letters"][number] | undefined> {
  let over = false;
  void program.exited.then(() => (over = true));
  const found = () => letters.filter(({ to }) => to === address)[n];
  await until("a letter", () => found() !== undefined || over);
  return found();
}

async function ended(program: Program): Promise<void> {
  program.signal("SIGTERM");
  assert.equal(await program.exited, 0, await program.ending(0));
}

/** A vehicle that registers and sends by the API; what rsync would bring through the door it puts there itself, in pieces. */
class Plane {
  /** The inode of each file, by its path. */
  readonly receipts = new Map<string, number>();
  sentBytes = 0;
  #access: object | undefined;
  #slot: Slot | undefined;

  constructor(
    readonly station: Station,
    readonly key: string,
    readonly files: ReadonlyMap<string, Buffer>,
  ) {}

  /** All that is left of its work. Rejects where the station ends before. */
  async work(program: Program): Promise<void> {
    const { port, certificate } = await started(program);
    const url = `https://127.0.0.1:${port}`;
    const client = new RegistryClient({ url, tls: { fingerprint: parseFingerprint(certificate) }, timeout: 5000 }, realClock(), () =>
      readKey(this.key),
    );
    try {
      // What it was told once holds for good: its id, the station, the host key.
      const access = { certificate, ...(await this.#registered(client, port, program)), port: 0 };
      assert.deepEqual(access, (this.#access ??= access));
      await this.#send(client, access.vehicleId);
    } finally {
      client.close();
    }
  }

  async #registered(client: RegistryClient, port: number, program: Program): Promise<Access> {
    let { id, access } = await client.register({ email: owner, vehicle: "plane" }, signal);
    for (let read = 0; access === undefined; read++) {
      const letter = await letterTo(this.station.post, owner, read, program);
      if (letter === undefined) throw new Error("the station ended before it wrote");
      // Of one that it did not note as sent it makes another link; and the owner may have pressed the button before.
      await page(port, linkIn(letter), "POST");
      ({ id, access } = await client.registration(id, signal));
    }
    return access;
  }

  async #send(client: RegistryClient, vehicle: string): Promise<void> {
    const slot = await client.slot(this.#slot === undefined ? {} : { slot: this.#slot.id }, signal);
    assert.deepEqual(slot, (this.#slot ??= slot));
    const dir = join(this.station.root, readdirSync(this.station.root)[0] ?? "", vehicle, slot.name);
    for (const [path, content] of this.files) {
      if (this.receipts.has(path)) continue;
      const partial = `.${basename(path)}.0a1b2c3d-0123456789abcdef.part`;
      const [size, digest] = [content.length, `sha256:${sha256(content)}`];
      for (;;) {
        const state = (await client.commit(slot.id, [{ partial, path, size, digest, modifiedMs: 1_780_000_000_000 }], signal)).files[0]
          ?.state;
        if (state === "published") break;
        assert.ok(state === "absent" || state === "short", state);
        const { size: held = 0 } = await client.announce(slot.id, { partial, path, size }, signal);
        const piece = content.subarray(held, held + Math.ceil(size / 3));
        appendFileSync(join(dir, ".incoming", partial), piece);
        this.sentBytes += piece.length;
      }
      this.receipts.set(path, statSync(join(dir, path)).ino);
    }
  }
}

test("a station killed while a vehicle registers and sends", skip, async (t) => {
  const random = seeded(t);
  const world = new World(t);
  const station = new Station(world, await mailServer(t));
  const files = new Map([
    ["empty.log", Buffer.alloc(0)],
    ["logs/small.log", random.bytes(100)],
    ["logs/pieces.log", random.bytes(300_001)],
  ]);
  const key = world.path("key");
  writeFileSync(key, newKey("plane"));
  const expected = new Map([...files].map(([path, content]) => [path, `${content.length} ${sha256(content)}`]));
  const sizes = [...files.values()].reduce((sum, { length }) => sum + length, 0);
  const fresh = () => {
    for (const dir of ["state", "vehicles"]) rmSync(world.path("ground", dir), { recursive: true, force: true });
    station.post.letters.splice(0);
    return new Plane(station, key, files);
  };
  const expectWhole = async (plane: Plane, before: ReadonlyMap<string, number>, at: string) => {
    const { files: arrived, slots } = station.arrived();
    assertSameTree(arrived, expected, `at the station after ${at}`);
    assert.equal(slots.size, 1, at);
    for (const [path, ino] of before) assert.equal(plane.receipts.get(path), ino, `${path} is what it was, after ${at}`);
    assert.equal(plane.sentBytes, sizes, `sent after ${at}`);
    const rows = await station.rows("SELECT path, size || ' ' || substr(digest, 8) AS content FROM files");
    assert.deepEqual(new Map(rows.map(({ path, content }) => [path, content])), expected, `in the catalogue after ${at}`);
    assert.equal(rows.length, files.size);
    const counts = await station.rows(
      "SELECT (SELECT count(*) FROM vehicles) AS vehicles, (SELECT count(*) FROM slots) AS slots, (SELECT count(*) FROM pending) AS pending",
    );
    assert.deepEqual(counts, [{ vehicles: 1, slots: 1, pending: 1 }], at);
    assert.deepEqual(litterIn(world.path("ground")), [], `left after ${at}`);
  };
  const log = world.path("calls");
  const first = fresh();
  const counted = countedIn(log, station.args);
  await first.work(counted);
  await ended(counted);
  await expectWhole(first, new Map(), "no kill");
  const kills: Record<string, number> = {};
  for (const { call, n } of drawnFrom(log, random, most(2))) {
    const plane = fresh();
    const program = killedLater(station.args, call, n);
    const cut = await plane.work(program).then(noop, (error: unknown) => error);
    program.signal("SIGTERM");
    const end = await program.exited;
    assert.ok(end === "SIGKILL" || (end === 0 && cut === undefined), `${call} ${n}: ${end}, ${String(cut)}`);
    // What it was cut with, and nothing that was not as it should be before.
    assert.ok(!(cut instanceof assert.AssertionError), String(cut));
    if (end === "SIGKILL") kills[call] = (kills[call] ?? 0) + 1;
    const before = new Map(plane.receipts);
    const next = new Program(station.args);
    await plane.work(next);
    await ended(next);
    await expectWhole(plane, before, `a kill at ${call} ${n}`);
  }
  t.diagnostic(JSON.stringify(kills));
  assert.ok(durableCalls.every((call) => (kills[call] ?? 0) > 0));
});

test("a vehicle killed while it registers, and while it sends", skip, async (t) => {
  const random = seeded(t);
  const world = new World(t);
  const station = new Station(world, await mailServer(t));
  const ground = new Program(station.args);
  const { port, certificate } = await started(ground);
  const { config } = planeIn(world.path("image"));
  const sent = new Map<string, string>();
  for (const [name, size] of [
    ["empty.log", 0],
    ["small.log", 100],
    ["pieces.log", 300_001],
  ] as const)
    world.file(`image/inbox/${name}`, random.bytes(size));
  for (const [name, content] of treeOf(world.path("image/inbox"))) sent.set(`inbox/${name}`, content);
  const log = world.path("calls");
  const again = (image: string) => {
    rmSync(world.path("plane"), { recursive: true, force: true });
    cpSync(world.path(image), world.path("plane"), { recursive: true, preserveTimestamps: true });
  };
  const planeConfig = world.path("plane", basename(config));
  const kills: Record<string, number> = {};
  const count = (what: string) => (kills[what] = (kills[what] ?? 0) + 1);

  // Each is another owner's: of one, only so many are taken at once.
  const server = ["--server", `https://127.0.0.1:${port}`, "--fingerprint", certificate];
  const words = (n: number) => ["register", "--config", planeConfig, ...server, "--email", `pilot-${n}@example.org`, "--vehicle", "plane"];
  const confirmed = async (program: Program, n: number) => {
    const letter = await letterTo(station.post, `pilot-${n}@example.org`, 0, program);
    if (letter !== undefined) await page(port, linkIn(letter), "POST");
    return program.exited;
  };
  const run = ["run", "--once", "--json", "--config", planeConfig];
  let flights = 0;
  const expectSent = async (n: number, at: string) => {
    const dir = () => {
      const of = readdirSync(station.root).find((it) => it.startsWith(`pilot-${n}-`)) ?? "";
      return join(station.root, of, readdirSync(join(station.root, of))[0] ?? "");
    };
    const inodes = () => {
      if (!existsSync(world.path("plane/state/receipts.jsonl"))) return new Map<string, number>();
      const receipts = assertReceiptsTrue(world.path("plane/state"), { station: dir() });
      return new Map([...receipts.values()].map(({ path }) => [path, statSync(join(dir(), path)).ino]));
    };
    const before = inodes();
    const { code, out, err } = await runProgram(run);
    assert.equal(code, 0, `after ${at}: ${out}${err}`);
    const after = inodes();
    assert.equal(after.size, sent.size, at);
    for (const [path, ino] of before) assert.equal(after.get(path), ino, `${path} is what it was, after ${at}`);
    const [slot = "", ...others] = new Set([...after.keys()].map((path) => path.split("/")[0] ?? ""));
    assert.deepEqual(others, [], at);
    assertSameTree(treeOf(join(dir(), slot)), sent, `at the station after ${at}`);
    const archived = new Map([...sent].map(([path, content]) => [`archive/${slot}/${basename(path)}`, content]));
    assertSameTree(treeOf(world.path("plane/inbox")), archived, `archived after ${at}`);
    assert.deepEqual(litterIn(world.path("plane/state")), [], `left after ${at}`);
    flights += 1;
  };

  again("image");
  assert.equal(await confirmed(countedIn(log, words(0)), 0), 0);
  cpSync(world.path("plane"), world.path("registered"), { recursive: true, preserveTimestamps: true });
  for (const [index, { call, n }] of drawnFrom(log, random, most(1)).entries()) {
    const [who, at] = [index + 1, `a kill at ${call} ${n} of its registration`];
    again("image");
    if ((await confirmed(killedLater(words(who), call, n), who)) === "SIGKILL") count(`register ${call}`);
    const known = () => parse(readFileSync(planeConfig, "utf8")) as { devices: object; routes: unknown[] };
    // It may have been killed once all was written.
    if (!("station" in known().devices)) {
      const next = new Program(words(who));
      assert.equal(await confirmed(next, who), 0, `after ${at}: ${await next.ending(0)}`);
    }
    assert.deepEqual(Object.keys(known().devices), ["inbox", "station"], at);
    assert.equal(known().routes.length, 1, at);
    await expectSent(who, at);
  }

  again("registered");
  const counted = countedIn(log, run);
  assert.equal(await counted.exited, 0, await counted.ending(0));
  flights += 1;
  for (const { call, n } of drawnFrom(log, random, most(1))) {
    again("registered");
    // ssh gives names, too: where it is what was killed, something is left for the next run.
    const end = await killedLater(run, call, n).exited;
    assert.ok(end === "SIGKILL" || end === 3, `${call} ${n}: ${end}`);
    count(`run ${call}`);
    await expectSent(0, `a kill at ${call} ${n}`);
  }
  await ended(ground);
  // What was begun and left is in none.
  assert.equal(station.arrived().slots.size, flights);
  assert.deepEqual(
    await station.rows("SELECT count(*) AS files, count(DISTINCT slot) AS slots, (SELECT count(*) FROM slots) AS all_slots FROM files"),
    [{ files: flights * sent.size, slots: flights, all_slots: flights }],
  );
  assert.deepEqual(litterIn(world.path("ground")), []);
  t.diagnostic(JSON.stringify(kills));
  assert.ok(durableCalls.every((call) => (kills[`run ${call}`] ?? 0) > 0) && (kills["register rename"] ?? 0) > 0);
});

/** What a kill may leave, and nobody takes away. */
function litterIn(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: "utf8" }).filter((path) => /\.(tmp|part|new|new\.pub)$/.test(path));
}

function noop(): void {}

const sha256 = (content: Buffer): string => createHash("sha256").update(content).digest("hex");
