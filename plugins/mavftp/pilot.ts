/**
 * A line to the pilot's ground station (STATUSTEXT), which the autopilot passes on: at most one a minute, and none while the vehicle is armed or nobody
 * knows, unless the device goes on then. What has to wait is said when it may be, and only as it is then.
 */
import type { Clock, News } from "../../core/plugin.js";
import { encodeStatusText, SEVERITY_INFO, SEVERITY_WARNING, STATUSTEXT, textMessages } from "../../mavlink/messages.js";

const EVERY_MS = 60_000;
const LONGEST = 200;
const SAFE = "FileSync: flight log safe on ground";

export class Pilot {
  #sentMs = -Infinity;
  /** The warning goes first; a log that stays is not said to be safe. */
  #warning: string | undefined;
  #safe = false;
  #id = 0;

  constructor(
    readonly clock: Clock,
    readonly send: (messageId: number, payload: Buffer) => void,
    readonly may: () => boolean,
  ) {}

  news(news: News): void {
    if (news.what === "safe") {
      this.#safe = true;
      this.#warning = undefined;
    } else {
      this.#safe = false;
      // Ground stations show ASCII; what else stands there may be anything.
      this.#warning = `FileSync: log stays on vehicle: ${news.reason}`.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, LONGEST);
    }
    this.look();
  }

  /** With each heartbeat: what waited may be said now. */
  look(): void {
    const text = this.#warning ?? (this.#safe ? SAFE : undefined);
    if (text === undefined || !this.may() || this.clock.monotonicMs() - this.#sentMs < EVERY_MS) return;
    this.#sentMs = this.clock.monotonicMs();
    this.#id = (this.#id % 65_535) + 1;
    const severity = this.#warning === undefined ? SEVERITY_INFO : SEVERITY_WARNING;
    this.#warning = undefined;
    this.#safe = false;
    for (const message of textMessages(severity, text, this.#id)) this.send(STATUSTEXT, encodeStatusText(message));
  }
}
