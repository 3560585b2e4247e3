/** Slots, by the API, with a made-up door: what arrives, what breaks, what is refused. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  promises,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { isFault } from "../../core/errors.js";
import { until } from "../../test/doubles/door-at-work.js";
import { plane, type Plane, refusedAs, registered, sha256, station } from "../../test/doubles/station.js";

const signal = new AbortController().signal;

/** As rsync would through the door. */
function arrive(it: Plane & { readonly id: string }, partial: string, content: string): void {
  const dir = it.at.door.open_.get(it.id);
  assert.ok(dir, "the door is open");
  writeFileSync(join(dir, partial), content);
}

const partial = (n: number): string => `.log.0a1b2c3d-${String(n).padStart(16, "0")}.part`;
const file = (n: number, path: string, content: string) => ({ partial: partial(n), path, size: content.length, digest: sha256(content) });

test("a slot: files arrive, are proved, and get their names; twice is the same; what is wrong is told, and gets none", async (t) => {
  const at = await station(t);
  const it = await registered(t, at, "plane");
  const slot = await it.client.slot({}, signal);
  assert.match(slot.name, /^\d{8}T\d{6}Z-plane-[0-9a-f]{8}$/);
  assert.equal((await it.client.slot({}, signal)).id, slot.id, "the one that is open is given again");
  const one = file(1, "cam/DCIM/00000001.BIN", "hello");
  const state = async (given: ReturnType<typeof file>) => (await it.client.commit(slot.id, [given], signal)).files[0]?.state;

  assert.deepEqual(await it.client.announce(slot.id, one, signal), {});
  assert.equal(await state(one), "absent");
  arrive(it, partial(1), "hel");
  assert.deepEqual(await it.client.announce(slot.id, one, signal), { size: 3, kind: "file" });
  assert.equal(await state(one), "short");
  arrive(it, partial(1), "hello!");
  assert.equal(await state(one), "long");
  arrive(it, partial(1), "hullo");
  assert.equal(await state(one), "mismatch");
  arrive(it, partial(1), "hello");
  assert.equal(await state({ ...one, modifiedMs: 1_600_000_000_000 } as ReturnType<typeof file>), "published");
  const dir = dirname(at.door.open_.get(it.id) ?? "");
  assert.equal(readFileSync(join(dir, one.path), "utf8"), "hello");
  assert.equal(await state(one), "published", "twice gives the same answer");
  assert.deepEqual(readdirSync(join(dir, ".incoming")), []);

  const two = file(2, one.path, "other");
  arrive(it, partial(2), "other");
  assert.deepEqual((await it.client.commit(slot.id, [two], signal)).files[0], {
    path: one.path,
    state: "occupied",
    size: 5,
    digest: sha256("hello"),
  });
  assert.equal(readFileSync(join(dir, one.path), "utf8"), "hello");
  const longer = { ...file(3, one.path, "hello, world"), replaces: { size: 5, digest: sha256("hello") } };
  arrive(it, partial(3), "hello, world");
  assert.equal(await state(longer), "published");
  assert.equal(readFileSync(join(dir, one.path), "utf8"), "hello, world");
  await it.client.discard(slot.id, partial(2), signal);
  assert.deepEqual(readdirSync(join(dir, ".incoming")), []);
});

test("what the medium did not take is sent anew: asked once more, the system would say that all is well", async (t) => {
  const at = await station(t);
  const it = await registered(t, at, "plane");
  const slot = await it.client.slot({}, signal);
  const one = file(1, "a.bin", "abc");
  arrive(it, one.partial, "abc");
  const handle = await promises.open(".", "r");
  const prototype = Object.getPrototypeOf(handle) as promises.FileHandle;
  await handle.close();
  const sync = Reflect.get(prototype, "sync");
  let refused = 0;
  t.mock.method(prototype, "sync", async function (this: promises.FileHandle) {
    if (refused > 0 || (await this.stat()).size !== 3) return sync.call(this);
    refused += 1;
    throw Object.assign(new Error("EIO: i/o error"), { code: "EIO", syscall: "fsync" });
  });
  await assert.rejects(it.client.commit(slot.id, [one], signal));
  assert.equal(refused, 1);
  assert.deepEqual(await it.client.announce(slot.id, one, signal), {});
  assert.equal((await it.client.commit(slot.id, [one], signal)).files[0]?.state, "absent");
  arrive(it, one.partial, "abc");
  assert.equal((await it.client.commit(slot.id, [one], signal)).files[0]?.state, "published");
});

