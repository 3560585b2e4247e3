/** Paths of core: relative, "/" between names, "" the root. */

/** "a/b" of "a/b/c"; "" of "c". */
export const parentOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf("/")));

/** "c" of "a/b/c". */
export const nameIn = (path: string): string => path.slice(path.lastIndexOf("/") + 1);

/** Whether a hidden name says that an upload runs, of whatever program: `local` and `disk` do not list such files. */
export const isRunning = (path: string): boolean => /^\..*\.part$/.test(nameIn(path));

export const isAtOrBelow = (path: string, dir: string): boolean => path === dir || path.startsWith(`${dir}/`);

/** How many names it has. */
export const depthOf = (path: string): number => path.split("/").length;

/** "a/b" of "/a//./b/", as people write it. */
export const plainPath = (text: string): string =>
  text
    .split("/")
    .filter((name) => name !== "" && name !== ".")
    .join("/");
