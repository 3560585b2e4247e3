/** What the ground station of a campaign may be beside FTP servers: SFTP, WebDAV and rsync servers, the real ones, over a directory of the campaign's. */
import { statSync } from "node:fs";
import { apache, password as davPassword, user as davUser } from "../../conformance/dav-servers.js";
import { rsyncShell } from "../../conformance/rsync-servers.js";
import { openssh } from "../../conformance/sftp-servers.js";
import { RoughRelay } from "./relay.js";

export const places = ["ftp", "sftp", "webdav", "rsync"] as const;
export type PlaceKind = (typeof places)[number];

/** A tree behind a relay. */
export interface Place {
  readonly name: string;
  /** Where the tree is on this disk. */
  readonly root: string;
  readonly relay: RoughRelay;
  /** The device, as the configuration has it. */
  readonly device: Readonly<Record<string, unknown>>;
  /** What serves it now, and what could. */
  readonly kind: string;
  readonly kinds: readonly string[];
  /** Starts a server; one that runs is killed first. One after another, whoever asks. */
  run(kind: string): Promise<void>;
  /** Killed; every connection to it is reset. */
  kill(): Promise<void>;
  close(): Promise<void>;
}

interface Running {
  readonly port: number;
  readonly device: (port: number) => Record<string, unknown>;
  unplug(): Promise<void>;
  replug(): Promise<void>;
  stop(): Promise<void>;
}

const servers: Readonly<Record<Exclude<PlaceKind, "ftp">, { readonly skip?: string; start(root: string): Promise<Running> }>> = {
  sftp: {
    ...openssh,
    start: async (root) => {
      const server = await openssh.start(root);
      return { ...server, device: (port) => ({ type: "sftp", host: "127.0.0.1", port, root, ...server.options }) };
    },
  },
  rsync: {
    ...rsyncShell,
    start: async (root) => {
      const server = await rsyncShell.start(root);
      return { ...server, device: (port) => ({ type: "rsync", host: "127.0.0.1", port, root, ...server.options }) };
    },
  },
  webdav: {
    ...apache,
    start: async (root) => {
      const server = await apache.start(root);
      const device = (port: number) => ({ type: "webdav", url: `http://127.0.0.1:${port}`, user: davUser, password: davPassword });
      return { ...server, port: Number(new URL(server.url).port), device };
    },
  },
};

/** Why this machine has no such server. */
export function whyNoPlace(kind: PlaceKind): string | undefined {
  return kind === "ftp" ? undefined : servers[kind].skip;
}

/** `root` exists. */
export async function startPlace(kind: Exclude<PlaceKind, "ftp">, name: string, root: string, faults: () => number): Promise<Place> {
  const server = await servers[kind].start(root);
  const relay = await RoughRelay.start(server.port, faults);
  let runs = true;
  let turn: Promise<unknown> = Promise.resolve();
  const next = (work: () => Promise<void>): Promise<void> => {
    const mine = turn.then(work);
    turn = mine.catch(() => undefined);
    return mine;
  };
  const kill = async () => {
    if (runs) await server.unplug();
    runs = false;
    relay.cut();
  };
  return {
    name,
    root,
    relay,
    device: server.device(relay.port),
    kind,
    kinds: [kind],
    run: () =>
      next(async () => {
        await kill();
        await server.replug();
        runs = true;
      }),
    kill: () => next(kill),
    close: async () => {
      await turn;
      await relay.close();
      await server.stop();
    },
  };
}

/** Whose files in it are: the server has to be able to change them. */
export function ownerOf({ root }: Place): { uid: number; gid: number } {
  return statSync(root);
}
