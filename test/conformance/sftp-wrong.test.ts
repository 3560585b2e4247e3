/** What is wrong between a device and an SSH server, as a person reads it: host keys, keys, agents, methods; and that it heals. */
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { promises as fs } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test, type TestContext } from "node:test";
import { calm, expectFault, until } from "./clause.js";
import { freePort } from "./ftp-servers.js";
import { sftpDevice } from "./sftp-harness.js";
import { chrooted, fingerprintOf, makeKey, openssh, startSshd, type SftpServerUnderTest } from "./sftp-servers.js";
import { bytes, upload } from "./upload.js";

const skip = openssh.skip ?? false;
let shared: Promise<SftpServerUnderTest> | undefined;
const server = () => (shared ??= openssh.start());
after(async () => (await shared)?.stop());

async function scratch(t: TestContext): Promise<string> {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-ssh-"));
  t.after(() => fs.rm(dir, { recursive: true }));
  return dir;
}

/** Probes with these options in place of the right ones; the message of the fault, or undefined when it is well. */
async function probed(given: Readonly<Record<string, unknown>>, kinds: "denied" | "offline" | undefined): Promise<string> {
  const { port, seen, options } = await server();
  const device = sftpDevice(port, { root: seen, ...options, ...given });
  try {
    if (kinds !== undefined) return await expectFault(device.probe(calm()), kinds);
    await device.probe(calm());
    return "";
  } finally {
    await device.close();
  }
}

test("no host key is configured: denied, with the one that the server showed and what to do", { skip }, async () => {
  const { options } = await server();
  const message = await probed({ hostKey: undefined }, "denied");
  assert.ok(message.includes(`put "hostKey": "${String(options.hostKey)}"`), message);
  // What it says is what helps.
  const [, shown] = /"hostKey": "(SHA256:[^"]+)"/.exec(message) ?? [];
  await probed({ hostKey: shown }, undefined);
});

test("the host key changed: denied, with both fingerprints, and nothing of the login is sent", { skip }, async (t) => {
  const dir = await scratch(t);
  makeKey(join(dir, "other"));
  const other = fingerprintOf(join(dir, "other.pub"));
  const { options } = await server();
  const message = await probed({ hostKey: other }, "denied");
  assert.ok(message.includes(other) && message.includes(String(options.hostKey)), message);
});

test("of a server with several keys any may be the one that is configured", { skip }, async (t) => {
  const dir = await scratch(t);
  for (const type of ["ecdsa", "rsa"]) makeKey(join(dir, type), "", type);
  const { port, ...program } = await startSshd(dir, [
    `HostKey ${join(dir, "ecdsa")}`,
    `HostKey ${join(dir, "rsa")}`,
    "PasswordAuthentication no",
  ]);
  t.after(() => program.unplug());
  for (const type of ["ecdsa", "rsa"]) {
    const device = sftpDevice(port, { user: "nobody-here", password: "x", hostKey: fingerprintOf(join(dir, `${type}.pub`)) });
    // The key is believed: it is the user that is not let in.
    assert.match(await expectFault(device.probe(calm()), "denied"), /does not let the user "nobody-here" in/);
    await device.close();
  }
});

