/** Registering, and the API, over real HTTP: who may do what, and every way to get in that must not work. Mails go to a real SMTP server. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import * as v from "valibot";
import { isFault } from "../../core/errors.js";
import { realClock } from "../../test/conformance/upload.js";
import { plane, type Plane, refusedAs, registered, signed, station } from "../../test/doubles/station.js";
import { linkIn, mailServer } from "../../test/mail-server.js";
import { RegistryClient } from "../apsync/client.js";
import { newKey, readKey, type Signer } from "../apsync/key.js";
import { forwardedFor } from "./allowance.js";
import { options } from "./options.js";
import * as wire from "./wire.js";

const signal = new AbortController().signal;

test("a vehicle registers, its owner presses the button in the page of the mail, and the vehicle hears of it", async (t) => {
  const post = await mailServer(t);
  const at = await station(t, { mail: post.options });
  const it = await plane(t, at);
  const first = await it.client.register({ email: "Pilot@Example.org", vehicle: "plane 1" }, signal);
  assert.deepEqual([first.state, first.by], ["waiting", "mail"]);
  const letter = await post.next();
  assert.equal(letter.to, "pilot@example.org");
  assert.match(letter.text, /^Auto-Submitted: auto-generated\r?$/m);
  assert.match(letter.text, new RegExp(it.signer.fingerprint.slice(0, 20).replace(/[+/]/g, "\\$&")));
  const link = linkIn(letter);

  // What a mail scanner does.
  for (let n = 0; n < 3; n++) {
    const page = await fetch(`${at.url}${link}`);
    assert.equal(page.status, 200);
    assert.match(await page.text(), /<form method="post"><button/);
    assert.match(page.headers.get("content-security-policy") ?? "", /default-src 'none'/);
  }
  for (const method of ["HEAD", "OPTIONS", "PUT"]) await fetch(`${at.url}${link}`, { method });
  assert.equal((await it.client.registration(first.id, signal)).state, "waiting");
  assert.deepEqual(await at.catalogue.vehicles(), []);

  const watching = (async () => {
    const states = [];
    for await (const next of it.client.watch(first.id, signal)) states.push(next);
    return states;
  })();
  const pressed = await fetch(`${at.url}${link}`, { method: "POST" });
  assert.equal(pressed.status, 200);
  const states = await watching;
  assert.equal(states.at(-1)?.state, "confirmed");
  assert.equal(states.at(-1)?.access?.vehicle, "plane 1");
  assert.match(states.at(-1)?.access?.vehicleId ?? "", /^plane-1-[0-9a-f]{8}$/);

  const again = await fetch(`${at.url}${link}`, { method: "POST" });
  assert.equal(again.status, 410, "the link is spent");
  assert.equal((await fetch(`${at.url}${link}`)).status, 410);
  const once_ = await it.client.register({ email: "pilot@example.org", vehicle: "plane 1" }, signal);
  assert.equal(once_.state, "confirmed", "who registers twice is told that it is registered");
});

test("a link expires while the registry runs, whatever its clock says; the same vehicle may register again", async (t) => {
  const post = await mailServer(t);
  const at = await station(t, { mail: post.options });
  const it = await plane(t, at);
  const { id } = await it.client.register({ email: "a@example.org" }, signal);
  const link = linkIn(await post.next());
  at.clock.jumpWall(20 * 365 * 86_400_000);
  await at.registrations.tick(60_000);
  assert.equal((await it.client.registration(id, signal)).state, "waiting");
  await at.registrations.tick(3600_000);
  assert.equal((await it.client.registration(id, signal)).state, "expired");
  assert.equal((await fetch(`${at.url}${link}`, { method: "POST" })).status, 410);
  assert.deepEqual(await at.catalogue.vehicles(), []);
  assert.equal((await it.client.register({ email: "a@example.org" }, signal)).state, "waiting");
  linkIn(await post.next());
});

test("an address that the mail server refuses is told to the vehicle; a server that is away is tried again", async (t) => {
  let busy = true;
  const post = await mailServer(t, {
    refuse: (address) => {
      if (address === "nobody@example.org")
        return Object.assign(new Error("<nobody@mailing-list.example>: no such user"), { responseCode: 550 });
      return busy ? Object.assign(new Error("come back later"), { responseCode: 451 }) : undefined;
    },
  });
  const at = await station(t, { mail: post.options });
  const it = await plane(t, at);
  const first = await it.client.register({ email: "nobody@example.org" }, signal);
  const states = [];
  for await (const next of it.client.watch(first.id, signal)) states.push(next);
  assert.equal(states.at(-1)?.state, "refused");
  assert.match(states.at(-1)?.reason ?? "", /nobody@example\.org was refused: .*no such user/);

  const other = await plane(t, at);
  await other.client.register({ email: "later@example.org" }, signal);
  while (!at.said.some((line) => /later@example\.org cannot be sent now/.test(line))) await new Promise((resolve) => setImmediate(resolve));
  busy = false;
  at.clock.advance(60_000);
  await at.registrations.tick(60_000);
  assert.equal((await post.next()).to, "later@example.org");
});

test("a restart between the registration and its mail, or between its mail and the button, loses neither", async (t) => {
  let away = true;
  const post = await mailServer(t, { refuse: () => (away ? Object.assign(new Error("not now"), { responseCode: 451 }) : undefined) });
  let at = await station(t, { mail: post.options });
  const { signer, client } = await plane(t, at);
  const { id } = await client.register({ email: "a@example.org" }, signal);
  at = await at.restarted();
  away = false;
  await at.registrations.tick(0);
  const link = linkIn(await post.next());
  at = await at.restarted();
  assert.equal((await fetch(`${at.url}${link}`, { method: "POST" })).status, 200);
  const it = await plane(t, at, signer);
  assert.equal((await it.client.registration(id, signal)).state, "confirmed");
  assert.equal(post.letters.length, 1, "one mail");
});

test("names are unique per owner; a key is of one vehicle; a revoked key is of none", async (t) => {
  const at = await station(t);
  const one = await registered(t, at, "plane");
  const other = await plane(t, at);
  const taken = (error: unknown) =>
    refusedAs("name-taken")(error) && /"filesync register --renew", or, .* once .*"filesync registry revoke VEHICLE"/.test(String(error));
  await assert.rejects(other.client.register({ email: "pilot@example.org", vehicle: "plane" }, signal), taken);
  await registered(t, at, "plane", "somebody@example.org");
  await assert.rejects(one.client.register({ email: "thief@example.org", vehicle: "plane" }, signal), refusedAs("key-taken"));

  // Two that wait for one name: the second is refused when the first was confirmed.
  const [a, b] = [await plane(t, at), await plane(t, at)];
  const [first, second] = [
    await a.client.register({ email: "pilot@example.org", vehicle: "new" }, signal),
    await b.client.register({ email: "pilot@example.org", vehicle: "new" }, signal),
  ];
  await at.order("confirm", first.id);
  await assert.rejects(at.order("confirm", second.id), /has registered another vehicle "new" since/);
  const told = await b.client.registration(second.id, signal);
  assert.equal(told.state, "refused");

  await at.order("revoke", one.id);
  await assert.rejects(one.client.slot({}, signal), refusedAs("revoked"));
  await assert.rejects(one.client.register({ email: "pilot@example.org", vehicle: "plane" }, signal), refusedAs("revoked"));
  // With a new key, and its owner's word, it is the same vehicle.
  const again = await registered(t, at, "plane");
  assert.equal(again.id, one.id);
  await again.client.slot({}, signal);
  await assert.rejects(one.client.slot({}, signal), refusedAs("unknown-key"));
  // Its key was lost: by its owner's word too, if it is asked for as that.
  const lost = await plane(t, at);
  const renew = { email: "pilot@example.org", vehicle: "plane", renew: true };
  at.clock.advance(3600_000);
  for (const wrong of [{ email: "pilto@example.org" }, { vehicle: "plane-2" }, { vehicle: undefined }])
    await assert.rejects(lost.client.register({ ...renew, ...wrong }, signal), refusedAs("not-found"));
  const { id } = await lost.client.register(renew, signal);
  assert.match((await at.order("list")).join("\n"), /a new key for "plane" of pilot@/);
  await again.client.slot({}, signal);
  await at.order("confirm", id);
  assert.equal((await lost.client.registration(id, signal)).access?.vehicleId, one.id);
  await lost.client.slot({}, signal);
  await assert.rejects(again.client.slot({}, signal), refusedAs("unknown-key"));
  // It went away while that waited.
  const late = await plane(t, at);
  const { id: waits } = await late.client.register(renew, signal);
  for (const vehicle of await at.catalogue.vehicles()) if (vehicle.owner.email === renew.email) await at.catalogue.deleteOwner(renew.email);
  await assert.rejects(at.order("confirm", waits), /no registration/);
});

test("only who has the private key is let in: no fingerprint, no public key, no other's signature, nothing twice", async (t) => {
  const at = await station(t);
  const [one, other] = [await registered(t, at, "one"), await registered(t, at, "other")];
  const ask = (it: Plane, change: Parameters<typeof signed>[4] = {}) => signed(it, "POST", wire.paths.slots, {}, change);

  assert.equal((await fetch(`${at.url}${wire.paths.slots}`, { method: "POST", body: "{}" })).status, 401);
  assert.equal((await ask(one, { signature: Buffer.alloc(64).toString("base64") })).error, "signature");
  assert.equal((await ask(one, { signature: "" })).error, "signature");
  assert.equal((await ask(other, { key: one.signer.fingerprint })).error, "signature", "another vehicle's key");
  assert.equal((await ask(one, { bodySent: { slot: "x" } })).error, "signature", "another body");
  assert.equal((await ask(one, { pathSent: "/api/vehicle" })).status, 404, "another method of a path");
  assert.equal((await ask(one, { station: "station-2" })).error, "signature", "meant for another station");
  assert.equal((await ask(await plane(t, at))).error, "unknown-key");
  assert.equal((await ask(one, { challenge: "abc.def.ghi" })).error, "challenge");

  const good = await ask(one);
  assert.equal(good.status, 200);
  assert.equal((await ask(one, { challenge: good.challenge })).error, "challenge", "a challenge is good once");
  const { challenge } = (await (await fetch(`${at.url}${wire.paths.challenge}`)).json()) as { challenge: string };
  at.clock.advance(61_000);
  assert.equal((await ask(one, { challenge })).error, "challenge", "and for a minute");
  const later = await at.restarted();
  const again = await plane(t, later, one.signer);
  assert.equal((await signed(again, "POST", wire.paths.slots, {}, { challenge })).error, "challenge", "and in one process");
  assert.equal((await again.client.slot({}, signal)).idleSeconds, 600, "the client asks for another one by itself");
});

test("who asks for the registration of another is told nothing", async (t) => {
  const at = await station(t);
  const [one, other] = [await plane(t, at), await plane(t, at)];
  const { id } = await one.client.register({ email: "a@example.org" }, signal);
  assert.equal((await signed(other, "GET", wire.paths.registration(id), undefined)).error, "signature");
  assert.equal((await signed(other, "GET", wire.paths.registration("0".repeat(24)), undefined)).error, "not-found");
});

test("a key of another kind, a name or an address that smuggles something, is no registration", async (t) => {
  const at = await station(t);
  const it = await plane(t, at);
  const ask = (change: object) => {
    at.clock.advance(60_000);
    return signed(it, "POST", wire.paths.register, { email: "a@example.org", vehicle: "plane", publicKey: it.signer.publicKey, ...change });
  };
  for (const email of [
    "a@example.org\r\nBcc: b@example.org",
    "a@example.org, b@example.org",
    "a@example.org\nSubject: x",
    '"x" <a@example.org>',
    "a b@example.org",
    "@example.org",
    "a@",
    "a@-x-",
    "a@example.org\0",
    "a\u202eb@example.org",
    `${"a".repeat(65)}@example.org`,
  ])
    assert.equal((await ask({ email })).error, "bad-request", JSON.stringify(email));
  for (const vehicle of ["../x", "a/b", "a\r\nBcc: x@y", "", " ", ".", "a\0", "<script>", "x".repeat(65), "-rf"])
    assert.equal((await ask({ vehicle })).error, "bad-request", JSON.stringify(vehicle));
  for (const publicKey of [
    "ssh-rsa AAAAB3NzaC1yc2E=",
    "ssh-ed25519 AAAA",
    `command="id" ${it.signer.publicKey}`,
    `${it.signer.publicKey}\nssh-ed25519 x`,
    "",
  ])
    assert.equal((await ask({ publicKey })).error, "bad-request", publicKey);
  assert.equal((await ask({ extra: 1 })).error, "bad-request");
  const said = async (body: unknown) =>
    (await fetch(`${at.url}${wire.paths.register}`, { method: "POST", body: JSON.stringify(body) })).json();
  for (const [body, words] of [
    [{}, '"email" is missing'],
    ["x", "the body is no JSON object"],
    [{ email: "a b@example.org", publicKey: "x" }, '"email": expected an e-mail address such as you@example.org'],
    [{ email: "", publicKey: "x" }, '"email": expected a text of 1 to 254 characters, none of them a control character'],
    [{ email: "a@example.org", publicKey: "x" }, '"publicKey": expected an ed25519 key as OpenSSH writes it'],
    [{ email: "a@example.org", publicKey: it.signer.publicKey, extra: 1 }, '"extra" is not known'],
  ] as const)
    assert.deepEqual(await said(body), { error: "bad-request", message: words });
  assert.deepEqual(await at.catalogue.allPending(), []);
});

test("floods end in 429, for that address and that account alone; a body of megabytes is not read", async (t) => {
  const at = await station(t);
  const good = await registered(t, at, "good", "good@example.org");
  const codes = new Map<number, number>();
  for (let n = 0; n < 40; n++) {
    const it = await plane(t, at);
    const { status } = await signed(it, "POST", wire.paths.register, { email: "flood@example.org", publicKey: it.signer.publicKey });
    codes.set(status, (codes.get(status) ?? 0) + 1);
  }
  assert.equal(codes.get(202), 5, "of one account");
  assert.equal(codes.get(429), 35);
  assert.equal((await good.client.slot({}, signal)).idleSeconds, 600, "a vehicle that is registered is let in all the same");

  // A vehicle that was deleted asks for ever; others of its address do not wait for that, nor for who asks for nothing but challenges.
  for (let n = 0; n < 1000; n++) assert.equal((await fetch(`${at.url}${wire.paths.challenge}`)).status, 200);
  const stranger = await plane(t, at);
  const refusals = new Set<string | undefined>();
  for (let n = 0; n < 30; n++) refusals.add((await signed(stranger, "POST", wire.paths.slots, {})).error);
  assert.deepEqual([...refusals], ["unknown-key", "too-many"]);
  assert.equal((await good.client.slot({}, signal)).idleSeconds, 600);

  // Links are guessed.
  let tries = 0;
  for (; tries < 100; tries++) {
    const { status } = await fetch(`${at.url}/confirm/${String(tries).padStart(32, "a")}`, { method: "POST" });
    if (status === 429) break;
    assert.equal(status, 404);
  }
  assert.ok(tries <= 20, `${tries} guesses`);

  const large = await fetch(`${at.url}${wire.paths.register}`, { method: "POST", body: "x".repeat(1024 * 1024) }).catch(() => undefined);
  assert.equal(large?.status ?? 400, 400);
  const endless = await fetch(`${at.url}${wire.paths.register}`, {
    method: "POST",
    duplex: "half",
    body: new Blob(["x"]).stream(),
  });
  assert.equal(endless.status, 400);
});

test("a vehicle changes its key by itself: the old one ends, and proof of the new one is asked for", async (t) => {
  const at = await station(t);
  const it = await registered(t, at, "plane");
  const next = await plane(t, at);
  const path = wire.paths.key;
  const rotate = async (signer: Signer) => {
    const { challenge } = (await (await fetch(`${at.url}${wire.paths.challenge}`)).json()) as { challenge: string };
    const text = wire.signedText({ station: "station-1", method: "POST", path, body: Buffer.alloc(0), challenge });
    return signed(it, "POST", path, { publicKey: next.signer.publicKey, signature: signer.sign(text) }, { challenge });
  };
  assert.equal((await rotate(it.signer)).error, "signature");
  assert.equal((await rotate(next.signer)).status, 200);
  await assert.rejects(it.client.slot({}, signal), refusedAs("unknown-key"));
  await next.client.slot({}, signal);
});

test("what the operator orders: list, confirm, quota, rotate, delete; words that are none say which there are", async (t) => {
  const at = await station(t, { slots: { vehicleBytes: 50e6, ownerBytes: 200e6 } });
  const it = await registered(t, at, "plane");
  const waits = await plane(t, at);
  const { id } = await waits.client.register({ email: "new@example.org" }, signal);
  const listed = (await at.order("list")).join("\n");
  assert.match(listed, new RegExp(`${it.id}  "plane" of pilot@example.org`));
  assert.match(listed, new RegExp(`waits: ${id} .*filesync registry confirm ${id}`));
  await assert.rejects(at.order(), /filesync registry needs a word: list, confirm REGISTRATION, .*, delete EMAIL$/);
  await assert.rejects(at.order("dance"), /does not know "dance": list, /);
  await assert.rejects(at.order("confirm"), /usage: filesync registry confirm/);
  await assert.rejects(at.order("confirm", "x"), new RegExp(`no registration x waits; there are: ${id}`));
  const unwanted = await plane(t, at);
  const { id: asked } = await unwanted.client.register({ email: "spam@example.org" }, signal);
  await at.order("refuse", asked);
  const refused = await unwanted.client.registration(asked, signal);
  assert.deepEqual([refused.state, refused.reason], ["refused", "the operator refused it"]);
  await assert.rejects(at.order("confirm", asked), new RegExp(`no registration ${asked} waits`));
  await assert.rejects(at.order("quota", it.id, "much"), /no size/);
  await assert.rejects(at.order("quota", it.id, "10"), /10 without a unit would be 10 bytes: give it one, as in "10GB"/);
  // The limits that hold, also where nobody gave one by hand.
  assert.match((await at.order("list")).join(), / 0 B of 50 MB, all of this owner's of 200 MB /);
  await at.order("quota", it.id, "20MB");
  await at.order("quota", "pilot@example.org", "30MB");
  assert.match(
    (await at.order("list")).join("\n"),
    /"plane" of pilot@example\.org {2}0 B of 20 MB, all of this owner's of 30 MB {2}SHA256/,
  );
  await assert.rejects(at.order("revoke", "nobody"), /no vehicle is called "nobody"/);
  await assert.rejects(at.order("rotate", it.id, "ssh-rsa", "AAAA"), /no ed25519/);
  const other = await plane(t, at);
  await at.order("rotate", it.id, ...other.signer.publicKey.split(" "));
  await other.client.slot({}, signal);
  const owner = readdirSync(at.root)[0] ?? "";
  assert.ok(existsSync(join(at.root, owner, it.id)));
  await at.order("delete", "pilot@example.org");
  assert.equal(existsSync(join(at.root, owner)), false);
  await assert.rejects(other.client.slot({}, signal), refusedAs("unknown-key"));
  await assert.rejects(at.order("delete", "pilot@example.org"), /nobody is registered/);
  // Of somebody who never had a vehicle too; and nothing is left of either.
  assert.match((await at.order("delete", "spam@example.org")).join("\n"), /0 vehicle\(s\).* 1 registration/);
  const kept = readdirSync(dirname(at.root)).filter((name) => name.startsWith("registry.sqlite"));
  for (const name of kept)
    for (const email of ["pilot@example.org", "spam@example.org"])
      assert.equal(readFileSync(join(dirname(at.root), name)).includes(email), false, `${email} in ${name}`);
});

test("a vehicle that its owner calls by the id of another keeps no order from that one", async (t) => {
  const at = await station(t);
  const it = await registered(t, at, "plane");
  const called = await registered(t, at, it.id, "other@example.org");
  await at.order("revoke", it.id);
  await assert.rejects(it.client.slot({}, signal), refusedAs("revoked"));
  await called.client.slot({}, signal);
});

test("behind a proxy the last address counts, without the port that some add; what is no address is nobody's", () => {
  for (const [header, address] of [
    ["203.0.113.9", "203.0.113.9"],
    ["198.51.100.1, 203.0.113.9:51234", "203.0.113.9"],
    ["2001:db8::1", "2001:db8::1"],
    ["[2001:db8::1]:443", "2001:db8::1"],
    ["::ffff:203.0.113.9", "::ffff:203.0.113.9"],
    ["203.0.113.9, unknown", undefined],
    ["", undefined],
  ] as const)
    assert.equal(forwardedFor(header), address, header);
  const given = { root: "x", proxy: true, mail: { host: "mail.example.org", from: "ground@example.org" } };
  const { issues } = v.safeParse(options, given);
  assert.deepEqual(
    issues?.map((issue) => [v.getDotPath(issue), issue.message.slice(0, 20)]),
    [["publicUrl", "the URL of the proxy"]],
  );
  assert.ok(v.safeParse(options, { ...given, publicUrl: "https://ground.example.org" }).success);
});

test("what is no registry is said to be none; a portal too; another station is not believed", async (t) => {
  const at = await station(t);
  const server = createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<h1>Welcome</h1>"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const signer = () => Promise.reject(new Error("not asked"));
  const to = (url: string, station?: string) => new RegistryClient({ url, tls: {}, timeout: 2000, station }, realClock(), signer);
  await assert.rejects(
    to(`http://127.0.0.1:${(server.address() as AddressInfo).port}`).station(signal),
    (error) => isFault(error, "config") && /no registry.*portal/.test(error.message),
  );
  await assert.rejects(to(at.url, "other").station(signal), (error) => isFault(error, "denied") && /another registry/.test(error.message));
  await assert.rejects(to("http://127.0.0.1:1").station(signal), (error) => isFault(error, "offline"));
});

test("a key that ssh-keygen made is read too; one with a passphrase, or of another type, says so", async (t) => {
  const { execFileSync } = await import("node:child_process");
  const dir = mkdtempSync(join(tmpdir(), "filesync-key-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const make = (name: string, ...args: string[]) => execFileSync("ssh-keygen", ["-q", "-f", join(dir, name), "-C", "x", ...args]);
  make("a", "-t", "ed25519", "-N", "");
  make("b", "-t", "ed25519", "-N", "secret");
  make("c", "-t", "rsa", "-N", "");
  const key = await readKey(join(dir, "a"));
  assert.equal(readFileSync(join(dir, "a.pub"), "utf8").split(" ").slice(0, 2).join(" "), key.publicKey);
  assert.match(
    execFileSync("ssh-keygen", ["-lf", join(dir, "a.pub")], { encoding: "utf8" }),
    new RegExp(key.fingerprint.replace(/[+]/g, "\\+")),
  );
  assert.ok(wire.isSigned(wire.publicKeyOf(key.publicKey)!.key, Buffer.from("x"), key.sign(Buffer.from("x"))));
  await assert.rejects(readKey(join(dir, "b")), /passphrase/);
  await assert.rejects(readKey(join(dir, "c")), /ssh-rsa: the registry takes ed25519/);
  await assert.rejects(readKey(join(dir, "none")), /filesync register/);
  // And the other way: what we made, ssh-keygen reads. Some that ssh2 makes are broken: one is no proof.
  for (let n = 0; n < 2000; n++) {
    writeFileSync(join(dir, "many"), newKey("x".repeat(n % 20)));
    await readKey(join(dir, "many"));
  }
  writeFileSync(join(dir, "ours"), newKey("ours"), { mode: 0o600 });
  const ours = await readKey(join(dir, "ours"));
  assert.equal(
    execFileSync("ssh-keygen", ["-yf", join(dir, "ours")], { encoding: "utf8" })
      .split(" ")
      .slice(0, 2)
      .join(" ")
      .trim(),
    ours.publicKey,
  );
});
