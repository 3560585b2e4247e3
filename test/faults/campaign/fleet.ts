/**
 * The campaign of autopilots: the daemon as a process reads six simulated ones at once, of every kind, over pseudo-terminals, TCP and UDP, into a
 * directory and to an FTP server, while all of them, the links and the daemon itself fail by one seeded schedule. After each round of lives
 * everything has to arrive, and the checker looks.
 *
 *   npm run campaign -- --mavftp --seed S --files 500
 */
import { appendFileSync, mkdirSync, mkdtempSync, chmodSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Program } from "../process.js";
import { Random } from "../random.js";
import {
  checkJournal,
  checkReceipts,
  checkSource,
  checkTarget,
  durableOf,
  missingAt,
  receiptsOf,
  type Content,
  type ExpectedTarget,
} from "./checker.js";
import { autopilots, flights, type PlannedEvent, type PlannedFlight, type PlannedLifetime } from "./flights.js";
import { rowsOf, type FleetOptions, type FleetReport } from "./fleet-report.js";
import { tooDear } from "./ledger.js";
import { Life } from "./life.js";
import { Served } from "./servers.js";
import { Vehicle } from "./vehicle.js";

/** A server gives up a session that a killed daemon left: a PX4 1.18 last of all, after 30 s. */
const SESSION_MS = 32_000;
/** A repeated packet costs this much of what was lost. */
const SPARE = 1.5;
const PRICE_BYTES = 2 ** 20;
/** What happens here is no more than these words. */
const TRUE_WARNINGS = ["detached", "again", "listing-failed"];

export async function fleetCampaign(options: FleetOptions): Promise<FleetReport> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-fleet-"));
  // The FTP server runs as an ordinary user.
  chmodSync(dir, 0o755);
  for (const name of ["ground/home", "disk"]) mkdirSync(join(dir, name), { recursive: true });
  const run = new FleetCampaign(options, dir);
  return run.run(flights(options));
}

class FleetCampaign {
  readonly #startMs = performance.now();
  readonly #counts = new Map<string, number>();
  readonly #findings: string[] = [];
  readonly #vehicles: readonly Vehicle[];
  /** Events that go on: they may outlast the life that they began in. */
  readonly #running = new Set<Promise<void>>();
  #ground!: Served;
  #faults = 0;
  #groundFaults = 0;
  #kills = 0;
  #files = 0;
  #life: Life | undefined;

  constructor(
    readonly options: FleetOptions,
    readonly dir: string,
  ) {
    this.#vehicles = autopilots.map((autopilot) => new Vehicle(autopilot.replace(".", "-"), join(dir, autopilot)));
  }

