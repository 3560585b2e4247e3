/** The picture drawn from the journal, the lanes and what moves now. Its keys are a promise: they are only ever added. */
import { namesIn, type Wrong } from "./config.js";
import { placeText, wrongText, type ConfigProblem } from "./config-problems.js";
import { type Engine, unlistedIn } from "./engine.js";
import { lastRound, lastSeen, type LastRound, type LastSeen } from "./last.js";
import { heldNow } from "./limits.js";
import type { Journal } from "./journal.js";
import { foreignText } from "./queue.js";
import { forgottenIn } from "./receipts.js";
import type { LeftOut } from "./find.js";
import { durationText, sizeText } from "./text.js";
import { nameOf, type SyncConfig } from "./sync/options.js";
import type { SyncState } from "./sync/sync-route.js";
import { elsewhere, hasGone, isFoundAgain, isOverwritten, receiptsIn, type StoredReceipt, type VersionRow } from "./rows.js";

export interface Status {
  readonly version: string;
  readonly ready: boolean;
  readonly vehicle: string;
  readonly installation: string;
  readonly devices: readonly {
    readonly name: string;
    readonly type: string;
    readonly roles: readonly string[];
    /** `unknown`: no daemon runs, or it cannot be started as configured; then there is no `since`. */
    readonly presence: "attached" | "detached" | "unknown";
    readonly reason?: string;
    /** Nothing was asked of it yet: whether it is there nobody knows. */
    readonly unasked?: true;
    /** It is in, and may be taken out at once. */
    readonly safe?: true;
    readonly since?: string;
    /** What else is plugged in and is not used, with the reason. */
    readonly unused?: string;
    /** Why nothing is sent to it now, though it may be there: `when`, `budget`, or that it has no space or asked for a pause. */
    readonly held?: string;
    /** By its last listing. */
    readonly leftOut?: LeftOut;
    /** While no daemon runs: how the last one knew it. */
    readonly last?: LastSeen;
  }[];
  readonly queue: { readonly waiting: number; readonly active: number; readonly parked: number; readonly delivered: number };
  readonly transfers: readonly {
    readonly id: string;
    readonly route: string;
    readonly from: string;
    readonly to: string;
    readonly path: string;
    readonly offset: number;
    readonly size: number;
    readonly bytesPerSecond: number;
    readonly secondsLeft?: number;
  }[];
  readonly parked: readonly {
    readonly id: string;
    /** Of the source `from`. */
    readonly path: string;
    readonly from: string;
    readonly to: string;
    readonly fault: string;
    readonly reason: string;
  }[];
  /**
   * What was tried and waits for its next try: for each pair of devices and kind of fault so many deliveries, with the reason of the one that is due first. "foreign": what
   * waits for one of the two, which the configuration does not have.
   */
  readonly failing: readonly {
    readonly from: string;
    readonly to: string;
    readonly fault: string;
    readonly deliveries: number;
    readonly reason: string;
    /** Until the first of them is tried again; 0: as soon as it can be. Absent while no daemon runs, and where it is held back for nobody knows how long. */
    readonly seconds?: number;
  }[];
  readonly recent: readonly StoredReceipt[];
  /** Routes whose sides follow each other. `changes`: done since the start. `evenAt`: when both sides were the same last. */
  readonly syncs: readonly {
    readonly route: string;
    readonly mode: SyncConfig["mode"];
    /** `unknown`: no daemon runs, or a device cannot be started as configured. */
    readonly state: SyncState | "unknown";
    readonly reason?: string;
    readonly changes: number;
    /** Paths with which something is still to be done, of so many, and files that are not complete yet, as the last round knew it; absent before one did. */
    readonly pending?: number;
    readonly paths?: number;
    readonly settling?: number;
    readonly evenAt?: string;
    /** A hundred at most. */
    readonly troubles: readonly { readonly path: string; readonly reason: string }[];
    /** Of all of them, paths that are left as they are, and others that are brought, but could not be synced where they were read. */
    readonly left?: number;
    readonly unsynced?: number;
    /** While no daemon runs: how the last one knew it. */
    readonly last?: LastRound;
  }[];
  /** Bytes: only on the source (what is read in place, too, until every target has it), here in the spool but not everywhere, delivered (once for each target). */
  readonly bytes: { readonly onSource: number; readonly here: number; readonly delivered: number };
  readonly spool: { readonly used: number; readonly maxSize: number; readonly waiting?: string };
  /** Files that are seen at their sources and do not count as complete yet; 0 while no daemon runs. */
  readonly settling: number;
  /** Files that are there again after they were deleted or archived at their sources, and are to be read to see whether they are others; 0 while no daemon runs. */
  readonly rereading: number;
  /** Files that have gone from their sources before every target had them, until they are found again or forgotten. */
  readonly lost: readonly { readonly version: string; readonly from: string; readonly path: string; readonly size: number }[];
  /** Files that every required target has, and that could not be deleted or archived at their sources, as the route asks; 0 while no daemon runs. */
  readonly unreleased: number;
  /** Bytes moved since the start on each hop. */
  readonly moved: { readonly pulled: number; readonly pushed: number };
  /** While the configuration has mistakes: where, and what does not happen therefore. */
  readonly configuration?: { readonly mistakes: readonly ConfigProblem[]; readonly therefore: readonly string[] };
  /** Why the configuration that was to be applied last does not run: what ran before it goes on. Absent once one was applied. */
  readonly refused?: string;
  readonly summary: string;
}

