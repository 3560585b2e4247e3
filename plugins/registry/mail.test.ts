/** The mail that asks for confirmation, by real SMTP: what is decided while it is under way, what a server refuses, and whom it believes. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { newCertificate } from "../../core/certificate.js";
import { isFault } from "../../core/errors.js";
import { Secret } from "../../core/options.js";
import { runCommand } from "../../core/program.js";
import { plane, station, until } from "../../test/doubles/station.js";
import { linkIn, mailServer, type MailServerGiven } from "../../test/mail-server.js";
import { Mailer } from "./mail.js";

const signal = new AbortController().signal;
const coded = (responseCode: number, message: string) => Object.assign(new Error(message), { responseCode });

test("what is decided about a registration while another's mail is under way stays so", async (t) => {
  let away = true;
  const asked: string[] = [];
  let go: () => void = () => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  const post = await mailServer(t, {
    refuse: async (address) => {
      if (away) return coded(451, "not now");
      asked.push(address);
      if (address === "a@example.org") await held;
      return undefined;
    },
  });
  let at = await station(t, { mail: post.options });
  const ids: string[] = [];
  for (const email of ["a@example.org", "refused@example.org", "confirmed@example.org", "deleted@example.org", "z@example.org"]) {
    const it = await plane(t, at);
    ids.push((await it.client.register({ email, vehicle: "plane" }, signal)).id);
    // The one that is held comes first.
    await at.registrations.tick(1000);
  }
  // The links of before are in no store: they are made anew.
  at = await at.restarted();
  away = false;
  await at.registrations.tick(0);
  await until(() => asked.length === 1);
  const [, refused = "", confirmed = ""] = ids;
  await at.order("refuse", refused);
  await at.order("confirm", confirmed);
  await at.order("delete", "deleted@example.org");
  go();
  assert.deepEqual([(await post.next()).to, (await post.next()).to], ["a@example.org", "z@example.org"]);
  const states = await Promise.all(ids.map(async (id) => (await at.catalogue.pending(id))?.state));
  assert.deepEqual(states, ["waiting", "refused", "confirmed", undefined, "waiting"]);
  assert.deepEqual(
    (await at.catalogue.allPending()).map(({ email }) => email),
    ["a@example.org", "z@example.org"],
  );
});

test("of two who press the button at once the second is told that it was pressed", async (t) => {
  const post = await mailServer(t);
  const at = await station(t, { mail: post.options });
  await (await plane(t, at)).client.register({ email: "a@example.org" }, signal);
  const link = `${at.url}${linkIn(await post.next())}`;
  const codes = await Promise.all([1, 2, 3].map(async () => (await fetch(link, { method: "POST" })).status));
  assert.deepEqual(codes.sort(), [200, 410, 410]);
});

test("only an address that is not there ends a registration: what else a mail server refuses is its operator's to mend", async (t) => {
  const cases: readonly (readonly [string, MailServerGiven, "starttls" | false])[] = [
    ["the sender", { sender: () => coded(550, "5.1.8 sender refused") }, false],
    ["relaying", { refuse: () => coded(554, "5.7.1 Relay access denied") }, false],
    ["who sends", { refuse: () => coded(550, "5.7.1 you are on a list") }, false],
    // Exim says these, and qmail the last, to an address without a code that tells more (RFC 3463).
    ["relaying, as Exim says it", { refuse: () => coded(550, "relay not permitted") }, false],
    ["the sender, when the address comes", { refuse: () => coded(550, "Sender verify failed") }, false],
    [
      "the sender, as Postfix says it",
      { refuse: () => coded(550, "5.1.0 <files@x.example>: Sender address rejected: User unknown") },
      false,
    ],
    ["a login", { refuse: () => coded(550, "authentication required") }, false],
    ["a list, as Exim says it", { refuse: () => coded(550, "192.0.2.7 is listed at zen.example.org") }, false],
    [
      "relaying, as qmail says it",
      { refuse: () => coded(553, "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)") },
      false,
    ],
    ["without TLS", {}, "starttls"],
  ];
  for (const [what, given, secure] of cases) {
    const post = await mailServer(t, given);
    const at = await station(t, { mail: { ...post.options, secure } });
    const { client } = await plane(t, at);
    const { id } = await client.register({ email: "pilot@example.org" }, signal);
    await until(() => at.said.some((line) => /pilot@example\.org cannot be sent now \(.+\); it is tried again/.test(line)));
    assert.equal((await client.registration(id, signal)).state, "waiting", what);
    assert.match((await at.order("confirm", id)).join(), /is registered/);
  }
});

test("a mail server's own certificate is believed where the configuration has it; probing says what is wrong", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "filesync-mail-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const own = await newCertificate(runCommand, "localhost");
  const ca = join(dir, "mail.crt");
  writeFileSync(ca, own.cert);
  const { options } = await mailServer(t, { tls: own });
  const at = (more: object) => ({ ...options, host: "localhost", secure: "starttls" as const, ...more });
  const probe = (more: object) => Mailer.probe(at(more));
  const offline = (words: RegExp) => (error: unknown) => isFault(error, "offline") && words.test(error.message);
  await probe({ tls: { ca } });
  await assert.rejects(probe({}), offline(/no mail can be sent by localhost:\d+: .*self.signed certificate/));
  await assert.rejects(probe({ tls: { ca }, password: new Secret("q") }), offline(/wrong password/));
  await assert.rejects(probe({ port: 1 }), offline(/sent by localhost:1: the server is not there \(the connection is refused\)$/));
  await assert.rejects(
    probe({ secure: true }),
    offline(/sent by localhost:\d+: what answers .* no TLS from the first byte \(wrong version number\); .*"starttls"/),
  );
  await assert.rejects(probe({ tls: { ca: join(dir, "none") } }), (error) => isFault(error, "config") && error.message.includes("none"));

  const letter = { to: "pilot@example.org", subject: "x", text: "y" };
  assert.equal((await (await Mailer.of(at({ tls: { ca } }))).send(letter)).state, "sent");
  assert.equal((await (await Mailer.of(at({}))).send(letter)).state, "later");
  const away = await (await Mailer.of(at({ port: 1 }))).send(letter);
  assert.deepEqual(away, { state: "later", why: "localhost:1: the server is not there (the connection is refused)" });
});

test("a mail server that repeats what it was told to log in makes no password known", async (t) => {
  const server = createServer((socket) => {
    socket.write("220 here\r\n");
    socket
      .on("error", () => undefined)
      .on("data", (data) => {
        const line = data.toString().trim();
        if (line.startsWith("EHLO")) socket.write(`250-here\r\n250 AUTH ${ways}\r\n`);
        else if (line === "AUTH LOGIN") socket.write("334 VXNlcm5hbWU6\r\n");
        else if (line === Buffer.from("u").toString("base64")) socket.write("334 UGFzc3dvcmQ6\r\n");
        else socket.write(`535 not known: ${line}, ${password}\r\n`);
      });
  });
  let ways = "PLAIN";
  const password = "geheim-4711";
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const options = { host: "127.0.0.1", port, secure: false, user: "u", password: new Secret(password), from: "g@example.org", tls: {} };
  const letter = { to: "pilot@example.org", subject: "x", text: "y" };
  for (ways of ["PLAIN", "LOGIN"]) {
    const mailer = await Mailer.of(options);
    const sent = await mailer.send(letter);
    mailer.close();
    assert.ok(sent.state === "later");
    assert.match(sent.why, /535 not known: .*\*\*\*, \*\*\*$/);
  }
  await assert.rejects(Mailer.probe(options), (error) => isFault(error, "offline") && error.message.endsWith("***, ***"));
});

test("the letter says how long its link is still good", async (t) => {
  let away = true;
  const post = await mailServer(t, { refuse: () => (away ? coded(451, "not now") : undefined) });
  const at = await station(t, { mail: post.options });
  await (await plane(t, at)).client.register({ email: "a@example.org" }, signal);
  await until(() => at.said.some((line) => line.includes("cannot be sent now")));
  away = false;
  at.clock.advance(60_000);
  // Of an hour.
  await at.registrations.tick(900_000);
  assert.match((await post.next()).text, /The link is good for 45 min/);
});
