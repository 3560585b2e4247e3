/** The command line: arguments, signals and exit codes; a thin shell over core. 0 done, 1 internal error, 2 usage or configuration, 3 finished with something left, 130 stopped. */
import { cac, type CAC } from "cac";
import { suggestion } from "../core/config-problems.js";
import { ControlError } from "../core/control.js";
import { codeOf, faultOfErrno, isFault } from "../core/errors.js";
import { StateDirHeld } from "../core/installation.js";
import { JournalDamaged } from "../core/journal.js";
import { JournalFromNewerVersion } from "../core/tables.js";
import { shellWord } from "../core/text.js";
import { usages } from "../plugins/registry/order-words.js";
import { configPath, UsageError } from "./config.js";
import { endWithin } from "./ending.js";
import type { HandOptions } from "./hand.js";
import type { RegisterOptions } from "./register.js";
import type { SimArguments } from "./sim.js";
import { typedWords } from "./typed.js";
import { programVersion } from "./version.js";

interface Common {
  readonly config?: string;
}

/** What only tells something: it has nothing more to say once nobody reads. */
const telling: readonly (string | undefined)[] = ["status", "ls", "why", "verify", "plan", "check", "doctor", "ready"];
let running: string | undefined;

async function main(argv: readonly string[]): Promise<number> {
  const cli = cac("filesync");
  let action: Promise<number> | undefined;
  const does =
    <A extends unknown[]>(work: (...args: A) => Promise<number>) =>
    (...args: A) => {
      action = work(...args);
    };
  const url =
    "Without a configuration: serial://PATH:BAUD, tcpout://HOST:PORT, tcpin://…, udpin://…, udpout://…, ftp://USER@HOST/ or ftps://USER@HOST/";
  const trace = "Record what is asked and answered on a flight controller's link, for a bug report";
  const file = "FILE: default ./config.json, else /etc/filesync/config.json";

  cli
    .command("init", "The first configuration: looks at what is plugged in and running, asks, and writes it")
    .option(
      "--config <file>",
      "Where to write it; default: /etc/filesync/config.json for root where FileSync is installed, else ./config.json",
    )
    .option("--yes", "Ask nothing: take the default of each question")
    .option("--ground", "For a ground station: an FTP server for vehicles; a configuration that is there gets the vehicle added")
    .option("--vehicle <name>", "The vehicle's name; with --ground a vehicle that sends to it, and may be given more than once")
    .option("--registry", "With --ground: vehicles register by themselves, and send by rsync")
    .option("--force", "Where there is a configuration already, write a new one, and keep the old one as config.json.old")
    .action(
      does(
        async (options: Common & { yes?: boolean; ground?: boolean; registry?: boolean; vehicle?: string | string[]; force?: boolean }) =>
          (await import("./init.js")).initCommand({
            ...(options.config === undefined ? {} : { config: options.config }),
            yes: options.yes === true,
            ground: options.ground === true,
            registry: options.registry === true,
            vehicles: options.vehicle === undefined ? [] : [options.vehicle].flat(),
            force: options.force === true,
          }),
      ),
    );
  cli
    .command("import-legacy <old>", "The configuration of the FileSync in Python → one of this; says what it could not take over")
    .option("--config <file>", "Where to write it; default as of init. Never over another file")
    .action(does(async (old: string, options: Common) => (await import("./import-legacy.js")).importLegacyCommand(old, options.config)));
  cli
    .command("run", "The daemon: finds, pulls and pushes until it is stopped")
    .option("--config <file>", file)
    .option("--once", "Deliver all that can be delivered now, then exit")
    .option("--json", "One JSON line per event")
    .option("--verbose", "Say more")
    .action(
      does(async (options: Common & { once?: boolean; json?: boolean; verbose?: boolean }) =>
        (await import("./run.js")).runCommand(options.config, {
          once: options.once === true,
          json: options.json === true,
          verbose: options.verbose === true,
        }),
      ),
    );
  cli
    .command("check", "Say what is wrong with a configuration")
    .option("--config <file>", file)
    .option("--probe", "Try every device and service, without changing anything")
    .option("--json", "For programs")
    .action(
      does(async (options: Common & { probe?: boolean; json?: boolean }) =>
        (await import("./check.js")).checkCommand(configPath(options.config), {
          probe: options.probe === true,
          json: options.json === true,
        }),
      ),
    );
  cli
    .command("doctor", "What keeps files from arriving on this machine, and what to type about it")
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(
      does(async (options: Common & { json?: boolean }) =>
        (await import("./doctor.js")).doctorCommand(options.config, options.json === true),
      ),
    );
  cli
    .command("ready", "Whether the cards, the spool and the ground have room for the next flights")
    .option("--need <size>", 'How much they make, such as "4GiB"; default: the largest day so far, at least 1 GiB')
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(
      does(async (options: Common & { need?: string; json?: boolean }) =>
        (await import("./ready.js")).readyCommand(configPath(options.config), {
          ...(options.need === undefined ? {} : { need: options.need }),
          json: options.json === true,
        }),
      ),
    );
  cli
    .command("report", "One file for a bug report: versions, configuration, findings, status and log, without secrets")
    .option("--out <file>", "Where to write it; default: filesync-report-DATE-TIME.txt here. Never over another file")
    .option("--config <file>", file)
    .action(does(async (options: Common & { out?: string }) => (await import("./report.js")).reportCommand(options.config, options.out)));
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
    .command("ls [place]", "List DEVICE:PATH, or with --url PATH")
    .option("-r, --recursive", "With all that is below")
    .option("--url <url>", url)
    .option("--trace <file>", trace)
    .option("--config <file>", file)
    .option("--json", "One JSON line per entry")
    .action(does(async (place: string | undefined, options: HandOptions) => (await import("./hand.js")).lsCommand(place ?? "", options)));
  cli
    .command("get <place> [local]", 'Copy DEVICE:PATH here; "latest" as PATH is the newest log; goes on where it stopped')
    .option("--force", "Replace another file that is here")
    .option("--url <url>", url)
    .option("--trace <file>", trace)
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(
      does(async (place: string, local: string | undefined, options: HandOptions) =>
        (await import("./hand.js")).getCommand(place, local, options),
      ),
    );
  cli
    .command("put <local> <place>", "Copy a file of this machine to DEVICE:PATH; verified, and never over another file")
    .option("--force", "Replace another file that is there")
    .option("--url <url>", url)
    .option("--trace <file>", trace)
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(
      does(async (local: string, place: string, options: HandOptions) => (await import("./hand.js")).putCommand(local, place, options)),
    );
  cli
    .command("rm <place>", "Remove the file DEVICE:PATH")
    .option("--url <url>", url)
    .option("--trace <file>", trace)
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(does(async (place: string, options: HandOptions) => (await import("./hand.js")).rmCommand(place, options)));
  cli
    .command("mkdir <place>", "Make the directory DEVICE:PATH, with those above it")
    .option("--url <url>", url)
    .option("--trace <file>", trace)
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(does(async (place: string, options: HandOptions) => (await import("./hand.js")).mkdirCommand(place, options)));
  cli
    .command("mv <place> <path>", "Move the file DEVICE:PATH to PATH on the same device, never over another")
    .option("--url <url>", url)
    .option("--trace <file>", trace)
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(does(async (place: string, path: string, options: HandOptions) => (await import("./hand.js")).mvCommand(place, path, options)));
  cli
    .command("why <path>", "Every reason that holds a file back, and when it will go; PATH, DEVICE:PATH or an id")
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(
      does(async (what: string, options: Common & { json?: boolean }) =>
        (await import("./amend.js")).whyCommand(configPath(options.config), what, options.json === true),
      ),
    );
  cli
    .command("retry [what]", "Try again what was set aside: an id, a device, a path, or --all")
    .option("--all", "All that was set aside")
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(
      does(async (what: string | undefined, options: Common & { all?: boolean; json?: boolean }) => {
        if ((what === undefined) !== (options.all === true))
          throw new UsageError('retry needs an id, a device, a path, or --all ("filesync status" lists what was set aside)');
        return (await import("./amend.js")).retryCommand(configPath(options.config), what, options.json === true);
      }),
    );
  cli
    .command(
      "forget <what>",
      "Give up what was set aside, or waits for a target that has left: an id, a path, or that target; touches no file",
    )
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(
      does(async (what: string, options: Common & { json?: boolean }) =>
        (await import("./amend.js")).forgetCommand(configPath(options.config), what, options.json === true),
      ),
    );
  cli
    .command("verify [path]", "Prove deliveries again: target, spool and source against the receipts")
    .option("--config <file>", file)
    .option("--json", "One JSON line per thing that was looked at")
    .action(
      does(async (what: string | undefined, options: Common & { json?: boolean }) =>
        (await import("./amend.js")).verifyCommand(configPath(options.config), what, options.json === true),
      ),
    );
  cli
    .command("eject <device>", "Make a disk safe to be taken out; plugged in again, it is used again")
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(
      does(async (device: string, options: Common & { json?: boolean }) =>
        (await import("./amend.js")).ejectCommand(configPath(options.config), device, options.json === true),
      ),
    );
  cli
    .command("plan [route]", "What a mirror or two-way route would do now, path by path; changes nothing")
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(
      does(async (what: string | undefined, options: Common & { json?: boolean }) =>
        (await import("./amend.js")).planCommand(configPath(options.config), what, options.json === true),
      ),
    );
  cli
    .command("approve <route>", "Let a mirror or two-way route that stopped go on once; filesync plan shows what it will do")
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(
      does(async (what: string, options: Common & { json?: boolean }) =>
        (await import("./amend.js")).approveCommand(configPath(options.config), what, options.json === true),
      ),
    );
  cli
    .command(
      "register",
      "Register this vehicle with a ground station that has a registry: makes its key, waits until its owner confirms, and writes device and routes",
    )
    .option("--server <url>", 'The station, such as "https://ground.example.org:8443"')
    .option("--email <address>", "Who owns the vehicle, and confirms")
    .option("--vehicle <name>", "What its owner calls it; default: the configuration's, else one is made")
    .option("--fingerprint <sha256>", "The one certificate that is believed; the station's operator knows it")
    .option("--device <name>", 'The new device\'s name in the configuration; default: "station"')
    .option(
      "--renew",
      "A new key for a vehicle that is registered; where the one before was revoked or is lost, its owner (--email) is asked again",
    )
    .option("--ftp", "Send by FTP, with a password that the station makes, in place of rsync over ssh")
    .option("--from <device>", "What sends to it, may be given more than once; default: all that can be read")
    .option("--config <file>", file)
    .action(
      does(async (options: RegisterOptions) => {
        const config = configPath(options.config);
        return options.renew === true && options.ftp !== true
          ? (await import("./renew.js")).renewCommand(config, options)
          : (await import("./register.js")).registerCommand(config, options);
      }),
    );
  const registry = cli
    .command(
      "registry [...words]",
      "On a ground station: list, confirm, refuse, revoke, rotate, password, quota, delete; without a word it says what each takes",
    )
    .option("--config <file>", file)
    .option("--json", "For programs")
    .action(
      does(async (words: string[], options: Common & { json?: boolean }) =>
        (await import("./registry.js")).registryCommand(options.config, words, options.json === true),
      ),
    );
  for (const usage of usages) registry.example(`  $ filesync registry ${usage}`);
  cli
    .command("demo", "A simulated flight controller → spool → the bundled FTP server, without hardware")
    .option("--dir <dir>", "Files for the simulated flight controller, in place of made-up flights; made where it is missing")
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
    .option("--autopilot <name>", "px4 (default), px4-1.18, ardupilot-4.6, ardupilot-4.7, ardupilot-4.8, mavsdk")
    .option("--link <name>", "usb (default), uart:BAUD, radio:BAUD, udp, none")
    .option("--fault <name=value>", "A fault, such as loss=5%; may be given more than once")
    .option("--seed <n>", "What the faults are drawn from")
    .option("--armed", "Begin armed; SIGUSR1 toggles")
    .option("--ring <bytes>", "The transmit ring, where it is not the autopilot's usual one")
    .option("--param <name=value>", "A setting of the autopilot, such as SDLOG_MODE=-1; may be given more than once")
    .option("--card-free <size>", "What is free on its card; none: no card is in; silent: it does not say")
    .option("--replay <file>", "Play a trace of a session in place of an autopilot")
    .action(does(async (options: SimArguments) => (await import("./sim.js")).simCommand(options)));
  cli
    .command("hash-password", "A password from standard input → the passwordHash of a user of the FTP server")
    .action(does(async () => (await import("./hash-password.js")).hashPasswordCommand()));
  cli
    .command("mount-helper", "What systemd starts to mount disks for a service that is not root: answers one question")
    .action(does(async () => (await import("./mount-helper.js")).mountHelperCommand()));
  cli.help((sections) => [
    ...sections.filter(({ title }) => title?.startsWith("For more info") !== true),
    {
      title: "Exit codes",
      body: "  0  done\n  1  an internal error\n  2  a mistake in the command or the configuration\n  3  finished, but something is left: set aside, failed, not as it should be\n  130  stopped by Ctrl-C; run --once, also by SIGTERM",
    },
  ]);
  cli.version(programVersion);
  try {
    expectPlainOptions(argv.slice(2));
    cli.parse(argv.map(asWord), { run: false });
    // What follows "--" is no option, whatever it begins with.
    cli.args = [...cli.args, ...(cli.options["--"] as string[])].map(word);
    if (cli.options.help === true || cli.options.version === true) return 0;
    if (cli.matchedCommand === undefined) {
      const [given] = cli.args;
      if (given === undefined) {
        cli.outputHelp();
        return 2;
      }
      const names = cli.commands.map(({ name }) => name);
      throw new UsageError(`there is no command "${given}"${suggestion(given, names)}; "filesync --help" lists them`);
    }
    // A variable of a script that is not set: nobody means it.
    if (cli.args.includes("")) throw new UsageError(`an argument of ${cli.matchedCommandName ?? ""} is empty ("")`);
    asTexts(cli.options, cli.matchedCommandName ?? "");
    running = cli.matchedCommandName;
    cli.runMatchedCommand();
  } catch (error) {
    if (error instanceof Error && error.name === "CACError") throw new UsageError(`${error.message}${hintFor(error.message, cli)}`);
    throw error;
  }
  return (await action) ?? 0;
}

