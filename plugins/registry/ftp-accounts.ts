/**
 * What vehicles have at the FTP server of the station: an account each that asked for one, in the file that the server reads (`usersFile`), and a directory, which counts for quotas. The server
 * and the registry know nothing else of each other.
 */
import { X509Certificate } from "node:crypto";
import { promises as fs } from "node:fs";
import { dirname, join } from "node:path";
import { Fault, faultOfErrno } from "../../core/errors.js";
import { expectOutside, makeDirDurable, writeDurable } from "../../core/fs.js";
import { fingerprintOf } from "../../core/net.js";
import { hashPassword, newPassword } from "../../core/password.js";
import type { Clock, Level } from "../../core/plugin.js";
import { expectWritable } from "../../core/rights.js";
import { sizeText } from "../../core/text.js";
import { Turns } from "../../core/turns.js";
import type { Catalogue, Used, Vehicle } from "./catalogue.js";
import type { FtpOptions } from "./options.js";
import { Refused } from "./refused.js";
import type { FtpAccess } from "./wire.js";

/** Directories are walked so often at most: they may hold a hundred thousand files. */
const walkEveryMs = 60_000;
/** A client that is just being logged out may still make files in what is removed. */
const removing = { recursive: true, force: true, maxRetries: 10, retryDelay: 100 } as const;

export interface FtpAccountsOptions extends FtpOptions {
  readonly vehicleBytes: number | undefined;
  readonly ownerBytes: number | undefined;
}

export class FtpAccounts {
  readonly #turns = new Turns();
  readonly #stop = new AbortController();
  /** Who may not send for now. */
  #full: ReadonlySet<string> = new Set();
  /** What the file says; undefined where that is not sure. */
  #written: string | undefined;
  #walkedMs = -Infinity;
  #looking: Promise<void> | undefined;
  #trouble = "";
  readonly #warned = new Set<string>();

  constructor(
    readonly options: FtpAccountsOptions,
    readonly catalogue: () => Promise<Catalogue>,
    readonly clock: Clock,
    readonly say: (level: Level, message: string) => void,
  ) {}

