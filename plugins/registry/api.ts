/** The HTTP side of a registry: who may ask what, and in which words it is answered. What is asked is done elsewhere. */
import { Hono, type Context } from "hono";
import { streamSSE } from "hono/streaming";
import { filter, firstValueFrom, merge, Subject, take } from "../../core/rxjs.js";
import * as v from "valibot";
import type { Clock, Level } from "../../core/plugin.js";
import { Allowance, whose } from "./allowance.js";
import type { Catalogue, Vehicle } from "./catalogue.js";
import type { Challenges } from "./challenges.js";
import type { FtpAccounts } from "./ftp-accounts.js";
import { legacyRoutes } from "./legacy.js";
import { confirmPage, pageHeaders, saidPage } from "./pages.js";
import { Refused, refusalOf, statusOf } from "./refused.js";
import { nameOf, type Registrations } from "./registrations.js";
import type { Slots } from "./slots.js";
import * as wire from "./wire.js";

const mostBody = 256 * 1024;
const mostWatching = 200;
/** A watcher that hears nothing for so long thinks the link is dead. */
const aliveMs = 15_000;

export interface ApiParts {
  readonly station: string;
  readonly catalogue: Catalogue;
  readonly challenges: Challenges;
  readonly registrations: Registrations;
  readonly slots: Slots;
  readonly clock: Clock;
  readonly say: (level: Level, message: string) => void;
  readonly ftp: FtpAccounts | undefined;
  /** Who may come in has changed: resolves once the door and the FTP server's file know. */
  readonly keysChanged: () => Promise<void>;
  readonly access: (vehicle: Vehicle) => wire.Access;
  /** The address of the one who asks. */
  readonly addressOf: (context: Context) => string;
  /** Vehicles with the client of APSync are answered too. */
  readonly legacy: boolean;
}

type Key = NonNullable<ReturnType<typeof wire.publicKeyOf>>;

export interface Asking {
  Variables: { body: Uint8Array };
}

type Asked = Context<Asking>;

export class Api {
  readonly app = new Hono<Asking>();
  readonly #parts: ApiParts;
  /** Of one address: links that it may guess, and signatures that it may get wrong. Who signs rightly is never kept waiting by others of that address. */
  readonly #guesses: Allowance;
  readonly #wrong: Allowance;
  readonly #registering: Allowance;
  /** Of one vehicle: hashing is work. */
  readonly #passwords: Allowance;
  readonly #ended$ = new Subject<string>();
  #watching = 0;

  constructor(parts: ApiParts) {
    this.#parts = parts;
    const { clock } = parts;
    this.#guesses = new Allowance(clock, 20, 10_000);
    this.#wrong = new Allowance(clock, 20, 10_000);
    this.#registering = new Allowance(clock, 20, 60_000);
    this.#passwords = new Allowance(clock, 5, 60_000);
    this.#routes();
  }

  /** Those who watch a registration are let go. */
  close(): void {
    this.#ended$.next("");
    this.#ended$.complete();
  }

  #routes(): void {
    const { app } = this;
    const { station, catalogue, challenges, registrations, slots, ftp, keysChanged } = this.#parts;

