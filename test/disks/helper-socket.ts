/**
 * The part of systemd for a socket with Accept=yes: `node helper-socket.js SOCKET GROUP COMMAND…` listens at SOCKET, which GROUP may open, and starts
 * the command for each connection, with it as standard input and output. Prints "listening".
 */
import { spawn } from "node:child_process";
import { chmodSync, chownSync, mkdirSync } from "node:fs";
import { createServer } from "node:net";
import { dirname } from "node:path";

const [path = "", group = "", command = "", ...args] = process.argv.slice(2);
mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
createServer({ pauseOnConnect: true }, (socket) => {
  socket.on("error", (error) => process.stderr.write(`${error.message}\n`));
  const child = spawn(command, args, { stdio: [socket, socket, "inherit"] });
  // The child has it now.
  child.once("spawn", () => socket.destroy());
}).listen(path, () => {
  chownSync(path, 0, Number(group));
  chmodSync(path, 0o660);
  process.stdout.write("listening\n");
});
