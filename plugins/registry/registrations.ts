/** Registering a vehicle: asked for with a key, confirmed by the reader of a mail or by the operator, told to whom waits for it. */
import { createHash, randomBytes } from "node:crypto";
import { Subject } from "../../core/rxjs.js";
import type { Clock, Level } from "../../core/plugin.js";
import { durationText } from "../../core/text.js";
import { Allowance } from "./allowance.js";
import { type Catalogue, type Pending, Taken, type Vehicle } from "./catalogue.js";
import { type Mailer, MailTries } from "./mail.js";
import { Refused } from "./refused.js";
import { type Access, idWord, paths, type publicKeyOf, type Register, type Registration } from "./wire.js";

export interface RegistrationsOptions {
  /** A registration that nobody confirms is over after so long, while the registry runs. */
  readonly linkMs: number;
  /** Where people reach it: "https://ground.example.org:8443". */
  readonly publicUrl: () => string;
  /** What a vehicle of this registry needs to send. */
  readonly access: (vehicle: Vehicle) => Access;
}

type Key = Pick<NonNullable<ReturnType<typeof publicKeyOf>>, "line" | "fingerprint">;

/** So many may wait; a flood fills it, and those who are confirmed leave. */
const mostPending = 1000;
/** What ended can be asked for so much longer. */
const keepMs = 24 * 3600_000;
const hourMs = 3600_000;

export class Registrations {
  /** Ids of those whose state changed. */
  readonly changed$ = new Subject<string>();
  /** Of one e-mail address: 5 at once, and one more each quarter of an hour. */
  readonly #perEmail: Allowance;
  readonly #tries: MailTries;
  readonly #unannounced = new Set<string>();
  #mailing: Promise<void> | undefined;
  #stopped = false;

  constructor(
    readonly options: RegistrationsOptions,
    readonly catalogue: Catalogue,
    readonly mailer: Mailer | undefined,
    readonly clock: Clock,
    readonly say: (level: Level, message: string) => void,
  ) {
    this.#perEmail = new Allowance(clock, 5, hourMs / 4);
    this.#tries = new MailTries(clock);
  }

  /** Throws Refused. The same key again is the same registration. `legacy`: nobody proved to have the key; then it takes the place of no registration of somebody who did. */
  async register(asked: Omit<Register, "publicKey">, key: Key, legacy = false): Promise<Registration> {
    const email = asked.email.toLowerCase();
    const { renew = false } = asked;
    const vehicle = await this.catalogue.vehicleOfKey(key.fingerprint);
    if (vehicle !== undefined) {
      if (vehicle.state === "revoked") throw new Refused("revoked", "this key was revoked");
      if (vehicle.legacy !== legacy || vehicle.owner.email !== email || (asked.vehicle !== undefined && asked.vehicle !== vehicle.name))
        throw new Refused("key-taken", "this key belongs to a vehicle that is registered already: a new vehicle needs a key of its own");
      return { id: vehicle.id, state: "confirmed", access: this.options.access(vehicle) };
    }
    const before = await this.catalogue.pendingOfKey(key.fingerprint);
    if (
      before?.state === "waiting" &&
      before.legacy === legacy &&
      before.renew === renew &&
      before.email === email &&
      before.name === asked.vehicle
    )
      return this.#told(before);
    if (before?.state === "waiting" && legacy && !before.legacy)
      throw new Refused("key-taken", "somebody who has this key registers it already");
    const named = asked.vehicle === undefined ? undefined : await this.catalogue.vehicleNamed(email, asked.vehicle);
    if (renew && named === undefined)
      throw new Refused(
        "not-found",
        `${email} has no ${asked.vehicle === undefined ? "vehicle without a name" : `vehicle "${asked.vehicle}"`} here: its owner's address and its name are those of the first time; one that was taken away here is registered anew, without --renew`,
      );
    // One whose key was revoked goes on with the new key, if its owner says so.
    if (named?.state === "active" && !renew)
      throw new Refused(
        "name-taken",
        `${email} has a vehicle "${named.name}" already: choose another name; a new key for that one: "filesync register --renew", or, where its configuration is lost, this command again once the operator has typed "filesync registry revoke VEHICLE"`,
      );
    const waitMs = this.#perEmail.take(email);
    if (waitMs !== undefined) throw new Refused("too-many", "too many registrations for this e-mail address", waitMs);
    const waiting = await this.catalogue.allPending();
    if (waiting.length >= mostPending) throw new Refused("too-many", "too many registrations wait to be confirmed here", hourMs);
    const token = randomBytes(24).toString("base64url");
    const pending: Pending = {
      id: randomBytes(12).toString("hex"),
      email,
      ...(asked.vehicle === undefined ? {} : { name: asked.vehicle }),
      key: key.line,
      fingerprint: key.fingerprint,
      legacy,
      renew,
      state: "waiting",
      by: this.mailer === undefined ? "operator" : "mail",
      tokenHash: hashOf(token),
      mailed: false,
      ageMs: 0,
    };
    await this.catalogue.addPending(pending);
    this.say(
      "info",
      `${email} registers ${nameOf(pending)} with the key ${pending.fingerprint}` +
        (this.mailer === undefined ? `: to let it in, "filesync registry confirm ${pending.id}"` : ": a mail asks for confirmation"),
    );
    this.#tokens.set(pending.id, token);
    this.#mail();
    return this.#told(pending);
  }

