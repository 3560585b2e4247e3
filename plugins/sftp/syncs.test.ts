/** When names are synced at a server, and how often; against a server that answers when it is told to. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isRefusal, Status } from "./faults.js";
import { Session } from "./session.js";
import { Cursor, type Part, Type, type Wire } from "./wire.js";

const [dir, name] = [Buffer.from("/srv/d"), Buffer.from("/srv/d/a")];

interface Given {
  /** How it refuses an OPEN, by path. */
  readonly opens?: Readonly<Record<string, number>>;
  readonly can?: boolean;
  /** What it answers to one sync after the other; then ok. */
  readonly syncs?: readonly number[];
}

/** What was asked of it, in words, and `answer`, which answers all that waits. */
async function server({ opens = {}, can = true, syncs = [] }: Given = {}) {
  const asked: string[] = [];
  const waiting: (() => void)[] = [];
  const words: Record<number, string> = { [Type.open]: "open", [Type.close]: "close", [Type.rename]: "rename", [Type.remove]: "remove" };
  const wire = {
    start: () => Promise.resolve(new Map(can ? [["fsync@openssh.com", "1"]] : [])),
    ask: (type: number, parts: readonly Part[]) => {
      const path = String(parts[0]);
      const count = asked.filter((it) => it === "sync").length;
      asked.push(type === Type.extended ? "sync" : `${words[type] ?? type} ${path}`);
      const refused = type === Type.open ? opens[path] : type === Type.extended ? syncs[count] : undefined;
      const ok = type === Type.open && refused === undefined;
      const body = new Cursor(ok ? Buffer.from("\0\0\0\x01h", "latin1") : Buffer.from([0, 0, 0, refused ?? Status.ok]));
      return new Promise((resolve) => waiting.push(() => resolve({ type: ok ? Type.handle : Type.status, body })));
    },
  } as unknown as Wire;
  const session = await Session.start(wire, "/srv");
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  const answer = async () => {
    for (const done of waiting.splice(0)) done();
    await settle();
  };
  const run = async <T>(work: Promise<T>): Promise<T> => {
    let over = false;
    void work.finally(() => (over = true)).catch(() => undefined);
    for (let turns = 0; !over && turns < 20; turns++) await answer();
    return work;
  };
  return { session, asked, answer, run };
}

test("one sync is for all names that were given before it is asked for; what comes later gets the next", async () => {
  const { session, asked, answer, run } = await server();
  const give = (to: string) => Promise.all([session.give(Buffer.from(`${to}.part`), Buffer.from(to)), session.syncs.dir(dir)]);
  const first = [give("/srv/d/a"), give("/srv/d/b")];
  assert.deepEqual(asked, ["rename /srv/d/a.part", "open /srv/d", "rename /srv/d/b.part"]);
  await answer();
  assert.deepEqual(asked.slice(3), ["sync", "close h"]);
  const later = give("/srv/d/c");
  assert.deepEqual(asked.slice(5), ["rename /srv/d/c.part", "open /srv/d"]);
  assert.deepEqual(
    (await run(Promise.all([...first, later]))).map(([, synced]) => synced),
    [true, true, true],
  );
  assert.equal(asked.filter((it) => it === "sync").length, 2);
});

test("what was removed is synced with it", async () => {
  const { session, asked, run } = await server();
  await run(session.removeDurable(name));
  assert.deepEqual(asked, ["remove /srv/d/a", "open /srv/d", "sync", "close h"]);
  // What one server does in order another may do at once: it is asked only when the name has gone.
  const second = await server();
  void second.session.removeDurable(name);
  assert.deepEqual(second.asked, ["remove /srv/d/a"]);
});

test("where the server opens no directory the file itself is synced, and it is not asked again; one that is not there may come, and one whose sync failed may be synced", async () => {
  const refused = await server({ opens: { "/srv/d": Status.permissionDenied } });
  await refused.run(refused.session.syncs.name(name));
  assert.deepEqual(refused.asked, ["open /srv/d/a", "sync", "close h", "open /srv/d"]);
  refused.asked.length = 0;
  await refused.run(refused.session.syncs.name(name));
  assert.deepEqual(refused.asked, ["open /srv/d/a", "sync", "close h"]);
  const absent = await server({ opens: { "/srv/d": Status.noSuchFile } });
  for (let i = 0; i < 2; i++) assert.equal(await absent.run(absent.session.syncs.dir(dir)), false);
  assert.equal(absent.asked.length, 2);
  const failed = await server({ syncs: [Status.failure] });
  assert.deepEqual([await failed.run(failed.session.syncs.dir(dir)), await failed.run(failed.session.syncs.dir(dir))], [false, true]);
});

test("a file that is not synced by who may only read it is opened for writing; where that fails, or its medium did, it is not durable: asked once more a system says that it is", async () => {
  const { session, asked, run } = await server({ syncs: [Status.permissionDenied] });
  await run(session.syncs.found(name, 0));
  assert.deepEqual(asked, ["open /srv/d/a", "sync", "close h", "open /srv/d/a", "sync", "close h", "open /srv/d", "sync", "close h"]);
  for (const syncs of [[Status.failure], [Status.noSpace], [Status.quota], [Status.permissionDenied, Status.permissionDenied]]) {
    const broken = await server({ syncs });
    await assert.rejects(broken.run(broken.session.syncs.found(name, 0)), (error) => isRefusal(error, ...syncs.slice(0, 1)));
    assert.equal(broken.asked.filter((it) => it === "sync").length, syncs.length);
  }
});

test("where a file system syncs no files that is no fault of the file", async () => {
  for (const status of [Status.badMessage, Status.unsupported]) {
    const { session, run } = await server({ syncs: [status, status, status] });
    await run(session.syncs.found(name, 0));
  }
});

test("a file that has been taken away meanwhile is left so; a server that cannot sync is asked nothing", async () => {
  const taken = await server({ opens: { "/srv/d/a": Status.noSuchFile } });
  await taken.run(taken.session.syncs.found(name, 0));
  assert.deepEqual(taken.asked, ["open /srv/d/a", "open /srv/d/a", "open /srv/d", "sync", "close h"]);
  const none = await server({ can: false });
  await none.run(none.session.syncs.name(name));
  assert.equal(await none.run(none.session.syncs.dir(dir)), false);
  assert.deepEqual(none.asked, []);
});