/** What a line on a terminal tells several times a second: of what waits only the number. */
export function progressOf(engine: Engine, nowMs = engine.clock.monotonicMs()): Pick<Status, "queue" | "transfers"> {
  const { journal } = engine;
  const count = (where: string) => journal.get<{ n: number }>(`SELECT COUNT(*) AS n FROM deliveries WHERE ${where}`)?.n ?? 0;
  const transfers = engine.transfers.running.map((transfer) => {
    const { id, route, from, to, path, size } = transfer.facts;
    const { bytesPerSecond, secondsLeft: left } = transfer.pace(nowMs);
    return {
      id,
      route,
      from,
      to,
      path,
      offset: transfer.offset,
      size,
      bytesPerSecond: Math.round(bytesPerSecond),
      ...(left === undefined ? {} : { secondsLeft: Math.ceil(left) }),
    };
  });
  const claimed = count(`${elsewhere} AND state = 'active'`);
  // Claims of a daemon that was killed are none.
  const active = engine.queue.pushing.size > 0 ? claimed : 0;
  return {
    queue: {
      waiting: count("state = 'wanting'") + count("state = 'ready'") + claimed - active,
      active,
      parked: count(`${elsewhere} AND state = 'parked'`),
      delivered: count("state = 'done'") + forgottenIn(journal).deliveries,
    },
    transfers,
  };
}

