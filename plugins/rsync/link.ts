/**
 * One connection to the server, which ssh holds and all that runs shares (ControlMaster): a handshake costs more than a small file. Whether commands are
 * allowed there is found out with each login.
 *
 * What it needs on this machine (ssh's configuration, the socket, the host keys that are believed, stages) is in a directory of this process below
 * the device's; those that killed processes left are removed.
 */
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { codeOf, Fault, isFault, orAborted } from "../../core/errors.js";
import { sshDoor } from "../../core/host-key.js";
import { hostAndPort } from "../../core/net.js";
import type { PluginContext } from "../../core/plugin.js";
import { unlessStranger } from "../../core/stranger.js";
import { Children, endGroup, tailOf, type Child } from "./children.js";
import type { FarEnd } from "./far.js";
import { FarRsync } from "./far-rsync.js";
import { FarShell } from "./far-shell.js";
import { rsyncFault } from "./faults.js";
import { hostAlias, writeHostKeys } from "./host-keys.js";
import { expectKeyFile, notLetIn } from "./keys.js";
import type { RsyncOptions } from "./options.js";
import { Rsync } from "./rsync.js";
import { Shell } from "./shell.js";

/** What a socket's path may take, less what ssh appends while it makes it. */
const mostSocketBytes = 108 - 20;
/** Where the connection that is shared has just gone ssh makes one of its own, and the word that tells of a login would stand before what rsync says. */
const quiet = ["-o", "PermitLocalCommand=no"];
/**
 * So many timeouts pass before ssh gives up: its question waits behind what goes before it over a slow link. Sooner, rsync notices that no byte moves, and who
 * asks a shell that no answer comes.
 */
const aliveTimeouts = 10;
/** A shell that says nothing for so long is none. */
const shellMs = 10_000;

// ssh ends when this process does: its stdin closes. `-N` alone would stay for ever.
const leash = `exec 3<&0; "$@" 3<&- </dev/null & p=$!; { cat <&3 >/dev/null; kill $p 2>/dev/null; } & wait $p; s=$?; exit $s`;

export interface Login {
  readonly rsync: Rsync;
  readonly far: FarEnd;
}

interface Held extends Login {
  readonly closed: boolean;
  end(): Promise<void>;
}

let links = 0;

export class Link {
  readonly #options: RsyncOptions;
  readonly #context: PluginContext;
  readonly #commands: boolean;
  readonly #children = new Children();
  readonly #stop = new AbortController();
  readonly #name = `run-${process.pid}-${++links}`;
  #dirs: Promise<{ readonly own: string; readonly socket: string }> | undefined;
  #login: Promise<Held> | undefined;
  #rsyncAlone = false;

  /** `commands` false: it is known that only rsync may run there. */
  constructor(options: RsyncOptions, context: PluginContext, commands = true) {
    this.#options = options;
    this.#context = context;
    this.#commands = commands;
  }

  /** Whether only rsync may run there, as the last login found. */
  get rsyncAlone(): boolean {
    return this.#rsyncAlone;
  }

