/** Questions that are asked while others are answered go out together: many small files cost one program, not one each. */
export interface Together<A> {
  /** How many batches at once. */
  readonly slots: number;
  /** How many in a batch, and how heavy it may be. */
  readonly most: number;
  readonly weight?: (asked: A) => number;
  readonly mostWeight?: number;
}

interface Waiting<A, R> {
  readonly asked: A;
  readonly done: (answer: R) => void;
  readonly fail: (error: unknown) => void;
}

export class Gathered<A, R> {
  readonly #answer: (asked: readonly A[]) => Promise<readonly R[]>;
  readonly #how: Together<A>;
  #waiting: Waiting<A, R>[] = [];
  #running = 0;

  /** `answer` gives as many answers as it was asked, in order, or throws for all of them. */
  constructor(how: Together<A>, answer: (asked: readonly A[]) => Promise<readonly R[]>) {
    this.#how = how;
    this.#answer = answer;
  }

  ask(asked: A): Promise<R> {
    return new Promise((done, fail) => {
      this.#waiting.push({ asked, done, fail });
      // What is asked in the same turn goes along.
      if (this.#waiting.length === 1) setImmediate(() => this.#start());
    });
  }

  #start(): void {
    while (this.#running < this.#how.slots && this.#waiting.length > 0) {
      const batch = this.#take();
      this.#running += 1;
      void this.#run(batch).finally(() => {
        this.#running -= 1;
        this.#start();
      });
    }
  }

  #take(): Waiting<A, R>[] {
    const { most, weight = () => 0, mostWeight = 0 } = this.#how;
    let [n, heavy] = [0, 0];
    for (const { asked } of this.#waiting) {
      heavy += weight(asked);
      if (n > 0 && (n >= most || heavy > mostWeight)) break;
      n += 1;
    }
    return this.#waiting.splice(0, n);
  }

  async #run(batch: readonly Waiting<A, R>[]): Promise<void> {
    try {
      const answers = await this.#answer(batch.map(({ asked }) => asked));
      batch.forEach(({ done, fail }, i) => {
        const answer = answers[i];
        if (i < answers.length) done(answer as R);
        else fail(new Error("there are fewer answers than questions"));
      });
    } catch (error) {
      for (const { fail } of batch) fail(error);
    }
  }
}
