/** TLS of the FTP server: what is refused without it, and that nothing sent in clear is taken for what came inside. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { calm, expectFault } from "../../test/conformance/clause.js";
import { ftpDevice } from "../../test/conformance/ftp-harness.js";
import { hasOpenssl, selfSigned, startOwn } from "../../test/conformance/ftp-servers.js";
import { send } from "../../test/conformance/target-under-test.js";
import { RawFtp } from "../../test/conformance/raw-ftp.js";
import { bytes, context, upload } from "../../test/conformance/upload.js";
import type { FtpServer } from "./server.js";

const placeOf = (server: FtpServer, dir: string) => ({
  port: server.port ?? 0,
  user: "u",
  password: "p",
  dir,
  disk: (path: string) => Buffer.from(path),
  stop: () => server.close(),
});

const skip = hasOpenssl ? false : "openssl is not installed";

test(
  "a certificate that is not the pinned one is denied before the password is sent, and so is one that nobody vouches for",
  { skip },
  async () => {
    const dir = await fs.mkdtemp(join(tmpdir(), "filesync-pin-"));
    const { cert, key } = selfSigned(dir);
    const heard = context();
    const server = await startOwn({ root: join(dir, "srv"), users: { u: { password: "p" } }, tls: { cert, key } }, heard);
    const base = placeOf(server, dir);
    for (const tls of [{ fingerprint: `SHA256:${"ab".repeat(32)}` }, {}]) {
      const device = ftpDevice({ ...base, options: { secure: true, tls } });
      const message = await expectFault(device.probe(calm()), "denied");
      assert.match(message, /certificate/);
      await device.close();
    }
    assert.equal(
      heard.said.some((it) => /logged in|wrong password/.test(it.message)),
      false,
      "a password was sent",
    );
    await server.close();
    await fs.rm(dir, { recursive: true });
  },
);

test("many empty and small files arrive by TLS", { skip }, async () => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-tiny-"));
  const { cert, key, fingerprint } = selfSigned(dir);
  const server = await startOwn({ root: join(dir, "srv"), users: { u: { password: "p" } }, tls: { cert, key, required: true } });
  const options = { secure: true, tls: { fingerprint } };
  const at = placeOf(server, dir);
  const device = ftpDevice({ ...at, options });
  assert.ok(device.target);
  for (let i = 0; i < 60; i++) await send(device.target, upload(`f${i}.bin`, bytes(i % 3)));
  assert.equal((await fs.readdir(join(dir, "srv", "u"))).length, 60);
  await device.close();
  await server.close();
  await fs.rm(dir, { recursive: true });
});

test("where TLS is required no password is taken in clear, and AUTH carries nothing over", { skip }, async () => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-tls-"));
  const { cert, key, fingerprint } = selfSigned(dir);
  const heard = context();
  const server = await startOwn({ root: join(dir, "srv"), users: { u: { password: "p" } }, tls: { cert, key, required: true } }, heard);
  try {
    const told = (await heard.heard(/FTP server listens/)).facts.fingerprint;
    const hex = fingerprint.replace(/^SHA256:/, "").replaceAll(":", "");
    assert.equal(told, `SHA256:${Buffer.from(hex, "hex").toString("base64").replace(/=+$/, "")}`, "it tells what to pin");
    const seen = ftpDevice({ ...placeOf(server, dir), options: { secure: true, tls: { fingerprint } } });
    assert.equal((await seen.certificate?.(new AbortController().signal))?.fingerprint, told, "who looks at it is told the same");
    await seen.close();

    const clear = new RawFtp(server.port ?? 0);
    await clear.answer();
    assert.match(await clear.ask("USER u"), /^530 .*TLS/);
    assert.match(await clear.ask("PASS p"), /^503/);
    assert.match(await clear.ask("PBSZ 0"), /^503/);
    assert.match(await clear.ask("PROT P"), /^503/);
    clear.close();

    const injected = new RawFtp(server.port ?? 0);
    await injected.answer();
    injected.send("AUTH TLS\r\nUSER u\r\n");
    assert.match(await injected.answer(), /^421/);
    assert.equal(await injected.answer(), "");

    const broken = new RawFtp(server.port ?? 0);
    await broken.answer();
    assert.match(await broken.ask("AUTH TLS"), /^234/);
    broken.send("this is no handshake\r\n");
    while ((await broken.answer()) !== "");
  } finally {
    await server.close();
    await fs.rm(dir, { recursive: true });
  }
});

test(
  "a certificate that is renewed while the server runs is what it shows from then on; one that cannot be used is told, and the one of before stays",
  { skip },
  async () => {
    const dir = await fs.mkdtemp(join(tmpdir(), "filesync-renewed-"));
    const first = selfSigned(dir);
    const heard = context();
    const server = await startOwn(
      { root: join(dir, "srv"), users: { u: { password: "p" } }, tls: { cert: first.cert, key: first.key } },
      heard,
    );
    const at = placeOf(server, dir);
    const arrives = async (fingerprint: string, name: string) => {
      const device = ftpDevice({ ...at, options: { secure: true, tls: { fingerprint } } });
      assert.ok(device.target);
      await send(device.target, upload(name, bytes(10)));
      await device.close();
    };
    try {
      await arrives(first.fingerprint, "before");
      const other = selfSigned(await fs.mkdtemp(join(dir, "other-")));
      await fs.writeFile(first.cert, `${await fs.readFile(other.cert, "utf8")}${await fs.readFile(first.cert, "utf8")}`);
      await arrives(first.fingerprint, "meanwhile");
      await heard.heard(/cannot be used: the key is not that of the first certificate; .*; until then the certificate of before is shown$/);
      for (const [name, wrong, why] of [
        ["no-key", "no key", /the key is not in PEM/],
        ["locked", "-----BEGIN ENCRYPTED PRIVATE KEY-----", /the key has a passphrase, .*"openssl pkey -in \S+key\.pem -out NEW"/],
      ] as const) {
        await fs.writeFile(first.key, wrong);
        await arrives(first.fingerprint, name);
        await heard.heard(why);
      }
      const { fingerprint } = selfSigned(dir);
      await arrives(fingerprint, "after");
      await heard.heard(/another certificate is shown from now on/);
      assert.deepEqual((await fs.readdir(join(dir, "srv", "u"))).sort(), ["after", "before", "locked", "meanwhile", "no-key"]);
    } finally {
      await server.close();
      await fs.rm(dir, { recursive: true });
    }
  },
);
