/** A station as a device. Whether it is there is learned from work, as with other servers. */
import { BehaviorSubject } from "../../core/rxjs.js";
import * as v from "valibot";
import { hostOf } from "../../core/net.js";
import type { Certificate, Device, PluginContext, Presence } from "../../core/plugin.js";
import { Link } from "../rsync/link.js";
import { options as rsyncOptions } from "../rsync/options.js";
import { RegistryClient } from "./client.js";
import { Flights } from "./flights.js";
import { expectOwnKey, readKey } from "./key.js";
import type { ApsyncOptions } from "./options.js";
import { ApsyncTarget } from "./target.js";

export class ApsyncDevice implements Device {
  readonly presence$ = new BehaviorSubject<Presence>({ state: "attached", unasked: true });
  readonly target: ApsyncTarget;
  readonly #client: RegistryClient;
  readonly #link: Link;

  constructor(given: ApsyncOptions, context: PluginContext) {
    const { url, tls, station, timeout, compress, port, user, hostKey, privateKey, flightGap } = given;
    const host = given.host ?? hostOf(new URL(url));
    this.#client = new RegistryClient({ url, tls, station, timeout }, context.clock, () => {
      expectOwnKey(privateKey, context.installation);
      return readKey(privateKey);
    });
    const ssh = v.parse(rsyncOptions, {
      host,
      port,
      user,
      privateKey,
      hostKey: `SHA256:${Buffer.from(hostKey, "hex").toString("base64")}`,
      timeout: `${timeout}ms`,
      compress,
      concurrency: 1,
    });
    this.#link = new Link(ssh, context, false);
    this.target = new ApsyncTarget(this.#client, this.#link, new Flights(context.stateDir, flightGap), context.clock);
  }

  /** Whether the registry knows the vehicle, and the door lets it in. */
  async probe(signal: AbortSignal): Promise<void> {
    await this.#client.vehicle(signal);
    await this.#link.login(signal);
  }

  async room(signal: AbortSignal): Promise<number | undefined> {
    return (await this.#client.vehicle(signal)).roomBytes;
  }

  certificate(signal: AbortSignal): Promise<Certificate | undefined> {
    return this.#client.certificate(signal);
  }

  async close(): Promise<void> {
    this.#client.close();
    await this.#link.close();
    this.presence$.complete();
  }
}
