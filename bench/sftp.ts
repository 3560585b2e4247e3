/** Pushing to OpenSSH beside its own `sftp` and rclone: the same files, server and cipher, our default settings; each cell the best of three. */
import { execFileSync } from "node:child_process";
import { copyFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openssh, type SftpServerUnderTest } from "../test/conformance/sftp-servers.js";
import { mainJs } from "../test/faults/process.js";
import { heading, inTempDir } from "./measure.js";
import { compare, type Cell } from "./push.js";

const cells: readonly Cell[] = [
  { name: "1 × 1 GiB", dirs: 1, files: 1, bytes: 2 ** 30 },
  { name: "200 × 5 MB", dirs: 1, files: 200, bytes: 5e6 },
  { name: "5,000 × 20 kB in 50 directories", dirs: 50, files: 5000, bytes: 20_000 },
];
// rclone takes this one by itself.
const cipher = "aes128-gcm@openssh.com";

type Peer = (from: string, server: SftpServerUnderTest, dir: string, key: string) => readonly string[];

/** `flags`: "-f" has the server sync each file, as ours does. */
const sftpPeer =
  (flags: string): Peer =>
  (from, server, dir, key) => {
    const to = join(server.dir, "to");
    const puts = readdirSync(from).map((name) => `put -r ${flags} "${join(from, name)}" "${to}/"`);
    writeFileSync(join(dir, "batch"), [`mkdir "${to}"`, ...puts, ""].join("\n"));
    const options = [
      "StrictHostKeyChecking=no",
      "UserKnownHostsFile=/dev/null",
      `Ciphers=${cipher}`,
      `IdentityFile=${key}`,
      "IdentitiesOnly=yes",
    ];
    const at = `${String(server.options.user)}@127.0.0.1`;
    return ["sftp", "-q", "-b", join(dir, "batch"), ...options.flatMap((it) => ["-o", it]), "-P", `${server.port}`, at];
  };

const rclonePeer: Peer = (from, server, _dir, key) => {
  const remote = `:sftp,host=127.0.0.1,port=${server.port},user=${String(server.options.user)},key_file=${key}:${join(server.dir, "to")}`;
  return ["rclone", "--config", "/dev/null", "copy", "--transfers", "4", from, remote];
};

const ours: Peer = (from, server, dir) => {
  const config = join(dir, "config.json");
  rmSync(join(dir, "state"), { recursive: true, force: true });
  const nas = { type: "sftp", host: "127.0.0.1", port: server.port, root: server.seen, ...server.options };
  const devices = { in: { type: "local", dir: from }, nas };
  writeFileSync(config, JSON.stringify({ stateDir: join(dir, "state"), devices, routes: [{ from: "in", to: ["nas"], into: "to" }] }));
  return [process.execPath, mainJs, "run", "--once", "--json", "--config", config];
};

const peers: Readonly<Record<string, Peer>> = {
  "sftp -b": sftpPeer(""),
  "sftp -b, synced": sftpPeer("-f"),
  rclone: rclonePeer,
  FileSync: ours,
};

export async function sftp(): Promise<void> {
  heading("sftp");
  if (openssh.skip !== undefined) {
    console.log(`skipped: ${openssh.skip}`);
    return;
  }
  const server = await openssh.start();
  try {
    for (const cell of cells) await inTempDir((dir) => one(cell, dir, server));
  } finally {
    await server.stop();
  }
}

async function one(cell: Cell, dir: string, server: SftpServerUnderTest): Promise<void> {
  // The others cannot be told a passphrase.
  const key = join(dir, "key");
  copyFileSync(String(server.options.privateKey), key);
  execFileSync("ssh-keygen", ["-q", "-p", "-P", String(server.options.passphrase), "-N", "", "-f", key]);
  const commands = Object.entries(peers).map(([name, peer]) => [name, (from: string) => peer(from, server, dir, key)] as const);
  await compare(cell, dir, { name: "OpenSSH", to: join(server.dir, "to") }, commands);
}
