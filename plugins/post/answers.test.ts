/** What is made of answers, one after another. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as v from "valibot";
import { RealClock } from "../../core/clock.js";
import { isFault } from "../../core/errors.js";
import type { HttpAnswer } from "../../core/http.js";
import { bytes, upload } from "../../test/conformance/upload.js";
import { readAnswer } from "./answers.js";
import { plugin } from "./plugin.js";

test("a server that does not answer as the right one does is left alone for longer each time, and not for ever", async () => {
  const file = upload("a.ulg", bytes(100));
  const answer = { status: 200, headers: {}, text: () => Promise.resolve("<html>Welcome!</html>") } as unknown as HttpAnswer;
  const options = v.parse(plugin.options, { preset: "flight-review", url: "https://logs.example/upload" });
  const waits: number[] = [];
  for (let n = 0; n < 6; n++)
    await assert.rejects(readAnswer(answer, { options, upload: file, clock: new RealClock(false) }), (error: unknown) => {
      if (!isFault(error, "throttled")) return false;
      waits.push((error.retryAfterMs ?? 0) / 60_000);
      return true;
    });
  assert.deepEqual(waits, [15, 30, 60, 120, 240, 240]);
});

test("a refusal counts though its words are cut off; a yes does not", async () => {
  const options = v.parse(plugin.options, { preset: "flight-review", url: "https://logs.example/upload" });
  const said = async (status: number, headers = {}) => {
    const cut = Promise.reject(new Error("aborted"));
    const answer = { status, headers, text: () => cut } as unknown as HttpAnswer;
    return readAnswer(answer, { options, upload: upload("a.ulg", bytes(100)), clock: new RealClock(false) }).then(
      () => "yes",
      (error: unknown) => (isFault(error) ? `${error.kind}: ${error.message} ${error.retryAfterMs ?? ""}`.trim() : String(error)),
    );
  };
  assert.equal(await said(413), "rejected: it has 100 B, more than logs.example takes (413)");
  assert.equal(await said(400), "rejected: logs.example answers 400, and breaks off");
  assert.equal(await said(503, { "retry-after": "5" }), "throttled: logs.example answers 503, and breaks off 5000");
  assert.equal(await said(200), "Error: aborted");
});

test("a redirect is told with where it leads, without what a portal puts behind that", async () => {
  const options = v.parse(plugin.options, { url: "http://logs.example/upload", answer: { contains: "x" } });
  for (const [location, to] of [
    ["https://logs.example/upload", /it leads to https:\/\/logs\.example\/upload\)/],
    ["http://portal.example/login?mac=00-11&for=logs.example", /it leads to http:\/\/portal\.example\/login\)/],
  ] as const) {
    const answer = { status: 302, headers: { location }, text: () => Promise.resolve("") } as unknown as HttpAnswer;
    await assert.rejects(
      readAnswer(answer, { options, upload: upload("a.bin", bytes(100)), clock: new RealClock(false) }),
      (error: unknown) => isFault(error, "throttled") && to.test(error.message),
    );
  }
});

test("511 is a portal's: nothing was posted, and nothing is in doubt", async () => {
  const options = v.parse(plugin.options, { preset: "flight-review", url: "https://logs.example/upload" });
  const answer = { status: 511, headers: {}, text: () => Promise.resolve("<html>Log in</html>") } as unknown as HttpAnswer;
  await assert.rejects(
    readAnswer(answer, { options, upload: upload("a.ulg", bytes(100)), clock: new RealClock(false) }),
    (error: unknown) => isFault(error, "throttled") && /511/.test(error.message),
  );
});

test("501 is the answer of a server that takes no POST there, as 405: nothing was posted, and nothing is in doubt", async () => {
  const options = v.parse(plugin.options, { preset: "flight-review", url: "https://logs.example/upload" });
  const answer = { status: 501, headers: {}, text: () => Promise.resolve("Unsupported method ('POST')") } as unknown as HttpAnswer;
  await assert.rejects(
    readAnswer(answer, { options, upload: upload("a.ulg", bytes(100)), clock: new RealClock(false) }),
    (error: unknown) => isFault(error, "denied") && /501: Unsupported .*look at "url"/.test(error.message),
  );
});
