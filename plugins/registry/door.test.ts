/** The door, by the real sshd, ssh and rsync: what goes in, and what must not. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, test, type TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import ssh2, { type AuthenticationType } from "ssh2";
import { begin, canBeAnother, DoorAtWork, doorIn, run, until, whyNoDoor } from "../../test/doubles/door-at-work.js";

const skip = whyNoDoor();
const noOther = skip ?? (canBeAnother ? undefined : "an account of its own needs root, and mounts");
const with_ = (why: string | undefined) => (why === undefined ? {} : { skip: why });

async function doorOf(t: TestContext, how: ConstructorParameters<typeof DoorAtWork>[0] = {}): Promise<DoorAtWork> {
  const door = doorIn(t, how);
  await door.start();
  return door;
}

const digest = (file: string) => createHash("sha256").update(readFileSync(file)).digest("hex");

function makeFile(door: DoorAtWork, name: string, bytes: number): string {
  return door.writeFile(name, randomBytes(bytes / 2).toString("hex"));
}

/** All that is below, with content, rights and times. */
function picture(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: "utf8" })
    .sort()
    .map((name) => {
      const stat = statSync(join(dir, name), { throwIfNoEntry: false });
      const content = stat?.isFile() === true ? digest(join(dir, name)) : "";
      return `${name} ${stat?.mode ?? 0} ${stat?.mtimeMs ?? 0} ${stat?.uid ?? 0} ${stat?.nlink ?? 0} ${content}`;
    });
}

test("a file goes in, goes on where it was cut, and each session finds the slot that is open then", with_(skip), async (t) => {
  const door = await doorOf(t);
  await door.admit("plane-1", "plane-2");
  const file = makeFile(door, "log.part", 24 * 2 ** 20);
  // rrsync of rsync 3.5 takes no file that is there already as the destination, only its directory.
  const words = ["--inplace", "--append-verify", file, `${door.host}:`];

  const cut = begin(door.rsync("plane-1", "--bwlimit=6000", ...words));
  const partial = door.slot("plane-1", "log.part");
  await until("some of it to be there", () => existsSync(partial) && statSync(partial).size > 2 ** 20);
  assert.equal(await door.ask("isBusy", "plane-1"), true);
  assert.deepEqual([await door.ask("holds", "plane-1", partial), await door.ask("holds", "plane-1", file)], [true, false]);
  assert.equal(await door.ask("holds", "plane-2", partial), false);
  assert.equal(await door.ask("isBusy", "plane-2"), false);
  cut.child.kill("SIGKILL");
  await cut.ended;
  await until("nobody to be busy", async () => (await door.ask("isBusy", "plane-1")) === false);
  assert.equal(await door.ask("holds", "plane-1", partial), false);
  const had = statSync(partial).size;
  assert.ok(had > 2 ** 20 && had < 24 * 2 ** 20, `${had}`);

  const rest = await run(door.rsync("plane-1", "--stats", ...words));
  assert.equal(rest.code, 0, rest.err);
  const sent = Number(/Literal data: ([\d,]+)/.exec(rest.out)?.[1]?.replaceAll(",", ""));
  assert.ok(sent <= 24 * 2 ** 20 - had, `${sent} bytes were sent again, ${had} were there`);
  assert.equal(digest(partial), digest(file));

  await door.ask("open", "plane-1", door.makeDir("second"));
  assert.equal((await run(door.rsync("plane-1", file, `${door.host}:new`))).code, 0);
  assert.deepEqual(readdirSync(join(door.base, "second")), ["new"]);
  assert.equal((await run(door.rsync("plane-2", file, `${door.host}:own`))).code, 0);
  assert.deepEqual(readdirSync(door.slot("plane-2")), ["own"]);
  assert.deepEqual(readdirSync(door.slot("plane-1")), ["log.part"]);

  // An operator moved it away: no vehicle is told of files that it has not.
  renameSync(join(door.base, "second"), join(door.base, "moved"));
  assert.match((await run(door.rsync("plane-1", file, `${door.host}:more`))).err, /^filesync: the slot has gone; ask for one$/m);

  await door.ask("shut", "plane-1");
  const refused = await run(door.rsync("plane-1", file, `${door.host}:more`));
  assert.match(refused.err, /^filesync: no slot is open; ask for one$/m);
  assert.equal((await run([...door.ssh("plane-1", door.host), "rsync --server . ."])).code, 77);
  assert.equal((await run(door.rsync("plane-2", file, `${door.host}:still`))).code, 0);
});

