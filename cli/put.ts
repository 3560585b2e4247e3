/** `put`: a file of this machine onto a device, as a delivery goes: a partial name, verified, then its own name; never over another file without `--force`. */
import { createReadStream, promises as fs } from "node:fs";
import { basename } from "node:path";
import { faultOfErrno } from "../core/errors.js";
import type { Put } from "../core/hand.js";
import { durationText, sizeText } from "../core/text.js";
import { UsageError } from "./config.js";
import { digestsOf, tell, type CopyOptions } from "./get.js";
import type { Place } from "./hand.js";
import { Meter } from "./output.js";

export async function putFile(local: string, place: Place, options: CopyOptions): Promise<void> {
  const { name, path, signal } = place;
  const stat = await fs.stat(local).catch((error: unknown) => {
    throw new UsageError(faultOfErrno(error, `cannot read ${local}`).message);
  });
  if (!stat.isFile()) throw new UsageError(`${local} is ${stat.isDirectory() ? "a directory" : "no plain file"}`);
  const [digest] = await digestsOf(local, ["sha256"]).catch((error: unknown) => {
    throw new UsageError(faultOfErrno(error, `cannot read ${local}`).message);
  });
  let meter: Meter | undefined;
  const send = async function* (offset: number): AsyncGenerator<Buffer> {
    for await (const chunk of createReadStream(local, { start: offset, highWaterMark: 256 * 1024 })) {
      yield chunk as Buffer;
      if (meter !== undefined) meter.at += (chunk as Buffer).length;
    }
    const now = await fs.stat(local);
    if (now.size !== stat.size || now.mtimeMs !== stat.mtimeMs)
      throw new UsageError(`${local} was written while it was read; the same command begins anew`);
  };
  const said = (fact: unknown) => {
    const { waiting, offset } = fact as { waiting?: string; offset?: number };
    if (waiting !== undefined && !options.json) process.stderr.write(`${waiting}\n`);
    if (offset === undefined) return undefined;
    meter = new Meter(`${local} → ${name}`, stat.size, offset, options.json);
    if (offset > 0 && !options.json) meter.note(`${local} → ${name}: goes on at byte ${offset} of ${stat.size}`);
    return send(offset);
  };
  const request = {
    command: "put",
    path,
    name: basename(local),
    size: stat.size,
    modifiedMs: Math.floor(stat.mtimeMs),
    digest,
    force: options.force,
  };
  let done: Put;
  try {
    done = (await place.ask(request, { signal, said })) as Put;
  } finally {
    meter?.close();
  }
  const { receipt, replaced } = done;
  const rate = meter === undefined ? "" : ` in ${durationText(meter.seconds)}, ${sizeText(meter.rate)}/s`;
  const how = receipt.answer === "was there already" ? "was there already, " : replaced ? "in the place of another, " : "";
  tell(
    options.json,
    { local, ...receipt, replaced },
    `${local} → ${name}:${receipt.path} (${receipt.size} bytes${rate}, ${how}proved by ${receipt.proof})`,
  );
}
