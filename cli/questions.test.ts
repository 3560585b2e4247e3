import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { terminal } from "./questions.js";

test("a password is kept with the blanks around it, and is not what the arrow brings back at the next question", async (t) => {
  const [input, output] = [new PassThrough(), new PassThrough()];
  let shown = "";
  output.on("data", (text: Buffer) => (shown += text.toString()));
  const asker = terminal(input as unknown as NodeJS.ReadStream, output as unknown as NodeJS.WriteStream);
  t.after(() => asker.close());
  const secret = asker.secret("Password");
  input.write(" pass word \r");
  assert.equal(await secret, " pass word ");
  const up = "\u001b[A";
  const next = asker.ask("Directory there", ".");
  input.write(`${up} logs \r`);
  assert.equal(await next, "logs");
  assert.doesNotMatch(shown, /pass word/);
});
