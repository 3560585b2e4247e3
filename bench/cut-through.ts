/** 1 GiB to a real vsftpd (our own server where there is none), beside curl on the same file; and the time from the last byte to the receipt. */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runProgram } from "../test/faults/process.js";
import { ownPlain, vsftpd } from "../test/conformance/ftp-servers.js";
import { has, heading, inTempDir, median, table } from "./measure.js";

const gib = 2 ** 30;
const runs = 3;

export async function cutThrough(): Promise<void> {
  heading("cut-through");
  const kind = vsftpd.skip === undefined ? vsftpd : ownPlain;
  const server = await kind.start();
  try {
    await inTempDir(async (dir) => {
      mkdirSync(join(dir, "in"));
      const file = join(dir, "in", "big.bin");
      const part = Buffer.alloc(2 ** 24, 0xa7);
      for (let n = 0; n < 64; n++) {
        part.writeUInt32LE(n, 0);
        writeFileSync(file, part, { flag: "a" });
      }
      utimesSync(file, 1_780_000_000, 1_780_000_000);
      const times: Record<string, number[]> = { curl: [], "in place": [], "through the spool": [] };
      const receipts: number[] = [];
      for (let run = 0; run < runs; run++) {
        if (has("curl")) {
          const began = performance.now();
          const curl = spawnSync("curl", [
            "-sS",
            "-T",
            file,
            "--ftp-create-dirs",
            `ftp://127.0.0.1:${server.port}/curl.bin`,
            "-u",
            `${server.user}:${server.password}`,
          ]);
          if (curl.status !== 0) throw new Error(curl.stderr.toString());
          times.curl?.push((performance.now() - began) / 1000);
        }
        for (const inPlace of [true, false]) {
          const state = join(dir, `state-${String(inPlace)}-${run}`);
          const config = join(dir, "config.json");
          writeFileSync(
            config,
            JSON.stringify({
              stateDir: state,
              spool: { keepFree: "1MiB" },
              devices: {
                in: { type: "local", dir: "in", inPlace },
                ftp: { type: "ftp", host: "127.0.0.1", port: server.port, user: server.user, password: server.password },
              },
              routes: [{ from: "in", to: ["ftp"], into: `${String(inPlace)}-${run}` }],
            }),
          );
          const began = performance.now();
          const { code, out } = await runProgram(["run", "--once", "--json", "--config", config]);
          if (code !== 0) throw new Error(out);
          times[inPlace ? "in place" : "through the spool"]?.push((performance.now() - began) / 1000);
          const receipt = JSON.parse(readFileSync(join(state, "receipts.jsonl"), "utf8").trim().split("\n").at(-1) ?? "{}") as {
            at: string;
          };
          // The partial's last write is its modification time until the server sets it: the status change of the published file is the rename.
          const arrived = statSync(join(server.dir, `${String(inPlace)}-${run}`, "big.bin")).ctimeMs;
          receipts.push(Date.parse(receipt.at) - arrived);
          rmSync(state, { recursive: true, force: true });
          rmSync(join(server.dir, `${String(inPlace)}-${run}`), { recursive: true, force: true });
        }
      }
      const best = median(times.curl ?? []);
      table(
        [`1 GiB to ${kind.name}`, "s (median of 3)", "× curl"],
        Object.entries(times).map(([what, all]) => [what, median(all).toFixed(2), (median(all) / best).toFixed(2)]),
      );
      console.log(
        `MB/s in place: ${(gib / 1e6 / median(times["in place"] ?? [])).toFixed(0)}; rename at the server to receipt: at most ${Math.max(...receipts).toFixed(0)} ms\n`,
      );
    });
  } finally {
    await server.stop();
  }
}
