/** The import rules of the layout (CONTRIBUTING.md): who may import whom. A path that breaks one is named. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const forPlugins = [
  "core/boot",
  "core/certificate",
  "core/certificate-files",
  "core/plugin",
  "core/errors",
  "core/file-thread",
  "core/fs",
  "core/host-key",
  "core/http",
  "core/mounts",
  "core/name-watch",
  "core/names",
  "core/net",
  "core/on-mount",
  "core/options",
  "core/password",
  "core/paths",
  "core/program",
  "core/reading",
  "core/remote",
  "core/rights",
  "core/rxjs",
  "core/signals",
  "core/soon",
  "core/sqlite",
  "core/stat",
  "core/stranger",
  "core/text",
  "core/try-out",
  "core/turns",
  "core/untaken",
  "core/wire-path",
];

/** Why `from` may not import `to` (paths below the root without ending); undefined when it may. */
function wrong(from: string, to: string): string | undefined {
  const [top, plugin] = from.split("/");
  const own = `${top ?? ""}/${plugin ?? ""}/`;
  if (to.endsWith(".test") || (to.startsWith("test/") && top !== "test")) return "no test is imported from outside tests";
  if (top === "core" && !to.startsWith("core/")) return "core imports nothing but core";
  if ((from === "core/plugin" || from === "core/errors") && to !== "core/errors") return "the contract imports nothing";
  if (top === "mavlink" && !to.startsWith("mavlink/")) return "mavlink imports nothing";
  if (top === "sim" && !/^(mavlink|sim)\//.test(to)) return "sim imports mavlink and its own files";
  if (from === "plugins/index") return undefined;
  if (
    top === "plugins" &&
    !forPlugins.includes(to) &&
    !to.startsWith(own) &&
    !to.startsWith("mavlink/") &&
    !(plugin === "disk" && to.startsWith("plugins/local/")) &&
    !(plugin === "apsync" && /^plugins\/(registry\/wire$|rsync\/)/.test(to))
  )
    return `a plugin imports ${forPlugins.join(", ")}, mavlink and its own files`;
  if (to === "plugins/index" && top !== "cli" && top !== "test") return "only cli imports plugins/index";
  return undefined;
}

function* sources(): Generator<[string, string]> {
  for (const top of ["core", "cli", "plugins", "mavlink", "sim"])
    for (const name of readdirSync(join(root, top), { recursive: true, encoding: "utf8" }))
      if (name.endsWith(".ts")) yield [`${top}/${name.replaceAll("\\", "/")}`, readFileSync(join(root, top, name), "utf8")];
}

test("every import is one that the layout allows", () => {
  const broken: string[] = [];
  for (const [path, text] of sources()) {
    const isTest = path.endsWith(".test.ts");
    const from = path.replace(/\.ts$/, "");
    for (const [, spec] of text.matchAll(/(?:from|import\()\s*"(\.[^"]+)"/g)) {
      const to = relative(".", normalize(join(dirname(path), spec ?? ""))).replace(/\.js$/, "");
      // A unit test beside its code may use what test/ offers, and the code of another room to drive it.
      const why = isTest ? undefined : wrong(from, to);
      if (why !== undefined) broken.push(`${path} imports ${to}: ${why}`);
    }
    if (!isTest && path !== "core/rxjs.ts" && /^import (?!type )[^;]*? from "rxjs"/m.test(text))
      broken.push(`${path} imports more than types from rxjs: core/rxjs has it, and starts faster`);
    if (!isTest && /^export default/m.test(text)) broken.push(`${path} has a default export`);
    if (!isTest && !path.startsWith("cli/") && /\bprocess\.(env|argv|exit|on)\b/.test(text))
      broken.push(`${path} uses the process; only cli does`);
  }
  assert.deepEqual(broken, []);
});

test("the rules themselves refuse what they should", () => {
  assert.ok(wrong("core/daemon", "plugins/ftp/ftp"));
  assert.ok(wrong("plugins/ftp/ftp", "core/journal"));
  assert.ok(wrong("plugins/ftp/ftp", "plugins/local/local"));
  assert.ok(wrong("sim/px4", "core/errors"));
  assert.equal(wrong("plugins/mavftp/mavftp", "mavlink/codec"), undefined);
  assert.equal(wrong("cli/commands", "plugins/index"), undefined);
});
