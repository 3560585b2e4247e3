/**
 * The independent checker of the campaign: it shares no code with the engine. It reads trees with plain fs and the journal with plain SQLite, and
 * holds source, spool, journal, receipts and targets against what was made. Each finding begins with its clause.
 */
import { DatabaseSync } from "@photostructure/sqlite";
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { basename, dirname, extname, join } from "node:path";
import { treeOf } from "../trees.js";

/** "size sha256" */
export type Content = string;

export function contentOf(bytes: Buffer): Content {
  return `${bytes.length} ${createHash("sha256").update(bytes).digest("hex")}`;
}

export interface ExpectedTarget {
  readonly name: string;
  readonly root: string;
  /** Path at the target → every content that its source ever had, the one that it has to have last. */
  readonly files: ReadonlyMap<string, readonly Content[]>;
  /** Files of others, which stay as they are. */
  readonly foreign: ReadonlyMap<string, Content>;
}

/** Nothing lost, nothing wrong, nothing overwritten, nothing left lying. Names as treeOf gives them: Latin-1 of the bytes. */
export function checkTarget(expected: ExpectedTarget): string[] {
  const found: string[] = [];
  const { name, files, foreign } = expected;
  const tree = treeOf(expected.root);
  for (const [path, content] of foreign)
    if (tree.get(path) !== content) found.push(`overwritten: ${name}:${path} was ${content}, is ${tree.get(path) ?? "gone"}`);
  for (const [path, contents] of files) {
    const final = contents.at(-1) ?? "";
    if (!namesOf(path, final, contents).some((at) => tree.get(at) === final && mayBe(expected.root, at, path, final, contents)))
      found.push(`lost: ${name}:${path} is ${tree.get(path) ?? "not there"}, and should be ${final}`);
  }
  const legal = new Set<string>();
  for (const [path, contents] of files)
    for (const content of contents)
      for (const at of namesOf(path, content, contents))
        if (tree.get(at) === content && mayBe(expected.root, at, path, content, contents)) legal.add(at);
  for (const [path, content] of tree) {
    if (foreign.get(path) === content || legal.has(path)) continue;
    found.push(/(^|\/)\.[^/]*\.part$/.test(path) ? `left: ${name}:${path}` : `wrong: ${name}:${path} is ${content}`);
  }
  return found;
}

/** Under its own name; where that was taken, under another that tells the content, or that of which it grew. */
function namesOf(path: string, content: Content, contents: readonly Content[]): string[] {
  const began = contents.filter((it) => it === content || sizeOf(it) < sizeOf(content));
  return [path, ...began.map((it) => variantOf(path, it))];
}

/** What has the name of a shorter content begins with that. */
function mayBe(root: string, at: string, path: string, content: Content, contents: readonly Content[]): boolean {
  if (at === path || at === variantOf(path, content)) return true;
  const began = contents.filter((it) => at === variantOf(path, it));
  const bytes = readFileSync(pathOf(root, at));
  return began.some((it) => contentOf(bytes.subarray(0, sizeOf(it))) === it);
}

const sizeOf = (content: Content): number => Number(content.split(" ")[0]);

/** Names are Latin-1 of their bytes. */
const pathOf = (root: string, name: string): Buffer => Buffer.from(join(root, name), "latin1");

function variantOf(path: string, content: Content): string {
  const ext = extname(path);
  const stem = basename(path).slice(0, basename(path).length - ext.length);
  return join(dirname(path), `${stem}~${content.split(" ")[1]?.slice(0, 8)}${ext}`);
}

interface Receipt {
  readonly delivery: string;
  readonly to: string;
  readonly path: string;
  readonly size: number;
  readonly proof: string;
  readonly digest?: string;
  readonly at: string;
}

/** The receipts of receipts.jsonl; a torn line is none. The last of each delivery counts. */
export function receiptsOf(stateDir: string): Map<string, Receipt> {
  const receipts = new Map<string, Receipt>();
  for (const line of readFileSync(join(stateDir, "receipts.jsonl"), "utf8").split("\n")) {
    try {
      const receipt = JSON.parse(line) as Receipt;
      if (typeof receipt.delivery === "string") receipts.set(receipt.delivery, receipt);
    } catch {
      // Torn by a power cut: whoever wrote it did not believe it either.
    }
  }
  return receipts;
}

/** Each receipt is true of what is at its target; where a later one names the same path, the later. `skip`: receipts that were checked and put away. */
export function checkReceipts(stateDir: string, targets: readonly ExpectedTarget[], skip: ReadonlySet<string> = new Set()): string[] {
  const found: string[] = [];
  const last = new Map<string, Receipt>();
  for (const receipt of receiptsOf(stateDir).values()) if (!skip.has(receipt.delivery)) last.set(`${receipt.to}:${receipt.path}`, receipt);
  for (const [place, receipt] of last) {
    const target = targets.find(({ name }) => name === receipt.to);
    if (target === undefined) continue;
    const path = join(target.root, receipt.path);
    if (!existsSync(path)) {
      found.push(`untrue: the receipt for ${place} names what is not there`);
      continue;
    }
    const content = contentOf(readFileSync(path));
    if (!content.startsWith(`${receipt.size} `))
      found.push(`untrue: the receipt for ${place} says ${receipt.size} bytes, it has ${content}`);
    else if (receipt.digest !== undefined && receipt.digest !== `sha256:${content.split(" ")[1]}`)
      found.push(`untrue: the receipt for ${place} says ${receipt.digest}, it is ${content}`);
    else if (receipt.proof !== "size" && receipt.digest === undefined)
      found.push(`untrue: the receipt for ${place} is proved by ${receipt.proof}, without a digest`);
  }
  return found;
}

