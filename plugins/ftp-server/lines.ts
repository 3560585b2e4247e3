/**
 * Cuts what a client sends on the control connection into lines, within a bound.
 *
 * A line ends with LF, with or without CR. Telnet's interrupt before ABOR (IAC IP IAC DM) is taken off. What is left after a line that
 * is too long is never looked at: the connection ends there.
 */
export const longestLineBytes = 4096;

export class Lines {
  #rest: Buffer[] = [];
  #length = 0;

  /** The lines that these bytes complete, without their ends; undefined once a line is too long. */
  push(chunk: Buffer): Buffer[] | undefined {
    const lines: Buffer[] = [];
    let start = 0;
    for (let at = chunk.indexOf(0x0a); at >= 0; at = chunk.indexOf(0x0a, start)) {
      this.#keep(chunk.subarray(start, at));
      if (this.#length > longestLineBytes) return undefined;
      lines.push(trim(Buffer.concat(this.#rest)));
      this.#rest = [];
      this.#length = 0;
      start = at + 1;
    }
    this.#keep(chunk.subarray(start));
    return this.#length > longestLineBytes ? undefined : lines;
  }

  /** Whether a part of a line is waiting for the rest. */
  get pending(): boolean {
    return this.#length > 0;
  }

  #keep(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#rest.push(bytes);
    this.#length += bytes.length;
  }
}

const iac = 0xff;

function trim(line: Buffer): Buffer {
  let start = 0;
  while (line[start] === iac && start + 1 < line.length) start += 2;
  const end = line.at(-1) === 0x0d ? line.length - 1 : line.length;
  return line.subarray(Math.min(start, end), end);
}
