/**
 * Verify: what receipts say is held against what is there now, at the target, in the spool and at the source. It changes nothing; where something is
 * wrong it names what a person can do. A target that can digest is asked; else what it holds is read back.
 */
import { createReadStream } from "node:fs";
import type { Exchange } from "./control.js";
import { digestsOf, kindOf } from "./digest.js";
import { type Engine, nameOf } from "./engine.js";
import { Fault, faultOfErrno, isFault, throwIfAborted } from "./errors.js";
import type { Lane } from "./lane.js";
import { namedBy, unknown } from "./named.js";
import type { Digest, FileEntry, Occupant, Proof, Upload } from "./plugin.js";
import { digestAtSource } from "./read-again.js";
import { partialPath } from "./route.js";
import { deliveredDigest, type DeliveryRow, type StoredReceipt, type VersionRow } from "./rows.js";
import { shellWord } from "./text.js";

/** One thing that was looked at. */
export interface Verified {
  readonly id: string;
  readonly file: string;
  /** A target's name, "spool", or the source's name. */
  readonly at: string;
  readonly path?: string;
  /** How it was proved; or what is wrong: `missing`, `differs`; or why nobody can say now: `unreachable`. `left`: it is not there, and need not be, or nobody ever can look. */
  readonly verdict: Exclude<Proof, "answer"> | "missing" | "differs" | "unreachable" | "left";
  readonly text: string;
  /** What to do about it. */
  readonly todo?: string;
}

export interface VerifySum {
  readonly deliveries: number;
  readonly proved: number;
  readonly wrong: number;
  readonly unreachable: number;
}

const page = 500;

/** `what`: an id or a path; undefined: every delivery that has a receipt. Each result is said. Throws ControlError for a name that means nothing. */
export async function verify(engine: Engine, what: string | undefined, exchange: Exchange): Promise<VerifySum> {
  const sum = { deliveries: 0, proved: 0, wrong: 0, unreachable: 0 };
  const seen = new Set<string>();
  const places: Places = new Map();
  for (const delivery of receiptsOf(engine, what)) {
    throwIfAborted(exchange.signal);
    const version = engine.queue.version(delivery.version);
    if (version === undefined || delivery.receipt === null) continue;
    sum.deliveries += 1;
    const receipt = JSON.parse(delivery.receipt) as StoredReceipt;
    const results = [await atTarget(engine, version, delivery, receipt, places, exchange.signal)];
    if (!seen.has(version.id)) {
      seen.add(version.id);
      results.push(...(await hereAndAtSource(engine, version, receipt, exchange.signal)));
    }
    for (const result of results) {
      exchange.say(result);
      if (result.verdict === "missing" || result.verdict === "differs") sum.wrong += 1;
      else if (result.at === delivery.target && result.verdict === "unreachable") sum.unreachable += 1;
      else if (result.at === delivery.target && result.verdict !== "left") sum.proved += 1;
    }
  }
  return sum;
}

/** Whether every required target, one at least, holds now what was delivered, the same for all. Throws "offline" where one cannot say so at present. */
export async function isHeld(engine: Engine, version: VersionRow, signal: AbortSignal): Promise<boolean> {
  const places: Places = new Map();
  const deliveries = engine.queue.deliveriesOf(version.id);
  const delivered = deliveredDigest(version, deliveries);
  const required = deliveries.filter((delivery) => delivery.required === 1);
  for (const delivery of required) {
    if (delivery.receipt === null || !engine.lanes.has(delivery.target)) return false;
    const receipt = JSON.parse(delivery.receipt) as StoredReceipt;
    if (receipt.digest !== undefined && receipt.digest !== delivered) return false;
    const { verdict, text } = await atTarget(engine, version, delivery, receipt, places, signal);
    if (verdict === "unreachable") throw new Fault("offline", `${delivery.target}: ${text}`);
    if (verdict !== "digest" && verdict !== "readback" && !(verdict === "size" && version.trust_size === 1)) return false;
  }
  return required.length > 0;
}

