/**
 * One FTP server as a device: source, target and tree over one pool of connections.
 *
 * Whether the server is there is learned from work, not from idle probes: it counts as attached until core, which sees the failures, says
 * otherwise. `close` ends all connections and what runs on them.
 */
import { BehaviorSubject } from "../../core/rxjs.js";
import type { Certificate, Clock, Device, PluginContext, Presence } from "../../core/plugin.js";
import { isAbsent, Refusal } from "./connection.js";
import { certificateOfServer } from "./login.js";
import type { FtpOptions } from "./options.js";
import { Pool } from "./pool.js";
import { FtpSource } from "./source.js";
import { FtpTarget } from "./target.js";
import { FtpTree } from "./tree.js";

export class FtpDevice implements Device {
  readonly presence$ = new BehaviorSubject<Presence>({ state: "attached", unasked: true });
  readonly source: FtpSource;
  readonly target: FtpTarget;
  readonly tree: FtpTree;
  readonly #pool: Pool;
  readonly #options: FtpOptions;
  readonly #clock: Clock;

  constructor(options: FtpOptions, context: PluginContext) {
    this.#options = options;
    this.#clock = context.clock;
    this.#pool = new Pool(options, context.clock);
    this.source = new FtpSource(options, this.#pool);
    this.target = new FtpTarget(options, this.#pool);
    this.tree = new FtpTree(this.#pool, this.source, this.target);
  }

  async probe(signal: AbortSignal): Promise<void> {
    await this.#pool.with(signal, "cannot use the root", async (connection) => {
      const answer = await connection.enter(connection.root === "" ? "/" : connection.root);
      // A root that is not there yet is made by the first upload; a list says that it is missing.
      if (answer.code >= 400 && !isAbsent(answer)) throw new Refusal(answer);
    });
  }

  room(signal: AbortSignal): Promise<number | undefined> {
    return this.#pool.with(signal, "cannot ask for the free space", (connection) => connection.available(connection.root));
  }

  certificate(signal: AbortSignal): Promise<Certificate | undefined> {
    return certificateOfServer(this.#options, this.#clock, signal);
  }

  close(): Promise<void> {
    this.#pool.close();
    this.presence$.complete();
    return Promise.resolve();
  }
}
