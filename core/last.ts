/** How each device was when the daemon stopped, for who asks while none runs. After a kill nobody knows. */
import type { Engine } from "./engine.js";
import type { Journal } from "./journal.js";
import { dateText } from "./route.js";

export interface LastSeen {
  readonly presence: "attached" | "detached";
  readonly reason?: string;
  /** ISO 8601: when it was known last. */
  readonly at: string;
}

const keyOf = (device: string) => `lane:${device}`;

/** Inside `apply`, when the engine stops. */
export function noteLanes({ journal, lanes, clock }: Engine): void {
  for (const { name, attached, state } of lanes.values()) {
    const seen: LastSeen = {
      presence: attached ? "attached" : "detached",
      ...(state.reason === undefined ? {} : { reason: state.reason }),
      at: new Date(clock.wallMs()).toISOString(),
    };
    journal.setMeta(keyOf(name), JSON.stringify(seen));
  }
}

/** Inside `apply`, when it starts: what was known then is no longer so. */
export function forgetLanes(journal: Journal): void {
  journal.run("DELETE FROM meta WHERE key >= 'lane:' AND key < 'lane;'");
}

/** "when it last ran (TIME): …" of a device that was away; undefined where it was not, or nobody knows. */
export function lastAway(engine: Engine, device: string): string | undefined {
  const last = lastSeen(engine, device);
  if (last?.presence !== "detached") return undefined;
  return `when it last ran (${dateText(Date.parse(last.at))}): ${device} was away: ${last.reason ?? "nobody knows why"}`;
}

/** undefined where nobody knows. */
export function lastSeen({ journal }: Engine, device: string): LastSeen | undefined {
  const text = journal.meta(keyOf(device));
  return text === undefined ? undefined : (JSON.parse(text) as LastSeen);
}
