/** The registry as a service: the API, the door and what both know. */
import { getConnInfo } from "@hono/node-server/conninfo";
import { getRequestListener } from "@hono/node-server";
import type { Context } from "hono";
import { X509Certificate, randomBytes } from "node:crypto";
import { promises as fs } from "node:fs";
import { createServer as createHttpServer, type Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { BehaviorSubject } from "../../core/rxjs.js";
import { newCertificate } from "../../core/certificate.js";
import { CertificateFiles } from "../../core/certificate-files.js";
import { codeOf, Fault, faultOfErrno, throwIfAborted } from "../../core/errors.js";
import { freeBytesAt, makeDirDurable, writeDurable } from "../../core/fs.js";
import { fingerprintOf, listening } from "../../core/net.js";
import { OnMount } from "../../core/on-mount.js";
import type { PluginContext, Presence, Service } from "../../core/plugin.js";
import { runCommand } from "../../core/program.js";
import { expectWritable } from "../../core/rights.js";
import { all } from "../../core/turns.js";
import { forwardedFor, whose } from "./allowance.js";
import { Api } from "./api.js";
import type { Catalogue, Vehicle } from "./catalogue.js";
import { Challenges } from "./challenges.js";
import { Door, type VehicleKey } from "./door.js";
import { FtpAccounts } from "./ftp-accounts.js";
import { Mailer } from "./mail.js";
import { orders } from "./orders.js";
import type { RegistryOptions } from "./options.js";
import { Refused } from "./refused.js";
import { Registrations } from "./registrations.js";
import { Slots } from "./slots.js";
import { openCatalogue } from "./sqlite-catalogue.js";
import type { Access } from "./wire.js";

const clientMs = 30_000;
const mostConnections = 500;
/** From one address: a fleet behind a router, and not all there are. */
const mostOfOne = 200;
const handshakeMs = 10_000;
/** Housekeeping: ages, idle slots, mails. */
const tickMs = 5000;
/** Whether the catalogue's copy is of today. */
const copyLookMs = 3600_000;
/** So much of an upload a power cut may cost. */
const syncMs = 1000;

interface Running {
  readonly server: Server;
  readonly door: Door;
  readonly api: Api;
  readonly registrations: Registrations;
  readonly slots: Slots;
  readonly stop: AbortController;
  readonly ticking: Promise<void>;
}

export class Registry implements Service {
  readonly presence$ = new BehaviorSubject<Presence>({ state: "detached", reason: "the registry is not served yet" });
  readonly #options: RegistryOptions;
  readonly #context: PluginContext;
  readonly #mount: OnMount;
  #unwatch: (() => void) | undefined;
  readonly #ftp: FtpAccounts | undefined;
  #catalogue: Promise<Catalogue> | undefined;
  #running: Running | undefined;
  /** As it was told. */
  #away: string | undefined;
  #closed = false;
  readonly #connected = new Map<string, number>();
  /** Changes of who may come in: how many there were, and up to which the door knows them. */
  #keysChanged = 0;
  #keysKnown = 0;
  #copyAtMs = 0;
  #copyTrouble = "";
  #keysTrouble = "";

  constructor(options: RegistryOptions, context: PluginContext) {
    this.#options = options;
    this.#context = context;
    this.#mount = new OnMount(options.root, options.mounted, context.memory);
    const { ftp, quota } = options;
    if (ftp !== undefined)
      this.#ftp = new FtpAccounts(
        { ...ftp, vehicleBytes: quota.vehicle, ownerBytes: quota.owner },
        () => this.#opened(),
        context.clock,
        (level, message) => context.say(level, message),
      );
  }

  /** Of the API; undefined before `start` and after `close`. */
  get port(): number | undefined {
    return (this.#running?.server.address() as AddressInfo | null | undefined)?.port;
  }

  /** Of the door. */
  get doorPort(): number | undefined {
    return this.#running?.door.port;
  }

  async start(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    if (this.#closed) throw new Fault("aborted", "it was closed");
    if (this.#running !== undefined) return;
    await this.#mount.expectHere();
    const { root, mail, slotIdle, keepFree, quota, linkValid, legacy } = this.#options;
    const { clock, stateDir } = this.#context;
    const say: PluginContext["say"] = (level, message, facts) => this.#context.say(level, message, facts);
    await makeDirDurable(root, 0o750).catch((error: unknown) => {
      throw faultOfErrno(error, `cannot make ${root}`);
    });
    await makeDirDurable(stateDir, 0o700);
    const catalogue = await this.#opened();
    const station = await this.#station();
    // A start that fails is tried again and again: what the door says of itself is said once all is served.
    let early: (() => void)[] | undefined = [];
    const sayServed: PluginContext["say"] = (...said) => (early === undefined ? say(...said) : void early.push(() => say(...said)));
    const door = new Door({ listen: this.#options.door.listen, dir: join(stateDir, "door"), legacy }, { clock, say: sayServed });
    const { server, secured, renew } = await this.#server();
    const access = (vehicle: Vehicle) => this.#access(vehicle, door, station);
    const registrations = new Registrations(
      { linkMs: linkValid, publicUrl: () => this.#publicUrl(), access },
      catalogue,
      mail === undefined ? undefined : await Mailer.of(mail),
      clock,
      say,
    );
    const slots = new Slots(
      {
        root,
        free: () => this.#free(),
        idleMs: slotIdle,
        keepFreeBytes: keepFree,
        vehicleBytes: quota.vehicle,
        ownerBytes: quota.owner,
        legacy,
      },
      catalogue,
      door,
      clock,
      say,
    );
    const api = new Api({
      ...{ station, catalogue, challenges: new Challenges(clock), registrations, slots, ftp: this.#ftp, clock, say, access, legacy },
      keysChanged: () => this.#applyKeys(),
      addressOf: (context) => this.#addressOf(context),
    });
    try {
      // What was open or let in when it ran last is not, before it is known again.
      await fs.rm(join(stateDir, "door", "open"), { recursive: true, force: true });
      await door.setKeys(this.#keysOf(await catalogue.vehicles()));
      await slots.start();
      await this.#ftp?.start();
      await door.start(signal);
      await this.#listen(server, api);
    } catch (error) {
      server.close();
      await Promise.all([door.close(), registrations.close()]);
      throw error;
    }
    for (const tell of early) tell();
    early = undefined;
    const stop = new AbortController();
    this.#running = { server, door, api, registrations, slots, stop, ticking: this.#tick(registrations, slots, renew, stop.signal) };
    say("info", `the registry at ${this.#publicUrl()}`, {
      port: this.port,
      doorPort: door.port,
    });
    if (secured !== undefined) say("info", `its certificate, for vehicles to pin: ${secured}`, { certificate: secured });
    this.#unwatch = this.#mount.watch(`listening-${this.port ?? 0}`, (presence) => this.presence$.next(presence));
  }

  async probeStart(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const { root, listen, tls, legacy } = this.#options;
    await this.#mount.expectHere();
    await expectWritable(root, `cannot write in ${root}`);
    if (tls !== undefined) await new CertificateFiles(tls.cert, tls.key).read();
    await this.#ftp?.probe();
    await new Door({ listen: this.#options.door.listen, dir: join(this.#context.stateDir, "door"), legacy }, this.#context).probeStart(
      signal,
    );
    const server = createHttpServer();
    await listening(server, listen);
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  /** It starts without its mail server, too; but no vehicle gets in. */
  async probeNeeds(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const { mail } = this.#options;
    if (mail !== undefined) await Mailer.probe(mail);
  }

  probe(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    return this.#running === undefined ? Promise.reject(new Fault("offline", "the registry is not served")) : Promise.resolve();
  }

  /** What the operator asks for: `filesync registry …`. */
  async order(words: readonly string[]): Promise<{ readonly said: readonly string[]; readonly facts: unknown }> {
    const catalogue = await this.#opened();
    const running = this.#running;
    const registrations =
      running?.registrations ??
      new Registrations(
        { linkMs: this.#options.linkValid, publicUrl: () => this.#publicUrl(), access: () => raise() },
        catalogue,
        undefined,
        this.#context.clock,
        (level, message) => this.#context.say(level, message),
      );
    return orders(words, {
      catalogue,
      root: this.#options.root,
      quota: this.#options.quota,
      ftp: this.#ftp,
      confirm: async (pending) => {
        const vehicle = await registrations.confirm(pending, "by the operator");
        await this.#applyKeys();
        registrations.announce(pending.id);
        return vehicle;
      },
      refuse: (pending) => registrations.refuse(pending, "the station's operator refused it"),
      keysChanged: () => this.#applyKeys(),
      end: async (vehicle) => running?.slots.end(vehicle),
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#unwatch?.();
    const running = this.#running;
    this.#running = undefined;
    if (running !== undefined) {
      const { server, door, api, registrations, slots, stop, ticking } = running;
      stop.abort();
      api.close();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await Promise.all([closed, door.close(), registrations.close(), slots.stop(), ticking]);
    }
    await this.#ftp?.close();
    await (await this.#catalogue?.catch(() => undefined))?.close();
    this.#catalogue = undefined;
    this.presence$.complete();
  }

  async #free(): Promise<number> {
    const away = await this.#mount.away();
    if (away !== this.#away && away !== undefined) this.#context.say("warn", `nothing is taken: ${away}`);
    this.#away = away;
    if (away === undefined) return freeBytesAt(this.#options.root);
    throw new Refused("full", "the disk of this station is not mounted");
  }

  #opened(): Promise<Catalogue> {
    this.#catalogue ??= openCatalogue(join(this.#context.stateDir, "registry.sqlite")).catch((error: unknown) => {
      this.#catalogue = undefined;
      throw faultOfErrno(error, "cannot open the registry's catalogue");
    });
    return this.#catalogue;
  }

  async #tick(registrations: Registrations, slots: Slots, renew: () => Promise<void>, signal: AbortSignal): Promise<void> {
    const { clock } = this.#context;
    for (let beforeMs = clock.monotonicMs(); ;) {
      await clock.sleep(syncMs, signal).catch(() => undefined);
      if (signal.aborted) return;
      const sinceMs = clock.monotonicMs() - beforeMs;
      try {
        await slots.sync();
        if (sinceMs < tickMs) continue;
        beforeMs += sinceMs;
        await registrations.tick(sinceMs);
        await slots.tick();
        this.#ftp?.tick();
        await this.#tellDoorAgain();
        await renew();
        await this.#keepCopy();
      } catch (error) {
        this.#context.say("error", `the registry's housekeeping: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }

  async #keepCopy(): Promise<void> {
    const { clock } = this.#context;
    if (clock.monotonicMs() < this.#copyAtMs) return;
    this.#copyAtMs = clock.monotonicMs() + copyLookMs;
    const trouble = await (await this.#opened()).keepCopy(clock.wallMs()).then(
      () => "",
      (error: unknown) => `there is no new copy of the catalogue: ${error instanceof Error ? error.message : String(error)}`,
    );
    if (trouble !== "" && trouble !== this.#copyTrouble) this.#context.say("error", trouble);
    this.#copyTrouble = trouble;
  }

  async #applyKeys(): Promise<void> {
    // The file of the FTP server is written also while the registry does not run.
    await all([this.#running === undefined ? undefined : this.#tellDoor(this.#running), this.#ftp?.apply()]);
  }

  async #tellDoor({ door, registrations }: Running): Promise<void> {
    const mine = ++this.#keysChanged;
    const waiting = registrations.unannounced;
    await door.setKeys(this.#keysOf(await (await this.#opened()).vehicles()));
    this.#keysKnown = Math.max(this.#keysKnown, mine);
    this.#keysTrouble = "";
    // Also of whom it could not be told before.
    for (const id of waiting) registrations.announce(id);
  }

  /** What the door could not be told, the disk full, is told it later: who was confirmed shall not stay outside until the next start. */
  async #tellDoorAgain(): Promise<void> {
    if (this.#running === undefined || this.#keysKnown === this.#keysChanged) return;
    try {
      await this.#tellDoor(this.#running);
    } catch (error) {
      const trouble = `the door cannot be told who may come in, which is tried again: ${error instanceof Error ? error.message : String(error)}`;
      if (trouble !== this.#keysTrouble) this.#context.say("error", trouble);
      this.#keysTrouble = trouble;
    }
  }

  #keysOf(vehicles: readonly Vehicle[]): VehicleKey[] {
    return vehicles
      .filter(({ state, legacy }) => state === "active" && (this.#options.legacy || !legacy))
      .map(({ id, key, legacy }) => ({ vehicle: id, publicKey: key, legacy }));
  }

  #access({ id, name }: Vehicle, door: Door, station: string): Access {
    const { host, port } = this.#options.door;
    const { user, hostKey } = door;
    if (user === undefined || hostKey === undefined) throw new Fault("offline", "the door is not open");
    return {
      ...{ vehicleId: id, vehicle: name, user, station, hostKey: hostKey.fingerprint },
      ...(host === undefined ? {} : { host }),
      port: port ?? door.port ?? 0,
    };
  }

  #publicUrl(): string {
    const { publicUrl, proxy, listen } = this.#options;
    return publicUrl ?? `${proxy ? "http" : "https"}://${hostname()}:${this.port ?? listen.port}`;
  }

  #addressOf(context: Context): string {
    if (this.#options.proxy) {
      const said = forwardedFor(context.req.header("x-forwarded-for") ?? "");
      if (said !== undefined) return said;
    }
    return getConnInfo(context).remote.address ?? "";
  }

  /** Its name for good: part of what vehicles sign. */
  async #station(): Promise<string> {
    const path = join(this.#context.stateDir, "station");
    try {
      return (await fs.readFile(path, "utf8")).trim();
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw faultOfErrno(error, `cannot read ${path}`);
    }
    const made = randomBytes(16).toString("hex");
    await writeDurable(path, `${made}\n`, 0o600);
    return made;
  }

  /** `secured`: the fingerprint of what it shows; `renew`: from then on it shows what is in the files of its certificate. */
  async #server(): Promise<{ readonly server: Server; readonly secured: string | undefined; readonly renew: () => Promise<void> }> {
    const limits = {
      headersTimeout: clientMs,
      requestTimeout: clientMs,
      keepAliveTimeout: clientMs,
      connectionsCheckingInterval: 2000,
      maxHeaderSize: 8192,
    };
    const { proxy, tls } = this.#options;
    const files = proxy || tls === undefined ? undefined : new CertificateFiles(tls.cert, tls.key);
    let given = proxy ? undefined : files === undefined ? await this.#ownTls() : await files.read();
    const secured = given === undefined ? undefined : createHttpsServer({ ...limits, ...secureOf(given), handshakeTimeout: handshakeMs });
    const server = secured ?? createHttpServer(limits);
    server.maxConnections = mostConnections;
    // Behind a proxy all come from one address.
    if (!proxy) server.on("connection", (socket: Socket) => this.#count(socket));
    server.on("clientError", (_, socket) => socket.destroy());
    return {
      server,
      secured: given === undefined ? undefined : fingerprintOf(new X509Certificate(given.cert).raw),
      renew: async () => {
        const shown = await files?.renewed((level, message, { fingerprint } = {}) =>
          this.#context.say(level, message, fingerprint === undefined ? {} : { certificate: fingerprint }),
        );
        if (shown === undefined || shown === given) return;
        given = shown;
        secured?.setSecureContext(secureOf(shown));
      },
    };
  }

  #count(socket: Socket): void {
    const who = whose(socket.remoteAddress ?? "");
    const count = (this.#connected.get(who) ?? 0) + 1;
    this.#connected.set(who, count);
    socket.once("close", () => {
      const left = (this.#connected.get(who) ?? 1) - 1;
      if (left === 0) this.#connected.delete(who);
      else this.#connected.set(who, left);
    });
    if (count > mostOfOne) socket.destroy();
  }

  async #ownTls(): Promise<{ cert: string; key: string }> {
    const { stateDir } = this.#context;
    const [cert, key] = [join(stateDir, "registry.crt"), join(stateDir, "registry.key")];
    try {
      return { cert: await fs.readFile(cert, "utf8"), key: await fs.readFile(key, "utf8") };
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw faultOfErrno(error, `cannot read ${cert}`);
    }
    const made = await newCertificate(runCommand, hostname());
    await writeDurable(key, made.key, 0o600);
    await writeDurable(cert, made.cert, 0o644);
    return made;
  }

  async #listen(server: Server, api: Api): Promise<void> {
    const listener = getRequestListener(api.app.fetch, { overrideGlobalObjects: false });
    server.on("request", (request, response) => void listener(request, response));
    await listening(server, this.#options.listen);
    server.on("error", (error) => this.#context.say("error", `the port of the registry: ${error.message}`));
  }
}

const secureOf = ({ cert, key }: { readonly cert: string | Buffer; readonly key: string | Buffer }) => ({
  cert,
  key,
  minVersion: "TLSv1.2" as const,
});

function raise(): never {
  throw new Fault("offline", "the registry does not run");
}
