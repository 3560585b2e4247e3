/**
 * deploy-filesync.sh and trial.sh over a made-up root, without a systemd that runs: which units systemd would take after upgrades and ways back, what is refused, and what stays.
 * What needs a machine that boots is in test/vm/install.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { overlaid } from "./overlaid.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const arch = process.arch === "arm64" ? "arm64" : "x64";

function tempDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "filesync-deploy-"));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

function put(path: string, text: string, mode = 0o644): void {
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, text, { mode });
}

/** A machine that does not run: its versions, and what `systemctl --root` thinks of its units. */
class Root {
  constructor(readonly dir: string) {
    mkdirSync(join(dir, "usr/local/lib/systemd/system"), { recursive: true });
    mkdirSync(join(dir, "etc/systemd/system"), { recursive: true });
  }

  path(path: string): string {
    return join(this.dir, path);
  }

  /** One whose units say `words`. */
  version(name: string, words: string): void {
    const dir = this.path(`opt/filesync/versions/${name}`);
    cpSync(join(root, "systemd"), join(dir, "systemd"), { recursive: true });
    cpSync(join(root, "deploy"), join(dir, "deploy"), { recursive: true });
    for (const unit of ["filesync.service", "filesync-mount.socket"]) {
      const path = join(dir, "systemd", unit);
      writeFileSync(path, readFileSync(path, "utf8").replace(/^Description=.*/m, `Description=${words}`));
    }
  }

  sh(command: string): { status: number | null; out: string } {
    const { status, stdout, stderr } = spawnSync("bash", ["-ec", command], {
      cwd: this.path("opt/filesync"),
      env: { ...process.env, FILESYNC_ROOT: this.dir },
      encoding: "utf8",
    });
    return { status, out: stdout + stderr };
  }

  must(command: string): string {
    const { status, out } = this.sh(command);
    assert.equal(status, 0, `${command}: ${out}`);
    return out;
  }

  /** As deploy-filesync.sh does it. */
  install(name: string): void {
    this.must(
      `[ ! -e current ] || { ln -sfn "$(readlink current)" previous; echo 0 >trial; }; ln -sfn versions/${name} current; current/deploy/trial.sh units`,
    );
    this.enable();
  }

  enable(): void {
    this.must(`systemctl -q --root=${this.dir} enable filesync.service filesync-mount.socket`);
  }

  /** What systemd takes for the unit, with the links that enable it; throws where one leads nowhere, or to a version. */
  unit(name: string): string {
    assert.equal(this.must(`systemctl --root=${this.dir} is-enabled ${name}`).trim(), "enabled");
    const links = this.must(`find ${this.dir}/etc/systemd ${this.dir}/usr/local -type l`).trim().split("\n");
    assert.deepEqual(
      links.filter((link) => readlinkSync(link).includes("/opt/")),
      [],
      "links to a version",
    );
    const path = [this.path(`etc/systemd/system/${name}`), this.path(`usr/local/lib/systemd/system/${name}`)].find((one) =>
      existsSync(one),
    );
    assert.ok(path !== undefined, `there is no unit ${name}`);
    return /^Description=(.*)/m.exec(readFileSync(path, "utf8"))?.[1] ?? "";
  }
}

const needsRoot = process.getuid?.() === 0 ? {} : { skip: "only root can make up a root (mount)" };
const needsSystemctl = spawnSync("systemctl", ["--version"]).status === 0 ? {} : { skip: "systemctl is not here (package systemd)" };

test("upgrades bring their units, and systemd knows them when the versions before are gone", needsSystemctl, (t) => {
  const machine = new Root(tempDir(t));
  for (const name of ["1", "2", "3"]) {
    machine.version(name, `words of ${name}`);
    machine.install(name);
    machine.must(`rm -f trial; rm -rf versions/${Number(name) - 1}`);
    for (const unit of ["filesync.service", "filesync-mount.socket"]) assert.equal(machine.unit(unit), `words of ${name}`);
  }
  const before = machine.must(`find ${machine.dir} -printf '%p %l %i\\n' | sort`);
  machine.must("current/deploy/trial.sh units");
  assert.equal(machine.must(`find ${machine.dir} -printf '%p %l %i\\n' | sort`), before, "said twice it changes nothing");
});

