/**
 * V8's heap, held small: by itself it takes what memory it likes, and a companion computer has little. When 5,000 small files were sent, 57 MB
 * were taken for old objects of which 11 lived, and 34 for young ones of which 2 did.
 */
import { type PerformanceEntry, PerformanceObserver } from "node:perf_hooks";
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8";

/** Each collection of young objects costs by what lives of them, not by what it frees: with the 2 MiB that V8 begins with they took a quarter of the time of thousands of small files. */
const mostYoungBytes = 8 * 2 ** 20;
/** What the last collections took of the time is too much from then on. A start makes twenty. */
const dear = { collections: 40, share: 0.05 };
/** Where buffers outside the heap are more, they are what collections are for: in a larger young space they would only be kept longer, 20 MB of them where a large file goes to SFTP. */
const mostBufferBytes = 2 ** 20;
/**
 * By how much of what lives the old space, with the buffers that it holds, may grow until all is looked through. With the lesser one each 7 MB that went to SFTP had that done, which took a quarter of
 * the processor's time; with more than the greater one the process becomes larger, and hardly faster.
 */
const growthPercent = { held: 50, buffers: 100 };

let observer: PerformanceObserver | undefined;

/** For the whole process. Again whenever a thread has begun: V8 does not let a new one have less than its own least growth, and gives that to all. */
export function holdHeap(): void {
  growOld(growthPercent.held);
  growYoung(false);
  if (observer !== undefined) return;
  const last: PerformanceEntry[] = [];
  observer = new PerformanceObserver((list) => {
    const isForBuffers = bufferBytes() > mostBufferBytes;
    growOld(isForBuffers ? growthPercent.buffers : growthPercent.held);
    if (isForBuffers) last.length = 0;
    else last.push(...list.getEntries());
    last.splice(0, last.length - dear.collections);
    const [from, to] = [last[0]?.startTime ?? 0, last.at(-1)?.startTime ?? 0];
    const tookMs = last.reduce((sum, { duration }) => sum + duration, 0);
    const isDear = last.length === dear.collections && tookMs > (to - from) * dear.share;
    // Between two looks it grows once, as a rule.
    growYoung(isDear && youngBytes() < mostYoungBytes);
  });
  observer.observe({ entryTypes: ["gc"] });
}

function growOld(percent: number): void {
  setFlagsFromString(`--heap-growing-percent=${percent}`);
}

function growYoung(grows: boolean): void {
  setFlagsFromString(`--semi-space-growth-factor=${grows ? 2 : 1}`);
}

/** node opens a file to tell it, and throws where no more can be opened: that is no reason to end. */
function bufferBytes(): number {
  try {
    return process.memoryUsage().arrayBuffers;
  } catch {
    return 0;
  }
}

/** Both halves. */
function youngBytes(): number {
  return getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space")?.space_size ?? Infinity;
}
