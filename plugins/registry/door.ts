/**
 * The door: where vehicles bring their files, by the real rsync over the real sshd. This process listens; each connection gets an sshd of its own (`door-session.ts`), run as
 * the account that this process has. A key may do one thing: write, by rsync, in the slot (a directory) that is open for its vehicle.
 *
 * Keys and slots are files in the door's directory: what was set before a restart holds after it, until it is set anew.
 */
import { type BigIntStats, existsSync, promises as fs } from "node:fs";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { userInfo } from "node:os";
import { basename, dirname, join } from "node:path";
import { Fault, faultOfErrno, throwIfAborted } from "../../core/errors.js";
import {
  isBelow,
  makeDirDurable,
  realOf,
  removeFile,
  removeTemporaries,
  renameDurable,
  syncDir,
  syncFound,
  writeDurable,
} from "../../core/fs.js";
import { hostAndPort, listening } from "../../core/net.js";
import type { PluginContext } from "../../core/plugin.js";
import { runCommand } from "../../core/program.js";
import { expectWritable } from "../../core/rights.js";
import { shellWord } from "../../core/text.js";
import { whose } from "./allowance.js";
import {
  anyKeyOf,
  enterScript,
  isPlainPath,
  isVehicleId,
  keyLine,
  keyOf,
  legacyScript,
  readyCode,
  sshdConfig,
  type Account,
  type Key,
  type Programs,
} from "./door-config.js";
import { hasOpen, Sessions } from "./door-processes.js";
import { Connection, type Keeper } from "./door-session.js";

export interface DoorOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** A directory of the door's own; made where it is missing. Absolute, without quotes, backslashes and percent signs. */
  readonly dir: string;
  /** Keys of legacy vehicles are let in. Default: they are not. */
  readonly legacy?: boolean;
  /**
   * Connections at once: in all (64), of those from one address that have not logged in (32; of IPv6 a network of 64 bits), and of one vehicle (4). Who has not logged in makes way first, then
   * who is at no work; of one vehicle the oldest.
   */
  readonly maxConnections?: number;
  readonly maxPerAddress?: number;
  readonly maxPerVehicle?: number;
}

export interface VehicleKey {
  readonly vehicle: string;
  /** One line of a file that ends in .pub: ed25519. A vehicle may have several; two vehicles never have the same. */
  readonly publicKey: string;
  /** It has the client of APSync: the key may be RSA, and may run what that client asks for and nothing else. */
  readonly legacy?: boolean;
}

const second = 1000;
/** So many warnings of what clients do in so long a time; the others are counted. */
const mostWarnings = 10;
const warningsMs = 60 * second;
const programMs = 20 * second;

export class Door {
  readonly #options: Required<DoorOptions>;
  readonly #context: Pick<PluginContext, "say" | "clock">;
  readonly #sessions: Sessions;
  readonly #connections = new Map<string, Connection>();
  /** What is set is set in the order of asking. */
  #last: Promise<unknown> = Promise.resolve();
  /** Vehicles by the fingerprints of their keys; undefined until they were set. */
  #keys: ReadonlyMap<string, string> | undefined;
  #keeper: Keeper | undefined;
  #hostKey: Key | undefined;
  #server: Server | undefined;
  #closed = false;

  constructor(options: DoorOptions, context: Pick<PluginContext, "say" | "clock">) {
    this.#options = { maxConnections: 64, maxPerAddress: 32, maxPerVehicle: 4, legacy: false, ...options };
    this.#context = context;
    this.#sessions = new Sessions(options.dir);
  }

