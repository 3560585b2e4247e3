/** What the operator of a registry may order: words in, lines and facts out. */
import { join } from "node:path";
import { Fault } from "../../core/errors.js";
import { parseSize } from "../../core/options.js";
import type { Ordered } from "../../core/plugin.js";
import { durationText, sizeText } from "../../core/text.js";
import { type Catalogue, type Pending, Taken, type Vehicle } from "./catalogue.js";
import type { FtpAccounts } from "./ftp-accounts.js";
import { legacyKeyOf } from "./legacy-key.js";
import { needsWord, orderWords, usages } from "./order-words.js";
import { Refused } from "./refused.js";
import { removeTree } from "./slot-dir.js";
import { publicKeyOf } from "./wire.js";

export interface OrderParts {
  readonly catalogue: Catalogue;
  readonly root: string;
  readonly ftp: FtpAccounts | undefined;
  /** What the configuration says of all, in bytes. */
  readonly quota: { readonly vehicle?: number | undefined; readonly owner?: number | undefined };
  readonly confirm: (pending: Pending) => Promise<Vehicle>;
  /** Whoever waits for it is told. */
  readonly refuse: (pending: Pending) => Promise<void>;
  readonly keysChanged: () => Promise<void>;
  /** Ends what a vehicle sends now. */
  readonly end: (vehicle: string) => Promise<void>;
}

/** A smaller quota without a unit is meant with one. */
const leastPlain = 1_000_000;

type Order = (parts: OrderParts, words: readonly string[]) => Promise<Ordered>;

const known: Readonly<Record<keyof typeof orderWords, Order>> = {
  list,
  confirm,
  refuse,
  revoke,
  rotate,
  password,
  quota,
  delete: deleteOwner,
};

const isKnown = (name: string): name is keyof typeof orderWords => Object.hasOwn(orderWords, name);

export async function orders(words: readonly string[], parts: OrderParts): Promise<Ordered> {
  const [name = "", ...rest] = words;
  if (!isKnown(name)) throw mistake(name === "" ? needsWord : `the registry does not know "${name}": ${usages.join(", ")}`);
  const { usage, words: counts } = orderWords[name];
  if (rest.length < counts[0] || rest.length > counts[1]) throw mistake(`usage: filesync registry ${usage}`);
  try {
    return await known[name](parts, rest);
  } catch (error) {
    throw error instanceof Refused || error instanceof Taken ? mistake(error.message) : error;
  }
}

const mistake = (message: string): Fault => new Fault("config", message);

async function list({ catalogue, quota: ofAll }: OrderParts): Promise<Ordered> {
  const used = await catalogue.usedOfAll();
  const vehicles = (await catalogue.vehicles()).map((it) => ({ ...it, used: used.get(it.id) ?? { vehicle: 0, owner: 0 } }));
  const waiting = await catalogue.allPending();
  const facts = {
    vehicles: vehicles.map(({ id, name, owner, fingerprint, legacy, state, createdMs, quotaBytes, ftpHash, used }) => ({
      ...{ id, name, owner: owner.email, fingerprint, legacy, state, createdMs, usedBytes: used.vehicle, ftp: ftpHash !== undefined },
      ...(quotaBytes === undefined ? {} : { quotaBytes }),
      ...(owner.quotaBytes === undefined ? {} : { ownerQuotaBytes: owner.quotaBytes }),
    })),
    waiting: waiting.map(({ id, email, name, fingerprint, legacy, renew, by, mailed, ageMs }) => ({
      ...{ id, email, name, fingerprint, legacy, renew, by, mailed, ageMs },
    })),
  };
  const said = [
    ...(vehicles.length === 0 ? ["no vehicle is registered"] : []),
    ...vehicles.map(
      ({ id, name, owner, fingerprint, legacy, state, quotaBytes, ftpHash, used }) =>
        `${id}  "${name}" of ${owner.email}  ${sizeText(used.vehicle)}${quotaText(quotaBytes ?? ofAll.vehicle, owner.quotaBytes ?? ofAll.owner)}  ${fingerprint}` +
        (legacy ? "  legacy" : "") +
        (state === "active" ? "" : "  revoked") +
        (ftpHash === undefined ? "" : "  FTP"),
    ),
    ...waiting.map(
      ({ id, email, name, fingerprint, legacy, renew, by, mailed, ageMs }) =>
        `waits: ${id}  ${renew ? "a new key for " : ""}${name === undefined ? "" : `"${name}" of `}${email}  ${fingerprint}${legacy ? "  legacy" : ""}  for ${durationText(ageMs / 1000)}` +
        (by === "operator" ? `  (filesync registry confirm ${id})` : mailed ? "  (the mail was sent)" : "  (the mail is not sent yet)"),
    ),
  ];
  return { said, facts };
}