test("what sshd makes of its configuration", with_(skip), async (t) => {
  const door = await doorOf(t, canBeAnother ? { below: "/var/lib" } : {});
  const { out, err } = await run(["/usr/sbin/sshd", "-T", "-f", join(door.dir, "sshd_config")]);
  const told = new Map<string, string[]>();
  for (const line of out.trim().split("\n")) {
    const [name = "", ...rest] = line.split(" ");
    told.set(name, [...(told.get(name) ?? []), rest.join(" ")]);
  }
  const isRoot = door.user === "root";
  const wanted: Readonly<Record<string, string>> = {
    pubkeyauthentication: "yes",
    authenticationmethods: "publickey",
    passwordauthentication: "no",
    permitemptypasswords: "no",
    kbdinteractiveauthentication: "no",
    hostbasedauthentication: "no",
    gssapiauthentication: "no",
    usepam: "no",
    permitrootlogin: isRoot ? "forced-commands-only" : "no",
    allowusers: door.user,
    authorizedkeysfile: join(door.dir, "authorized_keys"),
    authorizedkeyscommand: "none",
    authorizedprincipalsfile: "none",
    authorizedprincipalscommand: "none",
    trustedusercakeys: "none",
    disableforwarding: "yes",
    allowtcpforwarding: "no",
    allowstreamlocalforwarding: "no",
    allowagentforwarding: "no",
    x11forwarding: "no",
    permittunnel: "no",
    gatewayports: "no",
    permittty: "no",
    permituserenvironment: "no",
    permituserrc: "no",
    chrootdirectory: "none",
    forcecommand: "none",
    maxauthtries: "3",
    maxsessions: "1",
    logingracetime: "20",
    clientaliveinterval: "15",
    clientalivecountmax: "4",
    usedns: "no",
    printmotd: "no",
    printlastlog: "no",
    banner: "none",
    versionaddendum: "none",
    exposeauthinfo: "no",
    pidfile: "none",
    compression: "no",
    pubkeyacceptedalgorithms: "ssh-ed25519",
    hostkeyalgorithms: "ssh-ed25519",
    strictmodes: canBeAnother ? "yes" : (told.get("strictmodes")?.[0] ?? ""),
  };
  for (const [name, value] of Object.entries(wanted)) assert.deepEqual(told.get(name), [value], `${name} ${err}`);
  for (const name of ["subsystem", "acceptenv", "setenv"]) assert.equal(told.get(name), undefined, name);
  for (const name of ["ciphers", "macs", "kexalgorithms"])
    assert.doesNotMatch(told.get(name)?.join(",") ?? "", /cbc|sha1|md5|umac|group1|group14|nistp|3des|rc4/, name);
  assert.deepEqual(
    [".", "authorized_keys", "host_key", "open"].map((it) => (statSync(join(door.dir, it)).mode & 0o777).toString(8)),
    ["700", "600", "600", "700"],
  );
});

/** A door with two vehicles, and what they must not touch or see: files that its own account could write and read. */
class Besieged {
  readonly secret = `secret-${randomBytes(8).toString("hex")}`;
  readonly outside: string;
  #before: string[] = [];

  constructor(readonly door: DoorAtWork) {
    this.outside = door.makeDir("outside");
    door.writeFile("outside/secret", `${this.secret}\n`);
    writeFileSync(door.slot("plane-2", "theirs"), `${this.secret}\n`);
    this.#before = this.#picture();
  }

  #picture(): string[] {
    return ["outside", "home", "slots-plane-2", "state"]
      .map((it) => join(this.door.base, it))
      .flatMap((it) => (existsSync(it) ? picture(it) : []));
  }

  /** Nothing outside has changed, nothing of it was told, and nothing in the slot leads to it. */
  expectUnharmed(what: string, text: string): void {
    assert.ok(!text.includes(this.secret), `${what} told the secret: ${text}`);
    assert.deepEqual(this.#picture(), this.#before, what);
    for (const name of readdirSync(this.door.slot("plane-1"), { recursive: true, encoding: "utf8" })) {
      const stat = statSync(this.door.slot("plane-1", name), { throwIfNoEntry: false });
      if (stat?.isFile() === true)
        assert.ok(!readFileSync(this.door.slot("plane-1", name), "latin1").includes(this.secret), `${what}: ${name}`);
    }
  }

  /** Fails, and does no harm. */
  async fails(what: string, argv: readonly string[], input: string | Buffer = ""): Promise<string> {
    const { code, text } = await this.tries(what, argv, input);
    assert.notEqual(code, 0, `${what}: ${text}`);
    return text;
  }

  /** Does no harm, whatever comes of it. */
  async tries(what: string, argv: readonly string[], input: string | Buffer = ""): Promise<{ code: number | null; text: string }> {
    const before = this.#logins();
    const { code, out, err } = await run(argv, input);
    this.expectUnharmed(what, out + err);
    // An attack that never came in proves nothing.
    if (argv.some((it) => it.includes("plane-1.key ") || it.endsWith("plane-1.key"))) {
      const isOther =
        argv.some((it) => /@127\.0\.0\.1$/.test(it) && it !== this.door.host) || argv.some((it) => it.startsWith("PreferredAuth"));
      if (!isOther) await until(`${what} to log in`, () => this.#logins() > before);
    }
    return { code, text: out + err };
  }

  #logins(): number {
    return this.door.said.filter(({ message }) => message.startsWith("plane-1 logged in")).length;
  }
}

let shared: DoorAtWork;
before(async () => {
  if (skip !== undefined) return;
  shared = new DoorAtWork();
  await shared.start();
  await shared.admit("plane-1", "plane-2");
});
after(async () => {
  if (skip === undefined) assert.deepEqual(await shared.end(), []);
});

