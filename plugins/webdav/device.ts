/** One WebDAV server as a device. It counts as attached until core, which sees the failures, says otherwise. */
import { BehaviorSubject } from "../../core/rxjs.js";
import type { Certificate, Device, PluginContext, Presence } from "../../core/plugin.js";
import type { WebdavOptions } from "./options.js";
import { DavServer } from "./server.js";
import { WebdavSource } from "./source.js";
import { WebdavTarget } from "./target.js";
import { WebdavTree } from "./tree.js";
import { Ways } from "./ways.js";

export class WebdavDevice implements Device {
  readonly presence$ = new BehaviorSubject<Presence>({ state: "attached", unasked: true });
  readonly source: WebdavSource;
  readonly target: WebdavTarget;
  readonly tree: WebdavTree;
  readonly #server: DavServer;
  readonly #ways: Ways;

  constructor(options: WebdavOptions, context: PluginContext) {
    this.#server = new DavServer(options, context);
    this.#ways = new Ways(this.#server, context);
    this.source = new WebdavSource(options, this.#server, this.#ways);
    this.target = new WebdavTarget(options, this.#server, this.#ways, context.installation);
    this.tree = new WebdavTree(this.#server, this.source, this.target);
  }

  async probe(signal: AbortSignal): Promise<void> {
    await this.#ways.learn(signal);
    await this.#server.expectRoot(signal);
  }

  async room(signal: AbortSignal): Promise<number | undefined> {
    await this.#ways.learn(signal);
    return this.#server.room(signal);
  }

  certificate(signal: AbortSignal): Promise<Certificate | undefined> {
    return this.#server.certificate(signal);
  }

  close(): Promise<void> {
    this.#server.close();
    this.presence$.complete();
    return Promise.resolve();
  }
}
