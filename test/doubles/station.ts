/**
 * A registry over real HTTP, with a made-up door and a clock that a test sets forward: what vehicles may ask of it, without sshd and rsync. Mails go where the test says.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { createHash } from "node:crypto";
import { getRequestListener } from "@hono/node-server";
import { RealClock } from "../../core/clock.js";
import { isFault } from "../../core/errors.js";
import { freeBytesAt } from "../../core/fs.js";
import { RegistryClient } from "../../plugins/apsync/client.js";
import { newKey, readKey, type Signer } from "../../plugins/apsync/key.js";
import { Api } from "../../plugins/registry/api.js";
import type { Catalogue, Vehicle } from "../../plugins/registry/catalogue.js";
import { Challenges } from "../../plugins/registry/challenges.js";
import { FtpAccounts, type FtpAccountsOptions } from "../../plugins/registry/ftp-accounts.js";
import { Mailer, type MailOptions } from "../../plugins/registry/mail.js";
import { orders } from "../../plugins/registry/orders.js";
import { Registrations } from "../../plugins/registry/registrations.js";
import { Slots, type SlotsOptions } from "../../plugins/registry/slots.js";
import { openCatalogue } from "../../plugins/registry/sqlite-catalogue.js";
import * as wire from "../../plugins/registry/wire.js";
import { realClock } from "../conformance/upload.js";

const signal = new AbortController().signal;

/** A clock that a test sets forward. */
export class SetClock extends RealClock {
  #aheadMs = 0;
  #wallMs = 0;
  advance(ms: number): void {
    this.#aheadMs += ms;
  }
  jumpWall(ms: number): void {
    this.#wallMs += ms;
  }
  override monotonicMs(): number {
    return super.monotonicMs() + this.#aheadMs;
  }
  override wallMs(): number {
    return super.wallMs() + this.#wallMs;
  }
}

export class FakeDoor {
  readonly open_ = new Map<string, string>();
  readonly busy = new Set<string>();
  open(vehicle: string, dir: string): Promise<void> {
    this.open_.set(vehicle, dir);
    return Promise.resolve();
  }
  shut(vehicle: string): Promise<void> {
    this.open_.delete(vehicle);
    this.busy.delete(vehicle);
    return Promise.resolve();
  }
  isBusy(vehicle: string): boolean {
    return this.busy.has(vehicle);
  }
  holds: () => boolean = () => false;
}

export interface Station {
  readonly url: string;
  readonly root: string;
  readonly door: FakeDoor;
  readonly clock: SetClock;
  readonly catalogue: Catalogue;
  readonly registrations: Registrations;
  readonly slots: Slots;
  readonly said: string[];
  readonly ftp: FtpAccounts | undefined;
  order(...words: string[]): Promise<readonly string[]>;
  /** Another process with the same state, and other options where they are given. */
  restarted(slots?: Partial<SlotsOptions>): Promise<Station>;
}

