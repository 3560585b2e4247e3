/**
 * One client at a time, at a server where nothing but a directory can be had exclusively. Who wants to give names makes a directory of its own in `dir`, its hold, and has the turn when nobody
 * else has one there: of two who look after they made theirs at least one sees the other.
 *
 * What gets another name goes by way of the hold. Who ends the turn of a client that seems to be dead gives the hold another name first: what that client still sends finds it no more, also when
 * it had only slept. So nobody has to know who is dead, and no clocks are compared.
 */
import { randomBytes } from "node:crypto";
import { entriesIfAny } from "../entries.js";
import { isFault, throwIfAborted } from "../errors.js";
import type { Clock, Tree } from "../plugin.js";

/** A hold that is seen for so long is of a client that is dead, or sleeps. */
const deadMs = 60_000;
/** So long a turn is used at most, while others may wait. */
const turnMs = 5_000;
/** So long it is kept for what comes next. */
const lingerMs = 300;
/** Who waits looks so often, and later than that by chance. */
const lookMs = 400;

export interface LockGiven {
  readonly tree: Pick<Tree, "list" | "makeNew" | "move" | "rmdir">;
  /** Where holds are, of all clients. */
  readonly dir: string;
  /** Where they are when the turn was ended by others. */
  readonly ended: string;
  /** Names this client among all; no "-" is in it. */
  readonly own: string;
  readonly clock: Pick<Clock, "monotonicMs" | "sleep">;
  /** 0 to 1. */
  readonly random: () => number;
}

export interface Hold {
  /** Below the device's root. What is moved into it goes by `MoveHow.made`, and what is moved out of it has the turn for as long as it is found there. */
  readonly dir: string;
  /** What is in it belongs elsewhere, or nobody knows what is: `leftovers` will have it. */
  abandon(): void;
}

class Turn {
  users = 0;
  /** Nobody joins it any more. */
  closed = false;
  /** Nobody knows what is in the hold, or will be. */
  abandoned = false;
  #tellUnused: () => void = () => undefined;
  readonly #unused = new Promise<void>((resolve) => {
    this.#tellUnused = resolve;
  });
  #finished: Promise<void> | undefined;

  constructor(
    readonly hold: string,
    readonly sinceMs: number,
  ) {}

  left(): void {
    this.users -= 1;
    if (this.users === 0 && this.closed) this.#tellUnused();
  }

  /** Once, when nobody uses it any more. */
  finish(work: () => Promise<void>): Promise<void> {
    this.closed = true;
    if (this.users === 0) this.#tellUnused();
    this.#finished ??= this.#unused.then(work);
    return this.#finished;
  }
}

export class Lock {
  #turn: Promise<Turn> | undefined;
  #linger: NodeJS.Timeout | undefined;
  /** Holds of others, and when each was seen first. */
  #seen = new Map<string, number>();
  #untidy = true;
  #waitsSinceMs: number | undefined;

  constructor(readonly given: LockGiven) {}

  /** A hold of this client may be at the server that it uses no more: `leftovers`. */
  get untidy(): boolean {
    return this.#untidy;
  }

  /** By the clock; undefined: it does not wait for the turn of another client. */
  get waitsSinceMs(): number | undefined {
    return this.#waitsSinceMs;
  }

