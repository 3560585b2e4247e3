/**
 * The FTP client against a server that is told what to answer: lost answers, refusals, old servers, evil names. Real servers do these
 * things too rarely to wait for.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { after, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { createServer as createTlsServer, type TlsOptions } from "node:tls";
import type { FaultKind } from "../../core/errors.js";
import type { Device } from "../../core/plugin.js";
import { parseIn } from "../../core/options.js";
import { calm, expectFault, onceReached, until } from "../../test/conformance/clause.js";
import { hasOpenssl, selfSigned } from "../../test/conformance/ftp-servers.js";
import { all } from "../../test/conformance/source-under-test.js";
import { bytes, context, realClock, upload } from "../../test/conformance/upload.js";
import { Refusal, Silence } from "./control.js";
import { ftpFault } from "./faults.js";
import { parseFingerprint } from "../../core/net.js";
import { plugin } from "./plugin.js";

type Answers = (line: string, socket: Socket) => string | undefined;
const servers: Server[] = [];
const devices: Device[] = [];
after(async () => {
  for (const device of devices) await device.close();
  for (const server of servers) server.close();
});

/** Where a server's silence is what is tried; any other test would meet it on a machine that stands still for so long. */
const hasty = { timeout: "400ms" };

/** A server that says what `answers` says, and what is usual where that says nothing; "" is silence. */
async function scripted(
  answers: Answers,
  given: Readonly<Record<string, unknown>> = {},
  tls?: TlsOptions,
): Promise<{ device: Device; lines: string[] }> {
  const lines: string[] = [];
  const usual: Readonly<Record<string, string>> = {
    USER: "331 password",
    PASS: "230 in",
    FEAT: "211-Features:\r\n SIZE\r\n211 End",
    TYPE: "200 ok",
    CWD: "250 ok",
    NOOP: "200 ok",
    QUIT: "221 bye",
  };
  const serve = (socket: Socket): void => {
    socket.on("error", () => socket.destroy());
    const greeting = answers("", socket) ?? "220 hello";
    if (greeting !== "") socket.write(`${greeting}\r\n`);
    socket.on("data", (chunk) => {
      for (const line of chunk
        .toString()
        .split("\r\n")
        .filter((it) => it !== "")) {
        lines.push(line);
        const said = answers(line, socket) ?? usual[line.split(" ")[0] ?? ""] ?? "502 unknown";
        if (said !== "") socket.write(`${said}\r\n`);
      }
    });
  };
  const server = tls === undefined ? createServer(serve) : createTlsServer(tls, serve);
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const parsed = parseIn({ baseDir: "/", env: {} }, plugin.options, {
    host: "127.0.0.1",
    port,
    user: "u",
    password: "sesame",
    timeout: "20s",
    ...given,
  });
  assert.ok(parsed.success);
  const device = plugin.device!(parsed.output, context({ clock: realClock(false) }));
  devices.push(device);
  return { device, lines };
}

/** The port of a server of data connections. */
async function dataPort(serve: (socket: Socket) => void): Promise<number> {
  const data = createServer(serve);
  servers.push(data);
  data.listen(0, "127.0.0.1");
  await once(data, "listening");
  return (data.address() as AddressInfo).port;
}

test("a lost answer to RNTO is found by looking", async () => {
  let renamed = false;
  const { device, lines } = await scripted((line, socket) => {
    if (line.startsWith("SIZE") && line.includes(".part")) return renamed ? "550 no" : "213 10";
    if (line.startsWith("SIZE")) return renamed ? "213 10" : "550 no";
    if (line.startsWith("RNFR")) return "350 go on";
    if (!line.startsWith("RNTO")) return undefined;
    renamed = true;
    socket.destroy();
    return "";
  });
  const it = upload("a.bin", bytes(10));
  await expectFault(device.target!.commit(it, calm()), "transient");
  assert.deepEqual(await device.target!.commit(it, calm()), { path: "a.bin", size: 10, proof: "size" });
  assert.equal(lines.filter((line) => line.startsWith("RNTO")).length, 1);
});

test("what a server answers to RNTO is believed only where the name shows it", async () => {
  const [done, refused] = ["250 renamed", "550 cannot rename"];
  for (const [answer, partial, name, expected] of [
    [done, "213 10", "550 no", /^the server said that it gave a\.bin its name \("250 renamed"\), and did not$/],
    // Somebody waited for it, and has taken it away, or changed it.
    [done, "550 no", "550 no", undefined],
    [done, "550 no", "213 7", undefined],
    [refused, "550 no", "213 10", undefined],
    ["451 cannot rename", "550 no", "213 10", undefined],
  ] as const) {
    let renamed = false;
    const { device } = await scripted((line) => {
      if (line.startsWith("SIZE") && line.includes(".part")) return renamed ? partial : "213 10";
      if (line.startsWith("SIZE")) return renamed ? name : "550 no";
      if (line.startsWith("RNFR")) return "350 go on";
      if (!line.startsWith("RNTO")) return undefined;
      renamed = true;
      return answer;
    });
    const publishing = device.target!.commit(upload("a.bin", bytes(10)), calm());
    if (expected === undefined) assert.deepEqual(await publishing, { path: "a.bin", size: 10, proof: "size" });
    else assert.match(await expectFault(publishing, "transient"), expected);
  }
});

for (const verify of ["auto", "readback"])
  test(`what another client puts at the name while the server is busy with the proof is seen: ${verify}`, async () => {
    const content = bytes(10);
    let proved = false;
    const port = await dataPort((socket) => {
      proved = true;
      socket.end(content);
    });
    const it = upload("a.bin", content);
    const { device, lines } = await scripted(
      (line) => {
        if (line === "FEAT") return "211-Features:\r\n HASH SHA-256*\r\n SIZE\r\n211 End";
        if (line.startsWith("OPTS")) return "200 ok";
        if (line.startsWith("SIZE")) return line.includes(".part") ? "213 10" : proved ? "213 5" : "550 no";
        if (line === "EPSV") return `229 ok (|||${port}|)`;
        if (line.startsWith("RETR")) return "150 here\r\n226 done";
        if (line.startsWith("HASH")) {
          proved = true;
          return `213 SHA-256 0-10 ${it.digest?.slice("sha256:".length)} a`;
        }
        return line.startsWith("RNFR") ? "350 go on" : line.startsWith("RNTO") ? "250 renamed" : undefined;
      },
      { verify },
    );
    assert.deepEqual(await device.target!.commit(it, calm()), { occupied: true, size: 5 });
    assert.ok(!lines.some((line) => line.startsWith("RNTO")));
  });

