/** Sticks plugged and pulled at moments of chance while the daemon works. */
import type { Random } from "../faults/random.js";
import type { Daemon, Transfer } from "./daemon.js";
import type { Machine } from "./machine.js";
import type { UsbStick } from "./sticks.js";

const mib = 2 ** 20;

/** One stay of a stick. */
export interface Stay {
  readonly stick: string;
  /** It was pulled at a moment when it may not have been noticed yet. */
  readonly early: boolean;
  /** So many transfers ran at the last look before the pull. */
  readonly broken: number;
  /** Told by QEMU, outside: everything that was read and written, listings and what the kernel reads ahead too. */
  readonly read: number;
  readonly written: number;
}

export interface SessionsGiven {
  readonly machine: Machine;
  readonly daemon: Daemon;
  readonly random: Random;
  /** Of the configuration: the device that the stick is. */
  readonly device: string;
  readonly pulls: number;
  readonly say: (line: string) => void;
}

export const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Resolves once the daemon says that this stick is in, after the first `from` of what was seen. */
export function isIn(daemon: Daemon, device: string, { uuid }: UsbStick, from: number): Promise<void> {
  const said = ({ message }: { message: string }) => message.startsWith(`${device}: ${uuid}`) && message.includes(" is in: ");
  return daemon.until(said, `that ${device} sees ${uuid}`, from);
}

/** Plugs it and pulls it again `pulls` times. Throws when the daemon does not notice it. */
export async function plugAndPull({ machine, daemon, random, device, pulls, say }: SessionsGiven, stick: UsbStick): Promise<Stay[]> {
  const stays: Stay[] = [];
  for (let n = 1; n <= pulls; n++) {
    const early = random.next() < 0.2;
    const bps = random.pick([1, 2, 4, 8]) * mib;
    const from = daemon.seen.length;
    const slow = { ...stick, bps };
    await machine.plug(slow);
    if (early) await pause(random.between(0, 3000));
    else {
      await isIn(daemon, device, stick, from);
      await pause(random.between(100, 5000));
    }
    const broken = daemon.moved?.transfers.filter((transfer) => isOf(transfer, device, stick)) ?? [];
    const { read, written } = await machine.pull(slow);
    stays.push({ stick: stick.name, early, broken: broken.length, read, written });
    const what = broken.map(({ path, offset }) => `${path} at ${(offset / mib).toFixed(1)} MiB`).join(", ");
    say(`  ${stick.name}: pull ${n} of ${pulls}, ${bps / mib} MiB/s${early ? ", early" : ""}: ${what || "nothing ran"}`);
    // Sometimes at once, while the daemon still clears away.
    await pause(random.next() < 0.3 ? 0 : random.between(100, 3000));
  }
  return stays;
}

/** Of a device of several the path begins with the stick. */
function isOf({ from, to, path }: Transfer, device: string, { uuid }: UsbStick): boolean {
  return (to === device || (from === device && to === "spool")) && (device !== "any" || path.startsWith(`${uuid}/`));
}
