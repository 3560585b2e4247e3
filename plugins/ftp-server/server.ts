/**
 * The FTP server as a Service: its port, its connections and their limits, its users' trees.
 *
 * `start` makes the directories, reads the certificate and opens the port; `close` ends all connections and waits for what they were
 * writing. A connection over a limit is told 421 and costs nothing more.
 */
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { join } from "node:path";
import type { SecureContext } from "node:tls";
import { BehaviorSubject } from "../../core/rxjs.js";
import { CertificateFiles } from "../../core/certificate-files.js";
import { Fault, faultOfErrno, isFault, throwIfAborted } from "../../core/errors.js";
import { expectOutside, freeBytesAt } from "../../core/fs.js";
import { hostAndPort, listening } from "../../core/net.js";
import { OnMount } from "../../core/on-mount.js";
import type { Level, PluginContext, Presence, Service, Tree } from "../../core/plugin.js";
import { expectWritable } from "../../core/rights.js";
import { accessVerbs } from "./commands-access.js";
import { fileVerbs } from "./commands-files.js";
import { transferVerbs } from "./commands-transfer.js";
import { Doorkeeper } from "./doorkeeper.js";
import { Inbox } from "./inbox.js";
import { InboxTree } from "./inbox-tree.js";
import type { FtpServerOptions, User } from "./options.js";
import { plainAddress, Ports } from "./passive.js";
import { fileError, Root } from "./root.js";
import { Session, type Login, type Verbs } from "./session.js";
import { Synced, Writers, type Shared } from "./shared.js";
import { UsersFile } from "./users-file.js";

/** Who is taken out of the users' file is logged out within a second. */
const lookEveryMs = 500;

const plain: Verbs = { ...accessVerbs, ...fileVerbs, ...transferVerbs };
/** The old names of RFC 775, which some clients still send. */
const old: Readonly<Record<string, string>> = { XPWD: "PWD", XCWD: "CWD", XCUP: "CDUP", XMKD: "MKD", XRMD: "RMD" };
const verbs: Verbs = {
  ...plain,
  ...Object.fromEntries(Object.entries(old).flatMap(([name, now]) => (plain[now] === undefined ? [] : [[name, plain[now]]]))),
};

/** For so long a connection is nobody's to take: a login over a slow link, with TLS. */
const loginGraceMs = 5000;

/** More than so many are counted anew: a flood from many addresses costs no memory. */
const mostCounted = 1000;

/** In an hour so many different complaints are said. */
const mostComplaints = 100;
const hourMs = 3_600_000;

function countIn(counts: Map<string, number>, key: string): number {
  if (counts.size >= mostCounted && !counts.has(key)) counts.clear();
  const count = (counts.get(key) ?? 0) + 1;
  counts.set(key, count);
  return count;
}

export class FtpServer implements Service, Shared {
  readonly options: FtpServerOptions;
  readonly presence$: BehaviorSubject<Presence>;
  readonly writers = new Writers();
  readonly synced = new Synced();
  readonly ports: Ports;
  readonly doorkeeper: Doorkeeper;
  readonly arrivals: Inbox;
  readonly tree: Tree;
  readonly verbs: readonly (readonly [string, string | undefined])[];
  readonly #context: PluginContext;
  readonly #mount: OnMount;
  #unwatch: (() => void) | undefined;
  /** Of users of the configuration. */
  readonly #roots = new Map<string, Root>();
  readonly #usersFile: UsersFile | undefined;
  readonly #certificate: CertificateFiles | undefined;
  #watching: NodeJS.Timeout | undefined;
  readonly #sessions = new Map<Session, Promise<void>>();
  readonly #logins = new Map<string, number>();
  /** All connections, also those that were refused and are being told so. */
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #closed = false;

