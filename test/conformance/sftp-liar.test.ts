/** Servers that do not keep to what they say: sizes, reads, writes, listings; what of it is noticed, and as which fault. */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { test, type TestContext } from "node:test";
import { Fault } from "../../core/errors.js";
import type { Device, FileEntry, Memo, Source, Target } from "../../core/plugin.js";
import { pieceBytes } from "../../plugins/sftp/transfer.js";
import { calm, expectFault, onceReached, until } from "./clause.js";
import { cut } from "./readers.js";
import { sftpDevice } from "./sftp-harness.js";
import { scripted, STATUS_CODE, type Bent, type Scripted } from "./sftp-scripted.js";
import { isReceipt } from "./target-under-test.js";
import { bytes, chunks, context, memo, realClock, upload } from "./upload.js";

interface Under {
  readonly server: Scripted;
  readonly device: Device;
  readonly target: Target;
  readonly source: Source;
  /** Another device of the same server: what a start after a kill has. */
  readonly again: () => Device;
}

async function under(t: TestContext, bent: Bent, given: Readonly<Record<string, unknown>> = {}, clock = realClock()): Promise<Under> {
  const server = await scripted(bent);
  const ctx = context({ clock });
  const devices: Device[] = [];
  const again = () => {
    const device = sftpDevice(server.port, { user: "u", password: "p", root: "/", hostKey: server.hostKey, timeout: "20s", ...given }, ctx);
    devices.push(device);
    return device;
  };
  t.after(async () => {
    for (const device of devices) await device.close();
    await server.close();
  });
  const device = again();
  assert.ok(device.target !== undefined && device.source !== undefined);
  return { server, device, target: device.target, source: device.source, again };
}

async function list(source: Source): Promise<FileEntry[]> {
  const found: FileEntry[] = [];
  for await (const entry of source.list(calm())) found.push(entry);
  return found;
}

/** What a write that is refused from the fifth piece on leaves. */
const kept = 4 * pieceBytes;
const nothing = (): void => undefined;

test("an honest double: all arrives", async (t) => {
  const { server, target } = await under(t, {});
  const content = bytes(500_000);
  const it = upload("a.bin", content);
  await target.write(it, 0, calm(), nothing);
  assert.ok(isReceipt(await target.commit(it, calm())));
  assert.ok(server.files.get("/a.bin")?.equals(content));
  assert.equal(server.files.size, 1);
});

test("a shell that begins slowly holds up no listing; an upload waits until it is known whether the server digests", async (t) => {
  const shells: { write(text: string): unknown }[] = [];
  const { server, device, target, source } = await under(t, { shell: (channel) => void shells.push(channel) }, { timeout: "30s" });
  server.files.set("/there.bin", bytes(10));
  assert.deepEqual(
    (await list(source)).map(({ path }) => path),
    ["there.bin"],
  );
  assert.equal((await device.tree?.stat("there.bin", calm()))?.size, 10);
  const it = upload("a.bin", bytes(100));
  const written = target.write(it, 0, calm(), nothing);
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.deepEqual([...server.files.keys()], ["/there.bin"]);
  // It has no sha256sum.
  for (const shell of shells) shell.write("-\n");
  await written;
  assert.deepEqual(target.features.digests, []);
  const receipt = await target.commit(it, calm());
  assert.ok(isReceipt(receipt) && receipt.proof === "size");
});

test("the partial is told smaller than what was acknowledged: it is not published, and the rest is sent", async (t) => {
  const { server, target } = await under(t, { size: (path, size) => (path.endsWith(".part") ? Math.min(size, 100_000) : size) });
  const it = upload("a.bin", bytes(300_000));
  await target.write(it, 0, calm(), nothing);
  await expectFault(target.commit(it, calm()), "transient");
  assert.equal(server.files.has("/a.bin"), false);
});

test("the partial is told larger: conflict, and it is not published", async (t) => {
  const { server, target } = await under(t, { size: (_path, size) => size + 7 });
  const it = upload("a.bin", bytes(300_000));
  await target.write(it, 0, calm(), nothing);
  await expectFault(target.commit(it, calm()), "conflict");
  assert.equal(server.files.has("/a.bin"), false);
});

test("a size beyond every number is no size", async (t) => {
  const { server, source } = await under(t, { size: () => 2 ** 60 });
  server.files.set("/a.bin", bytes(10));
  await expectFault(list(source), "transient");
});

test("a file that is listed larger than it is: no whole stream", async (t) => {
  const { server, source } = await under(t, { size: (_path, size) => size + 1000 });
  server.files.set("/a.bin", bytes(100_000));
  const [entry] = await list(source);
  assert.ok(entry?.size === 101_000);
  await expectFault(source.open(entry, 0, calm()).then(buffer), "transient");
});