/** What may be given more than once. */
const repeatable: Readonly<Record<string, readonly string[]>> = { sim: ["fault", "param"], init: ["vehicle"], register: ["from"] };

/** The parser takes "-dash" for five options, of which "-h" is one, and "-" for nothing. */
function expectPlainOptions(words: readonly string[]): void {
  const end = words.indexOf("--");
  const given = (end === -1 ? words : words.slice(0, end)).find((word) => /^-(?:[a-z]{2}|$)/i.test(word));
  if (given !== undefined)
    throw new UsageError(
      `${shellWord(given)} is no option; a name that begins with "-" goes behind "--": filesync ${words[0] ?? ""} -- ${shellWord(given)}`,
    );
}

/** No word of a command line holds it. */
const mark = "\0";

/** The parser takes "007" for 7, and "true" for no word at all: a vehicle or a file may be called so. */
function asWord(given: string): string {
  const [, option = "", value = ""] = /^(--[^=]+=)?(.*)$/s.exec(given) ?? [];
  const taken = Number.isFinite(Number(value)) || value === "true" || value === "false";
  return taken && !value.startsWith("-") ? `${option}${mark}${value}` : given;
}

/** The word as it was typed. */
function word(given: string): string {
  return given.startsWith(mark) ? given.slice(mark.length) : given;
}

