/** Forms, read by Node's own reader of them, and sent from memory that is lent. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import * as v from "valibot";
import { isFault } from "../../core/errors.js";
import type { Reading } from "../../core/plugin.js";
import { bytes, chunks, context, readingOfStream, upload } from "../../test/conformance/upload.js";
import { PostDevice } from "./device.js";
import { formOf, type Form } from "./form.js";
import { plugin } from "./plugin.js";

async function all(reading: Reading): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (let chunk = await reading.next(); chunk !== undefined; chunk = await reading.next()) {
    parts.push(Buffer.from(chunk.bytes));
    chunk.release();
  }
  return Buffer.concat(parts);
}

function readForm(body: Buffer, type: string): Promise<FormData> {
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- It holds all in memory, which a server should not.
  return new Response(new Uint8Array(body), { headers: { "Content-Type": type } }).formData();
}

async function understood({ headers, body }: Form): Promise<FormData> {
  const whole = await all(body);
  assert.equal(whole.length, headers["Content-Length"]);
  return readForm(whole, String(headers["Content-Type"]));
}

test("fields and a file come out as they went in, whatever their names", async () => {
  for (const size of [0, 1, 200_000]) {
    const content = bytes(size);
    const fields = { plain: "text", "ü ñ": 'größer\r\nzwei; name="x"\r\n--', 'a"b': "" };
    const form = await understood(formOf(fields, { name: "log file", filename: "Ünï 'c'.ulg", size }, readingOfStream(chunks(content))));
    const file = form.get("log file");
    assert.ok(file instanceof File);
    assert.deepEqual([file.name, Buffer.from(await file.arrayBuffer()).equals(content)], ["Ünï 'c'.ulg", true]);
    form.delete("log file");
    // Between quotes nothing else says what a quote is; a reader may leave it as it was written.
    assert.deepEqual(
      [...form].map(([name, text]) => [name.replace("%22", '"'), text]),
      Object.entries(fields),
    );
  }
});

test("no name can begin a header of its own", async () => {
  const { body } = formOf({ 'a"\r\nX: 1': "t" }, { name: "f", filename: 'x"\r\n\r\ny', size: 0 }, readingOfStream(chunks(Buffer.alloc(0))));
  const text = (await all(body)).toString();
  assert.ok(text.includes('name="a%22%0D%0AX: 1"\r\n\r\nt\r\n') && text.includes('filename="x%22%0D%0A%0D%0Ay"\r\n'), text);
});

test("too few or too many bytes are a fault, not a form", async () => {
  for (const [given, at] of [
    [99, /ended at 99, not at 100/],
    [101, /ended at 101, not at 100/],
  ] as const)
    await assert.rejects(
      all(formOf({}, { name: "f", filename: "x", size: 100 }, readingOfStream(chunks(bytes(given)))).body),
      (error: Error) => isFault(error, "transient") && at.test(error.message),
    );
});

test("a posted file is sent from memory that is lent, and arrives as it is", async (t) => {
  const content = bytes(24 * 2 ** 20);
  let body: Buffer = Buffer.alloc(0);
  let type = "";
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    type = request.headers["content-type"] ?? "";
    request.on("data", (part: Buffer) => {
      parts.push(part);
      // Slower than it is sent: what waits is at the client.
      request.pause();
      setImmediate(() => request.resume());
    });
    request.on("end", () => {
      body = Buffer.concat(parts);
      response.end("taken");
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const options = v.parse(plugin.options, { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` });
  const device = new PostDevice(options, context());
  t.after(() => device.close());
  let counted = 0;
  // What is given back is scribbled over.
  const it = upload("a/b.bin", content, { read: (offset) => chunks(content.subarray(offset), 2 ** 19) });
  await device.target.write(it, 0, new AbortController().signal, (n) => (counted += n));
  assert.equal(counted, content.length);
  const file = (await readForm(body, type)).get("file");
  assert.ok(file instanceof File && Buffer.from(await file.arrayBuffer()).equals(content));
});