export function statusOf(engine: Engine, version: string, ready: boolean, refused?: string): Status {
  const { journal } = engine;
  // All that is told of what moves is of one moment.
  const nowMs = engine.clock.monotonicMs();
  const { queue, transfers } = progressOf(engine, nowMs);
  const { waiting, active, parked, delivered } = queue;
  // State by state: each has an index of its own, and what is open is little beside what was delivered. Not UNION, for which all that was delivered is gone through.
  const open = ["state = 'wanting'", "state = 'ready'", `${elsewhere} AND state = 'active'`, `${elsewhere} AND state = 'parked'`]
    .map((where) => `SELECT version FROM deliveries WHERE ${where}`)
    .join(" UNION ALL ");
  const sums = journal.get<{ source: number | null; pulled: number | null; here: number | null }>(
    `SELECT SUM(CASE WHEN state = 'found' AND store = 'spool' THEN size - durable WHEN state <> 'gone' AND store <> 'spool' THEN size END) AS source,
       SUM(CASE WHEN store = 'spool' AND state = 'found' THEN size - durable END) AS pulled,
       SUM(CASE WHEN store <> 'spool' THEN 0 WHEN state = 'found' THEN durable WHEN state = 'sealed' THEN size END) AS here FROM versions WHERE id IN (${open})`,
  );
  const [onSource, here] = [sums?.source ?? 0, sums?.here ?? 0];
  const known = journal.get<{ bytes: number | null }>("SELECT SUM(size) AS bytes FROM deliveries WHERE state = 'done'");
  const done = (known?.bytes ?? 0) + forgottenIn(journal).bytes;
  const settling = [...engine.finders.values()].reduce((sum, finder) => sum + finder.unsettled, 0);
  const rereading = [...engine.finders.values()].reduce((sum, finder) => sum + finder.rereading, 0);
  const lost = lostIn(journal);
  const unreleased = ready ? engine.queue.unreleased + engine.queue.kept.size : 0;
  const [full] = engine.transfers.waitForSpace.values();
  const syncs = syncsOf(engine, ready);
  const { wrong } = engine.config;
  return {
    version,
    ready,
    vehicle: engine.names.vehicle,
    installation: engine.names.installation,
    devices: devicesOf(engine, ready),
    queue,
    transfers,
    parked: journal
      .all<{ id: string; path: string; source: string; target: string; fault: string | null; reason: string | null }>(
        `SELECT d.id, v.path AS path, v.source AS source, d.target, d.fault, d.reason FROM deliveries d JOIN versions v ON v.id = d.version WHERE d.${elsewhere} AND d.state = 'parked' ORDER BY d.parked_ms DESC LIMIT 1000`,
      )
      .map(({ id, path, source, target, fault, reason }) => ({
        id,
        path,
        from: source,
        to: target,
        fault: fault ?? "unknown",
        reason: reason ?? "",
      })),
    failing: failingOf(engine, ready),
    recent: recentOf(journal, engine.clock.wallMs()),
    syncs,
    bytes: { onSource, here, delivered: done },
    spool: { used: engine.spool.usedBytes, maxSize: engine.spool.maxSizeBytes, ...(full === undefined ? {} : { waiting: full }) },
    settling,
    rereading,
    lost: lost.map(({ id, source, path, size }) => ({ version: id, from: source, path, size })),
    unreleased,
    moved: { pulled: engine.transfers.pulledBytes, pushed: engine.transfers.pushedBytes },
    ...(wrong === undefined ? {} : { configuration: { mistakes: wrong.problems, therefore: wrong.therefore } }),
    ...(refused === undefined ? {} : { refused }),
    summary: summary({
      wrong: `${refused === undefined ? "" : `${refused}; `}${wrong === undefined ? "" : `${wrongText(wrong)}; `}`,
      unlisted: ready ? unlistedIn(engine) : [],
      leftOut: [...engine.finders.values()].reduce((sum, finder) => sum + (finder.leftOut?.paths ?? 0), 0),
      open: waiting + active,
      parked,
      settling,
      rereading,
      lost: lost.length,
      unreleased,
      onSource,
      here,
      delivered: done,
      seconds: secondsLeft(engine, sums?.pulled ?? 0, nowMs),
      copies: engine.config.routes.length > 0 || delivered > 0,
      syncs,
    }),
  };
}

/** The slowest hop decides: each target gets all of its own. While nothing is sent nobody can know. */
function secondsLeft({ journal, transfers }: Engine, toPull: number, nowMs: number): number | undefined {
  const hop = (kind: "pull" | "push", to?: string) => {
    const running = transfers.running.filter(({ facts }) => facts.kind === kind && (to === undefined || facts.to === to));
    return {
      rate: running.reduce((sum, transfer) => sum + transfer.pace(nowMs).bytesPerSecond, 0),
      moved: running.reduce((sum, { offset }) => sum + offset, 0),
    };
  };
  const targets = new Set(transfers.running.flatMap(({ facts }) => (facts.kind === "push" ? [facts.to] : [])));
  const pushes = [...targets].flatMap((to) => {
    const { rate, moved } = hop("push", to);
    return rate > 0 ? [Math.max(0, openBytes(journal, to) - moved) / rate] : [];
  });
  if (pushes.length === 0) return undefined;
  const { rate } = hop("pull");
  return Math.max(...pushes, rate > 0 ? toPull / rate : 0);
}