test("an installation whose units lead to a version that is gone is whole again after an upgrade", needsSystemctl, (t) => {
  const machine = new Root(tempDir(t));
  machine.version("1", "words of 1");
  machine.version("2", "words of 2");
  // As it was enabled before: by links of links.
  machine.must(
    [
      "ln -s versions/1 current",
      `for unit in filesync.service filesync-mount.socket; do ln -s /opt/filesync/current/systemd/$unit $FILESYNC_ROOT/usr/local/lib/systemd/system/; done`,
      `systemctl -q --root=$FILESYNC_ROOT enable filesync.service filesync-mount.socket`,
    ].join("; "),
  );
  const link = machine.path("etc/systemd/system/filesync.service");
  assert.match(readlinkSync(link), /^\/opt\/filesync\/versions\/1\//, "systemd does as it did when this was written");
  machine.must("rm -rf versions/1");
  put(machine.path("etc/systemd/system/filesync.service.d/mine.conf"), "[Service]\nNice=5\n");
  machine.install("2");
  assert.equal(machine.unit("filesync.service"), "words of 2");
  assert.equal(machine.unit("filesync-mount.socket"), "words of 2");
  assert.ok(existsSync(machine.path("etc/systemd/system/filesync.service.d/mine.conf")), "a drop-in is the administrator's");
});

test(
  "a version that goes back takes its unit with it, and a power cut between the two is mended at the next start",
  needsSystemctl,
  (t) => {
    const machine = new Root(tempDir(t));
    for (const name of ["1", "2"]) machine.version(name, `words of ${name}`);
    machine.install("1");
    machine.install("2");
    assert.match(machine.must("current/deploy/trial.sh back"), /2 did not become ready: back to 1/);
    assert.equal(machine.unit("filesync.service"), "words of 1");
    const told = /^Environment=FILESYNC_WENT_BACK=(.*)$/m.exec(
      readFileSync(machine.path("usr/local/lib/systemd/system/filesync.service"), "utf8"),
    )?.[1];
    assert.ok(existsSync(machine.path(told ?? "")), "the service is told");
    machine.must("current/deploy/trial.sh ready");
    assert.ok(!existsSync(machine.path(told ?? "")), "until it is ready");
    assert.equal(readlinkSync(machine.path("opt/filesync/current")), "versions/1");

    // The link, and then no power.
    machine.must("ln -sfn versions/1 previous; echo 0 >trial; ln -sfn versions/2 current");
    assert.equal(machine.unit("filesync.service"), "words of 1");
    for (const start of ["1", "2", "3"]) {
      machine.must("current/deploy/trial.sh begin");
      assert.equal(machine.unit("filesync.service"), "words of 2", `at start ${start}`);
      assert.equal(readFileSync(machine.path("opt/filesync/trial"), "utf8"), `${start}\n`);
    }
    machine.must("current/deploy/trial.sh begin");
    assert.equal(machine.unit("filesync.service"), "words of 1", "at the fourth start without being ready");
    assert.equal(existsSync(machine.path("opt/filesync/trial")), false);
  },
);

test("what the service puts into its state directory leads root nowhere when a version goes back", needsRoot, (t) => {
  const machine = new Root(tempDir(t));
  chmodSync(machine.dir, 0o755);
  for (const name of ["1", "2"]) machine.version(name, `words of ${name}`);
  const back = "ln -sfn versions/1 previous; echo 3 >trial; ln -sfn versions/2 current; current/deploy/trial.sh begin";
  put(machine.path("etc/shadow"), "root\n", 0o600);
  const state = machine.path("var/lib/filesync");
  machine.must(`install -d -m 750 -o 54321 -g 54321 ${state}; ln -s ${machine.path("etc/shadow")} ${state}/went-back; ${back}`);
  assert.equal(machine.must(`stat -c '%u %s' ${machine.path("etc/shadow")}`), "0 5\n");
  assert.equal(readlinkSync(machine.path("opt/filesync/current")), "versions/1");
  machine.must(`rm ${state}/went-back; ${back}`);
  assert.equal(machine.must(`stat -c %u ${state}/went-back`), "54321\n");
});

test("a version that never becomes ready leaves for the one before on a full disk too", needsRoot, (t) => {
  const machine = new Root(tempDir(t));
  for (const name of ["1", "2"]) machine.version(name, `words of ${name}`);
  machine.must("ln -sfn versions/1 previous; echo 0 >trial; ln -sfn versions/2 current");
  const full = join(tempDir(t), "full");
  const { out } = machine.sh(
    `unshare -m bash -ec 'mkdir ${full}; mount -t tmpfs -o size=1m full ${full}; cp -a "$FILESYNC_ROOT/." ${full}; export FILESYNC_ROOT=${full}; cd ${full}/opt/filesync; dd if=/dev/zero of=fill bs=4k status=none || true; for n in 1 2 3 4; do current/deploy/trial.sh begin; done; readlink current; ls trial' 2>&1`,
  );
  if (/mount|unshare/.test(out)) t.skip(`no disk can be made here: ${out}`);
  else assert.match(out, /2 did not become ready: back to 1\nversions\/1\nls: /);
});

/** How a service ended, as systemd tells ExecStopPost=. */
const ended = (code: string, status: string) =>
  `SERVICE_RESULT=x EXIT_CODE=${code} EXIT_STATUS=${status} current/deploy/trial.sh ended filesync.service`;

test("a version on trial that ends with 2, which systemd starts no more, leaves at once for the one before; no other end does so", (t) => {
  const machine = new Root(tempDir(t));
  const names = ["1", "2"];
  for (const name of names) machine.version(name, `words of ${name}`);
  const after = (prepared: string, code: string, status: string) => {
    machine.must(`rm -f previous trial; ln -sfn versions/1 previous; ln -sfn versions/2 current; ${prepared}; ${ended(code, status)}`);
    return [readlinkSync(machine.path("opt/filesync/current")), existsSync(machine.path("opt/filesync/trial"))];
  };
  assert.deepEqual(after("echo 1 >trial", "exited", "2"), ["versions/1", false]);
  assert.equal(
    /^Description=(.*)/m.exec(readFileSync(machine.path("usr/local/lib/systemd/system/filesync.service"), "utf8"))?.[1],
    "words of 1",
    "with its units",
  );
  assert.deepEqual(after("echo 1 >trial", "exited", "1"), ["versions/2", true], "it is started again");
  assert.deepEqual(after("echo 1 >trial", "killed", "TERM"), ["versions/2", true]);
  assert.deepEqual(after("echo 1 >trial", "exited", "0"), ["versions/2", true]);
  assert.deepEqual(after("echo 0 >trial", "exited", "2"), ["versions/2", true], "the one before ended, for the new one's start");
  assert.deepEqual(after(":", "exited", "2"), ["versions/2", false], "not on trial: the configuration is a person's to mend");
});

/**
 * What stands for systemd: what it was told is in /run/told; a service is ready at once; with /run/fails never, nor the version that begins with what is
 * in /run/broken; with /run/back it is the version before that is. With /run/ends what is started ends with 2 the next time. Jobs are in /run/jobs.
 */
const systemctl = `#!/bin/bash
echo "$*" >>/run/told
fails() {
  [ -e /run/fails ] || { [ -e /run/broken ] && [[ $(readlink /opt/filesync/current) == versions/$(cat /run/broken)* ]]; }
}
case "$*" in
  *is-active*) ! fails ;;
  *list-jobs*) cat /run/jobs ;;
  *restart*) if rm /run/ends 2>/dev/null; then
    /opt/filesync/current/deploy/trial.sh begin
    EXIT_CODE=exited EXIT_STATUS=2 /opt/filesync/current/deploy/trial.sh ended "\${@: -1}" >>/run/journal
  fi ;;&
  *restart*) [ ! -e /run/back ] || ln -sfn "$(readlink /opt/filesync/previous)" /opt/filesync/current; fails || rm -f /opt/filesync/trial ;;
  *ActiveState*) echo failed ;;
  *StatusText*) [ -e /run/fails ] || echo "all is well" ;;
esac
`;

/** What stands for the program; with /run/no-init its init refuses. */
const program = `#!/bin/sh
case "$1" in
  --version) echo 0.1.0 ;;
  init) [ ! -e /run/no-init ] || exit 2 ;;
  status) printf '2 files wait (3 MB)\\n\\nlast receipts\\n  the oldest receipt\\n' ;;
esac
`;

/** Directories of this machine, with whatever is written in them thrown away; the script runs there as on a machine of its own. */
class Apart {
  readonly #t: TestContext;

  constructor(
    t: TestContext,
    readonly dir: string,
  ) {
    this.#t = t;
    put(join(dir, "stubs/systemctl"), systemctl, 0o755);
    for (const name of ["udevadm", "journalctl"]) put(join(dir, `stubs/${name}`), "#!/bin/sh\n", 0o755);
    const bundle = join(dir, "bundle");
    for (const name of ["deploy", "systemd"]) cpSync(join(root, name), join(bundle, name), { recursive: true });
    put(join(bundle, "bin/filesync"), program, 0o755);
    put(join(bundle, "ARCH"), `${arch}\n`);
    put(join(bundle, "package.json"), '{\n  "name": "filesync",\n  "version": "0.1.0",\n}\n');
    // Which is unpacked to 40 MB, of which some do not shrink.
    put(join(bundle, "much"), "");
    this.#run("dd if=/dev/zero of=bundle/much bs=1M count=40 status=none; head -c 1000000 /dev/urandom >>bundle/much");
    this.#run("cd bundle && find . -type f ! -name SHA256SUMS -exec sha256sum {} + >SHA256SUMS");
    this.#run("tar -czf bundle.tar.gz bundle");
  }

  #run(command: string): string {
    const { status, stdout, stderr } = spawnSync("bash", ["-ec", command], { cwd: this.dir, encoding: "utf8" });
    assert.equal(status, 0, stderr);
    return stdout;
  }

  /** Runs all of `commands` in it; they begin from nothing. → exit code of the last, and what they printed; or why there is no such root here. */
  sh(commands: string): { status: number | null; out: string } | undefined {
    const upper = join(this.dir, "upper");
    mkdirSync(upper, { recursive: true });
    const prepared = [
      `mount -t tmpfs upper ${upper}`,
      overlaid(["/etc", "/opt", "/usr/local", "/var/lib", "/srv"], upper),
      "mount -t tmpfs run /run",
      "mkdir -p /run/systemd/system /run/lock",
      "rm -rf /opt/filesync /etc/filesync /var/lib/filesync* /srv/* /etc/systemd/system/*filesync*",
      "! getent passwd filesync >/dev/null || userdel filesync",
    ].join(" && ");
    const env = {
      ...process.env,
      PATH: `${join(this.dir, "stubs")}:${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`,
      SUDO_USER: "",
      TMPDIR: "/tmp",
    };
    const { status, stdout, stderr } = spawnSync(
      "unshare",
      ["-m", "bash", "-c", `{ ${prepared}; } >&2 || exit 77\nexec 2>&1\ncd ${this.dir}\n${commands}`],
      // A bash whose stdin is a socket, as Node's pipes are, takes itself for one of rshd, and may read ~/.bashrc, which changes PATH.
      { env, encoding: "utf8", timeout: 300_000, stdio: ["ignore", "pipe", "pipe"] },
    );
    if (status === 77 || status === null) {
      this.#t.skip(`no root can be made up here: ${stderr.trim()}`);
      return;
    }
    return { status, out: stdout };
  }
}

