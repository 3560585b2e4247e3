/**
 * Cuts what a client sends on the control connection into lines, within a bound.
 *
 * A line ends with LF, with or without CR. Telnet's interrupt before ABOR (IAC IP IAC DM) is taken off. Clients send one byte of it, or all of the line, as urgent data (RFC 959, 4.1.3),
 * and node never gives the last byte of such: one of the four is missing, or the LF. What is left after a line that is too long is never looked at: the connection ends there.
 */
export const longestLineBytes = 4096;

export class Lines {
  #rest: Buffer[] = [];
  #length = 0;
  /** An ABOR was taken as a line without its LF, which may still come. */
  #early = false;

  /** The lines that these bytes complete, without their ends; undefined once a line is too long. */
  push(chunk: Buffer): Buffer[] | undefined {
    const lines: Buffer[] = [];
    let start = this.#early && chunk[0] === 0x0a ? 1 : 0;
    if (chunk.length > 0) this.#early = false;
    for (let at = chunk.indexOf(0x0a, start); at >= 0; at = chunk.indexOf(0x0a, start)) {
      this.#keep(chunk.subarray(start, at));
      if (this.#length > longestLineBytes) return undefined;
      lines.push(this.#taken());
      start = at + 1;
    }
    this.#keep(chunk.subarray(start));
    if (this.#length > longestLineBytes) return undefined;
    if (this.#length <= longestAborBytes && isAbor(Buffer.concat(this.#rest))) {
      lines.push(this.#taken());
      this.#early = true;
    }
    return lines;
  }

  /** Whether a part of a line is waiting for the rest. */
  get pending(): boolean {
    return this.#length > 0;
  }

  #taken(): Buffer {
    const line = trim(Buffer.concat(this.#rest));
    this.#rest = [];
    this.#length = 0;
    return line;
  }

  #keep(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#rest.push(bytes);
    this.#length += bytes.length;
  }
}

const longestAborBytes = 9;

function isAbor(line: Buffer): boolean {
  return /^[\xf2\xf4\xff]*ABOR\r$/i.test(line.toString("latin1"));
}

/** IAC, IP and DM. No verb begins with one. */
const interrupt: ReadonlySet<number | undefined> = new Set([0xff, 0xf4, 0xf2]);

function trim(line: Buffer): Buffer {
  let start = 0;
  while (interrupt.has(line[start])) start += 1;
  const end = line.at(-1) === 0x0d ? line.length - 1 : line.length;
  return line.subarray(Math.min(start, end), end);
}
