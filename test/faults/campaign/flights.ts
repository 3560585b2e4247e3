/** Pure: a seed → the whole schedule of a campaign of autopilots: their weather, files and faults, and the lives of the daemon. The same seed gives the same schedule. */
import { Random } from "../random.js";

/** What happens while the daemon lives. */
export const flightFaults = [
  "reboot",
  "unplug",
  "arm",
  "ground station",
  "ground station on another link",
  "sessions held",
  "card busy",
  "ground reset",
  "ground killed",
  "ground swapped",
] as const;
export type FlightFault = (typeof flightFaults)[number];

export const autopilots = ["px4", "px4-1.18", "ardupilot-4.6", "ardupilot-4.7", "ardupilot-4.8", "mavsdk"] as const;
export const transports = ["pty", "tcpin", "udpin", "udpout"] as const;

export interface PlannedVehicle {
  readonly autopilot: string;
  readonly transport: (typeof transports)[number];
  readonly link: string;
  readonly seed: number;
  /** Faults of the simulator that act all the time. */
  readonly weather: Readonly<Record<string, string>>;
}

export interface PlannedEvent {
  /** Since the start of the life. */
  readonly atMs: number;
  readonly kind: FlightFault;
  /** Its number among the vehicles. */
  readonly vehicle: number;
  readonly forMs: number;
  /** 0 ≤ draw < 1 */
  readonly draw: number;
}

export interface PlannedLog {
  /** Since the start of the round. */
  readonly atMs: number;
  readonly vehicle: number;
  readonly seed: number;
  readonly size: number;
}

export interface PlannedLifetime {
  readonly lengthMs: number;
  readonly ending: "kill" | "kill while stopping" | "stop";
  readonly stoppingMs: number;
  readonly events: readonly PlannedEvent[];
}

/** Vehicles in one weather and on one kind of link each; some lives, then rest: all has to arrive, and is looked at. */
export interface PlannedFlight {
  readonly vehicles: readonly PlannedVehicle[];
  readonly logs: readonly PlannedLog[];
  readonly lives: readonly PlannedLifetime[];
}

export interface FlightOptions {
  readonly seed: number;
  readonly rounds: number;
  /** In all rounds together, shared by all vehicles. */
  readonly files: number;
  readonly lives: number;
  /** The longest life. */
  readonly lifeMs: number;
  /** Of the usual file: 20 kB to this many bytes. A few are larger, up to ten times. */
  readonly usualBytes: number;
  /** The worst loss of frames, each way. */
  readonly loss: number;
  /** Only what ends soon: nobody gets the autopilot for long, and none gives small pieces. */
  readonly brief?: boolean;
}

export function flights(options: FlightOptions): PlannedFlight[] {
  const random = new Random(options.seed);
  const planned: PlannedFlight[] = [];
  let files = 0;
  for (let round = 0; round < options.rounds; round++) {
    const vehicles = autopilots.map((autopilot, n) => vehicle(random, autopilot, n + round, options));
    const lives = Array.from({ length: options.lives }, () => lifetime(random, options));
    const wholeMs = lives.reduce((sum, { lengthMs }) => sum + lengthMs, 0);
    const until = Math.round((options.files * (round + 1)) / options.rounds);
    const logs: PlannedLog[] = [];
    for (; files < until; files++) {
      // Half of them are there when the daemon comes.
      const atMs = random.next() < 0.5 ? 0 : random.between(0, Math.floor(wholeMs * 0.8));
      logs.push({ atMs, vehicle: files % vehicles.length, seed: random.between(1, 2 ** 31), size: sizeOf(random, options.usualBytes) });
    }
    planned.push({ vehicles, logs: logs.sort((a, b) => a.atMs - b.atMs), lives });
  }
  return planned;
}