/** Enough to see that nothing was changed. */
const traces =
  "{ ls -d /opt/filesync /etc/filesync /usr/local/bin/filesync /usr/local/lib/systemd/system/filesync.service; getent passwd filesync; } 2>/dev/null";

test(
  "an archive is unpacked where it stays: a small /tmp is no matter, and a full /opt is told before anything is changed",
  needsRoot,
  (t) => {
    const apart = new Apart(t, tempDir(t));
    const small = apart.sh(
      "mkdir /run/tmp && mount -t tmpfs -o size=1m tmp /run/tmp && TMPDIR=/run/tmp bundle/deploy/deploy-filesync.sh --from bundle.tar.gz",
    );
    if (small === undefined) return;
    assert.equal(small.status, 0, small.out);
    assert.match(small.out, /is ready after \d+ s: all is well/);

    for (const given of ["--from bundle.tar.gz", ""]) {
      const full = apart.sh(`mount -t tmpfs -o size=20m opt /opt && bundle/deploy/deploy-filesync.sh ${given}; echo "exit $?"; ${traces}`);
      assert.match(
        full?.out ?? "",
        /^deploy-filesync\.sh: \/opt\/filesync\/versions has \d+ MiB free, and \d+ are needed; nothing was changed\nexit 2\n$/,
      );
    }
    const half = apart.sh(
      `head -c 900000 bundle.tar.gz >/run/half.tar.gz; bundle/deploy/deploy-filesync.sh --from /run/half.tar.gz; echo "exit $?"; ${traces}`,
    );
    assert.equal(half?.out, "deploy-filesync.sh: /run/half.tar.gz is no whole archive: copy it again\nexit 2\n");
  },
);

test("a script alone, or that came through a pipe, takes nothing that lies around it, and says what to do", (t) => {
  const dir = tempDir(t);
  put(join(dir, "package.json"), '{\n  "name": "somebodys",\n}\n');
  mkdirSync(join(dir, "links"));
  const ran = (command: string) => {
    const { status, stdout, stderr } = spawnSync("bash", ["-c", command], { cwd: dir, encoding: "utf8" });
    return { status, out: stdout + stderr };
  };
  const made: string[] = [];
  // Dry, so that a script that refuses nothing changes nothing of the machine that tests it.
  for (const [script, given] of [
    ["deploy-filesync.sh", ["--dry-run", "--dry-run --no-start", "--dry-run --uninstall"]],
    ["deploy-ftp.sh", ["--dry-run", "--dry-run --from x", "--dry-run --vehicle a"]],
    ["make-bundle.sh", [""]],
  ] as const) {
    put(join(dir, "Downloads", script), readFileSync(join(root, "deploy", script), "utf8"), 0o755);
    made.push(script);
    for (const words of given) {
      for (const [how, why] of [
        [`Downloads/${script} ${words}`, `${dir}/Downloads/${script} is a copy by itself`],
        [`cat Downloads/${script} | bash -s -- ${words}`, "it came through a pipe"],
        [`bash <(cat Downloads/${script}) ${words}`, "it came through a pipe"],
      ] as const) {
        const { status, out } = ran(how);
        assert.equal(status, 2, out);
        assert.ok(out.startsWith(`${script}: ${why}`), `${how}: ${out}`);
        assert.match(out, /: (download|run) [^\n]*deploy\/[^\n]*\n$/, how);
      }
    }
    // One that lies elsewhere and leads into a checkout is that checkout's.
    ran(`ln -s ${join(root, "deploy", script)} links/`);
    assert.equal(ran(`links/${script} --help`).status, 0);
  }
  assert.deepEqual(readdirSync(join(dir, "Downloads")), made.sort());
  assert.match(ran("links/deploy-filesync.sh --dry-run --no-start").out, new RegExp(`^would build from ${root.replace(/\/$/, "")}$`, "m"));
});

