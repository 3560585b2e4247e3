/** Sending to OpenSSH by rsync beside `rsync -a` alone: the same files, server, key and cipher, our default settings; each cell the best of three. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { rsyncShell } from "../test/conformance/rsync-servers.js";
import type { SftpServerUnderTest } from "../test/conformance/sftp-servers.js";
import { mainJs } from "../test/faults/process.js";
import { heading, inTempDir } from "./measure.js";
import { compare, type Cell } from "./push.js";

const cells: readonly Cell[] = [
  { name: "1 × 1 GiB", dirs: 1, files: 1, bytes: 2 ** 30 },
  { name: "200 × 5 MB", dirs: 1, files: 200, bytes: 5e6 },
  { name: "5,000 × 20 kB in 50 directories", dirs: 50, files: 5000, bytes: 20_000 },
];
const small: readonly Cell[] = [
  { name: "1 × 64 MiB", dirs: 1, files: 1, bytes: 2 ** 26 },
  { name: "20 × 5 MB", dirs: 1, files: 20, bytes: 5e6 },
  { name: "500 × 20 kB in 5 directories", dirs: 5, files: 500, bytes: 20_000 },
];

type Peer = (from: string, server: SftpServerUnderTest, dir: string) => readonly string[];

const alone: Peer = (from, server) => {
  const options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes"].map((it) => `-o ${it}`).join(" ");
  const ssh = `ssh -F none -i ${String(server.options.privateKey)} -p ${server.port} ${options}`;
  return ["rsync", "-a", "-e", ssh, `${from}/`, `${String(server.options.user)}@127.0.0.1:${server.dir}/to/`];
};

const ours: Peer = (from, server, dir) => {
  const config = join(dir, "config.json");
  rmSync(join(dir, "state"), { recursive: true, force: true });
  const nas = { type: "rsync", host: "127.0.0.1", port: server.port, root: server.seen, ...server.options };
  const devices = { in: { type: "local", dir: from }, nas };
  writeFileSync(config, JSON.stringify({ stateDir: join(dir, "state"), devices, routes: [{ from: "in", to: ["nas"], into: "to" }] }));
  return [process.execPath, mainJs, "run", "--once", "--json", "--config", config];
};

const peers: Readonly<Record<string, Peer>> = { "rsync -a": alone, FileSync: ours };

/** `--small`: few files, once. */
export async function rsync(given: readonly string[] = []): Promise<void> {
  heading("rsync");
  if (rsyncShell.skip !== undefined) {
    console.log(`skipped: ${rsyncShell.skip}`);
    return;
  }
  const server = await rsyncShell.start();
  const quick = given.includes("--small");
  try {
    for (const cell of quick ? small : cells) {
      const commands = (dir: string) =>
        Object.entries(peers).map(([name, peer]) => [name, (from: string) => peer(from, server, dir)] as const);
      await inTempDir((dir) => compare(cell, dir, { name: "OpenSSH", to: join(server.dir, "to") }, commands(dir), quick ? 1 : undefined));
    }
  } finally {
    await server.stop();
  }
}