test("reads that give less than was asked for give the file all the same; more is a fault", async (t) => {
  let more = false;
  const content = bytes(200_000);
  const { server, source } = await under(t, {
    read: (sftp, id, at, length) => {
      sftp.data(id, more ? Buffer.alloc(length + 1) : content.subarray(at, at + Math.min(length, 1000)));
      return true;
    },
  });
  server.files.set("/a.bin", content);
  const [entry] = await list(source);
  assert.ok(entry !== undefined);
  assert.ok((await buffer(await source.open(entry, 5, calm()))).equals(content.subarray(5)));
  more = true;
  await expectFault(source.open(entry, 0, calm()).then(buffer), "transient");
});

test("names that lead out of a directory are no entries", async (t) => {
  let told = false;
  const { source } = await under(t, {
    list: (sftp, id) => {
      const attrs = { mode: 0o100644, uid: 0, gid: 0, size: 1, atime: 1, mtime: 1 } as never;
      if (told) sftp.status(id, STATUS_CODE.EOF);
      else
        sftp.name(
          id,
          ["..", ".", "../up", "a/b", "", "good"].map((filename) => ({ filename, longname: filename, attrs })),
        );
      told = true;
      return true;
    },
  });
  assert.deepEqual(
    (await list(source)).map(({ path }) => path),
    ["good"],
  );
});

test('an empty directory of a server that knows no "." in it is empty; one that may not be searched is not', async (t) => {
  let code: number = STATUS_CODE.FAILURE;
  const { source } = await under(t, {
    look: (sftp, id, path) => {
      if (!path.endsWith("/.")) return false;
      sftp.status(id, code);
      return true;
    },
  });
  for (code of [STATUS_CODE.FAILURE, STATUS_CODE.BAD_MESSAGE, STATUS_CODE.OP_UNSUPPORTED, STATUS_CODE.NO_SUCH_FILE])
    assert.deepEqual(await list(source), [], String(code));
  code = STATUS_CODE.PERMISSION_DENIED;
  await expectFault(list(source), "denied");
});

for (const [what, code, text, kind] of [
  ["no words", STATUS_CODE.FAILURE, "Failure", "transient"],
  ["words of a full disk", STATUS_CODE.FAILURE, "write: No space left on device", "full"],
  ["words of a quota", STATUS_CODE.FAILURE, "Disk quota exceeded", "full"],
  ["no permission", STATUS_CODE.PERMISSION_DENIED, "", "denied"],
] as const)
  test(`a write that is refused with ${what} is "${kind}", and what came before is kept`, async (t) => {
    const { target, again } = await under(t, {
      write: (sftp, id, _path, at) => {
        if (at < kept || well) return false;
        sftp.status(id, code, text);
        return true;
      },
    });
    let well = false;
    const content = bytes(400_000);
    const it = upload("a.bin", content);
    await expectFault(target.write(it, 0, calm(), nothing), kind);
    assert.equal(await target.offset(it, calm()), kept);
    well = true;
    const other = again().target ?? assert.fail();
    assert.equal(await other.offset(it, calm()), kept);
    await other.write(it, kept, calm(), nothing);
    assert.ok(isReceipt(await other.commit(it, calm())));
  });

test("after a kill: a gap near the end is found, and written again from there", async (t) => {
  const { server, target } = await under(t, {});
  const content = bytes(3_000_000);
  const it = upload("a.bin", content);
  const partial = Buffer.from(content.subarray(0, 2_500_000));
  // Written by many hands at once, and one of them was late.
  partial.fill(0, 2_000_000, 2_032_768);
  server.files.set(`/${it.partialPath}`, partial);
  const offset = await target.offset(it, calm());
  const zeros = content.subarray(2_000_000).findIndex((byte) => byte !== 0);
  assert.equal(offset, 2_000_000 + zeros);
  await target.write(it, offset, calm(), nothing);
  assert.ok(isReceipt(await target.commit(it, calm())));
  assert.ok(server.files.get("/a.bin")?.equals(content));
});

test("after a kill: another beginning is begun anew", async (t) => {
  const { server, target } = await under(t, {});
  const content = bytes(6_000_000);
  const it = upload("a.bin", content);
  const partial = Buffer.from(content.subarray(0, 5_000_000));
  partial.fill(0, 0, 1_000_000);
  server.files.set(`/${it.partialPath}`, partial);
  assert.equal(await target.offset(it, calm()), 0);
});

/** What is noted of an upload, as a kill leaves it: nothing more is noted then. */
function killable() {
  const kept = memo();
  let killed = false;
  const noted: Memo = { get: (key) => kept.get(key), set: (key, value) => (killed ? Promise.resolve() : kept.set(key, value)) };
  return { memo: noted, kill: () => void (killed = true), left: kept };
}

