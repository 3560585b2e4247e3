/**
 * The campaign of a single shot: the daemon under seeded kills and stops, a link that is reset, frozen, swallowed or refused, and the double of Flight Review
 * that breaks off, keeps its answer, refuses, or is away. A server that takes a file in one request has no partial and no second look, so this is held:
 * nothing is lost (each file is stored, or waits in doubt for a person), and nothing is stored twice unless a person said so.
 */
import { appendFileSync, mkdirSync, mkdtempSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { openDatabase } from "../../../core/sqlite.js";
import { FlightReviewDouble, ulog, type Trick } from "../../doubles/flight-review.js";
import { Program, runProgram } from "../process.js";
import { Random } from "../random.js";
import { checkReceipts, checkSource, contentOf, type Content } from "./checker.js";
import { RoughRelay } from "./relay.js";

export interface PostCampaignOptions {
  readonly seed: number;
  readonly rounds: number;
  readonly livesPerRound: number;
  readonly lifeMs: number;
  /** Ends earlier, after the round in which this time is over. */
  readonly minutes?: number;
  readonly say?: (line: string) => void;
}

export interface PostCampaignReport {
  readonly seed: number;
  readonly rounds: number;
  readonly counts: Readonly<Record<string, number>>;
  readonly files: number;
  readonly posted: number;
  /** How many had to be decided by a person. */
  readonly inDoubt: number;
  readonly findings: readonly string[];
  readonly dir?: string;
}

interface Row {
  readonly id: string;
  readonly path: string;
  readonly state: string;
  readonly fault: string | null;
}

const faults = ["reset", "freeze", "swallow up", "swallow down", "refuse", "cut", "cut-answer", "silent", "500", "503", "502"] as const;

export async function postCampaign(options: PostCampaignOptions): Promise<PostCampaignReport> {
  const { seed, say } = options;
  const random = new Random(seed);
  const startMs = performance.now();
  const dir = mkdtempSync(join(tmpdir(), "filesync-campaign-"));
  const inbox = join(dir, "inbox");
  mkdirSync(inbox);
  const server = await FlightReviewDouble.start();
  const relay = await RoughRelay.start(Number(new URL(server.url).port), () => 0);
  const config = join(dir, "config.json");
  const device = {
    ...{ type: "post", preset: "flight-review", url: `http://127.0.0.1:${relay.port}/upload`, maxRate: "2MiB/s" },
    ...{ timeout: "2s", answerTimeout: "3s", whenInDoubt: "ask" },
  };
  writeFileSync(
    config,
    JSON.stringify({
      vehicle: "plane",
      stateDir: join(dir, "state"),
      spool: { keepFree: "1MiB" },
      devices: { inbox: { type: "local", dir: inbox, interval: "1s", settle: "0s", inPlace: false }, review: device },
      routes: [{ from: "inbox", to: ["review"], into: "", since: "2001-01-01" }],
    }),
  );
  const counts: Record<string, number> = {};
  const count = (what: string) => void (counts[what] = (counts[what] ?? 0) + 1);
  const log = (line: string) => {
    const text = `+${((performance.now() - startMs) / 1000).toFixed(3)} ${line}`;
    appendFileSync(join(dir, "campaign.log"), `${text}\n`);
    say?.(text);
  };
  const made = new Map<string, Content>();
  const findings: string[] = [];
  let inDoubt = 0;
  let rounds = 0;

  const add = () => {
    const n = made.size;
    const name = `${String(n).padStart(5, "0")}.ulg`;
    // No two have the same bytes.
    const bytes = ulog(60, random.between(1000, random.next() < 0.3 ? 3_000_000 : 200_000), n & 255);
    bytes.writeUInt32LE(n, bytes.length - 8);
    writeFileSync(join(dir, name), bytes);
    utimesSync(join(dir, name), 1_779_926_400 + n, 1_779_926_400 + n);
    renameSync(join(dir, name), join(inbox, name));
    made.set(name, contentOf(bytes));
  };

  const inject = async (kind: (typeof faults)[number], forMs: number): Promise<void> => {
    count(kind);
    log(`${kind} ${forMs} ms`);
    const tricks: Readonly<Record<string, Trick>> = {
      ...{ cut: { cutAfter: random.between(0, 500_000) }, "cut-answer": "cut-answer", silent: "silent" },
      ...{ "500": { status: 500, text: "no" }, "503": { status: 503, headers: { "retry-after": "1" } }, "502": { status: 502 } },
    };
    const trick = tricks[kind];
    if (trick !== undefined) server.tricks.push(trick);
    else if (kind === "reset") relay.cut();
    else {
      const turn = (on: boolean) => {
        if (kind === "freeze") relay.freeze(on);
        else if (kind === "refuse") relay.refuse(on);
        else relay.swallow(on ? [kind === "swallow up" ? "up" : "down"] : []);
      };
      turn(true);
      await sleep(forMs);
      turn(false);
    }
  };

  const life = async (): Promise<void> => {
    const program = new Program(["run", "--json", "--config", config]);
    const lengthMs = random.next() < 0.15 ? random.between(0, 600) : random.between(options.lifeMs / 3, (options.lifeMs * 5) / 3);
    const ends = random.next() < 0.75 ? "kill" : "stop";
    const running: Promise<void>[] = [];
    const endMs = performance.now() + lengthMs;
    while (performance.now() < endMs) {
      if (random.next() < 0.5) add();
      if (random.next() < 0.6) running.push(inject(random.pick(faults), random.between(50, 3000)));
      await sleep(Math.min(random.between(50, 900), Math.max(0, endMs - performance.now())));
    }
    count(ends);
    if (ends === "stop") {
      program.signal("SIGTERM");
      const code = await program.exited;
      if (code !== 0 && code !== "SIGTERM") findings.push(`broken: it ended with ${code}: ${program.stderr.slice(0, 2000)}`);
    } else await program.kill();
    await Promise.all(running);
    if (program.stderr.includes("internal error")) findings.push(`broken: ${program.stderr.slice(0, 2000)}`);
    const said = program.events.map((event) => `${JSON.stringify(event)}\n`).join("");
    appendFileSync(join(dir, "daemon.log"), said);
    log(`life ended by ${ends}`);
  };

  const rowsOf = async (): Promise<Row[]> => {
    // Closed at once: one of SQLite's own keeps its lock until it is collected.
    const db = await openDatabase(join(dir, "state", "journal.db"));
    try {
      return db
        .prepare("SELECT id, path, state, fault FROM deliveries")
        .all()
        .map((row) => row as Row);
    } finally {
      db.close();
    }
  };
  const stored = () => {
    const times = new Map<string, number>();
    for (const { filename, bytes } of server.logs) {
      if (made.get(filename) !== contentOf(bytes)) findings.push(`wrong: ${filename} is ${contentOf(bytes)}`);
      times.set(filename, (times.get(filename) ?? 0) + 1);
    }
    return times;
  };
  /** What a person decided to send again, having looked: it was not there. */
  const decided = new Set<string>();

  const rest = async (): Promise<void> => {
    server.tricks.length = 0;
    // Once more after each decision: what was refused for a while (503, 500) is due by then, or asked for.
    for (let n = 0; n < 20; n++) {
      const program = await runProgram(["run", "--once", "--json", "--config", config]);
      if (program.code !== 0 && program.code !== 3) {
        findings.push(`stuck: run --once ended with ${program.code}: ${program.err}`);
        return;
      }
      const left = (await rowsOf()).filter(({ state }) => state !== "done" && state !== "dropped");
      const times = stored();
      for (const { id, path, fault } of left) {
        if (fault === "indoubt" && (times.get(path) ?? 0) > 0) await ask("forget", id);
        else {
          if (fault === "indoubt") decided.add(path);
          await ask("retry", id);
        }
        if (fault === "indoubt") inDoubt += 1;
      }
      if (left.length === 0) return;
    }
    findings.push(`stuck: ${JSON.stringify((await rowsOf()).filter(({ state }) => state !== "done" && state !== "dropped"))}`);
  };
  const ask = async (word: string, id: string) => {
    const { code, err } = await runProgram([word, id, "--config", config]);
    log(`${word} ${id}: ${code} ${err}`);
  };

  log(`seed ${seed}, world in ${dir}`);
  for (let n = 0; n < options.rounds && findings.length === 0; n++) {
    for (let m = 0; m < options.livesPerRound; m++) await life();
    await rest();
    rounds += 1;
    const times = stored();
    for (const path of made.keys()) if (!times.has(path)) findings.push(`lost: ${path} is nowhere`);
    for (const [path, n] of times)
      if (n > 1) findings.push(`twice: ${path} is there ${n} times${decided.has(path) ? ", once by a decision" : ""}`);
    findings.push(...checkReceipts(join(dir, "state"), []), ...checkSource("inbox", inbox, made));
    log(`round ${n}: ${made.size} files, ${server.logs.length} posted`);
    if (options.minutes !== undefined && performance.now() - startMs > options.minutes * 60_000) break;
  }
  const posted = server.logs.length;
  const report = { seed, rounds, counts, files: made.size, posted, inDoubt, findings };
  await relay.close();
  server.stop();
  if (findings.length > 0) return { ...report, dir };
  rmSync(dir, { recursive: true });
  return report;
}
