/**
 * Workers: claims and does work while there are slots, woken by a stream of hints. A hint that comes while it claims stays queued; an error
 * inside one piece of work ends only that piece.
 *
 * The returned observable emits each piece when it has ended, and completes, after `stop`, once nothing runs any more.
 */
import { Observable } from "rxjs";
import { Fault } from "./errors.js";

export interface Work<T> {
  /** How many may run at once, asked each time. */
  slots(): number;
  /** The next piece; undefined when there is none now. */
  claim(): Promise<T | undefined>;
  /** Does it. Never rejects: what goes wrong is dealt with inside. */
  run(item: T, signal: AbortSignal): Promise<void>;
  /** Of what runs, the one that should give way to better work that waits; asked only when all slots are taken. */
  givesWay?(running: readonly T[]): T | undefined;
}

/** The reason of a signal that asks a piece of work to give way to better work. */
export const giveWay = () => new Fault("aborted", "gives way to what is more urgent");

export function workers<T>(wake$: Observable<unknown>, stop: AbortSignal, work: Work<T>): Observable<T> {
  return new Observable((subscriber) => {
    const running = new Map<T, AbortController>();
    let claiming = false;
    let again = false;

    const finish = () => {
      if (stop.aborted && running.size === 0 && !claiming) subscriber.complete();
    };

    const fill = async () => {
      if (claiming) {
        again = true;
        return;
      }
      claiming = true;
      try {
        do {
          again = false;
          while (!stop.aborted && running.size < work.slots()) {
            const item = await work.claim();
            if (item === undefined) break;
            begin(item);
          }
          if (!stop.aborted && running.size > 0 && running.size >= work.slots()) {
            const loser = work.givesWay?.([...running.keys()]);
            if (loser !== undefined) running.get(loser)?.abort(giveWay());
          }
        } while (again && !stop.aborted);
      } catch (error) {
        subscriber.error(error);
      } finally {
        claiming = false;
        finish();
      }
    };

    const begin = (item: T) => {
      const controller = new AbortController();
      running.set(item, controller);
      if (stop.aborted) controller.abort(stop.reason);
      void work
        .run(item, controller.signal)
        .catch((error: unknown) => subscriber.error(error))
        .finally(() => {
          running.delete(item);
          subscriber.next(item);
          if (stop.aborted) finish();
          else void fill();
        });
    };

    const onStop = () => {
      for (const controller of running.values()) controller.abort(stop.reason);
      finish();
    };
    stop.addEventListener("abort", onStop, { once: true });
    const hints = wake$.subscribe(() => void fill());
    if (stop.aborted) onStop();
    else void fill();
    return () => {
      hints.unsubscribe();
      stop.removeEventListener("abort", onStop);
      for (const controller of running.values()) controller.abort();
    };
  });
}
