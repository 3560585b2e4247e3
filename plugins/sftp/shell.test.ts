/** What runs at the server, run here. */
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { test } from "node:test";
import type { Client } from "ssh2";
import { bytes, sha256 } from "../../test/conformance/upload.js";
import { Digester, digestIn, loops } from "./shell.js";

const where = (tool: string): string | undefined => {
  const { status, stdout } = spawnSync("sh", ["-c", `command -v ${tool}`], { encoding: "utf8" });
  return status === 0 ? stdout.trim() : undefined;
};

for (const [kind, loop] of Object.entries(loops))
  for (const tools of [["sha256sum"], ["sha256sum", "openssl"], ["sha256sum", "perl"], ["openssl"], ["perl"], []]) {
    const missing = tools.find((tool) => where(tool) === undefined);
    const skip = missing === undefined ? false : `${missing} is not installed`;
    test(`the loop for ${kind} files, where there is ${tools.join(" and ") || "nothing"}`, { skip }, (t) => {
      const dir = mkdtempSync(join(tmpdir(), "filesync-shell-"));
      t.after(() => rmSync(dir, { recursive: true }));
      for (const tool of ["sh", ...tools]) symlinkSync(where(tool) ?? "", join(dir, tool));
      const content = bytes(100_000);
      writeFileSync(join(dir, "it's $one"), content);
      const odd = "a\\0b two";
      writeFileSync(join(dir, odd), content);
      writeFileSync(join(dir, "empty"), "");
      const longer = bytes(1_000_000);
      writeFileSync(join(dir, "long \\"), longer);
      // Alone, and together with what is there or is not.
      const asked = [["it's $one"], ["absent"], [odd, "it's $one"], [odd, "absent", "it's $one"], ["", "empty", "long \\"]];
      const input = asked.map((names) => `${names.map((name) => `${join(dir, name)}\n`).join("")}\n`).join("");
      const out = execFileSync("/bin/sh", ["-c", loop], { input, env: { PATH: dir }, encoding: "utf8" });
      const digests = out.split("\n").map((line) => digestIn(line));
      const can = tools.includes("sha256sum") || (kind === "large" && tools.includes("openssl"));
      const [one, none, long] = [content, Buffer.alloc(0), longer].map((it) => (can ? sha256(it).slice("sha256:".length) : undefined));
      // A directory has none; what is behind the last line end is no line.
      assert.deepEqual(digests, [one, undefined, one, one, one, undefined, one, undefined, none, long, undefined]);
    });
  }

/** What is to be run there runs here, with `env`. */
function clientHere(env: NodeJS.ProcessEnv): Client {
  const exec = (command: string, opened: (error: undefined, channel: Duplex) => void): void => {
    const { stdin, stdout, stderr } = spawn("/bin/sh", ["-c", command], { env });
    opened(undefined, Object.assign(Duplex.from({ writable: stdin, readable: stdout }), { stderr }));
  };
  return { exec } as unknown as Client;
}

const skip = where("sha256sum") === undefined ? "sha256sum is not installed" : false;
for (const [by, most] of [
  ["sha256sum", 1 + 1 + 4 + 32],
  ["perl", 1 + 1],
] as const)
  test(
    `many names at once: each gets its own answer, and few programs are begun (${by})`,
    { skip: skip === false && where(by) === undefined ? `${by} is not installed` : skip },
    async (t) => {
      const dir = mkdtempSync(join(tmpdir(), "filesync-shell-"));
      t.after(() => rmSync(dir, { recursive: true }));
      const runs = join(dir, "runs");
      writeFileSync(join(dir, "sha256sum"), `#!/bin/sh\necho run >>'${runs}'\nexec ${where("sha256sum") ?? ""} "$@"\n`, { mode: 0o755 });
      if (by !== "perl") writeFileSync(join(dir, "perl"), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
      const digester = new Digester(clientHere({ PATH: `${dir}:${process.env.PATH ?? ""}` }), 30_000);
      t.after(() => digester.end());
      assert.equal(await digester.works(), true);
      const names = Array.from({ length: 100 }, (_, n) => join(dir, n === 7 ? "it's\\0 $one" : `f${n}`));
      for (const [n, name] of names.entries()) if (n !== 70) writeFileSync(name, `content ${n}`);
      const digests = await Promise.all(names.map((name) => digester.digest(Buffer.from(name), 100)));
      assert.deepEqual(
        digests,
        names.map((_, n) => (n === 70 ? undefined : sha256(Buffer.from(`content ${n}`)))),
      );
      // One to know that it is there, and one at the first question; four for a hundred names, and one more for each name of the four that one was missing from.
      const count = readFileSync(runs, "utf8").trim().split("\n").length;
      assert.ok(count <= most, `${count} programs`);
    },
  );
