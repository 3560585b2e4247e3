/**
 * WebDAV servers for the suites: Apache's mod_dav, nginx with dav-ext and `rclone serve webdav` as programs, each on a free port of 127.0.0.1 over a directory of
 * its own. One that cannot run here says why.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, promises as fs } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isUtf8 } from "node:buffer";
import { bytesFromName } from "../../core/names.js";
import { until } from "./clause.js";
import { ended, freePort, password } from "./ftp-servers.js";

export { password };
export const user = "tester";

export interface DavServerUnderTest {
  readonly url: string;
  /** The directory that is at the URL. */
  readonly dir: string;
  /** Options of the plugin beside url, user and password. */
  readonly options?: Readonly<Record<string, unknown>>;
  /** Kills it as `kill -9` does, and brings it back on the same port. */
  unplug(): Promise<void>;
  replug(): Promise<void>;
  stop(): Promise<void>;
}

export interface DavServerKind {
  readonly name: string;
  readonly skip?: string;
  /** `given`: the directory that is served; it stays. */
  start(given?: string): Promise<DavServerUnderTest>;
}

/** What servers that know nothing of core's names have on their disk. */
export function diskName(path: string): Buffer {
  const bytes = bytesFromName(path);
  return isUtf8(bytes) ? Buffer.from(path) : bytes;
}

interface DavProgram {
  readonly name: string;
  readonly needs: readonly string[];
  /** Writes its configuration below `base`; the command to run in the foreground. */
  readonly command: (base: string, dir: string, port: number) => Promise<readonly [string, ...string[]]>;
}

const isRoot = process.getuid?.() === 0;

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const request = http.request({ host: "127.0.0.1", port, method: "OPTIONS", path: "/" }, (response) => {
      response.resume();
      resolve(true);
    });
    request.once("error", () => resolve(false));
    request.end();
  });
}

/** Kills the program and its children: workers of Apache and nginx go on without their master. */
async function killGroup(child: ChildProcess): Promise<void> {
  if (child.pid === undefined) return;
  const exit = child.exitCode === null && child.signalCode === null ? once(child, "exit") : undefined;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    await ended(child);
  }
  await exit;
}

function program({ name, needs, command }: DavProgram): DavServerKind {
  const missing = needs.find((path) => !existsSync(path));
  return {
    name: `webdav on ${name}`,
    ...(missing === undefined ? {} : { skip: `${name} is not installed: there is no ${missing}` }),
    ...(isRoot ? {} : { skip: `${name} is run as root here, so that it may use the test's directory` }),
    start: async (given) => {
      const base = await fs.mkdtemp(join(tmpdir(), "filesync-dav-"));
      await fs.chmod(base, 0o755);
      const dir = given ?? join(base, "files");
      await fs.mkdir(dir, { recursive: true });
      await fs.chmod(dir, 0o777);
      const port = await freePort();
      const [file, ...args] = await command(base, dir, port);
      const launch = async (): Promise<ChildProcess> => {
        const child = spawn(file, args, { stdio: "ignore", detached: true });
        await until(`${name} to answer`, () => answers(port));
        return child;
      };
      let child = await launch();
      return {
        url: `http://127.0.0.1:${port}`,
        dir,
        unplug: () => killGroup(child),
        replug: async () => {
          child = await launch();
        },
        stop: async () => {
          await killGroup(child);
          await fs.rm(base, { recursive: true });
        },
      };
    },
  };
}

const apacheModules = "/usr/lib/apache2/modules";

/** `more`: further lines of its configuration. */
const apacheWith = (...more: string[]): DavServerKind =>
  program({
    name: "Apache mod_dav",
    needs: ["/usr/sbin/apache2", `${apacheModules}/mod_dav_fs.so`],
    command: async (base, dir, port) => {
      const hash = execFileSync("openssl", ["passwd", "-apr1", password], { encoding: "utf8" }).trim();
      await fs.writeFile(join(base, "users"), `${user}:${hash}\n`);
      await fs.mkdir(join(base, "locks"), { mode: 0o777 });
      await fs.chmod(join(base, "locks"), 0o777);
      // mod_dir, as Debian has it on, leads who names a directory without "/" at its end to the address with it.
      const modules = ["mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "dav", "dav_fs", "dir"];
      const lines = [
        ...modules.map((module) => `LoadModule ${module}_module ${apacheModules}/mod_${module}.so`),
        ...[`ServerRoot ${base}`, "ServerName 127.0.0.1", `Listen 127.0.0.1:${port}`, `PidFile ${base}/pid`, `ErrorLog ${base}/errors`],
        ...["User www-data", "Group www-data", `DocumentRoot "${dir}"`, `DAVLockDB ${base}/locks/db`, `DefaultRuntimeDir ${base}`],
        ...["AllowEncodedSlashes NoDecode", "LimitRequestBody 0", "KeepAliveTimeout 5"],
        ...[`<Directory "${dir}">`, "Dav On", "Options None", "AllowOverride None", "AuthType Basic", 'AuthName "test"'],
        ...[`AuthUserFile ${base}/users`, "Require valid-user", "</Directory>"],
        ...more,
      ];
      const file = join(base, "apache.conf");
      await fs.writeFile(file, `${lines.join("\n")}\n`);
      return ["/usr/sbin/apache2", "-f", file, "-DFOREGROUND"];
    },
  });

export const apache = apacheWith();

/** With a rule that Debian's has. */
export const apacheOfDebian = apacheWith(`<FilesMatch "^\\.ht">`, "Require all denied", "</FilesMatch>");

/** `as`: the user whose rights its workers have. `more`: further locations. */
export const nginxWith = (as: string, more = ""): DavServerKind =>
  program({
    name: "nginx dav",
    needs: ["/usr/sbin/nginx", "/usr/lib/nginx/modules/ngx_http_dav_ext_module.so"],
    command: async (base, dir, port) => {
      const hash = execFileSync("openssl", ["passwd", "-apr1", password], { encoding: "utf8" }).trim();
      await fs.writeFile(join(base, "users"), `${user}:${hash}\n`);
      const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${base}/${kind};`).join(" ");
      const text = `load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;
user ${as}; worker_processes 2; daemon off; pid ${base}/pid; error_log ${base}/errors;
events { worker_connections 128; }
http {
  ${temporary} access_log off;
  server {
    listen 127.0.0.1:${port}; client_max_body_size 0; root ${dir};
    auth_basic test; auth_basic_user_file ${base}/users;
    location / { dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS; create_full_put_path on; disable_symlinks on; }
    ${more}
  }
}
`;
      const file = join(base, "nginx.conf");
      await fs.writeFile(file, text);
      return ["/usr/sbin/nginx", "-c", file, "-e", join(base, "errors")];
    },
  });

export const nginx = nginxWith("root");

const rclonePath = ["/usr/bin/rclone", "/usr/local/bin/rclone"].find(existsSync) ?? "/usr/bin/rclone";

export const rclone = program({
  name: "rclone serve webdav",
  needs: [rclonePath],
  command: (base, dir, port) =>
    Promise.resolve([
      rclonePath,
      ...["serve", "webdav", dir, "--addr", `127.0.0.1:${port}`, "--user", user, "--pass", password],
      ...["--config", join(base, "none.conf"), "--cache-dir", join(base, "cache"), "--dir-cache-time", "0s", "--vfs-cache-mode", "off"],
    ]),
});
