/**
 * What this machine's network is like now: interfaces, wireless networks, whether the way out is metered, whether the right server answers. What has to be
 * asked of a program or a server is asked at most every 10 s. Each question answers undefined when it is so, else why it is not, for a person.
 */
import { setMaxListeners } from "node:events";
import { readFile } from "node:fs/promises";
import http from "node:http";
import https from "node:https";
import { networkInterfaces } from "node:os";
import picomatch from "picomatch";
import type { Clock } from "./plugin.js";
import { runCommand } from "./program.js";
import type { Reach } from "./when.js";

const askMs = 10_000;
const reachedMs = 30_000;
const mostChars = 65_536;

/** What a program printed; undefined where it is not there or fails. */
export type Runs = (command: string, args: readonly string[], signal: AbortSignal) => Promise<string | undefined>;

const path = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** One that does not end by itself is killed with all that it began: what is to be sent waits for its answer. */
export const runsWithin =
  (ms: number): Runs =>
  async (command, args, signal) => {
    const { code, out } = await runCommand(command, args, ms, signal, { env: { PATH: path, LC_ALL: "C" } });
    return code === 0 ? out : undefined;
  };

export class Machine {
  readonly #known = new Map<string, { readonly value: Promise<unknown>; readonly untilMs: number }>();
  readonly #end = new AbortController();

  /** `metered`: names of interfaces that are, with patterns. The rest is replaced in tests. */
  constructor(
    readonly clock: Clock,
    public metered: readonly string[],
    readonly ask: Runs = runsWithin(5000),
    readonly interfaces: () => readonly string[] = () => interfacesNow(),
    readonly routes: () => Promise<Routes> = routesNow,
  ) {
    // Each server that is asked listens to it, and all are asked at once.
    setMaxListeners(0, this.#end.signal);
  }

  /** Nobody waits for an answer any more: what is asked at this moment is given up, and answers nothing of use. */
  end(): void {
    this.#end.abort();
  }

  interfaceHolds(names: readonly string[]): string | undefined {
    const up = this.interfaces();
    return names.some((name) => up.includes(name))
      ? undefined
      : `${names.join(", ")} ${names.length === 1 ? "is" : "are"} not up, or without an address other than fe80::… ("interface")`;
  }

  async ssidHolds(names: readonly string[]): Promise<string | undefined> {
    const now = await this.#lately("ssid", () => this.#ssids());
    if (now === undefined) return 'nobody can say which wireless network this is: neither nmcli nor iw answers ("ssid")';
    if (names.some((name) => now.includes(name))) return undefined;
    return `${now.length === 0 ? "not connected to a wireless network" : `connected to ${now.join(", ")}`}, not to ${names.join(" or ")} ("ssid")`;
  }

  /** `over`: the interfaces that count, of which `interfaceHolds` says that none is up; else the one of the default route. */
  async meteredHolds(wanted: boolean, over?: readonly string[]): Promise<string | undefined> {
    const up = this.interfaces();
    const one = over?.find((name) => up.includes(name));
    const ways = over === undefined ? waysOut(await this.routes()) : one === undefined ? [] : [one];
    if (ways.length === 0 && over === undefined) return 'there is no way out of this machine ("metered")';
    for (const way of ways) {
      const is = await this.#isMetered(way);
      if (is === undefined)
        return `nobody can say whether ${way} is metered: NetworkManager does not, and "metered" at the top lists no interfaces`;
      if (is !== wanted) return `the way out, ${way}, is ${is ? "" : "not "}metered ("metered")`;
    }
    return undefined;
  }

  reachHolds(reach: Reach): Promise<string | undefined> {
    // Met is believed for longer.
    const lastsMs = (failed: string | undefined) => (failed === undefined ? reachedMs : askMs);
    return this.#lately(`reach ${JSON.stringify(reach)}`, () => asked(reach, this.#end.signal), lastsMs);
  }

  async #isMetered(name: string): Promise<boolean | undefined> {
    if (picomatch.isMatch(name, [...this.metered])) return true;
    const said = (await this.#lately("metered", () => this.#meteredByName()))?.get(name);
    return said ?? (this.metered.length > 0 ? false : undefined);
  }

  /** nmcli(1), GENERAL.METERED: "yes", "no", "yes (guessed)", "no (guessed)", "unknown". */
  async #meteredByName(): Promise<Map<string, boolean> | undefined> {
    const out = await this.ask("nmcli", ["-t", "-e", "no", "-f", "GENERAL.DEVICE,GENERAL.METERED", "device", "show"], this.#end.signal);
    if (out === undefined) return undefined;
    const found = new Map<string, boolean>();
    for (const [, name = "", word = ""] of out.matchAll(/^GENERAL\.DEVICE:(.*)\nGENERAL\.METERED:(yes|no)\b/gm))
      found.set(name, word === "yes");
    return found;
  }

  async #ssids(): Promise<string[] | undefined> {
    const managed = await this.ask(
      "nmcli",
      ["-t", "-e", "no", "-f", "ACTIVE,SSID", "device", "wifi", "list", "--rescan", "no"],
      this.#end.signal,
    );
    const active = managed === undefined ? undefined : [...managed.matchAll(/^yes:(.+)$/gm)].map(([, name = ""]) => name);
    if (active !== undefined && active.length > 0) return active;
    // What NetworkManager leaves to another (wpa_supplicant) it does not name.
    const plain = await this.ask("iw", ["dev"], this.#end.signal);
    return plain === undefined ? active : [...plain.matchAll(/^\s*ssid (.+)$/gm)].map(([, name = ""]) => name);
  }

  /** `lastsMs`: how long an answer is believed, from its question on. */
  #lately<T>(key: string, find: () => Promise<T>, lastsMs: (answer: T) => number = () => askMs): Promise<T> {
    const now = this.clock.monotonicMs();
    const known = this.#known.get(key);
    if (known !== undefined && known.untilMs > now) return known.value as Promise<T>;
    const fresh = { untilMs: now + askMs, value: find() };
    fresh.value.then((answer) => (fresh.untilMs = now + lastsMs(answer))).catch(() => undefined);
    this.#known.set(key, fresh);
    return fresh.value;
  }
}

