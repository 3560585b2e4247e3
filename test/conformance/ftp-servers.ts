/**
 * Real FTP servers for the suites: our own in this process (plain and TLS), ftp-srv in a child process; vsftpd, ProFTPD and Pure-FTPd as programs.
 *
 * Each is started on a free port of 127.0.0.1 over a directory of its own, and leaves nothing behind. A server that cannot run here says why.
 */
import { isUtf8 } from "node:buffer";
import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { once } from "node:events";
import { existsSync, promises as fs, readFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bytesFromName } from "../../core/names.js";
import { parseIn } from "../../core/options.js";
import { plugin as serverPlugin } from "../../plugins/ftp-server/plugin.js";
import type { FtpServer } from "../../plugins/ftp-server/server.js";
import { until } from "./clause.js";
import { context } from "./upload.js";

export interface FtpServerUnderTest {
  readonly port: number;
  readonly user: string;
  readonly password: string;
  /** The directory that the user sees as "/". */
  readonly dir: string;
  /** Options of the "ftp" plugin beside host, port, user and password. */
  readonly options: Readonly<Record<string, unknown>>;
  /** A path of core as the bytes of a name on this server's disk. */
  disk(path: string): Buffer;
  /** Takes the server away, and brings it back on the same port. */
  unplug?(): Promise<void>;
  replug?(): Promise<void>;
  stop(): Promise<void>;
}

export interface FtpServerKind {
  readonly name: string;
  readonly skip?: string;
  start(): Promise<FtpServerUnderTest>;
}

export const password = "pass word-4711";

async function scratch(): Promise<string> {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-ftp-"));
  // Servers that run as another user must be able to enter it.
  await fs.chmod(dir, 0o755);
  return dir;
}

/** A key and a self-signed certificate for 127.0.0.1, below `dir`. */
export function selfSigned(dir: string, days = 2): { cert: string; key: string; fingerprint: string } {
  const [cert, key] = [join(dir, "cert.pem"), join(dir, "key.pem")];
  const subject = ["-subj", "/CN=filesync-test", "-addext", "subjectAltName=IP:127.0.0.1"];
  execFileSync(
    "openssl",
    [
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:prime256v1",
      "-nodes",
      "-keyout",
      key,
      "-out",
      cert,
      "-days",
      `${days}`,
      ...subject,
    ],
    { stdio: "ignore" },
  );
  const said = execFileSync("openssl", ["x509", "-in", cert, "-noout", "-fingerprint", "-sha256"], { encoding: "utf8" });
  return { cert, key, fingerprint: `SHA256:${said.split("=")[1]?.trim() ?? ""}` };
}

function installed(program: string): boolean {
  return (process.env.PATH ?? "").split(":").some((dir) => existsSync(join(dir, program)));
}

export const hasOpenssl = installed("openssl");

/** Our own server in this process, over `root`, with options beside it. */
export async function startOwn(given: Readonly<Record<string, unknown>>, ctx = context()): Promise<FtpServer> {
  const parsed = parseIn({ baseDir: "/", env: {} }, serverPlugin.options, { listen: "127.0.0.1:0", ...given });
  if (!parsed.success) throw new Error(parsed.issues.map((issue) => issue.message).join("; "));
  const server = serverPlugin.service?.(parsed.output, ctx) as FtpServer;
  await server.start(new AbortController().signal);
  return server;
}

function own(name: string, secure: boolean | "pinned"): FtpServerKind {
  return {
    name,
    ...(secure !== false && !hasOpenssl ? { skip: "openssl is not installed" } : {}),
    start: async () => {
      const base = await scratch();
      const tls = secure === false ? undefined : selfSigned(base);
      // It is given up and listened on again in the middle.
      const port = await freePort();
      const given = {
        root: join(base, "srv"),
        listen: `127.0.0.1:${port}`,
        users: { tester: { password } },
        ...(tls === undefined ? {} : { tls: { cert: tls.cert, key: tls.key, required: true } }),
      };
      let server = await startOwn(given);
      const options =
        tls === undefined ? {} : { secure: true, tls: secure === "pinned" ? { fingerprint: tls.fingerprint } : { ca: tls.cert } };
      return {
        port,
        user: "tester",
        password,
        dir: join(base, "srv", "tester"),
        options,
        disk: (path) => bytesFromName(path),
        unplug: () => server.close(),
        replug: async () => {
          server = await startOwn(given);
        },
        stop: async () => {
          await server.close();
          await fs.rm(base, { recursive: true });
        },
      };
    },
  };
}

