/**
 * SIGHUP, which asks the daemon to read its configuration again: it takes some tenths of a second until that listens, and one that comes before, or while it
 * stops, would end the process.
 */
let came = false;

/** From here on it ends nothing. */
export function holdHangup(): void {
  process.on("SIGHUP", () => (came = true));
  // By it Node would open its debugger to everybody on this machine, who could then do all that the daemon may, and read its secrets.
  process.on("SIGUSR1", () => undefined);
}

/** Whether one came that nobody else heard of: it is for who asks first. */
export function takeHangup(): boolean {
  const was = came;
  came = false;
  return was;
}
