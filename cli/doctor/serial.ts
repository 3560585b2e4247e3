/** Serial ports: those that are there, the configured ones, who else has them, who may use them, and what else of the system wants them. */
import { join } from "node:path";
import type { DeviceConfig } from "../../core/config.js";
import { type Owner, OwnerWatch } from "../../plugins/mavftp/owners.js";
import type { MavftpOptions } from "../../plugins/mavftp/plugin.js";
import { insteadOf } from "../../plugins/mavftp/routers.js";
import { type Finding, findingsOf } from "./finding.js";
import { consoleOf, isUsb, type Port, serialPorts } from "../machine/ports.js";
import {
  at,
  groupName,
  isThere,
  linkOf,
  namesIn,
  processesOf,
  read,
  realPath,
  statOf,
  textOf,
  type User,
  type View,
} from "../machine/view.js";

const finding = findingsOf("serial");

/** A device of the configuration that has a serial port of its own. */
export interface SerialDevice {
  readonly name: string;
  readonly path: string;
}

export function serialDevices(devices: readonly DeviceConfig[]): SerialDevice[] {
  return devices.flatMap(({ name, type, options }) => {
    if (type !== "mavftp") return [];
    const { url } = options as MavftpOptions;
    return url.kind === "serial" ? [{ name, path: url.path }] : [];
  });
}

/** `stateDir`: whoever has that is the daemon of these devices. */
export async function checkSerial(view: View, devices: readonly SerialDevice[], user: User, stateDir: string): Promise<Finding[]> {
  const known = serialPorts(view);
  const ports = known.map(({ name, path }) => (name === path ? name : `${name} (${path})`));
  const there = ports.length === 0 ? "no serial port is there" : `there are ${ports.join(", ")}`;
  const found = [finding("ok", "serial ports", there)];
  for (const device of devices) {
    const { name, path } = device;
    const port = realPath(view, path);
    if (port === undefined) {
      found.push(
        finding(
          "bad",
          name,
          `the port ${path} is missing: not plugged in, switched off, or it has another name; ${there}`,
          "ls -l /dev/serial/by-id/",
          "sudo dmesg | grep -i tty | tail",
          ...known
            .filter((one) => one.stable)
            .slice(0, 1)
            .map((one) => advice(name, one)),
        ),
      );
      continue;
    }
    const own = [
      ...named(name, path, port, known),
      ...(await held(view, name, path, port, stateDir)),
      ...usable(view, name, path, port, user),
      ...consoleOn(view, name, path, port),
      ...bluetooth(view, name, path, port),
      ...modemManager(view, name, path, port),
    ];
    if (!own.some(({ severity }) => severity === "bad" || severity === "warn"))
      own.push(finding("ok", name, `${path} is there, and ${user.name} may use it`));
    found.push(...own);
  }
  return found;
}

/** Of a name that changes, the one that stays. */
function named(name: string, path: string, port: string, known: readonly Port[]): Finding[] {
  const better = known.find((one) => one.path === port && one.stable);
  if (better === undefined || !isUsb(path)) return [];
  return [finding("warn", name, `${path} is another port once something else is plugged in first`, advice(name, better))];
}

function advice(device: string, { name }: Port): string {
  return `# in the configuration of ${device}: "url": "serial://${name}:57600"`;
}

/** What to type about programs that are known to take ports. */
const stops: readonly (readonly [RegExp, readonly string[]])[] = [
  [/^ModemManager$/i, ["sudo systemctl disable --now ModemManager"]],
  [/^gpsd$/i, ["sudo systemctl disable --now gpsd.socket gpsd", '# or name the receiver alone: DEVICES="…" in /etc/default/gpsd']],
  [/mavlink-router/i, ["sudo systemctl stop mavlink-router"]],
  [/^agetty$/i, ["sudo raspi-config nonint do_serial_cons 1", "sudo reboot"]],
];

async function held(view: View, name: string, path: string, port: string, stateDir: string): Promise<Finding[]> {
  const roots = { proc: at(view, "/proc"), etc: at(view, "/etc") };
  const all = await new OwnerWatch(port, roots).all();
  const others = all.filter((owner) => !isDaemon(view, owner, stateDir));
  const found = await Promise.all(
    others.map(async (owner) => {
      const todo = stops.find(([program]) => program.test(owner.name))?.[1] ?? [];
      const instead = await insteadOf(owner, roots.etc);
      return finding(
        "bad",
        name,
        `${path} is used by ${owner.name} (process ${owner.pid}), so it is left to that: ${instead}`,
        ...(todo.length > 0 ? todo : [`ps -p ${owner.pid} -o pid,user,args`]),
      );
    }),
  );
  if (found.length === 0 && view.me.uid !== 0)
    found.push(
      finding(
        "unseen",
        name,
        `who else has ${path} open: the open files of other users are hidden from ${view.me.name}`,
        `sudo fuser -v ${path}`,
      ),
    );
  return found;
}

/** The daemon of this configuration, however it was started: it may have the port. */
function isDaemon(view: View, { pid }: Owner, stateDir: string): boolean {
  const lock = realPath(view, join(stateDir, "lock"));
  return lock !== undefined && namesIn(view, `/proc/${pid}/fd`).some((fd) => linkOf(view, `/proc/${pid}/fd/${fd}`) === lock);
}