/**
 * Which required target does not show any more what was delivered, by name and size: content would have to be read back, perhaps. undefined: none, where that can be seen. Throws "transient" where one
 * cannot say so at present.
 */
export async function missedAt(engine: Engine, version: VersionRow, signal: AbortSignal): Promise<string | undefined> {
  for (const { required, receipt: text, target } of engine.queue.deliveriesOf(version.id)) {
    const lane = engine.lanes.get(target);
    const source = lane?.device.source;
    if (required !== 1 || text === null || lane === undefined || source === undefined) continue;
    const { path, size } = JSON.parse(text) as StoredReceipt;
    try {
      const there = await lane.host(signal, async (hosted) => {
        if (!lane.attached) await lookOnce(lane, hosted);
        const entry = await source.stat(path, hosted);
        const why = entry === undefined ? await whyNotListed(lane, hosted) : undefined;
        if (why !== undefined) throw new Fault("offline", why);
        return entry;
      });
      if (there === undefined) return `${target}:${path} is not there any more`;
      if (there.kind !== "file" || there.size !== size) return `${target}:${path} is another file by now`;
    } catch (error) {
      if (!isFault(error) || signal.aborted) throw error;
      lane.noteFault(error);
      throw new Fault("transient", `${target} is asked first whether it has it still: ${error.message}`, { cause: error });
    }
  }
  return undefined;
}

function* receiptsOf(engine: Engine, what: string | undefined): Generator<DeliveryRow> {
  if (what !== undefined) {
    const named = namedBy(engine, what);
    if (named.length === 0) throw unknown(engine, what);
    for (const { deliveries } of named) yield* deliveries.filter(({ state }) => state === "done");
    return;
  }
  for (let last = ""; ;) {
    const rows = engine.journal.all<DeliveryRow>(
      `SELECT * FROM deliveries WHERE id > ? AND state = 'done' ORDER BY id LIMIT ${page}`,
      last,
    );
    yield* rows;
    const end = rows.at(-1);
    if (end === undefined) return;
    last = end.id;
  }
}

async function atTarget(
  engine: Engine,
  version: VersionRow,
  delivery: DeliveryRow,
  receipt: StoredReceipt,
  places: Places,
  signal: AbortSignal,
): Promise<Verified> {
  const { id, target } = delivery;
  const lane = engine.lanes.get(target);
  const result = (verdict: Verified["verdict"], text: string, todo?: string): Verified => ({
    id,
    file: nameOf(version),
    at: target,
    path: receipt.path,
    verdict,
    text,
    ...(todo === undefined ? {} : { todo }),
  });
  const again = `to send it again: filesync retry ${id}`;
  if (lane?.device.target === undefined) return result("unreachable", `"${target}" is not in the configuration`);
  if (continued(engine, version, delivery, receipt)) return result("left", "a longer version of it took its place there");
  try {
    return await lane.host(signal, (hosted) => lookAt(lane, asked(engine, delivery, receipt), receipt, result, again, places, hosted));
  } catch (error) {
    if (!isFault(error) || signal.aborted) throw error;
    lane.noteFault(error);
    return result("unreachable", error.message);
  }
}

/** Of each target, why nothing can be said of what is not seen there: the place itself is not; undefined where it is. Listed once: thousands may be missing in it. */
type Places = Map<Lane, string | undefined>;

async function whyUnseen(lane: Lane, places: Places, signal: AbortSignal): Promise<string | undefined> {
  if (!places.has(lane)) places.set(lane, await whyNotListed(lane, signal));
  return places.get(lane);
}

async function whyNotListed(lane: Lane, signal: AbortSignal): Promise<string | undefined> {
  try {
    await lane.device.target?.expectRoot?.(signal);
    for await (const entry of lane.device.source?.list(signal, { enter: () => false }) ?? []) if (entry.path !== "") break;
    return undefined;
  } catch (error) {
    if (!isFault(error) || signal.aborted) throw error;
    return error.message;
  }
}

