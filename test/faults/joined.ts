/** What relays are made of: two connections that are one, as far away as is wanted. What comes in goes out so much later, however much of it is on its way. */
import type { Socket } from "node:net";

/** Does it `delayMs` later; without a delay at once. */
export function later(delayMs: number, work: () => void): void {
  if (delayMs === 0) work();
  else setTimeout(work, delayMs);
}

export function pass(from: Socket, to: Socket, delayMs: number): void {
  if (delayMs === 0) {
    from.pipe(to);
    return;
  }
  from.on("data", (bytes) => later(delayMs, () => to.write(bytes)));
  from.on("end", () => later(delayMs, () => to.end()));
}

/** Node never comes to its end after the reset of a socket that is still saying its own end: it spins as it closes what is open. */
export function reset(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

/** They end together, and are in `sockets` until then. */
export function join(a: Socket, b: Socket, delayMs: number, sockets: Set<Socket>): void {
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    sockets.add(one);
    // A router holds nothing back: by Nagle's algorithm each small answer would wait 40 ms for the other's delayed acknowledgement.
    one.setNoDelay(true);
    // An end that breaks breaks the other: the relay itself has no opinion.
    one.on("error", () => other.destroy());
    one.on("close", () => {
      sockets.delete(one);
      later(delayMs, () => (delayMs === 0 ? other.destroy() : other.destroySoon()));
    });
  }
}