test(
  "a directory in place of a file is told before anything is changed; what runs dry does not say that it is installed",
  needsRoot,
  (t) => {
    const apart = new Apart(t, tempDir(t));
    for (const [given, words] of [
      ["--config /srv", "/srv is a directory: --config names the file in it"],
      ["--from /srv", "/srv is a directory: --from names an archive; [^\\n]*"],
    ] as const) {
      const refused = apart.sh(`bundle/deploy/deploy-filesync.sh ${given}; echo "exit $?"; ${traces}`);
      if (refused === undefined) return;
      assert.match(refused.out, new RegExp(`^deploy-filesync\\.sh: ${words}\nexit 2\n$`));
    }
    const dry = apart.sh(`bundle/deploy/deploy-filesync.sh --dry-run --no-start; echo "exit $?"; ${traces}`);
    assert.match(dry?.out ?? "", /\nwould start at the next boot, or by: systemctl start filesync\.service\nexit 0\n$/);
    assert.doesNotMatch(dry?.out ?? "", /Installed/);
  },
);

test("a version that did not become ready is told without empty brackets", needsRoot, (t) => {
  const failed = new Apart(t, tempDir(t)).sh('touch /run/fails; bundle/deploy/deploy-filesync.sh; echo "exit $?"');
  if (failed === undefined) return;
  assert.match(failed.out, /0\.1\.0-\w+ did not become ready\. Its last words:/);
  assert.match(failed.out, /exit 1\n$/);
});

/** A bundle of another version, in /run. */
const bundleOfVersion = (version: string) =>
  `cp -r bundle /run/${version} && (cd /run/${version} && sed -i s/0.1.0/${version}/ package.json && sha256sum package.json >sums && grep -v ./package.json SHA256SUMS >>sums && mv sums SHA256SUMS)`;

test("a version on trial is never the one to go back to: that is the one that was ready last", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const begun = `bundle/deploy/deploy-filesync.sh >/dev/null && ${bundleOfVersion("0.2.0")} && echo 0.2.0 >/run/broken`;
  const after = 'echo "exit $?"; readlink /opt/filesync/current; ls /opt/filesync/trial 2>&1';
  const whole = /did not become ready[^]*0\.1\.0-\w+ runs again; [^\n]*\nexit 1\nversions\/0\.1\.0-\w+\nls: [^\n]*\n$/;
  const again = apart.sh(
    `${begun} && /run/0.2.0/deploy/deploy-filesync.sh --no-start && [ -e /opt/filesync/trial ] && /run/0.2.0/deploy/deploy-filesync.sh; ${after}`,
  );
  if (again === undefined) return;
  assert.match(again.out, whole, "installed, not started, and run again");
  const ground = apart.sh(
    `bundle/deploy/deploy-ftp.sh --vehicle plane-1 >/dev/null && ${bundleOfVersion("0.2.0")} && echo 0.2.0 >/run/broken && /run/0.2.0/deploy/deploy-ftp.sh --vehicle plane-1; ${after}`,
  );
  assert.match(ground?.out ?? "", whole, "a ground station, by the same command with the new version");
  const third = apart.sh(
    `${begun} && /run/0.2.0/deploy/deploy-filesync.sh --no-start && ${bundleOfVersion("0.3.0")} && echo 0.3.0 >/run/broken && /run/0.3.0/deploy/deploy-filesync.sh; ${after}`,
  );
  assert.match(third?.out ?? "", whole, "another version over one that was never started");
  const byHand = apart.sh(
    `${begun} && /run/0.2.0/deploy/deploy-filesync.sh --no-start && /opt/filesync/previous/deploy/deploy-filesync.sh; ${after}`,
  );
  assert.match(byHand?.out ?? "", /0\.1\.0-\w+ is ready after [^]*exit 0\nversions\/0\.1\.0-\w+\nls: [^\n]*\n$/, "back by hand");
});

test("an installed version that was damaged since is put in place anew by the same archive, and started anew", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const deploy = "bundle/deploy/deploy-filesync.sh";
  const again = apart.sh(
    `${deploy} >/dev/null; : >/opt/filesync/current/much; rm /run/told; ${deploy}; echo "exit $?"; cmp bundle/much /opt/filesync/current/much; grep -- --no-block /run/told; ls /opt/filesync/versions | wc -l; ${deploy} | head -n 1`,
  );
  if (again === undefined) return;
  assert.match(
    again.out,
    /^0\.1\.0-\w+ is installed already, and is damaged: [^\n]*\n0\.1\.0-\w+ is ready after [^]*exit 0\nrestart --no-block filesync\.service\n1\n0\.1\.0-\w+ is installed already\n$/,
  );
});

test(
  "power that goes while a damaged version is put in place anew leaves one that is whole, and the next run does the rest; so it does where no version is left",
  needsRoot,
  (t) => {
    const apart = new Apart(t, tempDir(t));
    const deploy = "bundle/deploy/deploy-filesync.sh";
    const cut = `printf '#!/bin/sh\\n/bin/mv "$@"; case "$*" in *damaged) kill -9 $PPID;; esac\\n' >stubs/mv; chmod +x stubs/mv`;
    const again = apart.sh(
      `${deploy} >/dev/null; : >/opt/filesync/current/much; ${cut}; ${deploy}; rm stubs/mv; cmp bundle/much /opt/filesync/current/much && echo whole; ${deploy}; echo "exit $?"; cmp bundle/much /opt/filesync/current/much && readlink /opt/filesync/current; rm -rf /opt/filesync/versions/*; ${deploy} >/dev/null; echo "exit $?"; cmp bundle/much /opt/filesync/current/much && echo whole`,
    );
    if (again === undefined) return;
    assert.match(
      again.out,
      /it is put in place anew\n(?:[^\n]*Killed[^\n]*\n)?whole\n0\.1\.0-\w+ is ready after [^]*exit 0\nversions\/0\.1\.0-\w+\nexit 0\nwhole\n$/,
    );
  },
);

