/**
 * The campaign: a simulated flight controller → spool → FTP, and a second, local target; the daemon is killed with -9 at random moments,
 * start-up and shut-down included. Bytes moved again are counted outside the program: by the simulator on the first hop, by a relay on the second.
 *
 *   npm run campaign -- --seed S --kills N
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { startSim } from "../../sim/sim.js";
import { startGround } from "./ground.js";
import { killOften, type KillReport } from "./kills.js";
import { Random } from "./random.js";
import { FtpRelay } from "./relay.js";
import { assertReceiptsTrue, assertSameTree, treeOf } from "./trees.js";

export interface CampaignReport extends KillReport {
  readonly seed: number;
  readonly bytes: number;
  /** Moved beyond the bytes that there are, on each hop. */
  readonly pulledAgain: number;
  readonly pushedAgain: number;
  /** What a kill may cost at most on each hop. */
  readonly allowedPerKill: number;
}

/** 4 MiB and 10 s of transfer, whichever is less; samples for identity and what is on its way when a link is cut are part of it. */
const allowedPerKill = 4 * 2 ** 20;

export async function campaign(options: {
  seed: number;
  kills: number;
  files: number;
  longestMs: number;
  link?: string;
}): Promise<CampaignReport> {
  const random = new Random(options.seed);
  const dir = mkdtempSync(join(tmpdir(), "filesync-campaign-"));
  const logs = join(dir, "vehicle", "log");
  let bytes = 0;
  for (let n = 0; n < options.files; n++) {
    const path = join(
      logs,
      `2026-05-${String(1 + (n % 9)).padStart(2, "0")}`,
      `10_${String(Math.floor(n / 60)).padStart(2, "0")}_${String(n % 60).padStart(2, "0")}.ulg`,
    );
    const size = n === 0 ? 0 : n % 5 === 1 ? random.between(3_000_000, 12_000_000) : random.between(1, 400_000);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, random.bytes(size));
    bytes += size;
  }
  const second = join(dir, "second");
  mkdirSync(second);
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir: join(dir, "vehicle"), link: options.link ?? "none" });
  const ground = await startGround(join(dir, "ground"));
  const relay = await FtpRelay.start(ground.port);
  try {
    const config = join(dir, "config.json");
    writeFileSync(
      config,
      JSON.stringify({
        vehicle: "plane",
        stateDir: "state",
        spool: { keepFree: "1MiB" },
        devices: {
          pixhawk: { type: "mavftp", url: sim.clientUrl, root: "/log", settle: "0s", maxRate: "4MiB/s" },
          ground: { type: "ftp", host: "127.0.0.1", port: relay.port, user: "plane", password: "secret", maxRate: "3MiB/s" },
          second: { type: "local", dir: second },
        },
        routes: [{ from: "pixhawk", to: ["ground", "second"], into: "logs" }],
      }),
    );
    const report = await killOften(config, random, { kills: options.kills, longestMs: options.longestMs });
    const source = treeOf(logs);
    assertSameTree(treeOf(join(ground.root, "logs")), source, "the FTP server");
    assertSameTree(treeOf(join(second, "logs")), source, "the second target");
    const receipts = assertReceiptsTrue(join(dir, "state"), { ground: ground.root, second });
    if (receipts.size !== 2 * source.size) throw new Error(`${receipts.size} receipts for ${source.size} files and two targets`);
    const left = readdirSync(join(dir, "state", "spool")).filter((name) => !/^[0-9a-f]{16}(\.json)?$/.test(name));
    if (left.length > 0) throw new Error(`left in the spool: ${left.join(", ")}`);
    if (sim.openSessions() > 0) throw new Error(`${sim.openSessions()} sessions are open on the flight controller`);
    const result = {
      ...report,
      seed: options.seed,
      bytes,
      pulledAgain: sim.stats.payloadBytes - bytes,
      pushedAgain: relay.uploadedBytes - bytes,
      allowedPerKill,
    };
    for (const [hop, again] of [
      ["pulled", result.pulledAgain],
      ["pushed", result.pushedAgain],
    ] as const)
      if (again > allowedPerKill * options.kills)
        throw new Error(`${hop} ${again} bytes again in ${options.kills} kills, more than ${allowedPerKill} each`);
    rmSync(dir, { recursive: true, force: true });
    return result;
  } catch (error) {
    throw new Error(`seed ${options.seed}, files left in ${dir}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  } finally {
    await relay.close();
    await ground.program.kill();
    await sim.close();
  }
}