test("a power cut between the name and its record: the same commit says published", async (t) => {
  const at = await station(t);
  const it = await registered(t, at, "plane");
  const slot = await it.client.slot({}, signal);
  const dir = dirname(at.door.open_.get(it.id) ?? "");
  writeFileSync(join(dir, "a.bin"), "abc");
  assert.equal((await it.client.commit(slot.id, [file(1, "a.bin", "abc")], signal)).files[0]?.state, "published");
  assert.equal((await it.client.commit(slot.id, [file(1, "a.bin", "abd")], signal)).files[0]?.state, "absent");
});

test("the same slot goes on after a restart of the station; an unused one goes away, a begun one is closed and can be asked for again", async (t) => {
  let at = await station(t);
  const { signer, id } = await registered(t, at, "plane");
  let it = { ...(await plane(t, at, signer)), id };
  const slot = await it.client.slot({}, signal);
  arrive(it, partial(1), "half of ");
  at = await at.restarted();
  it = { ...(await plane(t, at, signer)), id };
  assert.equal((await it.client.slot({}, signal)).id, slot.id);
  const whole = file(1, "a.bin", "half of it");
  assert.equal((await it.client.announce(slot.id, whole, signal)).size, 8);

  at.clock.advance(599_000);
  await at.slots.tick();
  assert.ok(at.door.open_.has(id));
  at.door.busy.add(id);
  at.clock.advance(599_000);
  await at.slots.tick();
  assert.ok(at.door.open_.has(id), "what is used is not closed");
  at.door.busy.delete(id);
  at.clock.advance(601_000);
  await at.slots.tick();
  assert.ok(!at.door.open_.has(id));
  await assert.rejects(it.client.announce(slot.id, whole, signal), refusedAs("slot-closed"));
  const next = await it.client.slot({}, signal);
  assert.notEqual(next.id, slot.id);
  const before = await it.client.slot({ slot: slot.id }, signal);
  assert.deepEqual([before.id, before.name], [slot.id, slot.name], "the unused one made way");
  assert.equal((await it.client.announce(slot.id, whole, signal)).size, 8);
  arrive(it, partial(1), "half of it");
  assert.equal((await it.client.commit(slot.id, [whole], signal)).files[0]?.state, "published");
  at.clock.advance(601_000);
  await at.slots.tick();
  const dirs = readdirSync(dirname(dirname(join(at.root, readdirSync(at.root)[0] ?? "", id, slot.name, "x"))));
  assert.deepEqual(dirs, [slot.name], "nothing is left of the unused one");
  assert.deepEqual(readdirSync(join(at.root, readdirSync(at.root)[0] ?? "", id, slot.name)), ["a.bin"]);
});

test("a vehicle's next flight gets a slot of its own, though one is open; what was begun in that goes on in it", async (t) => {
  const at = await station(t);
  const it = await registered(t, at, "plane");
  const first = await it.client.slot({ fresh: true }, signal);
  await it.client.announce(first.id, { partial: partial(1), path: "log", size: 6 }, signal);
  arrive(it, partial(1), "one");
  const second = await it.client.slot({ fresh: true }, signal);
  assert.notEqual(second.id, first.id);
  assert.equal((await it.client.slot({ slot: second.id, fresh: true }, signal)).id, second.id);
  await assert.rejects(it.client.announce(first.id, { partial: partial(1), path: "log", size: 6 }, signal), refusedAs("slot-closed"));
  assert.equal((await it.client.slot({ slot: first.id, fresh: true }, signal)).id, first.id);
  assert.deepEqual(await it.client.announce(first.id, { partial: partial(1), path: "log", size: 6 }, signal), { kind: "file", size: 3 });
  // The second was never used: it went away.
  const third = await it.client.slot({ slot: second.id, fresh: true }, signal);
  assert.ok(![first.id, second.id].includes(third.id));
});

