/** What runs at the server, run here. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { bytes, sha256 } from "../../test/conformance/upload.js";
import { loops } from "./shell.js";

const where = (tool: string): string | undefined => {
  const { status, stdout } = spawnSync("sh", ["-c", `command -v ${tool}`], { encoding: "utf8" });
  return status === 0 ? stdout.trim() : undefined;
};

for (const [kind, loop] of Object.entries(loops))
  for (const tools of [["sha256sum"], ["sha256sum", "openssl"], ["openssl"], []]) {
    const missing = tools.find((tool) => where(tool) === undefined);
    const skip = missing === undefined ? false : `${missing} is not installed`;
    test(`the loop for ${kind} files, where there is ${tools.join(" and ") || "nothing"}`, { skip }, (t) => {
      const dir = mkdtempSync(join(tmpdir(), "filesync-shell-"));
      t.after(() => rmSync(dir, { recursive: true }));
      for (const tool of ["sh", ...tools]) symlinkSync(where(tool) ?? "", join(dir, tool));
      const content = bytes(100_000);
      writeFileSync(join(dir, "it's $one"), content);
      const input = ["it's $one", "absent", "it's $one"].map((name) => `${join(dir, name)}\n`).join("");
      const out = execFileSync("/bin/sh", ["-c", loop], { input, env: { PATH: dir }, encoding: "utf8" });
      const digests = out.split("\n").map((line) => /^([0-9a-f]{64})\b/.exec(line)?.[1]);
      const can = tools.includes("sha256sum") || (kind === "large" && tools.includes("openssl"));
      const one = can ? sha256(content).slice("sha256:".length) : undefined;
      assert.deepEqual(digests, [one, undefined, one, undefined]);
    });
  }
