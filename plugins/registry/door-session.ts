/**
 * One connection of the door: an sshd of its own, in a process group of its own, that has the socket. It ends with this process, however that ends.
 *
 * Which key came in is read from its log. What a client says may stand there too, with line ends in it (sshd leaves them as they are on stderr): a line of a form that is
 * not known may have been followed by lines that the client made up. So only lines in which nothing is a client's to choose may come before the
 * login, and after it nothing is believed.
 */
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import { connectionMark, doorMark, signal, type Sessions } from "./door-processes.js";

/** A second bound beside sshd's own `LoginGraceTime`. */
const loginMs = 25_000;
const longestLine = 4096;
/** What sshd still says when it has ended. */
const tailMs = 500;

/**
 * A shell that becomes sshd. Beside it one waits for the end of a pipe that this process holds, and takes the group with it: that is seen however this process ends. (A signal at the
 * parent's death would reach only one of sshd's two processes, and what asks for it wants rights that the unit of a service may not have.)
 */
const leader = `{ read -r _ <&3; kill -KILL 0; } <&- >&- 2>&- &
exec "$@" 3<&-`;

export interface Keeper {
  readonly sshd: string;
  readonly config: string;
  /** The account that vehicles log in to. */
  readonly user: string;
  readonly sessions: Sessions;
  /** A key was let in. False: it is nobody's (any more). */
  letIn(connection: Connection, fingerprint: string): boolean;
  keyRefused(connection: Connection, fingerprint: string): void;
  /** What an operator should hear of. */
  trouble(connection: Connection, text: string): void;
}

export class Connection {
  readonly id = randomUUID();
  readonly address: string;
  /** Once it has logged in. */
  vehicle: string | undefined;
  fingerprint: string | undefined;
  ending = false;
  /** Resolves once nothing of it is left. */
  readonly gone: Promise<void>;
  readonly #keeper: Keeper;
  readonly #forms: Forms;
  #group: number | undefined;
  #served = false;
  #strange: string | undefined;
  #grace: NodeJS.Timeout | undefined;

  /** The socket is closed here; the connection is sshd's from then on. */
  constructor(socket: Socket, keeper: Keeper) {
    this.#keeper = keeper;
    this.address = (socket.remoteAddress ?? "").replace(/^::ffff:(?=\d+\.)/, "");
    this.#forms = formsOf(keeper.user, socket.remotePort ?? 0);
    this.gone = this.#run(socket);
  }

  /** Nothing of it goes on. Resolves once nothing of it is left. */
  end(): Promise<void> {
    this.ending = true;
    if (this.#group !== undefined) signal(-this.#group, "SIGKILL");
    return this.gone;
  }

  async #run(socket: Socket): Promise<void> {
    const { sshd, config, sessions } = this.#keeper;
    // A bash that sshd starts reads the account's ~/.bashrc, unless it takes itself for a second one (bash, shell.c, run_startup_files): what that prints or waits for would keep every vehicle out.
    const marks = `SetEnv=${doorMark}="${sessions.dir}" ${connectionMark}=${this.id} SHLVL=1`;
    const words = ["-c", leader, "sh", sshd, "-i", "-e", "-f", config, "-o", marks];
    try {
      const child = spawn("/bin/sh", words, { stdio: [socket, socket, "pipe", "pipe"], detached: true, cwd: "/" });
      // Without a word to the other end: only this process's hold of it is given up.
      socket.destroy();
      if (child.pid === undefined) {
        const [error] = (await once(child, "error")) as [Error];
        throw error;
      }
      const group = child.pid;
      this.#group = group;
      this.#grace = setTimeout(() => void this.end(), loginMs);
      const [, , log, held] = child.stdio;
      this.#listen(log as Readable);
      held?.on("error", () => undefined);
      const closed = once(child, "close");
      await once(child, "exit");
      // One of sshd's two processes may be left, and who waits for our end is.
      signal(-group, "SIGKILL");
      const tail = setTimeout(() => (log as Readable).destroy(), tailMs);
      await closed;
      clearTimeout(tail);
      if (!this.#served && !this.ending) this.#keeper.trouble(this, this.#strange ?? "it ended without a word");
    } catch (error) {
      socket.destroy();
      this.#keeper.trouble(this, error instanceof Error ? error.message : String(error));
    } finally {
      clearTimeout(this.#grace);
      this.ending = true;
      this.#group = undefined;
    }
    // Only who logged in can have begun anything. What it began finds its pipes closed, but may be busy with what it has.
    if (this.vehicle !== undefined) await sessions.end(({ connection }) => connection === this.id);
  }

  #listen(log: Readable): void {
    let rest = "";
    log.setEncoding("latin1");
    log.on("error", () => undefined);
    log.on("data", (text: string) => {
      if (this.vehicle !== undefined) return;
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#read(line.replace(/\r$/, ""));
      if (rest.length > longestLine) {
        this.#strange ??= rest.slice(0, 200);
        rest = "";
      }
    });
  }

  #read(line: string): void {
    if (this.vehicle !== undefined || this.ending) return;
    const { accepted, failed, known, notAllowed } = this.#forms;
    const fingerprint = accepted.exec(line)?.[1];
    if (fingerprint !== undefined) this.#accept(fingerprint);
    if (this.#strange !== undefined) return;
    const refused = failed.exec(line)?.[1];
    if (refused !== undefined) this.#keeper.keyRefused(this, refused);
    else if (fingerprint === undefined && !known.test(line)) this.#strange = line;
    this.#served ||= line.startsWith("Connection from ");
    if (refusals.test(line) || notAllowed.test(line)) this.#keeper.trouble(this, line);
  }

  #accept(fingerprint: string): void {
    if (this.#strange !== undefined) {
      this.#keeper.trouble(this, `a login was not believed, because this was said before it: ${this.#strange}`);
      void this.end();
    } else if (this.#keeper.letIn(this, fingerprint)) clearTimeout(this.#grace);
    else void this.end();
  }
}

/** The door's own files, not a client's doing. */
const refusals = /^Authentication refused: /;

interface Forms {
  readonly accepted: RegExp;
  readonly failed: RegExp;
  /** Nothing in them is a client's to choose, but among words that sshd knows. */
  readonly known: RegExp;
  readonly notAllowed: RegExp;
}

function formsOf(user: string, port: number): Forms {
  const u = user.replaceAll(/[.$]/g, "\\$&");
  const from = `from [0-9A-Za-z.:%]+ port ${port}`;
  const key = "[A-Z0-9-]+ (SHA256:[A-Za-z0-9+/]{43})";
  const known = [
    `Connection ${from} on \\S+ port \\d+(?: rdomain ".*")?`,
    `Accepted key ${key} found at \\S.*:\\d+`,
    `Postponed publickey for ${u} ${from} ssh2`,
    `Failed [a-z-]+(?:/[a-z]+)? for ${u} ${from} ssh2`,
    "Root login accepted for forced command\\.",
    `userauth_pubkey: (?:key type|signature algorithm) [\\w.@-]+ not in PubkeyAcceptedAlgorithms`,
  ];
  return {
    accepted: new RegExp(`^Accepted publickey for ${u} ${from} ssh2: (?:ED25519|RSA) (SHA256:[A-Za-z0-9+/]{43})$`),
    failed: new RegExp(`^Failed publickey for ${u} ${from} ssh2: ${key}(?: \\[preauth\\])?$`),
    known: new RegExp(`^(?:${known.join("|")})(?: \\[preauth\\])?$`),
    notAllowed: new RegExp(`^User ${u} from \\S+ not allowed because `),
  };
}
