/**
 * What a start makes of what the last run left: journal and spool are brought to agree, and a journal that had to be begun anew is filled
 * from the receipts and the sidecars first, so that nothing is sent twice that has a receipt, and no only copy in the spool is forgotten.
 */
import { createHash } from "node:crypto";
import { createReadStream, existsSync, promises as fs } from "node:fs";
import { join } from "node:path";
import { namesIn } from "./config.js";
import { considerAnew } from "./considered.js";
import type { Engine } from "./engine.js";
import { nameOf } from "./engine.js";
import { textOfErrno } from "./errors.js";
import { removeTemporaries } from "./fs.js";
import { foreignText } from "./queue.js";
import { hasForgotten, type Line, lineOf, linesIn, setForgotten } from "./receipts.js";
import { dayOf } from "./route.js";
import { isKept, type Marks, olderKey, placeOf, type StoredReceipt, type VersionRow } from "./rows.js";
import { madeAnew, orTold, tellAside } from "./space.js";
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
  /** More than power alone takes of a journal. */
  let lost = false;
  const files = new Set(await spool.open());
  for (const id of files) {
    const version = queue.version(id);
    if (version !== undefined && version.spooled > 0 && version.state !== "found") continue;
    const sidecar = await spool.readSidecar(id);
    const known = empty ? undefined : version;
    const news = sidecar !== undefined && isNews(sidecar, known) ? sidecar : undefined;
    if (news !== undefined && known === undefined && !engine.routes.has(news.source)) {
      const what = `its copy in the spool, which the journal does not know, stays as ${spool.pathOf(id)}`;
      const text = `${nameOf(news)}: ${what}: no route of the configuration begins at "${news.source}": put it back, or remove that copy`;
      engine.events.say("warn", "foreign", text, { device: news.source, path: news.path });
      continue;
    }
    if (news !== undefined && (await restore(engine, news, known))) {
      lost ||= !empty && news.generation !== version?.generation;
      continue;
    }
    if (version !== undefined && version.spooled > 0) continue;
    if (version !== undefined && sidecar !== undefined && isGrown(sidecar, version)) {
      await journal.commit(() =>
        journal.run("UPDATE versions SET durable = size, spooled = MAX(size, 1), digest = ? WHERE id = ?", sidecar.digest, id),
      );
      continue;
    }
    // It was given up, and power went before that was done: what was whole here once may be all that there is. So may be what the journal does not know, and is not what it was.
    const wasWhole = version?.state === "found" && version.digest !== null ? version : news;
    await orTold(engine, id, async () => {
      if (wasWhole !== undefined) tellAside(engine, wasWhole, await spool.setAside(id));
      else await spool.drop(id);
    });
  }
  if (empty)
    await journal.commit(() => {
      journal.noteReceipts();
      noteOlder(engine);
      journal.setMeta("recovering", undefined);
    });
  // All versions are looked at: only where there may be such.
  if (engine.config.routes.some(({ afterDelivery }) => afterDelivery !== "keep"))
    for (const { id, source, path, medium } of journal.all<VersionRow>(`SELECT id, source, path, medium FROM versions v WHERE ${isKept}`))
      if (namesIn(engine.config).includes(source)) queue.kept.set(id, { source, path, medium });
  for (const version of journal.all<VersionRow>("SELECT * FROM versions WHERE spooled > 0")) {
    const size = files.has(version.id) ? await sizeOf(engine, version.id) : -1;
    if (size >= version.durable && size >= 0) {
      spool.hold(version.id, Math.min(size, version.size));
      continue;
    }
    if (size === -1 && version.durable === 0) {
      await journal.apply(() => journal.run("UPDATE versions SET spooled = 0 WHERE id = ?", version.id));
      continue;
    }
    // The journal says more than the medium kept: whatever was sent of it is another generation's.
    if (await madeAnew(engine, version)) continue;
    const aside = await orTold(engine, version.id, () => spool.setAside(version.id));
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
  await catchUp(engine, join(stateDir, "receipts.jsonl"), lost);
  tellForeign(engine);
}

