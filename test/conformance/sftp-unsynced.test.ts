/** OpenSSH's server on a medium that does not take what was written: fsync says so once, and then that all is well. */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, promises as fs } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import ssh2, { type ServerChannel } from "ssh2";
import { isFault } from "../../core/errors.js";
import { goesOnAt } from "../../core/go-on.js";
import type { Device, Target } from "../../core/plugin.js";
import { calm, expectFault } from "./clause.js";
import { cut } from "./readers.js";
import { sftpDevice } from "./sftp-harness.js";
import { hostKeys } from "./sftp-scripted.js";
import { isReceipt, send } from "./target-under-test.js";
import { bytes, context, upload } from "./upload.js";

const program = ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"].find((it) =>
  existsSync(it),
);
const skip = program === undefined ? "OpenSSH's sftp-server is not installed" : false;
const [write, fsync, failure] = [6, "fsync@openssh.com", 4];

interface Under {
  readonly dir: string;
  readonly target: Target;
  /** Another device of the same server: what a start after a kill has. */
  readonly again: () => Target;
  /** So many syncs fail from now on, with that status. */
  failing: number;
  status: number;
  /** Bytes of files that came in. */
  came: number;
  /** Once so much came its SFTP server is killed. */
  dies: number;
  /** So it is when it is asked for a sync. */
  diesAtSync: boolean;
  /** It answers nothing to the wish for SFTP. */
  mute: boolean;
  /** So long a shell takes to begin. */
  shellMs: number;
}

async function under(t: TestContext, given: Readonly<Record<string, unknown>>): Promise<Under> {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-unsynced-"));
  const { privateKey, hostKey } = hostKeys();
  const children: ChildProcess[] = [];
  const clients = new Set<ssh2.Connection>();
  const server = new ssh2.Server({ hostKeys: [privateKey] }, (client) => {
    clients.add(client);
    client.on("error", () => undefined);
    client.on("authentication", (it) => (it.method === "password" ? it.accept() : it.reject(["password"])));
    client.on("session", (accept) => {
      const session = accept();
      session.on("exec", (accept, _reject, { command }) => {
        if (it.shellMs === Infinity) return;
        const channel = accept();
        const child = spawn("sh", ["-c", `sleep ${it.shellMs / 1000}; ${command}`], { stdio: ["pipe", "pipe", "ignore"] });
        children.push(child);
        channel.pipe(child.stdin);
        child.stdout.pipe(channel);
      });
      session.on("subsystem", (accept) => it.mute || serve(accept()));
    });
  });
  const serve = (channel: ServerChannel): void => {
    const child = spawn(program ?? "", [], { stdio: ["pipe", "pipe", "ignore"] });
    children.push(child);
    child.stdin.on("error", () => undefined);
    child.stdout.pipe(channel);
    let held = Buffer.alloc(0);
    channel.on("data", (bytes: Buffer) => {
      held = Buffer.concat([held, bytes]);
      while (held.length >= 4 && held.length >= 4 + held.readUInt32BE()) {
        const packet = held.subarray(0, 4 + held.readUInt32BE());
        held = held.subarray(packet.length);
        if (packet[4] === write) it.came += packet.length;
        const syncs = packet.subarray(13, 13 + fsync.length).toString() === fsync;
        if (it.came >= it.dies || (it.diesAtSync && syncs)) {
          it.dies = Infinity;
          it.diesAtSync = false;
          // What came before a sync is written first.
          setTimeout(() => child.kill("SIGKILL"), syncs ? 500 : 0);
          if (syncs) continue;
        }
        if (it.failing > 0 && syncs) {
          it.failing -= 1;
          const answer = Buffer.alloc(21);
          [17, 0, 0, it.status].forEach((value, i) => answer.writeUInt32BE(value, [0, 5, 5, 9][i]));
          answer[4] = 101;
          packet.copy(answer, 5, 5, 9);
          channel.write(answer);
        } else child.stdin.write(packet);
      }
    });
    channel.on("close", () => child.stdin.end());
  };
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const ctx = context();
  const devices: Device[] = [];
  const again = () => {
    const device = sftpDevice(port, { user: "u", password: "p", root: dir, hostKey, timeout: "20s", ...given }, ctx);
    devices.push(device);
    return device.target ?? assert.fail();
  };
  t.after(async () => {
    for (const device of devices) await device.close();
    for (const client of clients) client.end();
    for (const child of children) child.kill();
    await new Promise<void>((resolve) => server.close(() => resolve()));
    await fs.rm(dir, { recursive: true });
  });
  const it: Under = {
    dir,
    target: again(),
    again,
    failing: 0,
    status: failure,
    came: 0,
    dies: Infinity,
    diesAtSync: false,
    mute: false,
    shellMs: 0,
  };
  return it;
}

