/** One simulated autopilot of a campaign: its card, its link, what goes wrong with it, and the book of what was read of which file. */
import { mkdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startSim, type Sim } from "../../../sim/sim.js";
import { contentOf, type Content } from "./checker.js";
import type { PlannedEvent, PlannedLog, PlannedVehicle } from "./flights.js";
import { Ledger } from "./ledger.js";
import { keystream, lastingPort } from "./making.js";
import { pilotFinding, refusalsAllowed, type Circumstances } from "./pilot.js";

/** Whoever reads no more of a file than this looked whether it is the same. */
const GLANCE_BYTES = 48 * 1024;
/** An ArduPilot sends a burst that was begun for it to its end: 2,000 packets. */
const BURST_BYTES = 2000 * 239;
/** An autopilot stops within so long when it is armed: what was on the way comes in. */
const STOPS_MS = 1500;
/** After this long what happened to it before, or the beginning of a life, is over. */
const CALM_MS = 5000;
const FIRST_SECOND = Date.UTC(2026, 4, 28) / 1000;

export interface Totals {
  sent: number;
  opened: number;
  timedOut: number;
  requests: number;
}

export class Vehicle {
  /** Path → content of what is on the card. */
  readonly book = new Map<string, Content>();
  readonly findings: string[] = [];
  readonly totals: Totals = { sent: 0, opened: 0, timedOut: 0, requests: 0 };
  readonly ledger: Ledger;
  /** Faults that it has met, those of the daemon too. */
  faults = 0;
  /** By path, what is on the medium of a pull that was interrupted. */
  durable: ReadonlyMap<string, number> = new Map();
  plan!: PlannedVehicle;
  #sim: Sim | undefined;
  #terminals = 0;
  #others = 0;
  #robbed = false;
  /** What happens to it now, and what has happened so far. */
  #happening = 0;
  #happened = 0;
  #happenedMs = -Infinity;
  #livesMs = -Infinity;
  /** How many sessions had been closed when a kill left one open. */
  #left: number | undefined;
  #kills = 0;
  #armings = 0;
  #url = "";
  #count = 0;
  /** Of all files on the card. */
  bytes = 0;
  /** The same, when it was started. */
  #bytesBefore = 0;

  constructor(
    /** Its device's name in the configuration. */
    readonly name: string,
    readonly dir: string,
  ) {
    mkdirSync(join(dir, "card", "log"), { recursive: true });
    this.ledger = new Ledger(() => this.faults);
  }

