/** `put`: a file of this machine onto a device, as a delivery goes: a partial name, verified, then its own name; never over another file without `--force`. */
import { createReadStream, promises as fs } from "node:fs";
import { basename, resolve } from "node:path";
import { Fault, faultOfErrno, isFault } from "../core/errors.js";
import type { Put } from "../core/hand-put.js";
import { bytesFromName } from "../core/names.js";
import { dateText } from "../core/route.js";
import { UsageError } from "./config.js";
import { digestsOf, tell, type CopyOptions } from "./get.js";
import type { Place } from "./hand.js";
import { Meter } from "./output.js";

/** What is said while a file is put. */
interface Said {
  readonly waiting?: string;
  /** Where the bytes that are asked for begin at the device: they are counted as they are sent. */
  readonly offset?: number;
  /** They do not go there: they are compared with what is there. */
  readonly compares?: true;
  /** All of them are asked for, for a copy of the daemon's own. */
  readonly copy?: true;
  /** Where the device goes on with a copy, and how far it came since. */
  readonly begins?: number;
  readonly moved?: number;
}

/** Where nothing has the name as it was typed, it may be written as paths are told: by bytes that are no UTF-8. */
async function fileOf(local: string): Promise<string | Buffer> {
  const bytes = bytesFromName(local);
  if (bytes.equals(Buffer.from(local)) || (await isThere(local)) || !(await isThere(bytes))) return local;
  return bytes;
}

function isThere(path: string | Buffer): Promise<boolean> {
  return fs.lstat(path).then(
    () => true,
    () => false,
  );
}

export async function putFile(local: string, place: Place, options: CopyOptions): Promise<void> {
  const { name, path, signal } = place;
  const file = await fileOf(local);
  const stat = await fs.stat(file).catch((error: unknown) => {
    throw new UsageError(faultOfErrno(error, `cannot read ${local}`).message);
  });
  if (!stat.isFile()) throw new UsageError(`${local} is ${stat.isDirectory() ? "a directory" : "no plain file"}`);
  const [digest] = await digestsOf(file, ["sha256"]).catch((error: unknown) => {
    throw new UsageError(faultOfErrno(error, `cannot read ${local}`).message);
  });
  let meter: Meter | undefined;
  const unchanged = async () => {
    const now = await fs.stat(file);
    if (now.size !== stat.size || now.mtimeMs !== stat.mtimeMs)
      throw new UsageError(`${local} was written while it was read; the same command begins anew`);
  };
  const send = async function* (offset: number, counts: boolean): AsyncGenerator<Buffer> {
    let at = offset;
    for await (const chunk of createReadStream(file, { start: offset, highWaterMark: 256 * 1024 })) {
      at += (chunk as Buffer).length;
      // Who has all bytes asks for no more.
      if (at >= stat.size) await unchanged();
      try {
        yield chunk as Buffer;
      } finally {
        if (counts && meter !== undefined) meter.at = Math.max(meter.at, at);
      }
    }
    await unchanged();
  };
  const said = (fact: unknown) => {
    const { waiting, offset, compares = false, copy, begins, moved } = fact as Said;
    if (waiting !== undefined && !options.json) process.stderr.write(`${waiting}\n`);
    if (copy === true) return send(0, false);
    if (moved !== undefined && meter !== undefined) meter.at += moved;
    const from = compares ? undefined : (offset ?? begins);
    // A device may ask for some of it once more.
    if (from !== undefined && meter === undefined) {
      meter = new Meter(`${local} → ${name}`, stat.size, from, options.json);
      if (from > 0 && !options.json) meter.note(`${local} → ${name}: goes on at byte ${from} of ${stat.size}`);
    }
    return offset === undefined ? undefined : send(offset, !compares);
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
    done = (await place.ask(request, { signal, said, ...(typeof file === "string" ? { localPath: resolve(file) } : {}) })) as Put;
  } catch (error) {
    if (!isFault(error, "aborted") || meter === undefined || meter.at === 0) throw error;
    const went = `${meter.at} of ${stat.size} bytes went to ${name}: where it can go on, the same command does`;
    throw new Fault("aborted", `${error.message}; ${went}`, { cause: error });
  } finally {
    meter?.close();
  }
  const { receipt, replaced, sentBefore } = done;
  const rate = meter?.paceText ?? "";
  const how = receipt.answer === "was there already" ? "was there already, " : replaced ? "in the place of another, " : "";
  const before = sentBefore === undefined ? "" : `sent before at ${dateText(Date.parse(sentBefore))}, `;
  const where = receipt.url === undefined ? "" : `: ${receipt.url}`;
  tell(
    options.json,
    { local, ...receipt, replaced, ...(sentBefore === undefined ? {} : { sentBefore }) },
    `${local} → ${name}:${receipt.path} (${receipt.size} bytes${rate}, ${how}${before}proved by ${receipt.proof})${where}`,
  );
}