async function lookAt(
  lane: Lane,
  upload: Upload,
  receipt: StoredReceipt,
  result: (verdict: Verified["verdict"], text: string, todo?: string) => Verified,
  again: string,
  places: Places,
  signal: AbortSignal,
): Promise<Verified> {
  const { target } = lane.device;
  const missing = async () => {
    const why = await whyUnseen(lane, places, signal);
    return why === undefined
      ? result("missing", "it is not there any more", again)
      : result("unreachable", `nothing is to be seen there: ${why}; is its disk not mounted?`);
  };
  if (!lane.attached) await lookOnce(lane, signal);
  const there = await target?.look?.(upload, signal);
  if (target?.look !== undefined && there === undefined) return missing();
  // In the place of the file there may be something that has its size all the same.
  const { source } = lane.device;
  const entry = there?.digest === undefined ? await source?.stat(receipt.path, signal) : undefined;
  if (entry !== undefined && entry.kind !== "file")
    return result(
      "differs",
      `what is there now is ${entry.kind === "directory" ? "a directory" : (entry.reason ?? "no plain file")}`,
      again,
    );
  const held = there ?? entry;
  if (held === undefined)
    return source === undefined
      ? result("left", `nobody can look at what ${lane.name} holds: its receipt is all that there is`)
      : missing();
  if (held.size !== receipt.size) return result("differs", `there are ${held.size} bytes, and the receipt says ${receipt.size}`, again);
  if (receipt.digest === undefined) return result("size", `there are ${receipt.size} bytes; the receipt has no digest`);
  if (there?.digest === undefined && source === undefined)
    return result("size", `there are ${receipt.size} bytes; ${lane.name} can neither digest nor be read`);
  const proved = there?.digest === undefined ? entry && (await readBack(lane, entry, signal)) : there;
  if (proved === undefined) return missing();
  if (proved.digest !== receipt.digest) return result("differs", "another content of the same size is there", again);
  const how = proved.proof === "readback" ? "readback" : "digest";
  return result(
    how,
    how === "digest" ? `${lane.name} holds the content that was delivered` : "what is there was read back, and is what was delivered",
  );
}

/** When each device that is away was tried last: among a thousand deliveries to it, not for each. */
const tried = new WeakMap<Lane, number>();
const tryAgainMs = 30_000;

async function lookOnce(lane: Lane, signal: AbortSignal): Promise<void> {
  const now = lane.clock.monotonicMs();
  if (now - (tried.get(lane) ?? -Infinity) < tryAgainMs) throw new Fault("offline", lane.state.reason ?? "it is away");
  tried.set(lane, now);
  await lane.lookNow(signal);
}

/** A later version was appended to, or put in the place of, this one: its receipt counts. */
function continued(engine: Engine, version: VersionRow, delivery: DeliveryRow, receipt: StoredReceipt): boolean {
  return (
    engine.journal.get(
      `SELECT 1 FROM deliveries d JOIN versions v ON v.id = d.version
       WHERE v.source = ? AND v.path = ? AND d.target = ? AND d.state = 'done' AND d.id <> ? AND d.done_ms >= ? AND d.size > ?
       AND json_extract(d.receipt, '$.path') = ? LIMIT 1`,
      version.source,
      version.path,
      delivery.target,
      delivery.id,
      delivery.done_ms ?? 0,
      receipt.size,
      receipt.path,
    ) !== undefined
  );
}

/** Only its name, size and digest are asked for. */
function asked(engine: Engine, delivery: DeliveryRow, receipt: StoredReceipt): Upload {
  return {
    id: delivery.id,
    path: receipt.path,
    partialPath: partialPath(receipt.path, engine.names.installation, delivery.id),
    size: receipt.size,
    expect: { kind: "absent" },
    sealed: true,
    ...(receipt.digest === undefined ? {} : { digest: receipt.digest }),
    memo: { get: () => undefined, set: () => Promise.resolve() },
    read: nothing,
    chunks: nothing,
  };
}

function nothing(): never {
  throw new Error("nothing is sent");
}

