/** Where files go, as it is answered: against real servers, and against ones that are not there. What comes out is a configuration that can be used. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { startOwn } from "../../test/conformance/ftp-servers.js";
import { openssh } from "../../test/conformance/sftp-servers.js";
import { judged } from "../edit-config.js";
import type { Asker } from "../questions.js";
import { askTarget, type Target } from "./targets.js";

/** Answers in turn; what is left of the defaults is taken by "". An answer that is objected to is a mistake of the test. */
function person(...answers: string[]): Asker & { readonly said: string[] } {
  const said: string[] = [];
  const next = (question: string): string => {
    const answer = answers.shift();
    if (answer === undefined) throw new Error(`nobody answers "${question}"; it said:\n${said.join("\n")}`);
    return answer;
  };
  return {
    said,
    signal: new AbortController().signal,
    answers: true,
    say: (text) => void said.push(text),
    ask(question, byDefault, objection) {
      const answer = next(question) || byDefault;
      const wrong = objection?.(answer);
      said.push(`${question}: ${answer}`);
      return wrong === undefined ? Promise.resolve(answer) : Promise.reject(new Error(`${question}: "${answer}": ${wrong}`));
    },
    secret: (question) => Promise.resolve(next(question)),
    close: () => undefined,
  };
}

/** The target, which has to be well as a part of a configuration. */
async function asked(t: TestContext, asker: Asker): Promise<Target> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-target-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const config = join(dir, "config.json");
  const target = await askTarget({ asker, vehicle: "plane-1", config, has: () => false });
  assert.ok(target !== undefined);
  mkdirSync(join(dir, "credentials"));
  for (const [name, secret] of Object.entries(target.secrets)) writeFileSync(join(dir, "credentials", name), secret ?? "");
  const { problems } = await judged(config, JSON.stringify({ devices: { target: target.device.value } }));
  assert.deepEqual(problems, []);
  return target;
}

const gone = "1";

test("an FTP server without TLS: nothing is sent in clear unless a person says so", async (t) => {
  const root = mkdtempSync(join(tmpdir(), "filesync-target-"));
  t.after(() => rmSync(root, { recursive: true }));
  const server = await startOwn({ root, users: { u: { password: "p" } } });
  t.after(() => server.close());
  const port = String(server.port);
  const no = person("1", "127.0.0.1", port, "", "secret", "n");
  assert.deepEqual((await asked(t, no)).device.value, {
    ...{ type: "ftp", host: "127.0.0.1", port: Number(port), user: "plane-1", password: { credential: "ground" } },
    secure: true,
  });
  assert.match(no.said.join("\n"), /offers no TLS/);
  const clear = await asked(t, person("1", "127.0.0.1", port, "", "secret", "y"));
  assert.equal(clear.device.value.secure, false);
  assert.deepEqual(clear.secrets, { ground: "secret" });
  assert.deepEqual(clear.route, { into: "{device}" });
});

test("an FTP server that is not there: its fingerprint can be typed, and is looked at", async (t) => {
  const fingerprint = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
  const asker = person("1", "127.0.0.1", gone, "u", "secret", fingerprint);
  assert.deepEqual((await asked(t, asker)).device.value.tls, { fingerprint });
  assert.match(asker.said.join("\n"), /cannot be looked at: .*refused/);
  await assert.rejects(asked(t, person("1", "127.0.0.1", gone, "u", "secret", "abc")), /it looks like "SHA256:…"/);
});

test("an address with its port, or a URL, is asked for again: the port is the next question", async (t) => {
  for (const way of ["1", "2"])
    for (const typed of [`127.0.0.1:${gone}`, "ftp://127.0.0.1", "me@nas.local"])
      await assert.rejects(asked(t, person(way, typed, gone, "u", "secret", "", "")), (error: Error) =>
        error.message.startsWith(`Its name or address: "${typed}": a host name or an address: no `),
      );
  const { device } = await asked(t, person("1", "[::1]", gone, "u", "secret", ""));
  assert.equal(device.value.host, "[::1]");
});

test("an SFTP server shows its host key, which is believed because a person says so", { skip: openssh.skip ?? false }, async (t) => {
  const server = await openssh.start();
  t.after(() => server.stop());
  const place = server.options as { user: string; hostKey: string };
  const answers = ["2", "127.0.0.1", String(server.port), place.user, "", "secret", ""] as const;
  const yes = person(...answers, "y");
  const { value } = (await asked(t, yes)).device;
  assert.equal(String(value.hostKey), place.hostKey, yes.said.join("\n"));
  const no = (await asked(t, person(...answers, "n", ""))).device;
  assert.equal("hostKey" in no.value, false, "then nothing is believed");
});

test("a key's file and a directory that the configuration would refuse are asked for again, before the last question", async (t) => {
  await assert.rejects(
    asked(t, person("2", "127.0.0.1", gone, "u", "$HOME/.ssh/id_ed25519")),
    /^Error: The file of its private key.*no shell reads it/,
  );
  await assert.rejects(asked(t, person("3", "https://h/", "u", "secret", "../up")), /^Error: Directory there: "\.\.\/up": a path without/);
});

test("WebDAV, Flight Review and a directory", async (t) => {
  const cloud = await asked(t, person("3", "https://cloud.example.org", "me", "secret", "/drone"));
  assert.deepEqual(cloud.device.value, {
    type: "webdav",
    url: "https://cloud.example.org",
    user: "me",
    password: { credential: "cloud" },
    root: "/drone",
  });
  const review = await asked(t, person("4", "", "me@example.org"));
  assert.deepEqual(review.device.value.fields, { description: "", email: "me@example.org", type: "personal" });
  assert.deepEqual(review.route, { include: ["**/*.ulg"] });
  assert.deepEqual((await asked(t, person("5", "/srv/logs"))).device.value, { type: "local", dir: "/srv/logs" });
  await assert.rejects(asked(t, person("5", "logs")), /a path that begins with/);
  for (const url of ["https://me:secret@cloud.example.org", "https://cloud.example.org/?dir=/", "cloud.example.org", ""])
    await assert.rejects(asked(t, person("3", url)), /user and password have options of their own|cannot be left out/, url);
  await assert.rejects(asked(t, person("4", "https://me:secret@logs.px4.io/upload")), /a URL without a user or password/);
});

test("nothing yet; a password that is kept beside it already may stay", async () => {
  const asking = { vehicle: "v", config: "/nowhere/config.json", has: (name: string) => name === "cloud" };
  assert.equal(await askTarget({ ...asking, asker: person("") }), undefined);
  const kept = await askTarget({ ...asking, asker: person("3", "https://cloud.example.org", "me", "", "") });
  assert.deepEqual(kept?.secrets, { cloud: undefined });
});
