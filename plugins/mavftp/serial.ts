/**
 * A serial port, USB or UART, opened for this program alone (an advisory lock, which other MAVLink programs that lock respect too).
 *
 * Each way in which a port cannot be used has its own words, because this is where most installations fail: missing, no permission (with the
 * command that gives it), held by another program, with the address to use in its place (`owners.ts`, `routers.ts`). The library with its native part is loaded only when a serial address is configured.
 */
import { access, constants, readFile, stat } from "node:fs/promises";
import { userInfo } from "node:os";
import { codeOf, Fault } from "../../core/errors.js";
import { OwnerWatch, SYSTEM, type Owner, type SystemRoots } from "./owners.js";
import { insteadOf, insteadOfUnknown } from "./routers.js";
import { BACKLOG_BYTES, type Wire, type WireEvents } from "./wire.js";

/** How often it is looked whether somebody else has opened the port: it is let go within 2 s. */
const OWNERS_MS = 1500;

/**
 * Throws Fault "offline" (missing, held) or "denied" (no permission, not a serial port). A port that another program opens later is lost.
 */
export async function openSerial(path: string, baud: number, events: WireEvents, system: SystemRoots = SYSTEM): Promise<Wire> {
  await checkUsable(path);
  const owners = new OwnerWatch(path, system);
  const owner = await owners.look();
  if (owner !== undefined) throw new Fault("offline", await ownedText(path, owner, system));
  const { SerialPort } = await import("serialport");
  const port = new SerialPort({ path, baudRate: baud, lock: true, autoOpen: false, highWaterMark: BACKLOG_BYTES });
  let closed = false;
  let watching: NodeJS.Timeout | undefined;
  function lose(reason: string): void {
    // `close` can come twice, and after an error.
    if (closed) return;
    closed = true;
    clearTimeout(watching);
    // Whether it could still be closed says nothing new.
    if (port.isOpen) port.close(() => events.lost(reason));
    else events.lost(reason);
  }
  // Opening raises DTR, for which USB boards wait before they send.
  await new Promise<void>((resolve, reject) => {
    port.open((error) => (error === null ? resolve() : reject(openFault(path, baud, error))));
  });
  async function watch(): Promise<void> {
    const other = await owners.look();
    if (other !== undefined) lose(await ownedText(path, other, system));
    else if (!closed) watching = setTimeout(() => void watch(), OWNERS_MS);
  }
  watching = setTimeout(() => void watch(), OWNERS_MS);
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
      clearTimeout(watching);
      return new Promise((resolve) => {
        if (port.isOpen) port.close(() => resolve());
        else resolve();
      });
    },
  };
}

async function ownedText(path: string, owner: Owner, { etc }: SystemRoots): Promise<string> {
  return `${path} is used by ${owner.name} (process ${owner.pid}): ${await insteadOf(owner, etc)}`;
}

/** Half of what came was torn, and nobody is seen who has the port. */
export async function tornText(path: string, { etc }: SystemRoots = SYSTEM): Promise<string> {
  return `half of what comes on ${path} is torn: another program takes bytes from it; ${await insteadOfUnknown(etc)}`;
}

async function checkUsable(path: string): Promise<void> {
  try {
    await access(path, constants.R_OK | constants.W_OK);
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT" || code === "ENOTDIR")
      throw new Fault("offline", `the port ${path} is missing: not plugged in, or it has another name`);
    if (code === "EACCES" || code === "EPERM") throw new Fault("denied", await permissionText(path, code), { cause: error });
    throw new Fault("offline", `the port ${path} cannot be looked at: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}

/** `code`: node's. Owners and groups refuse by EACCES; EPERM is the kernel's word for the rules of a control group. */
export async function permissionText(path: string, code: "EACCES" | "EPERM"): Promise<string> {
  if (code === "EPERM")
    return `no permission to use ${path}: the device rules of this service do not allow it; it needs "DeviceAllow=char-* rw" (sudo systemctl edit filesync)`;
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
    if (codeOf(error) !== "") return undefined;
    throw error;
  }
}

function userName(): string {
  try {
    return userInfo().username;
  } catch (error) {
    // A service may run under a number without a name.
    if (codeOf(error) !== "") return "USER";
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
