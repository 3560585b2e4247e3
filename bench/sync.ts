/**
 * A mirror at OpenSSH beside `rclone sync` and `lftp mirror`, which speak SFTP as ours does, and rsync, which runs code at the server; two-way beside `rclone bisync`, and unison, which runs code
 * there too: a first time, with nothing changed, and with one file changed. FileSync is `run --once` with its journal; its server syncs each file where it can (fsync@openssh.com), the others' does
 * not. Where the account runs commands ours has each file digested there; "SFTP alone" is without that, as at an account that has nothing else.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openssh, type SftpServerUnderTest } from "../test/conformance/sftp-servers.js";
import { CountingRelay } from "../test/faults/counting-relay.js";
import { mainJs } from "../test/faults/process.js";
import { has, heading, inTempDir, table } from "./measure.js";
import { expectAll, isAsked, makeFiles, measure, rttMs, runs, type Cell, type Run } from "./push.js";

const cells: readonly Cell[] = [
  { name: "10,000 × 200 B in 100 directories", dirs: 100, files: 10_000, bytes: 200 },
  { name: "100,000 × 200 B in 1,000 directories", dirs: 1000, files: 100_000, bytes: 200 },
  { name: `200 × 200 B in 10 directories, ${rttMs} ms round trip`, dirs: 10, files: 200, bytes: 200, far: true },
];

interface Place {
  readonly server: SftpServerUnderTest;
  readonly from: string;
  readonly to: string;
  readonly dir: string;
  readonly key: string;
}

/** `first`: nothing is there yet. */
type Peer = (place: Place, first: boolean) => readonly string[];

const remoteOf = ({ server, to, key }: Place) => {
  const user = String(server.options.user);
  return `:sftp,host=127.0.0.1,port=${server.port},user=${user},key_file=${key},disable_hashcheck=true,shell_type=none:${to}`;
};

/** Without its checksums: for each file it would log in once more to run md5sum there, ten files a second. */
const rclone: Peer = (place) => [
  "rclone",
  "--config",
  "/dev/null",
  "sync",
  "--transfers",
  "8",
  "--checkers",
  "16",
  place.from,
  remoteOf(place),
];

const bisync: Peer = (place, first) => [
  ...["rclone", "--config", "/dev/null", "bisync", place.from, remoteOf(place), "--workdir", join(place.dir, "bisync")],
  ...["--transfers", "8", "--checkers", "16", ...(first ? ["--resync"] : [])],
];

const sshArgsOf = ({ server, key }: Place) =>
  `-p ${server.port} -l ${String(server.options.user)} -i ${key} -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null`;

const lftp: Peer = (place) => [
  "lftp",
  "-c",
  `set sftp:connect-program "ssh ${sshArgsOf(place)} -a -x"; open -u ${String(place.server.options.user)},x sftp://127.0.0.1:${place.server.port}; mirror -R -e --parallel=8 ${place.from} ${place.to}`,
];

const rsync: Peer = (place) => ["rsync", "-a", "--delete", "-e", `ssh ${sshArgsOf(place)}`, `${place.from}/`, `127.0.0.1:${place.to}/`];

/** The archives of an earlier first time are kept at the server, too. */
const unison: Peer = (place, first) => [
  ...["env", `UNISON=${join(place.dir, "unison")}`, "unison", place.from, `ssh://127.0.0.1/${place.to}`],
  ...["-sshargs", sshArgsOf(place), "-batch", "-auto", "-silent", "-times", "-confirmbigdel=false", ...(first ? ["-ignorearchives"] : [])],
];

/** With the same key: to open one with a passphrase takes more than half a second. */
const ours =
  (route: object, device: object = {}): Peer =>
  ({ server, from, dir, key }) => {
    const { passphrase: _, ...options } = server.options;
    const nas = { type: "sftp", host: "127.0.0.1", port: server.port, root: server.seen, ...options, privateKey: key, ...device };
    const config = join(dir, "config.json");
    const devices = { in: { type: "local", dir: from, settle: "0s" }, nas };
    writeFileSync(
      config,
      JSON.stringify({ stateDir: join(dir, "state"), devices, routes: [{ from: "in", to: ["nas"], into: "to", ...route }] }),
    );
    return [process.execPath, mainJs, "run", "--once", "--json", "--config", config];
  };

const mirror = { mode: "mirror", deletes: true };
const twoWay = { mode: "two-way" };

