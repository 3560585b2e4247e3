/**
 * One SFTP server as a device: source, target and tree over a few connections.
 *
 * Whether the server is there is learned from work, not from idle probes: it counts as attached until core, which sees the failures, says
 * otherwise. `close` ends all connections and what runs on them.
 */
import { BehaviorSubject } from "../../core/rxjs.js";
import { Fault } from "../../core/errors.js";
import type { Device, PluginContext, Presence } from "../../core/plugin.js";
import type { SftpOptions } from "./options.js";
import { Pool } from "./pool.js";
import { SftpSource } from "./source.js";
import { SftpTarget } from "./target.js";
import { SftpTree } from "./tree.js";

export class SftpDevice implements Device {
  readonly presence$ = new BehaviorSubject<Presence>({ state: "attached", unasked: true });
  readonly source: SftpSource;
  readonly target: SftpTarget;
  readonly tree: SftpTree;
  readonly #pool: Pool;

  constructor(options: SftpOptions, context: PluginContext) {
    this.#pool = new Pool(options, context);
    this.source = new SftpSource(options, this.#pool);
    this.target = new SftpTarget(options, this.#pool, context);
    this.tree = new SftpTree(this.#pool, this.source, this.target);
  }

  async probe(signal: AbortSignal): Promise<void> {
    await this.#pool.with(signal, "cannot use the root", async ({ session }) => {
      // A root that is not there yet is made by the first upload; a list says that it is missing.
      const found = await session.stat(session.root);
      if (found !== undefined && found.kind !== "directory" && found.kind !== "unknown")
        throw new Fault("config", `the root ${session.root.toString()} is no directory`);
    });
  }

  room(signal: AbortSignal): Promise<number | undefined> {
    return this.#pool.with(signal, "cannot ask for the free space", async ({ session }) => {
      // A root that is not there yet is made by the first upload, where its nearest directory is.
      let at = session.root;
      while (at.length > 0 && (await session.stat(at)) === undefined) at = at.subarray(0, Math.max(0, at.lastIndexOf(0x2f)));
      return (await session.space(at.length === 0 ? Buffer.from("/") : at))?.freeBytes;
    });
  }

  close(): Promise<void> {
    this.#pool.close();
    this.presence$.complete();
    return Promise.resolve();
  }
}
