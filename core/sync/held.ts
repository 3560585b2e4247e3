/** What is not to be touched in a round, as something was begun with it that cannot be ended now. */
import type { Fault } from "../errors.js";
import { isAtOrBelow, parentOf } from "../paths.js";
import { type Action, isMove, type Side } from "../reconcile.js";

/** By path, with what is below it; `of`: the one of them that is told. */
export type Held = Map<string, Why>;

export interface Why {
  readonly of: string;
  readonly on: Side;
  readonly error: Fault;
}

export function hold(held: Held, path: string, from: string | undefined, on: Side, error: Fault): void {
  for (const one of [path, from ?? path]) held.set(one, { of: path, on, error });
}

/** Why an action waits: it would touch what is held, or take it elsewhere. Then what it is about is held too: what comes after it may count on it. */
export function waits(held: Held, action: Action): Why | undefined {
  if (held.size === 0) return undefined;
  const takes = isMove(action) || action.do === "remove" || action.do === "rmdir";
  if (!takes && !isIn(held, action.path)) return undefined;
  const names = namesOf(action);
  const why = [...held].find(([path]) => names.some((name) => isAtOrBelow(name, path) || (takes && isAtOrBelow(path, name))))?.[1];
  if (why !== undefined) for (const name of names) if (!isIn(held, name)) held.set(name, why);
  return why;
}

export const namesOf = (action: Action): readonly string[] => (isMove(action) ? [action.path, action.from] : [action.path]);

/** Of the nearest path at or above it that has one. */
export function valueAbove<V>(of: ReadonlyMap<string, V>, path: string): V | undefined {
  const at = above(of, path);
  return at === undefined ? undefined : of.get(at);
}

type Paths = Pick<ReadonlySet<string>, "has" | "size">;

/** At or below one of them. */
export const isIn = (paths: Paths, path: string): boolean => above(paths, path) !== undefined;

/** Why it is held, at or below what is. */
export const whyIn = (held: Held, path: string): Why | undefined => valueAbove(held, path);

function above(paths: Paths, path: string): string | undefined {
  if (paths.size === 0) return undefined;
  for (let at = path; ; at = parentOf(at)) {
    if (paths.has(at)) return at;
    if (at === "") return undefined;
  }
}
