/** Which autopilots answer on this machine: on its serial ports, and through programs that pass MAVLink on. Nothing is written to them. */
import type { Answers, Silent } from "../../plugins/mavftp/look.js";
import { parseAddress, placeOf } from "../../plugins/mavftp/address.js";
import { consoleOf, type Port, serialPorts } from "../machine/ports.js";
import { type FoundRouter, routersOn } from "../machine/routers.js";
import { realPath, type View } from "../machine/view.js";

/** Tried in this order where a baud rate is needed. */
const rates = [57_600, 115_200, 921_600] as const;

/** Listens at an address for an autopilot. */
export type Look = (url: string) => Promise<Answers | Silent>;

export interface Autopilot {
  readonly url: string;
  /** For a person: "PX4 on /dev/autopilot/0-00". */
  readonly text: string;
  /** undefined: nobody answers there yet. */
  readonly answers?: Answers;
}

export interface Found {
  /** Those that answer first. */
  readonly autopilots: readonly Autopilot[];
  /** What a person should know of the ports and programs, and what is to be typed into theirs. */
  readonly notes: readonly string[];
}

export function isAnswer(seen: Answers | Silent): seen is Answers {
  return "autopilot" in seen;
}

export async function findAutopilots(view: View, look: Look): Promise<Found> {
  const [onPorts, throughRouters] = await Promise.all([
    Promise.all(serialPorts(view).map((port) => onPort(view, port, look))),
    routersOn(view).then((routers) => Promise.all(routers.map((router) => through(router, look)))),
  ]);
  const all = [...onPorts, ...throughRouters];
  const autopilots = all.flatMap((found) => found.autopilots);
  return {
    autopilots: [
      ...autopilots.filter(({ answers }) => answers !== undefined),
      ...autopilots.filter(({ answers }) => answers === undefined),
    ],
    notes: all.flatMap(({ notes }) => notes),
  };
}

async function onPort(view: View, port: Port, look: Look): Promise<Found> {
  const { name, path } = port;
  if (realPath(view, "/dev/serial1") === path) return { autopilots: [], notes: [`${name}: it is the UART of this Pi's Bluetooth`] };
  const { kernel, login } = consoleOf(view, path);
  if (kernel !== undefined || login !== undefined)
    return {
      autopilots: [],
      notes: [
        `${name}: ${kernel === undefined ? "a login waits on it" : "the kernel's console is on it"}; "filesync doctor" says how to free it`,
      ],
    };
  const { url, seen } = await listenOn(name, port.anyRate, look);
  if (!isAnswer(seen)) return { autopilots: [], notes: [`${name}: ${seen.reason}`] };
  return { autopilots: [{ url, text: `${seen.autopilot} on ${name}`, answers: seen }], notes: [] };
}

/** At each baud rate until somebody answers. `anyRate`: one is as good as the others. */
export async function listenOn(name: string, anyRate: boolean, look: Look): Promise<{ url: string; seen: Answers | Silent }> {
  let first: { url: string; seen: Answers | Silent } | undefined;
  for (const rate of anyRate ? rates.slice(0, 1) : rates) {
    const url = `serial://${name}:${rate}`;
    const seen = await look(url);
    if (isAnswer(seen)) return { url, seen };
    first ??= { url, seen };
    // Held by another, missing, not allowed: no other rate helps.
    if (!seen.opened) break;
  }
  if (first === undefined) throw new Error("no rate was tried");
  const tried = anyRate || !("opened" in first.seen && first.seen.opened) ? "" : ` (at ${rates.join(", ")} baud)`;
  return isAnswer(first.seen) ? first : { url: first.url, seen: { ...first.seen, reason: `${first.seen.reason}${tried}` } };
}

async function through(router: FoundRouter, look: Look): Promise<Found> {
  const { name, pid, urls, own } = router;
  const who = pid === undefined ? name : `${name} (process ${pid})`;
  if (pid === undefined) return { autopilots: [], notes: [`${who} is set up here, and does not run now`] };
  let silent: string | undefined;
  for (const url of urls) {
    const seen = await look(url);
    if (isAnswer(seen)) return { autopilots: [{ url, text: `${seen.autopilot} through ${who}, ${url}`, answers: seen }], notes: [] };
    silent ??= seen.reason;
  }
  const [url] = urls;
  if (url !== undefined) return { autopilots: [{ url, text: `${who}, ${url}` }], notes: [`${who}: ${silent ?? "nobody answers"}`] };
  const notes = [`${who} has no endpoint for FileSync: add to ${own.file}, and start it again:`, ...own.lines.map((line) => `    ${line}`)];
  return { autopilots: [{ url: own.url, text: `${who}, ${own.url}, once it has that endpoint` }], notes };
}

/** What is written of it, as a comment. */
export function aboutAutopilot({ url, answers }: Autopilot): string {
  const address = parseAddress(url);
  const place = address === undefined ? url : placeOf(address);
  if (answers === undefined) return `A flight controller at ${place}, which did not answer yet: docs/mavftp.md`;
  const { autopilot, logs, why } = answers;
  const where =
    logs === undefined
      ? `Where its logs are could not be asked now (${why ?? ""}): it is found by itself`
      : `Its logs are in ${logs}: that is found by itself`;
  return `A flight controller with ${autopilot}. ${where}; "root" would name another directory. docs/mavftp.md`;
}
