/**
 * Workers: claims and does work while there are slots, woken by a stream of hints. A hint that comes while it claims stays queued; an error
 * inside one piece of work ends only that piece.
 *
 * The returned observable emits each piece when it has ended, and completes, after `stop`, once nothing runs any more. An error that `claim` or
 * `run` did not deal with stops the rest, and is told once nothing runs any more: what comes after it may begin the same work anew.
 */
import { auditTime, Observable } from "./rxjs.js";
import { Fault } from "./errors.js";

export interface Work<T> {
  /** How many may run at once, asked each time. */
  slots(): number;
  /** The next piece; undefined when there is none now, "full" when there is one that has to wait for another to end or to give way. */
  claim(): Promise<T | "full" | undefined>;
  /** Does it, until it has ended or `stop` is called, which gives the signal. Never rejects: what goes wrong is dealt with inside. */
  run(item: T, signal: AbortSignal, stop: (reason: Fault) => void): Promise<void>;
  /** Of what runs, the one that should give way to better work that waits, and that could begin at once; asked only when all slots are taken, or `claim` said so. */
  givesWay?(running: readonly T[]): T | undefined | Promise<T | undefined>;
}

/** The reason of a signal that asks a piece of work to give way to better work. */
const giveWay = () => new Fault("aborted", "gives way to what is more urgent");

const wakeMs = 5;

export function workers<T>(wake$: Observable<unknown>, stop: AbortSignal, work: Work<T>): Observable<T> {
  return new Observable((subscriber) => {
    const running = new Map<T, AbortController>();
    let claiming = false;
    let again = false;
    let failure: { error: unknown } | undefined;

    const ending = () => stop.aborted || failure !== undefined;

    const finish = () => {
      if (!ending() || running.size > 0 || claiming) return;
      if (failure === undefined) subscriber.complete();
      else subscriber.error(failure.error);
    };

    const fail = (error: unknown) => {
      failure ??= { error };
      for (const controller of running.values()) controller.abort();
    };

    const fill = async () => {
      if (claiming) {
        again = true;
        return;
      }
      if (ending()) return;
      claiming = true;
      try {
        do {
          again = false;
          let full = false;
          while (!ending() && running.size < work.slots()) {
            const item = await work.claim();
            if (item === "full") full = true;
            if (item === undefined || item === "full") break;
            begin(item);
          }
          if (!ending() && (full || (work.slots() > 0 && running.size >= work.slots()))) {
            const loser = await work.givesWay?.([...running.keys()]);
            if (loser !== undefined) running.get(loser)?.abort(giveWay());
          }
        } while (again && !ending());
      } catch (error) {
        fail(error);
      } finally {
        claiming = false;
        finish();
      }
    };

    const begin = (item: T) => {
      const controller = new AbortController();
      running.set(item, controller);
      if (ending()) controller.abort(stop.reason);
      void work
        .run(item, controller.signal, (reason) => controller.abort(reason))
        .catch(fail)
        .finally(() => {
          running.delete(item);
          subscriber.next(item);
          if (ending()) finish();
          else void fill();
        });
    };

    const onStop = () => {
      for (const controller of running.values()) controller.abort(stop.reason);
      finish();
    };
    stop.addEventListener("abort", onStop, { once: true });
    // Hints come in flocks: one look serves those of a few milliseconds.
    const hints = wake$.pipe(auditTime(wakeMs)).subscribe(() => void fill());
    if (stop.aborted) onStop();
    else void fill();
    return () => {
      hints.unsubscribe();
      stop.removeEventListener("abort", onStop);
      for (const controller of running.values()) controller.abort();
    };
  });
}