test("a slot whose directory is moved or removed here: that is told once, and another is given, open or closed, also after a restart", async (t) => {
  let away = false;
  const free = () => (away ? Promise.reject(new Error("not mounted")) : Promise.resolve(2 ** 40));
  let at = await station(t, { slots: { free } });
  const { signer, id } = await registered(t, at, "plane");
  let it = { ...(await plane(t, at, signer)), id };
  const dirOf = (name: string) => join(at.root, readdirSync(at.root)[0] ?? "", id, name);
  const told = () => at.said.filter((line) => line.includes("moved or removed"));
  const send = async (slot: { id: string }, n: number) => {
    const one = file(n, `${n}.bin`, "hello");
    await it.client.announce(slot.id, one, signal);
    arrive(it, partial(n), "hello");
    assert.equal((await it.client.commit(slot.id, [one], signal)).files[0]?.state, "published");
  };
  const first = await it.client.slot({}, signal);
  await send(first, 1);
  // A disk that is not mounted shows an empty mount point.
  away = true;
  renameSync(dirOf(first.name), join(at.root, "..", "kept"));
  await at.slots.sync();
  assert.deepEqual(told(), []);
  away = false;
  await assert.rejects(it.client.announce(first.id, file(2, "2.bin", "hello"), signal), refusedAs("slot-closed"));
  await at.slots.sync();
  assert.equal(told().length, 1, told().join());
  assert.ok(told()[0]?.includes(first.name) && !at.door.open_.has(id));
  const second = await it.client.slot({ slot: first.id, fresh: true }, signal);
  assert.notEqual(second.id, first.id);
  await send(second, 2);
  // Only what it writes in: it goes on.
  rmSync(join(dirOf(second.name), ".incoming"), { recursive: true });
  await send(second, 3);

  // Nobody asks.
  rmSync(dirOf(second.name), { recursive: true });
  await at.slots.sync();
  assert.equal(told().length, 2);
  assert.ok(!at.door.open_.has(id));

  const third = await it.client.slot({ slot: second.id, fresh: true }, signal);
  await send(third, 4);
  rmSync(dirOf(third.name), { recursive: true });
  at = await at.restarted();
  it = { ...(await plane(t, at, signer)), id };
  assert.equal(told().length, 1);
  const fourth = await it.client.slot({ slot: third.id, fresh: true }, signal);
  assert.notEqual(fourth.id, third.id);
  await send(fourth, 5);

  at.clock.advance(601_000);
  await at.slots.tick();
  renameSync(dirOf(fourth.name), join(at.root, "..", "kept too"));
  const fifth = await it.client.slot({ slot: fourth.id, fresh: true }, signal);
  assert.notEqual(fifth.id, fourth.id);
  assert.ok(!existsSync(dirOf(fourth.name)), "it does not begin anew under that name");
});

test("a slot that is in use is not taken away from under it", async (t) => {
  const at = await station(t);
  const it = await registered(t, at, "plane");
  const first = await it.client.slot({}, signal);
  arrive(it, partial(1), "x");
  at.clock.advance(601_000);
  await at.slots.tick();
  const second = await it.client.slot({}, signal);
  at.door.busy.add(it.id);
  for (const asked of [{ slot: first.id }, { fresh: true }]) await assert.rejects(it.client.slot(asked, signal), refusedAs("slot-busy"));
  assert.equal((await it.client.slot({ slot: second.id }, signal)).id, second.id);
  at.door.busy.delete(it.id);
  assert.equal((await it.client.slot({ slot: first.id }, signal)).id, first.id);
});

