/**
 * Which address to use in place of a port that another MAVLink program has: each of them passes MAVLink on, if told to.
 *
 * mavlink-router: /etc/mavlink-router/main.conf or the file of its option -c, then the *.conf of config.d or of its option -d, by name; TcpServerPort is
 * 5760 unless they say otherwise, 0 is none; an endpoint of mode Normal sends to its address (so does its option -e), one of mode Server (formerly
 * Eavesdropping) waits there. MAVProxy: its option --out. mavros: its parameter gcs_url, given as an argument or in the file of --params-file. BlueOS:
 * its internal endpoint, TCP 5777 of this machine.
 */
import { readdir, readFile } from "node:fs/promises";
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
export const FREE_PORT = 14_551;

/** What a mavlink-router that runs with these arguments is told; without its process: with none. */
export async function configOf(args: readonly string[], etc: string): Promise<RouterConfig> {
  const dir = valuesOf(args, ["-d", "--conf-dir"])[0] ?? join(etc, "mavlink-router/config.d");
  const more = await readdir(dir).catch(() => []);
  const files = [
    valuesOf(args, ["-c", "--conf-file"])[0] ?? join(etc, "mavlink-router/main.conf"),
    ...more.flatMap((name) => (name.endsWith(".conf") ? [join(dir, name)] : [])).sort(),
  ];
  const texts = await Promise.all(files.map((file) => readFile(file, "utf8").catch(() => "")));
  const { devices, urls } = parseRouterConfig(texts.join("\n"), valuesOf(args, ["-t", "--tcp-port"])[0]);
  const sends = valuesOf(args, ["-e", "--endpoint"]).flatMap((to) => {
    const port = /^(?:127\.0\.0\.1|localhost):(\d+)$/.exec(to)?.[1];
    return port === undefined ? [] : [`udpin://127.0.0.1:${port}`];
  });
  return { devices, urls: [...urls, ...sends] };
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

/** A program that passes MAVLink on. */
export interface Router {
  /** As people name it: "mavlink-router". */
  readonly name: string;
  /** Addresses for us that its configuration has already, best first. */
  readonly urls: readonly string[];
  /** An endpoint of our own: what to do, `lines` to be added to `file` or to its command line, and the address that is ours then. */
  readonly own: { readonly words: string; readonly file: string; readonly lines: readonly string[]; readonly url: string };
}

/** `owner`: one that runs, or would. undefined: it is none that is known. `port`: a UDP port that is free for an endpoint of our own. */
export async function routerOf({ name, args }: Omit<Owner, "pid">, etc: string, port = FREE_PORT): Promise<Router | undefined> {
  const whole = args.join(" ");
  const url = `udpin://127.0.0.1:${port}`;
  if (/blueos|ardupilot_manager|mavlink-server/i.test(whole) || /blueos|mavlink-server/i.test(name)) {
    const words = `add a MAVLink endpoint to it (UDP client, 127.0.0.1, port ${port})`;
    return {
      name: "BlueOS",
      urls: [BLUEOS],
      own: { words, file: "its web page, MAVLink Endpoints", lines: [`UDP Client, 127.0.0.1, ${port}`], url },
    };
  }
  if (/mavlink-router/i.test(name)) {
    const file = valuesOf(args, ["-c", "--conf-file"])[0] ?? "/etc/mavlink-router/main.conf";
    const words = `give it a UdpEndpoint (Mode = Normal, 127.0.0.1, port ${port})`;
    const lines = ["[UdpEndpoint filesync]", "Mode = Normal", "Address = 127.0.0.1", `Port = ${port}`];
    return { name: "mavlink-router", urls: (await configOf(args, etc)).urls, own: { words, file, lines, url } };
  }
  if (/mavproxy/i.test(name)) {
    const option = `--out=udpout:127.0.0.1:${port}`;
    const own = { words: `start it with ${option}`, file: "its command line", lines: [option], url };
    return { name: "MAVProxy", urls: valuesOf(args, ["--out"]).flatMap(fromMavproxy), own };
  }
  if (/mavros/i.test(whole)) {
    const given = valuesOf(args, ["--params-file"]);
    const texts = [whole, ...(await Promise.all(given.map((file) => readFile(file, "utf8").catch(() => ""))))];
    const gcs = /gcs_url(?::?=|:\s*["']?)udp:\/\/[^@\s]*@(?:127\.0\.0\.1|localhost)?:?(\d+)/;
    const urls = texts.flatMap((text) => {
      const known = gcs.exec(text)?.[1];
      return known === undefined ? [] : [`udpin://127.0.0.1:${known}`];
    });
    const own = `udp://@127.0.0.1:${port}`;
    const lines = [`gcs_url:=${own}`];
    return { name: "mavros", urls, own: { words: `set its gcs_url to ${own}`, file: "its launch arguments", lines, url } };
  }
  return undefined;
}

/** What a person has to do so that both programs work, as the end of a sentence. */
export async function insteadOf(owner: Owner, etc: string): Promise<string> {
  const router = await routerOf(owner, etc);
  if (router !== undefined) return router.urls.length > 0 ? use(router.urls) : `${router.own.words} and ${use([router.own.url])}`;
  if (owner.name === "ModemManager") return "it takes it for a modem: disable it, or let udev tell it to keep off (ID_MM_DEVICE_IGNORE)";
  if (owner.name === "gpsd") return "it takes it for a GPS receiver: disable it, or name the receiver in /etc/default/gpsd";
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