test("a server that replaces nothing refuses RNTO where another client was faster: what is there is told; any other refusal is a fault", async () => {
  for (const faster of [true, false]) {
    let renamed = false;
    const { device } = await scripted((line) => {
      if (line.startsWith("SIZE")) return line.includes(".part") ? "213 10" : renamed && faster ? "213 5" : "550 no";
      if (line.startsWith("RNFR")) return "350 go on";
      if (!line.startsWith("RNTO")) return undefined;
      renamed = true;
      return "550 Rename permission denied";
    });
    const committed = device.target!.commit(upload("a.bin", bytes(10)), calm());
    if (faster) assert.deepEqual(await committed, { occupied: true, size: 5 });
    else await expectFault(committed, "denied");
  }
});

test("a partial that has gone without the file is a conflict", async () => {
  const { device } = await scripted((line) => (line.startsWith("SIZE") ? "550 no" : undefined));
  await expectFault(device.target!.commit(upload("a.bin", bytes(10)), calm()), "conflict");
});

test("EPSV unknown: PASV is used with the control host, whatever address it tells, and EPSV is not asked again", async () => {
  let taken = Buffer.alloc(0);
  let finish: () => void = () => undefined;
  const port = await dataPort((socket) => {
    socket.on("data", (chunk) => (taken = Buffer.concat([taken, chunk])));
    socket.on("end", () => finish());
  });
  const { device, lines } = await scripted((line, socket) => {
    if (line.startsWith("SIZE")) return taken.length > 0 ? `213 ${taken.length}` : "550 no";
    if (line === "PASV") return `227 Entering Passive Mode (10,99,99,99,${port >> 8},${port & 255}).`;
    if (!/^(STOR|APPE)/.test(line)) return undefined;
    finish = () => socket.write("226 done\r\n");
    return "150 go on";
  });
  const it = upload("a.bin", bytes(5000));
  await device.target!.write(upload("a.bin", bytes(3000), { id: it.id }), 0, calm(), () => undefined);
  await device.target!.write(it, 3000, calm(), () => undefined);
  assert.deepEqual(taken, bytes(5000));
  assert.equal(lines.filter((line) => line === "PASV").length, 2);
  assert.equal(lines.filter((line) => line === "EPSV").length, 1);
});

const refusals: readonly (readonly [string, Answers, FaultKind])[] = [
  ["the login is refused", (line) => (line.startsWith("PASS") ? "530 Login incorrect for sesame" : undefined), "denied"],
  ["an account is asked for", (line) => (line.startsWith("PASS") ? "332 account?" : undefined), "denied"],
  ["the server is full", (line) => (line === "" ? "421 too many" : undefined), "transient"],
  ["the server never greets", (line) => (line === "" ? "" : undefined), "offline"],
  ["the server never answers", (line) => (line.startsWith("CWD") ? "" : undefined), "transient"],
  ["the root is forbidden", (line) => (line.startsWith("CWD") ? "550 Permission denied" : undefined), "denied"],
  ["the server ends", (line, socket) => (line.startsWith("CWD") ? (socket.destroy(), "") : undefined), "transient"],
  ["an answer is garbage", (line) => (line.startsWith("CWD") ? "garbage" : undefined), "transient"],
];
for (const [what, answers, kind] of refusals)
  test(`probe when ${what}: ${kind}`, async () => {
    const { device } = await scripted(answers, what.includes("never") ? hasty : {});
    const message = await expectFault(device.probe(calm()), kind, 5000);
    assert.ok(!message.includes("sesame"), message);
  });

test("a root that is not there is made by an upload, and is denied to a list", async () => {
  const { device } = await scripted((line) => (line.startsWith("CWD") ? "550 No such directory" : undefined));
  await device.probe(calm());
  const list = async (): Promise<void> => {
    for await (const entry of device.source!.list(calm())) assert.fail(entry.path);
  };
  await expectFault(list(), "denied");
});

test("a port that nobody listens on is offline, and so is a name that nobody knows", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  for (const given of [{ port }, { host: "no-such-host.invalid" }]) {
    const { device } = await scripted(() => undefined, given);
    await expectFault(device.probe(calm()), "offline", 10_000);
  }
});

test("a server without TLS is denied when TLS is configured, and no password is sent", async () => {
  const { device, lines } = await scripted(() => undefined, { secure: true });
  await expectFault(device.probe(calm()), "denied", 5000);
  assert.ok(!lines.some((line) => line.startsWith("PASS")));
});

