/** Where words go: events as lines on stdout (JSON lines with --json), progress on a terminal's last line. */
import type { Event, Events } from "../core/events.js";
import { durationText, sizeText, type Status } from "../core/status.js";

export interface Output {
  /** Progress is drawn. */
  readonly terminal: boolean;
  /** A line that stays. */
  line(text: string): void;
  /** The last line, replaced each time; only on a terminal. */
  progress(text: string): void;
  close(): void;
}

/** `terminal`: progress is drawn. */
export function outputTo(stream: NodeJS.WriteStream): Output {
  const terminal = stream.isTTY;
  let shown = "";
  return {
    terminal,
    line(text) {
      stream.write(`${shown === "" ? "" : "\r\x1b[K"}${text}\n${shown}`);
    },
    progress(text) {
      if (!terminal || text === shown) return;
      shown = cutTo(text, (stream.columns || 80) - 1);
      stream.write(`\r\x1b[K${shown}`);
    },
    close() {
      if (shown !== "") stream.write("\r\x1b[K");
      shown = "";
    },
  };
}

function cutTo(text: string, columns: number): string {
  return text.length <= columns ? text : `${text.slice(0, columns - 1)}…`;
}

/** Prints events as they come; returns what ends it. */
export function printEvents(events: Events, output: Output, options: { json: boolean; verbose: boolean }): () => void {
  const subscription = events.all$.subscribe((event) => {
    if (event.level === "debug" && !options.verbose) return;
    output.line(options.json ? JSON.stringify({ time: new Date().toISOString(), ...event }) : lineOf(event));
  });
  return () => subscription.unsubscribe();
}

const marks: Readonly<Record<Event["level"], string>> = { debug: "debug: ", info: "", warn: "warning: ", error: "error: " };

function lineOf(event: Event): string {
  return `${new Date().toISOString().slice(0, 19)}Z ${marks[event.level]}${event.message}`;
}

/** What moves now, on one line. */
export function progressText(status: Status): string {
  const moving = status.transfers.map((transfer) => {
    const percent = transfer.size === 0 ? 100 : Math.floor((transfer.offset / transfer.size) * 100);
    const left = transfer.secondsLeft === undefined ? "" : `, ${durationText(transfer.secondsLeft)} left`;
    return `→ ${transfer.to} ${transfer.path.slice(transfer.path.lastIndexOf("/") + 1)} ${percent}% ${sizeText(transfer.bytesPerSecond)}/s${left}`;
  });
  const { waiting, delivered, parked } = status.queue;
  return moving.length === 0
    ? `${delivered} delivered, ${waiting} waiting${parked > 0 ? `, ${parked} set aside` : ""}`
    : moving.join(" | ");
}
