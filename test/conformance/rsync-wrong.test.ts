/** What is wrong between a device of the plugin "rsync" and its server, as a person reads it; and that a stop is heard. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test, type TestContext } from "node:test";
import type { FaultKind } from "../../core/errors.js";
import { calm, expectFault, handles, until } from "./clause.js";
import { freePort } from "./ftp-servers.js";
import { rsyncDevice } from "./rsync-harness.js";
import { rsyncOnly, rsyncShell, startRsync } from "./rsync-servers.js";
import { fingerprintOf, makeKey, type SftpServerUnderTest } from "./sftp-servers.js";
import { isReceipt } from "./target-under-test.js";
import { bytes, context, upload } from "./upload.js";

const skip = rsyncShell.skip ?? false;
let shared: Promise<SftpServerUnderTest> | undefined;
const server = () => (shared ??= rsyncShell.start());
after(async () => (await shared)?.stop());

async function scratch(t: TestContext): Promise<string> {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-rs-"));
  t.after(() => fs.rm(dir, { recursive: true }));
  return dir;
}

/** A device that is closed when its test ends, however. */
function opened(t: TestContext, port: number, given: Readonly<Record<string, unknown>>, stateDir: string) {
  const device = rsyncDevice(port, given, context({ stateDir }));
  t.after(() => device.close());
  return device;
}

/** A server of its own, where `run` beside its directory is what is run for each command. */
async function commanded(t: TestContext) {
  const it = await startRsync(
    (dir) => dir,
    (_dir, base) => `command="${base}/run" `,
  );
  t.after(() => it.stop());
  const base = join(it.dir, "..");
  const put = (name: string, lines: readonly string[]) => fs.writeFile(join(base, name), `${lines.join("\n")}\n`, { mode: 0o755 });
  const runs = async (script: readonly string[]): Promise<void> => {
    await put("run", script);
    await fs.chmod(base, 0o777);
  };
  /** `sync` there refuses a file as coreutils says it, once there is `failing`, and once; `before` it does. */
  const failsOnce = async (...before: readonly string[]): Promise<void> => {
    await fs.mkdir(join(base, "bin"));
    const refuses = `echo "sync: error syncing '$2': Input/output error" >&2; exit 1`;
    await put("bin/sync", ["#!/bin/sh", `mv "${base}/failing" "${base}/failed" 2>/dev/null || exit 0`, ...before, refuses]);
    await runs(["#!/bin/sh", `PATH="${base}/bin:$PATH"; export PATH; exec sh -c "$SSH_ORIGINAL_COMMAND"`]);
  };
  return { ...it, runs, failsOnce };
}

/** Probes with these options in place of the right ones; the message of the fault, or "" when it is well. */
async function probed(t: TestContext, given: Readonly<Record<string, unknown>>, kind: FaultKind | undefined, at?: SftpServerUnderTest) {
  const { port, seen, options } = at ?? (await server());
  const stateDir = await scratch(t);
  const device = rsyncDevice(port, { root: seen, ...options, ...given }, context({ stateDir }));
  try {
    if (kind !== undefined) return await expectFault(device.probe(calm()), kind);
    await device.probe(calm());
    return "";
  } finally {
    await device.close();
  }
}

test("no host key is configured: denied, with the one that the server showed and what to do", { skip }, async (t) => {
  const { options } = await server();
  const message = await probed(t, { hostKey: undefined }, "denied");
  assert.ok(message.includes(`put "hostKey": "${String(options.hostKey)}"`), message);
});

test("the host key changed: denied, with both fingerprints; also where another was believed before", { skip }, async (t) => {
  const dir = await scratch(t);
  makeKey(join(dir, "other"));
  const other = fingerprintOf(join(dir, "other.pub"));
  const { port, seen, options } = await server();
  const message = await probed(t, { hostKey: other }, "denied");
  assert.ok(message.includes(other) && message.includes(String(options.hostKey)), message);
  // The file of believed keys holds another key for it: what ssh then says is looked into.
  const stateDir = await scratch(t);
  await fs.writeFile(join(dir, "believed"), `[127.0.0.1]:${port} ${await fs.readFile(join(dir, "other.pub"), "utf8")}`);
  await fs.writeFile(join(stateDir, "known_hosts"), `filesync ${await fs.readFile(join(dir, "other.pub"), "utf8")}`);
  const given = { root: seen, ...options, hostKey: undefined, knownHosts: join(dir, "believed") };
  const device = opened(t, port, given, stateDir);
  const changed = await expectFault(device.probe(calm()), "denied");
  assert.ok(changed.includes(other) && changed.includes("another server, or a new key"), changed);
});

