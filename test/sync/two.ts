/** Two trees, and what is between them: whoever tests what a round does between any two calls. */
import { unsyncedOf, type World } from "../../core/sync/carry.js";
import { MirrorTable } from "../../core/sync/mirror-table.js";
import { NoRoom } from "../../core/sync/no-room.js";
import { round, type Rules } from "../../core/sync/round.js";
import { Kept } from "./kept.js";
import { awayDir, type Gate, Tree, TreeReplica, trashDir } from "./model-tree.js";

export const rules: Rules = {
  ...{ maxDeletes: undefined, anew: [], together: 1, noRoom: new NoRoom() },
  begunAnew: () => undefined,
  neverMarked: () => false,
  forgets: () => false,
  named: { here: "box", there: "nas" },
  before: () => Promise.resolve(),
};

export const mirroring = (deletes: boolean) => (fresh: () => string, store: Kept) =>
  new MirrorTable(store, { deletes, away: awayDir, fresh });

/** A directory here and one of a server, and what happens between any two calls. */
export function two(table: (fresh: () => string, store: Kept) => World["table"]) {
  let [time, serial] = [1, 0];
  const tick = () => (time += 1);
  const [box, server] = [new Tree(tick, true, "born"), new Tree(tick, false)];
  const between: { gate: Gate; boot: string } = { gate: () => Promise.resolve(), boot: "the first" };
  const gate: Gate = (when, call) => between.gate(when, call);
  const intent = () => String((serial += 1));
  const store = new Kept();
  const world: World = {
    sides: { here: new TreeReplica(box, gate), there: new TreeReplica(server, gate) },
    store,
    table: table(intent, store),
    untaken: new Map(),
    get boot() {
      return between.boot;
    },
    unsynced: new Map(),
    names: {
      trash: (_side, path, id) => `${trashDir}/${id}/${path}`,
      conflict: (path, n) => `${path}.conflict-${n}`,
      staging: (side, path, { stamp }) => `${side} ${path} ${stamp.size} ${stamp.modifiedMs}`,
      intent,
    },
  };
  /** What was said to be lost. */
  const told = new Map<string, string>();
  const lost = (those: ReadonlyMap<string, string>) => {
    for (const [path, why] of those) told.set(path, why);
  };
  const once = async () => {
    const result = await round(world, { ...rules, anew: ["there"], lost }, new AbortController().signal);
    if (result.failed.size + result.left.size === 0 && world.table instanceof MirrorTable) world.table.forget();
    return result;
  };
  const run = async () => {
    for (let done = 1; done > 0;) ({ done } = await once());
  };
  /** The program is, not the system. */
  const startAnew = () => {
    world.unsynced.clear();
    for (const [key, entry] of unsyncedOf(store)) world.unsynced.set(key, entry);
  };
  return { box, server, between, once, run, startAnew, store, told };
}

export const files = (box: Tree, ...paths: string[]) => {
  for (const [n, path] of paths.entries()) {
    box.makeParents(path);
    box.put(path, n + 1);
  }
};
