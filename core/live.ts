/**
 * Files that are being pulled now: how far their durable bytes reach, so that a push can follow close behind. Gone when the pull ends; what
 * stays true after that is in the journal.
 */
import { Fault, abortedFault } from "./errors.js";

/** A push that waits for bytes longer than this gives its place to others. */
const stallMs = 10_000;

export class LiveFile {
  sealed = false;
  stopped = false;
  /** A push reads along: checkpoints come more often. */
  followers = 0;
  #waiting = new Set<() => void>();

  /** `durable`: bytes of that generation that no power cut can take back. */
  constructor(
    public generation: number,
    public durable: number,
  ) {}

  /** It begins anew. Before the journal says so: who sends the new one must not be given what is left of the one before. */
  restart(generation: number): void {
    this.generation = generation;
    this.advance(0);
  }

  /** So many bytes of that generation may be sent. */
  reach(generation: number): number {
    if (generation !== this.generation) return 0;
    return this.sealed ? Infinity : this.durable;
  }

  advance(durable: number): void {
    this.durable = durable;
    this.#wake();
  }

  seal(): void {
    this.sealed = true;
    this.#wake();
  }

  stop(): void {
    this.stopped = true;
    this.#wake();
  }

  /** Resolves when more than `offset` bytes are durable, or the file is sealed. Throws Fault "aborted" when none come for `stallMs`, the pull has stopped, or it is of another generation. */
  async beyond(offset: number, generation: number, signal: AbortSignal): Promise<void> {
    while (this.reach(generation) <= offset) {
      if (signal.aborted) throw abortedFault(signal);
      if (this.stopped || generation !== this.generation) throw new Fault("aborted", "waits for more of the file");
      await new Promise<void>((resolve, reject) => {
        const done = () => {
          clearTimeout(timer);
          signal.removeEventListener("abort", done);
          this.#waiting.delete(done);
          resolve();
        };
        const timer = setTimeout(() => {
          signal.removeEventListener("abort", done);
          this.#waiting.delete(done);
          reject(new Fault("aborted", "waits for more of the file"));
        }, stallMs);
        this.#waiting.add(done);
        signal.addEventListener("abort", done, { once: true });
      });
    }
  }

  #wake(): void {
    for (const done of [...this.#waiting]) done();
  }
}

export class LiveFiles {
  readonly #files = new Map<string, LiveFile>();

  begin(version: string, generation: number, durable: number): LiveFile {
    const file = new LiveFile(generation, durable);
    this.#files.set(version, file);
    return file;
  }

  end(version: string): void {
    this.#files.get(version)?.stop();
    this.#files.delete(version);
  }

  get(version: string): LiveFile | undefined {
    return this.#files.get(version);
  }
}
