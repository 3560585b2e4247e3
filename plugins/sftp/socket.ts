/**
 * The socket below ssh2, which writes each packet in three parts and makes new buffers for each of them: what is written in one turn of the loop goes out
 * in one call, and what has gone out is collected early. V8 by itself would wait for some 60 MB of such buffers.
 */
import { Socket } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** So many bytes go out between two collections, each of less than a millisecond. After fewer, what is still on its way would live through two, and then for long. */
const collectedBytes = 4 * 2 ** 20;

let collect: (() => void) | undefined;

/** Collects what is young. Where this V8 cannot be asked for it, memory is collected later. */
function collectYoung(): void {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc");
    const gc = runInNewContext("typeof gc === 'function' ? gc : undefined") as ((how: { type: "minor" }) => void) | undefined;
    collect = () => gc?.({ type: "minor" });
  }
  collect();
}

/** To be connected. */
export function gatheringSocket(): Socket {
  const socket = new Socket().setNoDelay(true);
  let sentBytes = 0;
  const send = (): void => {
    sentBytes += socket.writableLength;
    socket.uncork();
    if (sentBytes < collectedBytes) return;
    sentBytes = 0;
    collectYoung();
  };
  // `connect` puts back any other `write`.
  socket.once("connect", () => {
    const write = socket.write.bind(socket) as (...args: unknown[]) => boolean;
    socket.write = (...args: unknown[]) => {
      if (socket.writableCorked === 0) {
        socket.cork();
        process.nextTick(send);
      }
      return write(...args);
    };
  });
  return socket;
}
