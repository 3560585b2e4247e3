import assert from "node:assert/strict";
import { test } from "node:test";
import { options as served } from "../../plugins/ftp-server/options.js";
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

test("a text where an object belongs is not shown, as a password right under a user's name; a text where one may stand is", () => {
  const shown = shownConfig(
    {
      services: { ftp: { type: "ftp-server", root: "files", users: { u: "a secret" }, limits: "a secret" } },
      routes: [{ from: "a", to: ["b"] }],
    },
    () => served,
  );
  assert.deepEqual(shown, {
    services: { ftp: { type: "ftp-server", root: "files", users: { u: "[not shown]" }, limits: "[not shown]" } },
    routes: [{ from: "a", to: ["b"] }],
  });
});
