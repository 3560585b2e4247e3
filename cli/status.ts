/** `status`: asks the running daemon; without one, reads what its journal says. `--watch` draws it anew each second, in place on a terminal. */
import { placeText } from "../core/config-problems.js";
import { ControlError } from "../core/control.js";
import { lastRan, lastWords } from "../core/last.js";
import { noDaemon, statusOf, syncText, type Status } from "../core/status.js";
import { durationText, sizeText } from "../core/text.js";
import { askOrDoWith, interruptible, whomToAsk, type Asked } from "./ask.js";
import { UsageError } from "./config.js";
import { cutTo, noWrap, wrap } from "./output.js";
import { programVersion } from "./version.js";

const watchMs = 1000;
/** More are told by their number. */
const mostLost = 10;

export async function statusCommand(path: string, options: { json: boolean; watch: boolean }): Promise<number> {
  const asked = await whomToAsk(path);
  const status = await statusNow(asked);
  const text = (now: Status) => (options.json ? JSON.stringify(now) : statusText(now));
  if (!options.watch) {
    process.stdout.write(`${text(status)}\n`);
    return 0;
  }
  await interruptible(async (signal) => {
    const screen = process.stdout.isTTY && !options.json ? new Screen() : undefined;
    const stop = screen === undefined ? signal : AbortSignal.any([signal, screen.quit]);
    try {
      let shown = text(status);
      while (!stop.aborted) {
        if (screen === undefined) process.stdout.write(`${shown}\n${options.json ? "" : "\n"}`);
        else screen.draw(shown);
        await pause(watchMs, stop);
        shown = stop.aborted ? shown : await statusNow(asked).then(text, wordsOf);
      }
    } finally {
      screen?.close();
    }
  });
  return 0;
}

export async function statusNow(asked: Asked): Promise<Status> {
  return (await askOrDoWith(asked, { command: "status" }, {}, "reads", (engine) => statusOf(engine, programVersion, false))) as Status;
}

/** A daemon that starts or stops meanwhile is waited for. */
function wordsOf(error: unknown): string {
  if (error instanceof UsageError || error instanceof ControlError) return error.message;
  throw error;
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
    if (signal.aborted) done();
  });
}

