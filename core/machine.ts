/**
 * What this machine's network is like now: interfaces, wireless networks, whether the way out is metered, whether the right server answers. What has to be
 * asked of a program or a server is asked at most every 10 s. Each question answers undefined when it is so, else why it is not, for a person.
 */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import http from "node:http";
import https from "node:https";
import { networkInterfaces } from "node:os";
import picomatch from "picomatch";
import type { Clock } from "./plugin.js";
import type { Reach } from "./when.js";

const askMs = 10_000;
const reachedMs = 30_000;
const mostChars = 65_536;

/** What a program printed; undefined where it is not there or fails. */
export type Runs = (command: string, args: readonly string[]) => Promise<string | undefined>;

const runs: Runs = (command, args) =>
  new Promise((resolve) => {
    execFile(
      command,
      [...args],
      { timeout: 5000, env: { PATH: "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" } },
      (error, out) => resolve(error === null ? out : undefined),
    );
  });

export class Machine {
  readonly #known = new Map<string, { readonly value: Promise<unknown>; readonly untilMs: number }>();

  /** `metered`: names of interfaces that are, with patterns. The rest is replaced in tests. */
  constructor(
    readonly clock: Clock,
    public metered: readonly string[],
    readonly ask: Runs = runs,
    readonly interfaces: () => readonly string[] = interfacesNow,
    readonly routes: () => Promise<string> = () => readFile("/proc/net/route", "utf8").catch(() => ""),
  ) {}

  interfaceHolds(names: readonly string[]): string | undefined {
    const up = this.interfaces();
    return names.some((name) => up.includes(name))
      ? undefined
      : `${names.join(", ")} ${names.length === 1 ? "is" : "are"} not up ("interface")`;
  }

  async ssidHolds(names: readonly string[]): Promise<string | undefined> {
    const now = await this.#lately("ssid", () => this.#ssids());
    if (now === undefined) return 'nobody can say which wireless network this is: neither nmcli nor iw answers ("ssid")';
    if (names.some((name) => now.includes(name))) return undefined;
    return `${now.length === 0 ? "not connected to a wireless network" : `connected to ${now.join(", ")}`}, not to ${names.join(" or ")} ("ssid")`;
  }

  /** `over`: the interfaces that count; else the one of the default route. */
  async meteredHolds(wanted: boolean, over?: readonly string[]): Promise<string | undefined> {
    const up = this.interfaces();
    const way = over === undefined ? wayOut(await this.routes()) : over.find((name) => up.includes(name));
    if (way === undefined) return 'there is no way out of this machine ("metered")';
    const is = await this.#isMetered(way);
    if (is === undefined)
      return `nobody can say whether ${way} is metered: NetworkManager does not, and "metered" at the top lists no interfaces`;
    if (is === wanted) return undefined;
    return `the way out, ${way}, is ${is ? "" : "not "}metered ("metered")`;
  }

  async reachHolds(reach: Reach): Promise<string | undefined> {
    const key = `reach ${JSON.stringify(reach)}`;
    const failed = await this.#lately(key, () => asked(reach));
    // Met is believed for longer.
    if (failed === undefined) this.#stretch(key);
    return failed;
  }

  async #isMetered(name: string): Promise<boolean | undefined> {
    if (picomatch.isMatch(name, [...this.metered])) return true;
    const said = (await this.#lately("metered", () => this.#meteredByName()))?.get(name);
    return said ?? (this.metered.length > 0 ? false : undefined);
  }

  /** nmcli(1), GENERAL.METERED: "yes", "no", "yes (guessed)", "no (guessed)", "unknown". */
  async #meteredByName(): Promise<Map<string, boolean> | undefined> {
    const out = await this.ask("nmcli", ["-t", "-e", "no", "-f", "GENERAL.DEVICE,GENERAL.METERED", "device", "show"]);
    if (out === undefined) return undefined;
    const found = new Map<string, boolean>();
    for (const [, name = "", word = ""] of out.matchAll(/^GENERAL\.DEVICE:(.*)\nGENERAL\.METERED:(yes|no)\b/gm))
      found.set(name, word === "yes");
    return found;
  }

  async #ssids(): Promise<string[] | undefined> {
    const managed = await this.ask("nmcli", ["-t", "-e", "no", "-f", "ACTIVE,SSID", "device", "wifi", "list", "--rescan", "no"]);
    if (managed !== undefined) return [...managed.matchAll(/^yes:(.+)$/gm)].map(([, name = ""]) => name);
    const plain = await this.ask("iw", ["dev"]);
    return plain === undefined ? undefined : [...plain.matchAll(/^\s*ssid (.+)$/gm)].map(([, name = ""]) => name);
  }

  #lately<T>(key: string, find: () => Promise<T>): Promise<T> {
    const known = this.#known.get(key);
    if (known !== undefined && known.untilMs > this.clock.monotonicMs()) return known.value as Promise<T>;
    const value = find();
    this.#known.set(key, { value, untilMs: this.clock.monotonicMs() + askMs });
    return value;
  }

  #stretch(key: string): void {
    const known = this.#known.get(key);
    if (known !== undefined)
      this.#known.set(key, { ...known, untilMs: Math.max(known.untilMs, this.clock.monotonicMs() + reachedMs - askMs) });
  }
}

/** Up, running, and with an address. */
function interfacesNow(): string[] {
  return Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) => (addresses.length > 0 ? [name] : []));
}

/** The interface of the default route with the lowest metric (proc(5), /proc/net/route). */
export function wayOut(routes: string): string | undefined {
  const rows = routes
    .split("\n")
    .slice(1)
    .map((line) => line.split(/\s+/));
  const open = rows.filter(
    ([, to, , flags, , , , mask]) => to === "00000000" && mask === "00000000" && (Number.parseInt(flags ?? "0", 16) & 1) !== 0,
  );
  return open.sort((a, b) => Number(a[6]) - Number(b[6]))[0]?.[0];
}

/** Undefined when the right server answered. A redirect is somebody else's answer; a connection from before, perhaps over another network, is not used. */
async function asked({ url, status, contains }: Reach): Promise<string | undefined> {
  const { host } = new URL(url);
  const notIt = 'this is not the right server, or a portal before it ("reach")';
  try {
    const answer = await got(url);
    if (answer.status !== status) return `${host} answers with ${answer.status}, not ${status}: ${notIt}`;
    if (contains !== undefined && !answer.text.includes(contains)) return `${host} answers something else than expected: ${notIt}`;
    return undefined;
  } catch (error) {
    return `${host} cannot be reached: ${error instanceof Error ? error.message : String(error)} ("reach")`;
  }
}

function got(url: string): Promise<{ status: number | undefined; text: string }> {
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
    request.once("error", (error) => reject(signal.aborted ? new Error(`no answer within ${askMs / 1000} s`) : error));
  });
}