test("a vehicle's slot is no other's, and nothing leads out of it", async (t) => {
  const at = await station(t);
  const [a, b] = [await registered(t, at, "a"), await registered(t, at, "b")];
  const [ofA, ofB] = [await a.client.slot({}, signal), await b.client.slot({}, signal)];
  arrive(b, partial(1), "secret");
  const stolen = file(1, "x.bin", "secret");
  await assert.rejects(a.client.commit(ofB.id, [stolen], signal), refusedAs("slot-closed"));
  await assert.rejects(a.client.announce(ofB.id, stolen, signal), refusedAs("slot-closed"));
  await assert.rejects(a.client.discard(ofB.id, partial(1), signal), refusedAs("slot-closed"));
  assert.notEqual((await a.client.slot({ slot: ofB.id }, signal)).id, ofB.id, "asked for by its id it is not given");

  for (const path of ["../x", "/etc/x", "a/../../x", ".incoming/x", "", ".", "..", "a//b", "a\0b", "a/./b"]) {
    arrive(a, partial(2), "x");
    await assert.rejects(a.client.commit(ofA.id, [file(2, path, "x")], signal), refusedAs("bad-request"), path);
  }
  for (const odd of ["../x.part", ".a/../x.part", "x", ".part", ".x/y.part", ""])
    await assert.rejects(a.client.commit(ofA.id, [{ ...file(2, "x", "x"), partial: odd }], signal), refusedAs("bad-request"), odd);
  // What rsync can be made to put there.
  const incoming = at.door.open_.get(a.id) ?? "";
  const outside = join(at.root, "outside");
  writeFileSync(outside, "outside");
  symlinkSync(outside, join(incoming, partial(3)));
  linkSync(outside, join(incoming, partial(4)));
  mkdirSync(join(incoming, partial(5)));
  for (const n of [3, 4, 5]) assert.equal((await a.client.commit(ofA.id, [file(n, `y${n}`, "outside")], signal)).files[0]?.state, "absent");
  symlinkSync(dirname(outside), join(dirname(incoming), "link"));
  arrive(a, partial(6), "z");
  await a.client.commit(ofA.id, [file(6, "link/z", "z")], signal).catch(() => undefined);
  assert.equal(existsSync(join(dirname(outside), "z")), false);
  assert.equal(readFileSync(outside, "utf8"), "outside");
});

test("quotas, and the space on the disk, refuse before anything is sent; who sends more than announced is stopped", async (t) => {
  const at = await station(t, { slots: { vehicleBytes: 100, ownerBytes: 150 } });
  const [a, b] = [await registered(t, at, "a"), await registered(t, at, "b")];
  const [ofA, ofB] = [await a.client.slot({}, signal), await b.client.slot({}, signal)];
  const of = (n: number, size: number) => ({ partial: partial(n), path: `f${n}`, size });
  assert.equal((await a.client.vehicle(signal)).roomBytes, 100);
  await assert.rejects(a.client.announce(ofA.id, of(1, 101), signal), (error) => refusedAs("quota")(error) && isFault(error, "full"));
  await a.client.announce(ofA.id, of(1, 90), signal);
  await a.client.announce(ofA.id, of(1, 90), signal);
  await assert.rejects(a.client.announce(ofA.id, of(2, 20), signal), refusedAs("quota"), "what was announced counts");
  await assert.rejects(b.client.announce(ofB.id, of(1, 70), signal), refusedAs("quota"), "and for its owner");
  assert.equal((await b.client.vehicle(signal)).roomBytes, 60);
  await a.client.discard(ofA.id, partial(1), signal);
  await b.client.announce(ofB.id, of(1, 70), signal);
  await at.order("quota", a.id, "1kB");
  await at.order("quota", "pilot@example.org", "1MB");
  await a.client.announce(ofA.id, of(2, 500), signal);

  const full = await station(t, { slots: { keepFreeBytes: 2 ** 60 } });
  const c = await registered(t, full, "c");
  const ofC = await c.client.slot({}, signal);
  await assert.rejects(c.client.announce(ofC.id, of(1, 1), signal), (error) => refusedAs("full")(error) && isFault(error, "full"));
  assert.equal((await c.client.vehicle(signal)).roomBytes, 0);

  // A name is bytes, and need be no text.
  const junk = Buffer.from(`${at.door.open_.get(b.id) ?? ""}/junk\xff`, "latin1");
  writeFileSync(junk, Buffer.alloc(3 * 2 ** 20));
  at.door.busy.add(b.id);
  await at.slots.tick();
  assert.ok(!at.door.open_.has(b.id));
  assert.ok(at.said.some((line) => /sent more than it announced/.test(line)));
  assert.deepEqual(
    readdirSync(join(at.root, readdirSync(at.root)[0] ?? "", b.id)),
    [],
    "what was not announced is removed, and the slot with it",
  );
});