/** Of all files that are still to go to a target, from their first bytes on. */
function openBytes(journal: Journal, target: string): number {
  const states = ["state = 'wanting'", "state = 'ready'", `${elsewhere} AND state = 'active'`];
  const open = states.map((where) => `SELECT version FROM deliveries WHERE ${where} AND target = ?`).join(" UNION ALL ");
  const sum = journal.get<{ bytes: number | null }>(
    `SELECT SUM(size) AS bytes FROM (${open}) JOIN versions ON id = version WHERE versions.state IN ('found', 'sealed')`,
    ...states.map(() => target),
  );
  return sum?.bytes ?? 0;
}

/** Why nothing is known of a device or a route. */
export const noDaemon = "no daemon runs";

function syncsOf(engine: Engine, ready: boolean): Status["syncs"] {
  const { config, syncs } = engine;
  return config.syncs.map((sync) => {
    const [name, { mode }] = [nameOf(sync), sync];
    const route = syncs.get(name);
    if (route === undefined) {
      const reason = ready ? "one of its devices cannot be started as configured" : noDaemon;
      const last = ready ? undefined : lastRound(engine, name);
      return { route: name, mode, state: "unknown", reason, changes: 0, troubles: [], ...(last === undefined ? {} : { last }) };
    }
    const { state, turnText, reason = turnText, done, evenMs, troubles, unsynced, left, pending, settling: young } = route;
    return {
      ...{ route: name, mode, state, ...(reason === undefined ? {} : { reason }), changes: done },
      ...(pending === undefined ? {} : { pending: pending.paths.size, paths: pending.of, settling: young.size }),
      ...(evenMs === undefined ? {} : { evenAt: new Date(evenMs).toISOString() }),
      troubles: [...troubles].slice(0, 100).map(([path, why]) => ({ path, reason: why })),
      ...{ left: left.size, unsynced: unsynced.size },
    };
  });
}

function devicesOf(engine: Engine, ready: boolean): Status["devices"] {
  const usable = engine.config.devices.map(({ name, type, plugin, options }) => {
    const lane = engine.lanes.get(name);
    const leftOut = engine.finders.get(name)?.leftOut;
    const withheld = plugin.withheld?.(options) ?? {};
    const roles = rolesOf(engine, name) ?? plugin.roles.filter((role) => withheld[role] === undefined);
    if (lane === undefined) {
      const reason = ready ? 'it cannot be started as configured ("filesync check --probe" says why)' : noDaemon;
      const last = ready ? undefined : lastSeen(engine, name);
      return { name, type, roles, presence: "unknown" as const, reason, ...(last === undefined ? {} : { last }) };
    }
    return {
      name,
      type,
      roles,
      presence: lane.attached ? ("attached" as const) : ("detached" as const),
      ...(lane.state.reason === undefined ? {} : { reason: lane.state.reason }),
      ...(lane.unasked ? { unasked: true as const } : {}),
      ...(lane.safe ? { safe: true as const } : {}),
      since: new Date(lane.state.sinceMs).toISOString(),
      ...(lane.unused === undefined ? {} : { unused: lane.unused }),
      ...(lane.idleReason === undefined ? {} : { held: lane.idleReason }),
      ...(leftOut === undefined ? {} : { leftOut }),
    };
  });
  const { wrong } = engine.config;
  return [
    ...usable,
    ...(wrong === undefined
      ? []
      : wrong.devices.map(({ name, type, roles }) => ({
          ...{ name, type, roles, presence: "unknown" as const },
          reason: mistakesOf(wrong, name),
        }))),
  ];
}

