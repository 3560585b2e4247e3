/** The end of the program where a file system hangs: `process.exit` waits for all threads, and one of them waits for that. */

/** What has not ended by then, and has nothing more to say, is killed. What is returned lets it take its time after all. */
export function endWithin(ms: number): () => void {
  const end = (): void => {
    if (process.stdout.writableLength > 0 || process.stderr.writableLength > 0) timer.refresh();
    else process.kill(process.pid, "SIGKILL");
  };
  const timer = setTimeout(end, ms).unref();
  return () => clearTimeout(timer);
}
