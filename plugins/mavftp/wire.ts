/**
 * One open way for bytes: TCP or UDP, out or in; a serial port is in `serial.ts`. A wire is opened once and lost once: then `lost` is called with
 * the reason, and a new one has to be opened. Bytes are always taken, so that an unplugged port is noticed. What the other side does not
 * take in time is thrown away: MAVLink asks again.
 */
import { createSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { createServer, Socket } from "node:net";
import { codeOf, Fault } from "../../core/errors.js";
import { realOf } from "../../core/fs.js";
import { addressText, placeOf, type Address } from "./address.js";
import { openSerial } from "./serial.js";

export interface Wire {
  /** Frames, in order; each a buffer of its own. */
  write(frames: readonly Buffer[]): void;
  /** Called while what came is taken: it is of whom we talk to, and what is written goes to where that came from. */
  stay?(): void;
  /** Idempotent; `lost` is not called afterwards. */
  close(): Promise<void>;
}

export interface WireEvents {
  bytes(chunk: Buffer): void;
  /** At most once. */
  lost(reason: string): void;
}

const CONNECT_MS = 5000;
/** More than this waiting to be sent is not sent. */
export const BACKLOG_BYTES = 65_536;

/** What this process has open that nobody can open twice, by the signal of whose it is. */
const ours = new Map<string, AbortSignal>();

/** Opens it, unless the signal comes before. Throws Fault "offline" or "denied", whose message says what to do. */
export async function openWire(address: Address, events: WireEvents, signal: AbortSignal): Promise<Wire> {
  if (address.kind === "tcpout" || address.kind === "udpout") return open(address, events, signal);
  const key = address.kind === "serial" ? realOf(address.path) : addressText(address);
  const place = placeOf(address);
  if (ours.has(key))
    throw new Fault(
      "offline",
      `${place} is used by another device of this configuration: one device reads one autopilot on it; for a second one put a router between (mavlink-router), with an endpoint for each`,
    );
  ours.set(key, signal);
  const free = (): void => {
    if (ours.get(key) === signal) ours.delete(key);
  };
  try {
    const lost = (reason: string): void => {
      free();
      events.lost(reason);
    };
    const wire = await open(address, { bytes: (chunk) => events.bytes(chunk), lost }, signal);
    return { ...wire, close: () => wire.close().finally(free) };
  } catch (error) {
    free();
    throw error;
  }
}

function open(address: Address, events: WireEvents, signal: AbortSignal): Promise<Wire> {
  switch (address.kind) {
    case "serial":
      return openSerial(address.path, address.baud, events);
    case "tcpout":
      return openTcpOut(address.host, address.port, events, signal);
    case "tcpin":
      return openTcpIn(address.host, address.port, events);
    case "udpout":
    case "udpin":
      return openUdp(address, events);
  }
}

function reasonOf(error: unknown): string {
  const code = codeOf(error);
  const known: Readonly<Record<string, string>> = {
    ECONNREFUSED: "nothing listens there (connection refused)",
    ECONNRESET: "the connection was reset",
    EHOSTUNREACH: "there is no way to that host",
    ENETUNREACH: "there is no way to that network",
    ENOTFOUND: "that host name is not known",
    EAI_AGAIN: "the host name could not be looked up",
    EADDRINUSE: "another program uses that port",
    EADDRNOTAVAIL: "that address is not one of this machine",
    EACCES: "no right to that port",
  };
  return known[code] ?? (error instanceof Error ? error.message : String(error));
}

async function openTcpOut(host: string, port: number, events: WireEvents, signal: AbortSignal): Promise<Wire> {
  const place = placeOf({ kind: "tcpout", host, port });
  const socket = new Socket();
  const timer = setTimeout(() => socket.destroy(new Error("no answer")), CONNECT_MS);
  const stop = (): void => void socket.destroy(new Error("stopped"));
  signal.addEventListener("abort", stop, { once: true });
  try {
    socket.connect(port, host);
    await once(socket, "connect");
  } catch (error) {
    socket.destroy();
    throw new Fault("offline", `cannot connect to ${place}: ${reasonOf(error)}`, { cause: error });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
  return tcpWire(socket, events, (why) => `the connection to ${place} ended${why}`);
}

function tcpWire(socket: Socket, events: WireEvents, lost: (why: string) => string): Wire {
  let closed = false;
  let why = "";
  socket.setNoDelay(true);
  socket.on("data", (chunk) => events.bytes(chunk));
  socket.on("error", (error) => (why = `: ${reasonOf(error)}`));
  socket.on("close", () => {
    if (closed) return;
    closed = true;
    events.lost(lost(why));
  });
  return {
    write(frames) {
      if (socket.writableLength < BACKLOG_BYTES) socket.write(frames.length === 1 ? (frames[0] as Buffer) : Buffer.concat(frames));
    },
    async close() {
      closed = true;
      if (socket.closed) return;
      const done = once(socket, "close");
      socket.destroy();
      await done;
    },
  };
}

/** Whoever connects last is the autopilot: one that comes again may have left its old connection half open. */
async function openTcpIn(host: string, port: number, events: WireEvents): Promise<Wire> {
  const server = createServer();
  let client: Wire | undefined;
  let closed = false;
  server.on("connection", (socket) => {
    const before = client;
    const own = tcpWire(
      socket,
      { bytes: (chunk) => events.bytes(chunk), lost: () => (client = client === own ? undefined : client) },
      String,
    );
    client = own;
    void before?.close();
  });
  try {
    server.listen(port, host);
    await once(server, "listening");
  } catch (error) {
    throw new Fault("offline", `cannot listen on ${placeOf({ kind: "tcpin", host, port })}: ${reasonOf(error)}`, { cause: error });
  }
  return {
    write: (frames) => client?.write(frames),
    async close() {
      if (closed) return;
      closed = true;
      const done = once(server, "close");
      server.close();
      await client?.close();
      await done;
    },
  };
}

async function openUdp(address: Exclude<Address, { kind: "serial" }>, events: WireEvents): Promise<Wire> {
  const out = address.kind === "udpout";
  let to: { address: string; port: number } | undefined;
  let ipv6: boolean;
  try {
    const found = await lookup(address.host);
    ipv6 = found.family === 6;
    if (out) to = { address: found.address, port: address.port };
  } catch (error) {
    throw new Fault("offline", `cannot reach ${placeOf(address)}: ${reasonOf(error)}`, { cause: error });
  }
  const socket = createSocket({
    type: ipv6 ? "udp6" : "udp4",
    recvBufferSize: 1 << 20,
    // Addresses are numbers by now: looking each up again, for each packet, costs more than sending it.
    lookup: (host, _options, found) => found(null, host, ipv6 ? 6 : 4),
  });
  try {
    // Waited for before it is begun: without a lookup it may be done at once.
    const listening = once(socket, "listening");
    if (out) socket.bind(0);
    else socket.bind(address.port, address.host);
    await listening;
  } catch (error) {
    socket.close();
    throw new Fault("offline", `cannot listen on ${placeOf(address)}: ${reasonOf(error)}`, { cause: error });
  }
  let closed = false;
  async function close(): Promise<void> {
    if (closed) return;
    closed = true;
    const done = once(socket, "close");
    socket.close();
    await done;
  }
  let from: typeof to;
  let stays = false;
  socket.on("message", (chunk, { address, port }) => {
    from = { address, port };
    // Towards a vehicle that calls us, the answer goes to where it called from last; of several that do, to ours.
    if (!out && !stays) to = from;
    events.bytes(chunk);
  });
  socket.on("error", (error) => {
    if (closed) return;
    void close();
    events.lost(`${placeOf(address)} failed: ${reasonOf(error)}`);
  });
  return {
    write(frames) {
      if (to === undefined || closed) return;
      for (const frame of frames)
        socket.send(frame, to.port, to.address, (error) => {
          // A network that is down now is silence; when it stays so, the missing heartbeat says it.
          if (!closed && codeOf(error) === "EBADF") events.lost(reasonOf(error));
        });
    },
    stay() {
      stays = true;
      if (!out) to = from;
    },
    close,
  };
}