function sizeOf(random: Random, usual: number): number {
  const drawn = random.next();
  if (drawn < 0.05) return 0;
  // The edges of packets.
  if (drawn < 0.1) return random.pick([1, 238, 239, 240, 478, 956, 65_536]);
  if (drawn < 0.2) return random.between(1, 20_000);
  if (drawn < 0.9) return random.between(20_000, usual);
  if (drawn < 0.97) return random.between(usual, 3 * usual);
  return random.between(3 * usual, 10 * usual);
}

function vehicle(random: Random, autopilot: string, n: number, { loss, brief }: FlightOptions): PlannedVehicle {
  const transport = transports[n % transports.length] ?? "tcpin";
  const link = transport.startsWith("udp") ? "udp" : random.next() < 0.8 ? "usb" : transport === "pty" ? "uart:921600" : "none";
  const drawn = random.next();
  const worst = drawn < 0.2 ? 0 : drawn < 0.6 ? loss / 10 : drawn < 0.85 ? loss / 2 : loss;
  const percent = (most: number): string => `${(random.next() * most * 100).toFixed(2)}%`;
  const weather: Record<string, string> = {};
  if (worst > 0) weather.loss = percent(worst);
  for (const [name, most, often] of [
    ["dup", 0.05, 0.4],
    ["reorder", 0.05, 0.4],
    ["corrupt", 0.03, 0.4],
    ["junk", 0.05, 0.3],
    ["late", 0.01, 0.2],
    ["wrong-session", 0.01, 0.2],
    ["lost-eof", 0.5, 0.2],
  ] as const)
    if (random.next() < often) weather[name] = percent(most);
  if (autopilot.startsWith("px4") && random.next() < 0.3) weather["bad-complete"] = percent(0.05);
  if (random.next() < 0.2) weather.delay = `${random.between(1, 10)}ms`;
  if (random.next() < 0.15 && brief !== true) weather.short = `${random.between(40, 239)}`;
  if (random.next() < 0.2) weather.noise = "5kB";
  return { autopilot, transport, link, seed: random.between(1, 2 ** 31), weather };
}

/** Weight in the draw; how long it lasts, ms. */
const kinds: readonly {
  readonly kind: FlightFault;
  readonly weight: number;
  readonly ms: readonly [number, number];
  readonly long?: true;
}[] = [
  { kind: "reboot", weight: 4, ms: [200, 6000] },
  { kind: "unplug", weight: 5, ms: [50, 4000] },
  { kind: "arm", weight: 3, ms: [300, 6000] },
  { kind: "ground station", weight: 1, ms: [0, 1], long: true },
  { kind: "ground station on another link", weight: 1, ms: [0, 1], long: true },
  { kind: "sessions held", weight: 1, ms: [500, 5000], long: true },
  { kind: "card busy", weight: 2, ms: [100, 5000] },
  { kind: "ground reset", weight: 2, ms: [0, 1] },
  { kind: "ground killed", weight: 1, ms: [100, 3000] },
  { kind: "ground swapped", weight: 1, ms: [100, 1000] },
];

function lifetime(random: Random, { lifeMs, brief }: FlightOptions): PlannedLifetime {
  const drawn = random.next();
  const ending = drawn < 0.7 ? "kill" : drawn < 0.85 ? "kill while stopping" : "stop";
  // A tenth die while they start.
  const lengthMs = random.next() < 0.1 && brief !== true ? random.between(0, 600) : random.between(Math.floor(lifeMs / 4), lifeMs);
  const drawable = kinds.filter(({ long }) => brief !== true || long !== true).flatMap((row) => Array<typeof row>(row.weight).fill(row));
  const events: PlannedEvent[] = [];
  for (let atMs = random.between(0, 2000); atMs < lengthMs; atMs += random.between(200, 3000)) {
    const { kind, ms } = random.pick(drawable);
    const forMs = brief === true ? random.between(Math.min(50, ms[0]), Math.min(1500, ms[1])) : random.between(...ms);
    events.push({ atMs, kind, vehicle: random.between(0, autopilots.length), forMs, draw: random.next() });
  }
  return { lengthMs, ending, stoppingMs: random.between(0, 200), events };
}
