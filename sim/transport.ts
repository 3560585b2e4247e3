/**
 * How clients reach the simulated vehicle: a TCP port, UDP either way, or a pseudo-terminal. What is sent goes to whoever is there; what nobody
 * takes in time is lost, as on a wire. Frames of one turn of the event loop leave in one write, except on UDP, where a frame is a datagram.
 */
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { openPty } from "./pty.js";
import { isBack, type Pulled } from "./pulled.js";

export interface Transport {
  /** Where it listens, with the real port. */
  readonly url: string;
  /** The `url` that a mavftp device uses to reach it. */
  readonly clientUrl: string;
  write(frame: Buffer): void;
  /** Cuts every client off, and lets none in for so long: the cable is pulled. A pseudo-terminal comes back at the path `at`, where one is given. */
  drop(pulled: Pulled, at?: string): Promise<void>;
  close(): Promise<void>;
}

/** Makes the taker of one client's bytes. */
export type Accept = () => (chunk: Buffer) => void;

/** More than this waiting for a slow client is thrown away. */
const BACKLOG_BYTES = 1 << 20;
/** A UDP client that says nothing for so long has gone. */
const UDP_SILENCE_MS = 15_000;

/** Opens "tcpin://HOST:PORT", "udpin://HOST:PORT", "udpout://HOST:PORT" or "pty:PATH". Throws an error that says what is wrong. */
export async function openTransport(listen: string, accept: Accept): Promise<Transport> {
  if (listen.startsWith("pty:")) return openPty(listen.slice(4).replace(/^\/\/(?=\/)/, ""), accept);
  const match = /^(tcpin|udpin|udpout):\/\/(?:\[([0-9a-fA-F:.]+)\]|([^:/[\]]*)):(\d{1,5})\/?$/.exec(listen);
  const port = Number(match?.[4]);
  if (match === null || port > 65535)
    throw new Error(`cannot listen on "${listen}": expected tcpin://HOST:PORT, udpin://HOST:PORT, udpout://HOST:PORT or pty:PATH`);
  const host = match[2] ?? (match[3] === "" ? "0.0.0.0" : (match[3] ?? ""));
  if (match[1] === "tcpin") return openTcp(host, port, accept);
  return openUdp(match[1] === "udpin" ? "udpin" : "udpout", host, port, accept);
}

async function openTcp(host: string, port: number, accept: Accept): Promise<Transport> {
  const clients = new Set<Socket>();
  let batch: Buffer[] = [];
  let server = await listenTcp(host, port);
  const address = server.address() as AddressInfo;
  function serve(): void {
    server.on("connection", (socket) => {
      clients.add(socket);
      socket.setNoDelay(true);
      socket.on("data", accept());
      // A reset is an end like any other here; `close` follows it.
      socket.on("error", () => clients.delete(socket));
      socket.on("close", () => clients.delete(socket));
    });
  }
  function flush(): void {
    const bytes = batch.length === 1 ? (batch[0] as Buffer) : Buffer.concat(batch);
    batch = [];
    for (const client of clients) if (client.writableLength < BACKLOG_BYTES) client.write(bytes);
  }
  async function shut(): Promise<void> {
    const closed = server.listening ? once(server, "close") : undefined;
    server.close();
    for (const client of clients) client.destroy();
    await closed;
  }
  serve();
  let stopped = false;
  let lastDrop = Promise.resolve();
  async function drop(pulled: Pulled): Promise<void> {
    await shut();
    await isBack(pulled);
    if (stopped) return;
    server = await listenTcp(address.address, address.port);
    serve();
  }
  return {
    url: `tcpin://${hostText(address.address)}:${address.port}`,
    clientUrl: `tcpout://${hostText(reachable(address.address))}:${address.port}`,
    write(frame) {
      if (clients.size === 0) return;
      batch.push(frame);
      if (batch.length === 1) queueMicrotask(flush);
    },
    drop(pulled) {
      // One after the other: the port cannot be opened twice.
      lastDrop = lastDrop.then(() => drop(pulled));
      return lastDrop;
    },
    async close() {
      stopped = true;
      await shut();
    },
  };
}

async function listenTcp(host: string, port: number): Promise<Server> {
  const server = createServer();
  server.listen(port, host);
  // `once` rejects with the error event.
  await once(server, "listening");
  return server;
}

async function openUdp(kind: "udpin" | "udpout", host: string, port: number, accept: Accept): Promise<Transport> {
  const socket: UdpSocket = createSocket({ type: host.includes(":") ? "udp6" : "udp4", recvBufferSize: 1 << 20, sendBufferSize: 1 << 20 });
  // An unreachable client answers with an error; for a wire that is silence.
  socket.bind(kind === "udpin" ? port : 0, kind === "udpin" ? host : undefined);
  await once(socket, "listening");
  socket.on("error", () => clients.clear());
  const clients = new Map<string, { port: number; address: string; take: (chunk: Buffer) => void; heardMs: number }>();
  let dropped = false;
  let closed = false;
  socket.on("message", (chunk, from) => {
    if (dropped) return;
    const key = `${from.address} ${from.port}`;
    let client = clients.get(key);
    if (client === undefined) {
      client = { port: from.port, address: from.address, take: accept(), heardMs: 0 };
      clients.set(key, client);
    }
    client.heardMs = performance.now();
    client.take(chunk);
  });
  const own = socket.address();
  return {
    url: kind === "udpin" ? `udpin://${hostText(own.address)}:${own.port}` : `udpout://${hostText(host)}:${port}`,
    clientUrl: kind === "udpin" ? `udpout://${hostText(reachable(own.address))}:${own.port}` : `udpin://${hostText(host)}:${port}`,
    write(frame) {
      if (dropped || closed) return;
      if (kind === "udpout") {
        socket.send(frame, port, host);
        return;
      }
      for (const [key, client] of clients) {
        if (performance.now() - client.heardMs > UDP_SILENCE_MS) clients.delete(key);
        else socket.send(frame, client.port, client.address);
      }
    },
    async drop(pulled) {
      dropped = true;
      clients.clear();
      await isBack(pulled);
      dropped = false;
    },
    async close() {
      if (closed) return;
      closed = true;
      const done = once(socket, "close");
      socket.close();
      await done;
    },
  };
}

function reachable(address: string): string {
  return address === "0.0.0.0" ? "127.0.0.1" : address === "::" ? "::1" : address;
}

function hostText(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