/** What a person reads where TLS is not as it is configured. */
const tlsTroubles: readonly (readonly [string, Answers, Readonly<Record<string, unknown>>, RegExp])[] = [
  ...[
    "530 Non-anonymous sessions must use encryption.",
    "550 SSL/TLS required on the control channel",
    "421 Sorry, cleartext sessions and weak ciphers are not accepted on this server.",
    "534 Policy requires SSL.",
    "503 Use AUTH first.",
    "530 This server wants TLS: AUTH TLS first.",
  ].map(
    (answer) =>
      [
        answer,
        (line: string) => (line.startsWith("USER") ? answer : undefined),
        {},
        /^cannot log in to 127\.0\.0\.1:\d+: the server wants TLS; set "secure": true, or "implicit" where TLS has a port of its own \(usually 990\) \(it said "/,
      ] as const,
  ),
  ...[
    "500 AUTH not understood",
    "502 unknown",
    "504 no",
    "530 Please login with USER and PASS.",
    "534 Local policy does not allow TLS",
  ].map(
    (answer) =>
      [
        `AUTH: ${answer}`,
        (line: string) => (line.startsWith("AUTH") ? answer : undefined),
        { secure: true },
        /^cannot log in to 127\.0\.0\.1:\d+: the server offers no TLS on this port \(to AUTH TLS it said ".*"\); set TLS up there, or set "secure": "implicit" with the port where it has TLS from the first byte \(usually 990\); "secure": false sends all in clear, the password too$/,
      ] as const,
  ),
  [
    "implicit TLS to a port that greets in clear",
    () => undefined,
    { secure: "implicit" },
    /^cannot log in to 127\.0\.0\.1:\d+: what answers on this port speaks no TLS from the first byte \([a-z ]+\); set "secure": true for TLS that is asked for with AUTH TLS, or the port of implicit TLS \(usually 990\)$/,
  ],
];
for (const [what, answers, given, reads] of tlsTroubles)
  test(`TLS is not as it is configured: ${what}`, async () => {
    const { device, lines } = await scripted(answers, given);
    const message = await expectFault(device.probe(calm()), "denied", 5000);
    assert.match(message, reads);
    assert.ok(!lines.some((line) => line.startsWith("PASS")));
  });

test("a wrong password is not taken for missing TLS, and neither is a file whose name speaks of it", async () => {
  const { device } = await scripted((line) => (line.startsWith("PASS") ? "530 Login incorrect." : undefined));
  assert.match(
    await expectFault(device.probe(calm()), "denied"),
    /the server said "530 Login incorrect\."; look at "user" and "password"$/,
  );
  const situation = { what: "cannot read it", password: "sesame", clockTrusted: false, secure: false };
  const said = (code: number, text: string) => ftpFault(new Refusal({ code, text }), situation).message;
  assert.equal(said(550, "/notes on TLS.txt: busy"), 'cannot read it: the server said "550 /notes on TLS.txt: busy"');
  assert.match(said(522, "Data connections must be encrypted."), /the server wants TLS; set "secure": true/);
});

test("silence on the port of implicit TLS names what may be wrong", () => {
  const situation = { what: "cannot log in to x", password: "sesame", clockTrusted: false, connecting: true, secure: true };
  const said = (more: object) => ftpFault(new Silence("no answer came"), { ...situation, ...more }).message;
  assert.equal(
    said({ port: 990 }),
    'cannot log in to x: the server does not answer; port 990 is usually for TLS from the first byte: set "secure": "implicit"',
  );
  assert.equal(said({ port: 990, secure: "implicit" }), "cannot log in to x: the server does not answer");
  assert.equal(said({ port: 2121 }), "cannot log in to x: the server does not answer");
});

test("full, refused and impossible writes are told apart", async () => {
  const codes: readonly (readonly [string, FaultKind])[] = [
    ["552 no space", "full"],
    ["452 no space", "full"],
    ["553 no such name here", "rejected"],
    ["550 Permission denied", "denied"],
    // What ProFTPD, Pure-FTPd and vsftpd say where there is no inode left, or no right.
    ["550 x.bin: No space left on device", "full"],
    ["553 Can't open that file: No space left on device", "full"],
    ["553 Can't open that file: Permission denied", "denied"],
    ["553 Could not create file.", "denied"],
    // ProFTPD's where a write found room for a part.
    ["451 Transfer aborted. Input/output error", "full"],
    ["451 disk trouble", "transient"],
    ["425 no data connection", "transient"],
  ];
  const port = await dataPort((socket) => socket.resume().on("error", () => socket.destroy()));
  for (const [answer, kind] of codes) {
    const { device } = await scripted((line) => {
      if (line.startsWith("SIZE")) return "550 no";
      if (line === "EPSV") return `229 ok (|||${port}|)`;
      return line.startsWith("STOR") ? answer : undefined;
    });
    await expectFault(
      device.target!.write(upload("a.bin", bytes(100)), 0, calm(), () => undefined),
      kind,
      5000,
    );
  }
  const reading = { what: "cannot read it", password: "sesame", clockTrusted: false, secure: false };
  assert.equal(ftpFault(new Refusal({ code: 451, text: "Transfer aborted. Input/output error" }), reading).kind, "transient");
});

/** What STOR sends before the server has said anything. */
const early = 256 * 1024;

/** A server that takes whatever comes on data connections, and counts it; what it says to STOR and APPE is up to `answers`. */
async function counting(
  answers: (control: Socket, ended: Promise<unknown>, came: (bytes: number) => Promise<void>) => string,
  held = 0,
  given: Readonly<Record<string, unknown>> = {},
  deleted: () => string = () => "250 gone",
) {
  const count = { bytes: 0 };
  const tell = new Set<() => void>();
  const came = (bytes: number) =>
    new Promise<void>((resolve) => {
      tell.add(() => {
        if (count.bytes >= bytes) resolve();
      });
    });
  let ended: (it: unknown) => void = () => undefined;
  const port = await dataPort((socket) => {
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk) => {
      count.bytes += chunk.length;
      for (const told of tell) told();
    });
    socket.on("end", () => ended(undefined));
  });
  const { device, lines } = await scripted((line, control) => {
    if (line.startsWith("SIZE")) return held + count.bytes === 0 ? "550 no" : `213 ${held + count.bytes}`;
    if (line === "EPSV") return `229 ok (|||${port}|)`;
    if (line.startsWith("DELE")) return deleted();
    if (!/^(STOR|APPE)/.test(line)) return undefined;
    const end = new Promise((resolve) => (ended = resolve));
    return answers(control, end, came);
  }, given);
  return { device, lines, count };
}

test("a short partial that the server does not go on with is taken away before any other silence would count, and only once", async () => {
  const held = 100_000;
  const { device, lines } = await counting(() => "", held, { timeout: "60s" });
  const it = upload("a.bin", bytes(2 * held));
  const write = () =>
    expectFault(
      device.target!.write(it, held, calm(), () => undefined),
      "transient",
      30_000,
    );
  assert.match(await write(), /it is sent from its first byte$/);
  assert.match(await write(), /may still hold it there$/);
  assert.equal(lines.filter((line) => line.startsWith("DELE")).length, 1);
  assert.ok(!lines.some((line) => line.startsWith("STOR")));
});

