/** The account that docs/two-way.md describes, made by its own commands, in a mount namespace whose /etc and /srv are thrown away. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { makeKey } from "./conformance/sftp-servers.js";
import { freePort } from "./conformance/ftp-servers.js";
import { mainJs } from "./faults/process.js";
import { World } from "./faults/world.js";
import { overlaid } from "./overlaid.js";

/** A shell with what the page takes for granted. */
const around = `
set -eu
sudo() { "$@"; }
systemctl() { [ "$*" = "reload ssh" ]; }
${overlaid(["/etc", "/srv"], "$SCRATCH")} || exit 1
mkdir -p /run/sshd
ssh-keygen -A >/dev/null
cd "$HERE"
. ./commands.sh
/usr/sbin/sshd -D -e -p "$PORT" -o ListenAddress=127.0.0.1 -o PidFile=none 2>sshd.log &
SSHD=$!
trap 'kill $SSHD' EXIT
ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2 > hostkey
node -e '
  const fs = require("node:fs");
  const text = fs.readFileSync("config.json", "utf8").replace("HOSTKEY", fs.readFileSync("hostkey", "utf8").trim());
  fs.writeFileSync("config.json", text);'
"$NODE" "$MAIN" run --once --config config.json
ssh -p "$PORT" -i key -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null box@127.0.0.1 'echo a shell' > shell.out 2>/dev/null || true
cat /srv/box/shared/here.txt > arrived
`;
const unavailable =
  process.getuid?.() !== 0
    ? "only root makes accounts"
    : !existsSync("/usr/sbin/sshd")
      ? "sshd (openssh-server) is not installed"
      : !existsSync("/usr/sbin/adduser")
        ? "adduser is not installed"
        : spawnSync("unshare", ["--mount", "--propagation", "private", "true"]).status !== 0
          ? "no mount namespace can be made here"
          : undefined;

test(
  "the account of docs/two-way.md: made by its commands, it shares a directory, and has no shell",
  unavailable === undefined ? {} : { skip: unavailable },
  async (t) => {
    const page = readFileSync(fileURLToPath(new URL("../../docs/two-way.md", import.meta.url)), "utf8");
    const commands = /## The account on the server[\s\S]*?```sh\n([\s\S]*?)```/.exec(page)?.[1];
    assert.ok(commands !== undefined && commands.includes("adduser"));
    const world = new World(t);
    writeFileSync(world.path("commands.sh"), commands);
    makeKey(world.path("key"));
    execFileSync("cp", [world.path("key.pub"), world.path("box.pub")]);
    world.mkdir("box");
    writeFileSync(world.path("box/here.txt"), "hello");
    const port = await freePort();
    world.config({
      devices: {
        box: { type: "local", dir: "box", settle: "0s" },
        nas: { type: "sftp", host: "127.0.0.1", port, user: "box", privateKey: "key", hostKey: "HOSTKEY", root: "/" },
      },
      routes: [{ from: "box", to: ["nas"], mode: "two-way", into: "shared" }],
    });
    const env = {
      ...process.env,
      HERE: world.dir,
      SCRATCH: world.mkdir("scratch"),
      PORT: String(port),
      NODE: process.execPath,
      MAIN: mainJs,
    };
    const ran = spawnSync("unshare", ["--mount", "--propagation", "private", "bash", "-c", `mount -t tmpfs tmpfs "$SCRATCH"\n${around}`], {
      env,
      encoding: "utf8",
    });
    assert.equal(ran.status, 0, ran.stdout + ran.stderr);
    assert.equal(readFileSync(world.path("arrived"), "utf8"), "hello");
    assert.doesNotMatch(readFileSync(world.path("shell.out"), "utf8"), /a shell/);
    assert.ok(!readFileSync("/etc/passwd", "utf8").includes("/srv/box"), "nothing of it is left on this machine");
  },
);
