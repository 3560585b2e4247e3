/** What goes wrong on the card, with an errno as POSIX numbers it. */
export const ENOENT = 2;
export const EIO = 5;
export const EEXIST = 17;
export const EISDIR = 21;
export const EINVAL = 22;
export const EROFS = 30;

export class DiskError extends Error {
  readonly errno: number;
  constructor(errno: number, message: string) {
    super(message);
    this.errno = errno;
  }
}

/** Work on the file system of this machine, whose errors become DiskErrors: what is not there, and the rest as an I/O error. */
export function guard<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof DiskError) throw error;
    const code = error instanceof Error && "code" in error ? error.code : "";
    throw new DiskError(code === "ENOENT" || code === "ENOTDIR" ? ENOENT : EIO, String(error));
  }
}
