/** `plan` and `approve`: what a person asks of a route between two devices that both follow, and decides about it. */
import { ControlError } from "../control.js";
import type { Engine } from "../engine.js";
import { isFault, withDevice } from "../errors.js";
import { isAtOrBelow, parentOf } from "../paths.js";
import { type Action, type Content, isMove, type Move, type Row, rowOf, type Side } from "../reconcile.js";
import { nameOf } from "./options.js";
import { listedAt } from "./plan.js";
import { takenText } from "./round.js";
import type { Stopped } from "./stop.js";
import { SyncRoute } from "./sync-route.js";

/** So many are named where all of them would be too many. */
const shownPaths = 5;

export interface PlannedPath {
  readonly path: string;
  /** Of the table in docs/two-way.md; absent where a side could not be seen. */
  readonly row?: Row;
  /** What each knows of it: the content that was agreed last, and those of the two sides, as "-", "directory", or a size and the start of a digest. */
  readonly base: string;
  readonly here: string;
  readonly there: string;
  /** What will be done, in this order; none: nothing. For a person. */
  readonly actions: readonly string[];
  /** Why it is left as it is. */
  readonly left?: string;
}

export interface PlannedRoute {
  readonly route: string;
  readonly state: string;
  readonly reason?: string;
  /** What is so, or has to be, before any of it is done. For a person. */
  readonly first?: string;
  /** Its directories cannot be listed now: what it would do is not known. */
  readonly unseen?: true;
  readonly paths: readonly PlannedPath[];
}

/** Of one route, or of all. Throws ControlError, or the Fault of a device. */
export async function planOf(engine: Engine, what: string | undefined, signal: AbortSignal): Promise<PlannedRoute[]> {
  const routes = what === undefined ? routesOf(engine) : [named(engine, what)];
  if (routes.length === 0) throw new ControlError('there is no route with "mode": "mirror" or "two-way"');
  return Promise.all(
    routes.map(async (route) => {
      const { refusal } = route;
      if (refusal !== undefined) return { route: route.name, state: "refused", reason: refusal, paths: [] };
      const seen = await seenIn(route, signal).catch((error: unknown) => {
        // One that cannot be listed hides nothing of the others.
        if (what !== undefined || !isFault(error) || error.kind === "aborted") throw error;
        return error.message;
      });
      if (typeof seen === "string") return { route: route.name, state: route.state, reason: seen, unseen: true as const, paths: [] };
      const { tables, actions, scans, strange, forgotten, stop, taken } = seen;
      const { base, here, there, unseen } = tables;
      const byPath = new Map<string, Action[]>();
      for (const action of actions) byPath.set(action.path, [...(byPath.get(action.path) ?? []), action]);
      const { moved, gone } = leaving(actions);
      const first =
        strange.length > 0
          ? anewText(route, strange, stop)
          : stop === undefined
            ? undefined
            : stop.hidden.size > 0
              ? `${stop.message}: ${route.asked.isApproved(stop) ? "it is approved for the next run that this is forgotten" : `it is left as it is until that comes back, or "filesync approve ${route.name}" lets it be forgotten`}; nothing is removed for it`
              : `${stop.message}: ${whenOf(route, stop)}this is done:`;
      const paths = [...new Set([...base.keys(), ...here.keys(), ...there.keys(), ...scans.here.settling, ...scans.there.settling])].sort();
      return {
        ...{ route: route.name, state: route.state, ...(route.reason === undefined ? {} : { reason: route.reason }) },
        ...(first === undefined ? {} : { first }),
        paths: paths.map((path) => {
          const [b, l, r] = [base.get(path), here.get(path), there.get(path)];
          const row = rowOf(b, l, r);
          const settling = scans.here.settling.has(path) || scans.there.settling.has(path);
          const hidden = unseen?.("here", path) === true || unseen?.("there", path) === true;
          const [otherwise] = (byPath.get(path) ?? []).flatMap((action) => {
            const by = taken.get(action);
            return by === undefined || !("on" in action) ? [] : [takenText(by, route.named[action.on])];
          });
          const stays = l === undefined && r !== undefined && !byPath.has(path) && !moved.some((from) => isAtOrBelow(path, from));
          const above = stays ? dirIn(gone, path) : undefined;
          const left = settling
            ? "it is being written, or was a moment ago"
            : hidden
              ? (scans.here.unseen.get(path) ?? scans.there.unseen.get(path) ?? "it, or what is above it, cannot be seen")
              : stays && above === undefined
                ? `${b !== undefined ? "it has gone here" : forgotten.has(path) ? "what was agreed of it is forgotten" : "this route did not bring it there"}: it stays there`
                : otherwise;
          return {
            ...{ path, base: textOf(b), here: textOf(l), there: textOf(r) },
            ...(typeof row !== "number" || hidden || route.config.mode === "mirror" ? {} : { row }),
            actions:
              above !== undefined
                ? [`goes to the trash at ${route.named.there} with ${above}`]
                : (byPath.get(path) ?? [])
                    .filter((action) => !taken.has(action))
                    .map((action) => wordsOf(action, route, actions, r !== undefined)),
            ...(left === undefined ? {} : { left }),
          };
        }),
      };
    }),
  );
}

/** Throws what names the route. */
const seenIn = (route: SyncRoute, signal: AbortSignal) =>
  route.plan(signal).catch((error: unknown) => {
    throw withDevice(route.title, error);
  });

