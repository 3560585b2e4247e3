/**
 * A mirror at OpenSSH beside `rclone sync` and `lftp mirror`, which speak SFTP as ours does, and rsync, which runs code at the server: a first time, with nothing changed, and with one
 * file changed. FileSync is `run --once` with its journal; its server syncs each file where it can (fsync@openssh.com), the others' does not.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openssh, type SftpServerUnderTest } from "../test/conformance/sftp-servers.js";
import { mainJs } from "../test/faults/process.js";
import { has, heading, inTempDir, table } from "./measure.js";
import { expectAll, makeFiles, measure, runs, type Cell, type Run } from "./push.js";

const cells: readonly Cell[] = [
  { name: "10,000 × 200 B in 100 directories", dirs: 100, files: 10_000, bytes: 200 },
  { name: "100,000 × 200 B in 1,000 directories", dirs: 1000, files: 100_000, bytes: 200 },
];

interface Place {
  readonly server: SftpServerUnderTest;
  readonly from: string;
  readonly to: string;
  readonly dir: string;
  readonly key: string;
}

type Peer = (place: Place) => readonly string[];

/** Without its checksums: for each file it would log in once more to run md5sum there, ten files a second. */
const rclone: Peer = ({ server, from, to, key }) => {
  const user = String(server.options.user);
  const remote = `:sftp,host=127.0.0.1,port=${server.port},user=${user},key_file=${key},disable_hashcheck=true,shell_type=none:${to}`;
  return ["rclone", "--config", "/dev/null", "sync", "--transfers", "8", "--checkers", "16", from, remote];
};

const sshOf = ({ server, key }: Place) =>
  `ssh -p ${server.port} -l ${String(server.options.user)} -i ${key} -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null`;

const lftp: Peer = (place) => [
  "lftp",
  "-c",
  `set sftp:connect-program "${sshOf(place)} -a -x"; open -u ${String(place.server.options.user)},x sftp://127.0.0.1:${place.server.port}; mirror -R -e --parallel=8 ${place.from} ${place.to}`,
];

const rsync: Peer = (place) => ["rsync", "-a", "--delete", "-e", sshOf(place), `${place.from}/`, `127.0.0.1:${place.to}/`];

/** With the same key: to open one with a passphrase takes more than half a second. */
const ours: Peer = ({ server, from, dir, key }) => {
  const { passphrase: _, ...options } = server.options;
  const nas = { type: "sftp", host: "127.0.0.1", port: server.port, root: server.seen, ...options, privateKey: key };
  const routes = [{ from: "in", to: ["nas"], mode: "mirror", into: "to", deletes: true }];
  const config = join(dir, "config.json");
  writeFileSync(
    config,
    JSON.stringify({ stateDir: join(dir, "state"), devices: { in: { type: "local", dir: from, settle: "0s" }, nas }, routes }),
  );
  return [process.execPath, mainJs, "run", "--once", "--json", "--config", config];
};

const peers: Readonly<Record<string, Peer>> = { rclone, lftp, rsync, FileSync: ours };

/** `only`: numbers of cells. */
export async function sync(only: readonly string[] = []): Promise<void> {
  heading("sync");
  if (openssh.skip !== undefined) {
    console.log(`skipped: ${openssh.skip}`);
    return;
  }
  for (const [n, cell] of cells.entries()) {
    if (only.length > 0 && !only.includes(String(n))) continue;
    const rows: (readonly string[])[] = [];
    for (const [name, peer] of Object.entries(peers)) if (has(name) || name === "FileSync") rows.push([name, ...(await one(cell, peer))]);
    table([`${cell.name}, to OpenSSH`, "first, s", "no change, s", "one change, s", "peak MB, first"], rows);
  }
}

/** The first time, with nothing changed, and with one file changed: each the best of so many, but of many files the first time only once. */
function one(cell: Cell, peer: Peer): Promise<string[]> {
  return inTempDir(async (dir) => {
    const server = await openssh.start();
    try {
      const [from, to, key] = [join(dir, "in"), join(server.dir, "to"), join(dir, "key")];
      makeFiles(from, cell);
      // The others cannot be told a passphrase.
      copyFileSync(String(server.options.privateKey), key);
      execFileSync("ssh-keygen", ["-q", "-p", "-P", String(server.options.passphrase), "-N", "", "-f", key]);
      const command = peer({ server, from, to, dir, key });
      const best = async (times: number, prepare: (n: number) => void): Promise<Run> => {
        let found: Run | undefined;
        for (let n = 0; n < times; n++) {
          prepare(n);
          const run = await measure(command);
          if (found === undefined || run.seconds < found.seconds) found = run;
        }
        if (found === undefined) throw new Error("it was not run");
        return found;
      };
      const first = await best(cell.files > 10_000 ? 1 : runs, () => {
        for (const made of [to, join(dir, "state"), join(from, ".filesync")]) rmSync(made, { recursive: true, force: true });
        mkdirSync(to);
      });
      expectAll(to, cell);
      const same = await best(runs, () => undefined);
      const changed = await best(runs, (n) => writeFileSync(join(from, `d${n}`, "new"), "new"));
      return [first.seconds.toFixed(2), same.seconds.toFixed(2), changed.seconds.toFixed(2), first.rssMb.toFixed(0)];
    } finally {
      await server.stop();
    }
  });
}
