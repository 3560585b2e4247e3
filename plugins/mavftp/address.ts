/** Where an autopilot is reached, written as MAVSDK does: serial://PATH:BAUD, tcpout://HOST:PORT, tcpin://HOST:PORT, udpin://HOST:PORT, udpout://HOST:PORT. */
import { hostAndPort } from "../../core/net.js";

export type Address =
  | { readonly kind: "serial"; readonly path: string; readonly baud: number }
  | { readonly kind: "tcpout" | "tcpin" | "udpout" | "udpin"; readonly host: string; readonly port: number };

const DEFAULT_BAUD = 57_600;

/** Undefined for anything else. A serial path may hold colons; without a baud rate it is 57600 (USB ports ignore it). */
export function parseAddress(text: string): Address | undefined {
  const serial = /^serial:\/\/(\/.*?)(?::(\d{2,8}))?$/.exec(text);
  if (serial?.[1] !== undefined) return { kind: "serial", path: serial[1], baud: Number(serial[2] ?? DEFAULT_BAUD) };
  const net = /^(tcpout|tcpin|udpout|udpin):\/\/(?:\[([0-9a-fA-F:.]+)\]|([^:/[\]]*)):(\d{1,5})\/?$/.exec(text);
  const kind = net?.[1] as "tcpout" | "tcpin" | "udpout" | "udpin" | undefined;
  const port = Number(net?.[4]);
  if (net === null || kind === undefined || port < 1 || port > 65_535) return undefined;
  const host = net[2] ?? net[3] ?? "";
  if (host !== "") return { kind, host, port };
  return kind.endsWith("in") ? { kind, host: "0.0.0.0", port } : undefined;
}

/** Short, for people: "/dev/ttyACM0", "10.1.1.1:14550". */
export function placeOf(address: Address): string {
  return address.kind === "serial" ? address.path : hostAndPort(address.host, address.port);
}

/** The whole of it, for a memory: with the kind of link, and a serial port's baud rate. */
export function addressText(address: Address): string {
  return address.kind === "serial" ? `serial://${address.path}:${address.baud}` : `${address.kind}://${placeOf(address)}`;
}

/**
 * An autopilot's own USB port, by its name or that of the port that it is a link to; an adapter between USB and a UART is none ("ttyUSB0",
 * "…-if00-port0"). `real` follows links.
 */
export function isOwnUsb(address: Address, real: (path: string) => string): boolean {
  return address.kind === "serial" && [address.path, real(address.path)].some((path) => /\/(ttyACM\d+|usb-[^/]*-if\d\d)$/.test(path));
}