/** What servers that know nothing of core's names have on their disk: bytes that are no UTF-8 as they are, all else as its text. */
function plainDisk(path: string): Buffer {
  const bytes = bytesFromName(path);
  return isUtf8(bytes) ? Buffer.from(path) : bytes;
}

export async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, "exit");
  child.kill("SIGKILL");
  await exit;
}

export const ftpSrv: FtpServerKind = {
  name: "ftp on ftp-srv",
  start: async () => {
    const dir = await scratch();
    const script = fileURLToPath(new URL("./ftp-srv-child.js", import.meta.url));
    const child = spawn(process.execPath, [script, dir, "tester", password], { stdio: ["ignore", "pipe", "ignore"] });
    // Its own log goes the same way, and must be read on so that it never waits.
    const port = await new Promise<number>((resolve, reject) => {
      let said = "";
      child.once("exit", () => reject(new Error(`ftp-srv ended: ${said}`)));
      child.stdout.on("data", (chunk: Buffer) => {
        if (said.length < 100_000) said += chunk.toString();
        const match = /^PORT (\d+)$/m.exec(said);
        if (match !== null) resolve(Number(match[1]));
      });
    });
    return {
      port,
      user: "tester",
      password,
      dir,
      options: {},
      disk: plainDisk,
      stop: async () => {
        await ended(child);
        await fs.rm(dir, { recursive: true });
      },
    };
  },
};

/** The system gives ports from here on to whom any will do, data connections of servers among them: such a one may be another's by the time that it is used. */
const anybodysFrom = Number(readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").split(/\s/)[0]);
const [portsFrom, portsTo] = anybodysFrom > 11_000 ? [10_000, anybodysFrom] : [10_000, 32_768];

export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(portsFrom, portsTo);
    const server = createServer();
    const listens = once(server, "listening").then(
      () => true,
      () => false,
    );
    server.listen(port, "127.0.0.1");
    if (!(await listens)) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("error", () => resolve(false));
    socket.once("data", () => {
      socket.destroy();
      resolve(true);
    });
  });
}

const isRoot = process.getuid?.() === 0;

/** Where a server of the system is: FILESYNC_TEST_<NAME> says it for one that is only unpacked (the three conflict as packages). */
function systemProgram(name: string): string {
  return process.env[`FILESYNC_TEST_${name.toUpperCase().replace("-", "")}`] ?? `/usr/sbin/${name}`;
}

export interface SystemServer {
  readonly name: string;
  readonly program: string;
  /** Writes what configuration it needs below `base`, and gives the arguments. */
  readonly args: (base: string, port: number, user: string) => Promise<string[]>;
}

export interface SystemUser {
  readonly name: string;
  remove(): Promise<void>;
}

/** A user of the system whose home is `dir`, which every one of these servers logs in. */
export async function systemUser(dir: string): Promise<SystemUser> {
  const name = `fstest${randomBytes(4).toString("hex")}`;
  const pam = `/etc/pam.d/${name}`;
  execFileSync("useradd", ["-M", "-d", dir, "-s", "/bin/sh", name]);
  execFileSync("chpasswd", { input: `${name}:${password}\n` });
  // What an earlier one left there, too: numbers go to whoever comes next.
  execFileSync("chown", ["-hR", name, dir]);
  await fs.writeFile(pam, "auth required pam_unix.so\naccount required pam_unix.so\nsession required pam_permit.so\n");
  return {
    name,
    remove: async () => {
      // Children of the server may still be at work for this user.
      await until("the user to be removed", () => spawnSync("userdel", [name], { stdio: "ignore" }).status === 0);
      await fs.rm(pam, { force: true });
    },
  };
}

/** Starts a server of the system for a user, on a port of its own; `base` is for its configuration. */
export async function startSystem(server: SystemServer, base: string, user: string): Promise<{ port: number; child: ChildProcess }> {
  const port = await freePort();
  const child = spawn(server.program, await server.args(base, port, user), { stdio: "ignore" });
  await until(`${server.name} to answer`, () => answers(port));
  return { port, child };
}