test("no shell, no terminal, no forwarding, no other use of ssh", with_(skip), async () => {
  const door = shared;
  const siege = new Besieged(door);
  const { host } = door;
  const ssh = (...words: string[]) => door.ssh("plane-1", ...words);
  for (const command of ["id", "", "cat /etc/passwd", "sh", "rsync", "rsync --server --daemon .", `cat ${siege.outside}/secret`])
    await siege.fails(`ssh ${command}`, [...ssh(host), command]);
  await siege.fails("no command", ssh(host));
  assert.match(await siege.fails("a terminal", [...ssh("-tt", host), "id"]), /PTY allocation request failed|pty/i);
  const { base } = door;
  const scp = [
    "-F",
    "none",
    "-i",
    join(base, "plane-1.key"),
    "-P",
    String(door.port),
    "-o",
    `UserKnownHostsFile=${join(base, "known_hosts")}`,
  ];
  await siege.fails("sftp", ["sftp", "-b", "-", ...scp, host], "ls\n");
  await siege.fails("scp", ["scp", ...scp, `${host}:${siege.outside}/secret`, join(base, "got")]);
  await siege.fails("old scp", ["scp", "-O", ...scp, join(base, "plane-1.key.pub"), `${host}:${siege.outside}/put`]);
  assert.ok(!existsSync(join(base, "got")));

  // A listener here would answer for the far end's.
  const held = begin(ssh("-N", "-o", "ExitOnForwardFailure=no", "-L", `${base}/forward:${base}/nowhere`, "-D", `${base}/socks`, host));
  await until("a login", () => existsSync(`${base}/forward`));
  const closed = await new Promise<string>((resolve) => {
    let got = "";
    const socket = connect(`${base}/forward`, () => socket.write("hello"));
    socket
      .on("data", (data) => (got += data.toString("latin1")))
      .on("error", () => undefined)
      .on("close", () => resolve(got));
  });
  assert.equal(closed, "");
  held.child.kill();
  assert.match((await held.ended).err, /administratively prohibited|open failed/);
  const back = ["-N", "-o", "ExitOnForwardFailure=yes"];
  assert.match(
    await siege.fails("a port of the door's machine", ssh(...back, "-R", "0:127.0.0.1:9", host)),
    /remote port forwarding failed/,
  );
  assert.match(await siege.fails("a socket there", ssh(...back, "-R", `${siege.outside}/socket:127.0.0.1:9`, host)), /forwarding failed/);

  // With all that may be sent along, a session is what it is without.
  const extra = [
    "-A",
    "-X",
    "-o",
    "SetEnv=FILESYNC_VEHICLE=plane-2 RSYNC_PARTIAL_DIR=/tmp BASH_ENV=/tmp/x LD_PRELOAD=/tmp/x.so",
    "-o",
    "SendEnv=*",
  ];
  const agent = begin(["ssh-agent", "-D", "-a", `${base}/agent`]);
  await until("the agent", () => existsSync(`${base}/agent`));
  const here = ["env", "DISPLAY=127.0.0.1:99"];
  const { child, ended } = begin([
    ...here,
    ...ssh(...extra, "-Y", "-o", `IdentityAgent=${base}/agent`, host),
    "rsync --server -e.LsfxCIvu . .",
  ]);
  await until("the session", async () => (await door.ask("isBusy", "plane-1")) === true);
  assert.equal(await door.ask("isBusy", "plane-2"), false);
  const marks = readdirSync("/proc")
    .filter((it) => /^\d+$/.test(it))
    .flatMap((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/environ`, "latin1").split("\0");
        return words.includes(`FILESYNC_DOOR=${door.dir}`) ? words : [];
      } catch {
        return [];
      }
    });
  assert.ok(marks.includes("FILESYNC_VEHICLE=plane-1"));
  for (const mark of marks) assert.doesNotMatch(mark, /plane-2|^(RSYNC_PARTIAL_DIR|BASH_ENV|LD_PRELOAD|SSH_AUTH_SOCK|DISPLAY|LC_ALL)=/);
  child.kill();
  agent.child.kill();
  await Promise.all([ended, agent.ended]);
});

test("nobody else comes in", with_(skip), async () => {
  const door = shared;
  const siege = new Besieged(door);
  const { host } = door;
  for (const type of ["rsa", "ecdsa"]) {
    door.key(type, type);
    assert.match(await siege.fails(type, [...door.ssh(type, host), "true"]), /Permission denied \(publickey\)/);
  }
  door.key("stranger");
  assert.match(await siege.fails("a key of nobody", [...door.ssh("stranger", host), "true"]), /Permission denied \(publickey\)/);
  await until("the door to say so", () =>
    door.said.some(({ level, message }) => level === "warn" && /no vehicle is registered with .*SHA256:/.test(message)),
  );
  const ways = "PreferredAuthentications=password,keyboard-interactive,hostbased,gssapi-with-mic";
  await siege.fails("other ways", [...door.ssh("plane-1", "-o", ways, host), "true"]);
  for (const user of ["root", "daemon", "nobody", "no-such-user", `${door.user}x`].filter((it) => it !== door.user))
    assert.match(await siege.fails(user, [...door.ssh("plane-1", `${user}@127.0.0.1`), "true"]), /Permission denied/, user);
  // A certificate of an authority of one's own.
  const ca = door.key("authority").length > 0 ? join(door.base, "authority.key") : "";
  door.key("signed");
  await run(["ssh-keygen", "-q", "-s", ca, "-I", "plane-1", "-n", door.user, join(door.base, "signed.key.pub")]);
  await siege.fails("a certificate", [
    ...door.ssh("signed", "-o", `CertificateFile=${join(door.base, "signed.key-cert.pub")}`, host),
    "true",
  ]);
});

test("rsync writes in the slot, and does nothing else", with_(skip), async (t) => {
  const door = shared;
  const { host, base } = door;
  const slot = door.slot("plane-1");
  writeFileSync(join(slot, "kept"), "kept\n");
  const siege = new Besieged(door);
  const { outside } = siege;
  mkdirSync(join(base, "mine"));
  writeFileSync(join(base, "mine", "file"), "from a vehicle\n");
  const mine = join(base, "mine", "file");
  const rsync = (...words: string[]) => door.rsync("plane-1", ...words);

  await siege.fails("reading", rsync("-r", `${host}:.`, join(base, "read")));
  await siege.fails("reading outside", rsync(`${host}:${outside}/secret`, join(base, "read")));
  for (const option of [
    "--delete",
    "--delete-before",
    "--delete-after",
    "--delete-excluded",
    "--delete-missing-args",
    "--remove-source-files",
  ]) {
    // The last acts at the sender, which the door never is.
    if (option === "--remove-source-files") await siege.fails(option, rsync("-r", option, `${host}:.`, join(base, "read")));
    else await siege.fails(option, rsync("-r", option, `${base}/mine/`, `${host}:.`));
    assert.equal(readFileSync(join(slot, "kept"), "utf8"), "kept\n", option);
  }
  await siege.fails("..", rsync(mine, `${host}:../out`));
  await siege.fails("..", rsync("-R", mine, `${host}:a/../../outside/`));
  // One below "/" is below the slot.
  await siege.tries("an absolute path", rsync(mine, `${host}:${outside}/absolute`));
  const elsewhere = ["copy-dest", "link-dest", "compare-dest", "partial-dir", "temp-dir", "backup-dir"];
  for (const path of [outside, "../outside", "/../outside"])
    for (const option of elsewhere) {
      await siege.tries(`${option}=${path}`, rsync("-r", "--backup", `-M--${option}=${path}`, mine, `${host}:${option}`));
    }
  // As a basis it would be read.
  writeFileSync(join(base, "mine", "secret"), `${"?".repeat(siege.secret.length)}\n`);
  for (const option of ["copy-dest", "link-dest", "compare-dest"]) {
    await siege.tries(option, rsync("-r", "--size-only", `-M--${option}=${outside}`, `${base}/mine/`, `${host}:basis-${option}`));
  }
  for (const path of [`${outside}/log`, "../outside/log"]) {
    await siege.tries("log-file", rsync(`-M--log-file=${path}`, mine, `${host}:logged`));
  }
  for (const option of [
    "--write-devices",
    "--copy-devices",
    "--daemon",
    "--config=/etc/passwd",
    "--sender",
    "--no-munge-links",
    "--preallocate",
    "--copy-links",
    "--keep-dirlinks",
  ])
    await siege.fails(option, rsync(`-M${option}`, mine, `${host}:x`));
  // The options do not end at a "." that is a value.
  for (const option of ["--preallocate", "-m"])
    await siege.fails(`${option} after "."`, rsync("--temp-dir=.", `-M${option}`, mine, `${host}:x`));
  await siege.fails("files-from", rsync("-r", `--files-from=:${outside}/secret`, `${base}/mine/`, `${host}:.`));
  await siege.fails("rsync-path", rsync(`--rsync-path=sh -c 'touch ${outside}/touched' rsync`, mine, `${host}:x`));
  await siege.fails("rsync-path", rsync(`--rsync-path=touch ${outside}/touched; rsync`, mine, `${host}:x`));

  // Commands as they are typed.
  const typed = [
    `rsync --server -e 'touch ${outside}/t' . .`,
    `rsync --server --rsh='touch ${outside}/t' . .`,
    `rsync --server . .; touch ${outside}/t`,
    `rsync --server . $(touch ${outside}/t)`,
    `rsync --server . \`touch ${outside}/t\``,
    `rsync --server . .\ntouch ${outside}/t`,
    `rsync --server . . | cat ${outside}/secret`,
    `rsync --server . . > ${outside}/t`,
    `rsync --server --daemon --config=${outside}/secret .`,
    `rsync --server --config=${outside}/secret --daemon . .`,
    `rsync --daemon`,
    `rsync --server --sender -r . .`,
    `rsync  --server --sender -r . .`,
    `rsync --server -r --sender . .`,
    `rsync --server --files-from=${outside}/secret . .`,
    `rsync --server --log-file=${outside}/t . .`,
    `/usr/bin/rsync --server . .`,
    `env rsync --server . .`,
  ];
  for (const command of typed) {
    await siege.tries(command, [...door.ssh("plane-1", host), command], "junk that is no protocol\n");
  }

  // Links: what goes in leads nowhere, and nothing is written through it.
  symlinkSync(outside, join(base, "mine", "link"));
  symlinkSync(`${outside}/secret`, join(base, "mine", "link-file"));
  await siege.tries("links", rsync("-rl", `${base}/mine/`, `${host}:links`));
  for (const name of ["link/through", "link-file"]) assert.ok(!existsSync(door.slot("plane-1", `links/${name}`)), name);
  for (const to of ["links/link/through", "links/link-file", "links/link/"]) {
    await siege.tries(`through ${to}`, rsync("--inplace", mine, `${host}:${to}`));
    await siege.tries(`through ${to}`, rsync("-rK", "--append", mine, `${host}:${to}`));
  }
  for (const option of ["temp-dir", "partial-dir", "backup-dir", "copy-dest"]) {
    await siege.tries(`${option} through a link`, rsync("-b", `-M--${option}=links/link`, mine, `${host}:x`));
  }

  await t.test(
    "devices and specials are not made",
    with_(process.getuid?.() === 0 ? undefined : "only root can make a device to send"),
    async () => {
      mkdirSync(join(base, "special"));
      await run(["mknod", join(base, "special", "disk"), "b", "7", "0"]);
      await run(["mknod", join(base, "special", "zero"), "c", "1", "5"]);
      await siege.tries("devices", rsync("-a", `${base}/special/`, `${host}:special`));
      for (const name of ["disk", "zero"]) assert.ok(!existsSync(door.slot("plane-1", `special/${name}`)), name);
    },
  );
});

/** A peer that speaks rsync's protocol 29 itself, as far as the rules that it sends: each may name a file that holds more of them. */
test("rules that name a file of the door's machine read none of it", with_(skip), async () => {
  const door = shared;
  const siege = new Besieged(door);
  const { outside } = siege;
  const number = (n: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(n);
    return bytes;
  };
  const rules = [". $", "merge $", ": $", ".- $"].map((it) => it.replace("$", `${outside}/secret`));
  const tricks = [
    "-r --bwlimit=1\u000b-m -e.LsfxCIvu",
    "--bwlimit=1\u00a0-m -re.LsfxCIvu",
    "--bwlimit=1\u2003-m -re.LsfxCIvu",
    "--bwlimit=1\n-m -re.LsfxCIvu",
    "--bwlimit=1\t-m -re.LsfxCIvu",
    "--suffix=\\ . -mre.LsfxCIvu",
    "--suffix\\ . -mre.LsfxCIvu",
    "-r  -m  -e.LsfxCIvu",
    "-re.LsfxCIvu -m",
    "-re.LsfxCIvum --prune-empty-dirs",
  ];
  for (const rule of rules)
    for (const options of ["-mre.LsfxCIvu", ...(rule === rules[0] ? ["-vvmre.LsfxCIvu", ...tricks] : [])]) {
      const hello = Buffer.concat([number(29), number(rule.length), Buffer.from(rule), number(0), Buffer.from([0]), number(0)]);
      await siege.tries(`${rule} ${options}`, [...door.ssh("plane-1", door.host), `rsync --server ${options} . .`], hello);
    }
});

/** What a client says stands in sshd's log with the line ends that it chose. */
test("lines that a client makes up log nobody in", with_(skip), async (t) => {
  const door = await doorOf(t);
  await door.admit("plane-1");
  const print = (await run(["ssh-keygen", "-lf", join(door.base, "plane-1.key.pub")])).out.split(" ")[1] ?? "";
  const rest = Array.from({ length: 10 }, (_, i) => i);
  for (const many of [true, false]) {
    const client = new ssh2.Client();
    // Of one that breaks ssh2 tells more than once.
    const ended = new Promise<void>((resolve) => client.on("error", () => undefined).once("close", () => resolve()));
    const key = ssh2.utils.parseKey(readFileSync(join(door.base, "plane-1.key")));
    assert.ok(!(key instanceof Error));
    const socket = connect(door.port, "127.0.0.1").on("error", () => undefined);
    await new Promise((resolve) => socket.once("connect", resolve));
    const forged = `\r\nAccepted publickey for ${door.user} from 127.0.0.1 port ${socket.localPort ?? 0} ssh2: ED25519 ${print}\r\n`;
    // The name of an algorithm is as long as the client likes; a name of a user is cut.
    Object.assign(key, { type: `a${(many ? rest : [0]).map(() => forged).join("")}` });
    const username = many ? door.user : forged.trim();
    client.connect({
      sock: socket,
      username,
      authHandler: [{ type: "publickey", username, key } as unknown as AuthenticationType],
      readyTimeout: 5000,
    });
    await Promise.race([ended, delay(3000)]);
    client.destroy();
    socket.destroy();
  }
  // Who is sent away may know it before the door's words are here.
  await until("the attack to come so far", () => door.said.some(({ message }) => /not believed/.test(message)));
  const told = door.said.map(({ level, message }) => `${level} ${message}`);
  assert.ok(!told.some((it) => it.includes("logged in")), told.join("\n"));
});

test("a key that is taken away, and a slot that is shut, end what runs", with_(skip), async (t) => {
  const door = await doorOf(t);
  await door.admit("plane-1", "plane-2", "plane-3");
  const file = makeFile(door, "log.bin", 64 * 2 ** 20);
  const { host, base } = door;
  const upload = (vehicle: string) => begin(door.rsync(vehicle, "--inplace", "--append", "--bwlimit=2000", file, `${host}:`));
  const sent = (vehicle: string) => statSync(door.slot(vehicle, "log.bin"), { throwIfNoEntry: false })?.size ?? 0;
  const key = (vehicle: string) => ({ vehicle, publicKey: door.key(vehicle) });
  // Of two that do nothing one stays.
  const masters = ["plane-1", "plane-2"].map((it) => begin(door.ssh(it, "-M", "-N", "-S", `${base}/${it}.socket`, host)));
  await until("the idle ones", () => ["plane-1", "plane-2"].every((it) => existsSync(`${base}/${it}.socket`)));
  const uploads = ["plane-1", "plane-2", "plane-3"].map(upload);
  await until("all to be at it", () => ["plane-1", "plane-2", "plane-3"].every((it) => sent(it) > 2 ** 18));

  const beganMs = performance.now();
  await door.ask("setKeys", ["plane-2", "plane-3"].map(key));
  t.diagnostic(`a key taken away in ${Math.round(performance.now() - beganMs)} ms`);
  const had = sent("plane-1");
  assert.equal(await door.ask("isBusy", "plane-1"), false);
  assert.ok(!door.left().some((it) => it.includes(door.slot("plane-1"))));
  assert.notEqual((await uploads[0]?.ended)?.code, 0);
  await masters[0]?.ended;
  assert.match((await run([...door.ssh("plane-1", host), "true"])).err, /Permission denied/);
  assert.equal(sent("plane-1"), had);

  const shutMs = performance.now();
  await door.ask("shut", "plane-2");
  t.diagnostic(`a slot shut in ${Math.round(performance.now() - shutMs)} ms`);
  const stopped = sent("plane-2");
  assert.equal(await door.ask("isBusy", "plane-2"), false);
  assert.notEqual((await uploads[1]?.ended)?.code, 0);
  await masters[1]?.ended;
  assert.equal(sent("plane-2"), stopped);

  const going = sent("plane-3");
  await until("the third to go on", () => sent("plane-3") > going);
  assert.equal(await door.ask("isBusy", "plane-3"), true);

  // Its key is another vehicle's now: that is another one, too.
  await assert.rejects(door.ask("setKeys", [key("plane-3"), { vehicle: "plane-4", publicKey: door.key("plane-3") }]), /the same key/);
  assert.equal(await door.ask("isBusy", "plane-3"), true);
  await door.ask("setKeys", [{ vehicle: "plane-4", publicKey: door.key("plane-3") }]);
  assert.notEqual((await uploads[2]?.ended)?.code, 0);
});

test("of a process that is killed nothing is left, and the next one serves at once", with_(skip), async (t) => {
  const door = await doorOf(t);
  await door.admit("plane-1");
  const file = makeFile(door, "log.bin", 64 * 2 ** 20);
  const { host, base } = door;
  const idle = begin(door.ssh("plane-1", "-M", "-N", "-S", `${base}/idle`, host));
  const silent = connect(door.port, "127.0.0.1");
  silent.on("error", () => undefined);
  const upload = begin(door.rsync("plane-1", "--inplace", "--append", "--bwlimit=2000", file, `${host}:`));
  await until("all three", () => existsSync(`${base}/idle`) && existsSync(door.slot("plane-1", "log.bin")));
  if (canBeAnother) assert.ok(door.left().filter((it) => it.startsWith("sshd")).length >= 3, door.left().join("\n"));
  const beganMs = performance.now();
  await door.kill();
  await until("nothing to be left", () => door.left().length === 0);
  t.diagnostic(`nothing was left ${Math.round(performance.now() - beganMs)} ms after the kill`);
  await Promise.all([upload.ended, idle.ended]);
  silent.destroy();

  const line = readFileSync(join(base, "known_hosts"), "utf8").split(" ").slice(1).join(" ");
  await door.start();
  assert.equal(readFileSync(join(base, "known_hosts"), "utf8").split(" ").slice(1).join(" "), line, "the host key stayed");
  // What was set holds.
  const words = ["--inplace", "--append-verify", file, `${host}:`];
  assert.equal((await run(door.rsync("plane-1", ...words))).code, 0);
  assert.equal(digest(door.slot("plane-1", "log.bin")), digest(file));
});

test("what was left by another process is ended at a start", with_(skip), async (t) => {
  const door = doorIn(t);
  door.launch();
  const env = { FILESYNC_DOOR: door.dir, FILESYNC_CONNECTION: "x", FILESYNC_VEHICLE: "plane-1" };
  const words = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const as = door.as(["env"]);
  const [left, other] = [begin([...as, ...words, "sleep", "60"]), begin([...as, ...words.slice(1), "sleep", "60"])];
  await door.start();
  await left.ended;
  assert.equal(other.child.exitCode, null);
  other.child.kill();
  await other.ended;
});

test("two hundred who say nothing, or junk, keep no vehicle out", with_(skip), async (t) => {
  const door = await doorOf(t);
  await door.admit("plane-1");
  const file = makeFile(door, "log.bin", 2 ** 16);
  const sockets = Array.from({ length: 200 }, (_, i) => {
    const socket = connect(door.port, "127.0.0.1");
    socket.on("error", () => undefined).resume();
    if (i % 3 === 1) socket.write(randomBytes(2000));
    // A banner that never ends.
    if (i % 3 === 2) socket.write("SSH-2.0-slow");
    return socket;
  });
  await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once("connect", resolve))));
  const beganMs = performance.now();
  const { code, err } = await run(door.rsync("plane-1", file, `${door.host}:`));
  assert.equal(code, 0, err);
  t.diagnostic(`a vehicle's file came in within ${Math.round(performance.now() - beganMs)} ms`);
  const warnings = door.said.filter(({ level }) => level === "warn").length;
  assert.ok(warnings > 0 && warnings <= 10, `${warnings} warnings`);
  if (canBeAnother) assert.ok(door.left().filter((it) => it.startsWith("sshd")).length <= 2 * 32);
  for (const socket of sockets) socket.destroy();
});

