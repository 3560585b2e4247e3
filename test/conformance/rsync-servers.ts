/** Real servers for the plugin "rsync": OpenSSH with Debian's rsync for a user who may run commands, and for one who may run only `rrsync`. */
import { spawnSync } from "node:child_process";
import { existsSync, promises as fs } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { systemUser } from "./ftp-servers.js";
import { makeKey, openssh, startSshd, type SftpServerKind, type SftpServerUnderTest } from "./sftp-servers.js";

const isRoot = process.getuid?.() === 0;
const rrsync = ["/usr/bin/rrsync", "/usr/share/rsync/scripts/rrsync"].find((it) => existsSync(it));

function whyNot(): string | undefined {
  if (openssh.skip !== undefined) return openssh.skip;
  const missing = ["rsync", "ssh", "ssh-keyscan"].filter((tool) => spawnSync("sh", ["-c", `command -v ${tool}`]).status !== 0);
  return missing.length === 0 ? undefined : `${missing.join(" and ")} is not installed`;
}

/** `forced`: what stands before the user's key in authorized_keys, made from the directory that is served. */
function server(name: string, skip: string | undefined, seen: (dir: string) => string, forced: (dir: string) => string): SftpServerKind {
  return { name, ...(skip === undefined ? {} : { skip }), start: (given) => startRsync(seen, forced, given) };
}

/** A user of its own where this is root. `given`: the directory that is served; it stays. `more`: lines of sshd_config. */
export async function startRsync(
  seen: (dir: string) => string = (dir) => dir,
  forced: (dir: string, base: string) => string = () => "",
  given?: string,
  more: readonly string[] = [],
): Promise<SftpServerUnderTest> {
  const base = await fs.mkdtemp(join(tmpdir(), "filesync-rsync-"));
  await fs.chmod(base, 0o755);
  const dir = given ?? join(base, "files");
  await fs.mkdir(dir, { recursive: true });
  const user = isRoot ? await systemUser(dir) : { name: userInfo().username, remove: () => Promise.resolve() };
  const [key, other] = [join(base, "id"), join(base, "other")];
  makeKey(key);
  makeKey(other);
  const authorized = join(base, "authorized_keys");
  await fs.writeFile(authorized, `${forced(dir, base)}${await fs.readFile(`${key}.pub`, "utf8")}`);
  const { port, hostKey, ...program } = await startSshd(base, [`AuthorizedKeysFile ${authorized}`, "PasswordAuthentication no", ...more]);
  return {
    port,
    dir,
    seen: seen(dir),
    options: { user: user.name, privateKey: key, hostKey },
    wrong: { user: user.name, privateKey: other, hostKey },
    secrets: [],
    ...program,
    stop: async () => {
      await program.unplug();
      await user.remove();
      await fs.rm(base, { recursive: true });
    },
  };
}

export const rsyncShell: SftpServerKind = server(
  "rsync to OpenSSH",
  whyNot(),
  (dir) => dir,
  () => "",
);

export const rsyncOnly: SftpServerKind = server(
  "rsync to OpenSSH, rrsync alone",
  whyNot() ?? (rrsync === undefined ? "rrsync is not installed" : undefined),
  () => ".",
  (dir) => `command="${rrsync ?? "rrsync"} ${dir}",restrict `,
);
