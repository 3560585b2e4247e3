// Makes a fresh clone ready: dependencies as the lock file says, and the build. Costs a few milliseconds when there is nothing to do.
// Plain JavaScript, because it runs before anything is installed.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));
const sources = ["core", "cli", "plugins", "mavlink", "sim", "test", "bench"];

export function makeReady() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    console.error(`FileSync needs Node.js 20.19 or newer; this is ${process.versions.node}. Install a newer one, then try again.`);
    process.exit(2);
  }
  const lock = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
  const stamp = join(root, "node_modules", ".filesync-lock");
  if (!existsSync(stamp) || readFileSync(stamp, "utf8") !== lock) {
    console.error("installing dependencies (npm ci), once …");
    // What npm sets for its own scripts must not reach the npm that is started here.
    const env = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !name.startsWith("npm_") || name.startsWith("npm_config_")),
    );
    run("npm", ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"], { env });
    writeFileSync(stamp, lock);
  }
  if (newest(sources.map((dir) => join(root, dir)).concat(join(root, "tsconfig.json"))) > built()) {
    console.error("building …");
    run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-b"], {});
    writeFileSync(join(root, "dist", ".built"), "");
  }
}

function built() {
  const stamp = join(root, "dist", ".built");
  return existsSync(stamp) ? statSync(stamp).mtimeMs : 0;
}

function newest(paths) {
  let latest = 0;
  for (const path of paths) {
    if (!existsSync(path)) continue;
    const stat = statSync(path);
    latest = Math.max(latest, stat.mtimeMs);
    if (stat.isDirectory()) latest = Math.max(latest, newest(readdirSync(path).map((name) => join(path, name))));
  }
  return latest;
}

function run(command, args, options) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ["ignore", 2, 2], ...options });
  if (status === 0) return;
  console.error(
    error === undefined ? `${command} ${args.join(" ")} failed; its words are above.` : `cannot run ${command}: ${error.message}`,
  );
  process.exit(1);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) makeReady();