test("a short partial that could not be taken away stays, and is taken away the next time", async () => {
  const held = 100_000;
  const said = ["550 in use", "250 gone"];
  const { device, count } = await counting(
    () => "",
    held,
    hasty,
    () => said.shift() ?? "",
  );
  const it = upload("a.bin", bytes(2 * held));
  for (const says of [/may still hold it there$/, /it is sent from its first byte$/, /may still hold it there$/])
    assert.match(
      await expectFault(
        device.target!.write(it, held, calm(), () => undefined),
        "transient",
      ),
      says,
    );
  assert.deepEqual([said, count.bytes], [[], 0]);
});

test("a server that never says 150 is sent no more than a beginning, and nothing of what is appended", async () => {
  const mib = 2 ** 20;
  for (const [held, most] of [
    [0, early],
    [mib, 0],
  ] as const) {
    const { device, count } = await counting(() => "", held, hasty);
    const message = await expectFault(
      device.target!.write(upload("a.bin", bytes(7 * mib)), held, calm(), () => undefined),
      "transient",
      5000,
    );
    assert.equal(
      message,
      "cannot write a.bin: the server did not say that it takes the file (150): an earlier transfer may still hold it there",
    );
    assert.equal(count.bytes, most);
  }
});

for (const [rest, retr] of [
  ["502 no such command", "150 here it is"],
  ["350 from there", "451 /a.bin: Restart not permitted, try again"],
] as const)
  test(`a server that gives files from their first byte alone (${rest.slice(0, 3)}) is read from there, and the bytes that are here are left out`, async () => {
    const content = bytes(300_000);
    let control: Socket | undefined;
    let from = "";
    const gives: boolean[] = [];
    const sockets: Socket[] = [];
    const pair = () => {
      if (sockets.length === 0 || gives.length === 0) return;
      const socket = sockets.shift();
      if (gives.shift() === true) socket?.end(content, () => control?.write("226 done\r\n"));
      else socket?.destroy();
    };
    const port = await dataPort((socket) => {
      sockets.push(socket.on("error", () => socket.destroy()));
      pair();
    });
    const { device, lines } = await scripted((line, socket) => {
      control = socket;
      if (line.startsWith("SIZE")) return `213 ${content.length}`;
      if (line === "EPSV") return `229 ok (|||${port}|)`;
      if (line.startsWith("REST")) return (from = rest);
      if (!line.startsWith("RETR")) return undefined;
      const said = from.startsWith("350") ? retr : "150 here it is";
      from = "";
      gives.push(said.startsWith("150"));
      pair();
      return said;
    });
    const entry = { path: "a.bin", kind: "file" as const, size: content.length };
    for (let times = 0; times < 2; times++) {
      const parts: Buffer[] = [];
      for await (const part of await device.source!.open(entry, 200_000, calm())) parts.push(part as Buffer);
      assert.ok(Buffer.concat(parts).equals(content.subarray(200_000)));
    }
    assert.equal(lines.filter((line) => line.startsWith("REST")).length, 1);
    assert.equal(device.source!.features.ranges, false);
  });

test("a server that takes REST, and gives the file from its first byte all the same: that is not taken for what was asked for", async () => {
  const content = bytes(300_000);
  let control: Socket | undefined;
  const port = await dataPort((socket) => {
    socket.on("error", () => socket.destroy());
    socket.end(content, () => control?.write("226 done\r\n"));
  });
  const { device } = await scripted((line, socket) => {
    control = socket;
    if (line.startsWith("SIZE")) return `213 ${content.length}`;
    if (line === "EPSV") return `229 ok (|||${port}|)`;
    if (line.startsWith("REST")) return "350 from there";
    return line.startsWith("RETR") ? "150 here it is" : undefined;
  });
  const entry = { path: "a.bin", kind: "file" as const, size: content.length };
  const read = async (offset: number) => buffer(await device.source!.open(entry, offset, calm()));
  await expectFault(read(200_000), "changed");
  assert.ok((await read(200_000)).equals(content.subarray(200_000)));
  assert.equal(device.source!.features.ranges, false);
});

for (const [how, from, to, looks] of [
  ["it gives it from its first byte, whatever REST says", 0, 200_000, 1],
  ["it loses the end of what it gives", 200_000 - 65_536, 190_000, 3],
] as const)
  test(`of a partial nobody knows the last, and the server cannot be asked (${how}): its size is believed`, async () => {
    const content = bytes(300_000);
    let control: Socket | undefined;
    const port = await dataPort((socket) => {
      socket.on("error", () => socket.destroy());
      socket.end(content.subarray(from, to), () => control?.write("226 done\r\n"));
    });
    const { device, lines } = await scripted((line, socket) => {
      control = socket;
      if (line.startsWith("SIZE")) return "213 200000";
      if (line === "EPSV") return `229 ok (|||${port}|)`;
      if (line.startsWith("REST")) return "350 from there";
      return line.startsWith("RETR") ? "150 here it is" : undefined;
    });
    for (let n = 0; n < 3; n++) assert.equal(await device.target!.offset(upload("a.bin", content), calm()), 200_000);
    assert.equal(lines.filter((line) => line.startsWith("RETR")).length, looks);
  });

const gone = "150 and the link goes";
for (const [answer, looks] of [
  // ProFTPD with "AllowRetrieveRestart off".
  ["451 /.a.bin.part: Restart not permitted, try again", 0],
  ["450 it is busy", 2],
  ["", 2],
  [gone, 2],
] as const)
  test(`of a partial nobody knows the last, and a look at it never comes to its end ("${answer}" to RETR): its size is believed then`, async () => {
    const content = bytes(300_000);
    let control: Socket | undefined;
    const port = await dataPort((socket) => {
      socket.on("error", () => socket.destroy());
      if (answer === gone) setTimeout(() => control?.destroy(), 50);
    });
    const { device } = await scripted(
      (line, socket) => {
        control = socket;
        if (line.startsWith("SIZE")) return "213 200000";
        if (line === "EPSV") return `229 ok (|||${port}|)`;
        if (line.startsWith("REST")) return "350 from there";
        if (line.startsWith("DELE")) return "550 no";
        return line.startsWith("RETR") ? answer : undefined;
      },
      { timeout: "2s" },
    );
    const it = upload("a.bin", content);
    for (let n = 0; n < looks; n++) await expectFault(device.target!.offset(it, calm()), "transient");
    for (let n = 0; n < 2; n++) assert.equal(await device.target!.offset(it, calm()), 200_000);
  });

