/** How it goes, in figures (`PluginContext.figures`): drawn from `status`, with what only a monitor asks for. */
import { promises as fs } from "node:fs";
import { join } from "node:path";
import type { Engine } from "./engine.js";
import { Fault } from "./errors.js";
import type { Figures } from "./plugin.js";
import { reasonOf } from "./retry.js";
import { elsewhere } from "./rows.js";
import { statusOf } from "./status.js";

export async function figuresOf(engine: Engine): Promise<Figures> {
  const { config, journal, spool, events } = engine;
  await journal.durable().catch((error: unknown) => {
    throw new Fault("transient", `the journal in ${config.stateDir} cannot be written: ${reasonOf(error)}`, { cause: error });
  });
  const [freeBytes, journalBytes] = await Promise.all([spool.freeBytes(), sizeOf(join(config.stateDir, "journal.db"))]);
  const { devices, queue, transfers, bytes, moved, configuration, summary } = statusOf(engine, "", true);
  const faults = journal.all<{ fault: string | null; n: number }>(
    `SELECT fault, COUNT(*) AS n FROM deliveries WHERE ${elsewhere} AND state = 'parked' GROUP BY fault`,
  );
  const lastMs = journal.get<{ ms: number | null }>("SELECT MAX(done_ms) AS ms FROM deliveries WHERE state = 'done'")?.ms;
  return {
    summary,
    mistakes: configuration?.mistakes.length ?? 0,
    devices: devices.map(({ name, type, presence }) => ({ name, type, attached: presence === "attached" })),
    deliveries: queue,
    parked: Object.fromEntries(faults.map(({ fault, n }) => [fault ?? "unknown", n])),
    bytes,
    moved,
    transfers: transfers.map(({ from, to, bytesPerSecond }) => ({ from, to, bytesPerSecond })),
    spool: { usedBytes: spool.usedBytes, maxBytes: spool.maxSizeBytes, freeBytes },
    journalBytes,
    events: { ...events.counts },
    ...(typeof lastMs === "number" ? { lastDeliveryMs: lastMs } : {}),
  };
}

/** With its WAL, which is not there after a clean stop. */
async function sizeOf(journal: string): Promise<number> {
  const sizes = await Promise.all(
    [journal, `${journal}-wal`].map((path) =>
      fs.stat(path).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}
