/**
 * The endpoints of APSync (2017), for vehicles that still have its client: forms in, JSON with "msg" out. What that client can say is not enough to prove who it is: whoever knows the
 * fingerprint of its key may ask, and is given nothing by it but the name of a slot, in which only who has the key itself can put anything.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { Hono, type Context } from "hono";
import { getCookie, setCookie } from "hono/cookie";
import * as v from "valibot";
import { Allowance, whose } from "./allowance.js";
import type { ApiParts, Asking } from "./api.js";
import { legacyKeyOf } from "./legacy-key.js";
import { Refused, refusalOf, statusOf } from "./refused.js";
import { email } from "./wire.js";

export interface LegacyParts extends Pick<ApiParts, "catalogue" | "registrations" | "slots" | "clock" | "say" | "access" | "addressOf"> {
  /** Throws Refused where that address has asked too often. */
  readonly mayRegister: (context: Context) => void;
}

const cookieName = "_xsrf";

export function legacyRoutes({ catalogue, registrations, slots, clock, say, access, addressOf, mayRegister }: LegacyParts): Hono<Asking> {
  const app = new Hono<Asking>();
  // A client that waits to be confirmed asks every two seconds, and several may share an address.
  const asking = new Allowance(clock, 300, 200);
  const guesses = new Allowance(clock, 60, 1000);

  app.onError((error, context) => {
    const said = refusalOf(error);
    if (said.code === "internal") say("error", `${context.req.method} ${context.req.path}: ${error.message}`);
    if (said.retryAfterMs !== undefined) context.header("Retry-After", String(Math.ceil(said.retryAfterMs / 1000)));
    // The client reads no more than that it is none of 200: then it waits for three seconds, and asks again.
    return context.json({ msg: said.message }, said.code === "unknown-key" ? 401 : statusOf[said.code]);
  });

  app.get("/", (context) => {
    // The client asks once and keeps the cookie, whatever is started anew here meanwhile: nothing of this process is in it.
    if (getCookie(context, cookieName) === undefined)
      setCookie(context, cookieName, randomBytes(16).toString("hex"), { path: "/", secure: true, httpOnly: true, sameSite: "Strict" });
    return context.json({ msg: "A FileSync registry: vehicles with APSync can register here" });
  });

  app.post("/register", async (context) => {
    mayRegister(context);
    const field = formOf(context);
    const address = v.safeParse(email, field("email").trim());
    if (!address.success) throw new Refused("bad-request", "email: an e-mail address such as you@example.org");
    const key = legacyKeyOf(decoded(field("public_key")));
    if (key === undefined) throw new Refused("bad-request", "public_key: base64 of an OpenSSH line, RSA of at least 2048 bits, or ed25519");
    const { state, by } = await registrations.register({ email: address.output }, key, true);
    return context.json({
      msg:
        state === "confirmed"
          ? "Already verified! Service ready to use with existing credentials"
          : by === "operator"
            ? "Thanks for the credentials, the operator of this server has to confirm them now"
            : "Thanks for the credentials, please confirm them by the button of the page whose link is in a mail to you",
    });
  });

  app.post("/verify", async (context) => {
    const fingerprint = asked(context);
    const vehicle = await catalogue.vehicleOfKey(fingerprint);
    if (vehicle?.legacy === true) {
      if (vehicle.state === "revoked")
        return context.json({ verify: false, msg: "These credentials were revoked: register with a new key" });
      const { user, port } = access(vehicle);
      return context.json({
        ...{ verify: true, msg: `Credentials have been verified! Logs go to port ${port}, user ${user}` },
        ...{ user_id: vehicle.owner.id, vehicle_id: vehicle.id },
      });
    }
    const pending = await catalogue.pendingOfKey(fingerprint);
    if (pending?.legacy !== true) throw unknown(context);
    const words = {
      waiting: pending.by === "operator" ? "the operator of this server confirms them" : "the link is in the mail that was sent to you",
      expired: "nobody did in time: register again",
      refused: pending.reason ?? "they were refused: register again",
      confirmed: "they were, and are no more: register again",
    } as const;
    return context.json({ verify: false, msg: `Credentials need to be verified: ${words[pending.state]}` });
  });

  app.post("/upload", async (context) => {
    const vehicle = await catalogue.vehicleOfKey(asked(context));
    if (vehicle?.legacy !== true || vehicle.state !== "active") throw unknown(context);
    const { name } = await slots.askLegacy(vehicle);
    return context.json({ archive_folder: name, valid_time: Math.round(slots.options.idleMs / 1000) });
  });

  /** The fingerprint in a request to which anybody may be answered. Throws Refused. */
  function asked(context: Context<Asking>): string {
    const who = whose(addressOf(context));
    const waitMs = guesses.wait(who) ?? asking.take(who);
    if (waitMs !== undefined) throw new Refused("too-many", "too many requests from this address", waitMs);
    const fingerprint = decoded(formOf(context)("public_key_fingerprint"));
    if (!/^SHA256:[A-Za-z0-9+/]{43}$/.test(fingerprint)) throw unknown(context);
    return fingerprint;
  }

  function unknown(context: Context): Refused {
    guesses.take(whose(addressOf(context)));
    return new Refused("unknown-key", "no vehicle is registered with this key");
  }

  return app;
}

/** Its fields, each once. Throws Refused where it is none, or another site may have sent it. */
function formOf(context: Context<Asking>): (name: string) => string {
  if (!/^application\/x-www-form-urlencoded\b/i.test(context.req.header("content-type") ?? ""))
    throw new Refused("bad-request", "the body is no form");
  const form = new URLSearchParams(Buffer.from(context.get("body")).toString("latin1"));
  const field = (name: string) => {
    const [value, ...more] = form.getAll(name);
    if (value === undefined || more.length > 0) throw new Refused("bad-request", `the field ${name} is missing, or there twice`);
    return value;
  };
  const [given, kept] = [Buffer.from(field(cookieName)), Buffer.from(getCookie(context, cookieName) ?? "")];
  if (kept.length === 0 || given.length !== kept.length || !timingSafeEqual(given, kept))
    throw new Refused("bad-request", `the field ${cookieName} is not what the cookie is that / has set`);
  return field;
}

function decoded(base64: string): string {
  const trimmed = base64.trim();
  return /^[A-Za-z0-9+/]*={0,2}$/.test(trimmed) ? Buffer.from(trimmed, "base64").toString("latin1").trim() : "";
}
