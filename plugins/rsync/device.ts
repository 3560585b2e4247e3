/**
 * One server as a device: a target over one connection of ssh.
 *
 * Whether the server is there is learned from work, not from idle probes: it counts as attached until core, which sees the failures, says
 * otherwise. `close` ends all programs that run for it.
 */
import { BehaviorSubject } from "../../core/rxjs.js";
import type { Device, PluginContext, Presence } from "../../core/plugin.js";
import { Link } from "./link.js";
import type { RsyncOptions } from "./options.js";
import { RsyncTarget } from "./target.js";

export class RsyncDevice implements Device {
  readonly presence$ = new BehaviorSubject<Presence>({ state: "attached", unasked: true });
  readonly target: RsyncTarget;
  readonly #link: Link;

  constructor(options: RsyncOptions, context: PluginContext) {
    this.#link = new Link(options, context);
    this.target = new RsyncTarget(options, this.#link);
  }

  probe(signal: AbortSignal): Promise<void> {
    return this.target.probe(signal);
  }

  async close(): Promise<void> {
    await this.#link.close();
    this.presence$.complete();
  }
}