/** The bundle's program is the one that was built here; nobody reads what its "ls" says to people. */
const real = `printf '#!/bin/sh\\n[ "$1" != ls ] || exit 9\\nexec ${process.execPath} ${join(root, "dist/cli/main.js")} "$@"\\n' >bundle/bin/filesync; sed -i '/bin.filesync/d' bundle/SHA256SUMS`;

test("over a configuration of which nothing can be used no upgrade begins; one that loses a part goes on", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const begun = `${real}; bundle/deploy/deploy-filesync.sh >/dev/null && ${bundleOfVersion("0.2.0")} && rm /run/told`;
  const state = "{ find /opt/filesync /etc/filesync -type f -o -type l | sort; readlink /opt/filesync/current; }";
  const upgrade = "/run/0.2.0/deploy/deploy-filesync.sh";
  const cases = ['{ "devices": {', '{ "stateDir": "/var/lib/filesync", "devices": {}, "routes": [], "nokey": 1 }', ""].flatMap((broken) =>
    ["", "--no-start", "--dry-run"].map((given) => [broken, given] as const),
  );
  // Nothing is changed, so that each finds what the one before did.
  const tries = cases.map(
    ([broken, given]) =>
      `printf %s '${broken}' >/etc/filesync/config.json; ${state} >/run/before; ${upgrade} ${given}; echo "exit $?"; ${state} | diff /run/before - && cat /run/told; echo ====`,
  );
  const refused = apart.sh(`${begun}; ${tries.join("; ")}`);
  if (refused === undefined) return;
  const told = refused.out.split("====\n");
  for (const [n, [broken, given]] of cases.entries())
    assert.match(
      told[n] ?? "",
      /^deploy-filesync\.sh: nothing of \/etc\/filesync\/config\.json can be used; [^\n]*, nothing was changed:\n\/etc\/filesync\/config\.json:1: [^\n]+\nexit 2\ncat: \/run\/told: [^\n]*\n$/,
      `${broken} ${given}`,
    );
  const part = '{ "stateDir": "/var/lib/filesync", "devices": { "a": { "type": "nosuch" } }, "routes": [] }';
  const goes = apart.sh(`${begun}; echo '${part}' >/etc/filesync/config.json; ${upgrade}; echo "exit $?"; readlink /opt/filesync/current`);
  assert.match(goes?.out ?? "", /config\.json has mistakes:\n[^\n]*"nosuch"[^]*exit 0\nversions\/0\.2\.0-/);
});

test("a configuration that is a link to a disk that is not mounted stays one: no upgrade begins", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const begun = `${real}; bundle/deploy/deploy-filesync.sh >/dev/null && ${bundleOfVersion("0.2.0")} && ln -sf /mnt/config.json /etc/filesync`;
  const refused = apart.sh(
    `${begun}; /run/0.2.0/deploy/deploy-filesync.sh; echo "exit $?"; readlink /etc/filesync/config.json /opt/filesync/current`,
  );
  if (refused === undefined) return;
  assert.match(
    refused.out,
    /^deploy-filesync\.sh: \/etc\/filesync\/config\.json is a link to \/mnt\/config\.json, which is not there; [^\n]*, nothing was changed\nexit 2\n\/mnt\/config\.json\nversions\/0\.1\.0-/,
  );
});

test("a configuration of --config of which nothing can be used is refused, one that can be used takes its place", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const deploy = "bundle/deploy/deploy-filesync.sh";
  const good = '{ "stateDir": "/var/lib/filesync", "devices": {}, "routes": [] }';
  const files = `echo '{ "devices": {' >/run/broken.json; echo '${good}' >/run/good.json`;
  for (const given of ["", "--no-start", "--dry-run"]) {
    const refused = apart.sh(`${real}; ${files}; ${deploy} ${given} --config /run/broken.json; echo "exit $?"; ${traces}; cat /run/told`);
    if (refused === undefined) return;
    assert.match(
      refused.out,
      /^deploy-filesync\.sh: nothing of \/run\/broken\.json can be used; [^\n]*, nothing was changed:\n\/run\/broken\.json:\d: [^\n]+\nexit 2\ncat: [^\n]*\n$/,
      given,
    );
  }
  // As an earlier one left it, or a hand.
  const begun = `${real}; ${files}; ${deploy} >/dev/null; cp /run/broken.json /etc/filesync/config.json; rm /run/told`;
  const kept =
    "cd /etc/filesync; ls config*; cmp config.json.old /run/broken.json; cmp config.json /run/good.json; grep -- --no-block /run/told";
  const taken = apart.sh(`${begun}; ${deploy} --config /run/good.json; echo "exit $?"; ${kept}`);
  assert.match(
    taken?.out ?? "",
    /^Nothing of \/etc\/filesync\/config\.json can be used: \/run\/good\.json takes its place, [^\n]*\.old\n[^]*is ready after [^]*exit 0\nconfig\.json\nconfig\.json\.old\nrestart --no-block filesync\.service\n$/,
  );
  const piped = apart.sh(
    `${real}; ${files}; ${deploy} --no-start --config <(cat /run/good.json) && cmp /etc/filesync/config.json /run/good.json`,
  );
  assert.equal(piped?.status, 0, piped?.out);
  const both = apart.sh(`${begun}; ${deploy} --config /run/broken.json; echo "exit $?"`);
  assert.match(both?.out ?? "", /^deploy-filesync\.sh: nothing of \/run\/broken\.json can be used;[^]*exit 2\n$/);
  const stays = apart.sh(`${begun}; cp /run/good.json /etc/filesync/config.json; ${deploy} --config /run/broken.json; echo "exit $?"`);
  assert.match(stays?.out ?? "", /^\/etc\/filesync\/config\.json is there already and stays as it is; [^]*exit 0\n$/);
  const part = apart.sh(
    `${real}; echo '${good.replace("{}", '{ "a": { "type": "nosuch" } }')}' >/run/part.json; ${deploy} --config /run/part.json; echo "exit $?"`,
  );
  assert.match(part?.out ?? "", /^\/etc\/filesync\/config\.json has mistakes:\n[^\n]*"nosuch"[^]*exit 0\n$/);
});

test("a version that systemd has put back by the time that it is looked at is not taken for the new one", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const back = apart.sh(
    `bundle/deploy/deploy-filesync.sh >/dev/null && ${bundleOfVersion("0.2.0")} && touch /run/back && /run/0.2.0/deploy/deploy-filesync.sh; echo "exit $?"`,
  );
  if (back === undefined) return;
  assert.match(back.out, /0\.2\.0-\w+ did not become ready[^]*0\.1\.0-\w+ runs again; .*\nexit 1\n$/);
});

