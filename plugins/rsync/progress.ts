/** What rsync prints while it works, as a stream: `--info=progress2 --no-human-readable`, whose figure is the bytes of files that went by. */
import { filter, map, Observable, scan } from "../../core/rxjs.js";

/** Bytes of files so far, each larger than the one before. Ends with the text. */
export function progressOf(text$: Observable<string>): Observable<number> {
  return text$.pipe(
    scan(
      ({ rest, highest }, text) => {
        // A line ends where the next begins: with a return.
        const parts = (rest + text).split(/[\r\n]/);
        const left = (parts.pop() ?? "").slice(-1000);
        const seen = parts.map((part) => Number(/^\s*(\d+) +\d+%/.exec(part)?.[1] ?? 0));
        const now = Math.max(highest, ...seen);
        return { rest: left, highest: now, more: now > highest };
      },
      { rest: "", highest: 0, more: false },
    ),
    filter(({ more }) => more),
    map(({ highest }) => highest),
  );
}