  /** Of whoever has that key. */
  async state(id: string, fingerprint: string): Promise<Registration> {
    const pending = await this.catalogue.pending(id);
    if (pending?.fingerprint !== fingerprint) throw new Refused("not-found", "there is no such registration: register again");
    return this.#told(pending);
  }

  /** For the page. Throws Refused "not-found", "expired" or "gone". */
  async ofToken(token: string): Promise<Pending> {
    const pending = await this.catalogue.pendingOfToken(hashOf(token));
    if (pending === undefined) throw new Refused("not-found", "this link is not known");
    if (pending.state === "expired") throw new Refused("expired", "this link has expired: register the vehicle again");
    if (pending.state !== "waiting") throw new Refused("gone", "this link was used already");
    return pending;
  }

  /** Throws Refused. */
  async confirm(pending: Pending, how: string): Promise<Vehicle> {
    const id = idFrom(pending.name ?? "vehicle");
    try {
      const vehicle = await this.catalogue.confirm(pending.id, {
        vehicle: id,
        name: pending.name ?? id,
        owner: idFrom(pending.email.split("@")[0] ?? ""),
        atMs: this.clock.wallMs(),
      });
      this.say("info", `${vehicle.id} ("${vehicle.name}" of ${vehicle.owner.email}) is registered, confirmed ${how}`);
      this.#tokens.delete(pending.id);
      this.#unannounced.add(pending.id);
      return vehicle;
    } catch (error) {
      if (!(error instanceof Taken)) throw error;
      if (error.what === "over") throw new Refused("gone", "this registration does not wait any more");
      const { email, name = "" } = pending;
      const reason = {
        name: `${email} has registered another vehicle "${name}" since`,
        key: `${email} has registered a vehicle with this key since`,
        none: `${email} has no vehicle "${name}" any more`,
      }[error.what];
      await this.refuse(pending, reason);
      throw new Refused(({ name: "name-taken", key: "key-taken", none: "not-found" } as const)[error.what], reason);
    }
  }

  /** Throws Refused "gone" where it does not wait any more. */
  async refuse({ id }: Pending, reason: string): Promise<void> {
    if (!(await this.catalogue.changePending(id, { state: "refused", reason })))
      throw new Refused("gone", "this registration does not wait any more");
    this.#tokens.delete(id);
    this.changed$.next(id);
  }

  /** Whoever waits for it is told: once the door knows it. */
  announce(id: string): void {
    this.#unannounced.delete(id);
    this.changed$.next(id);
  }