/** Options as they were typed, each once where the command takes no more. */
function asTexts(options: Record<string, unknown>, command: string): void {
  for (const [name, value] of Object.entries(options)) {
    if (Array.isArray(value)) {
      if (name !== "--" && repeatable[command]?.includes(name) !== true) throw new UsageError(`--${name} is given twice`);
      options[name] = (value as string[]).map(word);
    } else if (typeof value === "string") {
      options[name] = word(value);
      if (options[name] === "") throw new UsageError(`--${name} needs a value`);
    }
  }
}

/** The nearest option, else where the command is explained. */
function hintFor(message: string, { matchedCommand, globalCommand }: CAC): string {
  const [, given] = /^Unknown option `--([^`]+)`/.exec(message) ?? [];
  const options = [...(matchedCommand?.options ?? []), ...globalCommand.options].map(({ name }) => `--${name}`);
  const near = given === undefined ? "" : suggestion(`--${given}`, options);
  return near === "" ? `; "filesync ${matchedCommand?.name ?? ""} --help" says more` : near;
}

/** What the disk refused a command, for a person: that is nobody's error. */
function refusedText(error: unknown): string | undefined {
  if (isFault(error) || !["ENOSPC", "EDQUOT", "EROFS", "EIO"].includes(codeOf(error))) return undefined;
  const { path = "a file" } = error as NodeJS.ErrnoException;
  return faultOfErrno(error, `${path} cannot be written`).message;
}

/** Why not all that was said came to where it goes. */
let unsaid: string | undefined;

// Whoever reads our words may stop reading, a terminal may be closed, the disk that takes them may be full: what does something goes on.
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") unsaid = faultOfErrno(error, "what it says cannot be written").message;
    else if (telling.includes(running)) process.exit(0);
  });

// The log of a daemon is not what it is there for.
process.on("exit", (code) => {
  if (unsaid === undefined || code !== 0 || running === "run") return;
  process.stderr.write(`filesync: ${unsaid}\n`);
  process.exitCode = 2;
});

/** Long enough for connections that others keep open. */
const endMs = 10_000;

main(typedWords(process.argv)).then(
  (code) => {
    process.exitCode = code;
    endWithin(endMs);
  },
  (error: unknown) => {
    endWithin(endMs);
    const refused = refusedText(error);
    const mistake =
      refused !== undefined ||
      error instanceof UsageError ||
      error instanceof ControlError ||
      error instanceof StateDirHeld ||
      error instanceof JournalFromNewerVersion ||
      error instanceof JournalDamaged;
    // What a device says ends a command unfinished; Ctrl-C is no error of anybody's.
    const fault = isFault(error);
    process.stderr.write(
      mistake || fault
        ? `filesync: ${refused ?? (error as Error).message}\n`
        : `filesync: internal error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
    process.exitCode = mistake ? 2 : isFault(error, "aborted") ? 130 : fault ? 3 : 1;
  },
);