const nothing = (): void => undefined;

for (const verify of ["auto", "size"])
  for (const restarted of [false, true])
    test(
      `what the server could not sync is sent again, whatever it says of a second sync ("verify": "${verify}"${restarted ? ", after a kill" : ""})`,
      { skip },
      async (t) => {
        const it = await under(t, { verify });
        const content = bytes(500_000);
        const file = upload("a.bin", content);
        it.failing = 1;
        await expectFault(it.target.write(file, 0, calm(), nothing), "transient");
        it.came = 0;
        const target = restarted ? it.again() : it.target;
        await expectFault(target.commit(file, calm()), "conflict");
        assert.equal(await goesOnAt(target, file, calm()), 0);
        await target.write(file, 0, calm(), nothing);
        assert.ok(it.came >= content.length, `${it.came} bytes came a second time`);
        assert.ok(isReceipt(await target.commit(file, calm())));
        assert.deepEqual(await fs.readdir(it.dir), ["a.bin"]);
        assert.ok((await fs.readFile(join(it.dir, "a.bin"))).equals(content));
      },
    );

test("a medium that refuses each time gets the whole file more and more seldom", { skip }, async (t) => {
  const it = await under(t, {});
  const file = upload("a.bin", bytes(100_000));
  it.failing = 5;
  const waits: unknown[] = [];
  for (let n = 0; n < 5; n++)
    await assert.rejects(it.again().write(file, 0, calm(), nothing), (error) => {
      assert.ok(isFault(error, "transient"));
      return waits.push(error.retryAfterMs) > 0;
    });
  const minuteMs = 60_000;
  assert.deepEqual(waits, [undefined, 10 * minuteMs, 40 * minuteMs, 160 * minuteMs, 360 * minuteMs]);
  await it.target.write(file, 0, calm(), nothing);
  assert.ok(isReceipt(await it.target.commit(file, calm())));
});

test("so is what was found whole, and could not be synced before it gets its name", { skip }, async (t) => {
  const it = await under(t, {});
  const content = bytes(500_000);
  const file = upload("a.bin", content);
  await it.target.write(file, 0, calm(), nothing);
  const later = it.again();
  assert.equal(await goesOnAt(later, file, calm()), content.length);
  it.failing = 1;
  await expectFault(later.commit(file, calm()), "transient");
  await expectFault(later.commit(file, calm()), "conflict");
  assert.equal(await goesOnAt(later, file, calm()), 0);
  await later.write(file, 0, calm(), nothing);
  assert.ok(isReceipt(await later.commit(file, calm())));
  assert.deepEqual(await fs.readdir(it.dir), ["a.bin"]);
});

test(
  "a server that is known to digest is waited for where its shell begins slowly: by its size alone a file would be kept at its source for ever",
  { skip },
  async (t) => {
    const it = await under(t, { timeout: "2s" });
    assert.equal((await send(it.target, upload("a.bin", bytes(1000)))).proof, "digest");
    it.shellMs = 4000;
    assert.equal((await send(it.again(), upload("b.bin", bytes(1000)))).proof, "digest");
  },
);

test("a server that gives no answer at all to the wish for a command is one without digests", { skip }, async (t) => {
  const it = await under(t, { timeout: "2s" });
  it.shellMs = Infinity;
  const done = send(it.target, upload("a.bin", bytes(1000)));
  const late = new Promise<"nothing">((resolve) => setTimeout(() => resolve("nothing"), 20_000).unref());
  const first = await Promise.race([done, late]);
  assert.ok(first !== "nothing", "it is waited for without end");
  assert.equal(first.proof, "size");
});

test("one that gives no answer to the wish for SFTP is left after the time-out", { skip }, async (t) => {
  const it = await under(t, { timeout: "2s" });
  it.mute = true;
  const done = expectFault(it.target.offset(upload("a.bin", bytes(1000)), calm()), ["transient", "offline"]);
  const late = new Promise<"nothing">((resolve) => setTimeout(() => resolve("nothing"), 20_000).unref());
  assert.notEqual(await Promise.race([done, late]), "nothing", "it is waited for without end");
});

