/** What a person names on the command line: an id, `DEVICE:PATH`, a path at a source, or a path at a target. */
import { namesIn } from "./config.js";
import { suggestion } from "./config-problems.js";
import { ControlError } from "./control.js";
import type { Engine } from "./engine.js";
import { printable } from "./names.js";
import { nameIn } from "./paths.js";
import { forgottenIn } from "./receipts.js";
import type { DeliveryRow, VersionRow } from "./rows.js";
import { followerOf, trashOf } from "./sync/why-synced.js";

/** Versions, newest first, each with those of its deliveries that are meant. */
export interface Named {
  readonly version: VersionRow;
  readonly deliveries: readonly DeliveryRow[];
}

/** Nearest words are looked for among so many of the newest files. */
const nearMost = 20_000;

/** All that is meant; empty when nothing of that name is known. */
export function namedBy(engine: Engine, what: string): Named[] {
  const { journal, queue } = engine;
  if (/^[0-9a-f]{16}$/.test(what)) {
    const delivery = queue.delivery(what);
    const version = queue.version(delivery?.version ?? what);
    if (version !== undefined) return [{ version, deliveries: delivery === undefined ? queue.deliveriesOf(version.id) : [delivery] }];
  }
  const { device, path } = placeIn(engine, what);
  const versions = journal
    .all<VersionRow>("SELECT * FROM versions WHERE path = ? ORDER BY found_ms DESC", path)
    .filter(({ source }) => device === undefined || source === device);
  if (versions.length > 0) return versions.map((version) => ({ version, deliveries: queue.deliveriesOf(version.id) }));
  const deliveries = journal
    .all<DeliveryRow>("SELECT * FROM deliveries WHERE path = ?1 OR json_extract(receipt, '$.path') = ?1", path)
    .filter(({ target }) => device === undefined || target === device);
  return [...new Set(deliveries.map(({ version }) => version))].flatMap((id) => {
    const version = queue.version(id);
    return version === undefined ? [] : [{ version, deliveries: deliveries.filter((delivery) => delivery.version === id) }];
  });
}

/** "DEVICE:PATH" where the device is known, in the configuration or in the journal; else a path. */
export function placeIn(engine: Engine, what: string): { device?: string; path: string } {
  const colon = what.indexOf(":");
  const device = what.slice(0, Math.max(0, colon));
  const path = (text: string) => printable(text.replace(/^\/+|\/+$/g, ""));
  return colon > 0 && isDevice(engine, device) ? { device, path: path(what.slice(colon + 1)) } : { path: path(what) };
}

/** In the configuration, or in a delivery. */
export function isDevice(engine: Engine, name: string): boolean {
  return (
    namesIn(engine.config).includes(name) ||
    engine.journal.get("SELECT 1 FROM deliveries WHERE target = ?1 OR source = ?1 LIMIT 1", name) !== undefined
  );
}

/** The error for a name that means nothing, with the nearest that does. */
export function unknown(engine: Engine, what: string): ControlError {
  const bare = what.replace(/:\/*$/, "");
  if (isDevice(engine, bare)) return new ControlError(`"${bare}" is a device: name a file of it, as in ${bare}:PATH, or an id`);
  const files = engine.journal.all<{ source: string; path: string }>(
    `SELECT source, path FROM versions ORDER BY found_ms DESC LIMIT ${nearMost}`,
  );
  const { device, path } = placeIn(engine, what);
  const follower = followerOf(engine, device, path);
  if (follower !== undefined)
    return new ControlError(
      `"${what}" has no deliveries or receipts, as ${follower} follows it: "filesync why ${what}" says how it stands`,
    );
  const [prefix = "", rest] = what.split(":", 2);
  const meant = device === undefined && rest !== undefined ? suggestion(prefix, namesIn(engine.config)) : "";
  if (meant !== "") return new ControlError(`there is no device "${prefix}"${meant}`);
  const last = nameIn(path);
  const sameName = files.find((file) => nameIn(file.path) === last && (device ?? file.source) === file.source);
  const near =
    sameName === undefined
      ? suggestion(
          device === undefined ? path : `${device}:${path}`,
          device === undefined
            ? [...files.map((file) => file.path), ...namesIn(engine.config)]
            : files.map((file) => `${file.source}:${file.path}`),
        )
      : `; did you mean "${sameName.source}:${sameName.path}"?`;
  const forgotten =
    near === "" && forgottenIn(engine.journal).deliveries > 0 ? '; what left its source longer ago than "journal.keep" is forgotten' : "";
  const trash = near === "" ? trashOf(engine, device, path) : undefined;
  return new ControlError(`nothing of the name "${what}" is known${near}${forgotten}${trash === undefined ? "" : `; ${trash}`}`);
}
