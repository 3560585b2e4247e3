/** Where words go: events as lines on stdout (JSON lines with --json), progress on a terminal's last line. */
import { jsonOf, type Event, type Events } from "../core/events.js";
import { nameIn } from "../core/paths.js";
import type { WayOfReading } from "../core/plugin.js";
import type { Status } from "../core/status.js";
import { durationText, sizeText } from "../core/text.js";

export interface Output {
  /** Progress is drawn. */
  readonly terminal: boolean;
  /** A line that stays. */
  line(text: string): void;
  /** The last line, replaced each time; only on a terminal. */
  progress(text: string): void;
  close(): void;
}

/** What a terminal does with what is wider than it: nothing comes of it, or it goes on in the next line. */
export const noWrap = "\x1b[?7l";
export const wrap = "\x1b[?7h";

/** `terminal`: progress is drawn. */
export function outputTo(stream: NodeJS.WriteStream): Output {
  const terminal = stream.isTTY;
  let shown = "";
  return {
    terminal,
    line(text) {
      stream.write(shown === "" ? `${text}\n` : `\r\x1b[K${text}\n${noWrap}${shown}${wrap}`);
    },
    progress(text) {
      // A character may be two columns wide.
      const drawn = cutTo(text, (stream.columns || 80) - 1);
      if (!terminal || drawn === shown) return;
      shown = drawn;
      stream.write(`${noWrap}\r\x1b[K${shown}${wrap}`);
    },
    close() {
      if (shown !== "") stream.write("\r\x1b[K");
      shown = "";
    },
  };
}

/** A character is cut in two nowhere: half of one is no text. */
export function cutTo(text: string, columns: number): string {
  return text.length <= columns ? text : `${text.slice(0, columns - 1).replace(/[\uD800-\uDBFF]$/, "")}…`;
}

const barWidth = 20;

/** How one file moves: a bar on a terminal, a line every ten seconds elsewhere, JSON lines each second for programs. */
export class Meter {
  at: number;
  /** How it is read, once that is known. */
  way: WayOfReading | undefined;
  readonly #timer: NodeJS.Timeout;
  readonly #startMs = performance.now();
  readonly #output: Output;

  constructor(
    readonly what: string,
    readonly size: number,
    readonly from: number,
    readonly json: boolean,
  ) {
    this.at = from;
    // The answer, for a program or a pipe, is alone on stdout.
    this.#output = outputTo(process.stderr);
    this.#timer = setInterval(() => this.#draw(), json ? 1000 : process.stderr.isTTY ? 250 : 10_000);
  }

  get #seconds(): number {
    return (performance.now() - this.#startMs) / 1000;
  }

  get #rate(): number {
    return (this.at - this.from) / Math.max(0.001, this.#seconds);
  }

  /** " in 5 s, 1.2 MB/s". The rate of a moment is chance. */
  get paceText(): string {
    return this.#seconds < 1 ? " in less than 1 s" : ` in ${durationText(this.#seconds)}, ${sizeText(this.#rate)}/s`;
  }

  /** ", by plain reads: …", or nothing; with what each gave where several were tried. */
  get wayText(): string {
    if (this.way === undefined) return "";
    const { name, why, tried } = this.way;
    const rates = Object.entries(tried).map(([what, rate]) => `${what} ${sizeText(rate)}/s`);
    return `, by ${name}: ${why}${rates.length > 1 ? ` (${rates.join(", ")})` : ""}`;
  }

  get wayFacts(): { readonly way?: WayOfReading } {
    return this.way === undefined ? {} : { way: this.way };
  }

  note(text: string): void {
    this.#output.line(text);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#output.close();
  }

  #draw(): void {
    const { what, at, size } = this;
    const rate = this.#rate;
    const left = rate > 0 ? (size - at) / rate : undefined;
    const part = size === 0 ? 1 : at / size;
    const text = `${Math.floor(part * 100)} % of ${sizeText(size)}, ${sizeText(rate)}/s${left === undefined ? "" : `, ${durationText(left)} left`}${this.wayText}`;
    if (this.json) {
      const facts = {
        progress: {
          ...{ offset: at, size, bytesPerSecond: Math.round(rate) },
          ...(left === undefined ? {} : { secondsLeft: Math.ceil(left) }),
          ...this.wayFacts,
        },
      };
      process.stdout.write(`${JSON.stringify(facts)}\n`);
    } else if (process.stderr.isTTY)
      this.#output.progress(`${what} [${"#".repeat(Math.round(part * barWidth)).padEnd(barWidth, ".")}] ${text}`);
    else this.#output.line(`${what}: ${text}`);
  }
}

/** Prints events as they come; returns what ends it. */
export function printEvents(events: Events, output: Output, options: { json: boolean; verbose: boolean }): () => void {
  const subscription = events.all$.subscribe((event) => {
    if (event.level === "debug" && !options.verbose) return;
    output.line(options.json ? jsonOf(event) : lineOf(event));
  });
  return () => subscription.unsubscribe();
}

const marks: Readonly<Record<Event["level"], string>> = { debug: "debug: ", info: "", warn: "warning: ", error: "error: " };

function lineOf(event: Event): string {
  return `${new Date().toISOString().slice(0, 19)}Z ${marks[event.level]}${event.message}`;
}

/** What moves now, on one line. */
export function progressText(status: Pick<Status, "queue" | "transfers">): string {
  const moving = status.transfers.map((transfer) => {
    const percent = transfer.size === 0 ? 100 : Math.floor((transfer.offset / transfer.size) * 100);
    const left = transfer.secondsLeft === undefined ? "" : `, ${durationText(transfer.secondsLeft)} left`;
    return `→ ${transfer.to} ${nameIn(transfer.path)} ${percent}% ${sizeText(transfer.bytesPerSecond)}/s${left}`;
  });
  const { waiting, delivered, parked } = status.queue;
  return moving.length === 0
    ? `${delivered} delivered, ${waiting} waiting${parked > 0 ? `, ${parked} set aside` : ""}`
    : moving.join(" | ");
}
