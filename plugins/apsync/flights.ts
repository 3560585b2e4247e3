/**
 * Which files belong to one flight: those that were found within `gapMs` of one another. Flights and their slots are kept, so that a file that comes later, or after a restart, goes to where the
 * others of its flight are. What is lost of it costs a slot more, and no file.
 */
import { promises as fs } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { makeDirDurable, writeDurable } from "../../core/fs.js";

const flight = v.object({ id: v.string(), name: v.string(), fromMs: v.number(), toMs: v.number() });
export type Flight = Readonly<v.InferOutput<typeof flight>>;

const schema = v.object({ flights: v.array(flight) });
/** Older ones are forgotten. */
const most = 100;

/** Whose slot it is, as its name says: a time stamp, the vehicle's id, and a number where that was given twice. */
const vehicleIn = (name: string): string | undefined => /^\d{8}T\d{6}Z-(.+-[0-9a-f]{8})(?:-\d+)?$/.exec(name)?.[1];

export class Flights {
  #flights: Flight[] | undefined;
  /** As it stands in the file. */
  #kept = new Map<string, Flight>();

  /** `dir`: made where it is missing. */
  constructor(
    readonly dir: string,
    readonly gapMs: number,
  ) {}

  /** Where several were that near to one another, the one that had a file last. */
  async at(foundMs: number): Promise<Flight | undefined> {
    return (await this.#all()).findLast(({ fromMs, toMs }) => foundMs >= fromMs - this.gapMs && foundMs <= toMs + this.gapMs);
  }

  /** A file that was found then is of the flight that has this slot. `gone`: slots that the station has no more, whose flights go on in this one. */
  async add({ id, name }: Pick<Flight, "id" | "name">, foundMs: number, gone: readonly string[] = []): Promise<void> {
    const all = await this.#all();
    const before = all.filter((it) => it.id === id || gone.includes(it.id));
    const fromMs = Math.min(foundMs, ...before.map((it) => it.fromMs));
    const toMs = Math.max(foundMs, ...before.map((it) => it.toMs));
    const now = { id, name, fromMs, toMs };
    // Flights of another vehicle, as which this one was registered before, or from whose card this one was cloned, are none of its own.
    const others = all.filter((it) => !before.includes(it) && vehicleIn(it.name) === vehicleIn(name));
    this.#flights = [...others, now].slice(-most);
    const kept = this.#kept.get(id);
    // A camera's thousand files are no thousand writes: a part of the gap is well lost.
    const slackMs = this.gapMs / 4;
    if (kept !== undefined && kept.fromMs - now.fromMs < slackMs && now.toMs - kept.toMs < slackMs) return;
    await makeDirDurable(this.dir, 0o700);
    await writeDurable(this.#file, `${JSON.stringify({ flights: this.#flights })}\n`, 0o600);
    this.#kept = new Map(this.#flights.map((it) => [it.id, it]));
  }

  get #file(): string {
    return join(this.dir, "flights.json");
  }

  async #all(): Promise<Flight[]> {
    if (this.#flights !== undefined) return this.#flights;
    const read = v.safeParse(
      schema,
      await fs
        .readFile(this.#file, "utf8")
        .then(JSON.parse)
        .catch(() => undefined),
    );
    this.#flights = read.success ? read.output.flights : [];
    this.#kept = new Map(this.#flights.map((it) => [it.id, it]));
    return this.#flights;
  }
}
