/** What is asked of a server, without one. */
import assert from "node:assert/strict";
import { test } from "node:test";
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

test("a name is given in one request only by OpenSSH's own server, once a hard link was seen there", async () => {
  const ok = Buffer.alloc(4);
  const attributes = Buffer.from("\0\0\0\x01\0\0\0\0\0\0\0\x05", "latin1");
  const gives = async (software: string, extensions: readonly string[]): Promise<boolean> => {
    const wire = {
      start: () => Promise.resolve(new Map(extensions.map((it) => [it, "1"]))),
      ask: (type: number) =>
        Promise.resolve(
          type === Type.lstat ? { type: Type.attrs, body: new Cursor(attributes) } : { type: Type.status, body: new Cursor(ok) },
        ),
    } as unknown as Wire;
    const session = await Session.start(wire, "/srv", software);
    assert.equal(session.gives, false, "before anything was seen");
    assert.equal(await session.publish(Buffer.from("/srv/.a.part"), Buffer.from("/srv/a")), true);
    return session.gives;
  };
  const theirs = ["hardlink@openssh.com", "fsync@openssh.com", "lsetstat@openssh.com", "posix-rename@openssh.com"];
  assert.equal(await gives("OpenSSH_9.2p1", theirs), true);
  assert.equal(await gives("SFTPGo_2.5.6", theirs), false, "another program");
  assert.equal(await gives("OpenSSH_9.2p1", ["hardlink@openssh.com", "posix-rename@openssh.com"]), false, "another SFTP server behind it");
});