export async function station(
  t: TestContext,
  given: { mail?: MailOptions; slots?: Partial<SlotsOptions>; ftp?: Partial<FtpAccountsOptions>; dir?: string; from?: string } = {},
): Promise<Station> {
  const dir = given.dir ?? mkdtempSync(join(tmpdir(), "filesync-registry-"));
  const root = join(dir, "vehicles");
  mkdirSync(root, { recursive: true });
  const clock = new SetClock();
  const catalogue = await openCatalogue(join(dir, "registry.sqlite"));
  const said: string[] = [];
  const say = (_: string, message: string) => void said.push(message);
  const door = new FakeDoor();
  const access = ({ id, name }: Vehicle): wire.Access => ({
    ...{ vehicleId: id, vehicle: name, user: "files", port: 2222, hostKey: "SHA256:x", station: "station-1" },
  });
  const registrations = new Registrations(
    { linkMs: 3600_000, publicUrl: () => "https://ground.example.org", access },
    catalogue,
    given.mail === undefined ? undefined : await Mailer.of(given.mail),
    clock,
    say,
  );
  const options = {
    root,
    free: () => freeBytesAt(root),
    idleMs: 600_000,
    keepFreeBytes: 0,
    vehicleBytes: undefined,
    ownerBytes: undefined,
    legacy: false,
    ...given.slots,
  };
  const slots = new Slots(options, catalogue, door, clock, say);
  await slots.start();
  const files = { usersFile: join(dir, "ftp-users.json"), root: join(dir, "ftp"), port: 2121 };
  const quotas = { vehicleBytes: options.vehicleBytes, ownerBytes: options.ownerBytes };
  const ftp =
    given.ftp === undefined
      ? undefined
      : new FtpAccounts({ ...files, ...quotas, ...given.ftp }, () => Promise.resolve(catalogue), clock, say);
  await ftp?.start();
  const keysChanged = () => ftp?.apply() ?? Promise.resolve();
  const api = new Api({
    ...{ station: "station-1", catalogue, challenges: new Challenges(clock), registrations, slots, ftp, clock, say, access },
    keysChanged,
    addressOf: () => given.from ?? "192.0.2.1",
    legacy: options.legacy,
  });
  const listener = getRequestListener(api.app.fetch, { overrideGlobalObjects: false });
  const server: Server = createServer((request, response) => void listener(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  let open = true;
  const close = async () => {
    if (!open) return;
    open = false;
    api.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await registrations.close();
    await slots.stop();
    await ftp?.close();
    await catalogue.close();
  };
  t.after(async () => {
    await close();
    if (given.dir === undefined) rmSync(dir, { recursive: true, force: true });
  });
  return {
    ...{ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, root, door, clock, catalogue, registrations, slots, said, ftp },
    order: async (...words) => {
      const parts = {
        ...{ catalogue, root, ftp, quota: { vehicle: options.vehicleBytes, owner: options.ownerBytes } },
        confirm: async (pending: Parameters<Registrations["confirm"]>[0]) => {
          const vehicle = await registrations.confirm(pending, "by the operator");
          registrations.announce(pending.id);
          return vehicle;
        },
        refuse: (pending: Parameters<Registrations["confirm"]>[0]) => registrations.refuse(pending, "the operator refused it"),
        keysChanged,
        end: (vehicle: string) => slots.end(vehicle),
      };
      return (await orders(words, parts)).said;
    },
    restarted: async (changed = {}) => {
      await close();
      return station(t, { ...given, slots: { ...given.slots, ...changed }, dir });
    },
  };
}

export interface Plane {
  readonly client: RegistryClient;
  readonly signer: Signer;
  readonly at: Station;
}

export async function plane(t: TestContext, at: Station, signer?: Signer): Promise<Plane> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-key-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  writeFileSync(join(dir, "id"), newKey("plane"));
  const key = signer ?? (await readKey(join(dir, "id")));
  const client = new RegistryClient({ url: at.url, tls: {}, timeout: 5000 }, realClock(), () => Promise.resolve(key));
  t.after(() => client.close());
  return { client, signer: key, at };
}

/** Registered and confirmed by the operator. */
export async function registered(
  t: TestContext,
  at: Station,
  vehicle: string,
  email = "pilot@example.org",
): Promise<Plane & { readonly id: string }> {
  const it = await plane(t, at);
  const { id } = await it.client.register({ email, vehicle }, signal);
  await at.order("confirm", id);
  const { access } = await it.client.registration(id, signal);
  assert.ok(access);
  return { ...it, id: access.vehicleId };
}

export async function until(seen: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = performance.now() + 30_000; !(await seen());) {
    assert.ok(performance.now() < end, "it did not come to that");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export const sha256 = (content: string): string => `sha256:${createHash("sha256").update(content).digest("hex")}`;

export function refusedAs(code: wire.ProblemCode) {
  return (error: unknown) => {
    assert.ok(isFault(error), String(error));
    assert.equal((error as { code?: string }).code, code, error.message);
    return true;
  };
}

/** A request as the client makes it, with what is wrong in it put in. */
export async function signed(
  it: Plane,
  method: string,
  path: string,
  body: unknown,
  change: { challenge?: string; signature?: string; key?: string; station?: string; bodySent?: unknown; pathSent?: string } = {},
): Promise<{ status: number; error: string | undefined; challenge: string }> {
  const { challenge: fresh } = (await (await fetch(`${it.at.url}${wire.paths.challenge}`)).json()) as { challenge: string };
  const challenge = change.challenge ?? fresh;
  const text = body === undefined ? "" : JSON.stringify(body);
  const signature =
    change.signature ??
    it.signer.sign(wire.signedText({ station: change.station ?? "station-1", method, path, body: Buffer.from(text), challenge }));
  const answer = await fetch(`${it.at.url}${change.pathSent ?? path}`, {
    method,
    headers: { Authorization: `FileSync key="${change.key ?? it.signer.fingerprint}", challenge="${challenge}", signature="${signature}"` },
    ...(body === undefined ? {} : { body: change.bodySent === undefined ? text : JSON.stringify(change.bodySent) }),
  });
  const said = (await answer.json()) as { error?: string };
  return { status: answer.status, error: said.error, challenge };
}
