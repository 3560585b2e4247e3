/** What a campaign of autopilots is given, and what it tells at its end. */
import type { FlightOptions } from "./flights.js";
import type { Vehicle } from "./vehicle.js";

export interface FleetOptions extends FlightOptions {
  readonly say?: (line: string) => void;
  /** Ends earlier, after the round in which this time is over. */
  readonly minutes?: number;
  /** How long everything may take to arrive once the faults have stopped. */
  readonly restMs: number;
}

export interface FleetRow {
  readonly files: number;
  readonly megabytes: number;
  /** What it sent of them, repetitions too. */
  readonly sentMegabytes: number;
  /** Of that, what had come before a stop, and was sent again after it. */
  readonly againKilobytes: number;
  readonly dearestKilobytes: number;
  readonly sessions: number;
  readonly timedOut: number;
  readonly requests: number;
}

export interface FleetReport {
  readonly seed: number;
  readonly rounds: number;
  readonly seconds: number;
  /** How often each kind was carried out. */
  readonly counts: Readonly<Record<string, number>>;
  readonly faults: number;
  readonly kills: number;
  readonly files: number;
  readonly receipts: number;
  readonly vehicles: Readonly<Record<string, FleetRow>>;
  readonly findings: readonly string[];
  /** The world, where something was found in it. */
  readonly dir: string | undefined;
}

export function rowsOf(vehicles: readonly Vehicle[]): Record<string, FleetRow> {
  return Object.fromEntries(
    vehicles.map(({ name, book, bytes, ledger, totals }) => [
      name,
      {
        files: book.size,
        megabytes: round(bytes / 1e6),
        sentMegabytes: round(totals.sent / 1e6),
        againKilobytes: round(ledger.againBytes / 1e3),
        dearestKilobytes: round(Math.max(0, ...ledger.prices.map((price) => price.bytes / price.faults)) / 1e3),
        sessions: totals.opened,
        timedOut: totals.timedOut,
        requests: totals.requests,
      },
    ]),
  );
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
