/**
 * What the FileSync in Python was told, in the words of this one. Its configurations had three forms over the years: one worker, { "workers": […] }, and
 * devices that are named by `device_class` and `module_path` or by `device` alone. Paths on a target were those on the source; a pattern was one of
 * fnmatch, over the whole path with a "/" in front; with `dropped` in its records, files were deleted at the source once they had been sent.
 */
import { dirname, relative, resolve } from "node:path";
import { hostAndPort } from "../../core/net.js";
import { presets } from "../../plugins/post/presets.js";
import type { Part, RoutePart } from "../init/text.js";

type Values = Readonly<Record<string, unknown>>;

/** Where the old configuration said it. */
export interface Told {
  /** "worker b: the target (ftp)" */
  readonly what: string;
  /** The keys that lead there. */
  readonly at: readonly (string | number)[];
}

interface Of {
  /** Each who said it: two workers may share a device. */
  readonly told: readonly Told[];
}

export interface Translated {
  readonly devices: readonly (Part & Of)[];
  readonly routes: readonly (RoutePart & Of)[];
  readonly services: readonly (Part & Of)[];
  /** By the name of the credential. */
  readonly secrets: Readonly<Record<string, string>>;
  /** What could not be taken over, and why. */
  readonly notes: readonly string[];
}

/** Keys of a worker that have an equal, or nothing to say here. */
const ofWorker: ReadonlyMap<string, string | undefined> = new Map(
  Object.entries({
    enable: undefined,
    name: undefined,
    source: undefined,
    target: undefined,
    rules: undefined,
    finder: undefined,
    // What was delivered is looked for at the target, and found there: nothing is sent twice.
    db: undefined,
    db_backup: undefined,
    workers: undefined,
    ftp_server: undefined,
    gui: 'there is no window: "filesync status --watch" shows how it stands',
    logger: "the log goes to standard output, as lines or with --json, and so to journald",
    mover_count: 'how many files move at once is each device\'s own "concurrency"',
    count: 'how many files move at once is each device\'s own "concurrency"',
  }),
);

/** One device as it was told. */
interface Given {
  readonly kind: string;
  /** "source", "target"; "device" where it stood alone. */
  readonly role: string;
  readonly args: Values;
  /** The first of these arguments that is there; all of them count as understood. */
  readonly arg: (...names: string[]) => string | undefined;
  /** What was understood of `args`. */
  readonly used: Set<string>;
  readonly comment: string[];
  readonly note: (text: string) => void;
}

/** `base`: where the old configuration is, from which it was run. `taken`: names of credentials that are there already. */
export function translated(old: unknown, base: string, taken: ReadonlySet<string>): Translated {
  const work = new Work(base, taken);
  if (isObject(old) && !isDevice(old) && old.workers !== undefined) work.beside(old);
  const workers = workersOf(old);
  for (const [i, { worker, at }] of workers.entries()) {
    const whose = workers.length > 1 ? `worker ${(isObject(worker) ? textOf(worker.name) : undefined) ?? String(i + 1)}: ` : "";
    if (isObject(worker)) work.worker(worker, whose, at);
    else work.notes.push(`${whose}${JSON.stringify(worker)} is no worker`);
  }
  return work;
}

/** The first key of the old forms that stands at the top of a configuration, which has none of this program's "devices" there. */
export function oldKeyIn(given: unknown): string | undefined {
  const all: readonly unknown[] = Array.isArray(given) ? given : [given];
  const tops = all.filter(isObject);
  if (tops.some((top) => "devices" in top)) return undefined;
  return tops.flatMap((top) => Object.keys(top)).find((key) => oldKeys.has(key));
}

/** Of those of a worker, and of a device that stands alone, the ones that say what it is. */
const oldKeys: ReadonlySet<string> = new Set(["workers", "source", "target", "ftp_server", "device_class", "device", "mover_count"]);

/** What would be wrong with a part of it: "devices.target.host", and why. */
interface Mistake {
  readonly path: string;
  readonly message: string;
}