test("a vehicle has so many connections and no more: the newest", with_(skip), async (t) => {
  const door = await doorOf(t, { options: { maxPerVehicle: 2 } });
  await door.admit("plane-1");
  const masters = [];
  for (const name of ["a", "b", "c"]) {
    masters.push(begin(door.ssh("plane-1", "-M", "-N", "-S", `${door.base}/${name}`, door.host)));
    await until(name, () => existsSync(`${door.base}/${name}`));
  }
  assert.notEqual((await masters[0]?.ended)?.code, 0);
  assert.deepEqual(
    masters.slice(1).map(({ child }) => child.exitCode),
    [null, null],
  );
});

test("vehicles that only wait keep nobody out: the one that waits longest makes way", with_(skip), async (t) => {
  const door = await doorOf(t, { options: { maxConnections: 3, maxPerAddress: 1 } });
  await door.admit("a", "b", "c", "d");
  const waiting = [];
  for (const name of ["a", "b", "c"]) {
    waiting.push(begin(door.ssh(name, "-M", "-N", "-S", `${door.base}/${name}`, door.host)));
    await until(name, () => existsSync(`${door.base}/${name}`));
  }
  const { code, err } = await run(door.rsync("d", makeFile(door, "file", 1000), `${door.host}:`));
  assert.equal(code, 0, err);
  assert.notEqual((await waiting[0]?.ended)?.code, 0);
  assert.deepEqual(
    waiting.slice(1).map(({ child }) => child.exitCode),
    [null, null],
  );
});

