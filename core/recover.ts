/**
 * What a start makes of what the last run left: journal and spool are brought to agree, and a journal that had to be begun anew is filled
 * from the receipts and the sidecars first, so that nothing is sent twice that has a receipt, and no only copy in the spool is forgotten.
 */
import { createHash } from "node:crypto";
import { createReadStream, existsSync, promises as fs } from "node:fs";
import { join } from "node:path";
import { namesIn } from "./config.js";
import type { Engine } from "./engine.js";
import { nameOf } from "./engine.js";
import { removeTemporaries } from "./fs.js";
import { foreignText } from "./queue.js";
import { hasForgotten, lineOf, linesIn, setForgotten } from "./receipts.js";
import { reasonOf } from "./retry.js";
import { dayOf } from "./route.js";
import { isKept, type Marks, type StoredReceipt, type VersionRow } from "./rows.js";
import { tellAside } from "./space.js";
import type { Sending } from "./single-shot.js";
import type { Sidecar } from "./spool.js";

/** Runs before anything is listed or claimed. `stateDir` is locked; `rebuilt`: the journal was set aside. */
export async function recover(engine: Engine, stateDir: string, rebuilt: boolean): Promise<void> {
  const { journal, queue, spool } = engine;
  // Power may go while it is rebuilt: until the spool was gone through, the next start does it again.
  const unfinished = journal.meta("recovering") !== undefined;
  const empty = unfinished || (journal.get("SELECT 1 FROM versions LIMIT 1") === undefined && !hasForgotten(journal));
  if (empty) {
    await journal.commit(() => {
      journal.setMeta("recovering", "1");
      if (rebuilt) journal.setMeta("rebuilt", "1");
    });
    const receipts = await importReceipts(engine, join(stateDir, "receipts.jsonl"));
    if (rebuilt || receipts > 0) {
      await journal.commit(() => journal.setMeta("rebuilt", "1"));
      engine.events.say(
        "warn",
        "rebuilt",
        `the journal is begun anew: ${receipts} receipts are known from receipts.jsonl; sources and targets are asked what they have`,
      );
    }
  }
  await removeTemporaries(stateDir);
  for (const name of namesIn(engine.config)) {
    const dir = join(stateDir, "devices", name);
    if (existsSync(dir)) await removeTemporaries(dir);
  }
  const files = new Set(await spool.open());
  for (const id of files) {
    const version = queue.version(id);
    if (version !== undefined && version.spooled > 0) continue;
    const sidecar = version === undefined || empty ? await spool.readSidecar(id) : undefined;
    if (sidecar !== undefined && (await restore(engine, sidecar))) continue;
    // It was given up, and power went before that was done: what was whole here once may be all that there is.
    if (version?.state === "found" && version.digest !== null) tellAside(engine, version, await spool.setAside(id));
    else await spool.drop(id);
  }
  if (empty) await journal.commit(() => journal.setMeta("recovering", undefined));
  // All versions are looked at: only where there may be such.
  if (engine.config.routes.some(({ afterDelivery }) => afterDelivery !== "keep"))
    for (const { id, source, path, medium } of journal.all<VersionRow>(`SELECT id, source, path, medium FROM versions v WHERE ${isKept}`))
      if (namesIn(engine.config).includes(source)) queue.kept.set(id, { source, path, medium });
  for (const version of journal.all<VersionRow>("SELECT * FROM versions WHERE spooled > 0")) {
    const size = files.has(version.id) ? (await fs.stat(spool.pathOf(version.id))).size : -1;
    if (size >= version.durable && size >= 0) {
      spool.hold(version.id, version.size);
      continue;
    }
    if (size === -1 && version.durable === 0) {
      await journal.apply(() => journal.run("UPDATE versions SET spooled = 0 WHERE id = ?", version.id));
      continue;
    }
    // The journal says more than the medium kept: whatever was sent of it is another generation's.
    const aside = await spool.setAside(version.id);
    await journal.commit(() => {
      journal.run(
        "UPDATE versions SET state = CASE state WHEN 'gone' THEN 'gone' ELSE 'found' END, durable = 0, spooled = 0, generation = generation + 1 WHERE id = ?",
        version.id,
      );
      journal.run("UPDATE deliveries SET state = 'wanting' WHERE version = ? AND state IN ('ready', 'active')", version.id);
    });
    engine.events.say(
      "warn",
      "spool-damaged",
      `${nameOf(version)}: its spool file holds ${Math.max(0, size)} of ${version.durable} bytes; it is read again`,
      {
        device: version.source,
        path: version.path,
      },
    );
    tellAside(engine, version, aside);
  }
  await queue.recover();
  tellForeign(engine);
}