/** Without the parts that would be wrong here, and the routes that need them: said, with their place in the old file (`placeOf`). undefined: none of these parts is meant. */
export function without(
  all: Translated,
  mistakes: readonly Mistake[],
  placeOf: (at: Told["at"], key: string | undefined) => string,
): Translated | undefined {
  const out = new Set<unknown>();
  const notes = [...all.notes];
  for (const { path, message } of mistakes) {
    const [, group, name, index, key] = /^(?:(devices|services)\.([^.[]+)|routes\[(\d+)\])(?:.*?(\w+)$)?/.exec(path) ?? [];
    const part =
      group === "devices" || group === "services"
        ? all[group].find((one) => one.name === name)
        : index === undefined
          ? undefined
          : all.routes[Number(index)];
    if (part === undefined) continue;
    out.add(part);
    for (const { what, at } of part.told) notes.push(`${what}: ${message} (${placeOf(at, group === undefined ? undefined : key)})`);
  }
  if (out.size === 0) return undefined;
  const stays = (part: object) => !out.has(part);
  const [devices, services] = [all.devices.filter(stays), all.services.filter(stays)];
  const routes = all.routes.filter(
    (route) =>
      stays(route) && [route.value.from, ...(route.value.to as string[])].every((name) => devices.some((one) => one.name === name)),
  );
  const written = JSON.stringify([devices, services].flatMap((parts) => parts.map(({ value }) => value)));
  const used = ([name]: [string, string]) => written.includes(JSON.stringify({ credential: name }));
  return { devices, services, routes, notes, secrets: Object.fromEntries(Object.entries(all.secrets).filter(used)) };
}

/** Also what is none. */
function workersOf(old: unknown): { worker: unknown; at: Told["at"] }[] {
  const listed = (list: readonly unknown[], ...at: string[]) =>
    list.map((one, i) => ({ worker: isDevice(one) ? { alone: one } : one, at: [...at, i] }));
  if (Array.isArray(old)) return listed(old);
  if (!isObject(old)) return [];
  if (isDevice(old)) return listed([old]).map((one) => ({ ...one, at: [] }));
  if (old.workers === undefined) return [{ worker: old, at: [] }];
  return Array.isArray(old.workers) ? listed(old.workers as unknown[], "workers") : [{ worker: old.workers, at: ["workers"] }];
}

function isDevice(value: unknown): boolean {
  return isObject(value) && ("device_class" in value || "device" in value);
}

/** A source is listed every so many seconds where it said so; one that is only a target says nothing. */
type Device = Omit<Part, "value"> & { readonly told: Told[]; value: Values; listed?: { readonly every: number | undefined } };

class Work implements Translated {
  readonly devices: Device[] = [];
  readonly routes: (RoutePart & Of)[] = [];
  readonly services: (Part & Of)[] = [];
  readonly secrets: Record<string, string> = {};
  readonly notes: string[] = [];
  /** The devices so far, by all that was said of them but how often they are listed. */
  readonly #same = new Map<string, Device>();
  readonly #base: string;
  readonly #taken: ReadonlySet<string>;

  constructor(base: string, taken: ReadonlySet<string>) {
    this.#base = base;
    this.#taken = taken;
  }

  /** What stands beside "workers". */
  beside(old: Values): void {
    for (const [key, value] of Object.entries(old)) {
      if (key === "ftp_server") this.#server(value, (text) => void this.notes.push(text), { what: "the FTP server", at: [key] });
      else if (key !== "workers") this.notes.push(`"${key}" beside "workers": ${ofWorker.get(key) ?? "it stands in no worker"}`);
    }
  }

  /** `at`: where it stands. */
  worker(worker: Values, whose: string, at: Told["at"]): void {
    const note = (text: string) => {
      if (!this.notes.includes(`${whose}${text}`)) this.notes.push(`${whose}${text}`);
    };
    for (const [key, value] of Object.entries(worker)) {
      if (key === "alone") continue;
      const said = ofWorker.get(key);
      if (said !== undefined && value !== false) note(`"${key}": ${said}`);
      else if (!ofWorker.has(key)) note(`"${key}": this program knows nothing like it`);
    }
    if (worker.ftp_server !== undefined)
      this.#server(worker.ftp_server, note, { what: `${whose}the FTP server`, at: [...at, "ftp_server"] });
    const device = (role: "source" | "target") =>
      worker[role] === undefined
        ? undefined
        : this.#device(worker[role], role, worker, note, { what: `${whose}the ${role}`, at: [...at, role] });
    if (worker.alone !== undefined) this.#device(worker.alone, "device", worker, note, { what: `${whose}the device`, at });
    const source = device("source");
    const target = device("target");
    // As Python takes what is neither true nor false.
    const { enable = true } = worker;
    if (!enable && source !== undefined) {
      note(`"enable": ${JSON.stringify(enable)}: its devices are here, its route is not`);
      return;
    }
    if (typeof enable !== "boolean")
      note(`"enable": ${JSON.stringify(enable)} is neither true nor false: the old one took it for on, and so its route is here`);
    if (source === undefined || target === undefined) return;
    const record = isObject(worker.db) && isObject(worker.db.default_record) ? worker.db.default_record : {};
    const comment: string[] = [];
    if ("dropped" in record)
      comment.push(
        'The old one deleted at the source what it had sent. Here "afterDelivery": "delete" does, once the copy is proved: say so where you want it.',
      );
    const told = [{ what: `${whose}the way from its source to its target`, at }];
    this.routes.push({ comment, told, value: { from: source, to: [target], into: "", ...this.#rules(worker.rules, note) } });
  }

  /** → its name here; undefined where it has no equal. */
  #device(given: unknown, role: string, worker: Values, note: (text: string) => void, { what, at }: Told): string | undefined {
    if (!isObject(given)) {
      note(`"${role}": it is no device`);
      return undefined;
    }
    const kind = (textOf(given.device) ?? textOf(given.device_class) ?? "").replace(/^device_/i, "").toLowerCase();
    const args = isObject(given.args) ? given.args : {};
    const used = new Set<string>();
    const arg = (...names: string[]): string | undefined => {
      names.forEach((name) => used.add(name));
      return names.map((name) => textOf(args[name])).find((text) => text !== undefined);
    };
    const comment: string[] = [];
    const value = this.#valueOf({ kind, role, args, arg, used, comment, note });
    if (value === undefined) return undefined;
    for (const name of Object.keys(args))
      if (!used.has(name) && name !== "logger") note(`"${name}" of the ${role} (${kind}): this program knows nothing like it`);
    const told = { what: `${what} (${kind})`, at };
    // One device that two workers use is one device.
    let device = this.#same.get(JSON.stringify(value));
    if (device === undefined) {
      const name = this.#free(role === "device" ? kind : kind === "mavftp" ? "autopilot" : role);
      device = { name, comment, told: [told], value: this.#withSecret(name, value) };
      this.#same.set(JSON.stringify(value), device);
      this.devices.push(device);
    } else device.told.push(told);
    if (role === "source") this.#listed(device, worker.finder, note);
    return device.name;
  }

  /** How often it is listed: the shorter where two workers say it differently. */
  #listed(device: Device, finder: unknown, note: (text: string) => void): void {
    const said = isObject(finder) ? finder.search_interval : undefined;
    const seconds = Number(textOf(said)?.trim() || Number.NaN);
    const fits = seconds >= 1 && seconds <= 86_400;
    if (said !== undefined && !fits)
      note(`"search_interval": ${JSON.stringify(said)}: from 1 s to a day can be said here, and the default is taken`);
    const every = fits ? seconds : undefined;
    const before = device.listed;
    if (before !== undefined && before.every !== every) {
      const shorter = Math.min(before.every ?? Infinity, every ?? Infinity);
      note(`its source is that of another worker, with another "search_interval": one device, ${device.name}, listed every ${shorter} s`);
      device.listed = { every: shorter };
    } else device.listed = { every };
    if (device.listed.every !== undefined) device.value = { ...device.value, interval: `${device.listed.every}s` };
  }

  #valueOf(given: Given): Values | undefined {
    const { kind, role, arg, comment, note } = given;
    switch (kind) {
      case "mavftp": {
        comment.push(
          "The old one asked mavros for the autopilot. This one talks to it: beside mavros through its gcs_url, without mavros by the port itself",
          '("filesync init" finds it). docs/mavftp.md',
        );
        note(
          `the ${role} MAVFTP went through mavros: "url" is a guess, set mavros's gcs_url to udp://@127.0.0.1:14551, or put the autopilot's port there`,
        );
        return { type: "mavftp", url: "udpin://127.0.0.1:14551" };
      }
      case "disk": {
        comment.push("A disk that is plugged and pulled. docs/disk.md");
        const uuid = arg("uuid");
        const mountPoint = arg("mount_point");
        if (uuid === undefined) return this.#lacking(given, "uuid");
        // "/mnt" itself may have other things in it: a place of its own is found without being told.
        if (mountPoint !== undefined && /^\/(mnt|media)?\/?$/.test(mountPoint)) {
          note(
            `"mount_point": ${JSON.stringify(mountPoint)} of the ${role}: it is mounted at a place of its own, below stateDir or by udisks2`,
          );
          return { type: "disk", uuid };
        }
        return { type: "disk", uuid, ...(mountPoint === undefined ? {} : { mountPoint: resolve(this.#base, mountPoint) }) };
      }
      case "local": {
        const dir = arg("dir", "mount_point");
        if (dir === undefined) return this.#lacking(given, "dir");
        comment.push("A directory of this machine. docs/local.md");
        return { type: "local", dir: resolve(this.#base, dir) };
      }
      case "ftp": {
        const host = arg("host");
        if (host === undefined) return this.#lacking(given, "host");
        comment.push('An FTP server. The old one sent all in clear, the password too: "secure": true has TLS. docs/ftp.md');
        const user = arg("user");
        const [, name = host, port] = /^([^:]+):(\d+)$/.exec(host) ?? [];
        return {
          type: "ftp",
          host: name,
          ...(port === undefined ? {} : { port: Number(port) }),
          ...(user === undefined ? {} : { user }),
          password: arg("passwd"),
          secure: false,
        };
      }
      case "webdav": {
        const host = arg("host");
        if (host === undefined) return this.#lacking(given, "host");
        comment.push("A server with WebDAV. docs/webdav.md");
        return { type: "webdav", url: /^https?:/.test(host) ? host : `https://${host}`, user: arg("user"), password: arg("passwd") };
      }
      case "post":
        return this.#post(given);
      default:
        note(`the ${role} is a device ${JSON.stringify(kind)}, of which nothing is known`);
        return undefined;
    }
  }

  #post(given: Given): Values | undefined {
    const { args, role, arg, used, comment, note } = given;
    const url = arg("uploader_url", "url");
    if (url === undefined) return this.#lacking(given, "uploader_url");
    used.add("values");
    if (role === "source") {
      note("a server that takes a form is no source");
      return undefined;
    }
    comment.push("PX4 Flight Review: only logs that are made from now on. docs/post.md");
    const preset = presets["flight-review"];
    const fields: Record<string, string> = {};
    for (const [key, one] of Object.entries(isObject(args.values) ? args.values : {})) {
      const text = typeof one === "boolean" ? String(one) : textOf(one);
      const known = preset.aliases[key] ?? key;
      if (text === undefined || !preset.known.includes(known)) note(`"${key}" of the ${role} (post): this server knows no such field`);
      // What is empty, or "no", is what the server takes it for anyway.
      else if (text !== "" && text !== "false") fields[known] = text;
    }
    return { type: "post", preset: "flight-review", url, ...(Object.keys(fields).length === 0 ? {} : { fields }) };
  }

  #lacking({ kind, role, note }: Given, key: string): Values | undefined {
    note(`the ${role} (${kind}) has no "${key}"`);
    return undefined;
  }

  /** The password of a device goes into a file of its own. */
  #withSecret(name: string, value: Values): Values {
    const said = Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined));
    const { password } = said;
    // An empty one is no secret, and no file may be empty.
    if (typeof password !== "string" || password === "") return said;
    return { ...said, password: { credential: this.#secret(name, password) } };
  }

  #secret(name: string, password: string): string {
    let own = name;
    for (let n = 2; this.#taken.has(own) || own in this.secrets; n++) own = `${name}-${n}`;
    this.secrets[own] = password;
    return own;
  }

  #free(name: string): string {
    let own = name;
    for (let n = 2; this.devices.some((one) => one.name === own); n++) own = `${name}-${n}`;
    return own;
  }

  #rules(rules: unknown, note: (text: string) => void): Values {
    if (!isObject(rules)) {
      if (rules !== undefined) note('"rules": it is no object, so the route takes all');
      return {};
    }
    for (const key of Object.keys(rules))
      if (key !== "include" && key !== "exclude") note(`"${key}" of "rules": this program knows nothing like it`);
    const listed = (key: "include" | "exclude") => {
      const given = rules[key] ?? [];
      if (!Array.isArray(given) && typeof given !== "string") note(`"${key}": it is no list of patterns`);
      return (Array.isArray(given) ? given : [given]).flatMap((pattern: unknown) => {
        const text = textOf(pattern) ?? "";
        const now = patternOf(text);
        if (now === undefined)
          note(
            `the pattern ${JSON.stringify(text)} of "${key}": ${text.startsWith("/") || text.startsWith("*") ? 'its "*" meant directories too: write what is meant' : 'it never matched, as the old one\'s paths began with "/"'}`,
          );
        return now ?? [];
      });
    };
    const [include, exclude] = [listed("include"), listed("exclude")];
    const all = include.includes("**");
    if (!all && (rules.include ?? undefined) !== undefined && include.length === 0)
      note('"include": nothing of it could be taken over, so the route takes all');
    return { ...(all || include.length === 0 ? {} : { include }), ...(exclude.length === 0 ? {} : { exclude }) };
  }

  /** The FTP server, which had its users in its own text (`serverOf`). */
  #server(given: unknown, note: (text: string) => void, told: Told): void {
    if (!isObject(given)) {
      note('"ftp_server": it is no object');
      return;
    }
    for (const text of Array.isArray(given.unread) ? (given.unread as string[]) : []) note(`the FTP server's ${text}`);
    const all = (Array.isArray(given.users) ? (given.users as unknown[]) : [given]).flatMap((one) => {
      const [user, password, root, perm = "elradfmwM"] = ["user", "passwd", "root", "perm"].map((key) =>
        isObject(one) ? textOf(one[key]) : undefined,
      );
      if (user === undefined || password === undefined || root === undefined) note('"ftp_server": it needs "user", "passwd" and "root"');
      else if (password === "") note(`the FTP server's user ${JSON.stringify(user)} has an empty password, which lets everybody in`);
      else return [{ user, password, perm, root: resolve(this.#base, root) }];
      return [];
    });
    const [first] = all;
    if (first === undefined) return;
    // Each user's own directory is below that of the server.
    let above = first.root;
    while (!all.every(({ root }) => isIn(root, above))) above = dirname(above);
    const users = above === "/" ? all.filter(({ root }) => root === first.root) : all;
    const top = above === "/" ? first.root : above;
    for (const { user, root } of all.filter((one) => !users.includes(one)))
      note(
        `the FTP server's user ${JSON.stringify(user)}: ${root} and ${first.root} have no directory in common: make it a server of its own`,
      );
    const port = Number(given.port ?? 21);
    const listen = port < 1024 ? 2121 : port;
    if (listen !== port)
      note(`the FTP server's port ${port}: the service is not root, and has 2121; a redirection in the firewall keeps the old one`);
    const host = textOf(given.host) || "0.0.0.0";
    this.services.push({
      name: "ftp",
      told: [told],
      comment: ['The FTP server. "tls" gives it a certificate; "filesync init --ground" makes one. docs/ftp-server.md'],
      value: {
        type: "ftp-server",
        listen: hostAndPort(host, listen),
        root: top,
        users: Object.fromEntries(
          users.map(({ user, password, perm, root }) => [
            user,
            { password: { credential: this.#secret(user, password) }, root: relative(top, root) || ".", ...rightsOf(perm) },
          ]),
        ),
      },
    });
  }
}

function isIn(dir: string, above: string): boolean {
  return dir === above || dir.startsWith(above.endsWith("/") ? above : `${above}/`);
}

/** The letters of pyftpdlib: a, m, w write, f renames, d deletes. Here the latter two are as the first where nothing is said. */
function rightsOf(perm: string): Values {
  const [write, rename, remove] = [/[amw]/, /f/, /d/].map((letters) => letters.test(perm));
  return {
    ...(write ? {} : { write }),
    ...(rename === write ? {} : { rename }),
    ...(remove === write ? {} : { delete: remove }),
  };
}

/** What ftp_server.py had of its users, address and port in its text; undefined: it is no such text. */
export function serverOf(python: string): unknown {
  const code = python.replaceAll(/^[ \t]*#.*$/gm, "");
  const text = String.raw`\s*(["'])((?:(?!\\|["']).)*)`;
  const call = new RegExp(String.raw`^${text}\1,${text}\3,${text}\5\s*,?\s*(?:perm\s*=)?\s*(?:(["'])(\w*)\7\s*)?,?\s*\)`);
  const users: Values[] = [];
  const unread: string[] = [];
  for (const { index, 0: begin } of code.matchAll(/\.add_(?:user|anonymous)\(/g)) {
    const given = code.slice(index + begin.length);
    const [, , user, , passwd, , root, , perm] = (begin === ".add_user(" ? call.exec(given) : undefined) ?? [];
    // Without letters pyftpdlib lets read.
    if (user !== undefined) users.push({ user, passwd, root, perm: perm ?? "elr" });
    // Not the words themselves: there may be a password in them.
    else
      unread.push(
        `${begin.slice(1, -1)} in line ${code.slice(0, index).split("\n").length}: who may log in by it cannot be told from the text`,
      );
  }
  const [said, , host, port] = /(?:\baddress\s*=|FTPServer\()\s*\(\s*(?:(["'])(.*?)\1|[^,()]*)\s*,\s*(?:(\d+)\s*\)|.*)/.exec(code) ?? [];
  if (users.length === 0) return undefined;
  if (said === undefined || host === undefined || port === undefined)
    unread.push(
      `address cannot be told from the text${said === undefined ? "" : ` (${said.trim()})`}: it listens at ${host || "all addresses"}, port ${port ?? 2121}`,
    );
  return { ftp_server: { users, host, port: port ?? 2121, unread } };
}

/** A pattern of fnmatch over "/dir/name" → one of this program over "dir/name"; undefined where it has no equal. */
export function patternOf(old: string): string | undefined {
  if (/^[/]?\*+$/.test(old)) return "**";
  // "*" matched "/" too: in front it is any directory, at the end all that is below.
  const [, front = "", inner = "", back = ""] = /^(\*+|\/)?(.*?)(\/\*+)?$/.exec(old) ?? [];
  if (front === "" || inner === "" || inner.includes("*")) return undefined;
  const below = back === "" ? inner : `${inner}/**`;
  return front === "/" ? below : inner.startsWith("/") ? `**${below}` : `**/*${below}`;
}

function isObject(value: unknown): value is Values {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : typeof value === "number" ? String(value) : undefined;
}
