/**
 * Which address to use in place of a port that another MAVLink program has: each of them passes MAVLink on, if told to.
 *
 * mavlink-router: /etc/mavlink-router/main.conf or the file of its option -c; TcpServerPort is 5760 unless it says otherwise, 0 is none; an
 * endpoint of mode Normal sends to its address, one of mode Server (formerly Eavesdropping) waits there. MAVProxy: its option --out. mavros: its
 * parameter gcs_url. BlueOS: its internal endpoint, TCP 5777 of this machine.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Owner } from "./owners.js";

/** What a mavlink-router is told. */
export interface RouterConfig {
  /** Its serial ports. */
  readonly devices: readonly string[];
  /** Addresses for us, best first. */
  readonly urls: readonly string[];
}

const TCP_PORT = 5760;
const BLUEOS = "tcpout://127.0.0.1:5777";
/** What we propose where nothing is set up yet. */
const FREE_PORT = 14_551;

/** The configuration of a mavlink-router that runs with these arguments. */
export async function configOf(args: readonly string[], etc: string): Promise<RouterConfig> {
  const given = valuesOf(args, ["-c", "--conf-file"])[0];
  const text = await readFile(given ?? join(etc, "mavlink-router/main.conf"), "utf8").catch(() => "");
  return parseRouterConfig(text, valuesOf(args, ["-t", "--tcp-port"])[0]);
}

/** `tcpPort`: what its command line says. */
export function parseRouterConfig(text: string, tcpPort?: string): RouterConfig {
  const devices: string[] = [];
  const udp: string[] = [];
  let tcp = Number(tcpPort ?? TCP_PORT);
  for (const section of text.split(/^\s*(?=\[)/m)) {
    const kind = /^\[\s*(\w+)/.exec(section)?.[1]?.toLowerCase();
    const value = (key: string): string | undefined => new RegExp(`^\\s*${key}\\s*=\\s*([^#\\r\\n]*)`, "im").exec(section)?.[1]?.trim();
    const port = value("Port");
    if (kind === "general" && tcpPort === undefined) tcp = Number(value("TcpServerPort") ?? tcp);
    else if (kind === "uartendpoint") devices.push(value("Device") ?? "");
    else if (kind === "udpendpoint" && port !== undefined) {
      const waits = /^(server|eavesdropping)$/i.test(value("Mode") ?? "");
      const local = /^(127\.|localhost$|::1$)/.test(value("Address") ?? "");
      if (waits) udp.push(`udpout://127.0.0.1:${port}`);
      else if (local) udp.push(`udpin://127.0.0.1:${port}`);
    }
  }
  return { devices, urls: [...(tcp > 0 ? [`tcpout://127.0.0.1:${tcp}`] : []), ...udp] };
}

/** What a person has to do so that both programs work, as the end of a sentence. */
export async function insteadOf(owner: Owner, etc: string): Promise<string> {
  const { name, args } = owner;
  const whole = args.join(" ");
  if (/blueos|ardupilot_manager|mavlink-server/i.test(whole) || /blueos|mavlink-server/i.test(name)) return use([BLUEOS]);
  if (/mavlink-router/i.test(name)) {
    const { urls } = await configOf(args, etc);
    return urls.length > 0
      ? use(urls)
      : `give it a UdpEndpoint (Mode = Normal, 127.0.0.1, port ${FREE_PORT}) and ${use([`udpin://127.0.0.1:${FREE_PORT}`])}`;
  }
  if (/mavproxy/i.test(name)) {
    const urls = valuesOf(args, ["--out"]).flatMap(fromMavproxy);
    return urls.length > 0 ? use(urls) : `start it with --out=udpout:127.0.0.1:${FREE_PORT} and ${use([`udpin://127.0.0.1:${FREE_PORT}`])}`;
  }
  if (/mavros/i.test(whole)) {
    const port = /gcs_url:?=udp:\/\/[^@]*@(?:127\.0\.0\.1|localhost)?:?(\d+)/.exec(whole)?.[1];
    return port === undefined
      ? `set its gcs_url to udp://@127.0.0.1:${FREE_PORT} and ${use([`udpin://127.0.0.1:${FREE_PORT}`])}`
      : use([`udpin://127.0.0.1:${port}`]);
  }
  if (name === "ModemManager") return "it takes it for a modem: disable it, or let udev tell it to keep off (ID_MM_DEVICE_IGNORE)";
  if (name === "gpsd") return "it takes it for a GPS receiver: disable it, or name the receiver in /etc/default/gpsd";
  return "close it there, or let it pass MAVLink on by UDP or TCP and use that address";
}

/** What every program of these can be asked for, where it is not known which one it is. */
export async function insteadOfUnknown(etc: string): Promise<string> {
  const text = await readFile(join(etc, "mavlink-router/main.conf"), "utf8").catch(() => undefined);
  const urls = text === undefined ? [] : parseRouterConfig(text).urls;
  return urls.length > 0 ? use(urls) : "close it there, or let it pass MAVLink on by UDP or TCP and use that address";
}

function use(urls: readonly string[]): string {
  return `use ${urls.map((url) => `"url": "${url}"`).join(" or ")} instead`;
}

/** The values of an option in each of its forms: "--out=X", "--out X", "-cX" is not one of them. */
function valuesOf(args: readonly string[], names: readonly string[]): string[] {
  return args.flatMap((arg, i) => {
    const [name, ...rest] = arg.split("=");
    if (!names.includes(name ?? "")) return [];
    const value = rest.length > 0 ? rest.join("=") : args[i + 1];
    return value === undefined ? [] : [value];
  });
}

/** MAVProxy's "udp:H:P", "udpout:H:P", "H:P" send there; "udpin:" and "tcpin:" wait. Only what is on this machine. */
function fromMavproxy(out: string): string[] {
  const match = /^(?:(udp|udpout|udpin|tcpin):)?(127\.0\.0\.1|localhost|0\.0\.0\.0):(\d+)$/.exec(out);
  if (match === null) return [];
  const kind = { udpin: "udpout", tcpin: "tcpout" }[match[1] ?? ""] ?? "udpin";
  return [`${kind}://127.0.0.1:${match[3]}`];
}