test(
  "what ends with 2 on trial is put back and started by systemd alone, whether the script watches or not, but not what was stopped",
  needsRoot,
  (t) => {
    const apart = new Apart(t, tempDir(t));
    const begun = `bundle/deploy/deploy-filesync.sh >/dev/null && ${bundleOfVersion("0.2.0")} && echo 0.2.0 >/run/broken && : >/run/jobs`;
    const state = "readlink /opt/filesync/current; ls /opt/filesync/trial 2>/dev/null; grep -c back /run/journal";
    const watched = apart.sh(`${begun} && touch /run/ends && /run/0.2.0/deploy/deploy-filesync.sh; echo "exit $?"; ${state}`);
    if (watched === undefined) return;
    assert.match(
      watched.out,
      /^0\.2\.0-\w+ did not become ready\. Its last words:\ndeploy-filesync\.sh: 0\.1\.0-\w+ runs again; [^\n]*\nexit 1\nversions\/0\.1\.0-\w+\n1\n$/m,
      "went back once, and what the one before says is not taken for its words",
    );
    for (const unit of ["filesync.service", "filesync-ground.service"])
      for (const [job, goesBack] of [
        ["", true],
        [`12 ${unit} start running`, true],
        [`12 ${unit} stop running`, false],
        [`12 ${unit} restart running`, false],
      ] as const) {
        const alone = apart.sh(
          `${begun} && /run/0.2.0/deploy/deploy-filesync.sh --no-start && echo '${job}' >/run/jobs && touch /run/ends /run/journal && systemctl restart ${unit}; grep restart /run/told | tail -n +2; ${state}`,
        );
        assert.match(
          alone?.out ?? "",
          goesBack
            ? new RegExp(`^restart ${unit}\n--no-block restart ${unit}\nversions/0\\.1\\.0-\\w+\n1\n$`, "m")
            : new RegExp(`^restart ${unit}\nversions/0\\.2\\.0-\\w+\n/opt/filesync/trial\n0\n$`, "m"),
          `${unit}: ${job}`,
        );
      }
  },
);

test("the administrator's own copy of a unit stays, a masked one is told, and another FileSync's is not gone over", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const unit = "/etc/systemd/system/filesync.service";
  const own = apart.sh(
    `cp bundle/systemd/filesync.service ${unit}; bundle/deploy/deploy-filesync.sh && cat ${unit} | cmp - bundle/systemd/filesync.service`,
  );
  if (own === undefined) return;
  assert.equal(own.status, 0, own.out);
  assert.match(own.out, /stands before the unit of the same name.*systemctl revert filesync\.service/);
  for (const [there, words] of [
    [`ln -s /dev/null ${unit}`, /filesync\.service is masked: systemctl unmask filesync\.service/],
    [`printf '[Service]\\nExecStart=/home/pi/manager.py\\n' >${unit}`, /another FileSync's \(started by: \/home\/pi\/manager\.py\)/],
  ] as const) {
    const refused = apart.sh(`${there}; bundle/deploy/deploy-filesync.sh; echo "exit $?"; ${traces}`);
    assert.match(refused?.out ?? "", words);
    assert.match(refused?.out ?? "", /exit 2\n$/);
  }
});

test("another FileSync that was put aside runs again where ours does not become ready", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const old = "/etc/systemd/system/filesync-manager.service";
  const wants = "/etc/systemd/system/multi-user.target.wants";
  const begun = `printf '[Service]\\nExecStart=/home/pi/manager.py\\n' >${old}; mkdir -p ${wants}; ln -s ../filesync-manager.service ${wants}/`;
  const deploy = "bundle/deploy/deploy-filesync.sh --replace-old";
  const failed = apart.sh(`${begun}; touch /run/fails; ${deploy}; echo "exit $?"; ls ${old}*; tail -n 3 /run/told`);
  if (failed === undefined) return;
  assert.match(
    failed.out,
    /above, and run this again\nWhat was put aside is back: \S+\nexit 1\n\S+manager\.service\n-q disable --now filesync\.service filesync-mount\.socket\ndaemon-reload\n-q enable --now filesync-manager\.service\n$/,
  );
  const done = apart.sh(`${begun}; ${deploy}; echo "exit $?"; ls ${old}*; grep enable /run/told`);
  assert.match(done?.out ?? "", /exit 0\n\S+manager\.service\.old\n-q enable filesync\.service filesync-mount\.socket\n$/);
});

test("taken away with --purge: its own last word; files that it brought stay whose they are", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const deploy = "bundle/deploy/deploy-filesync.sh";
  const kept = apart.sh(
    `${deploy} >/dev/null && install -d -o filesync /srv/flights && echo a >/srv/flights/a && ${deploy} --uninstall --purge; echo "exit $?"; stat -c '%U' /srv/flights; ls -d /opt/filesync /etc/filesync /var/lib/filesync 2>/dev/null; rm -r /srv/flights; ${deploy} --uninstall --purge; getent passwd filesync`,
  );
  if (kept === undefined) return;
  assert.match(kept.out, /^It says of itself, last: 2 files wait \(3 MB\)$/m);
  assert.match(kept.out, /so does the user filesync, whose files these are:\n {2}\/srv\/flights \(\d/);
  assert.match(kept.out, /exit 0\nfilesync\nLooking/, "nothing of its own is left, the directory has its owner");
  assert.match(kept.out, /and its user, who has no files elsewhere\.\n$/);
});

test("what is on a disk that is mounted below the state directory stays there when that is taken away", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const place = "/var/lib/filesync/devices/card/mnt/AAAA-8.1";
  const mounted = `mkdir -p /run/card ${place}; mount -t tmpfs card /run/card; echo photo >/run/card/a.jpg; mount --bind /run/card ${place}`;
  for (const given of ["--uninstall --purge", "--prepare-image"]) {
    const done = apart.sh(
      `bundle/deploy/deploy-filesync.sh >/dev/null; ${mounted}; bundle/deploy/deploy-filesync.sh ${given} >/dev/null; echo "exit $?"; cat /run/card/a.jpg; ls /var/lib/filesync`,
    );
    if (done === undefined) return;
    assert.match(done.out, /^exit 0\nphoto\nls: [^\n]*\n$/, given);
  }
});

