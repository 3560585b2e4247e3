/** How much the memory of a daemon grows while one file of 4 GiB goes through each plugin, to a real server: RSS once it is ready, and at its highest. */
import { mkdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { apache, password, user } from "../test/conformance/dav-servers.js";
import { rsyncShell } from "../test/conformance/rsync-servers.js";
import { openssh } from "../test/conformance/sftp-servers.js";
import { startGround } from "../test/faults/ground.js";
import { Program } from "../test/faults/process.js";
import { heading, inTempDir, mb, table } from "./measure.js";

interface Target {
  readonly skip?: string;
  start(dir: string): Promise<{ device: object; stop(): unknown }>;
}

const bytes = 4 * 2 ** 30;
const local = { host: "127.0.0.1" };

/** Takes a form of any length, and keeps nothing. */
async function startForms(): Promise<Server> {
  const server = createServer((request, response) => {
    request.resume().on("end", () => response.end("taken"));
  });
  server.requestTimeout = 0;
  server.listen(0, local.host);
  await once(server, "listening");
  return server;
}

const targets: Readonly<Record<string, Target>> = {
  ftp: {
    start: async (dir) => {
      const { port, program } = await startGround(join(dir, "ground"));
      return { device: { type: "ftp", ...local, port, user: "plane", password: "secret" }, stop: () => program.kill() };
    },
  },
  webdav: {
    ...apache,
    start: async () => {
      const server = await apache.start();
      return { device: { type: "webdav", url: server.url, user, password }, stop: () => server.stop() };
    },
  },
  sftp: {
    ...openssh,
    start: async () => {
      const server = await openssh.start();
      return { device: { type: "sftp", ...local, port: server.port, root: server.seen, ...server.options }, stop: () => server.stop() };
    },
  },
  rsync: {
    ...rsyncShell,
    start: async () => {
      const server = await rsyncShell.start();
      return { device: { type: "rsync", ...local, port: server.port, root: server.seen, ...server.options }, stop: () => server.stop() };
    },
  },
  post: {
    start: async () => {
      const server = await startForms();
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
      return { device: { type: "post", url }, stop: () => server.close() };
    },
  },
};

function status(pid: number, field: "VmRSS" | "VmHWM"): number {
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}

/** `memory webdav 256`: one of them, and so many MiB. */
export async function memory(given: readonly string[] = []): Promise<void> {
  heading("memory");
  const size = Number(given.find((word) => /^\d+$/.test(word)) ?? bytes / 2 ** 20) * 2 ** 20;
  const names = given.filter((word) => word in targets);
  const rows: (string | number)[][] = [];
  for (const [name, target] of Object.entries(targets)) {
    if (names.length > 0 && !names.includes(name)) continue;
    if (target.skip === undefined) rows.push(await inTempDir((dir) => one(name, target, size, dir)));
    else rows.push([name, `skipped: ${target.skip}`, "", "", "", ""]);
  }
  table(["target", "MiB", "RSS when ready MB", "highest RSS MB", "more MB", "s"], rows);
}

async function one(name: string, target: Target, size: number, dir: string): Promise<(string | number)[]> {
  const inbox = join(dir, "in");
  mkdirSync(inbox);
  const server = await target.start(dir);
  const config = join(dir, "config.json");
  const devices = { in: { type: "local", dir: inbox, interval: "1s", settle: "0s" }, to: server.device };
  const routes = [{ from: "in", to: ["to"], into: "", since: "2001-01-01" }];
  writeFileSync(config, JSON.stringify({ vehicle: "v", stateDir: join(dir, "state"), spool: { keepFree: "1MiB" }, devices, routes }));
  const daemon = new Program(["run", "--json", "--config", config]);
  try {
    await daemon.until(({ what }) => what === "ready", "ready");
    const ready = status(daemon.pid, "VmRSS");
    const startMs = performance.now();
    // It takes no room where it is; what it goes to gets all of it.
    writeFileSync(join(dir, "file.bin"), "");
    truncateSync(join(dir, "file.bin"), size);
    renameSync(join(dir, "file.bin"), join(inbox, "file.bin"));
    await daemon.until(({ what }) => what === "delivered", "the delivery", 3_600_000);
    const highest = status(daemon.pid, "VmHWM");
    return [name, size / 2 ** 20, mb(ready), mb(highest), mb(highest - ready), ((performance.now() - startMs) / 1000).toFixed(0)];
  } finally {
    await daemon.kill();
    await server.stop();
    rmSync(join(dir, "in"), { recursive: true });
  }
}