  /** The port that it listens on; undefined before `start` and after `close`. */
  get port(): number | undefined {
    return (this.#server?.address() as AddressInfo | null | undefined)?.port;
  }

  /** Whom vehicles log in as; undefined before `start`. */
  get user(): string | undefined {
    return this.#keeper?.user;
  }

  /** What vehicles know the door by; undefined before `start`. It stays the same for as long as its directory is there. */
  get hostKey(): Key | undefined {
    return this.#hostKey;
  }

  /** Throws Fault "config" (a program is missing, the account runs no commands, a bad address), "denied" (its directory, that port), "transient" (the port is held). */
  async start(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    if (this.#closed) throw new Fault("aborted", "the door was closed");
    if (this.#server !== undefined) return;
    const { dir, listen, legacy } = this.#options;
    const programs = await programsHere(legacy, signal);
    const account = accountHere();
    await this.#prepare();
    await this.#writeFiles(programs, account);
    const keys = this.#keys ?? (await this.#keysOfBefore());
    const hostKey = await this.#readHostKey(signal);
    await expectShell(account, dir, signal);
    const config = join(dir, "sshd_config");
    const tried = await runCommand(programs.sshd, ["-t", "-f", config], programMs, signal);
    if (tried.code !== 0) throw new Fault("config", `sshd does not take the configuration that was written for it: ${tried.complaint}`);
    // Of a process that was killed. Those that still run would write where nobody expects it.
    await this.#sessions.end(() => true);
    throwIfAborted(signal);
    this.#keys = keys;
    this.#hostKey = hostKey;
    this.#keeper = {
      sshd: programs.sshd,
      config,
      user: account.name,
      sessions: this.#sessions,
      letIn: (connection, fingerprint) => this.#letIn(connection, fingerprint),
      keyRefused: ({ address }, fingerprint) =>
        this.#warn(`a key that no vehicle is registered with was refused: ${fingerprint}, from ${address}`, { address, fingerprint }),
      trouble: ({ address }, text) => this.#warn(`sshd, for ${address}: ${printable(text)}`, { address }),
    };
    const server = createServer({ pauseOnConnect: true, noDelay: true }, (socket) => this.#welcome(socket));
    await listening(server, this.#options.listen);
    server.on("error", (error) => this.#context.say("error", `the port for vehicles: ${error.message}`));
    this.#server = server;
    const { host } = listen;
    this.#context.say(
      "info",
      `vehicles come in as ${account.name} at ${hostAndPort(host, this.port ?? 0)}; the host key is ${hostKey.fingerprint}`,
      { host, port: this.port, user: account.name, fingerprint: hostKey.fingerprint },
    );
    if (account.isRoot)
      this.#context.say("warn", "vehicles come in as root, because this program runs as root: an account of its own is better", {});
  }

  /** Throws the Fault that `start` would, as far as can be seen without changing anything. */
  async probeStart(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const { dir, legacy } = this.#options;
    await programsHere(legacy, signal);
    await expectShell(accountHere(), undefined, signal);
    expectPlain(dir);
    await expectWritable(dir, `cannot write in ${dir}`);
    const server = createServer((socket) => socket.destroy());
    await listening(server, this.#options.listen);
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  /**
   * These keys, and no others. Before it resolves, connections of keys that are gone have ended; and where one is gone, those that are just logging in too: which key they
   * come with is not known yet, and they come again. Throws "config" for what is no key, or for two vehicles with one; then nothing has changed.
   */
  setKeys(given: readonly VehicleKey[]): Promise<void> {
    return this.#inTurn(async () => {
      const keys = new Map<string, string>();
      let text = "";
      for (const { vehicle, publicKey, legacy = false } of given) {
        expectVehicle(vehicle);
        const key = legacy ? anyKeyOf(publicKey) : keyOf(publicKey);
        const other = keys.get(key.fingerprint) ?? vehicle;
        if (other !== vehicle) throw new Fault("config", `${vehicle} and ${other} have the same key, ${key.fingerprint}`);
        if (!keys.has(key.fingerprint)) text += keyLine(this.#options.dir, vehicle, key, legacy);
        keys.set(key.fingerprint, vehicle);
      }
      await this.#prepare();
      await writeDurable(join(this.#options.dir, "authorized_keys"), text, 0o600);
      const before = this.#keys;
      this.#keys = keys;
      const fewer = before !== undefined && [...before].some(([fingerprint, vehicle]) => keys.get(fingerprint) !== vehicle);
      if (fewer) await this.#endConnections(({ vehicle, fingerprint = "" }) => vehicle === undefined || keys.get(fingerprint) !== vehicle);
    });
  }

  /** Sessions of the vehicle that begin from now on write in this directory, which is made by the caller. One that runs goes on where it is. */
  open(vehicle: string, dir: string): Promise<void> {
    return this.#inTurn(async () => {
      expectVehicle(vehicle);
      this.#expectSlot(dir);
      await this.#prepare();
      await writeDurable(this.#slotFile(vehicle), `${dir}\n`, 0o600);
    });
  }

  /** No session of the vehicle begins from now on, and none runs when this resolves. */
  shut(vehicle: string): Promise<void> {
    return this.#inTurn(async () => {
      expectVehicle(vehicle);
      await this.#prepare();
      await removeFile(this.#slotFile(vehicle));
      await syncDir(join(this.#options.dir, "open"));
      // Also one whose login this process has not heard of yet.
      const begun = new Set(this.#processesOf(vehicle).map(({ connection }) => connection));
      await this.#endConnections((it) => it.vehicle === vehicle || begun.has(it.id));
      await this.#sessions.end((it) => it.vehicle === vehicle);
    });
  }

  /** A session of the vehicle runs. One that is connected and does nothing is not busy. */
  isBusy(vehicle: string): boolean {
    return this.#processesOf(vehicle).length > 0;
  }

  /** A session of the vehicle has that file open: it may write to it also when it has another name, out of the slot. */
  holds(vehicle: string, file: Pick<BigIntStats, "dev" | "ino">): boolean {
    return this.#processesOf(vehicle).some(({ pid }) => hasOpen(pid, file));
  }

  /** Idempotent. Afterwards no socket, timer, sshd or session is left. */
  async close(): Promise<void> {
    this.#closed = true;
    const server = this.#server;
    this.#server = undefined;
    const stopped = new Promise<void>((resolve) => (server === undefined ? resolve() : server.close(() => resolve())));
    await this.#endConnections(() => true);
    await stopped;
    await this.#last;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#last.then(work);
    this.#last = mine.catch(() => undefined);
    return mine;
  }

  #welcome(socket: Socket): void {
    const keeper = this.#keeper;
    // Gone already where nobody can say from where it came.
    if (keeper === undefined || this.#closed || socket.remoteAddress === undefined || !this.#makeRoom(whose(socket.remoteAddress))) {
      socket.destroy();
      return;
    }
    const connection = new Connection(socket, keeper);
    this.#connections.set(connection.id, connection);
    // It cannot be seen what it began, as where no more files can be opened.
    const unseen = (error: unknown) =>
      this.#warn(`what ${connection.address} began may go on: ${error instanceof Error ? error.message : String(error)}`, {
        address: connection.address,
      });
    void connection.gone.catch(unseen).then(() => this.#connections.delete(connection.id));
  }

  /** Where there are too many, one makes way: who has not logged in, else a vehicle that only waits. False where all are at work. */
  #makeRoom(network: string): boolean {
    const { maxConnections, maxPerAddress } = this.#options;
    const all = [...this.#connections.values()].filter((it) => !it.ending);
    const strangers = all.filter((it) => it.vehicle === undefined);
    // Vehicles of one place may share an address, and do not count for it.
    const same = strangers.filter((it) => whose(it.address) === network);
    if (same.length < maxPerAddress && all.length < maxConnections) return true;
    this.#warn(`too many connections (${all.length} in all, ${same.length} from ${network} that did not log in)`, { address: network });
    const first = same.length >= maxPerAddress ? same[0] : (oldestOfMost(strangers) ?? this.#oldestIdle(all));
    void first?.end();
    return first !== undefined;
  }

  /** A vehicle keeps its connection for what comes next: it comes again. */
  #oldestIdle(all: readonly Connection[]): Connection | undefined {
    const busy = new Set(this.#sessions.look().map(({ connection }) => connection));
    return all.find(({ id, vehicle }) => vehicle !== undefined && !busy.has(id));
  }

  #letIn(connection: Connection, fingerprint: string): boolean {
    const vehicle = this.#keys?.get(fingerprint);
    if (vehicle === undefined || connection.ending) return false;
    connection.vehicle = vehicle;
    connection.fingerprint = fingerprint;
    const { address } = connection;
    this.#context.say("debug", `${vehicle} logged in from ${address}`, { vehicle, address });
    // One whose line was lost is replaced by the one that comes after it, long before sshd notices.
    const same = [...this.#connections.values()].filter((it) => it.vehicle === vehicle && !it.ending);
    for (const old of same.slice(0, Math.max(0, same.length - this.#options.maxPerVehicle))) void old.end();
    return true;
  }

  #processesOf(vehicle: string) {
    return this.#sessions.look().filter((it) => it.vehicle === vehicle);
  }

  async #endConnections(which: (connection: Connection) => boolean): Promise<void> {
    await Promise.all([...this.#connections.values()].filter(which).map((connection) => connection.end()));
  }

  #slotFile(vehicle: string): string {
    return join(this.#options.dir, "open", vehicle);
  }

  /** A vehicle must not write what this account runs, or what the door is told. */
  #expectSlot(slot: string): void {
    expectPlain(slot);
    const { dir } = this.#options;
    if (isBelow(userInfo().homedir, slot) || isBelow(dir, slot) || isBelow(slot, dir))
      throw new Fault("config", `${slot} cannot be a slot: it has the home of this account, or the door's own files, in it`);
  }

  async #prepare(): Promise<void> {
    const { dir } = this.#options;
    expectPlain(dir);
    try {
      await makeDirDurable(join(dir, "open"), 0o700);
      // Only its owner can.
      await fs.chmod(dir, 0o700);
    } catch (error) {
      throw faultOfErrno(error, `cannot use ${dir}`);
    }
  }

  async #writeFiles(programs: Programs, account: Account): Promise<void> {
    const { dir, legacy } = this.#options;
    try {
      for (const it of [dir, join(dir, "open")]) await removeTemporaries(it);
      if (account.isRoot) await fs.mkdir("/run/sshd", { recursive: true, mode: 0o755 });
      await writeDurable(join(dir, "enter"), enterScript(dir, programs), 0o700);
      if (legacy) await writeDurable(join(dir, "enter-legacy"), legacyScript(dir, programs), 0o700);
      else await removeFile(join(dir, "enter-legacy"));
      await writeDurable(join(dir, "sshd_config"), sshdConfig(dir, account, await isStrict(dir), legacy), 0o600);
      if (!existsSync(join(dir, "authorized_keys"))) await writeDurable(join(dir, "authorized_keys"), "", 0o600);
    } catch (error) {
      throw faultOfErrno(error, `cannot write in ${dir}`);
    }
  }

  /** Those that sshd knows: written by `setKeys`, at any time. */
  async #keysOfBefore(): Promise<ReadonlyMap<string, string>> {
    const text = await fs.readFile(join(this.#options.dir, "authorized_keys"), "utf8");
    return new Map(
      [...text.matchAll(/ (ssh-(?:ed25519|rsa) [A-Za-z0-9+/]+=*) ([a-z0-9-]+)$/gm)].map(([, key = "", vehicle = ""]) => [
        anyKeyOf(key).fingerprint,
        vehicle,
      ]),
    );
  }

  /** Made once; its private part never leaves its file. */
  async #readHostKey(signal: AbortSignal): Promise<Key> {
    const file = join(this.#options.dir, "host_key");
    if (!existsSync(file)) {
      const fresh = `${file}.new`;
      for (const it of [fresh, `${fresh}.pub`]) await removeFile(it);
      const made = await runCommand("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", fresh], programMs, signal);
      throwIfAborted(signal);
      if (made.code !== 0) throw new Fault("transient", `no host key could be made: ${made.complaint}`);
      // Before that has its name: afterwards nobody looks for it.
      await removeFile(`${fresh}.pub`);
      // ssh-keygen syncs nothing, and vehicles believe no other one.
      await syncFound(fresh);
      await renameDurable(fresh, file);
    }
    const { code, out, complaint } = await runCommand("ssh-keygen", ["-y", "-P", "", "-f", file], programMs, signal);
    throwIfAborted(signal);
    if (code !== 0)
      throw new Fault(
        "config",
        `the host key ${file} cannot be used (${complaint}): put it back from a backup; without one take it away, and tell the new one to every vehicle`,
      );
    return keyOf(out);
  }

  #warnedSinceMs = -Infinity;
  #warned = 0;

  /** Of what anybody can bring about, as often as they like. */
  #warn(message: string, facts: Readonly<Record<string, unknown>>): void {
    const nowMs = this.#context.clock.monotonicMs();
    if (nowMs - this.#warnedSinceMs >= warningsMs) {
      const untold = this.#warned - mostWarnings;
      if (untold > 0) this.#context.say("warn", `${untold} more warnings about connections of vehicles were left out`, { untold });
      this.#warnedSinceMs = nowMs;
      this.#warned = 0;
    }
    this.#warned += 1;
    if (this.#warned <= mostWarnings) this.#context.say("warn", message, facts);
  }
}

/** The oldest of the network that has most: a flood from one place does not drive out the others. */
function oldestOfMost(strangers: readonly Connection[]): Connection | undefined {
  const counts = new Map<string, number>();
  for (const { address } of strangers) counts.set(whose(address), (counts.get(whose(address)) ?? 0) + 1);
  const most = Math.max(...counts.values());
  return strangers.find((it) => counts.get(whose(it.address)) === most);
}

function expectVehicle(vehicle: string): void {
  if (!isVehicleId(vehicle)) throw new Fault("config", `${JSON.stringify(vehicle)} is no id of a vehicle`);
}

function expectPlain(dir: string): void {
  if (!isPlainPath(dir)) throw new Fault("config", `${dir} cannot be used here: it has quotes, backslashes or percent signs in it`);
}

/** One line, and no longer than a person reads. */
function printable(text: string): string {
  return text.replaceAll(/[^ -~]/g, "?").slice(0, 300);
}

const packages: Readonly<Record<string, string>> = {
  sshd: "openssh-server",
  "ssh-keygen": "openssh-client",
  rsync: "rsync",
  rrsync: "rsync",
  python3: "python3",
  flock: "util-linux",
};

/** Throws "config". */
async function programsHere(legacy: boolean, signal: AbortSignal): Promise<Programs> {
  const find = async (name: string, ...places: readonly string[]): Promise<string> => {
    const place = places.find((it) => existsSync(it));
    if (place !== undefined) return place;
    const { code, out } = await runCommand("sh", ["-c", 'command -v "$1"', "sh", name], programMs, signal);
    throwIfAborted(signal);
    if (code === 0 && out.startsWith("/")) return out.trim();
    const pack = packages[name] ?? name;
    throw new Fault("config", `vehicles cannot come in without ${name}: install the package ${pack} ("apt install ${pack}")`);
  };
  const sshd = await find("sshd", "/usr/sbin/sshd");
  const rsync = await find("rsync");
  for (const name of ["ssh-keygen", "python3", ...(legacy ? ["flock"] : [])]) await find(name);
  const rrsync = await find("rrsync", "/usr/bin/rrsync", "/usr/share/rsync/scripts/rrsync");
  const { out, complaint } = await runCommand(rrsync, ["-help"], programMs, signal);
  throwIfAborted(signal);
  if (!["-wo", "-no-del", "-munge"].every((option) => out.includes(`[${option}`) || out.includes(` ${option} `)))
    throw new Fault("config", `${rrsync} is too old or does not run (${complaint}): it is wanted as rsync 3.2.7 has it (Debian 12)`);
  const { code } = await runCommand(rsync, ["--drop-D", "--confine-root=/", "--version"], programMs, signal);
  throwIfAborted(signal);
  return { sshd, rrsync, rsync, confines: code === 0 };
}

/** Throws "config". */
function accountHere(): Account & { readonly shell: string } {
  try {
    const { username: name, uid, shell } = userInfo();
    if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$/.test(name)) throw new Fault("config", `vehicles cannot log in as ${JSON.stringify(name)}`);
    return { name, isRoot: uid === 0, shell: shell === null || shell === "" ? "/bin/sh" : shell };
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault("config", "the user that this program runs as has no account of this machine, so nobody can log in to it", {
      cause: error,
    });
  }
}

/** sshd gives each command to the account's shell. `dir`: the door's, with its files. Throws "config". */
async function expectShell(
  { name, shell }: { readonly name: string; readonly shell: string },
  dir: string | undefined,
  signal: AbortSignal,
) {
  const command = dir === undefined ? `exec /bin/sh -c 'exit ${readyCode}'` : `exec /bin/sh '${dir}/enter'`;
  const { code, complaint } = ["nologin", "false"].includes(basename(shell))
    ? { code: 1, complaint: "it lets nobody in" }
    : await runCommand(shell, ["-c", command], programMs, signal);
  throwIfAborted(signal);
  if (code !== readyCode)
    throw new Fault(
      "config",
      `vehicles cannot log in as ${name}: its shell, ${shell}, runs no command (${complaint}); "usermod --shell /bin/sh ${shellWord(name)}" changes that (no password is needed, and none is set)`,
    );
}

/** Whether sshd's own look at who may write above its files would pass: nobody but root and this user. It does not know that others cannot rename in /tmp. */
async function isStrict(dir: string): Promise<boolean> {
  const own = userInfo().uid;
  for (let at = realOf(dir); ; at = dirname(at)) {
    const { uid, mode } = await fs.stat(at);
    if ((uid !== 0 && uid !== own) || (mode & 0o022) !== 0) return false;
    if (at === "/") return true;
  }
}
