/** `why` of a path that a mirror or two-way route follows: by which it is kept the same, and how that stands. It reads; it changes nothing. */
import type { Engine } from "../engine.js";
import { isAtOrBelow, parentOf } from "../paths.js";
import { dateText } from "../route.js";
import type { Reason, WhyFile } from "../why.js";
import { nameOf, routeId, type SyncConfig, titleOf } from "./options.js";
import type { Agreed, Staged } from "./store.js";
import type { SyncRoute } from "./sync-route.js";

/** One for each route that knows the path; `device`: only at this one. */
export function whySynced(engine: Engine, device: string | undefined, path: string): WhyFile[] {
  return engine.config.syncs.flatMap((config) => knownIn(engine, config, device, path) ?? []);
}

/** The route that knows the path, as `status` shows it. */
export function followerOf(engine: Engine, device: string | undefined, path: string): string | undefined {
  const follower = engine.config.syncs.find((config) => knownIn(engine, config, device, path) !== undefined);
  return follower === undefined ? undefined : titleOf(follower);
}

/** Where what such a route removed of that path would be: it is known no more once it has gone on both sides. undefined where none follows it. */
export function trashOf(engine: Engine, device: string | undefined, path: string): string | undefined {
  const titles = engine.config.syncs.filter((config) => pathsIn(config, device, path).length > 0).map(titleOf);
  return titles.length === 0
    ? undefined
    : `what ${titles.join(" or ")} removed is forgotten once both sides are without it: it lies in ".filesync/trash" of the side that had it last, for "trashKeep"`;
}

function knownIn(engine: Engine, config: SyncConfig, device: string | undefined, path: string): WhyFile | undefined {
  return pathsIn(config, device, path)
    .map((at) => whyIn(engine, config, at))
    .find(({ reasons }) => reasons.length > 0);
}

function whyIn({ journal, names, syncs }: Engine, config: SyncConfig, path: string): WhyFile {
  const { mode, from, to } = config;
  const route = syncs.get(nameOf(config));
  const id = routeId(names.installation, config);
  const found = journal.get<{ agreed: string }>("SELECT agreed FROM agreed WHERE route = ? AND path = ?", id, path);
  const agreed = found === undefined ? undefined : (JSON.parse(found.agreed) as Agreed);
  const title = titleOf(config);
  const reasons: Reason[] = [];
  const left = leftAs(route, [from, to], path);
  if (left !== undefined) reasons.push({ code: "sync-left", to, text: `${title} leaves it as it is${left}` });
  else if (route?.settling.has(path) === true)
    reasons.push({ code: "settling", to, text: `${title} waits for it: it is being written, or was a moment ago ("settle")` });
  else if (route?.pending?.paths.has(path) === true)
    reasons.push({ code: "sync-waits", to, text: `${title} has something to do with it; ${stateText(route)}` });
  else if (isBegun(journal, id, path))
    reasons.push({ code: "sync-waits", to, text: `${title} has begun to bring it, and it has no name yet; ${stateText(route)}` });
  if (agreed !== undefined) {
    const what = mode === "two-way" ? "it was the same on both sides" : `it was brought to ${to}`;
    const how = reasons.length > 0 ? "before that " : "";
    reasons.push({ code: "synced", to, text: `${title} follows it: ${how}${what}${reasons.length > 0 ? "" : `; ${stateText(route)}`}` });
  }
  const stamp = agreed?.kind === "file" ? { size: agreed.size, ...timeOf(agreed) } : {};
  return { source: from, path, ...stamp, reasons };
}

/** Also where no daemon runs that would say why it is left. */
const isBegun = (journal: Engine["journal"], route: string, path: string): boolean =>
  journal
    .all<{ staged: string }>("SELECT staged FROM staged WHERE route = ?", route)
    .some(({ staged }) => (JSON.parse(staged) as Staged).staging.path === path);

/** What could not be seen on a side stands for all that is in it. */
function leftAs(route: SyncRoute | undefined, sides: readonly string[], path: string): string | undefined {
  const own = route?.troubles.get(path);
  if (own !== undefined) return `: ${own}`;
  for (let at = path; at !== ""; at = parentOf(at))
    for (const side of sides) {
      const why = route?.troubles.get(`${side}:${at}`);
      if (why !== undefined) return at === path ? `: ${why}` : `, with ${side}:${at}: ${why}`;
    }
  return undefined;
}

function timeOf({ here: { stamp } }: Agreed): { modifiedMs?: number } {
  return stamp.modifiedMs === undefined ? {} : { modifiedMs: stamp.modifiedMs };
}

function stateText(route: SyncRoute | undefined): string {
  if (route === undefined) return "no daemon runs";
  const { state, reason, evenMs } = route;
  if (state === "even" && evenMs !== undefined) return `so it was found ${dateText(evenMs)}`;
  const what = { working: "is at work", waiting: "waits" } as const;
  const text = state === "working" || state === "waiting" ? what[state] : `is ${state}`;
  return `the route ${text}${reason === undefined ? "" : `: ${reason}`}`;
}

/** How a path of one of its devices, or of either, is called below its two directories. */
function pathsIn({ from, to, into }: SyncConfig, device: string | undefined, path: string): string[] {
  const there = into === "" ? path : isAtOrBelow(path, into) ? path.slice(into.length + 1) : "";
  const paths = [...(device === undefined || device === from ? [path] : []), ...(device === undefined || device === to ? [there] : [])];
  return [...new Set(paths)].filter((at) => at !== "");
}
