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

/** Perhaps it left its place; "grown": known is only that another came later, which may have grown from it. */
type Doubt = "left" | "grown";

const keyOf = (source: string) => `leaving:${source}`;

export class Leaving {
  /** By source: on the medium, or on its way there. */
  readonly #noted = new Map<string, ReadonlySet<string>>();
  /** Of the run before, or of this one where it broke off; what is known of each. */
  readonly #doubted = new Map<string, Doubt>();
  /** Of these, what the table does not say yet. */
  readonly #unwritten = new Set<string>();

  constructor(readonly journal: Pick<Journal, "all" | "commit" | "run" | "setMeta">) {}

  /** After a start. `mayLeave`: whether a version may be acted on, by these rules or others. */
  recover(mayLeave: (version: string) => boolean): void {
    for (const { version, grown } of this.journal.all<{ version: string; grown: number }>("SELECT version, grown FROM doubted"))
      if (mayLeave(version)) this.#doubted.set(version, grown === 1 ? "grown" : "left");
    for (const { key, value } of this.journal.all<{ key: string; value: string }>(
      "SELECT key, value FROM meta WHERE key >= ? AND key < ?",
      keyOf(""),
      `${keyOf("").slice(0, -1)};`,
    )) {
      // An older version noted all that was doubted so, with a + behind what may have grown.
      const noted = (JSON.parse(value) as string[]).map((id) => id.replace(/\+$/, "")).filter(mayLeave);
      for (const id of noted) this.doubt(id);
      this.#noted.set(key.slice(keyOf("").length), new Set(noted));
    }
  }

  /** Whether a version was perhaps acted on already. */
  isDoubted(version: string): boolean {
    return this.#doubted.has(version);
  }

  /** The same, and nothing can have grown from it. */
  hasPerhapsLeft(version: string): boolean {
    return this.#doubted.get(version) === "left";
  }

  /** Until that is noted only this run knows it. `mayHaveGrown`: what came later may be the same file continued. */
  doubt(version: string, mayHaveGrown = false): void {
    const doubt = mayHaveGrown ? (this.#doubted.get(version) ?? "grown") : "left";
    if (this.#doubted.get(version) === doubt) return;
    this.#doubted.set(version, doubt);
    this.#unwritten.add(version);
  }

  /** Inside `apply` or `commit`. What is doubted by now is on the medium with that. */
  noteDoubts(): void {
    for (const version of this.#unwritten)
      this.journal.run("INSERT OR REPLACE INTO doubted VALUES (?, ?)", version, this.#doubted.get(version) === "grown" ? 1 : 0);
    this.#unwritten.clear();
  }

  /** Inside `apply` or `commit`. What was done with it has its record, or it is known no more. */
  ended(version: string): void {
    this.#doubted.delete(version);
    this.#unwritten.delete(version);
    this.journal.run("DELETE FROM doubted WHERE version = ?", version);
  }

  /** Inside `apply`. It is known that it was not acted on: the next start does not doubt it. */
  stayed(version: Pick<VersionRow, "id" | "source">): void {
    this.ended(version.id);
    this.untouched(version);
  }

  /** Inside `apply`. This run did not act on it; what was doubted of it before is so still. */
  untouched({ id, source }: Pick<VersionRow, "id" | "source">): void {
    const noted = new Set(this.#noted.get(source));
    if (!noted.delete(id)) return;
    // Only an older version noted so many: all of them are doubted, and each has its row now.
    this.#noted.set(source, noted.size > mostFiles ? new Set() : noted);
    this.#note(source);
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
    // The note before may be all that says it.
    this.noteDoubts();
    this.journal.setMeta(keyOf(source), JSON.stringify([...(this.#noted.get(source) ?? [])]));
  }
}