for (const restarted of [false, true])
  test(
    `a server that lost its power may have lost of what it had acknowledged, and keep its size: what is there is looked at before it is continued${restarted ? " (after a kill)" : ""}`,
    { skip },
    async (t) => {
      const it = await under(t, { verify: "size" });
      const content = bytes(12_000_000);
      const file = upload("a.bin", content);
      it.dies = 8_000_000;
      await expectFault(it.target.write(file, 0, calm(), nothing), "transient");
      const partial = join(it.dir, file.partialPath);
      const { size } = await fs.stat(partial);
      assert.ok(size > 5_000_000, `${size} bytes`);
      const lost = size - 1_000_000;
      const opened = await fs.open(partial, "r+");
      await opened.write(Buffer.alloc(size - lost), 0, size - lost, lost);
      await opened.close();
      const target = restarted ? it.again() : it.target;
      const offset = await goesOnAt(target, file, calm());
      assert.ok(offset > 2_000_000 && offset <= lost + 100, `it goes on at ${offset}, and what is behind ${lost} is lost`);
      await target.write(file, offset, calm(), nothing);
      assert.ok(isReceipt(await target.commit(file, calm())));
      assert.ok((await fs.readFile(join(it.dir, "a.bin"))).equals(content), "a receipt for another content");
    },
  );

test(
  "a partial that the server damaged once (its power went) costs the files after it no resume: this server continues what it has",
  { skip },
  async (t) => {
    const it = await under(t, { verify: "auto" });
    const content = bytes(6_000_000);
    const file = upload("a.bin", content, { read: cut(content, 3_000_000) });
    await expectFault(it.target.write(file, 0, calm(), nothing), "changed");
    const partial = await fs.open(join(it.dir, file.partialPath), "r+");
    await partial.write(Buffer.alloc(100_000), 0, 100_000, 0);
    await partial.close();
    const rest = { ...upload("a.bin", content, { id: file.id }), memo: file.memo };
    await it.target.write(rest, await goesOnAt(it.target, rest, calm()), calm(), nothing);
    await expectFault(it.target.commit(rest, calm()), ["conflict", "mismatch"]);
    assert.equal(it.target.features.resume, true, "every file is sent whole from now on");
  },
);

test("a file system that syncs no files (OpenSSH has BAD_MESSAGE for EINVAL) gets them all the same", { skip }, async (t) => {
  const it = await under(t, {});
  [it.failing, it.status] = [Infinity, 5];
  for (const name of ["a.bin", "b.bin"]) assert.ok(await send(it.target, upload(name, bytes(500_000))));
  assert.deepEqual((await fs.readdir(it.dir)).sort(), ["a.bin", "b.bin"]);
});

for (const restarted of [false, true])
  test(
    `a server that lost its power while it synced what was whole may have lost of it: that is looked at before it gets its name${restarted ? " (after a kill)" : ""}`,
    { skip },
    async (t) => {
      const it = await under(t, { verify: "size" });
      const content = bytes(4_000_000);
      const file = upload("a.bin", content);
      it.diesAtSync = true;
      await expectFault(it.target.write(file, 0, calm(), nothing), "transient");
      const partial = join(it.dir, file.partialPath);
      assert.equal((await fs.stat(partial)).size, content.length);
      const opened = await fs.open(partial, "r+");
      await opened.write(Buffer.alloc(1_000_000), 0, 1_000_000, 3_000_000);
      await opened.close();
      const target = restarted ? it.again() : it.target;
      const offset = await goesOnAt(target, file, calm());
      if (offset < file.size) await target.write(file, offset, calm(), nothing);
      assert.ok(isReceipt(await target.commit(file, calm())));
      assert.ok((await fs.readFile(join(it.dir, "a.bin"))).equals(content), "a receipt for another content");
    },
  );

test("what was looked at, and is to be continued when the connection breaks once more, is looked at once more", { skip }, async (t) => {
  const it = await under(t, { verify: "size" });
  const content = bytes(12_000_000);
  const file = upload("a.bin", content);
  it.dies = 8_000_000;
  await expectFault(it.target.write(file, 0, calm(), nothing), "transient");
  const held = await goesOnAt(it.target, file, calm());
  assert.ok(held > 5_000_000);
  // With the next request.
  it.dies = it.came;
  await expectFault(it.target.write(file, held, calm(), nothing), ["transient", "offline"]);
  const partial = join(it.dir, file.partialPath);
  const { size } = await fs.stat(partial);
  const opened = await fs.open(partial, "r+");
  await opened.write(Buffer.alloc(1_000_000), 0, 1_000_000, size - 1_000_000);
  await opened.close();
  const offset = await goesOnAt(it.target, file, calm());
  await it.target.write(file, offset, calm(), nothing);
  assert.ok(isReceipt(await it.target.commit(file, calm())));
  assert.ok((await fs.readFile(join(it.dir, "a.bin"))).equals(content), `a receipt for another content: it went on at ${offset}`);
});
