import assert from "node:assert/strict";
import { test } from "node:test";
import type { GenericSchema } from "valibot";
import { duration, host, parseIn, path, rate, serverRoot, size } from "./options.js";

/** What is read of a text, or what is told of it. */
const reading =
  (schema: GenericSchema<unknown, string>, baseDir = "/", env: Readonly<Record<string, string>> = {}) =>
  (text: string): string => {
    const { output, issues } = parseIn({ baseDir, env }, schema, text);
    return issues === undefined ? output : issues[0].message;
  };

test('a directory of a server below "~" is one below the login directory', () => {
  const read = (root: string) => {
    const parsed = parseIn({ baseDir: "/", env: {} }, serverRoot(), root);
    return parsed.success ? parsed.output : undefined;
  };
  assert.deepEqual(["~/logs", "~", "~/", "logs", "/srv/~/x", "~old"].map(read), ["logs", ".", ".", "logs", "/srv/~/x", "~old"]);
  assert.equal(read(""), undefined);
});

test("a path on this machine: below the configuration file or the home directory; what only a shell would replace is told", () => {
  const of = reading(path(), "/etc/filesync", { HOME: "/home/pi" });
  for (const [given, read] of [
    ["/srv/$x", "/srv/$x"],
    ["logs", "/etc/filesync/logs"],
    ["./$HOME", "/etc/filesync/$HOME"],
    ["~", "/home/pi"],
    ["~/logs", "/home/pi/logs"],
    ["$", "/etc/filesync/$"],
  ] as const)
    assert.equal(of(given), read);
  for (const given of ["$HOME/logs", "${HOME}/logs", "$SSH_AUTH_SOCK", "~pi/logs"]) assert.match(of(given), /no shell reads it/);
});

test("the host of a server: a name or an address, of IPv6 also in brackets; a port in it is told as such", () => {
  const of = reading(host());
  for (const [given, read] of [
    ["nas.local", "nas.local"],
    ["10.10.10.1", "10.10.10.1"],
    ["::1", "::1"],
    ["[2001:db8::1]", "2001:db8::1"],
    ["[fe80::1%eth0]", "fe80::1%eth0"],
  ] as const)
    assert.equal(of(given), read);
  for (const given of ["nas.local:21", "10.10.10.1:21", "[::1]:21"]) assert.match(of(given), /no port/);
});

test("a figure whose unit is a word that every object has is no figure", () => {
  for (const word of ["constructor", "toString", "valueOf"])
    for (const [schema, text] of [
      [size(), `5${word}`],
      [rate(), `5${word}/s`],
      [duration(), `5${word}`],
    ] as const)
      assert.equal(parseIn({ baseDir: "/", env: {} }, schema, text).success, false, text);
});