test("what waits in closed slots to be finished counts for the quotas, and goes on; what somebody removed there does not", async (t) => {
  const at = await station(t, { slots: { vehicleBytes: 10, ownerBytes: 15 } });
  const [it, other] = [await registered(t, at, "a"), await registered(t, at, "b")];
  const first = await it.client.slot({}, signal);
  await it.client.announce(first.id, file(1, "a", "12345678"), signal);
  arrive(it, partial(1), "1234567");
  const closed = at.door.open_.get(it.id) ?? "";
  const second = await it.client.slot({ fresh: true }, signal);
  await assert.rejects(
    it.client.announce(second.id, file(2, "b", "12345678"), signal),
    (error) => refusedAs("quota")(error) && /has 7 B of 10 B here \(7 B of it wait in closed slots to be finished\)/.test(String(error)),
  );
  assert.equal((await it.client.vehicle(signal)).roomBytes, 3);
  const ofOther = await other.client.slot({}, signal);
  await assert.rejects(other.client.announce(ofOther.id, file(3, "c", "123456789"), signal), refusedAs("quota"));
  // The one that was begun goes on.
  await it.client.slot({ slot: first.id, fresh: true }, signal);
  assert.equal((await it.client.announce(first.id, file(1, "a", "12345678"), signal)).size, 7);
  const third = await it.client.slot({ fresh: true }, signal);
  await assert.rejects(it.client.announce(third.id, file(2, "b", "12345678"), signal), refusedAs("quota"));
  rmSync(join(closed, partial(1)));
  at.clock.advance(60_000);
  await it.client.announce(third.id, file(2, "b", "12345678"), signal);
});

test("what was taken out of its slot (a route passes it on, somebody removes it) counts for no quota", async (t) => {
  const at = await station(t, { slots: { vehicleBytes: 10, ownerBytes: 15 } });
  const it = await registered(t, at, "a");
  const slots = [await it.client.slot({}, signal)];
  const [closed, open] = [file(1, "cam/a", "1234"), file(2, "cam/b", "123456")];
  const send = async (of: typeof closed, content: string) => {
    await it.client.announce(slots.at(-1)?.id ?? "", of, signal);
    arrive(it, of.partial, content);
    assert.equal((await it.client.commit(slots.at(-1)?.id ?? "", [of], signal)).files[0]?.state, "published");
    return join(dirname(at.door.open_.get(it.id) ?? ""), of.path);
  };
  const first = await send(closed, "1234");
  slots.push(await it.client.slot({ fresh: true }, signal));
  const second = await send(open, "123456");
  const next = () => it.client.announce(slots.at(-1)?.id ?? "", file(3, "c", "123456789"), signal);
  await assert.rejects(next(), refusedAs("quota"));
  const kept = async (bytes: number) => {
    at.clock.advance(60_000);
    await until(`${bytes} bytes that are kept`, async () => {
      await at.slots.tick();
      return (await at.catalogue.used(it.id)).vehicle === bytes;
    });
  };
  rmSync(first);
  await kept(6);
  rmSync(dirname(dirname(first)), { recursive: true });
  renameSync(second, join(at.root, "b"));
  await kept(0);
  assert.equal((await it.client.vehicle(signal)).roomBytes, 10);
  assert.match((await at.order("list")).join("\n"), /"a" of pilot@example\.org {2}0 B/);
  await next();
  await it.client.discard(slots.at(-1)?.id ?? "", partial(3), signal);
  // The same once more, as of who never had the answer.
  await send(open, "123456");
  assert.equal((await at.catalogue.used(it.id)).vehicle, 6);
});

