/** The socket below ssh2, which writes each packet in three parts: what is written in one turn of the loop goes out in one call. */
import { Socket } from "node:net";

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