/** Says what waits for a device that the configuration does not have. */
export function tellForeign({ queue, events, config }: Engine): void {
  for (const foreign of queue.foreign(namesIn(config))) {
    const { source, target, away, deliveries } = foreign;
    const what = `${deliveries} ${deliveries === 1 ? "delivery waits" : "deliveries wait"}`;
    events.say("warn", "foreign", `${source} → ${target}: ${what}: ${foreignText(foreign)}`, { device: away });
  }
}

/** A sealed spool file whose version the journal no longer knows. True when it is whole and was put back into the queue. */
async function restore(engine: Engine, sidecar: Sidecar): Promise<boolean> {
  const routes = engine.routes.get(sidecar.source);
  if (routes === undefined) return false;
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(engine.spool.pathOf(sidecar.version), { highWaterMark: 2 ** 20 }))
      hash.update(chunk as Buffer);
  } catch (error) {
    engine.events.say("warn", "spool-damaged", `${nameOf(sidecar)}: its spool file cannot be read: ${reasonOf(error)}`);
    return false;
  }
  if (`sha256:${hash.digest("hex")}` !== sidecar.digest) return false;
  const entry = {
    kind: "file" as const,
    path: sidecar.path,
    size: sidecar.size,
    ...(sidecar.modifiedMs === undefined ? {} : { modifiedMs: sidecar.modifiedMs }),
    ...(sidecar.medium === undefined ? {} : { medium: sidecar.medium }),
  };
  const { version: id, source, digest } = sidecar;
  await engine.journal.commit(() => {
    engine.queue.add(id, source, entry, { store: "spool", after: "keep", trustSize: false, foundMs: engine.clock.wallMs() });
    engine.journal.run(
      "UPDATE versions SET state = 'sealed', durable = size, digest = ?, sealed_ms = ?, spooled = MAX(size, 1), generation = ? WHERE id = ?",
      digest,
      engine.clock.wallMs(),
      sidecar.generation + 1,
      id,
    );
    const version = engine.queue.version(id);
    if (version === undefined) return;
    for (const { rules } of routes)
      if (rules.wants(entry)) engine.queue.addDeliveries(version, rules.plan(id, entry, dayOf(entry), engine.names));
    engine.journal.run("UPDATE deliveries SET begun = ? WHERE version = ?", sidecar.generation + 1, id);
  });
  engine.spool.hold(id, sidecar.size);
  return true;
}

/**
 * Each receipt is a version and a delivery that is done. Lines that cannot be read (a torn tail) are passed over. Returns how many there are.
 * A version that turns out to be needed again (another target) is pulled again.
 */
async function importReceipts(engine: Engine, path: string): Promise<number> {
  const { journal } = engine;
  let count = 0;
  let group: StoredReceipt[] = [];
  const store = async () => {
    const receipts = group;
    group = [];
    await journal.apply(() => {
      for (const receipt of receipts) {
        const { delivery, version, from, source, size, to } = receipt;
        const at = Date.parse(receipt.at) || 0;
        journal.run(
          `INSERT INTO versions (id, source, path, size, modified_ms, state, store, generation, digest, found_ms, medium, released)
           VALUES (?, ?, ?, ?, ?, 'found', 'spool', 1, ?, ?, ?, 'before the journal was lost') ON CONFLICT (id) DO NOTHING`,
          version,
          from,
          source,
          size,
          receipt.modifiedMs ?? null,
          receipt.digest ?? null,
          at,
          receipt.medium ?? "",
        );
        journal.run(
          `INSERT INTO deliveries (id, version, source, target, path, required, state, size, weight, rank, receipt, done_ms, medium)
           VALUES (?, ?, ?, ?, ?, 1, 'done', ?, 0, 0, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET receipt = excluded.receipt`,
          delivery,
          version,
          from,
          to,
          receipt.path,
          size,
          JSON.stringify(receipt),
          at,
          receipt.medium ?? "",
        );
        count += 1;
      }
    });
  };
  /** Single shots that were on their way, or in doubt: their deliveries are found again, and begin with this. */
  const shots = new Map<string, Sending>();
  for await (const text of linesIn(path)) {
    const line = lineOf(text);
    if (line?.what === "receipt") group.push(line.receipt);
    else if (line?.what === "forgotten") await journal.apply(() => setForgotten(journal, line.forgotten));
    else if (line?.what === "sending" && line.record === null) shots.delete(line.delivery);
    else if (line?.what === "sending" && line.record !== null) shots.set(line.delivery, line.record);
    if (group.length >= 1000) await store();
  }
  await store();
  await journal.apply(() => {
    for (const [id, sending] of shots) {
      const marks: Marks = { sending };
      journal.setMeta(`marks:${id}`, JSON.stringify(marks));
    }
  });
  return count;
}
