/** What goes wrong on the card, with an errno as POSIX numbers it. */
export const ENOENT = 2;
export const EIO = 5;
export const EBADF = 9;
export const EACCES = 13;
export const EEXIST = 17;
export const EISDIR = 21;
export const EINVAL = 22;
export const ENOSPC = 28;

export class DiskError extends Error {
  readonly errno: number;
  constructor(errno: number, message: string) {
    super(message);
    this.errno = errno;
  }
}

/** Work on the file system of this machine, whose errors become DiskErrors of the same number; what is below no directory is not there. */
export function guard<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof DiskError) throw error;
    const { code, errno } = error as NodeJS.ErrnoException;
    throw new DiskError(code === "ENOTDIR" ? ENOENT : errno === undefined ? EIO : -errno, String(error));
  }
}
