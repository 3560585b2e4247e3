/** One tree behind one relay, served by whichever FTP server runs just now: ours, vsftpd, ProFTPD or Pure-FTPd, all as the same user. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  ended,
  password,
  proftpdServer,
  pureFtpdServer,
  startSystem,
  systemUser,
  vsftpdServer,
  type SystemServer,
  type SystemUser,
} from "../../conformance/ftp-servers.js";
import { Program } from "../process.js";
import type { Place } from "./place.js";
import { RoughRelay } from "./relay.js";

export const isRoot = process.getuid?.() === 0;

const kinds = new Map<string, SystemServer | undefined>([
  ["own", undefined],
  ["vsftpd", vsftpdServer],
  ["proftpd", proftpdServer],
  ["pure-ftpd", pureFtpdServer],
]);

export class Served implements Place {
  kind = "own";
  #stop: (() => Promise<void>) | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(
    readonly name: string,
    /** What the user sees as "/". */
    readonly root: string,
    readonly base: string,
    readonly relay: RoughRelay,
    readonly user: SystemUser | undefined,
  ) {}

  /** `root` exists. Anybody may enter it: its server runs as an ordinary user where there is one. */
  static async start(name: string, root: string, base: string, faults: () => number): Promise<Served> {
    mkdirSync(base, { recursive: true });
    const user = isRoot ? await systemUser(root) : undefined;
    const served = new Served(
      name,
      root,
      base,
      await RoughRelay.start(1, faults, (path) => statSync(join(root, path), { throwIfNoEntry: false })?.size ?? 0),
      user,
    );
    await served.run("own");
    return served;
  }

  get kinds(): string[] {
    return [...kinds].filter(([, server]) => server === undefined || (isRoot && existsSync(server.program))).map(([kind]) => kind);
  }

  get device(): Record<string, unknown> {
    return { type: "ftp", host: "127.0.0.1", port: this.relay.port, ...this.login };
  }

  get login(): { user: string; password: string } {
    return { user: this.user?.name ?? "plane", password };
  }

  /** Starts a server; one that runs is killed first. One after another, whoever asks. */
  async run(kind: string): Promise<void> {
    await this.#next(async () => {
      await this.#kill();
      const server = kinds.get(kind);
      this.relay.toPort = server === undefined ? await this.#own() : await this.#system(server);
      this.kind = kind;
    });
  }

  /** Killed; every connection to it is reset. */
  async kill(): Promise<void> {
    await this.#next(() => this.#kill());
  }

  async close(): Promise<void> {
    await this.kill();
    await this.relay.close();
    await this.user?.remove();
  }

  #next(work: () => Promise<void>): Promise<void> {
    const mine = this.#turn.then(work);
    this.#turn = mine.catch(() => undefined);
    return mine;
  }

  async #kill(): Promise<void> {
    this.relay.toPort = 1;
    await this.#stop?.();
    this.#stop = undefined;
    this.relay.cut();
  }

  async #own(): Promise<number> {
    const dir = mkdtempSync(join(this.base, "own-"));
    const { user, password } = this.login;
    const config = join(dir, "ground.json");
    writeFileSync(
      config,
      JSON.stringify({
        vehicle: "ground",
        stateDir: "state",
        spool: { keepFree: "1MiB" },
        services: {
          ftp: {
            type: "ftp-server",
            listen: "127.0.0.1:0",
            root: this.root,
            users: { [user]: { password, root: "." } },
            limits: { maxPerAddress: 64, maxPerUser: 64, stall: "10s" },
          },
        },
      }),
    );
    let ids = {};
    if (this.user !== undefined) {
      const [uid, gid] = ["-u", "-g"].map((flag) => Number(execFileSync("id", [flag, user], { encoding: "utf8" })));
      execFileSync("chown", ["-R", `${uid}:${gid}`, dir]);
      ids = { uid, gid };
    }
    const program = new Program(["run", "--json", "--config", config], ids);
    this.#stop = () => program.kill();
    const event = await program.until(({ message }) => /listens on 127\.0\.0\.1:\d+/.test(message), "listening");
    return Number(/:(\d+)$/.exec(event.message)?.[1]);
  }

  async #system(server: SystemServer): Promise<number> {
    const dir = mkdtempSync(join(this.base, "system-"));
    const { port, child } = await startSystem(server, dir, this.login.user);
    this.#stop = () => ended(child);
    return port;
  }
}
