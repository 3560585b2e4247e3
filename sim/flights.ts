/**
 * Made-up flights as valid ULog files, for the demo and for tests that need logs of a given size. The same number gives the same bytes.
 * They follow the ULog file format of PX4 (docs.px4.io, "ULog File Format"): magic, flag bits, formats, information, one subscription each, data.
 */
import { mkdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

export interface Flight {
  /** Below the log directory: "2026-05-01/10_00_00.ulg". */
  readonly path: string;
  readonly sizeBytes: number;
}

/** Five flights of a day, about 30 MB together. */
export const demoFlights: readonly Flight[] = [
  { path: "2026-05-01/10_02_11.ulg", sizeBytes: 4_200_000 },
  { path: "2026-05-01/10_31_48.ulg", sizeBytes: 9_600_000 },
  { path: "2026-05-01/11_15_03.ulg", sizeBytes: 1_300_000 },
  { path: "2026-05-02/08_44_20.ulg", sizeBytes: 7_900_000 },
  { path: "2026-05-02/09_10_57.ulg", sizeBytes: 6_800_000 },
];

const magic = Buffer.from([0x55, 0x4c, 0x6f, 0x67, 0x01, 0x12, 0x35, 0x01]);
const attitude = 0;
const position = 1;
const formats = [
  "vehicle_attitude:uint64_t timestamp;float[4] q;",
  "vehicle_local_position:uint64_t timestamp;float x;float y;float z;float vx;float vy;float vz;",
];
const stepMicros = 10_000n;

/** A flight of about `sizeBytes` (less than one record more or less): a spiral, with a heading that follows it. */
export function makeFlight(sizeBytes: number, seed: number): Buffer {
  const start = 60_000_000n + BigInt(seed) * 1_000_000n;
  const header = Buffer.alloc(16);
  magic.copy(header);
  header.writeBigUInt64LE(start, 8);
  const parts = [header, message("B", Buffer.alloc(40)), ...formats.map((format) => message("F", Buffer.from(format)))];
  for (const [key, value] of [
    ["sys_name", "PX4"],
    ["ver_hw", "SIMULATED"],
    ["sys_uuid", `demo-${seed}`],
  ] as const)
    parts.push(info(key, value));
  parts.push(subscription(attitude, "vehicle_attitude"), subscription(position, "vehicle_local_position"));
  let bytes = parts.reduce((sum, part) => sum + part.length, 0);
  for (let n = 0; bytes < sizeBytes; n++) {
    const record = sample(start + BigInt(n) * stepMicros, n, seed);
    parts.push(record);
    bytes += record.length;
  }
  return Buffer.concat(parts);
}

/** Writes flights below a directory, each whole or not at all; one that is there already is left. */
export function writeFlights(dir: string, flights: readonly Flight[]): void {
  flights.forEach(({ path, sizeBytes }, n) => {
    const file = join(dir, path);
    if (statSync(file, { throwIfNoEntry: false }) !== undefined) return;
    mkdirSync(dirname(file), { recursive: true });
    const temporary = join(dir, "..", `.flight-${n}.tmp`);
    writeFileSync(temporary, makeFlight(sizeBytes, n + 1));
    renameSync(temporary, file);
  });
}

/** Both records of one step. */
function sample(at: bigint, n: number, seed: number): Buffer {
  const angle = n / 400 + seed;
  const radius = 20 + n / 1000;
  const q = Buffer.alloc(2 + 8 + 16);
  q.writeUInt16LE(attitude, 0);
  q.writeBigUInt64LE(at, 2);
  [Math.cos(angle / 2), 0, 0, Math.sin(angle / 2)].forEach((value, i) => q.writeFloatLE(value, 10 + i * 4));
  const p = Buffer.alloc(2 + 8 + 24);
  p.writeUInt16LE(position, 0);
  p.writeBigUInt64LE(at, 2);
  const velocity = radius / 4;
  [
    radius * Math.cos(angle),
    radius * Math.sin(angle),
    -10 - n / 500,
    -velocity * Math.sin(angle),
    velocity * Math.cos(angle),
    -0.2,
  ].forEach((value, i) => p.writeFloatLE(value, 10 + i * 4));
  return Buffer.concat([message("D", q), message("D", p)]);
}

function message(type: string, body: Buffer): Buffer {
  const head = Buffer.alloc(3);
  head.writeUInt16LE(body.length, 0);
  head.write(type, 2, "latin1");
  return Buffer.concat([head, body]);
}

function info(key: string, value: string): Buffer {
  const name = `char[${value.length}] ${key}`;
  return message("I", Buffer.concat([Buffer.from([name.length]), Buffer.from(name), Buffer.from(value)]));
}

function subscription(id: number, name: string): Buffer {
  const head = Buffer.alloc(3);
  head.writeUInt16LE(id, 1);
  return message("A", Buffer.concat([head, Buffer.from(name)]));
}
