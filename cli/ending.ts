/** The end of the program where a file system hangs: `process.exit` waits for all threads, and one of them waits for that. */

/** What has not ended by then, and has nothing more to say, is killed. */
export function endWithin(ms: number): void {
  const end = (): void => {
    if (process.stdout.writableLength > 0 || process.stderr.writableLength > 0) endWithin(ms);
    else process.kill(process.pid, "SIGKILL");
  };
  setTimeout(end, ms).unref();
}