test("a slot that was moved away and is put back counts again; one whose disk is not mounted is not forgotten", async (t) => {
  let away = false;
  const free = () => (away ? Promise.reject(new Error("not mounted")) : Promise.resolve(2 ** 40));
  const at = await station(t, { slots: { free } });
  const it = await registered(t, at, "a");
  const send = async (slot: { readonly id: string }, n: number) => {
    const one = file(n, `cam/${n}`, "1234");
    await it.client.announce(slot.id, one, signal);
    arrive(it, one.partial, "1234");
    assert.equal((await it.client.commit(slot.id, [one], signal)).files[0]?.state, "published");
  };
  const kept = async (bytes: number) => {
    at.clock.advance(60_000);
    await until(`${bytes} bytes that are kept`, async () => {
      await at.slots.tick();
      return (await at.catalogue.used(it.id)).vehicle === bytes;
    });
  };
  const idles = async () => {
    at.clock.advance(601_000);
    await at.slots.tick();
    assert.ok(!at.door.open_.has(it.id));
  };
  const slot = await it.client.slot({}, signal);
  const dir = dirname(at.door.open_.get(it.id) ?? "");
  const elsewhere = join(at.root, "..", "elsewhere");
  await send(slot, 1);
  // Open as it is moved.
  renameSync(dir, elsewhere);
  await at.slots.sync();
  await kept(0);
  renameSync(elsewhere, dir);
  await kept(4);
  assert.equal((await it.client.slot({ slot: slot.id }, signal)).id, slot.id);

  // Closed as it is moved: it does not begin anew under its name.
  await idles();
  renameSync(dir, elsewhere);
  await kept(0);
  const other = await it.client.slot({ slot: slot.id }, signal);
  assert.notEqual(other.id, slot.id);
  renameSync(elsewhere, dir);
  await kept(4);

  await send(other, 2);
  away = true;
  renameSync(at.root, elsewhere);
  await idles();
  away = false;
  renameSync(elsewhere, at.root);
  await kept(8);
  assert.equal((await it.client.slot({ slot: other.id }, signal)).id, other.id);
});

test("a slot that was never used goes also where the station is killed as it closes it", async (t) => {
  let at = await station(t);
  const { signer, id } = await registered(t, at, "plane");
  const it = { ...(await plane(t, at, signer)), id };
  const slot = await it.client.slot({}, signal);
  const dir = dirname(at.door.open_.get(id) ?? "");
  const { catalogue } = at;
  const setSlot = catalogue.setSlot.bind(catalogue);
  Object.assign(catalogue, {
    setSlot: async (...given: Parameters<typeof setSlot>) => {
      await setSlot(...given);
      throw new Error("killed");
    },
  });
  at.clock.advance(601_000);
  await at.slots.tick();
  at = await at.restarted();
  at.clock.advance(601_000);
  await at.slots.tick();
  assert.deepEqual([existsSync(dir), await at.catalogue.slot(slot.id)], [false, undefined]);
});

test("of a slot that is closed all is passed on, and then its directory removed: it stays known, and goes on under its name", async (t) => {
  const at = await station(t);
  const it = await registered(t, at, "a");
  const slot = await it.client.slot({}, signal);
  const dir = dirname(at.door.open_.get(it.id) ?? "");
  const one = file(1, "cam/1", "1234");
  const send = async () => {
    await it.client.announce(slot.id, one, signal);
    arrive(it, one.partial, "1234");
    assert.equal((await it.client.commit(slot.id, [one], signal)).files[0]?.state, "published");
  };
  await send();
  await it.client.slot({ fresh: true }, signal);
  const looked = async (state: string) => {
    at.clock.advance(60_000);
    await until(`a slot that is ${state}`, async () => {
      await at.slots.tick();
      return (await at.catalogue.slot(slot.id))?.state === state;
    });
  };
  renameSync(join(dir, one.path), join(at.root, "passed on"));
  await looked("emptied");
  // As from a backup, and away again.
  renameSync(join(at.root, "passed on"), join(dir, one.path));
  await looked("closed");
  rmSync(join(dir, one.path));
  await looked("emptied");
  rmSync(dir, { recursive: true });
  // The answer was lost: it asks once more.
  assert.deepEqual(await it.client.slot({ slot: slot.id, fresh: true }, signal).then(({ id, name }) => [id, name]), [slot.id, slot.name]);
  assert.equal((await it.client.commit(slot.id, [one], signal)).files[0]?.state, "published");
  assert.equal((await it.client.commit(slot.id, [{ ...one, digest: sha256("4321") }], signal)).files[0]?.state, "absent");
  assert.deepEqual([existsSync(join(dir, one.path)), (await at.catalogue.used(it.id)).vehicle], [false, 0]);
  // Or it sends it all the same.
  await send();
  assert.ok(existsSync(join(dir, one.path)));
});

