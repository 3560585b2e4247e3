/** What a mirror or two-way route remembers: what was last agreed for each path, and what it is in the middle of. */
import { isAtOrBelow } from "../paths.js";
import type { Digest } from "../plugin.js";
import type { Side } from "../reconcile.js";
import type { Entry, Staging, Unsynced } from "./replica.js";

/** What was agreed for a path, and how each side showed it then: a side that still shows it so still has it. */
export interface Agreed {
  readonly kind: "file" | "directory";
  readonly size: number;
  /** Of a file. */
  readonly digest?: Digest;
  readonly here: Entry;
  readonly there: Entry;
}

export interface Old {
  readonly entry: Entry;
  readonly trash: string;
  /** Where the entry does not tell it from what was written a moment later. */
  readonly digest?: Digest;
}

/** Written before anything that was agreed is taken aside, or a new content gets its name; taken away with what became of it. */
export interface Intent {
  /** 16 lower-case hexadecimal digits. */
  readonly id: string;
  readonly on: Side;
  readonly path: string;
  /** What gets the name as it is, a directory with all that is in it; `old` and `put` are absent then. */
  readonly move?: { readonly from: string; readonly entry: Entry };
  /** What is taken aside first, and where to. */
  readonly old?: Old;
  /** What is taken aside gets a name of its own then: it lost a conflict. */
  readonly beside?: true;
  /** What gets the name then; absent: nothing does. `from`: as the other side showed it. */
  readonly put?: { readonly staging: Staging; readonly digest: Digest; readonly from: Entry };
  /** As `Entry.unsynced`, of what was found done. */
  readonly unsynced?: Unsynced;
}

/** Written before the first byte: of what was staged and got no name something may be there. */
export interface Staged {
  readonly on: Side;
  readonly staging: Staging;
  /** Something had the name when it was begun: there is an intent before it gets that. */
  readonly over?: true;
  /** As the other side showed it. */
  readonly volume?: string;
  /** As `Entry.unsynced`, at the other side. */
  readonly unsynced?: Unsynced;
}

/** What a change makes of what was agreed, in memory. `moving`: the paths at or below those of `shift`, where that is known: to look for them among all takes long for thousands of moves. */
export function agreeTo(base: Map<string, Agreed>, { agree = [], shift }: Change, moving?: readonly string[]): void {
  for (const [path, agreed] of agree)
    if (agreed === undefined) base.delete(path);
    else base.set(path, agreed);
  if (shift === undefined) return;
  const { from, to } = shift;
  const paths = moving ?? [...base.keys()];
  for (const path of paths) if (isAtOrBelow(path, to)) base.delete(path);
  for (const path of paths) {
    const agreed = isAtOrBelow(path, from) ? base.get(path) : undefined;
    if (agreed === undefined) continue;
    base.delete(path);
    base.set(to + path.slice(from.length), agreed);
  }
}

export interface Store {
  readonly base: ReadonlyMap<string, Agreed>;
  readonly intents: ReadonlyMap<string, Intent>;
  /** By the id of the staging. */
  readonly staged: ReadonlyMap<string, Staged>;
  /** All of it or nothing, and durable when it resolves. `agree`: undefined forgets. */
  change(change: Change): Promise<void>;
}

export interface Change {
  readonly agree?: readonly (readonly [string, Agreed | undefined])[];
  /** After that: what was agreed at `from` and below it is agreed at `to` and below; what was agreed there is forgotten. */
  readonly shift?: { readonly from: string; readonly to: string };
  /** Instead of what there is of that id. */
  readonly intend?: Intent;
  /** The id of an intent that is over. */
  readonly settle?: string;
  readonly stage?: Staged;
  /** The id of a staging of which nothing is there. */
  readonly unstage?: string;
}