function failingOf(engine: Engine, ready: boolean): Status["failing"] {
  const { config, journal, clock, queue } = engine;
  // What went wrong with a target that has left does not count any more.
  const names = namesIn(config);
  // With MIN the other columns are those of the row that has it.
  const rows = journal.all<{ id: string; source: string; target: string; fault: string; n: number; due: number; reason: string | null }>(
    `SELECT id, source, target, fault, COUNT(*) AS n, MIN(not_before) AS due, reason FROM deliveries
     WHERE not_before > 0 AND state IN ('wanting', 'ready', 'discard') AND state <> 'discard' AND fault IS NOT NULL GROUP BY source, target, fault`,
  );
  const heldOne = (id: string) => {
    const delivery = queue.delivery(id);
    const version = delivery === undefined ? undefined : queue.version(delivery.version);
    return delivery === undefined || version === undefined ? undefined : heldNow(engine, version, delivery);
  };
  const foreign = queue
    .foreign(names)
    .map((row) => ({ from: row.source, to: row.target, fault: "foreign", deliveries: row.deliveries, reason: foreignText(row) }));
  const failing = rows
    .filter(({ target }) => names.includes(target))
    .map(({ id, source, target, fault, n, due, reason }) => {
      // What the journal notes of that is of when it was put off, and not when it goes.
      const held = ready && fault === "held" ? heldOne(id) : undefined;
      const inMs = fault === "held" ? held?.inMs : due - clock.monotonicMs();
      return {
        ...{ from: source, to: target, fault, deliveries: n, reason: held?.reason ?? reason ?? "" },
        ...(ready && inMs !== undefined ? { seconds: Math.max(0, Math.ceil(inMs / 1000)) } : {}),
      };
    });
  return [...failing, ...foreign];
}

/** A later version of the path says of what had gone that it was found again. */
export function lostIn(journal: Journal): Pick<VersionRow, "id" | "source" | "path" | "size">[] {
  return journal.all(
    `SELECT id, source, path, size FROM versions v WHERE state = 'gone'
     AND (EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND ${isOverwritten})
       OR EXISTS (SELECT 1 FROM deliveries d WHERE d.version = v.id AND ${hasGone}) AND NOT ${isFoundAgain})
     ORDER BY found_ms DESC LIMIT 1000`,
  );
}

function rolesOf(engine: Engine, name: string): string[] | undefined {
  const lane = engine.lanes.get(name);
  if (lane === undefined) return undefined;
  return [
    lane.config.kind === "service" ? "service" : "",
    lane.device.source === undefined ? "" : "source",
    lane.device.target === undefined ? "" : "target",
  ].filter((role) => role !== "");
}

/** The places of the mistakes that keep a device from being started. */
export function mistakesOf(wrong: Wrong, name: string): string {
  const own = wrong.problems.filter(({ path }) => ["devices", "services"].some((group) => `${path}.`.startsWith(`${group}.${name}.`)));
  return `its configuration has a mistake${own.length === 0 ? "" : ` (${own.map(placeText).join("; ")})`}`;
}

interface Sums {
  /** What is wrong in the configuration, or in the one that was to take its place; "" where all is right. */
  readonly wrong: string;
  /** Sources of which nobody knows yet what they have. */
  readonly unlisted: readonly string[];
  /** Paths. */
  readonly leftOut: number;
  readonly open: number;
  readonly parked: number;
  readonly settling: number;
  readonly rereading: number;
  readonly lost: number;
  readonly unreleased: number;
  readonly onSource: number;
  readonly here: number;
  readonly delivered: number;
  /** How long it still takes, where anybody can know. */
  readonly seconds: number | undefined;
  /** There are copy routes, or were. */
  readonly copies: boolean;
  readonly syncs: Status["syncs"];
}