test("what a vehicle does to its slot keeps no other out: modes, and directories full of what was never announced", async (t) => {
  const at = await station(t);
  const [bad, good] = [await registered(t, at, "bad"), await registered(t, at, "good", "good@example.org")];
  const [ofBad, ofGood] = [await bad.client.slot({}, signal), await good.client.slot({}, signal)];
  const incoming = at.door.open_.get(bad.id) ?? "";
  mkdirSync(join(incoming, "d"));
  writeFileSync(join(incoming, "d", "big"), Buffer.alloc(3 * 2 ** 20));
  chmodSync(join(incoming, "d"), 0);
  arrive(bad, partial(1), "x");
  chmodSync(join(incoming, partial(1)), 0);
  chmodSync(incoming, 0);
  await good.client.vehicle(signal);
  await good.client.announce(ofGood.id, file(1, "a", "abc"), signal);
  for (const [it, mode] of [
    [incoming, 0o750],
    [join(incoming, "d"), 0o750],
  ] as const)
    assert.equal(statSync(it).mode & 0o777, mode, it);
  assert.equal((await bad.client.commit(ofBad.id, [file(1, "x", "x")], signal)).files[0]?.state, "published");
  chmodSync(incoming, 0);
  at.door.busy.add(bad.id);
  await at.slots.tick();
  assert.ok(!at.door.open_.has(bad.id), "also below a directory it is noticed");
  assert.deepEqual(readdirSync(dirname(incoming)), ["x"]);
  await at.order("delete", "pilot@example.org");
  assert.equal(readdirSync(at.root).length, 1);
});

for (const [what, script, words] of [
  [
    "too deep for any path",
    `p=$1; for n in $(seq 11); do p=$p/$1; done; mkdir -p $p x/$p; head -c 3000000 /dev/zero >x/$p/big; chmod 0 x/$p; mv x $p/x`,
    /too deep to be looked at/,
  ],
  ["empty, in their thousands", `seq 1500 | xargs mkdir`, /\(1501 files and directories, not 1\)/],
] as const)
  test(`what was never announced is noticed and removed: directories, ${what}`, async (t) => {
    const at = await station(t);
    const it = await registered(t, at, "bad");
    const slot = await it.client.slot({}, signal);
    const incoming = at.door.open_.get(it.id) ?? "";
    const fill = () => execFileSync("sh", ["-ec", script, "sh", "d".repeat(200)], { cwd: incoming });
    fill();
    // What is announced stays, and a slot that is ended ends all the same.
    arrive(it, partial(1), "abc");
    assert.equal((await it.client.announce(slot.id, file(1, "a", "abc"), signal)).size, 3);
    await at.slots.tick();
    assert.ok(
      at.said.some((line) => /sent more than it announced/.test(line) && words.test(line)),
      at.said.join("\n"),
    );
    assert.deepEqual(readdirSync(incoming), [partial(1)]);
    assert.equal((await it.client.slot({ slot: slot.id }, signal)).id, slot.id);
    fill();
    await at.order("revoke", it.id);
    assert.notEqual((await at.catalogue.slot(slot.id))?.state, "open");
    assert.ok(!existsSync(incoming), "nobody would look at it any more");
    await at.order("delete", "pilot@example.org");
    assert.deepEqual(readdirSync(at.root), []);
  });