/** Of what cannot be looked at, nothing can be used. */
async function sizeOf(engine: Engine, id: string): Promise<number> {
  try {
    return (await fs.stat(engine.spool.pathOf(id))).size;
  } catch (error) {
    engine.events.say("warn", "spool-damaged", textOfErrno(error, `the spool file ${engine.spool.pathOf(id)} cannot be looked at`));
    return 0;
  }
}

/**
 * Lines that the journal does not know are believed. After a power cut they are the last ones, which were on the medium before their transaction was; or the
 * medium took back what had been synced of the journal's log, of which SQLite says nothing.
 */
async function catchUp(engine: Engine, path: string, lost: boolean): Promise<void> {
  const { journal, queue, events } = engine;
  const from = journal.unknownFrom;
  let taken = 0;
  const take = (line: Line | undefined) => {
    if (line?.what === "receipt") {
      const { receipt } = line;
      const text = JSON.stringify(receipt);
      const known = queue.delivery(receipt.delivery);
      if (known?.receipt === text) return;
      if (known === undefined) importReceipt(engine, receipt);
      // Of the journal's end more may have gone than this line.
      else if (queue.version(receipt.version)?.after !== "keep") queue.leaving.doubt(receipt.version);
      queue.done(receipt.delivery, receipt, text, Date.parse(receipt.at) || 0);
      journal.setMeta(`marks:${receipt.delivery}`, undefined);
      taken += 1;
      // That it was begun was durable before.
      if (lost || (known?.begun ?? 0) > 0) return;
      lost = true;
      noteLost(engine);
    } else if (line?.what === "sending") {
      const { delivery, record } = line;
      const known = queue.delivery(delivery);
      // A person had it sent once more, and the journal lost that: it stays delivered.
      if (known?.state === "done") return;
      const marks: Marks = record === null ? {} : { sending: record };
      if (known !== undefined) queue.setMarks(delivery, marks);
      else journal.setMeta(`marks:${delivery}`, record === null ? undefined : JSON.stringify(marks));
      taken += 1;
    }
  };
  let group: string[] = [];
  const store = async () => {
    const texts = group;
    group = [];
    await journal.apply(() => {
      for (const text of texts) take(lineOf(text));
      queue.leaving.noteDoubts();
      // With the lines: the next start knows them, and would not know that more was lost.
      if (lost) noteOlder(engine);
    });
  };
  if (from !== undefined)
    for await (const text of linesIn(path, from)) {
      group.push(text);
      if (group.length >= 1000) await store();
    }
  await store();
  await journal.apply(() => journal.noteReceipts());
  if (taken === 0) return;
  await journal.durable();
  events.say(
    lost ? "warn" : "info",
    "journal-older",
    `the journal did not know the last ${taken === 1 ? "line" : `${taken} lines`} of receipts.jsonl: ${lost ? "what had been synced of it is gone from the medium, perhaps more than that; " : ""}what is delivered there counts as delivered`,
    { lines: taken },
  );
}

/** Inside `apply`. What was found or begun since is as unknown as to a journal that is begun anew, and of what is known by a receipt or a sidecar, who else gets it. */
function noteLost(engine: Engine): void {
  engine.journal.setMeta("rebuilt", "1");
  considerAnew(engine);
  noteOlder(engine);
}

/** Inside `apply`. Of no version that is known now it is known whether its place was used again. */
function noteOlder({ journal }: Engine): void {
  const latest = journal.get<{ ms: number | null }>("SELECT MAX(found_ms) AS ms FROM versions")?.ms;
  journal.setMeta(olderKey, String(latest ?? 0));
}

/** Says what waits for a device that the configuration does not have. */
export function tellForeign({ queue, events, config }: Engine): void {
  for (const foreign of queue.foreign(namesIn(config))) {
    const { source, target, away, deliveries } = foreign;
    const what = `${deliveries} ${deliveries === 1 ? "delivery waits" : "deliveries wait"}`;
    events.say("warn", "foreign", `${source} → ${target}: ${what}: ${foreignText(foreign)}`, { device: away });
  }
}

