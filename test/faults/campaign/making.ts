/** What the worlds of campaigns are made of. */
import { createCipheriv } from "node:crypto";
import { createSocket } from "node:dgram";
import { createServer } from "node:net";

let next = 20_000 + (process.pid % 10_000);

/** A port, another each time, that is free for TCP and UDP and that the system gives to nobody by itself: a link that was dropped comes back on it. */
export async function lastingPort(): Promise<number> {
  for (;;) {
    const port = next;
    next = port === 29_999 ? 20_000 : port + 1;
    if ((await isFreeForTcp(port)) && (await isFreeForUdp(port))) return port;
  }
}

function isFreeForTcp(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false)).listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

function isFreeForUdp(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createSocket("udp4");
    socket.once("error", () => socket.close(() => resolve(false))).once("listening", () => socket.close(() => resolve(true)));
    socket.bind(port, "127.0.0.1");
  });
}

/** Bytes from a seed, faster than they are written. */
export function keystream(seed: number, length: number): Buffer {
  const key = Buffer.alloc(16);
  key.writeUInt32LE(seed >>> 0);
  return createCipheriv("aes-128-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(length));
}