/** How a mirror or two-way route stands, in a few words. */
export function syncText({
  mode,
  state,
  reason,
  left = 0,
  unsynced = 0,
  pending = 0,
  paths = 0,
  settling = 0,
}: Status["syncs"][number]): string {
  const waits = pending === 0 ? "" : `${pending} of ${paths} ${paths === 1 ? "path" : "paths"} ${pending === 1 ? "waits" : "wait"}`;
  if (state === "unknown") return reason ?? "not known";
  if (state !== "even") return `${syncWords[state]}${waits === "" ? "" : `, ${waits}`}${reason === undefined ? "" : `: ${reason}`}`;
  const but = [
    ...(left === 0 ? [] : [`${left} left as ${left === 1 ? "it is" : "they are"}`]),
    ...(unsynced === 0 ? [] : [`${unsynced} that could not be synced where ${unsynced === 1 ? "it was" : "they were"} read`]),
    ...(settling === 0 ? [] : [`${settling} not complete yet`]),
  ];
  const even = mode === "two-way" ? "the same on both sides" : "all of it is there";
  return but.length === 0 ? even : `${even}, but for ${but.join(", and ")}`;
}

const syncWords = { working: "works", waiting: "waits", stopped: "stopped", refused: "cannot work" } as const;

/** The one line that says it all. */
function summary({
  wrong,
  unlisted,
  leftOut,
  open,
  parked,
  settling,
  rereading,
  lost,
  unreleased,
  onSource,
  here,
  delivered,
  seconds,
  copies,
  syncs,
}: Sums): string {
  const unknown = unlisted.length === 0 ? "" : `; ${unlisted.join(", ")} ${unlisted.length === 1 ? "was" : "were"} not listed yet`;
  const unsynced = [
    unknown,
    leftOut === 0 ? "" : `; ${leftOut} ${leftOut === 1 ? "path is" : "paths are"} left out at the source`,
    parked === 0 ? "" : `; ${parked} set aside`,
    settling === 0 ? "" : `; ${settling} ${settling === 1 ? "file is" : "files are"} not complete yet at the source`,
    rereading === 0
      ? ""
      : `; ${rereading} ${rereading === 1 ? "file is" : "files are"} there again at the source, and read to see whether ${rereading === 1 ? "it is another" : "they are others"}`,
    lost === 0 ? "" : `; ${lost} ${lost === 1 ? "file was" : "files were"} lost at the source`,
    unreleased === 0 ? "" : `; ${unreleased} ${unreleased === 1 ? "file" : "files"} could not be deleted or archived at the source`,
  ].join("");
  const ofSyncs = syncs.map((sync) => `${sync.route}: ${syncText(sync)}`);
  const calm = wrong === "" && open === 0 && parked === 0 && lost === 0;
  // What waits is said first; where nothing is copied there is nothing else to say.
  if (calm && (!copies || syncs.some(({ state }) => state === "waiting" || state === "stopped" || state === "refused")) && syncs.length > 0)
    return [...ofSyncs, ...(copies ? [`everything else is delivered (${sizeText(delivered)})${unsynced}`] : [])].join("; ");
  const aside = [unsynced, ...ofSyncs.map((text) => `; ${text}`)].join("");
  if (calm) return `everything that was found is delivered (${sizeText(delivered)})${aside}`;
  if (open === 0) return `${wrong}${sizeText(delivered)} delivered, nothing is on its way${aside}`;
  const left = seconds === undefined ? "" : `; about ${durationText(seconds)} left`;
  return `${wrong}${sizeText(onSource)} only on its source, ${sizeText(here)} here and not yet everywhere, ${sizeText(delivered)} delivered${left}${aside}`;
}

/** The latest first; what a wrong clock dated in the future comes last. */
function recentOf(journal: Journal, nowMs: number): StoredReceipt[] {
  const most = 20;
  const dated = (which: "<=" | ">", count: number) =>
    journal.all<{ receipt: string }>(
      `SELECT receipt FROM deliveries WHERE state = 'done' AND receipt IS NOT NULL AND done_ms ${which} ? ORDER BY done_ms DESC LIMIT ?`,
      ...[nowMs, count],
    );
  const past = dated("<=", most);
  return receiptsIn([...past, ...(past.length < most ? dated(">", most - past.length) : [])]);
}
