/** Directories of the machine whose changes are thrown away, in a mount namespace of its own, while other tests make accounts on the machine. */

/**
 * Shell text, one line, whose exit code is that of its first failure: lays over each of `dirs` an overlay that keeps what changes in `scratch`, which
 * is on a file system that can be an upper one (a tmpfs).
 */
export function overlaid(dirs: readonly string[], scratch: string): string {
  return dirs.map((dir) => overlay(dir, `${scratch}${dir}`)).join(" && ");
}

function overlay(dir: string, at: string): string {
  // The locks of useradd outside would be seen as held, by a process that lives. In the upper one they would come to light with the first that
  // useradd makes here and takes away.
  const locks = ["passwd", "shadow", "group", "gshadow", "subuid", "subgid", ".pwd"].map((name) => `${at}/none/${name}.lock`);
  return [
    `mkdir -p ${at}/up ${at}/work ${at}/none`,
    ...(dir === "/etc" ? locks.map((lock) => `mknod ${lock} c 0 0`) : []),
    `mount -t overlay -o lowerdir=${at}/none:${dir},upperdir=${at}/up,workdir=${at}/work overlay ${dir}`,
  ].join(" && ");
}