    app.onError((error, context) => this.#refuse(context as Asked, error));
    app.notFound((context) => this.#refuse(context as Asked, new Refused("not-found", "there is nothing here")));
    app.use(async (context, next) => {
      // Nothing is read whose length is not known before.
      const length = Number(context.req.header("content-length") ?? 0);
      if (context.req.header("transfer-encoding") !== undefined || !(length <= mostBody))
        throw new Refused("bad-request", `a body has a length, of at most ${mostBody} bytes`);
      context.set("body", length === 0 ? new Uint8Array() : new Uint8Array(await context.req.arrayBuffer()));
      await next();
      if (context.req.path.startsWith("/api/")) context.header("Cache-Control", "no-store");
    });

    app.get(wire.paths.station, (context) =>
      context.json({ protocol: wire.protocol, station, ftp: ftp !== undefined } satisfies wire.Station),
    );

    // It costs nothing, and whoever signs rightly needs one: others of that address must not use them up.
    app.get(wire.paths.challenge, (context) => context.json({ challenge: challenges.make() }));

    app.post(wire.paths.register, async (context) => {
      this.#expectAllowed(this.#registering, context);
      const asked = this.#body(context, wire.register);
      const key = wire.publicKeyOf(asked.publicKey);
      if (key === undefined) throw new Refused("bad-request", "the public key is no ed25519 key");
      this.#expectSigned(context, key);
      return context.json(await registrations.register(asked, key), 202);
    });

    app.get("/api/registrations/:id", async (context) => {
      const { id, key } = await this.#registrant(context);
      return context.json(await registrations.state(id, key.fingerprint));
    });

    app.get("/api/registrations/:id/events", async (context) => {
      const { id, key } = await this.#registrant(context);
      if (this.#watching >= mostWatching) throw new Refused("too-many", "too many watch registrations: ask now and then instead", 30_000);
      return streamSSE(context, async (stream) => {
        this.#watching += 1;
        const gone$ = new Subject<string>();
        stream.onAbort(() => gone$.next(""));
        const alive = setInterval(() => void stream.write(": \n\n"), aliveMs);
        try {
          for (;;) {
            const change = firstValueFrom(
              merge(registrations.changed$.pipe(filter((changed) => changed === id)), this.#ended$, gone$).pipe(take(1)),
              {
                defaultValue: "",
              },
            );
            const told = await registrations.state(id, key.fingerprint);
            await stream.writeSSE({ event: "registration", data: JSON.stringify(told) });
            if (told.state !== "waiting" || (await change) === "") return;
          }
        } finally {
          clearInterval(alive);
          this.#watching -= 1;
        }
      });
    });

    app.get(wire.paths.vehicle, async (context) => {
      const vehicle = await this.#vehicle(context);
      return context.json({ ...this.#parts.access(vehicle), roomBytes: await slots.room(vehicle) } satisfies wire.VehicleNow);
    });

    app.post(wire.paths.key, async (context) => {
      const vehicle = await this.#vehicle(context);
      const { publicKey, signature } = this.#body(context, wire.rotate);
      const key = wire.publicKeyOf(publicKey);
      const { challenge } = authorization(context);
      const text = wire.signedText({ station, method: "POST", path: wire.paths.key, body: new Uint8Array(), challenge });
      if (key === undefined || !wire.isSigned(key.key, text, signature)) throw new Refused("signature", "the new key did not sign");
      await catalogue.setKey(vehicle.id, key.line, key.fingerprint);
      await keysChanged();
      this.#parts.say("info", `${vehicle.id} has a new key: ${key.fingerprint}`);
      return context.json({ fingerprint: key.fingerprint });
    });

    app.post(wire.paths.ftpPassword, async (context) => {
      const vehicle = await this.#vehicle(context);
      if (ftp === undefined) throw new Refused("not-found", "vehicles have no accounts at an FTP server here");
      const waitMs = this.#passwords.take(vehicle.id);
      if (waitMs !== undefined) throw new Refused("too-many", "too many passwords were asked for", waitMs);
      return context.json((await ftp.password(vehicle)) satisfies wire.FtpAccess);
    });

    app.post(wire.paths.slots, async (context) => {
      const vehicle = await this.#vehicle(context);
      const { id, name } = await slots.ask(vehicle, this.#body(context, wire.askSlot));
      return context.json({ id, name, idleSeconds: Math.round(slots.options.idleMs / 1000) } satisfies wire.Slot);
    });

    app.post("/api/slots/:slot/files", async (context) => {
      const vehicle = await this.#vehicle(context);
      return context.json(await slots.announce(vehicle, context.req.param("slot"), this.#body(context, wire.announce)));
    });

    app.delete("/api/slots/:slot/files", async (context) => {
      const vehicle = await this.#vehicle(context);
      const { partial } = this.#expect(wire.discard, context.req.query());
      await slots.discard(vehicle, context.req.param("slot"), partial);
      return context.json({});
    });

    app.post("/api/slots/:slot/commit", async (context) => {
      const vehicle = await this.#vehicle(context);
      return context.json(await slots.commit(vehicle, context.req.param("slot"), this.#body(context, wire.commit)));
    });

    app.get("/confirm/:token", async (context) => {
      this.#expectFewGuesses(context);
      return context.body(confirmPage(await this.#counted(context, registrations.ofToken(context.req.param("token")))), 200, pageHeaders);
    });

    app.post("/confirm/:token", async (context) => {
      this.#expectFewGuesses(context);
      const pending = await this.#counted(context, registrations.ofToken(context.req.param("token")));
      await registrations.confirm(pending, "by mail");
      await keysChanged();
      registrations.announce(pending.id);
      return context.body(
        saidPage(
          "Confirmed",
          `${pending.renew ? `It has ${nameOf(pending)} now.` : `From now on ${nameOf(pending)} may send its logs here.`} You can close this page.`,
        ),
        200,
        pageHeaders,
      );
    });

    if (this.#parts.legacy)
      app.route("/", legacyRoutes({ ...this.#parts, mayRegister: (context) => this.#expectAllowed(this.#registering, context) }));
  }

  #refuse(context: Asked, error: Error): Response {
    const refused = refusalOf(error);
    const said = this.#tooManyWrong(context, refused) ?? refused;
    // Who reads the log must not be able to confirm.
    const path = context.req.path.replace(/^\/confirm\/.*/, "/confirm/***");
    if (said.code === "internal") this.#parts.say("error", `${context.req.method} ${path}: ${error.message}`);
    if (said.retryAfterMs !== undefined) context.header("Retry-After", String(Math.ceil(said.retryAfterMs / 1000)));
    if (context.req.path.startsWith("/api/"))
      return context.json({ error: said.code, message: said.message } satisfies v.InferOutput<typeof wire.problem>, statusOf[said.code]);
    return context.body(saidPage("That did not work", said.message), statusOf[said.code], pageHeaders);
  }

  #body<T>(context: Asked, schema: v.GenericSchema<unknown, T>): T {
    let json: unknown;
    try {
      json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(context.get("body")));
    } catch {
      throw new Refused("bad-request", "the body is no JSON");
    }
    return this.#expect(schema, json);
  }

  #expect<T>(schema: v.GenericSchema<unknown, T>, given: unknown): T {
    const parsed = v.safeParse(schema, given);
    if (parsed.success) return parsed.output;
    throw new Refused("bad-request", wire.wrongWith(parsed.issues));
  }

  /** A link that is not known was guessed. */
  async #counted<T>(context: Asked, work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      if (error instanceof Refused && error.code === "not-found") this.#guesses.take(whose(this.#parts.addressOf(context)));
      throw error;
    }
  }

  #expectAllowed(allowance: Allowance, context: Context): void {
    const waitMs = allowance.take(whose(this.#parts.addressOf(context)));
    if (waitMs !== undefined) throw tooMany("requests", waitMs);
  }

  #expectFewGuesses(context: Context): void {
    const waitMs = this.#guesses.wait(whose(this.#parts.addressOf(context)));
    if (waitMs !== undefined) throw tooMany("wrong requests", waitMs);
  }

  /** In place of what it was refused for: that it shall come less often. */
  #tooManyWrong(context: Context, { code }: Refused): Refused | undefined {
    if (code !== "signature" && code !== "unknown-key") return undefined;
    const waitMs = this.#wrong.take(whose(this.#parts.addressOf(context)));
    return waitMs === undefined ? undefined : tooMany("wrong requests", waitMs);
  }

  /** Throws Refused "challenge" or "signature". The challenge is used up by a right signature only. */
  #expectSigned(context: Asked, key: Key): void {
    const { fingerprint, challenge, signature } = authorization(context);
    const { station, challenges } = this.#parts;
    const url = new URL(context.req.url);
    const text = wire.signedText({
      station,
      method: context.req.method,
      path: url.pathname + url.search,
      body: context.get("body"),
      challenge,
    });
    if (fingerprint !== key.fingerprint || !wire.isSigned(key.key, text, signature))
      throw new Refused("signature", "the signature is not that of this request");
    if (!challenges.use(challenge)) throw new Refused("challenge", "that challenge is used or too old: ask for another");
    context.header(wire.challengeHeader, challenges.make());
  }

  /** The vehicle that signed. Throws Refused. */
  async #vehicle(context: Asked): Promise<Vehicle> {
    const { fingerprint } = authorization(context);
    const vehicle = await this.#parts.catalogue.vehicleOfKey(fingerprint);
    const key = wire.publicKeyOf(vehicle?.key ?? "");
    if (vehicle === undefined || vehicle.legacy || key === undefined)
      throw new Refused("unknown-key", "no vehicle is registered with this key");
    this.#expectSigned(context, key);
    if (vehicle.state === "revoked") throw new Refused("revoked", "this vehicle's key was revoked");
    return vehicle;
  }

  /** Whoever has the key of a registration. */
  async #registrant(context: Asked): Promise<{ readonly id: string; readonly key: Key }> {
    const id = context.req.param("id") ?? "";
    const pending = await this.#parts.catalogue.pending(id);
    const key = wire.publicKeyOf(pending?.key ?? "");
    if (pending === undefined || pending.legacy || key === undefined)
      throw new Refused("not-found", "there is no such registration: register again");
    this.#expectSigned(context, key);
    return { id, key };
  }
}

const tooMany = (what: string, waitMs: number): Refused => new Refused("too-many", `too many ${what} from this address`, waitMs);

/** Of the header "Authorization". */
function authorization(context: Context): { readonly fingerprint: string; readonly challenge: string; readonly signature: string } {
  const header = context.req.header("authorization") ?? "";
  const part = (name: string) => new RegExp(`[ ,]${name}="([^"]{1,200})"`).exec(header)?.[1] ?? "";
  if (!header.startsWith("FileSync ")) throw new Refused("signature", "this has to be signed with the vehicle's key");
  return { fingerprint: part("key"), challenge: part("challenge"), signature: part("signature") };
}