test("a partial that the server lost of, and does not let be taken away, is written anew", async () => {
  const content = bytes(300_000);
  let control: Socket | undefined;
  const port = await dataPort((socket) => {
    socket.on("error", () => socket.destroy());
    socket.end(Buffer.alloc(65_536), () => control?.write("226 done\r\n"));
  });
  const { device } = await scripted((line, socket) => {
    control = socket;
    if (line.startsWith("SIZE")) return "213 200000";
    if (line === "EPSV") return `229 ok (|||${port}|)`;
    if (line.startsWith("REST")) return "350 from there";
    if (line.startsWith("DELE")) return "550 no such right";
    return line.startsWith("RETR") ? "150 here it is" : undefined;
  });
  assert.equal(await device.target!.offset(upload("a.bin", content), calm()), 0);
});

test("of a partial nobody knows the last, and it grows while it is looked at: an earlier transfer is still at work", async () => {
  const content = bytes(300_000);
  let held = 200_000;
  let opened: (socket: Socket) => void = () => undefined;
  const data = new Promise<Socket>((resolve) => (opened = resolve));
  const port = await dataPort((socket) => {
    socket.on("error", () => socket.destroy());
    opened(socket);
  });
  const { device } = await scripted((line, control) => {
    if (line.startsWith("SIZE")) return `213 ${held}`;
    if (line === "EPSV") return `229 ok (|||${port}|)`;
    if (line.startsWith("REST")) return "350 from there";
    if (!line.startsWith("RETR")) return undefined;
    held = 250_000;
    void data.then((socket) => socket.end(content.subarray(200_000 - 65_536, held), () => control.write("226 done\r\n")));
    return "150 here it is";
  });
  const message = await expectFault(device.target!.offset(upload("a.bin", content), calm()), "transient");
  assert.match(message, /had 200000 bytes at the server, and has 250000 now$/);
});

for (const refusal of ["451 /.a.bin.part: Append/Restart not permitted, try again", "502 no such command"])
  test(`a server that appends to no file (${refusal.slice(0, 3)}) gets what broke off whole again, and is known`, async () => {
    let held: number | undefined = 1000;
    let ended: (it: unknown) => void = () => undefined;
    const port = await dataPort((socket) => {
      socket.on("error", () => socket.destroy());
      socket.on("data", (chunk) => (held = (held ?? 0) + chunk.length));
      socket.on("end", () => ended(undefined));
    });
    const { device, lines } = await scripted((line, control) => {
      if (line.startsWith("SIZE")) return held === undefined ? "550 no" : `213 ${held}`;
      if (line === "EPSV") return `229 ok (|||${port}|)`;
      if (line.startsWith("APPE")) return refusal;
      if (line.startsWith("DELE")) held = undefined;
      if (!line.startsWith("STOR")) return undefined;
      held = 0;
      void new Promise((resolve) => (ended = resolve)).then(() => control.write("226 done\r\n"));
      return "150 go on";
    });
    const it = upload("a.bin", bytes(5000));
    const write = (offset: number) => device.target!.write(it, offset, calm(), () => undefined);
    assert.equal(await device.target!.offset(it, calm()), 1000);
    assert.match(await expectFault(write(1000), "transient"), /^this server continues no file \("\d+ .*"\): what breaks off is sent/);
    assert.equal(device.target!.features.resume, false);
    for (const left of [undefined, 0]) {
      held = left;
      const before = lines.length;
      await write(await device.target!.offset(it, calm()));
      assert.equal(held, 5000);
      assert.ok(!lines.slice(before).some((line) => line.startsWith("APPE")), lines.join("\n"));
    }
  });

test(
  "a server that never begins TLS on the data connection, and says nothing either, is given up",
  { skip: hasOpenssl ? false : "openssl is not installed" },
  async (t) => {
    const dir = mkdtempSync(join(tmpdir(), "filesync-scripted-"));
    t.after(() => rmSync(dir, { recursive: true }));
    const { cert, key, fingerprint } = selfSigned(dir);
    const port = await dataPort((socket) => socket.resume().on("error", () => socket.destroy()));
    const { device } = await scripted(
      (line) => {
        if (/^(PBSZ|PROT)/.test(line)) return "200 ok";
        if (line === "EPSV") return `229 ok (|||${port}|)`;
        return /^(STOR|RETR|LIST)/.test(line) ? "" : undefined;
      },
      { secure: "implicit", tls: { fingerprint }, ...hasty },
      { cert: readFileSync(cert), key: readFileSync(key) },
    );
    const message = await expectFault(
      onceReached(() => device.target!.write(upload("a.bin", bytes(100)), 0, calm(), () => undefined)),
      "transient",
    );
    assert.match(message, /^cannot write a\.bin: the server did not say that it takes the file \(150\)/);
    const list = async (): Promise<void> => {
      for await (const entry of device.source!.list(calm())) assert.fail(entry.path);
    };
    await expectFault(onceReached(list), "transient");
  },
);

test(
  "a data connection whose TLS session has expired at a server that asks for it costs one try: the next has a login, and a session, of its own",
  { skip: hasOpenssl ? false : "openssl is not installed" },
  async (t) => {
    const dir = mkdtempSync(join(tmpdir(), "filesync-scripted-"));
    t.after(() => rmSync(dir, { recursive: true }));
    const made = selfSigned(dir);
    const tls = { cert: readFileSync(made.cert), key: readFileSync(made.key), ticketKeys: randomBytes(48), maxVersion: "TLSv1.2" as const };
    let control: Socket | undefined;
    /** Logins whose session has expired. */
    const expired = new Set<Socket>();
    let refusal = "";
    const data = createTlsServer(tls, (socket) => {
      const at = control;
      const taken = socket.isSessionReused() && at !== undefined && !expired.has(at);
      socket.on("error", () => socket.destroy());
      socket.resume().on("end", () => at?.write(taken ? "226 done\r\n" : `${refusal}\r\n`));
    });
    servers.push(data);
    data.listen(0, "127.0.0.1");
    await once(data, "listening");
    const { port } = data.address() as AddressInfo;
    const { device } = await scripted(
      (line, socket) => {
        if (/^(PBSZ|PROT)/.test(line)) return "200 ok";
        if (line === "EPSV") return `229 ok (|||${port}|)`;
        if (!line.startsWith("STOR")) return undefined;
        control = socket;
        return "150 go on";
      },
      { secure: "implicit", tls: { fingerprint: made.fingerprint }, timeout: "20s" },
      tls,
    );
    const write = () => device.target!.write(upload("a.bin", bytes(100)), 0, calm(), () => undefined);
    await write();
    for (refusal of ["425 Unable to build data connection: Operation not permitted", "522 SSL connection failed: session reuse required"]) {
      // Its session is not known any more where data comes, and another is not taken.
      expired.add(control!);
      data.setTicketKeys(randomBytes(48));
      const message = await expectFault(write(), "transient");
      assert.equal(message, `cannot write a.bin: the TLS session of the login has expired (the server said "${refusal}")`);
      data.setTicketKeys(tls.ticketKeys);
      await write();
    }
  },
);