function quotaText(vehicle: number | undefined, owner: number | undefined): string {
  const given = [
    ...(vehicle === undefined ? [] : [`of ${sizeText(vehicle)}`]),
    ...(owner === undefined ? [] : [`all of this owner's of ${sizeText(owner)}`]),
  ];
  return given.length === 0 ? "" : ` ${given.join(", ")}`;
}

async function confirm(parts: OrderParts, [what = ""]: readonly string[]): Promise<Ordered> {
  const vehicle = await parts.confirm(await waitingCalled(parts.catalogue, what));
  return { said: [`${vehicle.id} ("${vehicle.name}" of ${vehicle.owner.email}) is registered`], facts: { vehicle: vehicle.id } };
}

async function refuse(parts: OrderParts, [what = ""]: readonly string[]): Promise<Ordered> {
  const pending = await waitingCalled(parts.catalogue, what);
  await parts.refuse(pending);
  const { id, email, fingerprint } = pending;
  return { said: [`the registration ${id} of ${email} (${fingerprint}) is refused; the vehicle is told`], facts: { registration: id } };
}

async function revoke(parts: OrderParts, [what = ""]: readonly string[]): Promise<Ordered> {
  const { id } = await vehicleCalled(parts.catalogue, what);
  await parts.catalogue.setState(id, "revoked");
  try {
    await parts.keysChanged();
  } finally {
    await parts.end(id);
  }
  return { said: [`${id} is revoked: it sends no more; what it sent stays`], facts: { vehicle: id } };
}

async function rotate(parts: OrderParts, [what = "", ...words]: readonly string[]): Promise<Ordered> {
  const { id, state, fingerprint, legacy, ftpHash } = await vehicleCalled(parts.catalogue, what);
  const key = legacy ? legacyKeyOf(words.join(" ")) : publicKeyOf(words.join(" "));
  if (key === undefined)
    throw mistake(
      `that is no ${legacy ? "RSA key of at least 2048 bits, and no ed25519 one," : "ed25519 public key"} as OpenSSH writes it: one line, ${legacy ? "ssh-rsa" : "ssh-ed25519"} AAAA…`,
    );
  if (state === "revoked" && fingerprint === key.fingerprint)
    throw mistake(`${key.fingerprint} is the key that was revoked: ${id} needs a new one`);
  await parts.catalogue.setKey(id, key.line, key.fingerprint);
  await parts.catalogue.setState(id, "active");
  await parts.keysChanged();
  return {
    said: [
      `${id} has the key ${key.fingerprint} from now on, and no other`,
      ...(ftpHash === undefined ? [] : [`its password at the FTP server has ended with the old one: filesync registry password ${id}`]),
    ],
    facts: { vehicle: id, fingerprint: key.fingerprint },
  };
}