/** The terminal's other screen: what was there before comes back, and nothing scrolls away. It cuts by itself what is wider than it looks (汉). */
class Screen {
  readonly #quit = new AbortController();
  #text = "";
  readonly #onKey = (key: Buffer) => {
    // q, Q, Ctrl-C, Ctrl-D
    if (/[qQ\x03\x04]/.test(key.toString("latin1"))) this.#quit.abort(); // eslint-disable-line no-control-regex
  };
  readonly #onResize = () => this.draw(this.#text);

  constructor() {
    process.stdout.write(`\x1b[?1049h\x1b[?25l${noWrap}`);
    process.stdout.on("resize", this.#onResize);
    if (!process.stdin.isTTY) return;
    process.stdin.setRawMode(true);
    process.stdin.on("data", this.#onKey).resume();
  }

  get quit(): AbortSignal {
    return this.#quit.signal;
  }

  /** In one write, each line over the old one: nothing flickers. */
  draw(text: string): void {
    this.#text = text;
    // A terminal may not know its size yet.
    const columns = process.stdout.columns || 80;
    const rows = process.stdout.rows || 24;
    const lines = text.split("\n");
    const fits = lines.length <= rows ? lines : [...lines.slice(0, rows - 1), `… ${lines.length - rows + 1} lines more`];
    process.stdout.write(`\x1b[H${fits.map((line) => `${cutTo(line, columns)}\x1b[K`).join("\n")}\x1b[J`);
  }

  close(): void {
    process.stdout.removeListener("resize", this.#onResize);
    process.stdin.removeListener("data", this.#onKey).pause();
    if (process.stdin.isTTY) process.stdin.setRawMode(false);
    process.stdout.write(`${wrap}\x1b[?25h\x1b[?1049l`);
  }
}

function leftOutText({ leftOut }: Status["devices"][number]): string {
  if (leftOut === undefined) return "";
  const { paths, path, reason } = leftOut;
  return `; left out: ${path} (${reason})${paths === 1 ? "" : ` and ${paths - 1} more`}`;
}

/** How a device was that is not looked at now; nothing where it was well. */
function lastText({ last }: Status["devices"][number]): string {
  const words = last === undefined ? [] : lastWords(last, "it");
  return last === undefined || words.length === 0 ? "" : `; ${lastRan(last)} ${words.map(({ text }) => text).join("; ")}`;
}

function lastSyncText({ mode, last }: Status["syncs"][number]): string {
  if (last === undefined || (last.state === "even" && last.troubles.length === 0)) return "";
  const { state, reason, troubles } = last;
  return `; ${lastRan(last)}: ${syncText({ route: "", mode, state, ...(reason === undefined ? {} : { reason }), changes: 0, troubles, left: troubles.length })}`;
}

/** Its device's own line says why nothing is sent. */
function isSaid({ devices }: Status, { to, fault }: Status["failing"][number]): boolean {
  return fault !== "foreign" && devices.some(({ name, held, presence }) => name === to && (held !== undefined || presence === "detached"));
}

function failingText({ from, to, fault, deliveries, reason, seconds }: Status["failing"][number]): string {
  const inDoubt = fault === "indoubt";
  const when = seconds === 0 ? "as soon as it can be" : `in ${durationText(seconds ?? 0)}`;
  const again = seconds === undefined ? "" : `; ${inDoubt ? "looked for " : ""}again ${when}`;
  const after = fault === "held" || fault === "foreign" ? "" : inDoubt ? " in doubt" : " after a failure";
  return `${from} → ${to}  ${deliveries} ${deliveries === 1 ? "waits" : "wait"}${after}: ${reason}${again}`;
}

function statusText(status: Status): string {
  const { ready, summary } = status;
  // With mirror and two-way routes alone it says so by itself.
  const lines = [ready || summary.endsWith(noDaemon) ? summary : `${summary} (${noDaemon})`];
  if (status.devices.length > 0) lines.push("");
  const width = Math.max(0, ...status.devices.map(({ name }) => name.length));
  for (const device of status.devices)
    lines.push(
      `${device.name.padEnd(width)}  ${device.presence}${device.reason === undefined ? "" : `: ${device.reason}`}${device.unasked === true ? ", not asked yet" : ""}${device.safe === true ? ", may be pulled" : ""}${device.unused === undefined ? "" : `; not used: ${device.unused}`}${device.held === undefined ? "" : `, nothing is sent to it: ${device.held}`}${leftOutText(device)}${lastText(device)}  (${device.type}${device.since === undefined ? "" : `, since ${device.since.slice(0, 19)}Z`})`,
    );
  for (const sync of status.syncs) {
    const { route, mode, changes } = sync;
    const { troubles } = sync.last ?? sync;
    lines.push(`${route}  ${syncText(sync)}${lastSyncText(sync)}  (${mode}, ${changes} ${changes === 1 ? "change" : "changes"})`);
    lines.push(...troubles.map(({ path, reason: why }) => `  ${path}: ${why}`));
  }
  if (status.configuration !== undefined) {
    lines.push("", "mistakes in the configuration:", ...status.configuration.mistakes.map((problem) => `  ${placeText(problem)}`));
    lines.push(...status.configuration.therefore.map((text) => `therefore ${text}`));
  }
  const { waiting, active, parked, delivered } = status.queue;
  lines.push(
    "",
    `deliveries: ${waiting} waiting, ${active} active, ${parked} set aside, ${delivered} done; spool ${sizeText(status.spool.used)} of ${sizeText(status.spool.maxSize)}`,
  );
  if (status.spool.waiting !== undefined) lines.push(status.spool.waiting);
  for (const failing of status.failing) if (!isSaid(status, failing)) lines.push(`  ${failingText(failing)}`);
  for (const transfer of status.transfers) {
    const percent = transfer.size === 0 ? 100 : Math.floor((transfer.offset / transfer.size) * 100);
    const left = transfer.secondsLeft === undefined ? "" : `, ${durationText(transfer.secondsLeft)} left`;
    lines.push(
      `  ${transfer.from} → ${transfer.to}  ${transfer.path}  ${percent} % of ${sizeText(transfer.size)}, ${sizeText(transfer.bytesPerSecond)}/s${left}`,
    );
  }
  if (status.parked.length > 0) lines.push("", "set aside:");
  for (const { path, from, to, reason, id } of status.parked) lines.push(`  ${from}:${path} → ${to}: ${reason}  [${id}]`);
  if (status.lost.length > 0)
    lines.push("", "lost at their source, before every target had them (filesync forget ID, or DEVICE, and it is told no more):");
  for (const { from, path, size, version } of status.lost.slice(0, mostLost))
    lines.push(`  ${from}:${path}  ${sizeText(size)}  [${version}]`);
  if (status.lost.length > mostLost) lines.push(`  and ${status.lost.length - mostLost} more (filesync status --json)`);
  if (status.recent.length > 0) lines.push("", "delivered last:");
  for (const receipt of status.recent.slice(0, 10))
    lines.push(
      `  ${receipt.at.slice(0, 19)}Z  ${receipt.from}:${receipt.source} → ${receipt.to}:${receipt.path}  ${sizeText(receipt.size)}, proved by ${receipt.proof}${receipt.url === undefined ? "" : `: ${receipt.url}`}`,
    );
  return lines.join("\n");
}
