import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import ssh2 from "ssh2";
import { waysOf } from "./keys.js";
import type { SftpOptions } from "./options.js";

test("a key with a passphrase is opened once, and anew when its file holds another one", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-keys-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const privateKey = join(dir, "key");
  const make = () =>
    writeFileSync(
      privateKey,
      // Of its Ed25519 keys one in 256 is broken: a zero at the beginning of the public part is left out.
      ssh2.utils.generateKeyPairSync("ecdsa", { bits: 256, passphrase: "a phrase", cipher: "aes256-ctr", rounds: 16 }).private,
    );
  const options = { user: "pi", privateKey, passphrase: { reveal: () => "a phrase" } } as unknown as SftpOptions;
  const keyOf = async () => {
    const [way] = await waysOf(options);
    assert.ok(way?.auth.type === "publickey");
    return way.auth.key;
  };
  make();
  const first = await keyOf();
  assert.equal(await keyOf(), first);
  make();
  assert.notEqual(await keyOf(), first);
});

test("a key of PuTTY's that cannot be read is told with what makes one that can", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-keys-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const privateKey = join(dir, "my key.ppk");
  writeFileSync(privateKey, "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: eddsa-key\nPublic-Lines: 2\n");
  await assert.rejects(waysOf({ user: "pi", privateKey } as unknown as SftpOptions), {
    kind: "denied",
    message: /my key\.ppk is in a form of PuTTY's that is not read: "puttygen '.*my key\.ppk' -O private-openssh -o NEW"/,
  });
});