test("what a session still has open is not committed; what was changed by one at that moment has no name", async (t) => {
  const at = await station(t);
  const it = await registered(t, at, "bad");
  const slot = await it.client.slot({}, signal);
  const incoming = at.door.open_.get(it.id) ?? "";
  const [one, two] = [file(1, "a", "abc"), file(2, "b", "abc")];
  arrive(it, one.partial, "abc");
  arrive(it, two.partial, "abc");
  const commit = async (given: ReturnType<typeof file>) => (await it.client.commit(slot.id, [given], signal)).files[0]?.state;
  at.door.holds = () => true;
  assert.equal(await commit(one), "working");
  assert.deepEqual(readdirSync(dirname(incoming)), [".incoming"]);
  at.door.holds = () => false;
  assert.equal(await commit(one), "published");

  // Opened after it was looked at, and before it had its name.
  const name = join(dirname(incoming), "b");
  at.door.holds = () => {
    if (!existsSync(name)) return false;
    writeFileSync(name, "abcd");
    return true;
  };
  assert.equal(await commit(two), "mismatch");
  assert.deepEqual(readdirSync(dirname(incoming)).sort(), [".incoming", "a"]);
  assert.equal(at.door.open_.get(it.id), incoming, "its sessions were ended, and may come again");

  // Where another slot was opened meanwhile they come into that.
  const three = file(3, "c", "abc");
  arrive(it, three.partial, "abc");
  let fresh: Promise<unknown> | undefined;
  at.door.holds = () => {
    if (!existsSync(join(dirname(incoming), "c"))) return false;
    fresh ??= at.catalogue.vehicle(it.id).then((vehicle) => vehicle && at.slots.ask(vehicle, { fresh: true }));
    return true;
  };
  const shut = at.door.shut.bind(at.door);
  let slow = true;
  at.door.shut = async (vehicle) => {
    if (slow) {
      slow = false;
      await delay(500);
    }
    await shut(vehicle);
  };
  assert.equal(await commit(three), "published");
  const { name: now } = (await fresh) as { name: string };
  assert.equal(basename(dirname(at.door.open_.get(it.id) ?? "")), now);
});

test("partials that waited when the station was started anew are no excess; a registration that was removed is told", async (t) => {
  let at = await station(t);
  const { signer, id } = await registered(t, at, "plane");
  const first = await plane(t, at, signer);
  const slot = await first.client.slot({}, signal);
  writeFileSync(join(at.door.open_.get(id) ?? "", partial(7)), Buffer.alloc(3 * 2 ** 20));
  at = await at.restarted();
  const again = await plane(t, at, signer);
  at.door.busy.add(id);
  await at.slots.tick();
  assert.equal((await again.client.slot({}, signal)).id, slot.id);
  const waits = await plane(t, at);
  const { id: pending } = await waits.client.register({ email: "new@example.org" }, signal);
  assert.match((await at.order("delete", "new@example.org")).join(), /1 registration\(s\) that waited/);
  await assert.rejects(waits.client.registration(pending, signal), refusedAs("not-found"));
  await at.order("revoke", id);
  await assert.rejects(at.order("rotate", id, ...signer.publicKey.split(" ")), /is the key that was revoked/);
});

test("a kill between the link that gives a name and the removal of the partial: the same commit says published, and nothing is sent again", async (t) => {
  const at = await station(t);
  const it = await registered(t, at, "plane");
  const slot = await it.client.slot({}, signal);
  const incoming = at.door.open_.get(it.id) ?? "";
  const dir = dirname(incoming);
  for (const [n, again] of [
    [1, "commit"],
    [2, "announce"],
  ] as const) {
    const one = file(n, `${again}.bin`, "abc");
    arrive(it, partial(n), "abc");
    linkSync(join(incoming, partial(n)), join(dir, one.path));
    if (again === "announce") assert.deepEqual(await it.client.announce(slot.id, one, signal), {});
    assert.equal((await it.client.commit(slot.id, [one], signal)).files[0]?.state, "published");
    assert.equal(readFileSync(join(dir, one.path), "utf8"), "abc");
    assert.deepEqual(readdirSync(incoming), []);
  }
});
