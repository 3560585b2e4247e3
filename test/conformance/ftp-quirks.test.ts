/**
 * What real servers do with offsets, as it was found (the table that the plugin "ftp" is built on): each cell is asked again, so that a new version
 * of a server that does otherwise is noticed; and each time the plugin meets the case, what is published is the file.
 */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { calm, expectFault } from "./clause.js";
import { ftpDevice } from "./ftp-harness.js";
import {
  ftpSrv,
  ownPlain,
  password,
  proftpd,
  proftpdWith,
  pureFtpd,
  pureFtpdWith,
  startOwn,
  vsftpd,
  type FtpServerKind,
  type FtpServerUnderTest,
} from "./ftp-servers.js";
import { RawFtp } from "./raw-ftp.js";
import { isReceipt } from "./target-under-test.js";
import { bytes, sha256, upload } from "./upload.js";

interface Quirks {
  /** What "0123456789" becomes: REST 10 + STOR "XY", REST 4 + STOR, REST 20 + STOR, REST 4 + APPE; or the refusal. */
  readonly atEnd: string;
  readonly inside: string;
  readonly beyond: string;
  readonly appe: string;
  readonly mlst: boolean;
  /** SIZE of an empty file. */
  readonly empty: string;
}

const whole = "0123456789XY";
const table: readonly (readonly [FtpServerKind, Quirks])[] = [
  [ownPlain, { atEnd: whole, inside: "554", beyond: "554", appe: "554", mlst: true, empty: "213 0" }],
  [vsftpd, { atEnd: whole, inside: "0123XY6789", beyond: `0123456789${"\0".repeat(10)}XY`, appe: whole, mlst: false, empty: "213 0" }],
  [proftpd, { atEnd: whole, inside: "0123XY6789", beyond: "554", appe: "0123XY6789", mlst: true, empty: "213 0" }],
  [pureFtpd, { atEnd: whole, inside: "0123XY", beyond: whole, appe: whole, mlst: true, empty: "213 0" }],
  // It begins a new file at the offset: what was before is zeros, with the right size.
  [
    ftpSrv,
    {
      atEnd: `${"\0".repeat(10)}XY`,
      inside: `${"\0".repeat(4)}XY`,
      beyond: `${"\0".repeat(20)}XY`,
      appe: whole,
      mlst: false,
      empty: "213 File status",
    },
  ],
];

