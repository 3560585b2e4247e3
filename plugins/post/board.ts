/** A small web page that a person can open: what was posted, when, and where it is. Made anew from a file of lines, which is what lasts. */
import { promises as fs } from "node:fs";
import { dirname, join } from "node:path";
import { codeOf, Fault, faultOfErrno } from "../../core/errors.js";
import { makeDirDurable, writeDurable } from "../../core/fs.js";

export interface Posted {
  readonly at: string;
  readonly path: string;
  readonly size: number;
  readonly url?: string;
  /** With which the server lets go of it again: only in the file of lines. */
  readonly secret?: string;
}

const shown = 1000;

export class Board {
  #writing: Promise<void> = Promise.resolve();

  /** `dir`: the device's own; `page`: where the page is to be. `warn`: told why that cannot be written. */
  constructor(
    readonly title: string,
    readonly dir: string,
    readonly warn: (text: string) => void,
    readonly page = join(dir, "index.html"),
  ) {}

  /** Resolves once the lines are durable; throws the Fault of keeping them. The page is made of all of them each time, so one that cannot be written now loses nothing. */
  add(posted: Posted): Promise<void> {
    this.#writing = this.#writing.catch(() => undefined).then(() => this.#add(posted));
    return this.#writing;
  }

  async #add(posted: Posted): Promise<void> {
    const path = join(this.dir, "posted.jsonl");
    const all = await this.#keep(path, posted).catch((error: unknown) => {
      // Whatever is wrong here, the file and its target are right.
      const { kind, message } = faultOfErrno(error, `${path} cannot keep what was posted`);
      throw new Fault(kind === "full" ? kind : "transient", message, { cause: error });
    });
    try {
      await makeDirDurable(dirname(this.page));
      await writeDurable(this.page, this.#html(all.slice(-shown)), 0o644);
    } catch (error) {
      this.warn(`the page ${this.page} cannot be written: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  /** All lines, with this one. */
  async #keep(path: string, posted: Posted): Promise<string[]> {
    await makeDirDurable(this.dir, 0o700);
    const before = await fs.readFile(path, "utf8").catch((error: unknown) => {
      if (codeOf(error) === "ENOENT") return "";
      throw error;
    });
    const lines = before.split("\n").filter((line) => line !== "");
    const all = [...lines.filter((line) => keyOf(line) !== keyOf(JSON.stringify(posted))), JSON.stringify(posted)];
    await writeDurable(path, `${all.join("\n")}\n`, 0o600);
    return all;
  }

  #html(lines: readonly string[]): string {
    const rows = lines
      .flatMap((line) => {
        const posted = parsed(line);
        if (posted === undefined) return [];
        const { at, path, size, url } = posted;
        const link = url === undefined || !/^https?:/.test(url) ? "" : `<a href="${escaped(url)}">${escaped(url)}</a>`;
        return [`<tr><td>${escaped(at)}</td><td>${escaped(path)}</td><td>${(size / 1e6).toFixed(1)} MB</td><td>${link}</td></tr>`];
      })
      .reverse();
    return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>${escaped(this.title)}</title>
<style>body{font:16px sans-serif;margin:2em}td,th{padding:.3em 1em .3em 0;text-align:left}</style>
<h1>${escaped(this.title)}</h1>
<table><tr><th>posted</th><th>file</th><th>size</th><th>where it is</th></tr>
${rows.join("\n")}
</table></html>
`;
  }
}

/** The same receipt twice is one line. */
function keyOf(line: string): string | undefined {
  const posted = parsed(line);
  return posted === undefined ? undefined : `${posted.path} ${posted.size} ${posted.url ?? posted.at}`;
}

function parsed(line: string): Posted | undefined {
  try {
    return JSON.parse(line) as Posted;
  } catch {
    return undefined;
  }
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
