/** Programs of this machine that pass MAVLink on: those that run, and those that are set up to. */
import { nameOf, processesIn } from "../../plugins/mavftp/owners.js";
import { FREE_PORT, type Router, routerOf } from "../../plugins/mavftp/routers.js";
import { at, isThere, namesIn, textOf, type View } from "./view.js";

export interface FoundRouter extends Router {
  /** The process; undefined: it does not run now. */
  readonly pid?: number;
}

/** What names such a program and is none. */
const readers =
  /^(vim?|nvim|nano|emacs|less|more|tail|head|cat|grep|rg|ssh|scp|rsync|tmux|screen|journalctl|systemctl|man|git|apt|apt-get|dpkg|pip3?|filesync)\b/;

/** Each once, those that run first. An address whose UDP port somebody else waits at already is not among its `urls`. */
export async function routersOn(view: View): Promise<FoundRouter[]> {
  const roots = { proc: at(view, "/proc"), etc: at(view, "/etc") };
  const taken = udpPorts(view);
  let free = FREE_PORT;
  while (taken.has(free)) free += 1;
  const found = new Map<string, FoundRouter>();
  const add = (router: Router | undefined, pid?: number) => {
    if (router === undefined) return;
    const before = found.get(router.name);
    // A launcher and what it launched are one.
    const urls = [...new Set([...(before?.urls ?? []), ...router.urls.filter((url) => !waitedAt(url, taken))])];
    found.set(router.name, { ...router, ...before, urls, ...(before?.pid === undefined && pid !== undefined ? { pid } : {}) });
  };
  for (const owner of await processesIn(roots)) if (!readers.test(owner.name)) add(await routerOf(owner, roots.etc, free), owner.pid);
  for (const args of enabledUnits(view)) {
    const name = nameOf(args);
    const router = await routerOf({ name, args }, roots.etc, free);
    if (router !== undefined && !found.has(router.name)) add(router);
  }
  if (isThere(view, "/etc/mavlink-router/main.conf") && !found.has("mavlink-router"))
    add(await routerOf({ name: "mavlink-routerd", args: [] }, roots.etc, free));
  return [...found.values()];
}

/** What the services that start with this machine run. */
function enabledUnits(view: View): string[][] {
  const dir = "/etc/systemd/system";
  return namesIn(view, dir)
    .filter((name) => name.endsWith(".wants"))
    .flatMap((wants) => namesIn(view, `${dir}/${wants}`).filter((name) => name.endsWith(".service")))
    .flatMap(
      (unit) =>
        [dir, "/lib/systemd/system", "/usr/lib/systemd/system"].map((place) => `${place}/${unit}`).find((file) => isThere(view, file)) ??
        [],
    )
    .flatMap((file) => [...textOf(view, file).matchAll(/^ExecStart=[-+!:@]*(.+)$/gm)])
    .map(([, line = ""]) => line.trim().split(/\s+/));
}

/** "udpin://127.0.0.1:14550" is ours to wait at: not where another does. */
function waitedAt(url: string, taken: ReadonlySet<number>): boolean {
  const port = /^udpin:.*:(\d+)$/.exec(url)?.[1];
  return port !== undefined && taken.has(Number(port));
}

/** Ports that somebody waits at, of /proc/net/udp: the second column is ADDRESS:PORT in hexadecimal. */
function udpPorts(view: View): ReadonlySet<number> {
  const lines = ["udp", "udp6"].flatMap((name) => textOf(view, `/proc/net/${name}`).split("\n"));
  const ports = lines.flatMap((line) => [...line.matchAll(/^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) /g)]);
  return new Set(ports.map(([, port = ""]) => parseInt(port, 16)));
}
