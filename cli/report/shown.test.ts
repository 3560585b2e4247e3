import assert from "node:assert/strict";
import { test } from "node:test";
import { options } from "../../plugins/webdav/options.js";
import { shownConfig } from "./shown.js";

test("a key that every object of JavaScript has is no option: its text is not shown", () => {
  const strange = { toString: "a secret", constructor: "a secret", hasOwnProperty: { valueOf: "a secret" } };
  const shown = shownConfig(
    { vehicle: "v", ...strange, devices: { cloud: { type: "webdav", url: "https://a/", ...strange }, other: { type: "own", ...strange } } },
    (type) => (type === "webdav" ? options : undefined),
  );
  const text = JSON.stringify(shown);
  assert.ok(!text.includes("a secret"), text);
  assert.ok(text.includes('"url":"https://a/"'), text);
});
