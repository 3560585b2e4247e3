/** The serial ports of a machine that may be an autopilot's, and what else of the system wants them. */
import { namesIn, realPath, textOf, type View } from "./view.js";

const stable = ["/dev/autopilot", "/dev/serial/by-id"] as const;
/** ttyS1 and later are mostly empty sockets of a PC. */
const plain = /^(ttyACM\d+|ttyUSB\d+|ttyAMA\d+|ttyS0|ttyTHS\d+)$/;

export interface Port {
  /** The name that stays the same longest: that of our udev rules, udev's own, a Pi's "serial0", else the kernel's. */
  readonly name: string;
  /** The kernel's: "/dev/ttyACM0". */
  readonly path: string;
  /** It has a name that stays the same in another socket and after a restart. */
  readonly stable: boolean;
  /** Each baud rate is right: it is USB up to the autopilot. */
  readonly anyRate: boolean;
}

/** Each that is there, once, best names first. */
export function serialPorts(view: View): Port[] {
  const names = [
    ...stable.flatMap((dir) => namesIn(view, dir).map((name) => `${dir}/${name}`)),
    "/dev/serial0",
    ...namesIn(view, "/dev").flatMap((name) => (plain.test(name) ? [`/dev/${name}`] : [])),
  ];
  const found = new Map<string, Port>();
  for (const name of names) {
    const path = realPath(view, name);
    if (path === undefined || found.has(path)) continue;
    found.set(path, { name, path, stable: stable.some((dir) => name.startsWith(`${dir}/`)), anyRate: path.startsWith("/dev/ttyACM") });
  }
  return [...found.values()];
}

/** "/dev/ttyACM0" is whatever was plugged in first. */
export function isUsb(path: string): boolean {
  return /^\/dev\/tty(ACM|USB)\d+$/.test(path);
}

/** Who talks on a port while nobody is asked: `kernel` is the file that gives it the kernel's console, `login` the unit of a login. */
export function consoleOf(view: View, port: string): { readonly kernel?: string; readonly login?: string } {
  const files = ["/boot/firmware/cmdline.txt", "/boot/cmdline.txt", "/proc/cmdline"];
  const kernel = files.find((file) =>
    [...textOf(view, file).matchAll(/(?:^|\s)console=([^\s,]+)/g)].some(
      ([, tty = ""]) => tty !== "" && realPath(view, `/dev/${tty}`) === port,
    ),
  );
  const login = namesIn(view, "/etc/systemd/system/getty.target.wants").find((unit) => {
    const on = /^serial-getty@(.+)\.service$/.exec(unit)?.[1];
    return on !== undefined && realPath(view, `/dev/${on}`) === port;
  });
  return { ...(kernel === undefined ? {} : { kernel }), ...(login === undefined ? {} : { login }) };
}