for (const [kind, quirks] of table)
  describe(`${kind.name}: offsets and answers as they were found`, { skip: kind.skip ?? false }, () => {
    let server: FtpServerUnderTest;
    before(async () => {
      server = await kind.start();
    });
    after(() => server.stop());
    const put = async (name: string, content: string) => {
      await fs.writeFile(join(server.dir, name), content);
      const { uid, gid } = await fs.stat(server.dir);
      await fs.chown(join(server.dir, name), uid, gid);
    };
    test("RNTO over what is there replaces it", async () => {
      await put("from", "ours");
      await put("to", "theirs");
      const ftp = await RawFtp.login(server.port, server.user, server.password);
      assert.match(await ftp.ask("RNFR from"), /^350/);
      assert.match(await ftp.ask("RNTO to"), /^250/);
      assert.equal(await fs.readFile(join(server.dir, "to"), "utf8"), "ours");
      ftp.close();
    });

    /** What a file of ten digits becomes. */
    const becomes = async (rest: number, command: string): Promise<string> => {
      const name = `digits-${rest}-${command}`;
      await put(name, "0123456789");
      const ftp = await RawFtp.login(server.port, server.user, server.password);
      try {
        await ftp.ask("TYPE I");
        const asked = await ftp.ask(`REST ${rest}`);
        const said = /^[45]/.test(asked) ? asked : await ftp.store(`${command} ${name}`, Buffer.from("XY"));
        if (/^[45]/.test(said)) return said.slice(0, 3);
        return (await fs.readFile(join(server.dir, name))).toString("latin1");
      } finally {
        ftp.close();
      }
    };

    test("REST at the end, inside and beyond the end with STOR, and REST with APPE", async () => {
      assert.deepEqual(
        {
          atEnd: await becomes(10, "STOR"),
          inside: await becomes(4, "STOR"),
          beyond: await becomes(20, "STOR"),
          appe: await becomes(4, "APPE"),
        },
        { atEnd: quirks.atEnd, inside: quirks.inside, beyond: quirks.beyond, appe: quirks.appe },
      );
    });

    test("MLST in FEAT, and SIZE of an empty file", async () => {
      await put("empty", "");
      const ftp = await RawFtp.login(server.port, server.user, server.password);
      await ftp.ask("TYPE I");
      assert.deepEqual(
        { mlst: / MLST/.test(await ftp.ask("FEAT")), empty: await ftp.ask("SIZE empty") },
        { mlst: quirks.mlst, empty: quirks.empty },
      );
      ftp.close();
    });

    test("the plugin lists and stats an empty file, replaces nothing by RNTO, and goes on at exactly what is there", async () => {
      await put("empty", "");
      await put("taken.bin", "theirs");
      const device = ftpDevice(server);
      try {
        assert.equal((await device.source?.stat("empty", calm()))?.size, 0);
        const listed: string[] = [];
        for await (const { path, size } of device.source?.list(calm()) ?? []) listed.push(`${path} ${size}`);
        assert.ok(listed.includes("empty 0"), listed.join(", "));
        const target = device.target ?? assert.fail();
        const content = bytes(50_000, 5);
        const it = upload("taken.bin", content);
        // A beginning that another process left; the one of a longer file beside it stays as it is.
        await put(it.partialPath, "");
        await fs.writeFile(join(server.dir, it.partialPath), content.subarray(0, 20_000));
        assert.equal(await target.offset(it, calm()), 20_000);
        await target.write(it, 20_000, calm(), () => undefined);
        const there = await target.commit(it, calm());
        assert.ok("occupied" in there);
        assert.equal(await fs.readFile(join(server.dir, "taken.bin"), "utf8"), "theirs");
        const other = { ...it, path: "free.bin" };
        assert.ok(isReceipt(await target.commit(other, calm())));
        assert.ok((await fs.readFile(join(server.dir, "free.bin"))).equals(content));
      } finally {
        await device.close();
      }
    });
  });

for (const [kind] of table)
  test(
    `${kind.name}: a directory that has the file's name is told as what is there, and stays`,
    { skip: kind.skip ?? false },
    async (t) => {
      const server = await kind.start();
      t.after(() => server.stop());
      const device = ftpDevice(server);
      t.after(() => device.close());
      const { target } = device;
      await fs.mkdir(join(server.dir, "taken.bin", "in it"), { recursive: true });
      const it = upload("taken.bin", bytes(100));
      await target?.write(it, 0, calm(), () => undefined);
      assert.ok("occupied" in ((await target?.commit(it, calm())) ?? {}));
      assert.deepEqual(await fs.readdir(join(server.dir, "taken.bin")), ["in it"]);
    },
  );

