/**
 * What only one on this machine does at a time, in whichever process and of whichever user: an abstract socket of Linux has its name (unix(7)), which needs
 * no directory, and which the kernel gives up as its process dies, however that dies.
 */
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { codeOf, throwIfAborted } from "./errors.js";

/** Waits until nobody else does `what`, of at most 80 characters, and calls `waits` where somebody does. Answers what lets the next one in. Throws "aborted". */
export async function alone(what: string, signal: AbortSignal, waits: () => void): Promise<() => void> {
  const path = `\0filesync-${what}`;
  for (let told = false; ; told = true) {
    const waiting = new Set<Socket>();
    const server = createServer((socket) => {
      waiting.add(socket.on("error", () => undefined));
      socket.on("close", () => waiting.delete(socket));
    });
    if (await takes(server, path))
      return () => {
        server.close();
        for (const socket of waiting) socket.destroy();
      };
    if (!told) waits();
    throwIfAborted(signal);
    await until(path, signal);
    throwIfAborted(signal);
  }
}

function takes(server: Server, path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) => (codeOf(error) === "EADDRINUSE" ? resolve(false) : reject(error)));
    server.listen(path, () => resolve(true));
  });
}

/** Resolves when who has it has let it go, or was killed, or `signal` was given. */
function until(path: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const socket = createConnection(path).on("error", () => undefined);
    const stop = () => socket.destroy();
    socket.on("close", () => {
      signal.removeEventListener("abort", stop);
      resolve();
    });
    signal.addEventListener("abort", stop);
    socket.resume();
  });
}
