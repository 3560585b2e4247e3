/**
 * A server that loses its power keeps the size of what it was sent, and loses content of it. What nobody knows the last of is looked at before it is continued or gets its
 * name; where the server was there all the time nothing is read back.
 */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test } from "node:test";
import { isFault } from "../../core/errors.js";
import type { Target } from "../../core/plugin.js";
import { FtpRelay } from "../faults/relay.js";
import { calm, expectFault, onceReached, until } from "./clause.js";
import { ftpDevice } from "./ftp-harness.js";
import { ftpSrv, ownPlain, proftpd, proftpdWith, pureFtpd, vsftpd, vsftpdWith, type FtpServerKind } from "./ftp-servers.js";
import { short } from "./readers.js";
import { isReceipt } from "./target-under-test.js";
import { bytes, upload, type TestUpload } from "./upload.js";

const content = bytes(6_000_000, 3);
const small = bytes(20_000, 4);
const lostBytes = 1000;

interface Scene {
  readonly target: Target;
  /** As after a start of the program. */
  readonly again: () => Target;
  readonly relay: FtpRelay;
  readonly dir: string;
  /** The power of the server went: of the partial zeros are left at the end. */
  readonly loses: (it: TestUpload) => Promise<void>;
}

async function scene(kind: FtpServerKind, work: (scene: Scene) => Promise<void>): Promise<void> {
  const server = await kind.start();
  const relay = await FtpRelay.start(server.port);
  const devices = [ftpDevice({ ...server, port: relay.port })];
  const again = (): Target => {
    const device = ftpDevice({ ...server, port: relay.port });
    devices.push(device);
    return device.target ?? assert.fail();
  };
  const loses = async ({ partialPath }: TestUpload): Promise<void> => {
    relay.cut();
    const path = join(server.dir, partialPath);
    const { size } = await fs.stat(path);
    const file = await fs.open(path, "r+");
    await file.write(Buffer.alloc(lostBytes), 0, lostBytes, size - lostBytes);
    await file.close();
  };
  try {
    await work({ target: devices[0]?.target ?? assert.fail(), again, relay, dir: server.dir, loses });
  } finally {
    for (const device of devices) await device.close();
    await relay.close();
    await server.stop();
  }
}

/** That a connection has gone is seen when it is used: then once more. */
async function overNew<T>(work: () => Promise<T>): Promise<T> {
  for (;;)
    try {
      return await onceReached(work);
    } catch (error) {
      if (!isFault(error, "transient") || !/: the connection was /.test(error.message)) throw error;
    }
}

const offset = (target: Target, it: TestUpload) => overNew(() => target.offset(it, calm()));

/** As core does, from the question on, until it has its receipt. How many bytes were there at first. */
async function delivered({ dir }: Scene, target: Target, it: TestUpload, whole: Buffer): Promise<number> {
  let first: number | undefined;
  for (;;)
    try {
      const held = await target.offset(it, calm());
      first ??= held;
      if (held < it.size) await target.write(it, held, calm(), () => undefined);
      assert.ok(isReceipt(await target.commit(it, calm())));
      assert.ok((await fs.readFile(join(dir, it.path))).equals(whole), `a receipt for another content: it went on at ${first}`);
      return first;
    } catch (error) {
      // That a connection has gone is seen when it is used.
      if (!isFault(error, "transient", "offline")) throw error;
    }
}

const half = (): TestUpload => upload("a.bin", content, { read: short(content, 3_000_000) });

