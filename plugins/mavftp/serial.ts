/**
 * A serial port, USB or UART, opened for this program alone (an advisory lock, which other MAVLink programs that lock respect too).
 *
 * Each way in which a port cannot be used has its own words, because this is where most installations fail: missing, no permission (with the
 * command that gives it), held by another program. The library with its native part is loaded only when a serial address is configured.
 */
import { access, constants, readFile, stat } from "node:fs/promises";
import { userInfo } from "node:os";
import { Fault } from "../../core/errors.js";
import { BACKLOG_BYTES, type Wire, type WireEvents } from "./wire.js";

/** Throws Fault "offline" (missing, held) or "denied" (no permission, not a serial port). */
export async function openSerial(path: string, baud: number, events: WireEvents): Promise<Wire> {
  await checkUsable(path);
  const { SerialPort } = await import("serialport");
  const port = new SerialPort({ path, baudRate: baud, lock: true, autoOpen: false, highWaterMark: BACKLOG_BYTES });
  let closed = false;
  function lose(reason: string): void {
    // `close` can come twice, and after an error.
    if (closed) return;
    closed = true;
    // Whether it could still be closed says nothing new.
    if (port.isOpen) port.close(() => events.lost(reason));
    else events.lost(reason);
  }
  // Opening raises DTR, for which USB boards wait before they send.
  await new Promise<void>((resolve, reject) => {
    port.open((error) => (error === null ? resolve() : reject(openFault(path, baud, error))));
  });
  port.on("data", (chunk: Buffer) => events.bytes(chunk));
  port.on("error", (error) => lose(`${path} failed: ${error.message}`));
  port.on("close", () => lose(`${path} was unplugged`));
  port.on("end", () => lose(`${path} was unplugged`));
  return {
    write(frames) {
      if (port.isOpen && port.writableLength < BACKLOG_BYTES) port.write(frames.length === 1 ? frames[0] : Buffer.concat(frames));
    },
    close() {
      closed = true;
      return new Promise((resolve) => {
        if (port.isOpen) port.close(() => resolve());
        else resolve();
      });
    },
  };
}

async function checkUsable(path: string): Promise<void> {
  try {
    await access(path, constants.R_OK | constants.W_OK);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : "";
    if (code === "ENOENT" || code === "ENOTDIR")
      throw new Fault("offline", `the port ${path} is missing: not plugged in, or it has another name`);
    if (code === "EACCES" || code === "EPERM") throw new Fault("denied", await permissionText(path), { cause: error });
    throw new Fault("offline", `the port ${path} cannot be looked at: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}

async function permissionText(path: string): Promise<string> {
  const group = await groupOf(path);
  const user = userName();
  // To be in the group root is no way to get at a port.
  if (group === undefined || group === "root")
    return `no permission to use ${path}: a udev rule has to give it to a group such as dialout, and ${user} has to be in it`;
  return `no permission to use ${path}: it belongs to the group ${group}; run "sudo usermod -aG ${group} ${user}", then log in again (a service: restart it)`;
}

async function groupOf(path: string): Promise<string | undefined> {
  try {
    const { gid } = await stat(path);
    const groups = await readFile("/etc/group", "utf8");
    return (
      groups
        .split("\n")
        .find((line) => line.split(":")[2] === String(gid))
        ?.split(":")[0] ?? String(gid)
    );
  } catch (error) {
    // The directory may not even be looked into: then there is no group to name.
    if (error instanceof Error && "code" in error) return undefined;
    throw error;
  }
}

function userName(): string {
  try {
    return userInfo().username;
  } catch (error) {
    // A service may run under a number without a name.
    if (error instanceof Error && "code" in error) return "USER";
    throw error;
  }
}

function openFault(path: string, baud: number, error: Error): Fault {
  const said = error.message.replace(/^Error:?\s*/, "");
  if (/lock|busy|temporarily unavailable/i.test(said))
    return new Fault("offline", `${path} is held by another program (a ground station, ModemManager?): close it there`, { cause: error });
  if (/no such (file|device)/i.test(said))
    return new Fault("offline", `the port ${path} is missing: not plugged in, or it has another name`);
  if (/permission/i.test(said)) return new Fault("denied", `no permission to use ${path}`, { cause: error });
  if (/baud/i.test(said)) return new Fault("denied", `${path} cannot be set to ${baud} baud: ${said}`, { cause: error });
  if (/inappropriate ioctl|not a typewriter/i.test(said)) return new Fault("denied", `${path} is not a serial port`, { cause: error });
  return new Fault("offline", `cannot open ${path}: ${said}`, { cause: error });
}
