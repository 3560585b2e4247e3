/** `why` of a path that a mirror or two-way route follows: by which it is kept the same, and how that stands. It reads; it changes nothing. */
import type { Engine } from "../engine.js";
import { lastRan, lastRound, type LastRound } from "../last.js";
import { isAtOrBelow, parentOf } from "../paths.js";
import { dateText } from "../route.js";
import type { Reason, WhyFile } from "../why.js";
import { nameOf, routeId, type SyncConfig, titleOf } from "./options.js";
import type { Agreed, Staged } from "./store.js";
import type { SyncRoute } from "./sync-route.js";

/** One for each route that knows the path; `device`: only at this one; `isKnown`: that there is, or was, such a file is known otherwise. */
export function whySynced(engine: Engine, device: string | undefined, path: string, isKnown: boolean): WhyFile[] {
  return engine.config.syncs.flatMap((config): WhyFile[] => {
    const known = knownIn(engine, config, device, path);
    if (known !== undefined) return [known];
    const [at] = pathsIn(config, device, path);
    const barred = at === undefined || !isKnown ? undefined : barredText(engine, config);
    return at === undefined || barred === undefined
      ? []
      : [{ source: config.from, path: at, reasons: [{ code: "sync-left", to: config.to, text: barred }] }];
  });
}

/** The route that knows the path, as `status` shows it. */
export function followerOf(engine: Engine, device: string | undefined, path: string): string | undefined {
  const follower = engine.config.syncs.find((config) => knownIn(engine, config, device, path) !== undefined);
  return follower === undefined ? undefined : titleOf(follower);
}

/** Where what such a route removed of that path would be: it is known no more once it has gone on both sides. undefined where none follows it. */
export function trashOf(engine: Engine, device: string | undefined, path: string): string | undefined {
  const configs = engine.config.syncs.filter((config) => pathsIn(config, device, path).length > 0);
  const titles = configs.map(titleOf);
  const barred = configs.flatMap((config) => barredText(engine, config) ?? []);
  if (titles.length > 0 && barred.length === titles.length) return barred.join("; ");
  return titles.length === 0
    ? undefined
    : `what ${titles.join(" or ")} removed is forgotten once both sides are without it: it lies in ".filesync/trash" of the side that had it last, for "trashKeep"`;
}

/** It never came so far as to remove anything, or does not by now. */
function barredText(engine: Engine, config: SyncConfig): string | undefined {
  const { state, reason } = engine.syncs.get(nameOf(config)) ?? {};
  if (state === "refused") return `${titleOf(config)} is refused${reason === undefined ? "" : `: ${reason}`}`;
  const last = state === undefined ? lastRound(engine, nameOf(config)) : undefined;
  return last?.state === "refused" ? `${titleOf(config)}: ${lastText(last)}` : undefined;
}

function knownIn(engine: Engine, config: SyncConfig, device: string | undefined, path: string): WhyFile | undefined {
  return pathsIn(config, device, path)
    .map((at) => whyIn(engine, config, at))
    .find(({ reasons }) => reasons.length > 0);
}

function whyIn(engine: Engine, config: SyncConfig, path: string): WhyFile {
  const { journal, names, syncs } = engine;
  const { mode, from, to } = config;
  const route = syncs.get(nameOf(config));
  const last = route === undefined ? lastRound(engine, nameOf(config)) : undefined;
  const stands =
    route === undefined ? `no daemon runs${last === undefined || isWell(last) ? "" : `; ${lastText(last)}`}` : stateText(route);
  const id = routeId(names.installation, config);
  const found = journal.get<{ agreed: string }>("SELECT agreed FROM agreed WHERE route = ? AND path = ?", id, path);
  const agreed = found === undefined ? undefined : (JSON.parse(found.agreed) as Agreed);
  const title = titleOf(config);
  const reasons: Reason[] = [];
  const left = leftAs(route?.troubles ?? new Map(last?.troubles.map((left) => [left.path, left.reason])), [from, to], path);
  if (left !== undefined && last !== undefined)
    reasons.push({ code: "sync-left", to, text: `${lastRan(last)}, ${title} left it as it was${left}` });
  else if (left !== undefined) reasons.push({ code: "sync-left", to, text: `${title} leaves it as it is${left}` });
  else if (route?.settling.has(path) === true)
    reasons.push({ code: "settling", to, text: `${title} waits for it: it is being written, or was a moment ago ("settle")` });
  else if (route?.pending?.paths.has(path) === true)
    reasons.push({ code: "sync-waits", to, text: `${title} has something to do with it; ${stands}` });
  // What the last run said of it may be of before.
  if ((reasons.length === 0 || last !== undefined) && isBegun(journal, id, path))
    reasons.push({ code: "sync-waits", to, text: `${title} has begun to bring it, and it has no name yet; ${stands}` });
  if (agreed !== undefined) {
    const what = mode === "two-way" ? "it was the same on both sides" : `it was brought to ${to}`;
    const how = reasons.length > 0 ? "before that " : "";
    reasons.push({ code: "synced", to, text: `${title} follows it: ${how}${what}${reasons.length > 0 ? "" : `; ${stands}`}` });
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
function leftAs(troubles: ReadonlyMap<string, string>, sides: readonly string[], path: string): string | undefined {
  const own = troubles.get(path);
  if (own !== undefined) return `: ${own}`;
  for (let at = path; at !== ""; at = parentOf(at))
    for (const side of sides) {
      const why = troubles.get(`${side}:${at}`);
      if (why !== undefined) return at === path ? `: ${why}` : `, with ${side}:${at}: ${why}`;
    }
  return undefined;
}

function timeOf({ here: { stamp } }: Agreed): { modifiedMs?: number } {
  return stamp.modifiedMs === undefined ? {} : { modifiedMs: stamp.modifiedMs };
}

function stateText(route: SyncRoute): string {
  const { state, reason, evenMs } = route;
  if (state === "even" && evenMs !== undefined) return `so it was found ${dateText(evenMs)}`;
  const what = { working: "is at work", waiting: "waits" } as const;
  const text = state === "working" || state === "waiting" ? what[state] : `is ${state}`;
  return `the route ${text}${reason === undefined ? "" : `: ${reason}`}`;
}

const isWell = ({ state }: LastRound) => state === "even" || state === "working";

function lastText(last: LastRound): string {
  const { state, reason } = last;
  return `${lastRan(last)}, the route ${state === "waiting" ? "waited" : `was ${state}`}${reason === undefined ? "" : `: ${reason}`}`;
}

/** How a path of one of its devices, or of either, is called below its two directories. */
function pathsIn({ from, to, into }: SyncConfig, device: string | undefined, path: string): string[] {
  const there = into === "" ? path : isAtOrBelow(path, into) ? path.slice(into.length + 1) : "";
  const paths = [...(device === undefined || device === from ? [path] : []), ...(device === undefined || device === to ? [there] : [])];
  return [...new Set(paths)].filter((at) => at !== "");
}
