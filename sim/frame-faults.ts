/** Faults of the wire: they act on whole frames, either way, drawn from the seed. */
import type { FaultRow, Passing, Stage, Tools } from "./faults.js";
import { isTime, time } from "./script.js";

export const frameFaults: readonly FaultRow[] = [
  {
    name: "loss",
    form: "a share of frames that are lost, either way: 0.1 or 10%",
    check: isShare,
    stage: (value, { random }) => {
      const p = share(value);
      return (frame, next) => {
        if (random() >= p) next(frame);
      };
    },
  },
  {
    name: "dup",
    form: "a share of frames that come twice: 0.1 or 10%",
    check: isShare,
    stage: (value, { random }) => {
      const p = share(value);
      return (frame, next) => {
        next(frame);
        if (random() < p) next(frame);
      };
    },
  },
  {
    name: "reorder",
    form: "a share of frames that one to three later ones overtake: 0.1 or 10%",
    check: isShare,
    stage: reorder,
  },
  {
    name: "delay",
    form: "every frame comes up to so much later, in order: 20ms",
    check: (value) => isTime(value),
    stage: delay,
  },
  {
    name: "corrupt",
    form: "a share of frames with one wrong byte: 0.01 or 1%",
    check: isShare,
    stage: (value, { random, damage }) => {
      const p = share(value);
      return (frame, next) => {
        const passing = random() < p ? damage(frame) : frame;
        if (passing !== undefined) next(passing);
      };
    },
  },
  {
    name: "junk",
    form: "a share of frames that up to 300 random bytes follow: 0.1 or 10%",
    check: isShare,
    stage: (value, { random, junk }) => {
      const p = share(value);
      return (frame, next) => {
        next(frame);
        if (random() >= p) return;
        const bytes = junk(1 + Math.floor(random() * 300));
        if (bytes !== undefined) next(bytes);
      };
    },
  },
];

function reorder<T extends Passing>(value: string, { random, after }: Tools<T>): Stage<T> {
  const p = share(value);
  const held: { frame: T; overtaken: number }[] = [];
  return (frame, next) => {
    if (random() < p) {
      const entry = { frame, overtaken: 1 + Math.floor(random() * 3) };
      held.push(entry);
      // Nothing may follow it for a while: then it comes without being overtaken.
      after(30, () => {
        const at = held.indexOf(entry);
        if (at === -1) return;
        held.splice(at, 1);
        next(frame);
      });
      return;
    }
    next(frame);
    for (const entry of [...held]) {
      entry.overtaken -= 1;
      if (entry.overtaken > 0) continue;
      held.splice(held.indexOf(entry), 1);
      next(entry.frame);
    }
  };
}

function delay<T extends Passing>(value: string, { random, after, now }: Tools<T>): Stage<T> {
  const upTo = time(value);
  let lastDueMs = 0;
  return (frame, next) => {
    const nowMs = now();
    lastDueMs = Math.max(lastDueMs, nowMs + random() * upTo);
    after(lastDueMs - nowMs, () => next(frame));
  };
}

/** "0.1" or "10%" as a number. */
export function share(value: string): number {
  return value.endsWith("%") ? Number(value.slice(0, -1)) / 100 : Number(value);
}

export function isShare(value: string): boolean {
  return /^\d+(\.\d+)?%?$/.test(value) && share(value) <= 1;
}
