/**
 * Real SFTP servers for the suites: OpenSSH's sshd, open and chrooted to SFTP alone, and rclone's.
 *
 * Each is started on a free port of 127.0.0.1 over a directory of its own, and leaves nothing behind. A server that cannot run here says why.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { existsSync, promises as fs, readFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { until } from "./clause.js";
import { ended, freePort, password, systemUser } from "./ftp-servers.js";

export interface SftpServerUnderTest {
  readonly port: number;
  /** The directory of this machine in which each clause gets its root. */
  readonly dir: string;
  /** The same directory as the server names it. */
  readonly seen: string;
  /** Options of the plugin beside host, port and root. */
  readonly options: Readonly<Record<string, unknown>>;
  /** The same with wrong credentials. */
  readonly wrong: Readonly<Record<string, unknown>>;
  readonly secrets: readonly string[];
  readonly child: () => ChildProcess;
  /** Takes the server away with all that it serves now, and brings it back on the same port. */
  unplug(): Promise<void>;
  replug(): Promise<void>;
  stop(): Promise<void>;
}

export interface SftpServerKind {
  readonly name: string;
  readonly skip?: string;
  /** `given`: the directory that is served, where the kind can; it stays. */
  start(given?: string): Promise<SftpServerUnderTest>;
}

const isRoot = process.getuid?.() === 0;
export const sshd = process.env.FILESYNC_TEST_SSHD ?? "/usr/sbin/sshd";
const rclone = (process.env.PATH ?? "").split(":").map((dir) => join(dir, "rclone"));
export const passphrase = "pass phrase-4713";

function installed(): { skip?: string } {
  return existsSync(sshd) ? {} : { skip: "sshd (openssh-server) is not installed" };
}

async function scratch(below = tmpdir()): Promise<string> {
  const dir = await fs.mkdtemp(join(below, "filesync-sftp-"));
  // Servers that run as another user must be able to enter it.
  await fs.chmod(dir, 0o755);
  return dir;
}

/** Makes a key pair; `file` and `file.pub`. */
export function makeKey(file: string, phrase = "", type = "ed25519"): void {
  execFileSync("ssh-keygen", ["-q", "-t", type, "-N", phrase, "-C", "test", "-f", file]);
}

/** As `ssh-keygen -lf` prints it. */
export function fingerprintOf(file: string): string {
  return execFileSync("ssh-keygen", ["-lf", file], { encoding: "utf8" }).split(" ")[1] ?? "";
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("error", () => resolve(false));
    socket.once("data", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("close", () => resolve(false));
  });
}

/** The processes that this one started, and so on. */
function descendants(pid: number): number[] {
  let children = "";
  try {
    children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
  } catch {
    // It has ended already.
  }
  const found = children.split(" ").filter(Boolean).map(Number);
  return [...found, ...found.flatMap(descendants)];
}

function killed(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended already.
  }
}

/** A program that can be taken away and brought back. */
export async function startProgram(what: string, port: number, start: () => ChildProcess) {
  let child = start();
  await until(`${what} to answer`, () => answers(port));
  return {
    child: () => child,
    // Each connection of sshd is a process of its own.
    unplug: async () => {
      const below = child.pid === undefined ? [] : descendants(child.pid);
      for (const pid of below) killed(pid);
      await ended(child);
    },
    replug: async () => {
      child = start();
      await until(`${what} to answer again`, () => answers(port));
    },
  };
}

/** Starts sshd with these lines, on a port of its own, with a host key below `base`. */
export async function startSshd(base: string, lines: readonly string[]) {
  const port = await freePort();
  const key = join(base, "host_key");
  if (!existsSync(key)) makeKey(key);
  // Where it runs as root it wants the directory that a service manager would make.
  if (isRoot) await fs.mkdir("/run/sshd", { recursive: true, mode: 0o755 });
  const config = join(base, "sshd_config");
  const common = [
    `Port ${port}`,
    "ListenAddress 127.0.0.1",
    `HostKey ${key}`,
    `PidFile ${join(base, "pid")}`,
    "StrictModes no",
    "UsePAM no",
    "UseDNS no",
    "MaxStartups 100",
    // Without the ~/.bashrc of who runs the tests.
    "SetEnv SHLVL=1",
  ];
  await fs.writeFile(config, `${[...common, ...lines].join("\n")}\n`);
  const program = await startProgram("sshd", port, () => spawn(sshd, ["-D", "-e", "-f", config], { stdio: "ignore" }));
  return { port, hostKey: fingerprintOf(`${key}.pub`), ...program };
}

