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