test("a server that says that all was sent, and whose data does not end, is given up", async () => {
  const port = await dataPort((socket) => void socket.on("error", () => socket.destroy()).write("x".repeat(10)));
  const { device } = await scripted((line) => {
    if (line === "EPSV") return `229 ok (|||${port}|)`;
    if (line.startsWith("SIZE")) return "213 100";
    return /^(RETR|LIST)/.test(line) ? "150 here it comes\r\n226 done" : undefined;
  }, hasty);
  const list = async (): Promise<void> => {
    for await (const entry of device.source!.list(calm())) assert.fail(entry.path);
  };
  assert.equal(
    await expectFault(list(), "transient", 5000),
    "cannot list the root: the server said that all was sent, and it does not come",
  );
  const reading = async (): Promise<void> => {
    for await (const chunk of await device.source!.open({ path: "a.bin", kind: "file", size: 100 }, 0, calm()))
      assert.equal((chunk as Buffer).length, 10);
  };
  assert.equal(
    await expectFault(reading(), "transient", 5000),
    "cannot read a.bin: the server said that all was sent, and it does not come",
  );
});

test("nothing is asked behind a transfer before its answer, also not in the same packet: ProFTPD would answer it first, Pure-FTPd take parts of it", async () => {
  let storing = false;
  let end: () => void = () => undefined;
  const early: string[] = [];
  const port = await dataPort((socket) => socket.resume().on("end", () => end()));
  const { device, lines } = await scripted(
    (line, socket) => {
      if (storing) early.push(line);
      if (line === "EPSV") return `229 ok (|||${port}|)`;
      if (line.startsWith("SIZE")) return "213 7";
      if (!line.startsWith("STOR")) return undefined;
      storing = true;
      end = () => {
        storing = false;
        socket.write("226 done\r\n");
      };
      return "150 go on";
    },
    { concurrency: 1 },
  );
  const target = device.target!;
  const write = (name: string) => target.write(upload(name, bytes(50_000)), 0, calm(), () => undefined);
  // From then on EPSV and STOR go together.
  await write("first.bin");
  const writing = write("a.bin");
  const sizes: Promise<number>[] = [];
  for (let turn = 0; turn < 100; turn++) {
    await Promise.resolve();
    // More than it should be: nothing is read back.
    sizes.push(target.offset(upload(`${turn}.bin`, bytes(5)), calm()));
  }
  await writing;
  assert.deepEqual(await Promise.all(sizes), Array(100).fill(7));
  assert.deepEqual(early, []);
  assert.equal(lines.filter((line) => line.startsWith("USER")).length, 1);
});

test("what was held back goes out when the server says 150 late; a small file does not wait for it", async () => {
  const content = bytes(3_000_000);
  const late = await counting((control, ended, came) => {
    void came(early).then(() => control.write("150 now\r\n"));
    void ended.then(() => control.write("226 done\r\n"));
    return "";
  });
  await late.device.target!.write(upload("a.bin", content), 0, calm(), () => undefined);
  assert.equal(late.count.bytes, content.length);
  const mute = await counting((control, ended) => {
    void ended.then(() => control.write("226 done\r\n"));
    return "";
  });
  await mute.device.target!.write(upload("b.bin", bytes(early)), 0, calm(), () => undefined);
  assert.equal(mute.count.bytes, early);
});

test("a server that says that it has all before all was sent is not quoted with what it did not say", async () => {
  const { device } = await counting(() => "226 done\r\n150 go on");
  const writing = device.target!.write(upload("a.bin", bytes(3_000_000)), 0, calm(), () => undefined);
  assert.equal(await expectFault(writing, "transient", 5000), 'the server ended the transfer before all was sent ("226 done")');
});

test("a certificate that seems expired is offline while the clock is not set, else denied", () => {
  const error = Object.assign(new Error("certificate has expired"), { code: "CERT_HAS_EXPIRED" });
  const situation = { what: "cannot reach x", password: "sesame", secure: true };
  assert.equal(ftpFault(error, { ...situation, clockTrusted: false }).kind, "offline");
  assert.match(ftpFault(error, { ...situation, clockTrusted: false }).message, /clock is not set/);
  assert.equal(ftpFault(error, { ...situation, clockTrusted: true }).kind, "denied");
  assert.equal(
    ftpFault(Object.assign(new Error("x"), { code: "SELF_SIGNED_CERT_IN_CHAIN" }), { ...situation, clockTrusted: false }).kind,
    "denied",
  );
});

test("fingerprints in base64 and hexadecimal", () => {
  const hex = "ab".repeat(32);
  assert.equal(parseFingerprint(`SHA256:${Buffer.from(hex, "hex").toString("base64").replace(/=+$/, "")}`), hex);
  assert.equal(parseFingerprint(hex.toUpperCase().match(/../g)!.join(":")), hex);
  assert.equal(parseFingerprint(`sha256:${hex}`), hex);
  assert.equal(parseFingerprint("SHA256:short"), undefined);
});

