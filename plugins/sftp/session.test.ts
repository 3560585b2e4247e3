/** What is asked of a server, without one. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Status } from "./faults.js";
import { Session } from "./session.js";
import { Cursor, type Part, Type, type Wire } from "./wire.js";

test("a time that version 3 cannot tell becomes the nearest that it can", async () => {
  const asked: (readonly Part[])[] = [];
  const wire = {
    start: () => Promise.resolve(new Map()),
    ask: (_type: number, parts: readonly Part[]) => {
      asked.push(parts);
      return Promise.resolve({ type: Type.status, body: new Cursor(Buffer.alloc(4)) });
    },
  } as unknown as Wire;
  const session = await Session.start(wire, "/srv");
  for (const at of [Date.UTC(2150, 0), Date.UTC(2026, 0), Date.UTC(1950, 0)]) await session.setTime(Buffer.from("/srv/x"), at);
  assert.deepEqual(
    asked.map((parts) => parts[3]),
    [2 ** 32 - 1, Date.UTC(2026, 0) / 1000, 0],
  );
});

test("of a server that answers in another order nothing is left out of a list", async () => {
  const name = Buffer.from("\0\0\0\x01\0\0\0\x01a\0\0\0\0\0\0\0\0", "latin1");
  const [eof, ok] = [Buffer.from([0, 0, 0, 1]), Buffer.alloc(4)];
  const asked: number[] = [];
  const wire = {
    start: () => Promise.resolve(new Map()),
    ask: (type: number) => {
      asked.push(type);
      if (type === Type.opendir) return Promise.resolve({ type: Type.handle, body: new Cursor(Buffer.from("\0\0\0\x01h", "latin1")) });
      if (type !== Type.readdir) return Promise.resolve({ type: Type.status, body: new Cursor(ok) });
      const second = asked.filter((it) => it === Type.readdir).length % 2 === 0;
      return Promise.resolve(second ? { type: Type.name, body: new Cursor(name) } : { type: Type.status, body: new Cursor(eof) });
    },
  } as unknown as Wire;
  const session = await Session.start(wire, "/srv");
  assert.deepEqual(
    (await session.list(Buffer.from("/srv"))).map((it) => it.name.toString()),
    ["a"],
  );
  assert.deepEqual(asked, [Type.opendir, Type.readdir, Type.readdir, Type.close]);
});

test("what nobody waits for is no load: no other login is made beside it", async () => {
  let waiting = 0;
  let closed: (answer: unknown) => void = () => undefined;
  const status = (code: number) => ({ type: Type.status, body: new Cursor(Buffer.from([0, 0, 0, code])) });
  const wire = {
    get load() {
      return waiting;
    },
    start: () => Promise.resolve(new Map()),
    ask: (type: number) => {
      if (type === Type.opendir) return Promise.resolve({ type: Type.handle, body: new Cursor(Buffer.from("\0\0\0\x01h", "latin1")) });
      if (type !== Type.close) return Promise.resolve(status(Status.eof));
      waiting += 1;
      return new Promise((resolve) => (closed = resolve)).finally(() => (waiting -= 1));
    },
  } as unknown as Wire;
  const session = await Session.start(wire, "/srv");
  await session.list(Buffer.from("/srv"));
  assert.deepEqual([waiting, session.load], [1, 0]);
  closed(status(Status.ok));
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([waiting, session.load], [0, 0]);
});

/** A server that says yes to all, but for what `rename` answers; and what was renamed. */
async function linking(software: string, extensions: readonly string[], rename: number) {
  const attributes = Buffer.from("\0\0\0\x01\0\0\0\0\0\0\0\x05", "latin1");
  const renamed: string[] = [];
  const wire = {
    start: () => Promise.resolve(new Map(extensions.map((it) => [it, "1"]))),
    ask: (type: number, parts: readonly Part[]) => {
      if (type === Type.lstat) return Promise.resolve({ type: Type.attrs, body: new Cursor(attributes) });
      if (type === Type.rename) renamed.push(parts.join(" "));
      return Promise.resolve({ type: Type.status, body: new Cursor(Buffer.from([0, 0, 0, type === Type.rename ? rename : 0])) });
    },
  } as unknown as Wire;
  return { session: await Session.start(wire, "/srv", software), renamed };
}

const ofOpenSsh = ["hardlink@openssh.com", "fsync@openssh.com", "lsetstat@openssh.com", "posix-rename@openssh.com"];

test("a name is given in one request only by OpenSSH's own server, once a hard link was seen there, and that RENAME refuses its name", async () => {
  const gives = async (software: string, extensions = ofOpenSsh, rename: number = Status.failure): Promise<boolean> => {
    const { session } = await linking(software, extensions, rename);
    assert.equal(session.gives(Buffer.from("/srv")), false, "before anything was seen");
    assert.equal(await session.publish(Buffer.from("/srv/.a.part"), Buffer.from("/srv/a")), true);
    return session.gives(Buffer.from("/srv"));
  };
  assert.equal(await gives("OpenSSH_9.2p1"), true);
  assert.equal(await gives("SFTPGo_2.5.6"), false, "another program");
  assert.equal(await gives("OpenSSH_9.2p1", ["hardlink@openssh.com", "posix-rename@openssh.com"]), false, "another SFTP server behind it");
  assert.equal(await gives("OpenSSH_9.2p1", ofOpenSsh, Status.ok), false, "one that goes over what is there");
  assert.equal(await gives("OpenSSH_9.2p1", ofOpenSsh, Status.permissionDenied), false, "one that allows no RENAME");
});

test("of another directory it has to be seen that files are linked there: a file system without links may be mounted", async () => {
  const { session, renamed } = await linking("OpenSSH_9.2p1", ofOpenSsh, Status.failure);
  const [here, below] = [Buffer.from("/srv"), Buffer.from("/srv/mounted")];
  await session.publish(Buffer.from("/srv/.a.part"), Buffer.from("/srv/a"));
  assert.deepEqual([session.gives(here), session.gives(below)], [true, false]);
  await session.publish(Buffer.from("/srv/mounted/.b.part"), Buffer.from("/srv/mounted/b"));
  assert.deepEqual([session.gives(here), session.gives(below)], [true, true]);
  assert.deepEqual(renamed, ["/srv/.a.part /srv/a"], "what RENAME says is asked once");
});
