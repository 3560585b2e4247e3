/**
 * What may be acted on at its source is noted on the medium before it is. Power may go between the act and its record: by the next start another file
 * that looks the same may be in that place. So what was noted, and has no record, is compared before it is acted on.
 *
 * One sync notes many small files; what of them was not acted on yet is read in vain.
 */
import type { Journal } from "./journal.js";
import type { VersionRow } from "./rows.js";

/** As much as a file may have moved again after anything. */
const mostBytes = 4 * 2 ** 20;
const mostFiles = 64;

/** In a note, behind a version of which that is so. */
const grown = /\+$/;

const keyOf = (source: string) => `leaving:${source}`;

export class Leaving {
  /** By source: on the medium, or on its way there. */
  readonly #noted = new Map<string, ReadonlySet<string>>();
  /** Of the run before, or of this one where it broke off: its source by version. */
  readonly #doubted = new Map<string, string>();
  /** Of these only that another came later is known: that one may have grown from it. */
  readonly #grown = new Set<string>();

  constructor(readonly journal: Pick<Journal, "all" | "commit" | "setMeta">) {}

  /** After a start. `mayLeave`: whether a version may be acted on, by these rules or others. */
  recover(mayLeave: (version: string) => boolean): void {
    for (const { key, value } of this.journal.all<{ key: string; value: string }>(
      "SELECT key, value FROM meta WHERE key >= ? AND key < ?",
      keyOf(""),
      `${keyOf("").slice(0, -1)};`,
    ))
      for (const noted of JSON.parse(value) as string[]) {
        const id = noted.replace(grown, "");
        if (mayLeave(id)) this.doubt(id, key.slice(keyOf("").length), id !== noted);
      }
  }

  /** Whether a version was perhaps acted on already. */
  isDoubted(version: string): boolean {
    return this.#doubted.has(version);
  }

  /** The same, and nothing can have grown from it. */
  hasPerhapsLeft(version: string): boolean {
    return this.#doubted.has(version) && !this.#grown.has(version);
  }

  /** Until that is noted only this run knows it. `mayHaveGrown`: what came later may be the same file continued. */
  doubt(version: string, source: string, mayHaveGrown = false): void {
    if (!mayHaveGrown) this.#grown.delete(version);
    else if (!this.#doubted.has(version)) this.#grown.add(version);
    this.#doubted.set(version, source);
  }

  /** Inside `apply` or `commit`. What is doubted by now, once for many: there may be tens of thousands. */
  noteDoubts(): void {
    for (const source of new Set(this.#doubted.values())) this.#note(source);
  }

  /** What was done with it has its record, or it is known no more. */
  ended(version: string): void {
    this.#doubted.delete(version);
    this.#grown.delete(version);
  }

  /** Inside `apply`. It is known that it was not acted on: the next start does not doubt it. */
  stayed({ id, source }: Pick<VersionRow, "id" | "source">): void {
    const isDoubted = this.#doubted.delete(id);
    this.#grown.delete(id);
    this.untouched({ id, source }, isDoubted);
  }

  /** Inside `apply`. This run did not act on it; what was doubted of it before is so still. */
  untouched({ id, source }: Pick<VersionRow, "id" | "source">, isNews = false): void {
    const noted = new Set(this.#noted.get(source));
    if (!noted.delete(id) && !isNews) return;
    this.#noted.set(source, noted);
    // Of very many each note is long.
    if (this.#doubted.size < mostFiles || this.#doubted.size % mostFiles === 0) this.#note(source);
  }

  /** Durable: a version may be acted on at its source, and as many of `next` as one note is good for. */
  async begin(version: VersionRow, next: () => Iterable<VersionRow>): Promise<void> {
    const { source } = version;
    if (this.#noted.get(source)?.has(version.id) === true) return;
    const ids = new Set([version.id]);
    let [bytes, seen] = [version.size, 0];
    for (const { id, size } of next()) {
      if ((seen += 1) > mostFiles) break;
      if (bytes + size > mostBytes) continue;
      bytes += size;
      ids.add(id);
    }
    try {
      await this.journal.commit(() => {
        // At once: whoever notes something before this is durable notes it, too.
        this.#noted.set(source, ids);
        this.#note(source);
      });
    } catch (error) {
      this.#noted.delete(source);
      throw error;
    }
  }

  #note(source: string): void {
    const doubted = [...this.#doubted].filter(([, of]) => of === source).map(([id]) => (this.#grown.has(id) ? `${id}+` : id));
    this.journal.setMeta(keyOf(source), JSON.stringify([...new Set([...doubted, ...(this.#noted.get(source) ?? [])])]));
  }
}