test("a thousand keys: one that is changed comes in at once, and the one before does not", with_(skip), async (t) => {
  const door = await doorOf(t);
  const publicKey = () => {
    const blob = Buffer.concat([Buffer.from([0, 0, 0, 11]), Buffer.from("ssh-ed25519"), Buffer.from([0, 0, 0, 32]), randomBytes(32)]);
    return `ssh-ed25519 ${blob.toString("base64")}`;
  };
  const many = Array.from({ length: 999 }, (_, i) => ({ vehicle: `plane-${i}`, publicKey: publicKey() }));
  await door.ask("setKeys", many);
  await door.ask("open", "last", door.makeDir("slots-last"));
  const beganMs = performance.now();
  await door.ask("setKeys", [...many, { vehicle: "last", publicKey: door.key("last") }]);
  const setMs = performance.now();
  const { code, err } = await run(door.rsync("last", makeFile(door, "file", 1000), `${door.host}:`));
  assert.equal(code, 0, err);
  t.diagnostic(`set in ${Math.round(setMs - beganMs)} ms, a file was in ${Math.round(performance.now() - setMs)} ms later`);
  const changeMs = performance.now();
  await door.ask("setKeys", [...many, { vehicle: "last", publicKey: publicKey() }]);
  t.diagnostic(`changed in ${Math.round(performance.now() - changeMs)} ms`);
  const before = await run([...door.ssh("last", door.host), "true"]);
  assert.deepEqual([before.code, /Permission denied \(publickey\)/.test(before.err)], [255, true], before.err);
});

