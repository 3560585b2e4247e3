/** The socket below ssh2, which writes each packet in three parts: what is written in one turn of the loop goes out in one call. */
import { Socket } from "node:net";
import { unacknowledged } from "../../core/net.js";

/** A server's own lines before it (RFC 4253, section 4.2) are not longer. */
const mostBytes = 16 * 1024;

/** To be connected. */
export function gatheringSocket(): Socket {
  const socket = new Socket().setNoDelay(true);
  // `connect` puts back any other `write`.
  socket.once("connect", () => {
    const write = socket.write.bind(socket) as (...args: unknown[]) => boolean;
    socket.write = (...args: unknown[]) => {
      if (socket.writableCorked === 0) {
        socket.cork();
        process.nextTick(() => socket.uncork());
      }
      return write(...args);
    };
  });
  return socket;
}

/** What the server calls itself, as "OpenSSH_9.2p1": undefined until it said so. Before the socket is connected. */
export function softwareOf(socket: Socket): () => string | undefined {
  let text = "";
  const take = (bytes: Buffer): void => {
    text += bytes.toString("latin1");
    if (softwareIn(text) !== undefined || text.length > mostBytes) socket.off("data", take);
  };
  socket.on("data", take);
  return () => softwareIn(text);
}

function softwareIn(text: string): string | undefined {
  return /^SSH-[^-\r\n]*-([^ \r\n]*)[^\n]*\n/m.exec(text)?.[1];
}

/** Of what a socket was given to send, how much its other side said it has. Of a write that is under way, all that the system has not. */
function gone(socket: Socket): number {
  return socket.bytesWritten - socket.writableLength - unacknowledged(socket);
}

/** Calls `dead` once nothing came and nothing went for so many looks, `everyMs` apart; between them, something is asked. Returns what ends it. */
export function watchMoves(socket: Socket, everyMs: number, looks: number, dead: () => void): () => void {
  let before = 0;
  let still = 0;
  const timer = setInterval(() => {
    const now = socket.bytesRead + gone(socket);
    still = now === before ? still + 1 : 0;
    before = now;
    if (still >= looks) dead();
  }, everyMs).unref();
  return () => clearInterval(timer);
}

/** Over a slow link what is asked waits behind what goes before it: the other side is silent only from when it has that. */
export class Departure {
  readonly #socket: Socket;
  /** What was given when the first time of silence was over; 0 once all of that has gone. */
  #given: number | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** An answer came. */
  heard(): void {
    this.#given = undefined;
  }

  /** After a time of silence: whether to wait as long once more, as what was asked had not gone before. */
  excuses(): boolean {
    const late = this.#given !== undefined && this.#given > 0;
    this.#given ??= this.#socket.bytesWritten;
    if (gone(this.#socket) < this.#given) return true;
    this.#given = 0;
    return late;
  }
}