/** By the program that has to be there. */
const peers: readonly (readonly [program: string, name: string, Peer])[] = [
  ["rclone", "rclone sync", rclone],
  ["lftp", "lftp mirror", lftp],
  ["rsync", "rsync (runs code there)", rsync],
  ["node", "FileSync, mirror", ours(mirror)],
  ["node", "FileSync, mirror, SFTP alone", ours(mirror, { verify: "size" })],
  ["rclone", "rclone bisync", bisync],
  ["unison", "unison (runs code there)", unison],
  ["node", "FileSync, two-way", ours(twoWay)],
  ["node", "FileSync, two-way, SFTP alone", ours(twoWay, { verify: "size" })],
];

/** What went over this machine's loopback, both ways and with all headers: nothing else may use it. A relay has all of it go there twice. */
function wireBytes(): number {
  return Number(readFileSync("/sys/class/net/lo/statistics/rx_bytes", "utf8"));
}

/** `only`: numbers of cells. */
export async function sync(only: readonly string[] = []): Promise<void> {
  heading("sync");
  if (openssh.skip !== undefined) {
    console.log(`skipped: ${openssh.skip}`);
    return;
  }
  for (const [n, cell] of cells.entries()) {
    if (only.length > 0 && !only.includes(String(n))) continue;
    const rows = await inTempDir((dir) => rowsOf(cell, dir));
    table(
      [
        `${cell.name}, to OpenSSH`,
        "first, s",
        "no change, s",
        "one change, s",
        "peak MB, first",
        "over the line, MB: first",
        "no change",
        "one change",
      ],
      rows,
    );
  }
}

interface Case {
  readonly run: Run;
  readonly wireMb: number;
}

const cases = ["first", "same", "changed"] as const;

/** The first time, with nothing changed, and with one file changed: each the best of so many, but of many files the first time only once. The peers take turns: a machine is not always as fast. */
async function rowsOf(cell: Cell, dir: string): Promise<(readonly string[])[]> {
  const near = await openssh.start();
  const relay = cell.far === true ? await CountingRelay.start(near.port, { delayMs: rttMs / 2 }) : undefined;
  const server = { ...near, port: relay?.port ?? near.port };
  try {
    const [from, to, key] = [join(dir, "in"), join(server.dir, "to"), join(dir, "key")];
    makeFiles(from, cell);
    // The others cannot be told a passphrase.
    copyFileSync(String(server.options.privateKey), key);
    execFileSync("ssh-keygen", ["-q", "-p", "-P", String(server.options.passphrase), "-N", "", "-f", key]);
    const place = { server, from, to, dir, key };
    const kept = [to, join(from, ".filesync"), ...["state", "bisync", "unison"].map((name) => join(dir, name))];
    const changed = join(from, "d0", "new");
    const asked = peers.filter(([program, name]) => has(program) && isAsked(name));
    const best = new Map<string, Case>();
    const run = async (name: string, peer: Peer, which: (typeof cases)[number]): Promise<void> => {
      const before = wireBytes();
      const run = await measure(peer(place, which === "first"));
      const wireMb = (wireBytes() - before) / 1e6 / (relay === undefined ? 1 : 2);
      const other = best.get(`${name} ${which}`);
      if (other === undefined || run.seconds < other.run.seconds) best.set(`${name} ${which}`, { run, wireMb });
    };
    const [turns, again] = cell.files > 10_000 ? [1, runs] : [runs, 1];
    for (let turn = 0; turn < turns; turn++)
      for (const [, name, peer] of asked) {
        for (const made of [...kept, changed]) rmSync(made, { recursive: true, force: true });
        mkdirSync(to);
        await run(name, peer, "first");
        expectAll(to, cell);
        for (let n = 0; n < again; n++) await run(name, peer, "same");
        for (let n = 0; n < again; n++) {
          writeFileSync(changed, `new ${n}`);
          await run(name, peer, "changed");
        }
      }
    return asked.map(([, name]) => {
      const found = cases.map((which) => best.get(`${name} ${which}`)).filter((it) => it !== undefined);
      return [
        name,
        ...found.map((it) => it.run.seconds.toFixed(2)),
        found[0]?.run.rssMb.toFixed(0) ?? "",
        ...found.map((it) => it.wireMb.toFixed(2)),
      ];
    });
  } finally {
    relay?.close();
    await near.stop();
  }
}