  get sim(): Sim {
    if (this.#sim === undefined) throw new Error(`${this.name} does not fly`);
    return this.#sim;
  }

  /** Of the files that came since it was started. */
  get newBytes(): number {
    return this.bytes - this.#bytesBefore;
  }

  /** The `url` of its device. */
  get url(): string {
    return this.#url;
  }

  async start(plan: PlannedVehicle): Promise<void> {
    this.plan = plan;
    this.#bytesBefore = this.bytes;
    const { transport, autopilot, link, seed, weather } = plan;
    const listen = transport === "pty" ? `pty:${this.#terminal()}` : `${transport}://127.0.0.1:${await lastingPort()}`;
    this.#sim = await startSim({
      ...{ listen, autopilot, link, seed, faults: weather },
      dir: join(this.dir, "card"),
      opened: (path) => this.#opened(path),
    });
    this.#url = this.#sim.clientUrl;
    if (transport === "pty") {
      this.#link();
      this.#url = `serial://${this.#byId}:57600`;
    }
  }

  async stop(): Promise<void> {
    const { stats } = this.sim;
    await this.sim.close();
    this.totals.sent += stats.payloadBytes;
    this.totals.opened += stats.sessionsOpened;
    this.totals.timedOut += stats.sessionsTimedOut;
    this.totals.requests += sum(stats.requests);
    this.#sim = undefined;
    rmSync(this.#byId, { force: true });
  }

  /** A log that is complete appears on the card. */
  add({ seed, size }: PlannedLog): string {
    const n = this.#count++;
    const px4 = `2026-05-${String(1 + (n % 28)).padStart(2, "0")}/${String(n % 24).padStart(2, "0")}_${String(n % 60).padStart(2, "0")}_00.ulg`;
    const path = this.plan.autopilot.startsWith("ardupilot") ? `${String(n + 1).padStart(8, "0")}.BIN` : px4;
    const full = join(this.dir, "card", "log", path);
    const bytes = keystream(seed, size);
    mkdirSync(dirname(full), { recursive: true });
    writeFileSync(`${this.dir}/writing`, bytes);
    utimesSync(`${this.dir}/writing`, FIRST_SECOND + n, FIRST_SECOND + n);
    renameSync(`${this.dir}/writing`, full);
    this.book.set(path, contentOf(bytes));
    this.bytes += size;
    return `${this.name}:${path} (${size})`;
  }

  /** Does it, and takes it back after its time; undefined where it cannot happen to this one. */
  async meet(event: PlannedEvent): Promise<string | undefined> {
    this.#happening += 1;
    this.#happened += 1;
    try {
      return await this.#meet(event);
    } finally {
      this.#happening -= 1;
      this.#happenedMs = performance.now();
    }
  }

  /** A life of the daemon begins. */
  livesFromNow(): void {
    this.#livesMs = performance.now();
  }

  /** The daemon was killed, and may have left its session. */
  killed(): void {
    const { sim } = this;
    if (sim.openSessions() === 0) return;
    this.#left = sim.stats.sessionsClosed;
    this.#kills += 1;
  }

  async #meet({ kind, forMs, draw }: PlannedEvent): Promise<string | undefined> {
    const { sim } = this;
    switch (kind) {
      case "reboot":
        sim.reboot(forMs);
        await sleep(forMs);
        return `${forMs} ms`;
      case "unplug":
        return this.#unplug(sim, forMs, draw);
      case "arm":
        return this.#arm(sim, forMs);
      case "ground station":
      case "ground station on another link": {
        const own = kind !== "ground station";
        const look = this.#circumstances(sim, own);
        const loaded = await this.#beside(() => sim.load({ own, patienceMs: 40_000 }));
        const at = look();
        const finding = pilotFinding(loaded, at);
        if (finding !== undefined) this.findings.push(`pilot: ${kind}: ${this.name}: it ${finding}`);
        const judged = refusalsAllowed(at) === undefined ? `, not judged: ${JSON.stringify(at)}` : "";
        return `${loaded.whole ? "loaded" : "did not load"} ${loaded.bytes.length} bytes in ${Math.round(loaded.tookMs)} ms, refused ${loaded.refusals} times, cut ${loaded.lost} times${judged}`;
      }
      case "sessions held":
        await this.#beside(() => sim.exhaust(forMs));
        return `${forMs} ms`;
      case "card busy":
        sim.pause(forMs);
        await sleep(forMs);
        return `${forMs} ms`;
      default:
        return undefined;
    }
  }

  /** Of a load that begins now; what it returns is asked at its end. */
  #circumstances(sim: Sim, own: boolean): () => Circumstances {
    const { weather, autopilot } = this.plan;
    const share = (fault: string): number => Number.parseFloat(weather[fault] ?? "0") / 100;
    const [lossy, happened, kills, closed] = [
      share("loss") + share("corrupt") + share("wrong-session"),
      this.#happened,
      this.#kills,
      sim.stats.sessionsClosed,
    ];
    const calmMs = performance.now() - CALM_MS;
    const before = this.#happening > 1 || this.#happenedMs > calmMs;
    const left = this.#left === closed && sim.openSessions() > 0;
    return () => {
      // A PX4 has sessions of its own on each link: those of another do not tell that the one that was left is closed.
      const ownServer = own && autopilot.startsWith("px4");
      if (left && ownServer) this.#left = sim.stats.sessionsClosed;
      return {
        ...{ lossy, own },
        early: this.#livesMs > calmMs,
        disturbed: before || this.#happened !== happened,
        left: !ownServer && (left || this.#kills !== kills),
      };
    };
  }

  /** Somebody else opened files, on a link that ours does not show: a MAVSDK server gives its one session to whoever opens last, and our reads get that file's bytes. */
  get mayBeRobbed(): boolean {
    return this.plan.autopilot === "mavsdk" && this.#robbed;
  }

  async #beside<T>(work: () => Promise<T>): Promise<T> {
    this.#robbed = true;
    this.#others += 1;
    try {
      return await work();
    } finally {
      this.#others -= 1;
    }
  }

  /** A port may come back under another name; its link by id does not change. */
  async #unplug(sim: Sim, forMs: number, draw: number): Promise<string> {
    if (this.plan.transport !== "pty") {
      await sim.dropLink(forMs);
      return `${forMs} ms`;
    }
    const at = draw < 0.5 ? this.#terminal() : undefined;
    rmSync(this.#byId, { force: true });
    await sim.dropLink(forMs, at);
    if (this.#sim === sim) this.#link();
    return `${forMs} ms${at === undefined ? "" : ", another name"}`;
  }

  async #arm(sim: Sim, forMs: number): Promise<string> {
    sim.setArmed(true);
    const nth = ++this.#armings;
    await sleep(Math.min(forMs, STOPS_MS));
    const before = asked(sim);
    const alone = this.#others === 0;
    await sleep(Math.max(0, forMs - STOPS_MS));
    if (this.#armings !== nth) return `${forMs} ms, and again meanwhile`;
    // Where frames are lost it may hear of the arming late.
    const sure = alone && this.#others === 0 && this.plan.weather.loss === undefined && this.plan.weather.corrupt === undefined;
    if (sure && asked(sim) !== before)
      this.findings.push(`in the way: ${this.name} was asked ${asked(sim) - before} things while it was armed`);
    sim.setArmed(false);
    return `${forMs} ms`;
  }

  get #byId(): string {
    return join(this.dir, `usb-${this.name}-if00`);
  }

  #terminal(): string {
    return join(this.dir, `tty${this.#terminals++}`);
  }

  #link(): void {
    rmSync(this.#byId, { force: true });
    symlinkSync(join(this.dir, `tty${this.#terminals - 1}`), this.#byId);
  }

  /** Watches one opening: how far its reads have come without a gap is what it moves. */
  #opened(asked: string): (offset: number, bytes: number) => void {
    const path = asked.replace(/^\/log\//, "");
    if (!this.book.has(path)) return () => undefined;
    // Begin → end of what was served, and not joined to the rest yet.
    const pieces = new Map<number, number>();
    let move: ((bytes: number) => void) | undefined;
    let [from, at, told] = [Infinity, 0, 0];
    return (offset, bytes) => {
      pieces.set(offset, Math.max(pieces.get(offset) ?? 0, offset + bytes));
      // The first requests may have been lost, so where it begins is known a while later.
      if (move === undefined) from = at = told = Math.min(from, offset);
      for (const [begin, end] of [...pieces].sort(([a], [b]) => a - b)) {
        if (begin > at) break;
        at = Math.max(at, end);
        if (move !== undefined) pieces.delete(begin);
      }
      if (move === undefined && at - from < this.#glance) return;
      move ??= this.#begins(path, from);
      move(at - told);
      told = at;
    };
  }

  get #glance(): number {
    return GLANCE_BYTES + (this.plan.autopilot.startsWith("ardupilot") ? BURST_BYTES : 0);
  }

  #begins(path: string, from: number): (bytes: number) => void {
    const durable = this.durable.get(path) ?? 0;
    if (from < durable - this.#glance)
      this.findings.push(`from zero: ${this.name}:${path} is read from byte ${from}, and ${durable} were on the medium`);
    return this.ledger.begin(path, from);
  }
}

function asked({ stats }: Sim): number {
  return sum(stats.requests) - (stats.requests.TerminateSession ?? 0);
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((all, count) => all + count, 0);
}