test("from a read-only root nothing is taken away, not even by half", needsRoot, (t) => {
  // Of the overlays only what lies over the machine's own directories, in which others work meanwhile.
  const made = "find upper -path '*/up/*' | sort";
  const refused = new Apart(t, tempDir(t)).sh(
    `bundle/deploy/deploy-filesync.sh >/dev/null && rm /run/told && ${made} >/run/before && for dir in /etc /opt /usr/local /var/lib; do mount -o remount,ro $dir; done; for purge in '' --purge; do bundle/deploy/deploy-filesync.sh --uninstall $purge; echo "exit $?"; done; cat /run/told; ${made} | diff /run/before -`,
  );
  if (refused === undefined) return;
  const told = "deploy-filesync\\.sh: /etc cannot be written: is the file system read-only\\?[^\\n]*; nothing was changed\\nexit 2\\n";
  assert.match(refused.out, new RegExp(`^${told}${told}cat: /run/told: [^\\n]*\\n$`));
});

test(
  "a vehicle's name that is none is told before anything is installed; what init refuses after that is no exit code 2",
  needsRoot,
  (t) => {
    const apart = new Apart(t, tempDir(t));
    for (const name of ["x y", "", "-x", "plane/1"]) {
      const refused = apart.sh(`bundle/deploy/deploy-ftp.sh --vehicle '${name}'; echo "exit $?"; ${traces}`);
      if (refused === undefined) return;
      assert.equal(
        refused.out,
        `deploy-ftp.sh: --vehicle "${name}": a vehicle's name has letters, digits, - and . in it, and no blanks\nexit 2\n`,
      );
    }
    const late = apart.sh(`touch /run/no-init; bundle/deploy/deploy-ftp.sh --vehicle plane-1; echo "exit $?"`);
    assert.match(
      late?.out ?? "",
      /Installed: [^]*deploy-ftp\.sh: it is installed, and [^\n]* is as it was, for the reason above[^\n]*\nexit 1\n$/,
    );
  },
);

test("a card to be copied has no key of a certificate, and what stays is named", needsRoot, (t) => {
  const image = new Apart(t, tempDir(t)).sh(
    [
      "bundle/deploy/deploy-filesync.sh --role ground --no-start >/dev/null",
      "mkdir -p /etc/filesync/certs /var/lib/filesync && echo x | tee /etc/filesync/certs/ftp.key /etc/filesync/certs/ftp.crt /etc/filesync/credentials/plane-1 /var/lib/filesync/installation.json >/dev/null",
      "install -d -o filesync /srv/filesync",
      "bundle/deploy/deploy-filesync.sh --role ground --prepare-image",
      "find /etc/filesync /var/lib/filesync -type f",
    ].join(" && "),
  );
  if (image === undefined) return;
  assert.match(image.out, /certificate is gone, with its key\. On each copy: sudo filesync init --ground --yes /);
  assert.match(image.out, /these, which may be secrets:\n\/etc\/filesync\/credentials\/plane-1\n/);
  assert.match(image.out, /in:\n\/srv\/filesync\n\/etc\/filesync\/c/);
  assert.deepEqual(
    image.out
      .match(/^\/etc\/filesync\/\S+$/gm)
      ?.slice(1)
      .sort(),
    ["/etc/filesync/config.json", "/etc/filesync/credentials/plane-1"],
  );
});

test("a vehicle is not dropped without a word where no password is made", (t) => {
  const script = join(root, "deploy/deploy-ftp.sh");
  for (const [given, told] of [
    [
      "--prepare-image",
      "every copy would have that vehicle's password. On each copy: sudo filesync init --ground --yes --vehicle plane-1;",
    ],
    ["--uninstall", "which takes all of it away;"],
  ] as const)
    for (const words of [
      [given, "--vehicle", "plane-1"],
      ["--vehicle", "plane-1", given],
    ]) {
      const { status, stdout, stderr } = spawnSync(script, ["--dry-run", ...words], { encoding: "utf8", cwd: tempDir(t) });
      assert.deepEqual([status, stdout], [2, ""]);
      assert.ok(stderr.startsWith(`deploy-ftp.sh: --vehicle does not go with ${given}`) && stderr.includes(told), stderr);
    }
});

test("a ground station's script makes no vehicle", (t) => {
  const script = join(root, "deploy/deploy-ftp.sh");
  for (const words of [
    ["--role", "vehicle"],
    ["--vehicle", "plane-1", "--role", "vehicle"],
  ]) {
    const { status, stdout, stderr } = spawnSync(script, ["--dry-run", ...words], { encoding: "utf8", cwd: tempDir(t) });
    assert.deepEqual([status, stdout], [2, ""]);
    assert.match(stderr, /^deploy-ftp\.sh: --role vehicle: a ground station is what it makes; deploy-filesync\.sh installs a vehicle\. /);
  }
});

test("who called it by sudo is put into the group where this machine knows them, and nothing ends where it does not", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const deploy = "bundle/deploy/deploy-filesync.sh";
  const who = "pilot-of-tests";
  const image = apart.sh(`SUDO_USER=nobody-of-this-image ${deploy} --prepare-image; echo "exit $?"`);
  if (image === undefined) return;
  assert.match(image.out, /^Ready to be copied: [^]*\nexit 0\n$/m);
  assert.doesNotMatch(image.out, /nobody-of-this-image/);
  const unknown = apart.sh(
    `useradd ${who} && printf '#!/bin/sh\\nexit 6\\n' >stubs/usermod && chmod 755 stubs/usermod && SUDO_USER=${who} ${deploy}; echo "exit $?"; rm stubs/usermod`,
  );
  assert.match(unknown?.out ?? "", new RegExp(`^${who} is not in the group filesync[^]* is ready after [^]*\nexit 0\n$`, "m"));
});

test("a user that somebody made, without a group of that name, gets one", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const done = apart.sh(
    'useradd --system --gid 0 filesync; bundle/deploy/deploy-filesync.sh --no-start; echo "exit $?"; stat -c %G /etc/filesync/config.json',
  );
  if (done !== undefined) assert.match(done.out, /exit 0\nfilesync\n$/);
});

test("a group that is left from before, as it has members, is taken", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  const deploy = "bundle/deploy/deploy-filesync.sh";
  const again = apart.sh(
    `useradd pilot-of-tests && groupadd -r filesync && usermod -aG filesync pilot-of-tests && ${deploy}; echo "exit $?"; id -gn filesync`,
  );
  if (again === undefined) return;
  assert.match(again.out, / is ready after [^]*\nexit 0\nfilesync\n$/);
});

