/** multipart/form-data (RFC 7578) around fields of text and one file. */
import { randomBytes } from "node:crypto";
import { Fault } from "../../core/errors.js";
import type { Chunk, Reading } from "../../core/plugin.js";

export interface FormFile {
  /** Of its field. */
  readonly name: string;
  readonly filename: string;
  readonly size: number;
}

export interface Form {
  readonly headers: Readonly<Record<string, string | number>>;
  readonly body: Reading;
}

/** The file comes last. Its bytes have to be as many as its size: a server that was promised more would wait for ever. */
export function formOf(fields: Readonly<Record<string, string>>, file: FormFile, bytes: Reading): Form {
  const boundary = `filesync-${randomBytes(16).toString("hex")}`;
  const part = (name: string, rest: string): string => `--${boundary}\r\nContent-Disposition: form-data; name="${quotable(name)}"${rest}`;
  const texts = Object.entries(fields).map(([name, text]) => `${part(name, "")}\r\n\r\n${text}\r\n`);
  const begin = part(file.name, `; filename="${quotable(file.filename)}"\r\nContent-Type: application/octet-stream\r\n\r\n`);
  const [head, tail] = [Buffer.from(`${texts.join("")}${begin}`), Buffer.from(`\r\n--${boundary}--\r\n`)];
  return {
    headers: { "Content-Type": `multipart/form-data; boundary=${boundary}`, "Content-Length": head.length + file.size + tail.length },
    body: framed(head, bytes, file.size, tail),
  };
}

function framed(head: Buffer, bytes: Reading, size: number, tail: Buffer): Reading {
  const own = [head];
  let given = 0;
  let ended = false;
  return {
    next: async (): Promise<Chunk | undefined> => {
      const first = own.shift();
      if (first !== undefined) return { bytes: first, release: () => undefined };
      if (ended) return undefined;
      const chunk = await bytes.next();
      given += chunk?.bytes.length ?? 0;
      if (chunk === undefined ? given < size : given > size) throw new Fault("transient", `the bytes ended at ${given}, not at ${size}`);
      if (chunk !== undefined) return chunk;
      ended = true;
      return { bytes: tail, release: () => undefined };
    },
    close: () => bytes.close(),
  };
}

/** As browsers write names (HTML, multipart/form-data encoding algorithm). */
function quotable(name: string): string {
  return name.replaceAll("\r", "%0D").replaceAll("\n", "%0A").replaceAll('"', "%22");
}