async function password({ catalogue, ftp }: OrderParts, [what = ""]: readonly string[]): Promise<Ordered> {
  if (ftp === undefined) throw mistake('vehicles have no accounts at an FTP server here: the registry has no "ftp" in the configuration');
  const vehicle = await vehicleCalled(catalogue, what);
  if (vehicle.state === "revoked") throw mistake(`${vehicle.id} is revoked: "filesync registry rotate" gives it a new key first`);
  const access = await ftp.password(vehicle);
  const { host, port, user, password: made, tls } = access;
  const secured =
    tls === undefined
      ? "in clear"
      : tls.fingerprint === undefined
        ? "with TLS that is asked for (AUTH TLS)"
        : `with TLS that is asked for (AUTH TLS); the certificate is ${tls.fingerprint}`;
  return {
    said: [
      `${user} sends by FTP to ${host === undefined ? "" : `${host}, `}port ${port}, ${secured}`,
      `user      ${user}`,
      `password  ${made}`,
      "The password is shown this once. One that was given before is good no longer.",
    ],
    facts: { vehicle: user, ...access },
  };
}

async function quota({ catalogue, ftp }: OrderParts, [who = "", size = ""]: readonly string[]): Promise<Ordered> {
  const bytes = size === "default" ? undefined : parseSize(size);
  if (size !== "default" && bytes === undefined)
    throw mistake(`${size} is no size such as "20GiB"; "default" is that of the configuration`);
  if (bytes !== undefined && bytes > 0 && bytes < leastPlain && !/[A-Za-z]/.test(size))
    throw mistake(`${size} without a unit would be ${size} bytes: give it one, as in "${size}GB"`);
  const owner = (await catalogue.vehicles()).find((it) => it.owner.email === who.toLowerCase())?.owner;
  const name = owner?.email ?? (await vehicleCalled(catalogue, who)).id;
  await catalogue.setQuota(owner === undefined ? { vehicle: name } : { owner: owner.id }, bytes);
  await ftp?.apply();
  return {
    said: [`${name}: ${bytes === undefined ? "the quota of the configuration" : sizeText(bytes)}`],
    facts: { who: name, quotaBytes: bytes ?? null },
  };
}

async function deleteOwner(parts: OrderParts, [email = ""]: readonly string[]): Promise<Ordered> {
  const theirs = (await parts.catalogue.vehicles()).filter((it) => it.owner.email === email.toLowerCase());
  for (const { id } of theirs) {
    await parts.catalogue.setState(id, "revoked");
    await parts.end(id);
  }
  const [first] = theirs;
  const [keys] = await Promise.allSettled([first === undefined ? undefined : parts.keysChanged()]);
  // Files before rows: whatever ends this, the same command ends it.
  if (first !== undefined) await removeTree(join(parts.root, first.owner.id));
  for (const { id } of theirs) await parts.ftp?.remove(id);
  const registrations = await parts.catalogue.deleteOwner(email.toLowerCase());
  if (keys.status === "rejected") throw keys.reason;
  if (first === undefined && registrations === 0) throw mistake(`nobody is registered as ${email}`);
  return {
    said: [
      `${email}: ${theirs.length} vehicle(s), their keys and all their files here, and ${registrations} registration(s) that waited or had ended, are gone`,
    ],
    facts: { email, vehicles: theirs.map(({ id }) => id) },
  };
}

async function waitingCalled(catalogue: Catalogue, what: string): Promise<Pending> {
  const waiting = await catalogue.allPending();
  const pending = waiting.find(({ id }) => id === what);
  if (pending !== undefined) return pending;
  throw mistake(
    `no registration ${what} waits; ${waiting.length === 0 ? "none does" : `there are: ${waiting.map(({ id }) => id).join(", ")}`}`,
  );
}

async function vehicleCalled(catalogue: Catalogue, what: string): Promise<Vehicle> {
  const vehicles = await catalogue.vehicles();
  // An owner may call a vehicle by the id of another: an id is that one's all the same.
  const byId = vehicles.filter(({ id }) => id === what);
  const found = byId.length > 0 ? byId : vehicles.filter(({ name }) => name === what);
  const [one] = found;
  if (one !== undefined && found.length === 1) return one;
  if (found.length > 1)
    throw mistake(`several owners have a vehicle "${what}": name it by its id, ${found.map(({ id }) => id).join(" or ")}`);
  throw mistake(`no vehicle is called "${what}"; ${vehicles.length === 0 ? "none is registered" : "filesync registry list"}`);
}