async function readBack(lane: Lane, entry: FileEntry, signal: AbortSignal): Promise<Occupant> {
  const digest = await digestAtSource(lane, entry, signal);
  return { occupied: true, size: entry.size, proof: "readback", ...(digest === undefined ? {} : { digest }) };
}

async function hereAndAtSource(engine: Engine, version: VersionRow, receipt: StoredReceipt, signal: AbortSignal): Promise<Verified[]> {
  const results: Verified[] = [];
  const result = (at: string, verdict: Verified["verdict"], text: string, todo?: string) =>
    results.push({ id: version.id, file: nameOf(version), at, verdict, text, ...(todo === undefined ? {} : { todo }) });
  const lane = engine.lanes.get(version.source);
  const own = lane?.device.source?.features.digests[0];
  let ours: Digest | undefined;
  if (version.store === "spool" && version.state === "sealed" && version.spooled > 0) {
    const path = engine.spool.pathOf(version.id);
    try {
      const [sha, other] = await digestsOf(createReadStream(path, { highWaterMark: 2 ** 20, signal }), [
        "sha256",
        ...(own === undefined ? [] : [own]),
      ]);
      ours = other;
      const wanted = version.digest ?? receipt.digest;
      if (sha === wanted) result("spool", "digest", "its copy in the spool is whole");
      else
        result(
          "spool",
          "differs",
          "its copy in the spool is damaged",
          `to have it read again from ${version.source}: rm ${shellWord(path)}`,
        );
    } catch (error) {
      if (signal.aborted) throw error;
      result(
        "spool",
        "differs",
        faultOfErrno(error, "its copy in the spool").message,
        `to have it read again from ${version.source}: rm ${shellWord(path)}`,
      );
    }
  }
  if (lane?.device.source === undefined) return results;
  try {
    await lane.host(signal, async (hosted) => {
      if (!lane.attached) await lookOnce(lane, hosted);
      const entry = await lane.device.source?.stat(version.path, hosted);
      // A device answers before it tells that it is attached.
      const isIn = version.medium === (entry?.medium ?? "") || lane.holds(version.medium);
      if (!isIn) throw new Fault("offline", `the medium ${version.medium} is not in`);
      if (entry === undefined) result(lane.name, "left", version.released ?? "it is not at its source any more");
      else if (entry.size !== version.size || (version.modified_ms !== null && entry.modifiedMs !== version.modified_ms))
        result(lane.name, "left", "its source has another state of it by now: that is a file of its own");
      else results.push(await sameAtSource(lane, version, entry, receipt, ours, hosted));
    });
  } catch (error) {
    if (!isFault(error) || signal.aborted) throw error;
    lane.noteFault(error);
    result(lane.name, "unreachable", error.message);
  }
  return results;
}

/** Size and time are those of the version: its content is compared where that is cheap. `ours`: the source's kind of digest, over the spool's copy. */
async function sameAtSource(
  lane: Lane,
  version: VersionRow,
  entry: FileEntry,
  receipt: StoredReceipt,
  ours: Digest | undefined,
  signal: AbortSignal,
): Promise<Verified> {
  const { source } = lane.device;
  const about = { id: version.id, file: nameOf(version), at: lane.name };
  const wanted = version.digest ?? receipt.digest;
  let theirs: Digest | undefined;
  let held = ours;
  if (held !== undefined) theirs = await source?.digest?.(entry, kindOf(held), signal);
  else if (source?.features.inPlace === true && wanted !== undefined) {
    held = wanted;
    theirs = await digestAtSource(lane, entry, signal);
  }
  if (theirs === undefined) return { ...about, verdict: "size", text: "its source has it, with the same size and time" };
  if (theirs === held) return { ...about, verdict: "digest", text: "its source has the same content" };
  return {
    ...about,
    verdict: "differs",
    text: "its source has another content under the same size and time than what was delivered",
    todo: `look at both; to have it delivered as a file of its own: touch it at ${lane.name}`,
  };
}
