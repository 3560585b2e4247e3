/** As much of ULog as is asked here (docs.px4.io, ULog file format): is it one, and how long does it last. */
import { createReadStream } from "node:fs";

const magic = Buffer.from([0x55, 0x4c, 0x6f, 0x67, 0x01, 0x12, 0x35]);
const headBytes = 16;

const sizes: Readonly<Record<string, number>> = {
  int8_t: 1,
  uint8_t: 1,
  bool: 1,
  char: 1,
  int16_t: 2,
  uint16_t: 2,
  int32_t: 4,
  uint32_t: 4,
  float: 4,
  int64_t: 8,
  uint64_t: 8,
  double: 8,
};

export function isUlog(beginning: Buffer): boolean {
  return beginning.subarray(0, magic.length).equals(magic);
}

/** From the head's time stamp to the last one of a message, in ms; undefined where it is no ULog. A torn end is no fault, also within the head. */
export async function ulogDurationMs(path: string): Promise<number | undefined> {
  const formats = new Map<string, string>();
  /** By message id: where in its data the time stamp is. */
  const stampAt = new Map<number, number>();
  let rest: Buffer = Buffer.alloc(0);
  let start: bigint | undefined;
  let last = 0n;
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) {
    rest = rest.length === 0 ? (chunk as Buffer) : Buffer.concat([rest, chunk as Buffer]);
    let at = 0;
    if (start === undefined) {
      if (rest.length < headBytes) continue;
      if (!isUlog(rest)) return undefined;
      start = rest.readBigUInt64LE(8);
      at = headBytes;
    }
    while (at + 3 <= rest.length) {
      const size = rest.readUInt16LE(at);
      if (at + 3 + size > rest.length) break;
      const stamp = messageStamp(rest.subarray(at + 3, at + 3 + size), String.fromCharCode(rest[at + 2] ?? 0), formats, stampAt);
      // What is far beyond is a torn place, not a flight of years.
      if (stamp !== undefined && stamp > last && stamp - start < 604_800_000_000n) last = stamp;
      at += 3 + size;
    }
    rest = rest.subarray(at);
  }
  if (start === undefined) return isUlog(rest) ? 0 : undefined;
  return last > start ? Number((last - start) / 1000n) : 0;
}

function messageStamp(body: Buffer, type: string, formats: Map<string, string>, stampAt: Map<number, number>): bigint | undefined {
  switch (type) {
    case "F": {
      const [name = "", fields = ""] = body.toString("latin1").split(":", 2);
      formats.set(name, fields);
      return undefined;
    }
    case "A": {
      if (body.length < 3) return undefined;
      const at = offsetOfStamp(formats, body.toString("latin1", 3));
      if (at !== undefined) stampAt.set(body.readUInt16LE(1), at);
      return undefined;
    }
    case "D": {
      const at = body.length < 2 ? undefined : stampAt.get(body.readUInt16LE(0));
      return at === undefined || body.length < 2 + at + 8 ? undefined : body.readBigUInt64LE(2 + at);
    }
    case "L":
      return body.length < 9 ? undefined : body.readBigUInt64LE(1);
    default:
      return undefined;
  }
}

function offsetOfStamp(formats: Map<string, string>, name: string): number | undefined {
  let at = 0;
  for (const field of (formats.get(name) ?? "").split(";")) {
    const [type = "", label] = field.split(" ");
    if (label === "timestamp") return at;
    const size = sizeOf(formats, type, 0);
    if (size === undefined) return undefined;
    at += size;
  }
  return undefined;
}

/** Of a type, an array of it, or another format. */
function sizeOf(formats: Map<string, string>, type: string, depth: number): number | undefined {
  const [, base = "", count] = /^([^[]+)(?:\[(\d+)\])?$/.exec(type) ?? [];
  let size: number | undefined = sizes[base];
  if (size === undefined && depth < 8 && formats.has(base)) {
    size = 0;
    for (const field of (formats.get(base) ?? "").split(";").filter((text) => text !== "")) {
      const inner = sizeOf(formats, field.split(" ")[0] ?? "", depth + 1);
      if (inner === undefined) return undefined;
      size += inner;
    }
  }
  return size === undefined ? undefined : size * Number(count ?? 1);
}