test("a write that went on after a break is killed: what was noted at the break is not all that is there", async (t) => {
  const { server, target, again } = await under(t, {});
  const content = bytes(6_000_000);
  const { memo, kill, left } = killable();
  const first = { ...upload("a.bin", content, { read: cut(content, 1_000_000) }), memo };
  await expectFault(target.write(first, 0, calm(), nothing), "changed");
  assert.equal(await target.offset(first, calm()), 1_000_000);
  const stopped = async function* () {
    yield* chunks(content.subarray(1_000_000, 5_000_000));
    kill();
    throw new Fault("changed", "killed");
  };
  const second = { ...upload("a.bin", content, { id: first.id, read: () => Readable.from(stopped()) }), memo };
  await expectFault(target.write(second, 1_000_000, calm(), nothing), "changed");
  const third = { ...upload("a.bin", content, { id: first.id }), memo: left };
  const held = server.files.get(`/${third.partialPath}`)?.length ?? 0;
  assert.ok(held > 4_900_000, `${held}`);
  const other = again().target ?? assert.fail();
  assert.equal(await other.offset(third, calm()), held);
});

for (const [lacks, what] of [
  [undefined, ""],
  [0, ", and a gap right behind that is found"],
  [-100_000, "; where the server has lost some of what was noted, that is found"],
] as const)
  test(`after a kill no more is read back than what came since it was noted${what}`, async (t) => {
    let [ahead, read, sure] = [0, 0, 0];
    const bent: Bent = {
      read: (_sftp, _id, _at, length) => {
        read += length;
        return false;
      },
    };
    const real = realClock();
    const { server, target, again } = await under(t, bent, {}, { ...real, monotonicMs: () => real.monotonicMs() + ahead });
    const content = bytes(6_000_000);
    const { memo, kill, left } = killable();
    const slow = async function* () {
      yield* chunks(content.subarray(0, 4_000_000));
      await until("most of it to be there, and answered", () => sure > 3_900_000);
      ahead = 6000;
      yield* chunks(content.subarray(4_000_000, 4_300_000));
      // On a busy machine something was noted before.
      await until("it to be noted", () => Number(memo.get("least") ?? 0) > 3_000_000);
      kill();
      throw new Fault("changed", "killed");
    };
    const first = { ...upload("a.bin", content, { read: () => Readable.from(slow()) }), memo };
    await expectFault(
      target.write(first, 0, calm(), (n) => void (sure += n)),
      "changed",
    );
    const partial = server.files.get(`/${first.partialPath}`) ?? assert.fail();
    const least = left.get("least") as number;
    assert.ok(least > 3_000_000 && least < partial.length, `${least}`);
    const same = lacks === undefined ? partial.length : least + lacks;
    if (lacks !== undefined) partial.fill(content.readUInt8(same) ^ 1, same, least + pieceBytes);
    const second = { ...upload("a.bin", content, { id: first.id }), memo: left };
    const other = again().target ?? assert.fail();
    assert.equal(await other.offset(second, calm()), same);
    // With samples of what is before.
    if (same >= least)
      assert.ok(read <= partial.length - least + 16 * 4096, `${read} bytes were read back of ${partial.length}, ${least} noted`);
    await other.write(second, same, calm(), nothing);
    assert.ok(isReceipt(await other.commit(second, calm())));
    assert.ok(server.files.get("/a.bin")?.equals(content));
  });

test("a server that loses the beginning of a file that is continued is found out, and gets whole files", async (t) => {
  const lose = { on: true };
  const { server, target, again } = await under(t, {
    write: (_sftp, _id, path, at) => {
      const file = server.files.get(path);
      if (lose.on && at === 1_000_000) file?.fill(0, 0, at);
      return false;
    },
  });
  const content = bytes(2_000_000);
  const first = upload("a.bin", content, { read: cut(content, 1_000_000) });
  await expectFault(target.write(first, 0, calm(), nothing), "changed");
  const it = { ...upload("a.bin", content, { id: first.id }), memo: first.memo };
  assert.equal(await target.offset(it, calm()), 1_000_000);
  await target.write(it, 1_000_000, calm(), nothing);
  assert.match(await expectFault(target.commit(it, calm()), "conflict"), /loses the beginning/);
  assert.equal(server.files.has("/a.bin"), false);
  assert.equal(target.features.resume, false);
  const later = again().target ?? assert.fail();
  assert.equal(later.features.resume, false, "it was forgotten");
  const anew = upload("a.bin", content);
  await later.write(anew, 0, calm(), nothing);
  assert.ok(isReceipt(await later.commit(anew, calm())));
  assert.ok(server.files.get("/a.bin")?.equals(content));
});

test("a server that goes silent in the middle is left after the time-out", async (t) => {
  const { target } = await under(t, { write: (_sftp, _id, _path, at) => at > 100_000 }, { timeout: "500ms" });
  const it = upload("a.bin", bytes(400_000));
  const write = () => onceReached(() => target.write(it, 0, calm(), nothing));
  assert.match(await expectFault(write(), "transient"), /no answer/);
});