/** Up, running, and with an address: the one that each gives itself with IPv6 (RFC 4291 §2.5.6) is there before any router is, and what is sent then goes another way. */
export function interfacesNow(all = networkInterfaces()): string[] {
  const counts = ({ address }: { readonly address: string }) => !/^fe[89ab]/i.test(address);
  return Object.entries(all).flatMap(([name, addresses = []]) => (addresses.some(counts) ? [name] : []));
}

/** The kernel's tables. */
interface Routes {
  readonly v4: string;
  readonly v6: string;
}

async function routesNow(): Promise<Routes> {
  const [v4, v6] = await Promise.all(["route", "ipv6_route"].map((name) => readFile(`/proc/net/${name}`, "utf8").catch(() => "")));
  return { v4: v4 ?? "", v6: v6 ?? "" };
}

/** The interface of the default route with the lowest metric, of IPv4 (proc(5), /proc/net/route) and of IPv6 (the kernel's rt6_info_route); once where both have one. */
export function waysOut({ v4, v6 }: Routes): string[] {
  const rows = (text: string) => text.split("\n").map((line) => line.trim().split(/\s+/));
  const zero = "0".repeat(32);
  const found = [
    rows(v4).flatMap(([name = "", to, , flags, , , metric, mask]) =>
      to === "00000000" && mask === "00000000" ? [{ name, flags, metric: Number(metric) }] : [],
    ),
    rows(v6).flatMap(([to, bits, from, fromBits, , metric = "", , , flags, name = ""]) =>
      to === zero && bits === "00" && from === zero && fromBits === "00" ? [{ name, flags, metric: Number.parseInt(metric, 16) }] : [],
    ),
  ];
  // RTF_UP, and not RTF_REJECT.
  const open = found.map((all) => all.filter(({ flags = "0" }) => (Number.parseInt(flags, 16) & 0x201) === 1));
  return [...new Set(open.flatMap((all) => all.sort((a, b) => a.metric - b.metric).slice(0, 1)).map(({ name }) => name))];
}

/** Undefined when the right server answered. A redirect is somebody else's answer; a connection from before, perhaps over another network, is not used. */
async function asked({ url, status, contains }: Reach, ended: AbortSignal): Promise<string | undefined> {
  const { host } = new URL(url);
  const notIt = 'this is not the right server, or a portal before it ("reach")';
  try {
    const answer = await got(url, ended);
    if (answer.status !== status) return `${host} answers with ${answer.status}, not ${status}: ${notIt}`;
    if (contains !== undefined && !answer.text.includes(contains)) return `${host} answers something else than expected: ${notIt}`;
    return undefined;
  } catch (error) {
    return `${host} cannot be reached: ${error instanceof Error ? error.message : String(error)} ("reach")`;
  }
}

function got(url: string, ended: AbortSignal): Promise<{ status: number | undefined; text: string }> {
  return new Promise((resolve, reject) => {
    const get = url.startsWith("https:") ? https.get : http.get;
    const signal = AbortSignal.timeout(askMs);
    const request = get(url, { agent: false, signal }, (answer) => {
      let text = "";
      const done = () => {
        resolve({ status: answer.statusCode, text });
        request.destroy();
      };
      answer.setEncoding("utf8").on("data", (more: string) => {
        text += more;
        if (text.length >= mostChars) done();
      });
      answer.once("end", done).once("error", reject);
    });
    const end = () => request.destroy(new Error("stopped"));
    if (ended.aborted) end();
    ended.addEventListener("abort", end, { once: true });
    request.once("close", () => ended.removeEventListener("abort", end));
    request.once("error", (error) => reject(signal.aborted ? new Error(`no answer within ${askMs / 1000} s`) : error));
  });
}