  /** Resolves once the file is written. Throws "config" where whoever comes by FTP could change who may. What else is wrong keeps nobody out who comes by ssh: it is said. */
  async start(): Promise<void> {
    const { usersFile, root, tls } = this.options;
    expectOutside("the users' file", usersFile, root);
    if (tls === undefined) this.#warn('vehicles are told to send by FTP without TLS, their passwords too: "ftp" has no "tls"');
    await this.#certificate().catch((error: unknown) => this.#warn(textOf(error)));
    await this.apply().catch((error: unknown) => this.#tell(error));
    this.tick();
  }

  /** Throws what is wrong, without changing anything. */
  async probe(): Promise<void> {
    const { usersFile, root } = this.options;
    expectOutside("the users' file", usersFile, root);
    await this.#certificate();
    await expectWritable(dirname(usersFile), `cannot write ${usersFile}`);
  }

  /** A new password; the one before ends. Known nowhere else from then on. Resolves once the file has it. Throws Refused "revoked". */
  async password(vehicle: Vehicle): Promise<FtpAccess> {
    const { host, port } = this.options;
    const tls = await this.#certificate();
    const password = newPassword();
    if (!(await (await this.catalogue()).setFtpHash(vehicle, await hashPassword(password))))
      throw new Refused("revoked", "this vehicle's key was revoked, or changed meanwhile");
    await this.apply();
    this.say("info", `${vehicle.id} has a new password at the FTP server`);
    return {
      ...(host === undefined ? {} : { host }),
      ...{ port, user: vehicle.id, password },
      ...(tls === undefined ? {} : { tls }),
    };
  }

  /** The file says what the catalogue says once this resolves. Throws Fault; then it is tried again. */
  apply(): Promise<void> {
    return this.#turns.run(undefined, async () => {
      const { usersFile } = this.options;
      const { text, full } = await this.#accounts();
      if (text === this.#written) return;
      this.#written = undefined;
      try {
        await makeDirDurable(dirname(usersFile), 0o750);
        await writeDurable(usersFile, text, 0o600);
      } catch (error) {
        throw faultOfErrno(error, `cannot write ${usersFile}, so the FTP server goes by what it had`);
      }
      this.#written = text;
      for (const [id, why] of full) if (!this.#full.has(id)) this.say("warn", `${id} may send no more by FTP for now: ${why}`);
      for (const id of this.#full) if (!full.has(id)) this.say("info", `${id} may send by FTP again`);
      this.#full = new Set(full.keys());
    });
  }

  /** Now and then: what could not be written is, and directories are walked. Nobody waits for it. */
  tick(): void {
    this.#looking ??= this.#look().finally(() => (this.#looking = undefined));
  }

  /** What a vehicle sent by FTP goes. */
  async remove(vehicle: string): Promise<void> {
    await fs.rm(join(this.options.root, vehicle), removing);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#looking;
  }

  /** Never rejects. */
  async #look(): Promise<void> {
    const nowMs = this.clock.monotonicMs();
    const due = nowMs - this.#walkedMs >= walkEveryMs;
    try {
      // First: who was let in or out must not wait until all was walked.
      if (this.#written === undefined) await this.apply();
      if (due) {
        this.#walkedMs = nowMs;
        await this.#walk();
        await this.apply();
      }
      this.#trouble = "";
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#tell(error);
    }
  }

  /** Once, however often it is started. */
  #warn(text: string): void {
    if (!this.#warned.has(text)) this.say("warn", text);
    this.#warned.add(text);
  }

  /** Once. */
  #tell(error: unknown): void {
    if (textOf(error) !== this.#trouble) this.say("error", textOf(error));
    this.#trouble = textOf(error);
  }

  async #walk(): Promise<void> {
    const catalogue = await this.catalogue();
    for (const { id, ftpBytes } of await catalogue.vehicles()) {
      const bytes = await bytesBelow(Buffer.from(join(this.options.root, id)), this.#stop.signal);
      if (bytes !== ftpBytes) await catalogue.setFtpBytes(id, bytes);
    }
  }

  async #accounts(): Promise<{ readonly text: string; readonly full: ReadonlyMap<string, string> }> {
    const catalogue = await this.catalogue();
    const used = await catalogue.usedOfAll();
    const full = new Map<string, string>();
    const users: Record<string, unknown> = {};
    for (const vehicle of await catalogue.vehicles()) {
      const { id, state, ftpHash } = vehicle;
      if (state !== "active" || ftpHash === undefined) continue;
      const why = this.#fullFor(vehicle, used.get(id));
      if (why !== undefined) full.set(id, why);
      users[id] = { passwordHash: ftpHash, root: id, write: why === undefined, ...(why === undefined ? {} : { full: why }) };
    }
    return { text: `${JSON.stringify({ users }, null, 2)}\n`, full };
  }

  #fullFor({ quotaBytes, owner }: Vehicle, used: Used | undefined): string | undefined {
    const over = (whose: string, bytes: number, quota: number | undefined) =>
      quota !== undefined && bytes >= quota ? `The quota of ${whose} (${sizeText(quota)}) is used up.` : undefined;
    const { vehicleBytes, ownerBytes } = this.options;
    return (
      over("this vehicle", used?.vehicle ?? 0, quotaBytes ?? vehicleBytes) ??
      over("its owner", used?.owner ?? 0, owner.quotaBytes ?? ownerBytes)
    );
  }

  /** What vehicles shall believe at the FTP server; read each time, as certificates are renewed. Throws "config". */
  async #certificate(): Promise<FtpAccess["tls"]> {
    const { tls } = this.options;
    if (tls?.cert === undefined) return tls === undefined ? undefined : {};
    try {
      return { fingerprint: fingerprintOf(new X509Certificate(await fs.readFile(tls.cert)).raw) };
    } catch (error) {
      throw new Fault("config", `the FTP server's certificate ${tls.cert}, which vehicles shall pin, cannot be read: ${textOf(error)}`, {
        cause: error,
      });
    }
  }
}

/** Of all files, under whatever names. What cannot be looked at, or goes meanwhile, counts for nothing. */
async function bytesBelow(dir: Buffer, signal: AbortSignal): Promise<number> {
  let sum = 0;
  const waiting = [dir];
  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
    const entries = await fs.readdir(at, { encoding: "buffer", withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      signal.throwIfAborted();
      const path = Buffer.concat([at, Buffer.from("/"), entry.name]);
      if (entry.isDirectory()) waiting.push(path);
      else
        sum += await fs.lstat(path).then(
          ({ size }) => size,
          () => 0,
        );
    }
  }
  return sum;
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
