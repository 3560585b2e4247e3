/** kill -9 at half of 256 MiB, then the same command once more: how many bytes are sent for nothing, counted by a relay in front of the server. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ownPlain, vsftpd } from "../test/conformance/ftp-servers.js";
import { FtpRelay } from "../test/faults/relay.js";
import { has, heading, inTempDir, mb, median, table } from "./measure.js";
import { ours, peers, type Peer, type Place } from "./peers.js";

const size = 256 * 2 ** 20;
const runs = 3;

const lftp =
  (how: string): Peer =>
  (from, to, server) => [
    "lftp",
    "-c",
    `set ftp:ssl-allow no; set net:max-retries 1; open -u ${server.user},"${server.password}" ftp://127.0.0.1:${server.port}; mkdir -pf ${to}/d0; put ${how} ${from}/d0/big.bin -o ${to}/d0/big.bin`,
  ];
const curl =
  (how: readonly string[]): Peer =>
  (from, to, server) => [
    "curl",
    "-sS",
    ...how,
    "--ftp-create-dirs",
    "-u",
    `${server.user}:${server.password}`,
    "-T",
    `${from}/d0/big.bin`,
    `ftp://127.0.0.1:${server.port}/${to}/d0/big.bin`,
  ];

const all: Readonly<Record<string, Peer>> = {
  ...(peers.rclone === undefined ? {} : { rclone: peers.rclone }),
  "lftp put": lftp(""),
  "lftp put -c": lftp("-c"),
  "curl -T": curl([]),
  "curl -C - -T": curl(["-C", "-"]),
  FileSync: ours,
};

export async function resume(): Promise<void> {
  heading("resume");
  const kind = vsftpd.skip === undefined ? vsftpd : ownPlain;
  const server = await kind.start();
  const rows: string[][] = [];
  try {
    await inTempDir(async (dir) => {
      const from = join(dir, "in");
      mkdirSync(join(from, "d0"), { recursive: true });
      const content = randomBytes(size);
      writeFileSync(join(from, "d0", "big.bin"), content);
      utimesSync(join(from, "d0", "big.bin"), 1_780_000_000, 1_780_000_000);
      for (const [name, peer] of Object.entries(all)) {
        if (name !== "FileSync" && !has(name.split(" ")[0] ?? "")) continue;
        const again: number[] = [];
        for (let run = 0; run < runs; run++) {
          again.push(await killedAtHalf(peer, from, server, dir));
          if (!readFileSync(join(server.dir, "to", "d0", "big.bin")).equals(content)) throw new Error(`${name} left another file`);
          rmSync(join(server.dir, "to"), { recursive: true });
          rmSync(join(dir, "state"), { recursive: true, force: true });
        }
        rows.push([name, mb(median(again))]);
      }
    });
  } finally {
    await server.stop();
  }
  table([`kill -9 at half of 256 MiB, to ${kind.name}`, "MB sent again (median of 3)"], rows);
}

/** Bytes beyond those of the file. */
async function killedAtHalf(peer: Peer, from: string, server: Place, dir: string): Promise<number> {
  const relay = await FtpRelay.start(server.port);
  try {
    const place = { ...server, port: relay.port };
    const run = (until?: number): Promise<number | null> => {
      const [command = "", ...rest] = peer(from, "to", place, dir);
      const child = spawn(command, rest, { stdio: "ignore", detached: true });
      const watch = setInterval(() => {
        if (until !== undefined && relay.uploadedBytes >= until && child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
      }, 1);
      return new Promise((resolve) =>
        child.once("close", (code) => {
          clearInterval(watch);
          resolve(code);
        }),
      );
    };
    await run(size / 2);
    // What the killed one had on its way may still arrive.
    for (let before = -1; before !== relay.uploadedBytes;) {
      before = relay.uploadedBytes;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    const code = await run();
    if (code !== 0) throw new Error(`it ended with ${code}`);
    return relay.uploadedBytes - size;
  } finally {
    await relay.close();
  }
}
