/** What a journal says while no daemon runs. Takes the state directory for that moment, and starts no device. */
import { RealClock } from "../core/clock.js";
import type { Config } from "../core/config.js";
import type { Engine } from "../core/engine.js";
import { Events } from "../core/events.js";
import { installationOf, lockStateDir, machineName } from "../core/installation.js";
import { Journal } from "../core/journal.js";
import { LiveFiles } from "../core/live.js";
import { Queue } from "../core/queue.js";
import { Spool } from "../core/spool.js";
import { statusOf, type Status } from "../core/status.js";
import { Transfers } from "../core/transfers.js";
import { Subject } from "rxjs";
import { programVersion } from "./version.js";

export async function statusWithoutDaemon(config: Config): Promise<Status> {
  const lock = await lockStateDir(config.stateDir);
  try {
    const journal = await Journal.open(config.stateDir);
    try {
      const clock = new RealClock();
      const installation = await installationOf(config.stateDir, machineName());
      const spool = new Spool(config.stateDir, { maxSizeBytes: config.spool.maxSize, keepFreeBytes: config.spool.keepFree });
      for (const { id, size } of journal.all<{ id: string; size: number }>("SELECT id, size FROM versions WHERE spooled > 0"))
        spool.hold(id, size);
      const engine: Engine = {
        config,
        names: { vehicle: config.vehicle, installation: installation.id },
        clock,
        events: new Events(),
        journal,
        queue: new Queue(journal, clock),
        spool,
        live: new LiveFiles(),
        transfers: new Transfers(clock),
        lanes: new Map(),
        routes: new Map(),
        work$: new Subject(),
        relist$: new Subject(),
        random: Math.random,
        upMs: () => 0,
      };
      return statusOf(engine, programVersion, false);
    } finally {
      await journal.close();
    }
  } finally {
    lock.release();
  }
}
