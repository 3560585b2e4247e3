/** What a registry knows for good: owners, vehicles, registrations under way, slots and the files in them. Nobody else writes it; each call is one whole change, durable once it resolves. */

export interface Vehicle {
  /** Lower-case letters, digits and "-": also the name of its directory, and in the door. */
  readonly id: string;
  /** What its owner calls it: unique for that owner. */
  readonly name: string;
  readonly owner: Owner;
  /** "ssh-ed25519 AAAA…"; of a legacy vehicle also "ssh-rsa AAAA…". */
  readonly key: string;
  readonly fingerprint: string;
  /** It speaks the endpoints of APSync (`legacy.ts`), and no others. */
  readonly legacy: boolean;
  readonly state: "active" | "revoked";
  /** Milliseconds since 1970, as this machine believed. */
  readonly createdMs: number;
  readonly quotaBytes?: number;
  /** Of its password at the FTP server; absent: it has no account there. */
  readonly ftpHash?: string;
  /** What it has there, as it was walked last. */
  readonly ftpBytes: number;
}

export interface Owner {
  /** As a vehicle's. */
  readonly id: string;
  /** Lower case. */
  readonly email: string;
  readonly quotaBytes?: number;
}

export interface Pending {
  readonly id: string;
  readonly email: string;
  /** Absent: one is made. */
  readonly name?: string;
  readonly key: string;
  readonly fingerprint: string;
  /** A new key for a vehicle that is there. */
  readonly renew: boolean;
  /** As a vehicle's: nobody proved to have the key. */
  readonly legacy: boolean;
  readonly state: "waiting" | "confirmed" | "expired" | "refused";
  readonly reason?: string;
  readonly by: "mail" | "operator";
  /** SHA-256 of the link's token: who reads the catalogue cannot confirm. */
  readonly tokenHash: string;
  /** The mail server took its mail. */
  readonly mailed: boolean;
  /** So long it waits, while the registry ran: no clock is asked. */
  readonly ageMs: number;
  /** Once it is confirmed. */
  readonly vehicle?: string;
}

export interface SlotRow {
  readonly id: string;
  readonly vehicle: string;
  /** Of its directory. */
  readonly name: string;
  /** "emptied": closed, and all that was committed there was taken out of its directory. */
  readonly state: "open" | "closed" | "emptied";
  readonly openedMs: number;
}

export interface FileRow {
  readonly slot: string;
  readonly path: string;
  readonly size: number;
  readonly digest: string;
  readonly committedMs: number;
  /** It was not at its place when that was looked at last: it counts for nothing. */
  readonly gone: boolean;
}

/** Thrown by `confirm`: that owner has another vehicle of that name (one that is not revoked), none to renew, another vehicle has that key, or it does not wait any more. */
export class Taken extends Error {
  constructor(readonly what: "name" | "key" | "none" | "over") {
    super(
      {
        name: "the owner has a vehicle of that name",
        key: "a vehicle has that key",
        none: "the owner has no vehicle of that name",
        over: "that registration does not wait any more",
      }[what],
    );
  }
}

/** Bytes of what a vehicle keeps here, by whichever way it came, and of all vehicles of its owner. */
export interface Used {
  readonly vehicle: number;
  readonly owner: number;
}

export interface Catalogue {
  vehicles(): Promise<Vehicle[]>;
  vehicle(id: string): Promise<Vehicle | undefined>;
  /** Also one that is revoked. */
  vehicleOfKey(fingerprint: string): Promise<Vehicle | undefined>;
  vehicleNamed(email: string, name: string): Promise<Vehicle | undefined>;
  /** Its password at the FTP server ends with the key that could ask for it. Throws Taken where a vehicle has it. */
  setKey(vehicle: string, key: string, fingerprint: string): Promise<void>;
  /** Who is revoked has no password at the FTP server any more. */
  setState(vehicle: string, state: Vehicle["state"]): Promise<void>;
  /** `undefined`: what the configuration says. */
  setQuota(who: { readonly vehicle: string } | { readonly owner: string }, bytes: number | undefined): Promise<void>;
  /** False where the vehicle is revoked, or has another key by now. */
  setFtpHash(vehicle: Pick<Vehicle, "id" | "fingerprint">, hash: string): Promise<boolean>;
  setFtpBytes(vehicle: string, bytes: number): Promise<void>;
  /** With its vehicles, slots and files, and registrations, also those that ended: their number. Nothing of it is left in the catalogue's files. What was on disk is the caller's. */
  deleteOwner(email: string): Promise<number>;

  /** Replaces an older one of the same key. */
  addPending(pending: Pending): Promise<void>;
  pending(id: string): Promise<Pending | undefined>;
  pendingOfToken(tokenHash: string): Promise<Pending | undefined>;
  pendingOfKey(fingerprint: string): Promise<Pending | undefined>;
  /** Those that wait. */
  allPending(): Promise<Pending[]>;
  /** False, and nothing is changed, where it does not wait any more. */
  changePending(id: string, change: Partial<Pick<Pending, "state" | "reason" | "mailed" | "tokenHash">>): Promise<boolean>;
  /** All that wait grow older; those beyond `expireMs` expire (their ids), and what ended is forgotten `keepMs` later. */
  age(ms: number, expireMs: number, keepMs: number): Promise<string[]>;
  /** Makes the vehicle of a registration that waits (and its owner); the owner's vehicle of that name, if it was revoked or is renewed, goes on with the new key. Throws Taken. */
  confirm(
    id: string,
    made: { readonly vehicle: string; readonly name: string; readonly owner: string; readonly atMs: number },
  ): Promise<Vehicle>;

  /** False, and nothing is changed, where the vehicle has one of that name. */
  addSlot(slot: SlotRow): Promise<boolean>;
  slot(id: string): Promise<SlotRow | undefined>;
  openSlots(): Promise<SlotRow[]>;
  /** The newest of the same vehicle but this one. */
  slotBefore(slot: SlotRow): Promise<SlotRow | undefined>;
  /** `was`: nothing is changed where it is not that. */
  setSlot(id: string, state: SlotRow["state"], was?: SlotRow["state"]): Promise<void>;
  /** All that was committed there was taken out; false, and nothing is changed, where nothing ever was, or it is not what it `was`. */
  setEmptied(id: string, was: SlotRow["state"]): Promise<boolean>;
  /** Where nothing was ever committed there it is forgotten. */
  dropUnused(id: string): Promise<void>;
  /** With all that was committed there. */
  dropSlot(id: string): Promise<void>;
  /** Replaces an earlier version under the same path. It is there. */
  addFile(file: Omit<FileRow, "gone">): Promise<void>;
  file(slot: string, path: string): Promise<FileRow | undefined>;
  slotsOf(vehicle: string): Promise<SlotRow[]>;
  /** All that was committed there and has not gone. */
  filesIn(slot: string): Promise<FileRow[]>;
  /** As it was looked at, unless it was committed anew since. */
  setGone(file: FileRow, gone: boolean): Promise<void>;
  /** Nothing of it is at its place. */
  setAllGone(slot: string): Promise<void>;
  used(vehicle: string): Promise<Used>;
  /** By vehicle. */
  usedOfAll(): Promise<ReadonlyMap<string, Used>>;

  /** A copy beside it, of a day ago at most, for whoever finds it damaged. Nothing that was deleted stays in it. Throws Fault "denied" where the catalogue itself is damaged, or what the medium says. */
  keepCopy(nowMs: number): Promise<void>;

  close(): Promise<void>;
}