for (const kind of [vsftpd, pureFtpd, proftpd, ftpSrv, ownPlain]) {
  const skip = kind.skip ?? false;

  for (const how of ["", " while the program does not run"])
    test(`${kind.name}: half of a file, and the server loses of it${how}: it is sent from its first byte`, { skip }, () =>
      scene(kind, async (at) => {
        const begun = half();
        await expectFault(
          at.target.write(begun, 0, calm(), () => undefined),
          "transient",
        );
        await at.loses(begun);
        const target = how === "" ? at.target : at.again();
        assert.equal(await delivered(at, target, upload("a.bin", content, { id: begun.id }), content), 0);
      }),
    );

  for (const [what, whole] of [
    ["a file", content],
    ["a small file", small],
  ] as const)
    test(`${kind.name}: all of ${what} is there without its name, and the server loses of it`, { skip }, () =>
      scene(kind, async (at) => {
        // ProFTPD keeps what it digested, by path and time.
        const it = upload("a.bin", whole, { modifiedMs: Date.UTC(2024, 4, 17) });
        await at.target.write(it, 0, calm(), () => undefined);
        await at.loses(it);
        // Without a question for its size, as right behind the write.
        await expectFault(
          overNew(() => at.target.commit(it, calm())),
          ["transient", "mismatch"],
        );
        await at.target.discard(it, calm());
        assert.equal(await delivered(at, at.target, it, whole), 0);
      }),
    );

  test(
    `${kind.name}: what we stopped ourselves, what a broken connection left whole: of the one nothing is read back, of the other 64 KiB`,
    { skip },
    () =>
      scene(kind, async (at) => {
        const begun = half();
        await expectFault(
          at.target.write(begun, 0, calm(), () => undefined),
          "transient",
        );
        const before = at.relay.downloadedBytes;
        assert.equal(await offset(at.target, begun), 3_000_000);
        assert.equal(at.relay.downloadedBytes - before, 0);
        at.relay.cut();
        assert.equal(await offset(at.target, begun), 3_000_000);
        assert.equal(at.relay.downloadedBytes - before, 65_536);
        assert.equal(await offset(at.target, begun), 3_000_000);
        assert.equal(await delivered(at, at.target, upload("a.bin", content, { id: begun.id }), content), 3_000_000);
        assert.equal(at.relay.downloadedBytes - before, 65_536);
      }),
  );
}

test("many small files together: once the connections are there, nothing of them is read back", { skip: vsftpd.skip ?? false }, () =>
  scene(vsftpd, async (at) => {
    const deliver = (name: string) =>
      Promise.all(
        Array.from({ length: 60 }, async (_, n) => {
          const it = upload(`${name}-${n}.bin`, small);
          await at.target.write(it, 0, calm(), () => undefined);
          assert.ok(isReceipt(await at.target.commit(it, calm())));
        }),
      );
    await deliver("first");
    const before = at.relay.downloadedBytes;
    await deliver("second");
    assert.equal(at.relay.downloadedBytes, before);
  }),
);

for (const [how, giveless] of [
  ["nothing back", vsftpdWith("download_enable=NO")],
  ["back only from the first byte on", proftpdWith("<Directory /*>", "AllowRetrieveRestart off", "</Directory>")],
] as const)
  test(`a server that gives ${how} is gone on with by its size`, { skip: giveless.skip ?? false }, () =>
    scene(giveless, async (at) => {
      const begun = half();
      await expectFault(
        at.target.write(begun, 0, calm(), () => undefined),
        "transient",
      );
      at.relay.cut();
      assert.equal(await delivered(at, at.again(), upload("a.bin", content, { id: begun.id }), content), 3_000_000);
    }),
  );

test("what was broken off in the middle by the link goes on where it was", { skip: vsftpd.skip ?? false }, () =>
  scene(vsftpd, async (at) => {
    const read = async function* (): AsyncGenerator<Buffer> {
      yield content.subarray(0, 3_000_000);
      await until("half of that to be on its way", () => Promise.resolve(at.relay.uploadedBytes > 1_500_000));
      at.relay.cut();
      yield content.subarray(3_000_000);
    };
    const begun = upload("a.bin", content, { read: () => Readable.from(read()) });
    await expectFault(
      at.target.write(begun, 0, calm(), () => undefined),
      ["transient", "offline"],
    );
    assert.ok((await delivered(at, at.target, upload("a.bin", content, { id: begun.id }), content)) > 0);
  }),
);
