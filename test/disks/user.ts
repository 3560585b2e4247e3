/** An ordinary user in a laboratory of disks, and the helper that mounts for it, started as its unit says. */
import { execFileSync, spawnSync, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { mainJs, Program, runProgram } from "../faults/process.js";
import { World } from "../faults/world.js";
import { firstLine, gather } from "./children.js";
import { DiskLab } from "./lab.js";

const unit = new URL("../../../systemd/filesync-mount@.service", import.meta.url);
const socketJs = fileURLToPath(new URL("helper-socket.js", import.meta.url));
const socketPath = "/run/filesync/mount.sock";

export interface Helper {
  /** What the helpers wrote for the system's log. */
  readonly log: () => string;
  /** What is answered to this text, which is not ended by a line end of its own; `half`: the connection stays open. */
  ask(text: string | Buffer, half?: boolean): Promise<string>;
}

interface HelperOptions {
  /** UUIDs that are mounted from fixed disks, as which those of a laboratory are seen. */
  readonly fixed?: readonly string[];
  /** The uid of who asks, where it is not this user. */
  readonly asker?: number;
  /** Where programs are looked for. */
  readonly path?: string | undefined;
}

export class UserLab {
  static async open(t: TestContext): Promise<UserLab | undefined> {
    const lab = await DiskLab.open();
    if (typeof lab === "string") {
      t.skip(lab);
      return undefined;
    }
    const name = `fsdisk${randomBytes(4).toString("hex")}`;
    execFileSync("useradd", ["-M", "-U", "-d", "/nonexistent", "-s", "/usr/sbin/nologin", name]);
    const world = new World(t);
    t.after(async () => {
      await Program.killBelow(world.dir);
      await lab.close();
      execFileSync("userdel", [name]);
    });
    const id = (flag: string) => Number(execFileSync("id", [flag, name], { encoding: "utf8" }));
    return new UserLab(t, lab, world, name, id("-u"), id("-g"));
  }

  private constructor(
    readonly t: TestContext,
    readonly lab: DiskLab,
    readonly world: World,
    readonly name: string,
    readonly uid: number,
    readonly gid: number,
  ) {}

  /** The program as this user, whose the world is from now on. */
  start(config: string, env: NodeJS.ProcessEnv = process.env): Program {
    this.#own();
    const program = new Program(["run", "--json", "--config", config], { wrap: this.#wrap(), env });
    this.t.after(() => program.kill());
    return program;
  }

  run(args: readonly string[]): ReturnType<typeof runProgram> {
    this.#own();
    return runProgram(args, { wrap: this.#wrap() });
  }

  /** An empty directory of root's below /mnt, by this name. */
  mountPoint(name: string): string {
    const top = execFileSync("mktemp", ["-d", "/mnt/filesync-test-XXXXXX"], { encoding: "utf8" }).trim();
    execFileSync("sh", ["-c", `chmod 755 ${top} && mkdir -p ${top}/${name}`]);
    this.t.after(() => spawnSync("rm", ["-r", "--one-file-system", top]));
    return `${top}/${name}`;
  }

  async helper({ fixed = [], asker = this.uid, path = process.env["PATH"] }: HelperOptions = {}): Promise<Helper> {
    const { words, capabilities, environment } = unitOf(readFileSync(unit, "utf8"));
    const env = {
      ...environment,
      FILESYNC_MOUNT_USER: this.name,
      FILESYNC_MOUNT_ASKER: environment["FILESYNC_MOUNT_ASKER"]?.replace("%i", `3-4711-${asker}`),
      FILESYNC_MOUNT_FIXED: fixed.join(" "),
      PATH: path,
    };
    const bounded = ["setpriv", "--no-new-privs", "--bounding-set", ["-all", ...capabilities.map((name) => `+${name}`)].join(",")];
    const server: ChildProcess = this.lab.run(
      process.execPath,
      [socketJs, socketPath, String(this.gid), ...bounded, process.execPath, mainJs, ...words],
      { env },
    );
    const log = gather(server.stderr);
    const { line } = await firstLine(server);
    if (line !== "listening") throw new Error(`no socket of the helper: ${log()}`);
    return { log, ask: (text, half = false) => asked(this.lab.path(socketPath), text, half) };
  }

  /**
   * The real udisks2 inside, with D-Bus and polkit, each started as it is asked for first; polkit lets this user mount where `allowed`. What is
   * missing for it is given back.
   */
  async udisks(allowed: boolean): Promise<string | undefined> {
    const needs = { "/usr/libexec/udisks2/udisksd": "udisks2", "/usr/lib/polkit-1/polkitd": "polkitd", "/usr/bin/dbus-daemon": "dbus" };
    for (const [file, pack] of Object.entries(needs)) if (!existsSync(file)) return `udisks2 needs ${file} (package ${pack})`;
    const rule = `polkit.addRule(function (action, subject) {
      if (subject.user === "${this.name}" && /^org.freedesktop.udisks2.filesystem-(un)?mount/.test(action.id)) return polkit.Result.YES;
    });`;
    const rules = "/etc/polkit-1/rules.d";
    // All that they write is the laboratory's.
    for (const dir of ["/media", "/var/lib/udisks2", rules])
      if (existsSync(dir)) await this.lab.exec("mount", ["-t", "tmpfs", "-o", "mode=755", "tmpfs", dir]);
    writeFileSync(this.lab.path(`${rules}/10-filesync.rules`), allowed ? rule : "");
    await this.lab.exec("mkdir", ["/run/dbus"]);
    // It is ready once it has gone into the background.
    await this.lab.exec("dbus-daemon", ["--system", "--nopidfile", "--nosyslog", "--fork"]);
    return undefined;
  }

  #wrap(): string[] {
    return this.lab.wrap({ uid: this.uid, gid: this.gid });
  }

  #own(): void {
    execFileSync("chown", ["-R", `${this.uid}:${this.gid}`, this.world.dir]);
  }
}

/** What of the unit has a meaning outside systemd. */
function unitOf(text: string): { words: string[]; capabilities: string[]; environment: Record<string, string> } {
  const all = (key: string) => [...text.matchAll(new RegExp(`^${key}=(.*)$`, "gm"))].map(([, value = ""]) => value);
  const [, ...words] = (all("ExecStart")[0] ?? "").split(" ");
  const environment = Object.fromEntries(
    all("Environment").map((one) => [one.slice(0, one.indexOf("=")), one.slice(one.indexOf("=") + 1)]),
  );
  const capabilities = (all("CapabilityBoundingSet")[0] ?? "").split(" ").map((name) => name.replace("CAP_", "").toLowerCase());
  return { words, capabilities, environment };
}

function asked(path: string, text: string | Buffer, half: boolean): Promise<string> {
  return new Promise((resolve) => {
    let said = "";
    const socket = createConnection(path);
    socket.setEncoding("utf8").on("data", (more: string) => (said += more));
    // It is not read to its end where it is too long.
    socket.on("error", () => undefined).on("close", () => resolve(said.trim()));
    if (half) socket.write(text);
    else socket.end(text);
  });
}