/** What is moved, and what goes to the trash there, as it is listed. */
function leaving(actions: readonly Action[]): { readonly moved: readonly string[]; readonly gone: ReadonlySet<string> } {
  const [moves, moved, gone] = [[] as Move[], [] as string[], new Set<string>()];
  for (const action of actions)
    if (isMove(action)) {
      moved.push(listedAt(action.from, moves));
      moves.push(action);
    } else if (action.do === "remove" && action.on === "there") gone.add(listedAt(action.path, moves));
  return { moved, gone };
}

/** The one of these directories in which it is. */
function dirIn(dirs: ReadonlySet<string>, path: string): string | undefined {
  for (let dir = parentOf(path); dir !== ""; dir = parentOf(dir)) if (dirs.has(dir)) return dir;
  return undefined;
}

function anewText(route: SyncRoute, strange: readonly Side[], stop: Stopped | undefined): string {
  const asked = stop === undefined ? "" : whenOf(route, stop);
  const why = strange.map((side) => route.strangeText(side)).join("; ");
  const forgotten = [...new Set(strange.map((side) => route.forgotten(side)))].join(", ");
  return `${why}; ${asked}${forgotten}, nothing is removed, and this is done:`;
}

const whenOf = (route: SyncRoute, stop: Stopped) =>
  `${route.asked.isApproved(stop) ? "it is approved for the next run" : `nothing is done before "filesync approve ${route.name}"`}; then `;

/** It goes on once, whatever it would remove; where no daemon runs, the next run with what stops it now. One line for the person. Throws ControlError, or the Fault of a device. */
export async function approve(engine: Engine, what: string, running: boolean, signal: AbortSignal): Promise<{ said: string }> {
  const route = named(engine, what);
  const waitsNot = (why: string) => new ControlError(`${route.title} does not wait for an approval: ${why}`);
  if (route.refusal !== undefined) throw waitsNot(route.refusal);
  const stop = await route.stops(signal).catch((error: unknown) => {
    throw withDevice(`${route.title}: nothing is approved, as it cannot be seen now what it would do`, error);
  });
  if (stop === undefined) throw waitsNot((route.state === "waiting" ? route.reason : undefined) ?? "nothing stops it");
  if (running) {
    if (!route.asked.wasShown(stop))
      throw new ControlError(
        `${route.title}: nothing is approved, as it is not what was shown last: ${askedText(stop)}; filesync plan ${route.name} shows it, and filesync approve ${route.name} is for that now`,
      );
    route.approve(stop);
    return { said: `${route.title}: it goes on, once, though ${askedText(stop)}` };
  }
  await route.asked.approveNext(stop);
  return { said: `${route.title}: no daemon runs; the next run within a day goes on, once, if it still is so that ${askedText(stop)}` };
}

/** What it is about, with the first paths. */
function askedText({ message, paths, hidden }: Stopped): string {
  const all = [...new Set([...paths, ...hidden].map((path) => path.slice(path.indexOf(" ") + 1)))];
  return all.length === 0 ? message : `${message} (${all.slice(0, shownPaths).join(", ")}${all.length > shownPaths ? ", …" : ""})`;
}

function named(engine: Engine, what: string): SyncRoute {
  const routes = routesOf(engine);
  const whole = routes.filter(({ name }) => name === what);
  const found = whole.length > 0 ? whole : routes.filter(({ config: { from, to } }) => [from, to, `${from}:${to}`].includes(what));
  const [one] = found;
  if (one !== undefined && found.length === 1) return one;
  const namesOf = (all: readonly SyncRoute[]) => all.map(({ name }) => name).join(", ");
  if (one !== undefined) throw new ControlError(`"${what}" is of several routes, name one: ${namesOf(found)}`);
  throw new ControlError(
    `there is no such route "${what}"; there ${routes.length === 0 ? 'is none with "mode": "mirror" or "two-way"' : `are: ${namesOf(routes)}`}`,
  );
}

/** Of the daemon; where none runs, made for this question. */
function routesOf(engine: Engine): SyncRoute[] {
  return engine.config.syncs.flatMap((config) => {
    const running = engine.syncs.get(nameOf(config));
    const [here, there] = [engine.lanes.get(config.from), engine.lanes.get(config.to)];
    if (running !== undefined) return [running];
    return here === undefined || there === undefined ? [] : [new SyncRoute(engine, config, here, there)];
  });
}

function textOf(content: Content | undefined): string {
  if (content === undefined) return "-";
  if (content.kind === "directory") return "directory";
  return `${content.size} B${content.digest === undefined ? "" : ` ${content.digest.slice(7, 15)}`}`;
}

/** `isThere`: something has its path at the other side. */
function wordsOf(action: Action, { config }: SyncRoute, all: readonly Action[], isThere: boolean): string {
  const at = (side: "here" | "there") => (side === "here" ? config.from : config.to);
  switch (action.do) {
    case "adopt":
      return "note that both hold the same";
    case "forget":
      return isThere ? "forget it: it, or something in it, is somebody else's, and stays there" : "note that both have it no more";
    case "learn":
      return "read it";
    case "mkdir":
      return `make the directory at ${at(action.on)}`;
    case "rmdir":
      return `remove the empty directory at ${at(action.on)}`;
    case "copy":
      return `bring it to ${at(action.on)}${action.over ? ", the old one to the trash there" : ""}`;
    case "remove":
      return `move it to the trash at ${at(action.on)}`;
    case "move":
      return `move it there at ${at(action.on)} from ${listedAt(action.from, all.slice(0, all.indexOf(action)).filter(isMove))}`;
    case "conflict":
      return `keep both: the one at ${at(action.loser)} gets another name`;
  }
}
