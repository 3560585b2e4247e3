/**
 * `demo`: a simulated flight controller, the spool and the bundled FTP server in one process, without hardware. Its state is kept, so a
 * second start goes on where the first one was stopped or killed.
 */
import { mkdirSync } from "node:fs";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import { loadConfig } from "../core/config.js";
import type { Daemon } from "../core/daemon.js";
import { codeOf, faultOfErrno } from "../core/errors.js";
import { makeDirs } from "../core/fs.js";
import { withRights } from "../core/rights.js";
import { shellWord, sizeText } from "../core/text.js";
import { demoFlights, writeFlights } from "../sim/flights.js";
import { startSim } from "../sim/sim.js";
import { UsageError } from "./config.js";
import { outputTo } from "./output.js";
import { plugins } from "./plugins.js";
import { serve } from "./run.js";

const firstPort = 2121;
const logDir = "fs/microsd/log";

export async function demoCommand(options: { dir?: string; once: boolean }): Promise<number> {
  const home = resolve("demo");
  const ground = join(home, "ground");
  const given = options.dir === undefined ? undefined : resolve(options.dir);
  const vehicleDir = given ?? join(home, "vehicle");
  const output = outputTo(process.stdout);
  const isNew = await made(vehicleDir);
  await made(ground);
  if (given === undefined) {
    mkdirSync(join(vehicleDir, logDir), { recursive: true });
    writeFlights(join(vehicleDir, logDir), demoFlights);
  }
  const sim = await startSim({ listen: "tcpin://127.0.0.1:0", dir: vehicleDir, autopilot: "px4", link: "usb" });
  try {
    const port = await freePort(firstPort);
    const text = JSON.stringify({
      vehicle: "demo-plane",
      stateDir: join(home, "state"),
      spool: { maxSize: "4GiB", keepFree: "64MiB" },
      devices: {
        pixhawk: { type: "mavftp", url: sim.clientUrl, root: given === undefined ? `/${logDir}` : "/", settle: "2s" },
        ground: { type: "ftp", host: "127.0.0.1", port, user: "demo", password: "demo" },
      },
      routes: [{ from: "pixhawk", to: ["ground"] }],
      services: {
        ftp: { type: "ftp-server", listen: `127.0.0.1:${port}`, root: ground, users: { demo: { password: "demo", root: "." } } },
      },
    });
    const { config, problems } = await loadConfig(text, plugins, { baseDir: home, env: process.env, hostName: "demo" });
    if (config === undefined || problems.length > 0) throw new Error(problems.map(({ message }) => message).join("; "));

    output.line(`A simulated flight controller (PX4, USB speed) with the files of ${vehicleDir}`);
    if (isNew && given !== undefined) output.line(`${vehicleDir} was made, and is empty: copy logs into it`);
    output.line(`An FTP server at ftp://demo:demo@127.0.0.1:${port}/ that keeps its files in ${ground}`);
    output.line(
      `What has been moved is remembered in ${config.stateDir}. Kill this in the middle (kill -9 ${process.pid}) and start it again: it goes on.`,
    );
    output.line("");
    let told = false;
    const tell = (daemon: Daemon) => {
      if (told || !daemon.ready) return;
      const status = daemon.status();
      const { waiting, active, parked, delivered } = status.queue;
      if (delivered === 0 || waiting + active + parked + status.settling > 0) return;
      told = true;
      output.line("");
      output.line(
        `${delivered === 1 ? "The file has" : `All ${delivered} files have`} arrived (${sizeText(status.bytes.delivered)}). Try next:`,
      );
      output.line(`  ls -R ${shellWord(ground)}`);
      if (!options.once) output.line(`  curl ftp://demo:demo@127.0.0.1:${port}/demo-plane/pixhawk/`);
      output.line(
        `  cp some.ulg ${shellWord(`${join(vehicleDir, given === undefined ? logDir : "")}/`)}   (a new flight: found within 5 minutes, or at the next start)`,
      );
      output.line(`  rm -r ${shellWord(home)}   (to begin from nothing)`);
      if (!options.once) output.line("  Ctrl-C ends it.");
    };
    return await serve(config, { once: options.once, json: false, verbose: false }, output, undefined, (daemon) => {
      const timer = setInterval(() => tell(daemon), 200);
      return () => {
        clearInterval(timer);
        tell(daemon);
      };
    });
  } finally {
    await sim.close();
  }
}

/** Whether it was missing. */
async function made(dir: string): Promise<boolean> {
  try {
    return (await makeDirs(dir)) !== undefined;
  } catch (error) {
    if (["EEXIST", "ENOTDIR"].includes(codeOf(error))) throw new UsageError(`${dir} is not a directory, and none can be made there`);
    throw new UsageError((await withRights(faultOfErrno(error, `cannot make ${dir}`), "rwx", dir)).message);
  }
}

/** The first port from `port` on that nobody has on this address. */
async function freePort(port: number): Promise<number> {
  for (let n = port; n < port + 100; n++) {
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.once("error", () => resolve(false));
      server.listen(n, "127.0.0.1", () => {
        server.close(() => resolve(true));
      });
    });
    if (free) return n;
  }
  throw new UsageError(`no port from ${port} to ${port + 99} is free on 127.0.0.1`);
}
