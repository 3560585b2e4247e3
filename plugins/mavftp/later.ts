/**
 * A timer for what is waited for on a link. Once its time is up it lets come in first what came while this machine was busy: else an answer that lies
 * there already would count as late, and all of it be asked for again.
 */
export class Later {
  readonly #run: () => void;
  #timer: NodeJS.Timeout | undefined;
  #looking: NodeJS.Immediate | undefined;

  constructor(run: () => void) {
    this.#run = run;
  }

  /** Whether it is set, and has not run yet. */
  get set(): boolean {
    return this.#timer !== undefined || this.#looking !== undefined;
  }

  /** Sets it anew. */
  in(ms: number): void {
    this.stop();
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#looking = setImmediate(() => {
        this.#looking = undefined;
        this.#run();
      });
    }, ms);
  }

  stop(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#looking);
    this.#timer = this.#looking = undefined;
  }
}