/** By source and path ("fc:log/a.ulg"), how far each pull that has not ended had come on the medium, by the journal of a daemon that does not run. */
export function durableOf(stateDir: string): Map<string, number> {
  return withJournalCopy(
    stateDir,
    (db) =>
      new Map(
        (
          db.prepare("SELECT source, path, durable FROM versions WHERE state = 'found' AND durable > 0").all() as {
            source: string;
            path: string;
            durable: number;
          }[]
        ).map(({ source, path, durable }) => [`${source}:${path}`, durable]),
      ),
  );
}

/** A copy, because looking at a journal that a kill left would mend it. */
function withJournalCopy<T>(stateDir: string, look: (db: InstanceType<typeof DatabaseSync>) => T): T {
  const copy = mkdtempSync(join(tmpdir(), "filesync-checker-"));
  try {
    for (const name of ["journal.db", "journal.db-wal"])
      if (existsSync(join(stateDir, name))) copyFileSync(join(stateDir, name), join(copy, name));
    const db = new DatabaseSync(join(copy, "journal.db"));
    try {
      return look(db);
    } finally {
      db.close();
    }
  } finally {
    rmSync(copy, { recursive: true });
  }
}

/** The journal is sound, nothing waits, what is done has its line in receipts.jsonl, and the spool holds what the journal says. */
export function checkJournal(stateDir: string): string[] {
  const found: string[] = [];
  for (const name of readdirSync(stateDir)) if (name.startsWith("journal.damaged")) found.push(`damaged: ${name} was set aside`);
  withJournalCopy(stateDir, (db) => {
    const all = <Row>(sql: string) => db.prepare(sql).all() as Row[];
    const sound = all<{ integrity_check: string }>("PRAGMA integrity_check(3)").map((row) => row.integrity_check);
    if (sound.join() !== "ok") found.push(`damaged: journal.db: ${sound.join("; ")}`);
    for (const row of all<{ id: string; target: string; path: string; state: string; fault: string | null; reason: string | null }>(
      "SELECT id, target, path, state, fault, reason FROM deliveries WHERE state NOT IN ('done', 'dropped')",
    ))
      found.push(`stuck: ${row.target}:${row.path} is ${row.state} (${row.fault ?? "-"}: ${row.reason ?? "-"})`);
    const receipts = receiptsOf(stateDir);
    const done = all<{ id: string; path: string; target: string }>("SELECT id, path, target FROM deliveries WHERE state = 'done'");
    for (const { id, path, target } of done)
      if (!receipts.has(id)) found.push(`untrue: ${target}:${path} is done and has no line in receipts.jsonl`);
    const versions = new Map(
      all<{ id: string; path: string; state: string; digest: string | null; durable: number; spooled: number }>(
        "SELECT id, path, state, digest, durable, spooled FROM versions",
      ).map((row) => [row.id, row]),
    );
    const spool = join(stateDir, "spool");
    for (const name of readdirSync(spool)) {
      const version = versions.get(name.replace(/\.json$/, ""));
      if (version === undefined || version.spooled === 0) {
        found.push(`left: spool/${name}`);
        continue;
      }
      if (name.endsWith(".json") || version.state !== "sealed") continue;
      const content = contentOf(readFileSync(join(spool, name)));
      if (version.digest !== `sha256:${content.split(" ")[1]}`)
        found.push(`wrong: spool/${name} (${version.path}) is ${content}, the journal says ${version.durable} ${version.digest}`);
    }
  });
  return found;
}

/** A source that is kept is untouched. */
export function checkSource(name: string, root: string, expected: ReadonlyMap<string, Content>): string[] {
  const tree = treeOf(root);
  const found: string[] = [];
  for (const [path, content] of expected)
    if (tree.get(path) !== content) found.push(`source: ${name}:${path} was ${content}, is ${tree.get(path) ?? "gone"}`);
  for (const path of tree.keys()) if (!expected.has(path)) found.push(`source: ${name}:${path} was not made by the campaign`);
  return found;
}

/** Where the final content seems not to be there yet, by size alone: for waiting. */
export function missingAt(expected: ExpectedTarget): string[] {
  const missing: string[] = [];
  for (const [path, contents] of expected.files) {
    const final = contents.at(-1) ?? "";
    // A stranger's file may have the very size, and does not move away.
    const stays = expected.foreign.get(path) ?? final;
    const names = namesOf(path, final, contents).filter((at) => at !== path || stays === final);
    const sizes = names.map((at) => statSync(pathOf(expected.root, at), { throwIfNoEntry: false })?.size);
    if (!sizes.includes(sizeOf(final))) missing.push(path);
  }
  return missing;
}
