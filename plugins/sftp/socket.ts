/** The socket below ssh2, which writes each packet in three parts: what is written in one turn of the loop goes out in one call. */
import { Socket } from "node:net";

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