test("known hosts: believed, hashed, none", { skip }, async (t) => {
  const dir = await scratch(t);
  const { port } = await server();
  const args = ["-t", "ed25519", "-p", `${port}`, "127.0.0.1"];
  const line = execFileSync("ssh-keyscan", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  const file = join(dir, "known_hosts");
  const given = { hostKey: undefined, knownHosts: file };
  await fs.writeFile(file, line);
  await probed(t, given, undefined);
  execFileSync("ssh-keygen", ["-q", "-H", "-f", file], { stdio: "ignore" });
  await probed(t, given, undefined);
  await fs.writeFile(file, "");
  assert.match(await probed(t, given, "denied"), /has no key of \[127\.0\.0\.1\]:\d+, and the server shows SHA256:/);
  assert.match(await probed(t, { ...given, knownHosts: join(dir, "none") }, "denied"), /cannot read "knownHosts"/);
});

test("a server that lets in two strangers at a time, and has a key of one type: that type is found", { skip }, async (t) => {
  const few = await startRsync(undefined, undefined, undefined, ["MaxStartups 2:100:2"]);
  t.after(() => few.stop());
  await probed(t, {}, undefined, few);
});

test("keys: with a passphrase, public, unknown, none; for others to read", { skip }, async (t) => {
  const dir = await scratch(t);
  makeKey(join(dir, "locked"), "a phrase 4713");
  assert.match(await probed(t, { privateKey: join(dir, "locked") }, "denied"), /has a passphrase.*SSH agent.*"agent"/);
  assert.match(await probed(t, { privateKey: join(dir, "locked.pub") }, "denied"), /is a public key/);
  assert.match(await probed(t, { privateKey: join(dir, "none") }, "denied"), /cannot read the private key .*none: there is no such file/);
  const { wrong } = await server();
  assert.match(await probed(t, wrong, "denied"), /does not let the user ".*" in with the key/);
  await fs.writeFile(join(dir, "text"), "hello\n", { mode: 0o600 });
  assert.match(await probed(t, { privateKey: join(dir, "text") }, "denied"), /is no private key that ssh can use/);
  await fs.chmod(String(wrong.privateKey), 0o644);
  assert.match(await probed(t, wrong, "denied"), /chmod 600|UNPROTECTED|does not let/);
});

test("an agent: it lets in with a key that has a passphrase, and goes away", { skip }, async (t) => {
  const dir = await scratch(t);
  const { options } = await server();
  const socket = join(dir, "agent");
  const agent = spawn("ssh-agent", ["-D", "-a", socket], { stdio: "ignore" });
  await until("the agent's socket", () =>
    fs.access(socket).then(
      () => true,
      () => false,
    ),
  );
  execFileSync("ssh-add", ["-q", String(options.privateKey)], { env: { ...process.env, SSH_AUTH_SOCK: socket } });
  await probed(t, { privateKey: undefined, agent: socket }, undefined);
  const gone = once(agent, "exit");
  agent.kill();
  await gone;
  assert.ok((await probed(t, { privateKey: undefined, agent: socket }, "offline")).includes(`the SSH agent at ${socket}`));
});

test("nobody listens, an unknown name, a root that is a file", { skip }, async (t) => {
  const { options, dir, seen } = await server();
  const port = await freePort();
  const device = opened(t, port, { ...options, root: seen }, await scratch(t));
  assert.match(
    await expectFault(device.probe(calm()), "offline"),
    new RegExp(`the server is not there .*127\\.0\\.0\\.1 port ${port}: .*refused`),
  );
  await fs.writeFile(join(dir, "file"), "");
  await probed(t, { root: `${seen}/file` }, "config");
});

test("a password is refused when the configuration is read", () => {
  assert.throws(() => rsyncDevice(22, { user: "u", password: "x" }, context()), /use a key/);
});

test("rsync is not installed on the server, or here: config, with what to install", { skip }, async (t) => {
  const tools = ["sh", "ls", "ln", "mv", "rm", "mkdir", "touch", "sha256sum", "env", "ssh", "ssh-keyscan", "ssh-keygen", "cat"];
  const bare = await startRsync(
    (dir) => dir,
    (_dir, base) => `command="PATH=${base}/bin exec sh -c \\"$SSH_ORIGINAL_COMMAND\\"" `,
  );
  t.after(() => bare.stop());
  const bin = join(bare.dir, "..", "bin");
  await fs.mkdir(bin);
  for (const tool of tools)
    await fs.symlink(execFileSync("sh", ["-c", `command -v ${tool}`], { encoding: "utf8" }).trim(), join(bin, tool));
  assert.match(await probed(t, {}, "config", bare), /rsync is not installed on the server.*apt install rsync/);
  const { PATH } = process.env;
  process.env.PATH = bin;
  try {
    assert.match(await probed(t, {}, "config"), /not installed on this machine: apt install rsync openssh-client/);
  } finally {
    process.env.PATH = PATH;
  }
});

for (const [program, says] of [
  ["rsync", "rsync: on remote machine: $a: unknown option"],
  ["rrsync", "rrsync: invalid rsync-command syntax or options"],
] as const)
  test(`an ${program} there of before 3.2.3: what it does not know is left out`, { skip }, async (t) => {
    const older = await startRsync(undefined, (_dir, base) => `command="PATH=${base}/bin:$PATH exec sh -c \\"$SSH_ORIGINAL_COMMAND\\"" `);
    t.after(() => older.stop());
    const bin = join(older.dir, "..", "bin");
    await fs.mkdir(bin);
    const refuses = `for a; do case "$a" in --fsync | --mkpath) echo "${says}" >&2; exit 1 ;; esac; done`;
    const real = execFileSync("sh", ["-c", "command -v rsync"], { encoding: "utf8" }).trim();
    await fs.writeFile(join(bin, "rsync"), `#!/bin/sh\n${refuses}\nexec ${real} "$@"\n`, { mode: 0o755 });
    const local = await scratch(t);
    const device = opened(t, older.port, { root: `${older.seen}/new/logs`, ...older.options }, join(local, "state"));
    const target = device.target ?? assert.fail();
    const content = bytes(10_000, 1);
    const localPath = join(local, "source");
    await fs.writeFile(localPath, content);
    const it = { ...upload("a/b.bin", content), localPath };
    await target.write(it, 0, calm(), () => undefined);
    assert.ok(isReceipt(await target.commit(it, calm())));
    assert.deepEqual(await fs.readFile(join(older.dir, "new/logs/a/b.bin")), content);
  });

test("rrsync alone, and a root that is not there yet: it is made by the first upload", { skip: rsyncOnly.skip ?? false }, async (t) => {
  const alone = await rsyncOnly.start();
  t.after(() => alone.stop());
  const local = await scratch(t);
  const device = opened(t, alone.port, { ...alone.options, root: "new/logs" }, join(local, "state"));
  const target = device.target ?? assert.fail();
  await device.probe(calm());
  const content = bytes(10_000, 1);
  const localPath = join(local, "source");
  await fs.writeFile(localPath, content);
  const it = { ...upload("a/b.bin", content), localPath };
  assert.equal(await target.offset(it, calm()), 0);
  await target.write(it, 0, calm(), () => undefined);
  assert.ok(isReceipt(await target.commit(it, calm())));
  assert.deepEqual(await fs.readFile(join(alone.dir, "new/logs/a/b.bin")), content);
});

for (const kind of [rsyncShell, rsyncOnly])
  test(
    `${kind.name}: a stop in the middle is heard within 2 s, leaves no program, and what arrived counts`,
    { skip: kind.skip ?? false },
    async (t) => {
      const running = await kind.start();
      t.after(() => running.stop());
      const { port, options, dir, seen } = running;
      const stateDir = await scratch(t);
      const content = bytes(3_000_000);
      const localPath = join(stateDir, "source");
      await fs.writeFile(localPath, content);
      const device = opened(t, port, { root: seen, ...options }, join(stateDir, "state"));
      const target = device.target ?? assert.fail();
      const slow = { ...upload("stopped.bin", content), localPath, maxRate: 600_000 };
      assert.equal(await target.offset(slow, calm()), 0);
      const before = handles().ProcessWrap ?? 0;
      const stop = new AbortController();
      let told = 0;
      const writing = target.write(slow, 0, stop.signal, (n) => (told += n));
      await Promise.race([until("a part to be told", () => told > 300_000), writing]);
      stop.abort();
      await expectFault(writing, "aborted", 2000);
      // What is asked next waits until the run has ended.
      const held = await target.offset(slow, calm());
      await until("no program to be left", () => (handles().ProcessWrap ?? 0) <= before);
      assert.ok(held > 0 && held < content.length, `${held} bytes are there`);
      const { maxRate: _, ...fast } = slow;
      let rest = 0;
      await target.write(fast, held, calm(), (n) => (rest += n));
      assert.equal(rest, content.length - held);
      assert.ok(isReceipt(await target.commit(fast, calm())));
      assert.ok((await fs.readFile(join(dir, "stopped.bin"))).equals(content));
    },
  );

test(
  "a connection that goes away between the login and what it is for is no mistake of the configuration",
  { skip: rsyncOnly.skip ?? false },
  async (t) => {
    const alone = await rsyncOnly.start();
    t.after(() => alone.stop());
    const { port, options, dir, seen } = alone;
    const stateDir = await scratch(t);
    const content = bytes(100_000);
    const localPath = join(stateDir, "source");
    await fs.writeFile(localPath, content);
    const state = join(stateDir, "state");
    const device = opened(t, port, { root: seen, ...options }, state);
    const target = device.target ?? assert.fail();
    await device.probe(calm());
    // ssh with its socket; nobody here hears of its end before the next question is on its way.
    const [pid = ""] = execFileSync("pgrep", ["-f", `^ssh -F ${state}/.* -MN`], { encoding: "utf8" }).split("\n");
    const it = { ...upload("alone.bin", content), localPath };
    process.kill(Number(pid), "SIGKILL");
    await target.write(it, 0, calm(), () => undefined);
    assert.ok(isReceipt(await target.commit(it, calm())));
    assert.ok((await fs.readFile(join(dir, "alone.bin"))).equals(content));
  },
);

test(
  "the server lets in, and what runs there hangs: said in time, also while the shared connection holds the pipes of what ended",
  { skip },
  async (t) => {
    const hanging = await startRsync(
      (dir) => dir,
      (_dir, base) => `command="exec cat ${base}/hangs" `,
    );
    t.after(() => hanging.stop());
    const fifo = join(hanging.dir, "..", "hangs");
    execFileSync("mkfifo", ["-m", "666", fifo]);
    const said = await probed(t, { timeout: "1s" }, "transient", hanging);
    // Who reads from it ends.
    await (await fs.open(fifo, "r+")).close();
    assert.match(said, /cannot use the root: no byte moved for too long/);
  },
);

test("of many small files that go together one cannot be written: it alone is refused", { skip }, async (t) => {
  const { port, options, dir, seen } = await server();
  const local = await scratch(t);
  const device = opened(t, port, { root: seen, ...options }, join(local, "state"));
  const target = device.target ?? assert.fail();
  await fs.writeFile(join(dir, "a file"), "");
  const uploads = await Promise.all(
    Array.from({ length: 12 }, async (_, i) => {
      const content = bytes(10_000, i + 1);
      const localPath = join(local, `source ${i}`);
      await fs.writeFile(localPath, content);
      return { ...upload(i === 5 ? "a file/below.bin" : `together/${i}.bin`, content), localPath };
    }),
  );
  let told = 0;
  const write = (it: (typeof uploads)[number]) => target.write(it, 0, calm(), (n) => (told += n));
  // With the first on its way, the others gather.
  const ended = await Promise.allSettled(uploads.map(write));
  assert.deepEqual(
    ended.flatMap(({ status }, i) => (status === "rejected" ? [i] : [])),
    [5],
  );
  // All that went by: some of them twice, together and then alone.
  assert.ok(told >= 110_000 && told <= 230_000, `${told} bytes`);
  assert.match(await expectFault(write(uploads[5] ?? assert.fail()), ["rejected", "transient"]), /cannot write a file\/below\.bin/);
  for (const it of uploads.filter((_, i) => i !== 5)) assert.ok(isReceipt(await target.commit(it, calm())));
  assert.equal((await fs.readdir(join(dir, "together"))).length, 11);
  assert.ok((await fs.stat(join(dir, "a file"))).isFile(), "another's file made way for a directory");
});

test("a directory there that may not be written, and a link in place of one: named as that", { skip }, async (t) => {
  const { port, options, dir, seen } = await server();
  const local = await scratch(t);
  const device = opened(t, port, { root: seen, ...options }, join(local, "state"));
  const target = device.target ?? assert.fail();
  await fs.mkdir(join(dir, "locked"), { mode: 0o555 });
  await fs.symlink(local, join(dir, "leads"));
  const localPath = join(local, "source");
  const content = bytes(10_000, 1);
  await fs.writeFile(localPath, content);
  const write = (path: string) => target.write({ ...upload(path, content), localPath }, 0, calm(), () => undefined);
  assert.match(await expectFault(write("locked/a.bin"), "denied"), /its directory may not be written/);
  assert.match(await expectFault(write("leads/a.bin"), "rejected"), /a link is in the way there/);
  assert.deepEqual((await fs.readdir(local)).sort(), ["source", "state"]);
});

test(
  "of many small files that go together as many cannot be written: each is refused with its reason, by a few runs in all",
  { skip },
  async (t) => {
    const logged = await startRsync(
      (dir) => dir,
      (_dir, base) => `command="echo \\"$SSH_ORIGINAL_COMMAND\\" >>${base}/runs; exec sh -c \\"$SSH_ORIGINAL_COMMAND\\"" `,
    );
    t.after(() => logged.stop());
    const { port, options, dir, seen } = logged;
    const log = join(dir, "../runs");
    await fs.writeFile(log, "");
    await fs.chmod(log, 0o666);
    const local = await scratch(t);
    const target = opened(t, port, { root: seen, concurrency: 1, ...options }, join(local, "state")).target ?? assert.fail();
    for (const name of ["locked", "closed"]) await fs.mkdir(join(dir, name), { mode: 0o555 });
    const content = bytes(1000, 1);
    const localPath = join(local, "source");
    await fs.writeFile(localPath, content);
    const dirOf = ["open", "locked", "closed/below é", "a/locked"];
    const uploads = Array.from({ length: 100 }, (_, n) => ({ ...upload(`${dirOf[n % 4] ?? ""}/${n}.bin`, content), localPath }));
    const ended = await Promise.allSettled(uploads.map((it) => target.write(it, 0, calm(), () => undefined)));
    for (const [n, { path }] of uploads.entries()) {
      const end = ended[n];
      if (n % 4 === 0 || n % 4 === 3) assert.equal(end?.status, "fulfilled", path);
      else
        assert.match(
          end?.status === "rejected" ? String(end.reason) : "",
          new RegExp(`cannot write ${path}: .*(not be written|permission denied)`),
        );
    }
    for (const it of uploads.filter((_, n) => n % 4 === 0)) assert.ok(isReceipt(await target.commit(it, calm())));
    const runs = (await fs.readFile(log, "utf8")).split("\n").filter((line) => /^rsync --server/.test(line));
    assert.ok(runs.length >= 2 && runs.length <= 8, `${runs.length} runs:\n${runs.join("\n")}`);
  },
);

for (const together of [false, true])
  test(
    `what the rsync there could not sync is sent again, though it is there as it should be: asked for another sync its system says that all is well${together ? " (of several that go together)" : ""}`,
    { skip },
    async (t) => {
      const { port, options, dir, seen, runs } = await commanded(t);
      // Only once: what is sent again may be well.
      const script = [
        "#!/bin/sh",
        'sh -c "$SSH_ORIGINAL_COMMAND"; s=$?',
        `case $SSH_ORIGINAL_COMMAND in "rsync --server"*) if mv "${dir}/../failing" "${dir}/../failed" 2>/dev/null; then`,
        `echo "rsync: [receiver] fsync failed on \\"$(ls -d "${dir}"/.a.bin.*)\\": Input/output error (5)" >&2; s=11; fi;; esac`,
        "exit $s",
      ];
      await runs(script);
      const local = await scratch(t);
      const again = () => opened(t, port, { root: seen, concurrency: 1, ...options }, join(local, "state")).target ?? assert.fail();
      const target = again();
      const files = await Promise.all(
        (together ? ["a.bin", "b.bin", "c.bin"] : ["a.bin"]).map(async (name, i) => {
          const content = bytes(300_000, i + 1);
          const localPath = join(local, name);
          await fs.writeFile(localPath, content);
          return { ...upload(name, content), localPath };
        }),
      );
      const [first = assert.fail()] = files;
      await target.offset(first, calm());
      await fs.writeFile(join(dir, "../failing"), "");
      const ended = await Promise.allSettled(files.map((it) => target.write(it, 0, calm(), () => undefined)));
      assert.deepEqual(
        ended.map(({ status }) => status),
        files.map((it) => (it === first ? "rejected" : "fulfilled")),
      );
      const { ino } = await fs.stat(join(dir, first.partialPath));
      // Nothing else gets its number.
      await fs.link(join(dir, first.partialPath), join(dir, "../held"));
      const later = together ? target : again();
      await expectFault(later.commit(first, calm()), "conflict");
      assert.equal(await later.offset(first, calm()), 0);
      await later.write(first, 0, calm(), () => undefined);
      // In place rsync writes nothing where the right bytes are.
      assert.notEqual((await fs.stat(join(dir, first.partialPath))).ino, ino);
      for (const it of files) assert.ok(isReceipt(await later.commit(it, calm())));
      assert.deepEqual(
        (await fs.readdir(dir)).sort(),
        files.map(({ path }) => path),
      );
    },
  );

for (const how of ["grows", "is written over"])
  test(
    `rrsync alone: a file that ${how} here, where it lies, while it gets its name there is not what the receipt would say`,
    { skip: rsyncOnly.skip ?? false },
    async (t) => {
      const local = await scratch(t);
      const localPath = join(local, "source");
      const content = bytes(300_000, 1);
      await fs.writeFile(localPath, content);
      const busy = await startRsync(
        () => ".",
        (dir, base) => `command="${base}/run ${dir}",restrict `,
      );
      t.after(() => busy.stop());
      const { port, options, dir, seen } = busy;
      const later = how === "grows" ? bytes(310_000, 1) : bytes(300_000, 2);
      await fs.writeFile(join(local, "later"), later);
      const script = [
        "#!/bin/sh",
        `case $SSH_ORIGINAL_COMMAND in *--ignore-existing*) : >"${dir}/../naming"; while [ -e "${dir}/../naming" ]; do sleep 0.05; done;; esac`,
        'exec rrsync "$1"',
      ];
      await fs.writeFile(join(dir, "../run"), `${script.join("\n")}\n`, { mode: 0o755 });
      await fs.chmod(join(dir, ".."), 0o777);
      const target = opened(t, port, { root: seen, ...options }, join(local, "state")).target ?? assert.fail();
      const it = { ...upload("a.bin", content), localPath };
      await target.write(it, 0, calm(), () => undefined);
      const done = target.commit(it, calm()).then(
        (receipt) => (isReceipt(receipt) ? "a receipt" : "an occupant"),
        (error: unknown) => String(error),
      );
      const naming = join(dir, "../naming");
      await until("the name to be given", () =>
        fs.stat(naming).then(
          () => true,
          () => false,
        ),
      );
      await fs.writeFile(localPath, later);
      await fs.rm(naming);
      assert.match(await done, /changed/);
      // What was sent is still there.
      assert.ok((await fs.readFile(join(dir, it.partialPath))).equals(content));
    },
  );

test("what is found whole, and cannot be synced there before it gets its name, is sent again", { skip }, async (t) => {
  const { port, options, dir, seen, failsOnce } = await commanded(t);
  const base = join(dir, "..");
  await failsOnce();
  const local = await scratch(t);
  const again = () => opened(t, port, { root: seen, ...options }, join(local, "state")).target ?? assert.fail();
  const content = bytes(300_000, 1);
  const localPath = join(local, "a.bin");
  await fs.writeFile(localPath, content);
  const it = { ...upload("a.bin", content), localPath };
  await again().write(it, 0, calm(), () => undefined);
  await fs.writeFile(join(base, "failing"), "");
  const later = again();
  assert.match(await expectFault(later.commit(it, calm()), "transient"), /Input\/output error/);
  await expectFault(later.commit(it, calm()), "conflict");
  assert.equal(await later.offset(it, calm()), 0);
  await later.write(it, 0, calm(), () => undefined);
  assert.ok(isReceipt(await later.commit(it, calm())));
  assert.deepEqual(await fs.readdir(dir), ["a.bin"]);
});

for (const words of ["Invalid argument (22)", "Operation not supported (95)", "Function not implemented (38)"])
  test(
    `a file system there that syncs no files (${words}) gets them: nothing is sent a second time, and it is not asked again`,
    { skip },
    async (t) => {
      const { port, options, dir, seen, runs } = await commanded(t);
      const script = [
        "#!/bin/sh",
        'sh -c "$SSH_ORIGINAL_COMMAND"; s=$?',
        `case $SSH_ORIGINAL_COMMAND in "rsync --server"*--fsync*)`,
        `echo "rsync: [receiver] fsync failed on \\"${dir}/.a.bin\\": ${words}" >&2; s=11;; esac`,
        "exit $s",
      ];
      await runs(script);
      const local = await scratch(t);
      const target = opened(t, port, { root: seen, ...options }, join(local, "state")).target ?? assert.fail();
      for (const [i, name] of ["a.bin", "b.bin"].entries()) {
        const content = bytes(300_000, i + 1);
        const localPath = join(local, name);
        await fs.writeFile(localPath, content);
        const it = { ...upload(name, content), localPath };
        const write = target.write(it, 0, calm(), () => undefined);
        if (i === 0) await expectFault(write, "transient");
        else await write;
        assert.equal(await target.offset(it, calm()), content.length);
        assert.ok(isReceipt(await target.commit(it, calm())));
      }
    },
  );

test(
  "what the rsync there could not sync is sent again, also where it was stopped meanwhile, and its run went on with the others",
  { skip },
  async (t) => {
    const { port, options, dir, seen, runs } = await commanded(t);
    const script = [
      "#!/bin/sh",
      'sh -c "$SSH_ORIGINAL_COMMAND"; s=$?',
      `case $SSH_ORIGINAL_COMMAND in "rsync --server"*) if mv "${dir}/../failing" "${dir}/../failed" 2>/dev/null; then`,
      `while [ -e "${dir}/../failed" ]; do sleep 0.05; done`,
      `echo "rsync: [receiver] fsync failed on \\"$(ls -d "${dir}"/.a.bin.*)\\": Input/output error (5)" >&2; s=11; fi;; esac`,
      "exit $s",
    ];
    await runs(script);
    const local = await scratch(t);
    const target = opened(t, port, { root: seen, concurrency: 1, ...options }, join(local, "state")).target ?? assert.fail();
    const files = await Promise.all(
      ["a.bin", "b.bin"].map(async (name, i) => {
        const content = bytes(300_000, i + 1);
        const localPath = join(local, name);
        await fs.writeFile(localPath, content);
        return { ...upload(name, content), localPath };
      }),
    );
    const [first = assert.fail(), other = assert.fail()] = files;
    await target.offset(first, calm());
    await fs.writeFile(join(dir, "../failing"), "");
    const stop = new AbortController();
    const stopped = target.write(first, 0, stop.signal, () => undefined);
    const written = target.write(other, 0, calm(), () => undefined);
    await until("the run to have ended there", () =>
      fs.stat(join(dir, "../failed")).then(
        () => true,
        () => false,
      ),
    );
    stop.abort();
    await expectFault(stopped, "aborted");
    await fs.rm(join(dir, "../failed"));
    await written;
    await expectFault(target.commit(first, calm()), "conflict");
    assert.equal(await target.offset(first, calm()), 0);
    await target.write(first, 0, calm(), () => undefined);
    for (const it of files) assert.ok(isReceipt(await target.commit(it, calm())));
  },
);

test("what the sync there says of it is heard, also where it was stopped meanwhile", { skip }, async (t) => {
  const { port, options, dir, seen, failsOnce } = await commanded(t);
  const base = join(dir, "..");
  await failsOnce(`while [ -e "${base}/failed" ]; do sleep 0.05; done`);
  const local = await scratch(t);
  const again = () => opened(t, port, { root: seen, ...options }, join(local, "state")).target ?? assert.fail();
  const content = bytes(300_000, 1);
  const localPath = join(local, "a.bin");
  await fs.writeFile(localPath, content);
  const it = { ...upload("a.bin", content), localPath };
  await again().write(it, 0, calm(), () => undefined);
  await fs.writeFile(join(base, "failing"), "");
  const later = again();
  const stop = new AbortController();
  const stopped = later.commit(it, stop.signal);
  await until("the sync to begin", () =>
    fs.stat(join(base, "failed")).then(
      () => true,
      () => false,
    ),
  );
  stop.abort();
  await expectFault(stopped, "aborted");
  const next = later.commit(it, calm());
  await fs.rm(join(base, "failed"));
  await expectFault(next, "conflict");
  assert.equal(await later.offset(it, calm()), 0);
});
