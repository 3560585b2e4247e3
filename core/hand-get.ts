/** `get` by hand. The device is a person's for as long as they take what comes: a pager that waits, or a command that was stopped (Ctrl-Z), lets others have it. */
import { ControlError, type Exchange } from "./control.js";
import { Fault, orAborted, throwIfAborted } from "./errors.js";
import type { Lane } from "./lane.js";
import { isSafePath } from "./names.js";
import type { Digest, FileEntry, Source } from "./plugin.js";
import { endsWithin } from "./signals.js";
import { pacedBytes } from "./throttle.js";

/** Who takes nothing for so long gives the device back, and has it again once they take more. */
export const patienceMs = 60_000;

/** The bytes from `offset`; answers the source's digest, where it has one. Throws "changed" and "missing", at the end, of a file that is not as `entry` any more. */
export async function get(lane: Lane, entry: FileEntry, offset: number, exchange: Exchange): Promise<{ digest?: Digest }> {
  const { signal } = exchange;
  const { source } = lane.device;
  if (source === undefined) throw new ControlError(`${lane.name} can only be written to: nothing can be read from it`);
  if (!isSafePath(entry.path)) throw new ControlError(`"${entry.path}" leads out of the device's root`);
  let told: string | undefined;
  const tellWay = () => {
    const way = source.wayOfReading;
    if (way === undefined || `${way.name}: ${way.why}` === told) return;
    told = `${way.name}: ${way.why}`;
    exchange.say({ way });
  };
  for (let from = offset; ;) {
    if (!lane.free) exchange.say({ waiting: `another transfer from ${lane.name} makes way` });
    const leave = await lane.borrow(signal, true);
    let taken: Promise<void> | undefined;
    try {
      for await (const bytes of pacedBytes(await source.open(entry, from, signal), lane.throttle, signal)) {
        throwIfAborted(signal);
        tellWay();
        from += bytes.length;
        taken = exchange.give(bytes);
        if (!(await endsWithin(taken, patienceMs, lane.clock, signal))) break;
        taken = undefined;
      }
      if (taken === undefined) {
        if (offset < entry.size) tellWay();
        return await digestOf(source, entry, signal);
      }
    } finally {
      leave();
    }
    await orAborted(taken, signal);
  }
}

/** Where it is as it was. */
async function digestOf(source: Source, entry: FileEntry, signal: AbortSignal): Promise<{ digest?: Digest }> {
  const now = await source.stat(entry.path, signal);
  if (now === undefined) throw new Fault("missing", `${entry.path} has gone while it was read`);
  if (now.size < entry.size || (now.size === entry.size && now.modifiedMs !== entry.modifiedMs))
    throw new Fault("changed", `${entry.path} was changed while it was read`);
  const kind = source.features.digests[0];
  const digest = kind === undefined ? undefined : await source.digest?.(entry, kind, signal);
  return digest === undefined ? {} : { digest };
}
