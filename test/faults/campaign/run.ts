/**
 * The campaign: the daemon as a process in one seeded schedule of faults. After each round of lives the faults stop; then all has to arrive, and the
 * checker looks. Bytes moved again are counted on the wire, by the relays and the simulator.
 *
 *   npm run campaign -- --seed S --minutes M
 */
import { appendFileSync, existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Program } from "../process.js";
import { Random } from "../random.js";
import { checkJournal, checkReceipts, checkSource, checkTarget, missingAt, receiptsOf } from "./checker.js";
import { Injector } from "./inject.js";
import { type Ledger, tooDear } from "./ledger.js";
import { Life } from "./life.js";
import { filesBelow, readLog, tear, unsynced } from "./power.js";
import type { PlaceKind } from "./place.js";
import { Scene } from "./scene.js";
import { type PlannedLife, type PlannedRound, schedule, type ScheduleOptions } from "./schedule.js";

export interface CampaignOptions extends ScheduleOptions {
  readonly say?: (line: string) => void;
  /** Ends earlier, after the round in which this time is over. */
  readonly minutes?: number;
  /** How the receipts of the ground station are proved. */
  readonly verify?: "auto" | "readback";
  /** What the ground station is; default: FTP servers in turn. */
  readonly target?: PlaceKind;
  /** How long everything may take to arrive once the faults have stopped. */
  readonly restMs?: number;
}

export interface CampaignReport {
  readonly seed: number;
  readonly rounds: number;
  /** How often each kind was carried out. */
  readonly counts: Readonly<Record<string, number>>;
  readonly faults: number;
  readonly kills: number;
  readonly files: number;
  readonly megabytes: number;
  readonly receipts: number;
  readonly again: Readonly<Record<"pushed" | "pulled" | "pulledFromVehicle", { megabytes: number; dearestMiB: number }>>;
  readonly findings: readonly string[];
  /** Worlds that were kept because something was found in them. */
  readonly dirs: readonly string[];
}

const mib = 2 ** 20;
const mostWorlds = 12;
/** What logins, questions and answers cost beside the bytes of files, for each fault. */
const unreadOverhead = 100_000;

export async function campaign(options: CampaignOptions): Promise<CampaignReport> {
  const run = new Campaign(options);
  return run.run();
}

class Campaign {
  readonly #counts = new Map<string, number>();
  readonly #findings: string[] = [];
  readonly #startMs = performance.now();
  #faults = 0;
  #kills = 0;
  #files = 0;
  #rounds = 0;
  #vehicleAgain = 0;
  #dearestVehicle = 0;
  #unreadAgain = 0;
  #dearestUnread = 0;
  #scene!: Scene;
  /** Faults that go on: they may outlast the life that they began in. */
  readonly #running: Promise<void>[] = [];
  readonly #checked = new Set<string>();
  /** Worlds in which something was found. */
  readonly #dirs: string[] = [];
  readonly #totals = { bytes: 0, receipts: 0, again: { pushed: 0, pulled: 0 }, dearest: { pushed: 0, pulled: 0 } };
  #last: Life | undefined;
  /** How many prices of a ledger have been looked at. */
  readonly #judged = new Map<Ledger, number>();

  constructor(readonly options: CampaignOptions) {}