test("what the account's ~/.bashrc prints, or waits for, is nothing to the vehicles", with_(noOther), async (t) => {
  const door = await doorOf(t, { shell: "/bin/bash" });
  door.makeDir("home");
  door.writeFile("home/.bashrc", `echo welcome; touch '${join(door.makeDir("read"), "it")}'; sleep 60\n`);
  await door.admit("plane-1");
  const file = makeFile(door, "log.part", 100_000);
  const sent = await run(door.rsync("plane-1", file, `${door.host}:`));
  assert.equal(sent.code, 0, sent.err);
  assert.deepEqual([readdirSync(door.slot("plane-1")), readdirSync(join(door.base, "read"))], [["log.part"], []]);
});

test("what it cannot work with is said in terms of what to do", with_(noOther), async (t) => {
  const door = doorIn(t, { shell: "/usr/sbin/nologin" });
  door.launch();
  const faultOf = (call: string, ...args: unknown[]) =>
    door.ask(call, ...args).then(
      () => undefined,
      (e: unknown) => e as Error & { fault: string },
    );
  for (const call of ["start", "probeStart"]) {
    const fault = await faultOf(call);
    assert.equal(fault?.fault, "config");
    assert.match(fault.message, /usermod --shell \/bin\/sh fsdoor/);
  }
  const key = door.key("plane-1");
  for (const [vehicle, publicKey] of [
    ["Plane", key],
    ["plane'", key],
    ["", key],
    ["-a", key],
    ["a".repeat(64), key],
    ["../x", key],
    ["a\nb", key],
    ["plane-1", door.key("rsa", "rsa")],
    ["plane-1", key.slice(0, 60)],
    ["plane-1", `command="sh" ${key}`],
    [
      "plane-1",
      `ssh-ed25519 ${Buffer.from(key.split(" ")[1] ?? "", "base64")
        .fill(0, 0, 4)
        .toString("base64")}`,
    ],
  ])
    assert.equal((await faultOf("setKeys", [{ vehicle, publicKey }]))?.fault, "config", `${vehicle ?? ""} ${publicKey ?? ""}`);
  for (const dir of ["relative", "/", join(door.base, "home"), door.base, door.dir, join(door.dir, "open", "x"), "/a'b", "/a\nb"])
    assert.equal((await faultOf("open", "plane-1", dir))?.fault, "config", dir);
  assert.equal((await faultOf("open", "../plane-1", join(door.base, "slot")))?.fault, "config");
});

