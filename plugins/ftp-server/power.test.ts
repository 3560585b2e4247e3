/** What is on the medium when the answer comes: the image of an ext4 as power that goes in that moment would leave it. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { startOwn } from "../../test/conformance/ftp-servers.js";
import { RawFtp } from "../../test/conformance/raw-ftp.js";
import { bytes } from "../../test/conformance/upload.js";
import { mountSmall, unmount } from "../../test/small-disk.js";

const content = bytes(300_000, 9);

for (const [what, lines, name] of [
  ["STOR", [], "a.bin"],
  ["RNTO", ["RNFR a.bin", "RNTO b.bin"], "b.bin"],
  ["SITE CPTO", ["SITE CPFR a.bin", "SITE CPTO b.bin"], "b.bin"],
  ["SITE CPTO and DELE", ["SITE CPFR a.bin", "SITE CPTO b.bin", "DELE a.bin"], "b.bin"],
  ["SITE CPTO of a partial, and its name", ["SITE CPFR a.bin", "SITE CPTO .b.part", "RNFR .b.part", "RNTO b.bin"], "b.bin"],
] as const)
  test(`power goes behind the answer to ${what}: the file is there`, async (t) => {
    const dir = mkdtempSync(join(tmpdir(), "filesync-power-"));
    const [root, after] = [join(dir, "root"), join(dir, "after")];
    mkdirSync(root);
    mkdirSync(after);
    const why = mountSmall(join(dir, "image"), root, 32);
    t.after(() => {
      unmount(after);
      unmount(root);
      rmSync(dir, { recursive: true });
    });
    if (why !== undefined) {
      t.skip(why);
      return;
    }
    const server = await startOwn({ root, users: { u: { password: "p" } } });
    const ftp = await RawFtp.login(server.port ?? 0, "u", "p");
    assert.match(await ftp.store("STOR a.bin", content), /^226/);
    for (const line of lines) assert.match(await ftp.ask(line), /^[23]/);
    copyFileSync(join(dir, "image"), join(dir, "image.after"));
    ftp.close();
    await server.close();
    assert.equal(spawnSync("mount", ["-o", "loop", join(dir, "image.after"), after]).status, 0);
    assert.ok(existsSync(join(after, "u", name)), "it has its name");
    assert.ok(readFileSync(join(after, "u", name)).equals(content), `${readFileSync(join(after, "u", name)).length} bytes, other content`);
  });