// "NoTruncate" of its configuration: what is sent goes to a file of its own, which replaces what has the name.
const noTruncate = pureFtpdWith("-0");
test(
  "Pure-FTPd with NoTruncate, which puts what is appended in the place of what was there: what broke off is sent whole again",
  { skip: noTruncate.skip ?? false },
  async (t) => {
    const server = await noTruncate.start();
    t.after(() => server.stop());
    const device = ftpDevice(server);
    t.after(() => device.close());
    const target = device.target ?? assert.fail();
    const content = bytes(50_000, 5);
    const it = upload("a.bin", content);
    await fs.writeFile(join(server.dir, it.partialPath), content.subarray(0, 20_000));
    const { uid, gid } = await fs.stat(server.dir);
    await fs.chown(join(server.dir, it.partialPath), uid, gid);
    const write = async () => target.write(it, await target.offset(it, calm()), calm(), () => undefined);
    assert.match(await expectFault(write(), "transient"), /^this server continues no file \("20000 bytes that were there have gone/);
    assert.equal(target.features.resume, false);
    await write();
    assert.ok(isReceipt(await target.commit(it, calm())));
    assert.ok((await fs.readFile(join(server.dir, "a.bin"))).equals(content));
  },
);

const oneMegabyte = proftpdWith("MaxStoreFileSize 1 Mb");
test(
  "ProFTPD with MaxStoreFileSize: what is larger is no want of space, and leaves nothing there",
  { skip: oneMegabyte.skip ?? false },
  async (t) => {
    const server = await oneMegabyte.start();
    t.after(() => server.stop());
    const device = ftpDevice(server);
    t.after(() => device.close());
    const it = upload("large.bin", bytes(3_000_000));
    const writing = device.target?.write(it, 0, calm(), () => undefined) ?? assert.fail();
    assert.match(await expectFault(writing, "rejected"), /too large/i);
    assert.deepEqual(await fs.readdir(server.dir), []);
  },
);

const writeOnly = proftpdWith("<Limit READ>", "DenyAll", "</Limit>");
test(
  "ProFTPD for who may only write, which refuses SIZE too: a file arrives, is continued, and goes over nothing",
  { skip: writeOnly.skip ?? false },
  async (t) => {
    const server = await writeOnly.start();
    t.after(() => server.stop());
    const device = ftpDevice(server);
    t.after(() => device.close());
    const target = device.target ?? assert.fail();
    const { uid, gid } = await fs.stat(server.dir);
    const put = async (path: string, content: Buffer) => {
      await fs.writeFile(join(server.dir, path), content);
      await fs.chown(join(server.dir, path), uid, gid);
    };
    const content = bytes(50_000, 5);
    const [free, taken] = [upload("free.bin", content), upload("taken.bin", content)];
    await put(free.partialPath, content.subarray(0, 20_000));
    await put("taken.bin", bytes(10));
    assert.equal(await target.offset(free, calm()), 20_000);
    for (const it of [free, taken]) await target.write(it, await target.offset(it, calm()), calm(), () => undefined);
    assert.ok(isReceipt(await target.commit(free, calm())));
    assert.ok("occupied" in (await target.commit(taken, calm())));
    assert.ok((await fs.readFile(join(server.dir, "free.bin"))).equals(content));
    assert.ok((await fs.readFile(join(server.dir, "taken.bin"))).equals(bytes(10)));
  },
);

test("our own server with overwrite off: what it will not replace is told, also our own earlier version", async (t) => {
  const root = await fs.mkdtemp(join(tmpdir(), "filesync-keep-"));
  t.after(() => fs.rm(root, { recursive: true }));
  const server = await startOwn({ root, overwrite: false, users: { u: { password } } });
  t.after(() => server.close());
  const at = {
    port: server.port ?? 0,
    user: "u",
    password,
    dir: join(root, "u"),
    options: {},
    disk: (path: string) => Buffer.from(path),
    stop: () => server.close(),
  };
  const device = ftpDevice(at);
  t.after(() => device.close());
  const target = device.target ?? assert.fail();
  const content = bytes(50_000, 6);
  const earlier = content.subarray(0, 20_000);
  const sent = async (it: ReturnType<typeof upload>) => {
    await target.write(it, 0, calm(), () => undefined);
    return target.commit(it, calm());
  };
  assert.ok(isReceipt(await sent(upload("grows.bin", earlier))));
  const digest = sha256(earlier);
  const grown = upload("grows.bin", content, { expect: { kind: "replaces", size: earlier.length, digest } });
  assert.deepEqual(await sent(grown), { occupied: true, size: earlier.length });
  assert.ok((await fs.readFile(join(at.dir, "grows.bin"))).equals(earlier));
  assert.ok(isReceipt(await target.commit({ ...grown, path: "grows~12345678.bin" }, calm())));
});

test('vsftpd digests nothing: with "verify": "digest" that is told before a byte is sent', { skip: vsftpd.skip ?? false }, async (t) => {
  const server = await vsftpd.start();
  t.after(() => server.stop());
  const device = ftpDevice(server, { verify: "digest" });
  t.after(() => device.close());
  const it = upload("a.bin", bytes(100_000));
  const message = await expectFault(
    (device.target ?? assert.fail()).write(it, 0, calm(), () => undefined),
    "denied",
  );
  assert.match(message, /computes no SHA-256; set "verify"/);
  assert.equal(it.reading.given, 0);
});