  /** Throws "offline", "denied", "config", "transient". */
  async login(signal: AbortSignal): Promise<Login> {
    for (;;) {
      const opening = (this.#login ??= this.#open());
      let held: Held;
      try {
        held = await orAborted(opening, signal);
      } catch (error) {
        if (!signal.aborted && this.#login === opening) this.#login = undefined;
        throw error;
      }
      if (!held.closed) return held;
      if (this.#login === opening) this.#login = undefined;
      await held.end();
    }
  }

  async close(): Promise<void> {
    this.#stop.abort(new Fault("aborted", "the device is closed"));
    await this.#children.close();
    const dirs = await this.#dirs?.catch(() => undefined);
    if (dirs === undefined) return;
    await rm(dirs.own, { recursive: true, force: true });
    await rm(dirs.socket, { recursive: true, force: true });
  }

  async #open(): Promise<Held> {
    await expectKeyFile(this.#options);
    const { own, socket } = await (this.#dirs ??= this.#makeDirs());
    const hostKeys = join(this.#context.stateDir, "known_hosts");
    const config = join(own, "ssh_config");
    await writeFile(config, this.#sshConfig(hostKeys, join(socket, "s")), { mode: 0o600 });
    const master = await unlessStranger(sshDoor(this.#options), this.#stop.signal, (signal) => this.#letIn(config, hostKeys, signal));
    try {
      return await this.#started(master, config, own);
    } catch (error) {
      await endGroup(master);
      throw error;
    }
  }

  async #letIn(config: string, hostKeys: string, signal: AbortSignal): Promise<Child> {
    const keys = await writeHostKeys(hostKeys, this.#options, this.#children, signal, false);
    if (keys.objection !== undefined) throw new Fault("denied", keys.objection);
    try {
      return await this.#connect(config, signal);
    } catch (error) {
      if (!isFault(error, "denied") || signal.aborted) throw error;
      const now = await writeHostKeys(hostKeys, this.#options, this.#children, signal, true);
      if (now.objection !== undefined) throw new Fault("denied", now.objection, { cause: error });
      if (!now.any) {
        const place = hostAndPort(this.#options.host, this.#options.port);
        throw new Fault("offline", `${place} shows no host key: it takes no connection now`, { cause: error });
      }
      // It has another key that is believed too.
      if (/host key/.test(error.message)) return await this.#connect(config, signal);
      throw await notLetIn(this.#options, error, this.#children, signal);
    }
  }

  /** Resolves when the user was let in. */
  async #connect(config: string, signal: AbortSignal): Promise<Child> {
    const master = this.#children.start(["sh", "-c", leash, "leash", "ssh", "-F", config, "-MN", hostAlias]);
    const err = tailOf(master);
    const ended = new Promise<number | undefined>((resolve) => {
      master.stdout.once("data", () => resolve(undefined));
      master.once("close", (status: number | null) => resolve(status ?? 255));
      master.once("error", () => resolve(127));
    });
    const code = await orAborted(ended, signal).catch(async (error: unknown) => {
      await endGroup(master);
      throw error;
    });
    if (code === undefined) return master;
    throw rsyncFault("cannot log in", { code, err: err() }, true);
  }

  async #started(master: Child, config: string, own: string): Promise<Held> {
    const root = this.#root();
    const place = { ssh: `ssh -F "${config}" ${quiet.join(" ")}`, to: `${hostAlias}:${root}/` };
    const rsync = new Rsync(this.#options, this.#children, place, own, this.#context.maxRate !== undefined);
    const far = this.#commands
      ? await this.#farShell(() => new Shell(this.#children, ["ssh", "-F", config, ...quiet, hostAlias], () => rsync.runs > 0), root)
      : undefined;
    this.#rsyncAlone = far === undefined;
    rsync.oneAtATime = far === undefined;
    this.#context.say("debug", `looks, proves and publishes by ${(far ?? { way: "rsync alone" }).way}`);
    return {
      rsync,
      far: far ?? new FarRsync(rsync),
      get closed() {
        return master.exitCode !== null || master.signalCode !== null || far?.closed === true;
      },
      end: async () => {
        await Promise.all([endGroup(master), far?.end()]);
      },
    };
  }

  /** undefined: only rsync may, or can, run there. */
  async #farShell(open: () => Shell, root: string): Promise<FarShell | undefined> {
    const shell = open();
    // Where a user may not write to /dev/null (it happens), what the shell is asked cannot be answered.
    const answer = await shell
      .ask('if ! command -v rsync; then echo none; elif [ -w /dev/null ]; then echo "rsync $S"; fi', shellMs)
      .catch(() => "");
    if (answer.trimEnd().endsWith("none"))
      throw new Fault("config", "rsync is not installed on the server, or not found by its shells: apt install rsync there");
    if (/rsync sha/.test(answer)) return new FarShell(shell, open, root, this.#options.timeout);
    await shell.end();
    return undefined;
  }

  /** As the server's shells take it: below the login directory without a leading "/". */
  #root(): string {
    const bare = this.#options.root.replace(/(?<=.)\/+$/, "");
    if (bare === "" || bare === ".") return ".";
    return bare.startsWith("/") || bare.startsWith("./") ? bare : `./${bare}`;
  }

  async #makeDirs(): Promise<{ own: string; socket: string }> {
    const { stateDir } = this.#context;
    await mkdir(stateDir, { recursive: true });
    for (const name of await readdir(stateDir)) {
      const pid = /^run-(\d+)-\d+$/.exec(name)?.[1];
      const left = name === this.#name || (pid !== undefined && Number(pid) !== process.pid && !isRunning(Number(pid)));
      if (left) await rm(join(stateDir, name), { recursive: true, force: true });
    }
    const own = join(stateDir, this.#name);
    await mkdir(own, { mode: 0o700 });
    const fits = Buffer.byteLength(join(own, "s")) <= mostSocketBytes;
    return { own, socket: fits ? own : await mkdtemp(join(tmpdir(), "filesync-")) };
  }

  #sshConfig(hostKeys: string, socket: string): string {
    const { host, port, user, privateKey, agent, timeout } = this.#options;
    const seconds = Math.max(1, Math.ceil(timeout / 1000));
    return [
      `Host ${hostAlias}`,
      `HostName ${host.replaceAll("%", "%%")}`,
      `HostKeyAlias ${hostAlias}`,
      `Port ${port}`,
      `User ${user}`,
      `IdentityFile ${privateKey === undefined ? "none" : inConfig(privateKey)}`,
      `IdentityAgent ${agent === undefined ? "none" : inConfig(agent)}`,
      `IdentitiesOnly ${privateKey === undefined ? "no" : "yes"}`,
      "BatchMode yes",
      "StrictHostKeyChecking yes",
      "UpdateHostKeys no",
      `UserKnownHostsFile ${inConfig(hostKeys)}`,
      "GlobalKnownHostsFile none",
      `ConnectTimeout ${seconds}`,
      `ServerAliveInterval ${Math.max(1, Math.floor(seconds / 3))}`,
      `ServerAliveCountMax ${3 * aliveTimeouts}`,
      "ControlMaster no",
      `ControlPath ${inConfig(socket)}`,
      "PermitLocalCommand yes",
      "LocalCommand echo in",
      "ForwardAgent no",
      "ForwardX11 no",
      "ClearAllForwardings yes",
      "RequestTTY no",
      "",
    ].join("\n");
  }
}

function inConfig(path: string): string {
  if (/["\n]|\$\{/.test(path)) throw new Fault("config", `ssh takes no path with quotes or "\${" in it: ${path}`);
  return `"${path.replaceAll("%", "%%")}"`;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Another user's is there all the same.
    return codeOf(error) !== "ESRCH";
  }
}