  async run(plan: readonly PlannedFlight[]): Promise<FleetReport> {
    const { seed, minutes = Infinity } = this.options;
    this.#log(`seed ${seed}, world in ${this.dir}`);
    this.#ground = await Served.start(
      "ground",
      join(this.dir, "ground", "home"),
      join(this.dir, "ground", "server"),
      () => this.#groundFaults,
    );
    let rounds = 0;
    try {
      for (const flight of plan) {
        await this.#round(rounds++, flight);
        if (this.#findings.length > 0 || performance.now() - this.#startMs > minutes * 60_000) break;
      }
    } catch (error) {
      this.#findings.push(`broken: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    }
    await this.#life?.kill();
    for (const finding of this.#findings) this.#log(`FOUND ${finding}`);
    const receipts = rounds === 0 ? 0 : receiptsOf(this.#stateDir).size;
    await this.#ground.close();
    const kept = this.#findings.length > 0;
    if (!kept) rmSync(this.dir, { recursive: true });
    return {
      ...{ seed, rounds, receipts, faults: this.#faults, kills: this.#kills, files: this.#files, findings: this.#findings },
      seconds: Math.round((performance.now() - this.#startMs) / 1000),
      counts: Object.fromEntries([...this.#counts].sort()),
      vehicles: rowsOf(this.#vehicles),
      dir: kept ? this.dir : undefined,
    };
  }

  get #stateDir(): string {
    return join(this.dir, "state");
  }

  async #round(n: number, { vehicles, logs, lives }: PlannedFlight): Promise<void> {
    for (const [i, vehicle] of this.#vehicles.entries()) {
      const plan = vehicles[i];
      if (plan === undefined) throw new Error("a vehicle without a plan");
      await vehicle.start(plan);
      this.#log(`round ${n}: ${vehicle.name} on ${plan.transport}, ${plan.link}: ${JSON.stringify(plan.weather)}`);
    }
    const config = this.#configure();
    const waiting = [...logs];
    let beforeMs = 0;
    for (const [m, life] of lives.entries()) {
      const due = (atMs: number): boolean => (waiting[0]?.atMs ?? Infinity) <= beforeMs + atMs;
      await this.#live(`round ${n} life ${m}`, config, life, (atMs) => {
        while (due(atMs)) this.#add(waiting);
      });
      beforeMs += life.lengthMs;
    }
    while (waiting.length > 0) this.#add(waiting);
    await Promise.all(this.#running);
    await this.#rest(`round ${n}`, config);
    await this.#check();
    for (const vehicle of this.#vehicles) await vehicle.stop();
  }

  #configure(): string {
    const config = join(this.dir, "config.json");
    const devices = Object.fromEntries(
      this.#vehicles.map(({ name, url }) => [name, { type: "mavftp", url, root: "/log", settle: "0s", interval: "3s" }]),
    );
    const { relay, login } = this.#ground;
    writeFileSync(
      config,
      JSON.stringify({
        vehicle: "fleet",
        stateDir: this.#stateDir,
        spool: { maxSize: "64MiB", keepFree: "1MiB", keep: "5s" },
        devices: {
          ...devices,
          ground: { type: "ftp", host: "127.0.0.1", port: relay.port, ...login, timeout: "3s" },
          disk: { type: "local", dir: join(this.dir, "disk") },
        },
        routes: this.#vehicles.map(({ name }) => ({ from: name, to: ["ground", "disk"], into: name })),
      }),
    );
    return config;
  }

  #add(waiting: PlannedFlight["logs"][number][]): void {
    const log = waiting.shift();
    if (log === undefined) return;
    this.#files += 1;
    this.#log(`log ${this.#vehicles[log.vehicle]?.add(log) ?? ""}`);
  }

  async #live(where: string, config: string, plan: PlannedLifetime, tick: (atMs: number) => void): Promise<void> {
    const life = new Life(config, this.dir, { ...plan, seed: 0, clock: false, faults: [], files: [] }, new Random(plan.stoppingMs));
    this.#life = life;
    for (const vehicle of this.#vehicles) vehicle.livesFromNow();
    this.#log(`${where}: begins, ${plan.lengthMs} ms, ends by ${plan.ending}`);
    const startMs = performance.now();
    const events = [...plan.events];
    for (;;) {
      const atMs = performance.now() - startMs;
      tick(atMs);
      for (let event = events[0]; event !== undefined && event.atMs <= atMs; event = events[0]) {
        events.shift();
        this.#happens(where, event);
      }
      if (atMs >= plan.lengthMs || life.ended) break;
      await life.lives(Math.min(100, plan.lengthMs - atMs));
    }
    if (life.ended) this.#findings.push(`broken: ${where}: it ended by itself: ${life.program.stderr.slice(-2000)}`);
    if (plan.ending !== "kill") {
      life.signal("SIGTERM");
      await life.lives(plan.ending === "stop" ? 15_000 : plan.stoppingMs);
      if (!life.ended && plan.ending === "stop") this.#findings.push(`stuck: ${where}: it did not stop within 15 s of SIGTERM`);
    }
    if (plan.ending !== "stop") this.#kills += 1;
    await life.kill();
    this.#count(plan.ending);
    for (const vehicle of this.#vehicles) {
      vehicle.faults += 1;
      vehicle.killed();
    }
    this.#groundFaults += 1;
    this.#said(where, life.program);
    const durable = this.#durable();
    for (const vehicle of this.#vehicles)
      vehicle.durable = new Map(
        [...durable].flatMap(([key, at]) => (key.startsWith(`${vehicle.name}:`) ? [[key.slice(vehicle.name.length + 1), at]] : [])),
      );
  }

  /** Nothing is there before the first life has come so far. */
  #durable(): Map<string, number> {
    try {
      return durableOf(this.#stateDir);
    } catch (error) {
      if (error instanceof Error && /no such table|unable to open/.test(error.message)) return new Map();
      throw error;
    }
  }

  #happens(where: string, event: PlannedEvent): void {
    const ground = event.kind.startsWith("ground ") && !event.kind.startsWith("ground station");
    const vehicle = this.#vehicles[event.vehicle];
    const happening = (async () => {
      // It counts from its beginning on.
      if (ground) this.#groundFaults += 1;
      else if (vehicle !== undefined) vehicle.faults += 1;
      const done = ground ? await this.#atGround(event) : await vehicle?.meet(event);
      if (done === undefined) return;
      this.#faults += 1;
      this.#count(event.kind);
      this.#log(`${where}: ${event.kind}: ${ground ? "" : `${vehicle?.name ?? ""}: `}${done}`);
    })().catch((error: unknown) => {
      this.#findings.push(`broken: ${event.kind}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    });
    this.#running.add(happening);
    void happening.then(() => this.#running.delete(happening));
  }

  async #atGround({ kind, forMs, draw }: PlannedEvent): Promise<string | undefined> {
    const ground = this.#ground;
    if (kind === "ground reset") return ground.relay.cut() ? "its connections" : undefined;
    const { kinds } = ground;
    const next = kind === "ground swapped" ? (kinds[Math.floor(draw * kinds.length)] ?? "own") : ground.kind;
    await ground.kill();
    await sleep(forMs);
    await ground.run(next);
    return `${next} after ${forMs} ms`;
  }

  /** The faults have stopped, the weather is as it was: everything has to arrive, each file within a bound after the one before. */
  async #rest(where: string, config: string): Promise<void> {
    const startMs = performance.now();
    const life = new Life(config, this.dir, { lengthMs: 0, ending: "stop", seed: 0, clock: false, faults: [], files: [] }, new Random(1));
    this.#life = life;
    const missing = (): string[] => this.#expected().flatMap((target) => missingAt(target).map((path) => `${target.name}:${path}`));
    let [left, newsMs] = [missing(), startMs];
    while (left.length > 0 && performance.now() - newsMs < this.options.restMs && !life.ended) {
      await life.lives(200);
      const now = missing();
      if (now.length < left.length) newsMs = performance.now();
      left = now;
    }
    if (left.length > 0)
      this.#findings.push(
        `stuck: ${where}: after ${Math.round(performance.now() - startMs)} ms, ${left.length}: ${left.slice(0, 5).join(", ")}\n${tailOf(life.program)}`,
      );
    else this.#log(`${where}: all arrived ${Math.round(performance.now() - startMs)} ms after the faults had stopped`);
    const undelivered = (): boolean => receiptsOf(this.#stateDir).size < 2 * this.#files;
    for (let n = 0; n < 50 && left.length === 0 && undelivered(); n++) await life.lives(200);
    life.signal("SIGTERM");
    await life.lives(15_000);
    if (!life.ended) this.#findings.push("stuck: it did not stop within 15 s of SIGTERM");
    await life.kill();
    this.#said(`${where}: rest`, life.program);
  }

  #expected(): ExpectedTarget[] {
    const files = new Map<string, readonly Content[]>();
    for (const { name, book } of this.#vehicles) for (const [path, content] of book) files.set(`${name}/${path}`, [content]);
    const foreign = new Map<string, Content>();
    return [
      { name: "ground", root: this.#ground.root, files, foreign },
      { name: "disk", root: join(this.dir, "disk"), files, foreign },
    ];
  }

  async #check(): Promise<void> {
    const targets = this.#expected();
    this.#findings.push(
      ...targets.flatMap(checkTarget),
      ...checkReceipts(this.#stateDir, targets),
      ...checkJournal(this.#stateDir),
      ...this.#vehicles.flatMap(({ name, dir, book }) => checkSource(name, join(dir, "card", "log"), book)),
    );
    const untilMs = performance.now() + SESSION_MS;
    for (const vehicle of this.#vehicles) {
      const { name, sim, ledger, plan } = vehicle;
      while (sim.openSessions() > 0 && performance.now() < untilMs) await sleep(100);
      if (sim.openSessions() > 0) this.#findings.push(`left: ${sim.openSessions()} sessions on ${name}, long after the daemon has gone`);
      const { timedOut, payloadBytes } = { timedOut: sim.stats.sessionsTimedOut, payloadBytes: sim.stats.payloadBytes };
      if (timedOut > vehicle.faults) this.#findings.push(`left: ${timedOut} sessions of ${name} timed out, in ${vehicle.faults} faults`);
      ledger.settle();
      for (const price of tooDear(ledger.prices)) this.#findings.push(`again: ${name}: ${JSON.stringify(price)}`);
      const share = (fault: string): number => Number.parseFloat(plan.weather[fault] ?? "0") / 100;
      const fair = (vehicle.newBytes * (1 + share("dup"))) / (1 - share("loss") - share("corrupt"));
      if (payloadBytes > SPARE * fair + PRICE_BYTES * (vehicle.faults + 1))
        this.#findings.push(`again: ${name} sent ${payloadBytes} bytes for files of ${vehicle.newBytes}, in ${vehicle.faults} faults`);
      this.#findings.push(...vehicle.findings.splice(0));
    }
    const { uploads } = this.#ground.relay;
    uploads.settle();
    for (const price of tooDear(uploads.prices)) this.#findings.push(`again: sent to the ground: ${JSON.stringify(price)}`);
  }

  /** What the daemon said is kept; an alarm has no cause here but a fault of its own. */
  #said(where: string, { events, stderr }: Program): void {
    appendFileSync(join(this.dir, "daemon.log"), `${events.map((event) => `${where}: ${JSON.stringify(event)}\n`).join("")}${stderr}`);
    if (stderr.includes("internal error")) this.#findings.push(`broken: ${where}: ${stderr.slice(0, 2000)}`);
    for (const { level, what, message, facts } of events) {
      const robbed = this.#vehicles.find(({ name, mayBeRobbed }) => name === facts?.device && mayBeRobbed);
      // The checksum told, or the comparison when the pull went on: that is all that can be done, and what was read of it is worth nothing.
      if (what === "restarted" && robbed !== undefined) {
        this.#count("another's bytes, noticed");
        robbed.ledger.excuse(String(facts?.path));
      } else if (level === "error" || (level === "warn" && !TRUE_WARNINGS.includes(what)))
        this.#findings.push(`alarm: ${where}: ${level} ${what}: ${message}`);
    }
  }

  #count(kind: string): void {
    this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1);
  }

  #log(line: string): void {
    const text = `+${((performance.now() - this.#startMs) / 1000).toFixed(3)} ${line}`;
    appendFileSync(join(this.dir, "campaign.log"), `${text}\n`);
    this.options.say?.(text);
  }
}

function tailOf({ events, stderr }: Program): string {
  const said = events.slice(-40).map(({ message }) => message);
  return `${said.join("\n")}\n${stderr.slice(-2000)}`;
}