test("options: what is wrong is said, and defaults are filled in", () => {
  const parse = (input: unknown) => parseIn({ baseDir: "/", env: {} }, plugin.options, input);
  const good = parse({ host: "h" });
  assert.ok(good.success);
  assert.deepEqual(
    [good.output.user, good.output.root, good.output.verify, good.output.timeout, good.output.concurrency],
    ["anonymous", "/", "auto", 30_000, 4],
  );
  for (const bad of [
    {},
    { host: "h", hots: 1 },
    { host: "h\r\nx" },
    { host: "h", verify: "md5" },
    { host: "h", tls: { fingerprint: "x" } },
  ])
    assert.ok(!parse(bad).success);
});

test("a refused RETR ends at once, though the server leaves the data connection open, and the login goes on", async () => {
  const waiting: Socket[] = [];
  const data = createServer((socket) => void waiting.push(socket)).listen(0, "127.0.0.1");
  servers.push(data);
  await once(data, "listening");
  const { port } = data.address() as AddressInfo;
  let asked = 0;
  const { device, lines } = await scripted((line, control) => {
    if (line === "EPSV") return `229 port (|||${port}|)`;
    if (line.startsWith("SIZE")) return asked === 0 ? "213 10" : "550 gone";
    if (!line.startsWith("RETR")) return undefined;
    asked += 1;
    const refuse = (): void => void control.write("550 No such file or directory.\r\n");
    if (waiting.length >= asked) setImmediate(refuse);
    else data.once("connection", () => setTimeout(refuse, 20));
    return "";
  });
  const entry = { path: "gone.bin", kind: "file" as const, size: 10 };
  const read = async () => {
    for await (const chunk of await device.source!.open(entry, 0, calm())) assert.fail(`bytes came: ${String(chunk)}`);
  };
  await expectFault(read(), "missing");
  await expectFault(read(), "missing");
  assert.equal(lines.filter((line) => line.startsWith("USER")).length, 1, "it logged in again");
  for (const socket of waiting) socket.destroy();
});

test("as many directories are listed at once as there may be connections", async () => {
  const [listing, arrived]: [Socket[], Socket[]] = [[], []];
  let come: (socket: Socket) => void = (socket) => void arrived.push(socket);
  const port = await dataPort((socket) => come(socket.on("error", () => socket.destroy())));
  const send = async (control: Socket, text: string): Promise<void> => {
    const socket = arrived.shift() ?? (await new Promise<Socket>((resolve) => (come = resolve)));
    come = (next) => void arrived.push(next);
    control.write("150 now\r\n");
    await new Promise<void>((resolve) => socket.end(text, resolve));
    control.write("226 done\r\n");
  };
  let rootListed = false;
  const { device, lines } = await scripted(
    (line, control) => {
      if (line === "EPSV") return `229 ok (|||${port}|)`;
      if (!line.startsWith("LIST")) return undefined;
      if (!rootListed) {
        rootListed = true;
        void send(control, ["a", "b", "c"].map((name) => `drwxr-xr-x 2 0 0 0 Jan 1 2026 ${name}\r\n`).join(""));
      } else {
        listing.push(control);
        // None before all were asked for.
        if (listing.length === 3) void listing.reduce((before, it) => before.then(() => send(it, "")), Promise.resolve());
      }
      return "";
    },
    { concurrency: 3 },
  );
  const found: string[] = [];
  for await (const { path } of device.source!.list(calm(), { directories: true })) found.push(path);
  assert.deepEqual(found.sort(), ["a", "b", "c"]);
  assert.equal(lines.filter((line) => line.startsWith("USER")).length, 3);
});