  constructor(options: FtpServerOptions, context: PluginContext) {
    this.options = options;
    this.#context = context;
    this.#mount = new OnMount(options.root, options.mounted, context.memory);
    this.ports = new Ports(options.passivePorts);
    this.doorkeeper = new Doorkeeper(context.clock);
    this.arrivals = new Inbox(context, this.writers);
    const { users, usersFile, tls } = options;
    if (tls !== undefined) this.#certificate = new CertificateFiles(tls.cert, tls.key);
    if (usersFile !== undefined) this.#usersFile = new UsersFile(usersFile, new Set(Object.keys(users)), (...said) => this.say(...said));
    this.tree = new InboxTree(this.arrivals);
    this.presence$ = new BehaviorSubject<Presence>({ state: "detached", reason: "the FTP server is not started" });
    this.verbs = Object.entries(plain)
      .map(([name, verb]) => [name, verb.words] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1));
  }

  get clock(): PluginContext["clock"] {
    return this.#context.clock;
  }

  get source(): Inbox {
    return this.arrivals;
  }

  /** The port that it listens on; undefined before `start` and after `close`. */
  get port(): number | undefined {
    return (this.#server?.address() as AddressInfo | null | undefined)?.port;
  }

  async start(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    if (this.#closed) throw new Fault("aborted", "the FTP server was closed");
    if (this.#server !== undefined) return;
    await this.#mount.expectHere();
    const root = await this.#openRoots();
    this.#expectApart();
    const fingerprint = (await this.#certificate?.read())?.fingerprint;
    // What is wrong with it is said before somebody wants to log in.
    await this.#usersFile?.look();
    throwIfAborted(signal);
    const { host, port } = this.options.listen;
    const server = createServer({ noDelay: true }, (socket) => this.#welcome(socket));
    await listening(server, this.options.listen);
    server.on("error", (error) => this.say("error", `the FTP port: ${error.message}`, {}));
    this.#server = server;
    this.arrivals.begin(root);
    const certificate = fingerprint === undefined ? "" : `; the fingerprint of its certificate is ${fingerprint}`;
    this.say("info", `FTP server listens on ${hostAndPort(host, this.port ?? port)}${certificate}`, {
      host,
      port: this.port,
      ...(fingerprint === undefined ? {} : { fingerprint }),
    });
    this.#unwatch = this.#mount.watch(`listening-${this.port ?? port}`, (presence) => this.presence$.next(presence));
  }

  async probeStart(signal: AbortSignal): Promise<void> {
    await this.#mount.expectHere();
    const { root, users } = this.options;
    for (const [name, { root: dir = name, write }] of Object.entries(users)) {
      throwIfAborted(signal);
      if (!write) continue;
      await expectWritable(join(root, dir), `${name} could not write in ${join(root, dir)}`);
    }
    this.#expectApart();
    await this.#certificate?.read();
    throwIfAborted(signal);
    const server = createServer((socket) => socket.destroy());
    await listening(server, this.options.listen);
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  async probe(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    if (this.#server === undefined) throw new Fault("offline", "the FTP server is not started");
    await this.#mount.expectHere();
  }

  async room(signal: AbortSignal): Promise<number> {
    throwIfAborted(signal);
    return freeBytesAt(this.options.root);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#unwatch?.();
    clearTimeout(this.#watching);
    const server = this.#server;
    this.#server = undefined;
    const ending = [...this.#sessions.values()];
    if (server !== undefined) {
      ending.push(new Promise((resolve) => server.close(() => resolve())));
      this.presence$.next({ state: "detached", reason: "the FTP server was stopped" });
    }
    for (const session of this.#sessions.keys()) session.close();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(ending);
    await this.arrivals.close();
    this.presence$.complete();
  }

  say(level: Level, message: string, facts: Readonly<Record<string, unknown>>): void {
    this.#context.say(level, message, facts);
  }

  readonly #complaints = new Map<string, number>();
  #complainingSinceMs = -Infinity;

  complain(message: string, facts: Readonly<Record<string, unknown>>): void {
    const now = this.clock.monotonicMs();
    if (now - this.#complainingSinceMs >= hourMs) {
      this.#complaints.clear();
      this.#complainingSinceMs = now;
    }
    const isNew = !this.#complaints.has(message);
    if (isNew && this.#complaints.size > mostComplaints) return;
    if (isNew && this.#complaints.size === mostComplaints) {
      this.#complaints.set("", 0);
      this.say("warn", `${message}; others like it, of other addresses too, are not told for the rest of an hour`, facts);
      return;
    }
    const count = countIn(this.#complaints, message);
    if (count === 1) this.say("warn", message, facts);
    else if (/^10+$/.test(`${count}`)) this.say("warn", `${message} (${count} times within an hour)`, { ...facts, count });
  }

  async userOf(name: string): Promise<User | undefined> {
    const { users } = this.options;
    return Object.hasOwn(users, name) ? users[name] : (await this.#usersFile?.look())?.get(name);
  }

  async rootOf(name: string, { root = name }: User): Promise<Root> {
    await this.#expectHere();
    return this.#roots.get(name) ?? this.arrivals.root.below(root);
  }

  admit(login: Login): boolean {
    const count = this.#logins.get(login.name) ?? 0;
    if (count >= this.options.limits.maxPerUser) return false;
    this.#logins.set(login.name, count + 1);
    return true;
  }

  leave(login: Login): void {
    const count = (this.#logins.get(login.name) ?? 1) - 1;
    if (count > 0) this.#logins.set(login.name, count);
    else this.#logins.delete(login.name);
  }

  readonly #strangers = new Map<string, number>();
  readonly #visits = new Map<string, number>();
  /** Since the last one that was let in. */
  #refused = 0;

  #welcome(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    const address = plainAddress(socket.remoteAddress);
    if (this.#closed || !this.#hasRoom(address)) {
      // Said once until there is room again: a thousand of them must not fill the log.
      this.#refused += 1;
      if (this.#refused === 1) this.complain(`connection from ${address} refused: too many connections`, { address });
      socket.on("error", () => socket.destroy());
      socket.setTimeout(2000, () => socket.destroy());
      socket.resume().end("421 Too many connections; try again later.\r\n", () => socket.destroySoon());
      return;
    }
    if (this.#refused > 1) this.say("debug", `${this.#refused} connections were refused in all; there is room again`, {});
    this.#refused = 0;
    const session = new Session(socket, this, verbs);
    const running = session.run().finally(() => {
      this.#sessions.delete(session);
      if (session.user !== undefined) this.leave(session.user);
      else this.#stranger(address);
    });
    this.#sessions.set(session, running);
  }

  /** Where it is full, who has not logged in for longest makes room: whoever only connects keeps nobody out. */
  #hasRoom(address: string): boolean {
    const { maxConnections, maxPerAddress } = this.options.limits;
    const open = [...this.#sessions.keys()].filter(({ ended }) => !ended.aborted);
    const sameAddress = open.filter((session) => session.address === address);
    const crowd = sameAddress.length >= maxPerAddress ? sameAddress : open.length >= maxConnections ? open : undefined;
    if (crowd === undefined) return true;
    const latestMs = this.clock.monotonicMs() - loginGraceMs;
    const idle = crowd.find(({ user, sinceMs }) => user === undefined && sinceMs <= latestMs);
    idle?.dismiss("Others wait for this connection: log in sooner.");
    idle?.close();
    return idle !== undefined;
  }

  /** A client opens several connections for each file: the first of them is news, and after that the tenth, the hundredth, … */
  loggedIn({ name }: Login, { address, secure }: { readonly address: string; readonly secure: boolean }): void {
    if (!Object.hasOwn(this.options.users, name)) this.#watch();
    const count = countIn(this.#visits, `${name}\0${address}\0${secure}`);
    const facts = { user: name, address, tls: secure, count };
    if (count > 1 && /^10+$/.test(`${count}`)) this.say("info", `${name} has logged in from ${address} ${count} times`, facts);
    else this.say(count === 1 ? "info" : "debug", `${name} logged in from ${address}`, facts);
  }

  /** While users of the file are logged in it is looked at. */
  #watch(): void {
    if (this.#closed) return;
    this.#watching ??= setTimeout(() => void this.#lookAfter(), lookEveryMs);
  }

  /** Who was taken out of the file, or is another by it now, is logged out; other rights hold from now on. */
  async #lookAfter(): Promise<void> {
    const users = await this.#usersFile?.look();
    this.#watching = undefined;
    for (const session of this.#sessions.keys()) {
      const { user } = session;
      if (user === undefined || Object.hasOwn(this.options.users, user.name)) continue;
      const now = users?.get(user.name);
      const why =
        now === undefined
          ? "This account, or its password, was taken away by the operator of this server."
          : now.passwordHash !== user.rights.passwordHash
            ? "The password of this account was changed: log in with the new one."
            : now.root !== user.rights.root
              ? "The directory of this account was changed: log in again."
              : undefined;
      if (why === undefined) {
        if (now !== undefined && now !== user.rights) session.user = { ...user, rights: now };
        this.#watch();
      } else {
        this.say("info", `${user.name} from ${session.address} is logged out: ${why}`, { user: user.name, address: session.address });
        session.dismiss(why);
      }
    }
  }

  /** One that never logged in may be a probe of a monitor; ten are a scan, or a client that is set up wrong. */
  #stranger(address: string): void {
    const count = countIn(this.#strangers, address);
    if (/^10+$/.test(`${count}`)) this.say("warn", `${count} connections from ${address} have ended without a login`, { address, count });
  }

  /** It may be unmounted while it is served. Throws ENODEV. */
  async #expectHere(): Promise<void> {
    await this.#mount.expectHere().catch((error: unknown) => {
      if (!isFault(error)) throw error;
      const away = error.message;
      this.complain(away, {});
      throw fileError("ENODEV", away);
    });
  }

  async #openRoots(): Promise<Root> {
    try {
      const onAnew = (dir: string) => this.say("warn", `${dir} was removed, and is made anew`, { dir });
      const root = await Root.open(this.options.root, () => this.#expectHere(), onAnew);
      for (const [name, user] of Object.entries(this.options.users)) this.#roots.set(name, await root.below(user.root ?? name, onAnew));
      return root;
    } catch (error) {
      throw faultOfErrno(error, `cannot use the FTP server's root ${this.options.root}`);
    }
  }

  /** Throws "config". */
  #expectApart(): void {
    const { root, usersFile } = this.options;
    if (usersFile !== undefined) expectOutside("the users' file", usersFile, root);
  }

  async secureContext(): Promise<SecureContext | undefined> {
    return (await this.#certificate?.renewed((...said) => this.#context.say(...said)))?.context;
  }
}