  async run(): Promise<CampaignReport> {
    const { options } = this;
    const plan = schedule(options);
    let injector = await this.#enter();
    for (const [n, round] of plan.entries()) {
      const found = this.#findings.length;
      try {
        await this.#round(n, round, injector);
      } catch (error) {
        this.#findings.push(`broken: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
      }
      this.#rounds += 1;
      const over = options.minutes !== undefined && performance.now() - this.#startMs > options.minutes * 60_000;
      const failed = this.#findings.length > found;
      const last = over || n === plan.length - 1 || this.#dirs.length + Number(failed) >= mostWorlds;
      if (failed) for (const finding of this.#findings.slice(found)) this.#log(`FOUND ${finding}`);
      if (failed || last) await this.#leave(failed);
      if (last) break;
      // What was found is kept as it is; the schedule goes on in a world of its own.
      if (failed) injector = await this.#enter();
    }
    const { again, dearest } = this.#totals;
    const hop = (name: "pushed" | "pulled") => ({ megabytes: round(again[name] / 1e6), dearestMiB: round(dearest[name] / mib) });
    return {
      seed: options.seed,
      rounds: this.#rounds,
      counts: Object.fromEntries([...this.#counts].sort()),
      faults: this.#faults,
      kills: this.#kills,
      files: this.#files,
      megabytes: Math.round(this.#totals.bytes / 1e6),
      receipts: this.#totals.receipts,
      again: {
        pushed:
          options.target === undefined || options.target === "ftp"
            ? hop("pushed")
            : { megabytes: round(this.#unreadAgain / 1e6), dearestMiB: round(this.#dearestUnread / mib) },
        pulled: hop("pulled"),
        pulledFromVehicle: { megabytes: round(this.#vehicleAgain / 1e6), dearestMiB: round(this.#dearestVehicle / mib) },
      },
      findings: this.#findings,
      dirs: this.#dirs,
    };
  }

  async #enter(): Promise<Injector> {
    const { options } = this;
    this.#scene = await Scene.make(options.seed, () => this.#faults, options.verify ?? "readback", options.target ?? "ftp");
    this.#checked.clear();
    this.#log(`seed ${options.seed}, world in ${this.#scene.dir}`);
    for (const [hop, ledger] of this.#ledgers()) ledger.log = (text) => this.#log(`${hop}: ${text}`);
    return new Injector(this.#scene);
  }

  async #leave(keep: boolean): Promise<void> {
    const scene = this.#scene;
    const { again, dearest } = this.#totals;
    this.#totals.bytes += scene.bytes;
    if (existsSync(join(scene.stateDir, "receipts.jsonl"))) this.#totals.receipts += receiptsOf(scene.stateDir).size;
    for (const [hop, ledger] of [
      ["pushed", scene.ground.relay.uploads],
      ["pulled", scene.camera.relay.downloads],
    ] as const) {
      again[hop] += ledger.againBytes;
      dearest[hop] = Math.max(dearest[hop], ...ledger.prices.filter(({ excused }) => !excused).map(({ bytes, faults }) => bytes / faults));
    }
    if (keep) this.#dirs.push(scene.dir);
    // Whatever still lives of it.
    await this.#last?.kill();
    await Promise.all(this.#running.splice(0));
    await scene.close(keep);
  }

  async #round(n: number, planned: PlannedRound, injector: Injector): Promise<void> {
    const scene = this.#scene;
    const found = this.#findings.length;
    const bytesBefore = { vehicle: scene.simBytes, moved: scene.sim.stats.payloadBytes };
    const unread = { sent: scene.ground.relay.unreadBytes, made: scene.groundBytes };
    const faultsBefore = this.#faults;
    let last: Life | undefined;
    for (const [m, life] of planned.lives.entries()) {
      const stays =
        m === planned.lives.length - 1 && planned.rest === "lives on" && life.ending !== "power cut" && life.ending !== "killed at a call";
      last = await this.#life(`round ${n} life ${m}`, life, injector, stays);
      if (this.#findings.length > found) break;
    }
    await Promise.all(this.#running.splice(0));
    if (this.#findings.length === found) {
      await this.#rest(`round ${n}`, last);
      this.#check();
    }
    const again = scene.sim.stats.payloadBytes - bytesBefore.moved - (scene.simBytes - bytesBefore.vehicle);
    const faults = Math.max(1, this.#faults - faultsBefore);
    this.#vehicleAgain += Math.max(0, again);
    this.#dearestVehicle = Math.max(this.#dearestVehicle, again / faults);
    if (again > 4 * mib * faults) this.#findings.push(`again: ${again} bytes from the vehicle in ${faults} faults`);
    // Of a ground station whose connections cannot be read all of the round is held against all of its faults.
    const more = scene.ground.relay.unreadBytes - unread.sent - 1.03 * (scene.groundBytes - unread.made) - unreadOverhead * faults;
    this.#unreadAgain += Math.max(0, more);
    this.#dearestUnread = Math.max(this.#dearestUnread, more / faults);
    if (more > 4 * mib * faults) this.#findings.push(`again: ${more} bytes to the ground in ${faults} faults`);
    for (const [hop, ledger] of this.#ledgers()) {
      ledger.settle();
      for (const price of tooDear(ledger.prices.slice(this.#judged.get(ledger) ?? 0)))
        this.#findings.push(`again: ${hop}: ${JSON.stringify(price)}`);
    }
    for (const [, ledger] of this.#ledgers()) this.#judged.set(ledger, ledger.prices.length);
    if (this.#findings.length > found) return;
    for (const delivery of receiptsOf(scene.stateDir).keys()) this.#checked.add(delivery);
    scene.putAway();
  }

  /** One life with its faults. Returns it where it goes on living. */
  async #life(where: string, plan: PlannedLife, injector: Injector, stays: boolean): Promise<Life | undefined> {
    const scene = this.#scene;
    const random = new Random(plan.seed);
    const roots = [scene.stateDir, scene.rootOf("disk")];
    const before = filesBelow(roots);
    const life = new Life(scene.config, scene.dir, plan, random);
    this.#log(
      `${where}: begins, ${plan.lengthMs} ms, ends by ${plan.ending}${life.call === undefined ? "" : ` (${life.call})`}${plan.clock ? ", its clock can be set" : ""}`,
    );
    this.#last = life;
    injector.living = life;
    const startMs = performance.now();
    const todo = [
      ...plan.files.map(({ atMs, seed }) => ({ atMs, run: () => this.#add(seed) })),
      ...plan.faults.map((fault) => ({
        atMs: fault.atMs,
        run: async () => {
          const done = await injector.inject(fault, life);
          if (done === undefined) return;
          this.#count(fault.kind);
          this.#log(`${where}: ${fault.kind}: ${done}`);
        },
      })),
    ].sort((a, b) => a.atMs - b.atMs);
    for (const { atMs, run } of todo) {
      await life.lives(Math.max(0, atMs - (performance.now() - startMs)));
      if (life.ended) break;
      // A fault takes its time; the next does not wait for it.
      const one = run();
      if (one !== undefined) this.#running.push(one);
    }
    await life.lives(Math.max(0, plan.lengthMs - (performance.now() - startMs)));
    const byItself = life.ended;
    if (!life.ended && !stays) await this.#end(life, plan, random);
    if (life.ended) this.#ended(where, life, plan, byItself);
    if (plan.ending === "power cut" && life.ended) {
      const torn = tear(unsynced(readLog(life.log), roots, before), random);
      rmSync(join(scene.stateDir, "journal.db-shm"), { force: true });
      for (const what of torn) {
        this.#count("torn");
        this.#log(`${where}: torn: ${what}`);
      }
    }
    return stays && !life.ended ? life : undefined;
  }

  async #end(life: Life, plan: PlannedLife, random: Random): Promise<void> {
    if (plan.ending === "stop" || plan.ending === "kill while stopping") {
      life.signal("SIGCONT");
      life.signal("SIGTERM");
      await life.lives(plan.ending === "stop" ? 15_000 : random.between(0, 200));
      if (!life.ended && plan.ending === "stop") this.#findings.push("stuck: it did not stop within 15 s of SIGTERM");
    }
    if (!life.ended) await life.kill();
  }

  #ended(where: string, life: Life, plan: PlannedLife, byItself: boolean): void {
    const { stderr, events } = life.program;
    if (stderr.includes("internal error") || events.some(({ message }) => message.includes("internal error")))
      this.#findings.push(`broken: ${where}: ${stderr.slice(0, 2000)}`);
    void life.program.exited.then((code) => {
      // Asked to stop before it could listen to that.
      if (code === "SIGKILL" || code === "SIGTERM" || plan.ending === "stop" || code === 0 || code === 1) return;
      // Asked to read its configuration again before it had said anything.
      if (code === "SIGHUP" && events.length === 0) return;
      // A start that finds no room for the lock of a new state directory ends so where no service manager waits for it.
      if (code === 2 && this.#counts.has("state full") && /the state directory \S+ cannot be used: no space is left/.test(stderr)) return;
      this.#findings.push(`broken: ${where}: it ended with ${code}: ${stderr.slice(0, 2000)}`);
    });
    if (plan.ending === "stop") this.#count("stop", false);
    else {
      this.#kills += 1;
      this.#count(plan.ending !== "killed at a call" ? plan.ending : byItself ? `killed at ${life.call?.split(" ")[0] ?? ""}` : "kill");
    }
    this.#log(`${where}: ended`);
    this.#keep(where, life.program);
  }

  /** The faults have stopped. Everything has to arrive within a bound: with the daemon that lives, or with `run --once`. */
  async #rest(where: string, living: Life | undefined): Promise<void> {
    const scene = this.#scene;
    const boundMs = this.options.restMs ?? 180_000;
    const startMs = performance.now();
    const over = () => performance.now() - startMs > boundMs;
    if (living === undefined) {
      for (let code: number | string = -1; code !== 0;) {
        const program = new Program(["run", "--once", "--json", "--config", scene.config]);
        const timer = setTimeout(() => program.signal("SIGKILL"), boundMs);
        code = await program.exited;
        clearTimeout(timer);
        this.#keep(`${where}: rest`, program);
        // It leaves what failed five times to the next run: that is a cron's every-minute.
        if (code === 3 && !over()) continue;
        if (code !== 0) {
          this.#findings.push(`stuck: run --once ended with ${code}:\n${tailOf(program)}`);
          return;
        }
      }
    } else {
      const missing = () => scene.expected().flatMap((target) => missingAt(target).map((path) => `${target.name}:${path}`));
      const waiting = () => [...missing(), ...filesBelow([scene.origins.outbox.dir])];
      while (waiting().length > 0 && !over() && !living.ended) await living.lives(300);
      const left = waiting();
      if (left.length > 0)
        this.#findings.push(
          `stuck: after ${boundMs} ms, ${left.length} of them: ${left.slice(0, 5).join(", ")}\n${tailOf(living.program)}`,
        );
      // The last receipts.
      await sleep(1500);
      living.signal("SIGTERM");
      await living.lives(15_000);
      if (!living.ended) {
        this.#findings.push("stuck: it did not stop within 15 s of SIGTERM");
        await living.kill();
      }
      this.#keep(`${where}: rest`, living.program);
    }
    this.#log(`${where}: all arrived ${Math.round(performance.now() - startMs)} ms after the faults had stopped`);
  }

  #ledgers(): [string, Ledger][] {
    return [
      ["sent to the ground", this.#scene.ground.relay.uploads],
      ["read from the camera", this.#scene.camera.relay.downloads],
    ];
  }

  #check(): void {
    const scene = this.#scene;
    const targets = scene.expected();
    this.#findings.push(
      ...targets.flatMap(checkTarget),
      ...checkReceipts(scene.stateDir, targets, this.#checked),
      ...checkJournal(scene.stateDir),
      ...scene.sources().flatMap(({ name, dir, files }) => checkSource(name, dir, files)),
    );
    if (scene.sim.openSessions() > 0) this.#findings.push(`left: ${scene.sim.openSessions()} sessions on the flight controller`);
    const left = readdirSync(join(scene.stateDir)).filter((name) => name.endsWith(".tmp"));
    if (left.length > 0) this.#findings.push(`left: ${left.join(", ")}`);
  }

  #add(seed: number): undefined {
    this.#log(`file ${this.#scene.add(seed)}`);
    this.#files += 1;
    return undefined;
  }

  #count(kind: string, fault = true): void {
    this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1);
    if (fault) this.#faults += 1;
  }

  /** What the daemon said, for whoever has to find out why. */
  #keep(where: string, program: Program): void {
    const said = program.events.map((event) => `${where}: ${JSON.stringify(event)}\n`).join("");
    appendFileSync(join(this.#scene.dir, "daemon.log"), `${said}${program.stderr}`);
  }

  #log(line: string): void {
    const text = `+${((performance.now() - this.#startMs) / 1000).toFixed(3)} ${line}`;
    const path = join(this.#scene.dir, "campaign.log");
    if (existsSync(path)) appendFileSync(path, `${text}\n`);
    else writeFileSync(path, `${text}\n`);
    this.options.say?.(text);
  }
}

function tailOf(program: Program): string {
  return `${program.events
    .slice(-40)
    .map(({ message }) => message)
    .join("\n")}\n${program.stderr.slice(-2000)}`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
