#!/usr/bin/env node
/** The command line: arguments, signals and exit codes; a thin shell over core. 0 done, 1 internal error, 2 usage or configuration, 3 finished with something left. */
import { cac } from "cac";
import { ControlError } from "../core/control.js";
import { StateDirHeld } from "../core/installation.js";
import { JournalFromNewerVersion } from "../core/journal.js";
import { configPath, UsageError } from "./config.js";
import type { SimArguments } from "./sim.js";
import { programVersion } from "./version.js";

interface Common {
  readonly config?: string;
}

async function main(argv: readonly string[]): Promise<number> {
  const cli = cac("filesync");
  let action: Promise<number> | undefined;
  const does =
    <A extends unknown[]>(work: (...args: A) => Promise<number>) =>
    (...args: A) => {
      action = work(...args);
    };
  const file = "FILE: default ./config.json, else /etc/filesync/config.json";

  cli
    .command("run", "The daemon: finds, pulls and pushes until it is stopped")
    .option("--config <file>", file)
    .option("--once", "Deliver all that can be delivered now, then exit")
    .option("--json", "One JSON line per event")
    .option("--verbose", "Say more")
    .action(
      does(async (options: Common & { once?: boolean; json?: boolean; verbose?: boolean }) =>
        (await import("./run.js")).runCommand(configPath(options.config), {
          once: options.once === true,
          json: options.json === true,
          verbose: options.verbose === true,
        }),
      ),
    );
  cli
    .command("check", "Say what is wrong with a configuration")
    .option("--config <file>", file)
    .option("--probe", "Try every device, without changing anything")
    .action(
      does(async (options: Common & { probe?: boolean }) =>
        (await import("./check.js")).checkCommand(configPath(options.config), { probe: options.probe === true }),
      ),
    );
  cli
    .command("status", "What is attached, what moves, what waits, and why")
    .option("--config <file>", file)
    .option("--json", "For programs")
    .option("--watch", "Again each second")
    .action(
      does(async (options: Common & { json?: boolean; watch?: boolean }) =>
        (await import("./status.js")).statusCommand(configPath(options.config), {
          json: options.json === true,
          watch: options.watch === true,
        }),
      ),
    );
  cli
    .command("demo", "A simulated flight controller → spool → the bundled FTP server, without hardware")
    .option("--dir <dir>", "Files for the simulated flight controller, in place of made-up flights")
    .option("--once", "Exit when all has arrived")
    .action(
      does(async (options: { dir?: string; once?: boolean }) =>
        (await import("./demo.js")).demoCommand({
          once: options.once === true,
          ...(options.dir === undefined ? {} : { dir: options.dir }),
        }),
      ),
    );
  cli
    .command("sim", "A simulated flight controller on a real transport")
    .option("--listen <url>", "tcpin://HOST:PORT, udpin://HOST:PORT, udpout://HOST:PORT or pty:PATH")
    .option("--dir <dir>", 'The directory that is "/" of its file system; default: the current one')
    .option("--autopilot <name>", "px4 (default), px4-1.18")
    .option("--link <name>", "usb (default), uart:BAUD, udp, none")
    .option("--fault <name=value>", "A fault, such as loss=5%; may be given more than once")
    .option("--seed <n>", "What the faults are drawn from")
    .option("--armed", "Begin armed; SIGUSR1 toggles")
    .action(does(async (options: SimArguments) => (await import("./sim.js")).simCommand(options)));
  cli
    .command("hash-password", "A password from standard input → the passwordHash of a user of the FTP server")
    .action(does(async () => (await import("./hash-password.js")).hashPasswordCommand()));
  cli.help();
  cli.version(programVersion);
  try {
    cli.parse([...argv], { run: false });
    if (cli.options.help === true || cli.options.version === true) return 0;
    if (cli.matchedCommand === undefined) {
      const [given] = cli.args;
      if (given === undefined) {
        cli.outputHelp();
        return 2;
      }
      throw new UsageError(`there is no command "${given}"; "filesync --help" lists them`);
    }
    cli.runMatchedCommand();
  } catch (error) {
    if (error instanceof Error && error.name === "CACError") throw new UsageError(error.message);
    throw error;
  }
  return (await action) ?? 0;
}

// Whoever reads our words may stop reading: a daemon goes on without a reader, another command has nothing more to say.
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    if (!["run", "demo", "sim"].includes(process.argv[2] ?? "")) process.exit(0);
  });

main(process.argv).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    const mistake =
      error instanceof UsageError ||
      error instanceof ControlError ||
      error instanceof StateDirHeld ||
      error instanceof JournalFromNewerVersion;
    process.stderr.write(
      mistake
        ? `filesync: ${error.message}\n`
        : `filesync: internal error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
    process.exitCode = mistake ? 2 : 1;
  },
);