for (const [what, piece] of [
  ["lines", "-rw-r--r-- 1 0 0 7 Jan 1 2026 a.bin\r\n".repeat(2000)],
  ["a line", "-rw-r--r-- 1 0 0 7 Jan 1 2026 a.bin".repeat(2000)],
] as const)
  test(`a listing of ${what} without end is given up`, async () => {
    const port = await dataPort((socket) => {
      const more = (): void => {
        while (!socket.destroyed && socket.write(piece)) continue;
      };
      socket.on("error", () => socket.destroy()).on("drain", more);
      more();
    });
    const { device } = await scripted((line) => {
      if (line === "EPSV") return `229 ok (|||${port}|)`;
      return line.startsWith("LIST") ? "150 now" : undefined;
    });
    await assert.rejects(async () => {
      for await (const { path } of device.source!.list(calm())) assert.fail(path);
    }, /the server's listing of a directory has no end/);
  });

test("a server that is slow to list is told from one that answers nothing: a longer timeout helps", async () => {
  const port = await dataPort((socket) => socket.on("error", () => socket.destroy()));
  const { device } = await scripted(
    (line) => {
      if (line === "EPSV") return `229 ok (|||${port}|)`;
      return line.startsWith("LIST") ? "150 now" : undefined;
    },
    { timeout: "2s" },
  );
  await assert.rejects(async () => {
    for await (const { path } of device.source!.list(calm())) assert.fail(path);
  }, /no listing came within 2 s; .* "timeout"/);
});

test("a source looks at a file by SIZE where there is no MLST, and lists only for what has none; a tree always lists", async () => {
  const port = await dataPort((socket) =>
    socket.on("error", () => socket.destroy()).end("drwxr-xr-x 2 0 0 0 Jan 1 2026 dir\r\n-rw-r--r-- 1 0 0 7 Jan 1 2026 a.bin\r\n"),
  );
  const { device, lines } = await scripted((line, control) => {
    if (line === "EPSV") return `229 ok (|||${port}|)`;
    if (line === "SIZE /a.bin") return "213 7";
    if (line.startsWith("SIZE")) return "550 no plain file";
    if (!line.startsWith("LIST")) return undefined;
    setTimeout(() => control.write("226 done\r\n"), 1);
    return "150 now";
  });
  const listed = () => lines.filter((line) => line.startsWith("LIST")).length;
  assert.deepEqual(await device.source!.stat("a.bin", calm()), { path: "a.bin", kind: "file", size: 7 });
  assert.equal(listed(), 0);
  assert.deepEqual(await device.source!.stat("dir", calm()), { path: "dir", kind: "directory", size: 0 });
  assert.equal(await device.source!.stat("gone", calm()), undefined);
  assert.equal(listed(), 2);
  assert.deepEqual(await device.tree!.stat("a.bin", calm()), { path: "a.bin", kind: "file", size: 7 });
  assert.equal(listed(), 3);
});

test("a name with the byte FF at a server that does not say how it takes it costs the others nothing, also where their times are asked for", async () => {
  const lines = "-rw-r--r-- 1 0 0 7 Jan 1 2026 a.bin\r\n-rw-r--r-- 1 0 0 7 Jan 1 2026 b\xff.bin\r\n";
  const port = await dataPort((socket) => socket.on("error", () => socket.destroy()).end(Buffer.from(lines, "latin1")));
  const { device, lines: asked } = await scripted((line) => {
    if (line === "FEAT") return "211-Features:\r\n SIZE\r\n MDTM\r\n211 End";
    if (line === "EPSV") return `229 ok (|||${port}|)`;
    if (line.startsWith("MDTM")) return "213 20260501000000";
    return line.startsWith("LIST") ? "150 now\r\n226 done" : undefined;
  });
  const found: [string, number | undefined][] = [];
  for await (const { path, modifiedMs } of device.source!.list(calm(), { times: true })) found.push([path, modifiedMs]);
  assert.deepEqual(found, [
    ["a.bin", Date.UTC(2026, 4, 1)],
    ["b\u201bFF.bin", undefined],
  ]);
  assert.equal(asked.filter((line) => line.startsWith("MDTM")).length, 1);
});

test("a line that is reset behind the server's port ends what was to be moved over it, and nothing else", async () => {
  const { device } = await scripted((line, socket) => {
    if (line !== "EPSV") return undefined;
    socket.write("229 ok (|||9|)\r\n");
    socket.resetAndDestroy();
    return "";
  });
  // What is rejected, and nobody waits for, would end the whole program.
  await expectFault(all(device.source!), "transient");
});

test("what a server leaves out of a long listing is told, with what to change", async () => {
  const port = await dataPort((socket) => socket.on("error", () => socket.destroy()).end("-rw-r--r-- 1 0 0 7 Jan 1 2026 a.bin\r\n"));
  const { device } = await scripted((line) => {
    if (line === "EPSV") return `229 ok (|||${port}|)`;
    return line.startsWith("LIST") ? "150 now\r\n226-Options: -a\r\n226 Output truncated to 10000 matches" : undefined;
  });
  const [rest, file, ...more] = await all(device.source!);
  assert.deepEqual([rest?.path, file?.path, more], [".", "a.bin", []]);
  assert.match(rest?.reason ?? "", /left out the rest.* truncated to 10000 matches".* -L/s);
});

test("looks at one directory share a listing that begins after them, and do not end with who asked first", async () => {
  let text = "-rw-r--r-- 1 0 0 7 Jan 1 2026 a.bin\r\n";
  const open: Socket[] = [];
  const port = await dataPort((socket) => open.push(socket.on("error", () => socket.destroy())));
  let onList = (): void => undefined;
  const { device, lines } = await scripted(
    (line, control) => {
      if (line === "EPSV") return `229 ok (|||${port}|)`;
      if (!line.startsWith("LIST")) return undefined;
      const shown = text;
      onList();
      void until("the data connection", () => open.length > 0).then(() => {
        open.shift()?.end(shown);
        control.write("226 done\r\n");
      });
      return "150 now";
    },
    { concurrency: 1 },
  );
  const listed = () => lines.filter((line) => line.startsWith("LIST")).length;
  const look = async (name: string, signal = calm()) => (await device.tree!.stat(name, signal))?.size;
  let later: Promise<unknown> = Promise.resolve();
  onList = () => {
    onList = () => undefined;
    text = "-rw-r--r-- 1 0 0 9 Jan 1 2026 b.bin\r\n";
    later = Promise.all(["b.bin", "b.bin", "a.bin"].map((name) => look(name)));
  };
  assert.equal(await look("a.bin"), 7);
  assert.deepEqual(await later, [9, 9, undefined]);
  assert.equal(listed(), 2);
  const who = new AbortController();
  onList = () => {
    onList = () => who.abort();
    later = Promise.all([assert.rejects(look("b.bin", who.signal)), look("b.bin"), look("b.bin")]);
  };
  assert.equal(await look("b.bin"), 9);
  assert.deepEqual(await later, [undefined, 9, 9]);
});

for (const pauseMs of [0, 1500])
  test(`a server that takes no more bytes is given up${pauseMs > 0 ? ", also where the source paused before for as long as the server may be silent" : ""}`, async (t) => {
    // The system takes what it can, and nobody reads it: as behind a link that has gone.
    const port = await dataPort((socket) => {
      socket.on("error", () => socket.destroy());
      socket.pause();
      t.after(() => socket.destroy());
    });
    const { device } = await scripted(
      (line) => (line === "EPSV" ? `229 ok (|||${port}|)` : line.startsWith("STOR ") ? "150 go on" : undefined),
      {
        timeout: "1s",
      },
    );
    const content = bytes(40_000_000);
    const read = (): Readable =>
      Readable.from(
        (async function* () {
          yield content.subarray(0, 100_000);
          await delay(pauseMs);
          for (let at = 100_000; at < content.length; at += 500_000) yield content.subarray(at, at + 500_000);
        })(),
        { objectMode: true, highWaterMark: 1 },
      );
    await expectFault(
      (device.target ?? assert.fail()).write(upload("a.bin", content, { read }), 0, calm(), () => undefined),
      ["transient", "offline"],
      15_000,
    );
  });

test("a login that the server ended while nobody used it is none of those that it lets us have", async () => {
  const sockets = new Set<Socket>();
  let refused = 0;
  const { device } = await scripted((line, socket) => {
    if (line.startsWith("SIZE")) return "550 no";
    if (line !== "") return undefined;
    sockets.add(socket.on("close", () => sockets.delete(socket)));
    if (sockets.size === 1) return undefined;
    refused += 1;
    return "421 too many connections";
  });
  const open = (path: string) => expectFault(device.source!.open({ path, kind: "file", size: 1 }, 0, calm()), "missing", 20_000);
  await Promise.all([open("a.bin"), open("b.bin")]);
  assert.equal(refused, 1);
  const ended = [...sockets].map((socket) => (socket.end(), once(socket, "close")));
  await Promise.all(ended);
  await open("c.bin");
});