test("known hosts: plain, with a port, hashed, another key, revoked, none, no file", { skip }, async (t) => {
  const dir = await scratch(t);
  const { port, options } = await server();
  const line = execFileSync("ssh-keyscan", ["-t", "ed25519", "-p", `${port}`, "127.0.0.1"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const file = join(dir, "known_hosts");
  const given = { hostKey: undefined, knownHosts: file };
  await fs.writeFile(file, `# mine\n\n${line}`);
  await probed(given, undefined);
  execFileSync("ssh-keygen", ["-q", "-H", "-f", file], { stdio: "ignore" });
  assert.match(await fs.readFile(file, "utf8"), /\|1\|/);
  await probed(given, undefined);
  await fs.writeFile(file, line.replace("[127.0.0.1]", "[127.0.0.*]"));
  await probed(given, undefined);
  await fs.writeFile(file, `${line}@revoked * ${line.split(" ").slice(1).join(" ")}`);
  assert.match(await probed(given, "denied"), /is revoked in/);
  makeKey(join(dir, "other"));
  const other = await fs.readFile(join(dir, "other.pub"), "utf8");
  await fs.writeFile(file, `[127.0.0.1]:${port} ${other}`);
  const changed = await probed(given, "denied");
  assert.ok(changed.includes(fingerprintOf(join(dir, "other.pub"))) && changed.includes(String(options.hostKey)), changed);
  await fs.writeFile(file, `elsewhere ${other}`);
  assert.match(await probed(given, "denied"), /has no key of \[127\.0\.0\.1\]:\d+, and the server shows SHA256:/);
  assert.match(await probed({ ...given, knownHosts: join(dir, "none") }, "denied"), /cannot read "knownHosts"/);
});

test("a key with a passphrase: missing, wrong, right; a key that is none", { skip }, async (t) => {
  const dir = await scratch(t);
  const { options } = await server();
  const key = String(options.privateKey);
  assert.ok((await probed({ passphrase: undefined }, "denied")).includes(`the private key ${key} has a passphrase`));
  const wrong = await probed({ passphrase: "wrong-4715" }, "denied");
  assert.ok(wrong.includes(`does not open the private key ${key}`) && !wrong.includes("wrong-4715"), wrong);
  await probed({}, undefined);
  assert.match(await probed({ privateKey: `${key}.pub`, passphrase: undefined }, "denied"), /is a public key/);
  assert.match(
    await probed({ privateKey: join(dir, "none"), passphrase: undefined }, "denied"),
    /cannot read the private key .*none: there is no such file/,
  );
  await fs.writeFile(join(dir, "text"), "hello\n");
  execFileSync("ssh-keygen", ["-q", "-t", "rsa", "-m", "PKCS8", "-N", "", "-f", join(dir, "pkcs8")]);
  assert.match(
    await probed({ privateKey: join(dir, "pkcs8"), passphrase: undefined }, "denied"),
    /PKCS#8, which is not read: "ssh-keygen -p -f/,
  );
  assert.match(await probed({ privateKey: join(dir, "text"), passphrase: undefined }, "denied"), /text is no private key/);
  for (const [format, type] of [
    ["PEM", "rsa"],
    ["PEM", "ecdsa"],
  ] as const) {
    const file = join(dir, `${format}-${type}`);
    execFileSync("ssh-keygen", ["-q", "-t", type, "-m", format, "-N", "word 4716", "-f", file]);
    assert.match(await probed({ privateKey: file, passphrase: undefined }, "denied"), /has a passphrase/);
    assert.match(await probed({ privateKey: file, passphrase: "no" }, "denied"), /does not open/);
    // It opens; the server does not know it.
    assert.match(
      await probed({ privateKey: file, passphrase: "word 4716" }, "denied"),
      /does not let the user .* the server takes publickey/,
    );
  }
});

test("an agent: it lets in, goes away, and is tried again", { skip }, async (t) => {
  const dir = await scratch(t);
  const { options } = await server();
  const socket = join(dir, "agent");
  const start = async () => {
    const child = spawn("ssh-agent", ["-D", "-a", socket], { stdio: "ignore" });
    await until("the agent's socket", () =>
      fs.access(socket).then(
        () => true,
        () => false,
      ),
    );
    const key = join(dir, `key-${child.pid}`);
    await fs.copyFile(String(options.privateKey), key);
    await fs.chmod(key, 0o600);
    execFileSync("ssh-keygen", ["-q", "-p", "-P", String(options.passphrase), "-N", "", "-f", key]);
    execFileSync("ssh-add", ["-q", key], { env: { ...process.env, SSH_AUTH_SOCK: socket } });
    return async () => {
      const gone = once(child, "exit");
      child.kill();
      await gone;
      await fs.rm(socket, { force: true });
    };
  };
  const given = { privateKey: undefined, passphrase: undefined, agent: socket };
  const stop = await start();
  await probed(given, undefined);
  await stop();
  assert.ok((await probed(given, "offline")).includes(`the SSH agent at ${socket}`));
  const both = await probed({ ...given, password: String(options.passphrase) }, "offline");
  assert.match(both, /the SSH agent at \S+ does not help .*, and the server does not let the user "[^"]+" in with the password/);
  const again = await start();
  await probed(given, undefined);
  execFileSync("ssh-add", ["-q", "-D"], { env: { ...process.env, SSH_AUTH_SOCK: socket } });
  assert.match(await probed(given, "denied"), /does not let the user .* in with the agent \S+, which holds no key/);
  await again();
});

test(
  "an SFTP process that is killed at the server takes its connection along: nothing of it is left, and the next login does the rest",
  { skip },
  async (t) => {
    const own = await openssh.start();
    t.after(() => own.stop());
    // Without a shell beside it.
    const device = sftpDevice(own.port, { root: own.seen, verify: "readback", ...own.options });
    t.after(() => device.close());
    const below = (pid: number): number[] => {
      const { stdout } = spawnSync("pgrep", ["-P", `${pid}`], { encoding: "utf8" });
      return stdout.split("\n").filter(Boolean).map(Number);
    };
    const sshd = own.child().pid ?? assert.fail();
    await device.probe(calm());
    const [connection] = below(sshd);
    assert.ok(connection !== undefined);
    const inner = [connection];
    for (let at = below(connection); at.length > 0; at = at.flatMap(below)) inner.push(...at);
    process.kill(inner.at(-1) ?? assert.fail(), "SIGKILL");
    await until("its connection to end", () => Promise.resolve(!below(sshd).includes(connection)));
    await device.probe(calm());
  },
);

test("a user that may not run SFTP, and servers that are none", { skip }, async (t) => {
  const dir = await scratch(t);
  const { options } = await server();
  await fs.copyFile(`${String(options.privateKey)}.pub`, join(dir, "authorized"));
  const { port, hostKey, ...program } = await startSshd(dir, [`AuthorizedKeysFile ${join(dir, "authorized")}`]);
  t.after(() => program.unplug());
  const device = sftpDevice(port, { ...options, hostKey });
  assert.match(await expectFault(device.probe(calm()), "denied"), /gives this user no SFTP/);
  await device.close();
  const listener = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.end("220 an FTP server\r\n530 no\r\n");
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const ftp = sftpDevice((listener.address() as AddressInfo).port, { ...options, timeout: "1s" });
  assert.match(await expectFault(ftp.probe(calm()), ["denied", "offline"]), /SSH|before the login|does not answer/);
  await ftp.close();
  listener.close();
  const silent = createServer();
  silent.listen(0, "127.0.0.1");
  await once(silent, "listening");
  const silentPort = (silent.address() as AddressInfo).port;
  const mute = sftpDevice(silentPort, { ...options, timeout: "1s" });
  assert.equal(await expectFault(mute.probe(calm()), "offline"), `cannot log in to 127.0.0.1:${silentPort}: the server does not answer`);
  await mute.close();
  silent.close();
  const freed = await freePort();
  const nobody = sftpDevice(freed, options);
  assert.equal(
    await expectFault(nobody.probe(calm()), "offline"),
    `cannot log in to 127.0.0.1:${freed}: the server is not there (the connection is refused)`,
  );
  await nobody.close();
});

test("a password that is refused: what was tried and what the server takes", { skip: chrooted.skip ?? false }, async (t) => {
  const jail = await chrooted.start();
  t.after(() => jail.stop());
  const device = sftpDevice(jail.port, jail.wrong);
  const message = await expectFault(device.probe(calm()), "denied");
  assert.match(message, /in with the password or the password as an answer; the server takes .*password/);
  await device.close();
});

test("a link in place of a directory that leads nowhere (its disk is not mounted): named, and tried again", { skip }, async () => {
  const { port, dir, seen, options } = await server();
  const device = sftpDevice(port, { root: seen, ...options });
  await fs.symlink("/mnt/not mounted", join(dir, "disk"));
  const content = bytes(10_000, 1);
  const write = device.target?.write(upload("disk/a.bin", content), 0, calm(), () => undefined);
  assert.match(await expectFault(write ?? assert.fail(), "transient"), /\/disk is a link there that leads nowhere/);
  await device.close();
});

test('no command may be run: with "verify": "digest" that is told before a byte is sent', { skip: chrooted.skip ?? false }, async (t) => {
  const jail = await chrooted.start();
  t.after(() => jail.stop());
  const device = sftpDevice(jail.port, { root: jail.seen, ...jail.options, verify: "digest" });
  t.after(() => device.close());
  const it = upload("a.bin", bytes(100_000));
  const message = await expectFault(
    (device.target ?? assert.fail()).write(it, 0, calm(), () => undefined),
    "denied",
  );
  assert.match(message, /computes no SHA-256; set "verify"/);
  assert.equal(it.reading.given, 0);
});
