/** Into which slot a file goes, by a real registry with a made-up door; rsync is a copy. Whatever became of a slot, what was found together is in one. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
import type { Expect, Memo } from "../../core/plugin.js";
import { memo, realClock, sha256, upload as uploadOf } from "../../test/conformance/upload.js";
import { plane, type Plane, registered, type Station, station } from "../../test/doubles/station.js";
import { rsyncFault } from "../rsync/faults.js";
import type { Link } from "../rsync/link.js";
import { Flights } from "./flights.js";
import { ApsyncTarget } from "./target.js";

const signal = new AbortController().signal;
const gapMs = 300_000;
const idleMs = 601_000;
const email = "pilot@example.org";

type Vehicle = Plane & { readonly id: string };

interface File {
  readonly name: string;
  readonly foundMs: number;
  /** Outlives the process, as the journal does. */
  readonly memo: Memo;
  /** Absent: what its name tells. */
  readonly content?: string;
  readonly expect?: Expect;
}

/** Found by one listing. */
const found = (foundMs: number, ...names: string[]): File[] => names.map((name) => ({ name, foundMs, memo: memo() }));

function dirFor(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "filesync-flights-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** A process of the vehicle: what it knew is what is in `dir`, and in the memos of its uploads. */
function started({ client, id, at }: Vehicle, dir: string) {
  const send = ({ upload, localPath }: { upload: { partialPath: string }; localPath: string }) => {
    writeFileSync(join(at.door.open_.get(id) ?? "", upload.partialPath), readFileSync(localPath));
    return { sent: Promise.resolve(), ended: Promise.resolve() };
  };
  const link = { login: () => Promise.resolve({ rsync: { send } }) } as unknown as Link;
  const target = new ApsyncTarget(client, link, new Flights(dir, gapMs), realClock());
  const upload = ({ name, content: text = `what ${name} holds`, ...given }: File) => {
    const content = Buffer.from(text);
    const localPath = join(dir, name);
    writeFileSync(localPath, content);
    return { ...uploadOf(name, content), ...given, localPath, digest: sha256(content) };
  };
  const deliver = async (file: File) => {
    const it = upload(file);
    await target.write(it, await target.offset(it, signal), signal, () => undefined);
    return target.commit(it, signal);
  };
  return {
    begin: (file: File) => target.offset(upload(file), signal),
    /** As core does first of all with what was about to get its name. */
    ask: (file: File) => target.commit(upload(file), signal),
    deliver,
    /** → the slot. */
    send: async (file: File): Promise<string> => {
      const receipt = await deliver(file);
      assert.ok("path" in receipt);
      return dirname(receipt.path);
    },
  };
}

const nowMs = 1_700_000_000_000;
const names = ["1.bin", "2.bin", "3.bin", "4.bin", "5.bin", "6.bin"];

/** They go at once: → how many slots have files, of how many directories there are. */
async function slotsOf(at: Station, { send }: ReturnType<typeof started>, files: readonly File[]): Promise<[number, number]> {
  const slots = new Set(await Promise.all(files.map(send)));
  return [slots.size, directories(at).length];
}

const directories = ({ root }: Station): string[] =>
  readdirSync(root, { recursive: true, encoding: "utf8" }).filter((path) => /^[^/]+\/[^/]+\/\d{8}T[^/]+$/.test(path));

/** The station takes a slot away that nothing came to. */
async function idle({ clock, slots }: Station): Promise<void> {
  clock.advance(idleMs);
  await slots.tick();
}

test("what the station's medium did not take of rsync is taken away before it is sent again: in place nothing would be written, and the station's sync would say that all is well", async (t) => {
  const at = await station(t);
  const { client, id } = await registered(t, at, "plane", email);
  const dir = dirFor(t);
  const sent: number[] = [];
  const send = ({ upload, localPath }: { upload: { partialPath: string }; localPath: string }) => {
    const place = join(at.door.open_.get(id) ?? "", upload.partialPath);
    sent.push(existsSync(place) ? statSync(place).size : -1);
    writeFileSync(place, readFileSync(localPath));
    const err = `rsync: [receiver] fsync failed on "${upload.partialPath}": Input/output error (5)`;
    const ended = Promise.resolve(sent.length === 1 ? rsyncFault("cannot send it", { code: 11, err }) : undefined);
    const asked = ended.then((fault) => {
      if (fault !== undefined) throw fault;
    });
    return { sent: asked, ended };
  };
  const link = { login: () => Promise.resolve({ rsync: { send } }) } as unknown as Link;
  const content = Buffer.from("what it holds");
  const localPath = join(dir, "a.bin");
  writeFileSync(localPath, content);
  const it = { ...uploadOf("a.bin", content), memo: memo(), localPath, digest: sha256(content) };
  const target = () => new ApsyncTarget(client, link, new Flights(dir, gapMs), realClock());
  const first = target();
  await assert.rejects(
    first.write(it, await first.offset(it, signal), signal, () => undefined),
    /fsync failed/,
  );
  await assert.rejects(first.commit(it, signal), /could not sync/);
  // Also by the next process.
  const next = target();
  assert.equal(await next.offset(it, signal), 0);
  await next.write(it, 0, signal, () => undefined);
  assert.deepEqual(sent, [-1, -1]);
  assert.ok("path" in (await next.commit(it, signal)));
});

test("a slot that was given and never used is taken away while the vehicle is off: one other for all that was to go there", async (t) => {
  const at = await station(t);
  const [it, dir] = [await registered(t, at, "plane", email), dirFor(t)];
  const files = found(nowMs, ...names);
  const before = started(it, dir);
  for (const file of files.slice(0, 4)) await before.begin(file);
  await idle(at);
  assert.deepEqual(directories(at), []);
  assert.deepEqual(await slotsOf(at, started(it, dir), files), [1, 1]);
});

test("a file whose answer was lost, and that the station has passed on until its slot was closed, has arrived; sent once more it comes where it was: another slot would make two of it", async (t) => {
  const at = await station(t);
  const [it, dir] = [await registered(t, at, "plane", email), dirFor(t)];
  const [file, later] = found(nowMs, "1.bin", "2.bin") as [File, File];
  const slot = await started(it, dir).send(file);
  const passOn = async () => {
    rmSync(join(at.root, directories(at)[0] ?? "", file.name));
    await idle(at);
    at.clock.jumpWall(idleMs);
  };
  await passOn();
  assert.deepEqual(directories(at), [], "nothing is kept of it for good");
  const known = await started(it, dir).ask(file);
  assert.deepEqual("path" in known && [dirname(known.path), known.proof], [slot, "digest"]);
  assert.equal(await started(it, dir).send(file), slot);
  // As often as that happens, and also what is found later of that flight.
  await passOn();
  assert.equal(await started(it, dir).send(later), slot);
});

test("what grew replaces what it began as in the slot where that is, and nothing in another, whoever put that there", async (t) => {
  const at = await station(t);
  const vehicle = await registered(t, at, "plane", email);
  const run = started(vehicle, dirFor(t));
  const [first] = found(nowMs, "1.bin");
  const [same] = found(nowMs + 10 * gapMs, "1.bin");
  assert.ok(first !== undefined && same !== undefined);
  const begun = "what 1.bin holds";
  const [one, two] = [await run.send(first), await run.send(same)];
  assert.notEqual(one, two);
  const grown = (archive: string): File => ({
    ...{ name: "1.bin", foundMs: same.foundMs, memo: memo(), content: `${begun} and more` },
    expect: { kind: "replaces", size: begun.length, digest: sha256(Buffer.from(begun)), archive },
  });
  assert.deepEqual(await run.deliver(grown(one)), {
    occupied: true,
    size: begun.length,
    digest: sha256(Buffer.from(begun)),
    proof: "digest",
  });
  assert.equal(await run.send(grown(two)), two);
});

test("a full station gives and takes away one slot after another: the files are in the last", async (t) => {
  const at = await station(t, { slots: { vehicleBytes: 10 } });
  const [it, dir] = [await registered(t, at, "plane", email), dirFor(t)];
  const files = found(nowMs, ...names);
  const running = started(it, dir);
  for (let n = 0; n < 3; n++) {
    for (const file of files) await assert.rejects(running.begin(file), /do not fit/);
    await idle(at);
  }
  await at.order("quota", "plane", "1MiB");
  assert.deepEqual(await slotsOf(at, running, files), [1, 1]);
  // What comes later of that flight.
  assert.deepEqual(await slotsOf(at, started(it, dir), found(nowMs + gapMs, "7.bin")), [1, 1]);
});

test("a vehicle that is taken away and registers again, the key and what it noted the same: one slot for each of two flights that wait at once", async (t) => {
  const at = await station(t);
  const [it, dir] = [await registered(t, at, "plane", email), dirFor(t)];
  const flights = [found(nowMs, ...names), found(nowMs + 3 * gapMs, "7.bin", "8.bin", "9.bin")];
  for (const files of flights) {
    const before = started(it, dir);
    for (const file of files.slice(0, 2)) await before.begin(file);
  }
  await at.order("delete", email);
  const again = await plane(t, at, it.signer);
  const { id } = await again.client.register({ email, vehicle: "plane" }, signal);
  await at.order("confirm", id);
  const vehicle = (await again.client.vehicle(signal)).vehicleId;
  assert.deepEqual(await slotsOf(at, started({ ...again, id: vehicle }, dir), flights.flat()), [2, 2]);
  const kept = JSON.parse(readFileSync(join(dir, "flights.json"), "utf8")) as { flights: { name: string }[] };
  assert.deepEqual(
    kept.flights.map(({ name }) => name.includes(vehicle)),
    [true, true],
    "nothing is remembered of who it was before",
  );
});

test("an operator moves the slot away while it is open: one other for what is to come, which goes on at once", async (t) => {
  const at = await station(t);
  const [it, dir] = [await registered(t, at, "plane", email), dirFor(t)];
  const files = found(nowMs, ...names);
  const running = started(it, dir);
  const first = await running.send(files[0] as File);
  for (const file of files.slice(1, 4)) await running.begin(file);
  renameSync(join(at.root, directories(at)[0] ?? ""), join(dir, "moved"));
  const slots = new Set(await Promise.all(files.slice(1).map(running.send)));
  assert.equal(slots.size, 1);
  assert.equal(directories(at).length, 1);
  assert.ok(existsSync(join(dir, "moved", "1.bin")) && !existsSync(join(dir, "moved", "2.bin")), first);
});

test("a card that was cloned, and registers as another vehicle: the flights that it remembers are the other's", async (t) => {
  const at = await station(t);
  const [it, dir] = [await registered(t, at, "plane", email), dirFor(t)];
  const first = await started(it, dir).send(found(nowMs, "1.bin")[0] as File);
  const other = await registered(t, at, "plane 2", email);
  const after = started(other, dir);
  const slots = new Set(await Promise.all(found(nowMs, "2.bin", "3.bin").map(after.send)));
  assert.equal(slots.size, 1);
  assert.ok(!slots.has(first));
});

test("what an earlier version noted, a slot for each file and the first of them gone, is one flight again", async (t) => {
  const at = await station(t);
  const [it, dir] = [await registered(t, at, "plane", email), dirFor(t)];
  const kept: object[] = [{ id: "0011223344556677", name: `20260101T000000Z-${it.id}`, fromMs: nowMs, toMs: nowMs }];
  for (const name of ["a.bin", "b.bin", "c.bin"]) {
    mkdirSync(join(dir, name), { recursive: true });
    const [file] = found(nowMs, name);
    const slot = await started(it, join(dir, name)).send(file as File);
    kept.push({ ...(file?.memo.get("slot") as object), fromMs: nowMs, toMs: nowMs });
    assert.ok(slot);
  }
  const made = directories(at).length;
  writeFileSync(join(dir, "flights.json"), JSON.stringify({ flights: kept }));
  assert.deepEqual(await slotsOf(at, started(it, dir), found(nowMs, ...names)), [1, made]);
});
