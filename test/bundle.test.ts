/** The archive for machines without a network (deploy/make-bundle.sh), without the Node.js in it: made, and run away from the checkout. */
import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { hasOpenssl, selfSigned } from "./conformance/ftp-servers.js";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** What npm sets for its own scripts must not reach the npm that is started here. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("npm_") || name.startsWith("npm_config_")));

function sh(command: string, cwd: string): { status: number | null; out: string } {
  const { status, stdout, stderr } = spawnSync("bash", ["-c", command], { cwd, env, encoding: "utf8" });
  return { status, out: stdout + stderr };
}

function tempDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "filesync-bundle-"));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

test("the archive is whole, runs away from the checkout, and has nothing in it for other systems or for tests", (t) => {
  if (!existsSync(join(root, "tsconfig.json"))) {
    t.skip("this is no checkout");
    return;
  }
  const dir = tempDir(t);
  // Of another processor: nothing of this machine's own installation can be taken along unseen.
  const registry = sh("npm view rxjs version", dir);
  if (registry.status !== 0) {
    t.skip(`npm cannot be reached: ${registry.out.trim().split("\n")[0] ?? ""}`);
    return;
  }
  const arch = process.arch === "arm64" ? "arm64" : "x64";
  const made = sh(`bash ${root}/deploy/make-bundle.sh --arch ${arch} --node none --out .`, dir);
  assert.equal(made.status, 0, made.out);
  const [archive = ""] = readdirSync(dir);
  assert.match(archive, new RegExp(`^filesync-[\\d.]+-linux-${arch}\\.tar\\.gz$`));
  assert.equal(sh(`tar -xzf ${archive}`, dir).status, 0);
  const unpacked = join(dir, archive.replace(".tar.gz", ""));
  assert.equal(readFileSync(join(unpacked, "ARCH"), "utf8"), `${arch}\n`);
  assert.deepEqual(sh("sha256sum --quiet -c SHA256SUMS", unpacked), { status: 0, out: "" });
  const natives = sh("find . -name '*.node'", unpacked).out.trim().split("\n");
  assert.equal(natives.length, 2, natives.join());
  assert.ok(natives.every((path) => path.includes(`/linux-${arch}/`)));
  const stray = sh(
    "find . -path ./node_modules -prune -o \\( -name '*.test.*' -o -path '*/test/*' -o -path '*/bench/*' \\) -print",
    unpacked,
  ).out;
  assert.equal(stray, "");
  const dead = sh("find . -path ./node_modules -prune -o -name '*.md' -print", unpacked)
    .out.trim()
    .split("\n")
    .flatMap((page) =>
      [...readFileSync(join(unpacked, page), "utf8").matchAll(/\]\(([^)\s#]+)(?:#[^)]*)?\)/g)].flatMap(([, to = ""]) =>
        /^\w+:/.test(to) || existsSync(join(unpacked, dirname(page), to)) ? [] : [`${page}: ${to}`],
      ),
    );
  assert.deepEqual(dead, [], "links to what the archive has not");
  assert.match(readFileSync(join(unpacked, "README.md"), "utf8"), /How to change them: CONTRIBUTING\.md \(in the sources\)/);
  const version = sh("./bin/filesync --version", unpacked);
  assert.equal(version.status, 0, version.out);
  // Through a link, as it is installed.
  assert.equal(sh(`ln -s ${unpacked}/bin/filesync other && ./other --version`, dir).out, version.out);
  assert.equal(sh("./bin/filesync check --config config.ground.example.json", unpacked).out.includes("internal error"), false);
});

test("the program as it is installed believes the certificates that the system believes", async (t) => {
  if (!hasOpenssl) {
    t.skip("openssl is not installed");
    return;
  }
  const dir = tempDir(t);
  cpSync(join(root, "deploy/filesync"), join(dir, "bin/filesync"));
  symlinkSync(join(root, "dist"), join(dir, "dist"));
  const { cert, key } = selfSigned(dir);
  const server = createServer({ cert: readFileSync(cert), key: readFileSync(key) }, (_request, response) => response.end());
  await once(server.listen(0, "127.0.0.1"), "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const config = join(dir, "config.json");
  writeFileSync(
    config,
    JSON.stringify({ stateDir: "state", devices: { form: { type: "post", url: `https://127.0.0.1:${port}/` } }, routes: [] }),
  );
  // Its exit code says that a device does not answer.
  const probed = (believed: string) =>
    new Promise<string>((resolve) => {
      const own = { ...process.env, SSL_CERT_FILE: believed, SSL_CERT_DIR: undefined, NODE_EXTRA_CA_CERTS: undefined };
      execFile(join(dir, "bin/filesync"), ["check", "--probe", "--config", config], { env: own }, (_error, out) => resolve(out));
    });
  assert.match(await probed(cert), /^form: works$/m);
  assert.match(await probed(join(dir, "none")), /^form: .*certificate or TLS is not accepted/m);
});

test("mistakes in its options are told, and nothing is made", (t) => {
  const dir = tempDir(t);
  for (const [options, words] of [
    ["--arch mips", /--arch is arm64 or x64, not mips/],
    ["--arch arm", /a 32-bit system needs a Node\.js of its own/],
    ["--out /nowhere", /\/nowhere is no directory/],
    ["--node", /--node needs a value/],
    ["--nod 24", /there is no option --nod/],
  ] as const) {
    const { status, out } = sh(`bash ${root}/deploy/make-bundle.sh ${options}`, dir);
    assert.equal(status, 2, options);
    assert.match(out, words);
  }
  assert.deepEqual(readdirSync(dir), []);
});