/** It was whole here before the journal could say so, or the journal lost that. What a file that grew inherits of the version before is learned by its pull. */
function isNews({ generation, digest }: Sidecar, known: VersionRow | undefined): boolean {
  if (known === undefined) return true;
  if (generation !== known.generation) return generation > known.generation && known.state !== "gone";
  return known.state === "found" && known.base === null && (known.digest ?? digest) === digest;
}

/** The same of one that grew: its pull proves it by that digest, without its source. */
function isGrown({ generation, digest }: Sidecar, known: VersionRow): boolean {
  return known.state === "found" && known.base !== null && known.generation === generation && (known.digest ?? digest) === digest;
}

/** A sealed spool file of which the journal does not know that it is one, or nothing at all. True when it is whole and was put back into the queue. */
async function restore(engine: Engine, sidecar: Sidecar, known: VersionRow | undefined): Promise<boolean> {
  const routes = engine.routes.get(sidecar.source);
  if (routes === undefined) return false;
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(engine.spool.pathOf(sidecar.version), { highWaterMark: 2 ** 20 }))
      hash.update(chunk as Buffer);
  } catch (error) {
    engine.events.say("warn", "spool-damaged", textOfErrno(error, `${nameOf(sidecar)}: its spool file cannot be read`));
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
  const { version: id, source, digest, foundMs, superseded } = sidecar;
  // What is at a target of another generation than the journal knows is unknown.
  const generation = known?.generation === sidecar.generation ? known.generation : sidecar.generation + 1;
  await engine.journal.commit(() => {
    engine.queue.add(id, source, entry, { store: "spool", after: "keep", trustSize: false, foundMs: foundMs ?? engine.clock.wallMs() });
    engine.journal.run(
      "UPDATE versions SET state = 'sealed', store = 'spool', durable = size, digest = ?, sealed_ms = ?, spooled = MAX(size, 1), generation = ?, found_ms = COALESCE(?, found_ms), released = COALESCE(?, released) WHERE id = ?",
      digest,
      engine.clock.wallMs(),
      generation,
      // A receipt says only when it was delivered.
      foundMs ?? null,
      superseded === true ? "superseded" : null,
      id,
    );
    const version = engine.queue.version(id);
    if (version === undefined) return;
    for (const { rules } of superseded === true ? [] : routes)
      if (rules.wants(entry)) engine.queue.addDeliveries(version, rules.plan(id, entry, dayOf(entry), engine.names));
    if (generation === known?.generation) return;
    engine.journal.run("UPDATE deliveries SET begun = ? WHERE version = ?", generation, id);
    noteLost(engine);
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
        importReceipt(engine, receipt);
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

/** Inside `apply`. A version and a delivery of it that is done. The next listing, and the rules of then, say what becomes of its file. */
function importReceipt({ journal }: Engine, receipt: StoredReceipt): void {
  const { delivery, version, from, source, size, to } = receipt;
  const at = Date.parse(receipt.at) || 0;
  journal.run(
    `INSERT INTO versions (id, source, path, size, modified_ms, state, store, generation, digest, medium, found_ms)
     VALUES (?1, ?2, ?3, ?4, ?5, 'found', 'spool', 1, ?6, ?7,
       MAX(?8, (SELECT COALESCE(MAX(found_ms) + 1, 0) FROM versions WHERE source = ?2 AND path = ?3 AND medium = ?7))) ON CONFLICT (id) DO NOTHING`,
    version,
    from,
    source,
    size,
    receipt.modifiedMs ?? null,
    receipt.digest ?? null,
    receipt.medium ?? "",
    // Whatever the clock did, what came later is later.
    at,
  );
  journal.run(
    `INSERT INTO deliveries (id, version, source, target, path, required, state, size, weight, rank, receipt, done_ms, medium)
     VALUES (?, ?, ?, ?, ?, 1, 'done', ?, 0, 0, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET receipt = excluded.receipt`,
    delivery,
    version,
    from,
    to,
    placeOf(receipt),
    size,
    JSON.stringify(receipt),
    at,
    receipt.medium ?? "",
  );
}