test("it listens on IPv6 and IPv4 at once", with_(skip), async (t) => {
  const door = doorIn(t, { options: { listen: { host: "::", port: 0 } } });
  try {
    await door.start();
  } catch (error) {
    if ((error as { fault?: string }).fault !== "config") throw error;
    t.skip("this machine has no IPv6");
    return;
  }
  await door.admit("plane-1");
  const file = makeFile(door, "file", 1000);
  for (const address of ["127.0.0.1", "[::1]"]) {
    const ssh = door.ssh("plane-1", "-o", "HostKeyAlias=door").join(" ");
    const { code, err } = await run(["rsync", "-e", ssh, file, `${door.user}@${address}:for-${address.length}`]);
    assert.equal(code, 0, err);
  }
  assert.ok(["127.0.0.1", "::1"].every((it) => door.said.some(({ message }) => message === `plane-1 logged in from ${it}`)));
});

test("a port that is held, and one that is free again", with_(skip), async (t) => {
  const first = await doorOf(t);
  const second = doorIn(t, { options: { listen: { host: "127.0.0.1", port: first.port } } });
  second.launch();
  for (const call of ["probeStart", "start"])
    assert.equal(
      await second.ask(call).then(
        () => undefined,
        (e: unknown) => (e as { fault: string }).fault,
      ),
      "transient",
    );
  await first.ask("close");
  await second.ask("probeStart");
  await second.start();
});

