/**
 * How many bytes may be sent to a target in a day and in a month of the machine's time zone. What is sent again counts again. What is counted is
 * written down in steps, ahead of the sending: a kill costs at most one step of the budget, never a byte beyond it.
 *
 * While wall time is not trusted no new day begins: what is sent then counts to the last day that was known. A clock that goes back, as at each start of a machine
 * without a battery, goes back to what was counted then.
 */
import { Fault } from "./errors.js";
import type { Chunk, Clock, Reading } from "./plugin.js";
import { durationText, sizeText } from "./text.js";
import type { Held } from "./when.js";

export interface BudgetLimits {
  readonly day?: number | undefined;
  readonly month?: number | undefined;
}

/** What is durable. Empty names: nobody knew the time yet. */
export interface Spent {
  readonly day: string;
  readonly dayBytes: number;
  readonly month: string;
  readonly monthBytes: number;
  /** Of days and months that were counted before, the last one last: a clock may go back to one of them. */
  readonly others?: Readonly<Record<string, number>>;
}

export interface SpentStore {
  load(): Spent | undefined;
  save(spent: Spent): Promise<void>;
}

const nothing: Spent = { day: "", dayBytes: 0, month: "", monthBytes: 0 };
const mostStep = 8 * 2 ** 20;
/** So many days and months are remembered. */
const mostOthers = 60;

export class Budget {
  #spent: Spent;
  /** Written down, and not sent yet. */
  #ahead = 0;
  readonly #step: number;
  #saving: Promise<void> = Promise.resolve();

  constructor(
    readonly limits: BudgetLimits,
    readonly store: SpentStore,
    readonly clock: Clock,
  ) {
    this.#spent = store.load() ?? nothing;
    this.#step = Math.max(1, Math.min(mostStep, Math.floor(Math.min(limits.day ?? Infinity, limits.month ?? Infinity) / 100)));
  }

  /** How many of `bytes` may be sent now; they count from here on. Resolves once that is durable. */
  async take(bytes: number): Promise<number> {
    const now = Math.min(bytes, this.left);
    await this.#count(now);
    return now;
  }

  /** They were sent already. */
  spend(bytes: number): Promise<void> {
    this.#roll();
    return this.#count(bytes);
  }

  /** Bytes that may still be sent now. */
  get left(): number {
    this.#roll();
    const { dayBytes, monthBytes } = this.#spent;
    return Math.max(0, Math.min((this.limits.day ?? Infinity) - dayBytes, (this.limits.month ?? Infinity) - monthBytes));
  }

  /** What one file can have at most where it cannot be sent in two parts. */
  get most(): number {
    return Math.min(this.limits.day ?? Infinity, this.limits.month ?? Infinity);
  }

  /** The day that is counted now; "" while none is known. */
  get day(): string {
    this.#roll();
    return this.#spent.day;
  }

  get held(): Held | undefined {
    if (this.left > 0) return undefined;
    const { day = Infinity, month = Infinity } = this.limits;
    const isMonth = this.#spent.monthBytes >= month;
    const reason = `its budget of ${sizeText(isMonth ? month : day)} a ${isMonth ? "month" : "day"} is used up`;
    if (!this.clock.trusted()) return { reason: `${reason}, and nobody knows the time, so no new ${isMonth ? "month" : "day"} begins` };
    const now = new Date(this.clock.wallMs());
    const next = isMonth
      ? new Date(now.getFullYear(), now.getMonth() + 1, 1)
      : new Date(now.getFullYear(), now.getMonth(), now.getDate() + 1);
    const inMs = next.getTime() - now.getTime();
    return { reason: `${reason}; the next begins in ${durationText(inMs / 1000)}`, inMs };
  }

  /** What was written down ahead and not sent is given back. */
  async close(): Promise<void> {
    await this.#saving;
    if (this.#ahead === 0) return;
    this.#ahead = 0;
    await this.store.save(this.#spent);
  }

  async #count(bytes: number): Promise<void> {
    if (bytes === 0) return;
    const { dayBytes, monthBytes } = this.#spent;
    this.#spent = { ...this.#spent, dayBytes: dayBytes + bytes, monthBytes: monthBytes + bytes };
    this.#ahead -= bytes;
    if (this.#ahead >= 0) return this.#saving;
    this.#ahead = this.#step;
    this.#saving = this.store.save({
      ...this.#spent,
      dayBytes: this.#spent.dayBytes + this.#step,
      monthBytes: this.#spent.monthBytes + this.#step,
    });
    await this.#saving;
  }

  #roll(): void {
    if (!this.clock.trusted()) return;
    const now = new Date(this.clock.wallMs());
    const month = `${now.getFullYear()}-${String(now.getMonth() + 1).padStart(2, "0")}`;
    const day = `${month}-${String(now.getDate()).padStart(2, "0")}`;
    const before = this.#spent;
    if (before.day === day) return;
    const counted = { ...before.others, [before.month]: before.monthBytes, [before.day]: before.dayBytes };
    const known = (was: string, bytes: number, is: string) => (was === "" ? bytes : (counted[is] ?? 0));
    this.#spent = {
      day,
      month,
      dayBytes: known(before.day, before.dayBytes, day),
      monthBytes: known(before.month, before.monthBytes, month),
      others: Object.fromEntries(
        Object.entries(counted)
          .filter(([name]) => !["", day, month].includes(name))
          .slice(-mostOthers),
      ),
    };
    this.#ahead = 0;
  }
}

/** As much of a reading as the budget allows; then it ends with "aborted", after `over` was told. */
export function within(budget: Budget, reading: Reading, over: (held: Held) => void): Reading {
  let rest: Chunk | undefined;
  return {
    next: async () => {
      const chunk = rest ?? (await reading.next());
      rest = undefined;
      if (chunk === undefined || chunk.bytes.length === 0) return chunk;
      const allowed = await budget.take(chunk.bytes.length);
      if (allowed === chunk.bytes.length) return chunk;
      rest = chunk;
      if (allowed > 0) {
        rest = { bytes: chunk.bytes.subarray(allowed), release: chunk.release };
        return { bytes: chunk.bytes.subarray(0, allowed), release: () => undefined };
      }
      const held = budget.held ?? { reason: "its budget is used up" };
      over(held);
      throw new Fault("aborted", held.reason);
    },
    close: () => reading.close(),
  };
}