/** A server that logs in users of the system: one is made for it, and removed at the end. */
function ofSystem(server: SystemServer): FtpServerKind {
  const { name, program } = server;
  return {
    name: `ftp on ${name}`,
    ...(existsSync(program) ? {} : { skip: `${name} is not installed` }),
    ...(isRoot ? {} : { skip: `${name} needs root: it logs in users of the system` }),
    start: async () => {
      const base = await scratch();
      const dir = join(base, "home");
      await fs.mkdir(dir);
      const user = await systemUser(dir);
      const { port, child } = await startSystem(server, base, user.name);
      return {
        port,
        user: user.name,
        password,
        dir,
        options: {},
        disk: plainDisk,
        stop: async () => {
          await ended(child);
          await user.remove();
          await fs.rm(base, { recursive: true });
        },
      };
    },
  };
}

/** The server with more lines in the file that is its last argument. */
export function withLines(server: SystemServer, lines: readonly string[]): SystemServer {
  return {
    ...server,
    args: async (...given) => {
      const args = await server.args(...given);
      await fs.appendFile(args.at(-1) ?? "", `${lines.join("\n")}\n`);
      return args;
    },
  };
}

export const vsftpdServer: SystemServer = {
  name: "vsftpd",
  program: systemProgram("vsftpd"),
  args: async (base, port, user) => {
    await fs.mkdir(join(base, "empty"), { recursive: true });
    const config = {
      listen: "YES",
      listen_address: "127.0.0.1",
      listen_port: port,
      background: "NO",
      anonymous_enable: "NO",
      local_enable: "YES",
      write_enable: "YES",
      chroot_local_user: "YES",
      allow_writeable_chroot: "YES",
      local_umask: "022",
      pam_service_name: user,
      seccomp_sandbox: "NO",
      secure_chroot_dir: join(base, "empty"),
      xferlog_enable: "NO",
      use_localtime: "NO",
      connect_from_port_20: "NO",
    };
    const file = join(base, "vsftpd.conf");
    await fs.writeFile(
      file,
      Object.entries(config)
        .map(([key, value]) => `${key}=${value}\n`)
        .join(""),
    );
    return [file];
  },
};

const proftpdPath = systemProgram("proftpd");

export const proftpdServer: SystemServer = {
  name: "ProFTPD",
  program: proftpdPath,
  args: async (base, port) => {
    const modules = join(proftpdPath, "../../lib/proftpd");
    const more = [
      ["mod_digest", "DigestEngine on"],
      ["mod_copy", "CopyEngine on"],
    ].filter(([name]) => existsSync(join(modules, `${name}.so`)));
    const loaded = [...(more.length > 0 ? [`ModulePath ${modules}`] : []), ...more.flatMap(([name, on]) => [`LoadModule ${name}.c`, on])];
    const lines = [
      ...[
        "ServerName test",
        "ServerType standalone",
        "DefaultAddress 127.0.0.1",
        `Port ${port}`,
        "User nobody",
        "Group nogroup",
        "UseIPv6 off",
      ],
      ...["SocketBindTight on", "DefaultRoot ~", "RequireValidShell off", "AuthPAM off", "AuthOrder mod_auth_unix.c", "DelayEngine off"],
      ...["AllowOverwrite on", "AllowStoreRestart on", "AllowRetrieveRestart on", "WtmpLog off", "TransferLog none", "SystemLog none"],
      ...[`PidFile ${join(base, "pid")}`, `ScoreboardFile ${join(base, "score")}`, "MaxInstances 50", ...loaded],
    ];
    const file = join(base, "proftpd.conf");
    await fs.writeFile(file, `${lines.join("\n")}\n`);
    return ["-n", "-q", "-c", file];
  },
};

export const pureFtpdServer: SystemServer = {
  name: "Pure-FTPd",
  program: systemProgram("pure-ftpd"),
  args: (_base, port) => Promise.resolve(["-S", `127.0.0.1,${port}`, "-l", "unix", "-A", "-E", "-H", "-u", "100", "-C", "50"]),
};

export const vsftpd = ofSystem(vsftpdServer);
export const proftpd = ofSystem(proftpdServer);
export const pureFtpd = ofSystem(pureFtpdServer);
export const vsftpdWith = (...lines: string[]): FtpServerKind => ofSystem(withLines(vsftpdServer, lines));
export const proftpdWith = (...lines: string[]): FtpServerKind => ofSystem(withLines(proftpdServer, lines));
export const pureFtpdWith = (...options: string[]): FtpServerKind =>
  ofSystem({ ...pureFtpdServer, args: async (...given) => [...(await pureFtpdServer.args(...given)), ...options] });

export const ownPlain = own("ftp on our own server", false);
export const ownPinned = own("ftp on our own server, TLS with a pinned certificate", "pinned");
export const ownCa = own("ftp on our own server, TLS with its own CA", true);