function usable(view: View, name: string, path: string, port: string, user: User): Finding[] {
  const stat = statOf(view, port);
  if (stat === undefined || user.uid === 0) return [];
  const may = stat.uid === user.uid ? 0o600 : user.groups.includes(stat.gid) ? 0o060 : 0o006;
  if ((stat.mode & may) === may) return [];
  const group = groupName(view, stat.gid);
  // To be in the group root is no way to get at a port.
  if (group === "root" || (stat.mode & 0o060) !== 0o060)
    return [
      finding(
        "bad",
        name,
        `${user.name} may not use ${path}, nor may a group`,
        `echo 'KERNEL=="${port.replace("/dev/", "").replace(/\d+$/, "*")}", GROUP="dialout", MODE="0660"' | sudo tee /etc/udev/rules.d/60-serial.rules`,
        "sudo udevadm control --reload && sudo udevadm trigger",
      ),
    ];
  return [
    finding(
      "bad",
      name,
      `${user.name} may not use ${path}: it belongs to the group ${group}`,
      `sudo usermod -aG ${group} ${user.name}`,
      "# log in again; a service: sudo systemctl restart filesync",
    ),
  ];
}

/** A login console or the kernel's on the port of an autopilot. */
function consoleOn(view: View, name: string, path: string, port: string): Finding[] {
  const { kernel: from, login: wanted } = consoleOf(view, port);
  const tty = port.replace("/dev/", "");
  if (from === undefined && wanted === undefined) return [];
  const what = [
    ...(from === undefined ? [] : [`the kernel's console is on it (${from})`]),
    ...(wanted === undefined ? [] : [`a login waits on it (${wanted})`]),
  ];
  const raspi = isThere(view, "/usr/bin/raspi-config");
  return [
    finding(
      "bad",
      name,
      `${path}: ${what.join(", and ")}: it talks to the autopilot`,
      ...(wanted === undefined ? [] : [`sudo systemctl disable --now ${wanted}`]),
      ...(from === undefined
        ? []
        : [raspi ? "sudo raspi-config nonint do_serial_cons 1" : `# take "console=…" of ${tty} out of the kernel's command line`]),
      "sudo reboot",
    ),
  ];
}

/** A Raspberry Pi's good UART is wired to its Bluetooth chip, and what is left at the pins has a baud rate that changes with the load. */
function bluetooth(view: View, name: string, path: string, port: string): Finding[] {
  if (path !== "/dev/serial0" && port !== "/dev/ttyAMA0") return [];
  if (!textOf(view, "/proc/device-tree/model").startsWith("Raspberry Pi")) return [];
  // serial1 is Bluetooth's, where it has one.
  const taken = realPath(view, "/dev/serial1");
  if (taken === undefined) return [];
  const config = isThere(view, "/boot/firmware/config.txt") ? "/boot/firmware/config.txt" : "/boot/config.txt";
  const todo = [`echo dtoverlay=disable-bt | sudo tee -a ${config}`, "sudo systemctl disable hciuart", "sudo reboot"];
  if (taken === port) return [finding("warn", name, `${path} is the UART of this Pi's Bluetooth, not that of its pins`, ...todo)];
  if (port !== "/dev/ttyS0") return [];
  return [
    finding("warn", name, `${path} is the Pi's small UART (Bluetooth has the good one): it loses bytes at higher baud rates`, ...todo),
  ];
}

/** ModemManager tries AT commands on what may be a modem, for some 30 s after it was plugged in. */
function modemManager(view: View, name: string, path: string, port: string): Finding[] {
  if (!isUsb(port) || processesOf(view, "ModemManager").length === 0) return [];
  const ignored = udevOf(view, port);
  if (ignored === "ignored") return [];
  if (ignored === "unknown")
    return [
      finding("unseen", name, `whether ModemManager keeps off ${path}: udev's notes are hidden`, `udevadm info ${path} | grep ID_MM`),
    ];
  return [
    finding(
      "warn",
      name,
      `ModemManager runs, and was not told to keep off ${path}: for half a minute after it is plugged in it takes its bytes`,
      "sudo systemctl disable --now ModemManager",
      `# or, with a modem of its own here: echo 'SUBSYSTEM=="tty", KERNEL=="${port.replace("/dev/", "").replace(/\d+$/, "*")}", ENV{ID_MM_DEVICE_IGNORE}="1", ENV{ID_MM_PORT_IGNORE}="1"' | sudo tee /etc/udev/rules.d/99-autopilot.rules && sudo udevadm control --reload && sudo udevadm trigger`,
    ),
  ];
}

/** udev's properties of the port and of the USB device that it belongs to (/run/udev/data). */
function udevOf(view: View, port: string): "ignored" | "open" | "unknown" {
  const tty = port.replace("/dev/", "");
  const sys = `/sys/class/tty/${tty}`;
  const device = realPath(view, `${sys}/device`);
  // ttyACM0 hangs at an interface, ttyUSB0 one below it.
  const dirs = [sys, ...(device === undefined ? [] : [join(device, ".."), join(device, "../..")])];
  for (const dir of dirs) {
    const number = textOf(view, `${dir}/dev`).trim();
    if (number === "") continue;
    const notes = read(view, `/run/udev/data/c${number}`);
    if (notes !== undefined && "denied" in notes) return "unknown";
    if (notes !== undefined && /^E:ID_MM_(DEVICE|PORT)_IGNORE=1$/m.test(notes.text)) return "ignored";
  }
  return "open";
}