test("in a chroot, where no systemd runs, an image is made ready; what would have to start something is refused", needsRoot, (t) => {
  const apart = new Apart(t, tempDir(t));
  // As in a fresh root: the real systemctl, which can only place links there.
  const chroot = "rm -r /run/systemd /run/lock; PATH=${PATH#*:}; deploy=bundle/deploy/deploy-filesync.sh";
  const started = apart.sh(`${chroot}; for given in "" "--uninstall"; do $deploy $given; echo "exit $?"; done; ${traces}`);
  if (started === undefined) return;
  assert.match(
    started.out,
    /^deploy-filesync\.sh: systemd does not run here: --prepare-image \(or --no-start\) [^\n]*\nexit 2\ndeploy-filesync\.sh: systemd does not run here[^\n]*\nexit 2\n$/,
  );
  const dry = apart.sh(`${chroot}; $deploy --dry-run && $deploy --prepare-image --dry-run; echo "exit $?"; ${traces}`);
  assert.match(dry?.out ?? "", /^systemd does not run here: [^\n]*--prepare-image[^]*\nwould start filesync\.service [^]*exit 0\n$/);
  assert.match(dry?.out ?? "", /^It would be ready to be copied: /m);
  assert.doesNotMatch(dry?.out ?? "", /^Ready to be copied|would run: (systemctl stop|udevadm)/m);
  for (const [given, unit] of [
    ["", "filesync.service"],
    ["--role ground", "filesync-ground.service"],
  ] as const) {
    const image = apart.sh(
      `${chroot}; $deploy --prepare-image ${given}; echo "exit $?"; for unit in ${unit} filesync-mount.socket; do readlink /etc/systemd/system/*.wants/$unit; done; ls -d /var/lib/filesync; ls /usr/local/lib/systemd/system; readlink /opt/filesync/current; $deploy --prepare-image ${given} | head -1`,
    );
    assert.match(
      image?.out ?? "",
      /^Ready to be copied: [^]*\nexit 0\n(\/usr\/local\/lib\/systemd\/system\/filesync\S*\n){2}ls: [^\n]*\n(filesync\S*\n){4}versions\/0\.1\.0-\w+\n0\.1\.0-\w+ is installed already\n$/m,
      `${unit}: ${image?.out ?? ""}`,
    );
    for (const enabled of [unit, "filesync-mount.socket"])
      assert.ok(image?.out.includes(`\n/usr/local/lib/systemd/system/${enabled}\n`), `${enabled}: ${image?.out ?? ""}`);
  }
  const bare = apart.sh(
    `${chroot}; mkdir /run/few; ln -s /usr/bin/{bash,env,dirname,id,sed,readlink} /run/few; PATH=/run/few $deploy --prepare-image; echo "exit $?"; ${traces}`,
  );
  assert.equal(bare?.out, "deploy-filesync.sh: systemd is not here: apt-get install systemd\nexit 2\n");
});

/** A registry that knows `known`, and says so; else it fails. → paths that it was asked for. */
async function registry(t: TestContext, known: readonly string[]): Promise<{ url: string; asked: string[]; goAway: () => void }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const name = (request.url ?? "").slice(1);
    asked.push(name);
    if (!known.includes(name)) response.writeHead(503).end();
    else
      response.end(JSON.stringify({ name, "dist-tags": { latest: "7.8.2" }, versions: { "7.8.2": { name, version: "7.8.2", dist: {} } } }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const goAway = () => {
    server.close();
    server.closeAllConnections();
  };
  t.after(goAway);
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, asked, goAway };
}

/** What npm pack makes, as far as make-bundle.sh needs it. */
function packed(dir: string): string {
  const whole = { name: "filesync", version: "0.1.0", dependencies: { own: "file:./own" }, devDependencies: { "of-tests-only": "^1" } };
  const from = join(dir, "package");
  cpSync(join(root, "deploy"), join(from, "deploy"), { recursive: true });
  for (const name of readdirSync(join(from, "deploy"))) chmodSync(join(from, "deploy", name), 0o755);
  put(join(from, "package.json"), JSON.stringify(whole, null, 2));
  for (const page of ["README.md", "docs/page.md"]) put(join(from, page), "");
  put(join(from, "own/package.json"), JSON.stringify({ name: "own", version: "1.0.0" }));
  return from;
}

async function bundleOf(dir: string, url: string): Promise<{ status: unknown; out: string }> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name)));
  const made = spawn("bash", [join(packed(dir), "deploy/make-bundle.sh"), "--arch", "x64", "--node", "none", "--out", dir], {
    cwd: dir,
    env: { ...env, npm_config_registry: url, npm_config_cache: join(dir, "cache"), no_proxy: "127.0.0.1" },
  });
  let out = "";
  for (const stream of [made.stdout, made.stderr]) stream.setEncoding("utf8").on("data", (text: string) => (out += text));
  const [status] = (await once(made, "close")) as [number | null];
  return { status, out };
}

test("a registry that is not there is asked once, and said", async (t) => {
  const dir = tempDir(t);
  const { url, asked } = await registry(t, []);
  const { status, out } = await bundleOf(dir, url);
  assert.equal(status, 2, out);
  assert.match(out, new RegExp(`npm's registry \\(${url}\\) cannot be reached: E503\n$`));
  assert.deepEqual(asked, ["rxjs"]);
});

test("a registry that answered once and is away now is told as that, whatever npm remembers of it", async (t) => {
  const { url, goAway } = await registry(t, ["rxjs"]);
  const dir = tempDir(t);
  const asks = spawn("npm", ["view", "rxjs", "version", "--registry", url, "--cache", join(dir, "cache")], { cwd: dir, stdio: "ignore" });
  assert.deepEqual(await once(asks, "close"), [0, null]);
  goAway();
  const { status, out } = await bundleOf(dir, url);
  assert.equal(status, 2, out);
  assert.match(out, new RegExp(`npm's registry \\(${url}\\) cannot be reached: ECONNREFUSED\n$`));
});

test("of a package that was built already nothing is fetched that only its tests need", async (t) => {
  const dir = tempDir(t);
  const { url, asked } = await registry(t, ["rxjs"]);
  const { status, out } = await bundleOf(dir, url);
  assert.equal(status, 0, out);
  assert.match(out, /npm fetches what it depends on/);
  assert.deepEqual(asked, ["rxjs"]);
  assert.ok(existsSync(join(dir, "filesync-0.1.0-linux-x64.tar.gz")));
});