/** sshd for the user who runs the tests, who logs in with a key that has a passphrase. */
export const openssh = opensshWith("sftp on OpenSSH", "");

/** The same, with arguments of `internal-sftp`. */
export function opensshWith(name: string, args: string): SftpServerKind {
  return { name, ...installed(), start: async (given) => startOpenssh(args, given) };
}

async function startOpenssh(args: string, given?: string): Promise<SftpServerUnderTest> {
  const base = await scratch();
  const dir = given ?? join(base, "files");
  await fs.mkdir(dir, { recursive: true });
  const [key, other] = [join(base, "id"), join(base, "other")];
  makeKey(key, passphrase);
  makeKey(other);
  const authorized = join(base, "authorized_keys");
  await fs.copyFile(`${key}.pub`, authorized);
  const { port, hostKey, ...program } = await startSshd(base, [
    `AuthorizedKeysFile ${authorized}`,
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "PermitRootLogin prohibit-password",
    `Subsystem sftp internal-sftp ${args}`,
  ]);
  const user = userInfo().username;
  return {
    port,
    dir,
    seen: dir,
    options: { user, privateKey: key, passphrase, hostKey },
    wrong: { user, privateKey: other, hostKey },
    secrets: [passphrase],
    ...program,
    stop: async () => {
      await program.unplug();
      await fs.rm(base, { recursive: true });
    },
  };
}

/** sshd that lets a user in with a password, into a chroot, for SFTP alone: no commands. */
export const chrooted: SftpServerKind = {
  name: "sftp on OpenSSH, chrooted, without commands",
  ...installed(),
  ...(isRoot ? {} : { skip: "a chroot and a login by password need root" }),
  start: async () => {
    // A chroot wants every directory above it to be root's alone, which the one for temporary files is not.
    const base = await scratch("/var/lib");
    const jail = join(base, "jail");
    const dir = join(jail, "data");
    await fs.mkdir(dir, { recursive: true });
    const user = await systemUser(dir);
    const { port, hostKey, ...program } = await startSshd(base, [
      "AuthorizedKeysFile none",
      "PasswordAuthentication yes",
      `ChrootDirectory ${jail}`,
      "ForceCommand internal-sftp",
      "Subsystem sftp internal-sftp",
    ]);
    const wrong = "wrong-pass-4712";
    return {
      port,
      dir,
      seen: "/data",
      options: { user: user.name, password, hostKey },
      wrong: { user: user.name, password: wrong, hostKey },
      secrets: [password, wrong],
      ...program,
      stop: async () => {
        await program.unplug();
        await user.remove();
        await fs.rm(base, { recursive: true });
      },
    };
  },
};

export function rcloneSftp(mode: "off" | "writes"): SftpServerKind {
  const program = rclone.find((it) => existsSync(it));
  return {
    name: `sftp on rclone serve, cache ${mode}`,
    ...(program === undefined ? { skip: "rclone is not installed" } : {}),
    ...installed(),
    start: async () => {
      const base = await scratch();
      const dir = join(base, "files");
      await fs.mkdir(dir);
      const [key, port] = [join(base, "host_key"), await freePort()];
      makeKey(key);
      const args = ["serve", "sftp", dir, "--addr", `127.0.0.1:${port}`, "--user", "tester", "--pass", password, "--key", key];
      const cache = ["--vfs-cache-mode", mode, "--dir-cache-time", "0", "--vfs-write-back", "0", "--cache-dir", join(base, "cache")];
      const running = await startProgram("rclone", port, () =>
        spawn(program ?? "rclone", [...args, ...cache, "--config", join(base, "none.conf")], { stdio: "ignore" }),
      );
      const wrong = "wrong-pass-4712";
      const hostKey = fingerprintOf(`${key}.pub`);
      return {
        port,
        dir,
        seen: "",
        options: { user: "tester", password, hostKey },
        wrong: { user: "tester", password: wrong, hostKey },
        secrets: [password, wrong],
        ...running,
        stop: async () => {
          await running.unplug();
          await fs.rm(base, { recursive: true });
        },
      };
    },
  };
}