  /** `work` while nobody else has the turn; several of this client at once. Throws what the tree and `work` throw. */
  async with<T>(signal: AbortSignal, work: (hold: Hold) => Promise<T>): Promise<T> {
    const turn = await this.#join(signal);
    const abandon = () => {
      turn.closed = turn.abandoned = true;
    };
    try {
      return await work({ dir: turn.hold, abandon });
    } finally {
      turn.left();
      clearTimeout(this.#linger);
      if (turn.users === 0 && turn.closed) await this.#finish(turn, signal);
      else if (turn.users === 0) this.#linger = setTimeout(() => void this.#finish(turn, signal), lingerMs);
    }
  }

  /** When nothing more is to be done for now: others get their turn. */
  async rest(signal: AbortSignal): Promise<void> {
    clearTimeout(this.#linger);
    const turn = await this.#turn?.catch(() => undefined);
    if (turn !== undefined) await this.#finish(turn, signal);
  }

  /** While nothing else is done: directories with what was in holds when they were abandoned, or were ended by others, or by a kill. Throws what the tree throws. */
  async leftovers(signal: AbortSignal): Promise<string[]> {
    await this.rest(signal);
    const { dir, ended } = this.given;
    for (const name of await this.#names(dir, signal)) if (this.#isOwn(name)) await this.#end(name, signal);
    return (await this.#names(ended, signal)).flatMap((name) => (this.#isOwn(name) ? [`${ended}/${name}`] : []));
  }

  /** What `leftovers` gave is dealt with. */
  tidied(): void {
    this.#untidy = false;
  }

  async #join(signal: AbortSignal): Promise<Turn> {
    const { clock } = this.given;
    for (;;) {
      throwIfAborted(signal);
      clearTimeout(this.#linger);
      const taking = (this.#turn ??= this.#take(signal));
      const turn = await taking.catch((error: unknown) => {
        if (this.#turn === taking) this.#turn = undefined;
        throw error;
      });
      const isLate = clock.monotonicMs() - turn.sinceMs >= turnMs;
      if (!turn.closed && !isLate) {
        turn.users += 1;
        return turn;
      }
      await this.#finish(turn, signal);
      // Who waits looks only now and then.
      if (isLate) await this.#pause(signal);
    }
  }

  /** Never throws. */
  #finish(turn: Turn, signal: AbortSignal): Promise<void> {
    return turn.finish(async () => {
      // What was sent, and not answered, may still come: only under another name it is sure what is in it.
      if (turn.abandoned) this.#untidy = true;
      else
        await this.given.tree.rmdir(turn.hold, signal).catch(() => {
          this.#untidy = true;
        });
      this.#turn = undefined;
    });
  }

  async #take(signal: AbortSignal): Promise<Turn> {
    try {
      return await this.#taken(signal);
    } finally {
      this.#waitsSinceMs = undefined;
    }
  }

  async #taken(signal: AbortSignal): Promise<Turn> {
    const { tree, dir, own, clock } = this.given;
    for (;;) {
      throwIfAborted(signal);
      if (!(await this.#isTaken(undefined, signal))) {
        const name = `${own}-${randomBytes(6).toString("hex")}`;
        const hold = `${dir}/${name}`;
        try {
          if ((await tree.makeNew(hold, signal)) && !(await this.#isTaken(name, signal))) return new Turn(hold, clock.monotonicMs());
          await tree.rmdir(hold, signal);
        } catch (error) {
          this.#untidy = true;
          throw error;
        }
      }
      this.#waitsSinceMs ??= clock.monotonicMs();
      await this.#pause(signal);
    }
  }

  #pause(signal: AbortSignal): Promise<void> {
    return this.given.clock.sleep(lookMs * (1 + 2 * this.given.random()), signal);
  }

  /** By another than `name`. Ends the turns of those that seem to be dead, and own ones of an earlier life. */
  async #isTaken(name: string | undefined, signal: AbortSignal): Promise<boolean> {
    const now = this.given.clock.monotonicMs();
    const others = (await this.#names(this.given.dir, signal)).filter((it) => it !== name);
    this.#seen = new Map(others.map((it) => [it, this.#seen.get(it) ?? now]));
    let taken = false;
    for (const [other, sinceMs] of this.#seen)
      if (now - sinceMs >= deadMs || this.#isOwn(other)) await this.#end(other, signal);
      else taken = true;
    return taken;
  }

  /** Whatever its client sends from now on has no effect. */
  async #end(name: string, signal: AbortSignal): Promise<void> {
    const { tree, dir, ended } = this.given;
    try {
      await tree.move(`${dir}/${name}`, `${ended}/${name}`, "directory", signal, { ours: true });
    } catch (error) {
      // Its client, or another who waits, was faster.
      if (!isFault(error, "missing")) throw error;
    }
    this.#seen.delete(name);
    if (this.#isOwn(name)) this.#untidy = true;
  }

  #isOwn(name: string): boolean {
    return name.startsWith(`${this.given.own}-`);
  }

  async #names(dir: string, signal: AbortSignal): Promise<string[]> {
    return (await entriesIfAny(this.given.tree, dir, signal)).map(({ path }) => path.slice(dir.length + 1));
  }
}