  /** Those that are confirmed, and of which nobody has heard yet. */
  get unannounced(): readonly string[] {
    return [...this.#unannounced];
  }

  /** Now and then: `ms` more went by. */
  async tick(ms: number): Promise<void> {
    for (const id of await this.catalogue.age(ms, this.options.linkMs, keepMs)) this.changed$.next(id);
    this.#mail();
  }

  async close(): Promise<void> {
    this.#stopped = true;
    this.mailer?.close();
    await this.#mailing;
    this.changed$.complete();
  }

  async #told(pending: Pending): Promise<Registration> {
    const { id, state, by, reason } = pending;
    const vehicle = pending.vehicle === undefined ? undefined : await this.catalogue.vehicle(pending.vehicle);
    return {
      id,
      state,
      by,
      ...(reason === undefined ? {} : { reason }),
      ...(vehicle === undefined ? {} : { access: this.options.access(vehicle) }),
    };
  }

  /** Their tokens are in no store: of those that a restart left unsent the link is made anew. */
  readonly #tokens = new Map<string, string>();

  #mail(): void {
    if (this.mailer === undefined || this.#stopped) return;
    this.#mailing ??= this.#mailAll(this.mailer)
      .catch((error: unknown) => this.say("error", `mails cannot be sent: ${error instanceof Error ? error.message : String(error)}`))
      .finally(() => (this.#mailing = undefined));
  }

  async #mailAll(mailer: Mailer): Promise<void> {
    for (const { id } of await this.catalogue.allPending()) {
      if (this.#stopped) return;
      // A letter takes its time: somebody may have confirmed or refused this one meanwhile.
      const pending = await this.catalogue.pending(id);
      if (pending?.state !== "waiting" || pending.mailed || pending.by !== "mail" || !this.#tries.isDue(id)) continue;
      const token = this.#tokens.get(id) ?? (await this.#newToken(id));
      if (token === undefined) continue;
      const sent = await mailer.send(this.#letter(pending, token));
      if (sent.state === "sent") {
        this.#tries.done(pending.id);
        await this.catalogue.changePending(pending.id, { mailed: true });
      } else if (sent.state === "refused") {
        this.#tries.done(pending.id);
        const reason = `the mail to ${pending.email} was refused: ${sent.why}`;
        this.say("warn", reason);
        await this.refuse(pending, reason).catch(ifOver);
      } else {
        this.#tries.failed(pending.id);
        this.say(
          "warn",
          `the mail to ${pending.email} cannot be sent now (${sent.why}); it is tried again. By hand: "filesync registry confirm ${pending.id}"`,
        );
      }
    }
  }

  /** undefined: it does not wait any more. */
  async #newToken(id: string): Promise<string | undefined> {
    const token = randomBytes(24).toString("base64url");
    if (!(await this.catalogue.changePending(id, { tokenHash: hashOf(token) }))) return undefined;
    this.#tokens.set(id, token);
    return token;
  }

  #letter(pending: Pending, token: string) {
    const url = `${this.options.publicUrl()}${paths.confirm(token)}`;
    return {
      to: pending.email,
      subject: `Confirm ${nameOf(pending)}`,
      text: [
        pending.renew
          ? `Somebody asks for ${nameOf(pending)}, which is registered with this e-mail address. The key that it has now ends with that.`
          : `Somebody registers ${nameOf(pending)} with this e-mail address. Its logs will be kept under your name.`,
        "",
        `The vehicle shows this fingerprint of its key: ${pending.fingerprint}`,
        "",
        "If that is yours, open this page and press its button:",
        url,
        "",
        `The link is good for ${durationText(Math.max(0, this.options.linkMs - pending.ageMs) / 1000)}. If it is not yours, do nothing.`,
        "",
      ].join("\n"),
    };
  }
}

/** For a person. */
export function nameOf({ name, renew }: Pick<Pending, "name" | "renew">): string {
  const vehicle = name === undefined ? "a vehicle" : `the vehicle "${name}"`;
  return renew ? `a new key for ${vehicle}` : vehicle;
}

function ifOver(error: unknown): void {
  if (!(error instanceof Refused) || error.code !== "gone") throw error;
}

const hashOf = (token: string): string => createHash("sha256").update(token).digest("hex");

/** A readable part, and one that nobody else has. */
const idFrom = (text: string): string => `${idWord(text)}-${randomBytes(4).toString("hex")}`;