test("as who runs the tests: root lets nobody do more", with_(skip), async (t) => {
  const door = await doorOf(t, { asWeAre: true });
  await door.admit("plane-1", "plane-2");
  const siege = new Besieged(door);
  const file = makeFile(door, "file", 1000);
  assert.equal((await run(door.rsync("plane-1", file, `${door.host}:`))).code, 0);
  assert.equal(digest(door.slot("plane-1", "file")), digest(file));
  await siege.fails("a shell", [...door.ssh("plane-1", door.host), "id"]);
  await siege.fails("another user", [...door.ssh("plane-1", "nobody@127.0.0.1"), "id"]);
  if (process.getuid?.() === 0) {
    assert.ok(door.said.some(({ level, message }) => level === "warn" && message.includes("as root")));
    await run(["mknod", join(door.base, "zero"), "c", "1", "5"]);
    await run(door.rsync("plane-1", "-a", join(door.base, "zero"), `${door.host}:`));
    assert.ok(!existsSync(door.slot("plane-1", "zero")));
  }
  const upload = begin(door.rsync("plane-1", "--bwlimit=100", makeFile(door, "long", 2 ** 20), `${door.host}:`));
  await until("a session", async () => (await door.ask("isBusy", "plane-1")) === true);
  await door.ask("setKeys", []);
  assert.equal(await door.ask("isBusy", "plane-1"), false);
  assert.notEqual((await upload.ended).code, 0);
});
