/** The units of systemd, held against systemd's own check. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const units = fileURLToPath(new URL("../../systemd", import.meta.url));
const deploy = fileURLToPath(new URL("../../deploy", import.meta.url));

test("systemd-analyze verify has nothing to say of the units", (t) => {
  if (spawnSync("systemd-analyze", ["--version"]).status !== 0) {
    t.skip("systemd-analyze is not here (package systemd)");
    return;
  }
  const dir = mkdtempSync(join(tmpdir(), "filesync-units-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const names = readdirSync(units);
  // What a unit starts has to be there: the program is another one here.
  for (const name of names)
    writeFileSync(
      join(dir, name),
      readFileSync(join(units, name), "utf8").replace(/\/opt\/filesync\/current\/\S+\/(filesync|trial\.sh)\b/g, process.execPath),
    );
  const { status, stdout, stderr } = spawnSync("systemd-analyze", ["verify", ...names.map((name) => join(dir, name))], {
    encoding: "utf8",
  });
  assert.deepEqual([status, stdout, stderr], [0, "", ""]);
});

test("no setting of the helper's unit gives it a mount namespace: its mounts would be seen by nobody", () => {
  const service = readFileSync(join(units, "filesync-mount@.service"), "utf8");
  // systemd.exec(5): all that are said to be unavailable without one, or to imply one.
  const apart =
    /^(Protect(System|Home|KernelTunables|KernelModules|KernelLogs|ControlGroups|Proc|Clock|Hostname)|Private\w+|(Read(Only|Write)|Inaccessible|Exec|NoExec)Paths|Bind\w*Paths|TemporaryFileSystem|Root\w+|(State|Runtime|Cache|Logs)Directory|ProcSubset|MountFlags|MountAPIVFS|DynamicUser|LoadCredential\w*|SetCredential\w*)=/m;
  assert.doesNotMatch(service, apart);
  assert.match("PrivateTmp=yes", apart);
});

test("the services are fenced in: systemd's measure of exposure is at most 2.0", (t) => {
  if (spawnSync("systemd-analyze", ["--version"]).status !== 0) {
    t.skip("systemd-analyze is not here (package systemd)");
    return;
  }
  for (const name of ["filesync.service", "filesync-ground.service"]) {
    const { stdout, stderr } = spawnSync("systemd-analyze", ["security", "--offline=yes", join(units, name)], { encoding: "utf8" });
    const level = /Overall exposure level for \S+: ([\d.]+)/.exec(stdout)?.[1];
    assert.ok(Number(level) <= 2, `${name}: ${level ?? stderr}`);
  }
});

test("the two services differ only in what a vehicle has and the ground has not", () => {
  const settings = (name: string) =>
    readFileSync(join(units, name), "utf8")
      .split("\n")
      .filter((line) => /^[A-Z]\w+=/.test(line));
  const [vehicle, ground] = [settings("filesync.service"), settings("filesync-ground.service")];
  assert.deepEqual(
    ground.filter((line) => !vehicle.includes(line)),
    ["Description=FileSync, which takes what vehicles send", "Conflicts=filesync.service"],
  );
  assert.deepEqual(
    vehicle.filter((line) => !ground.includes(line)).map((line) => line.slice(0, line.indexOf("="))),
    ["Description", "Conflicts", "SupplementaryGroups", "CPUWeight", "IOWeight", "DeviceAllow"],
  );
});

test("shellcheck has nothing to say of the scripts that install it", (t) => {
  if (spawnSync("shellcheck", ["--version"]).status !== 0) {
    t.skip("shellcheck is not here (package shellcheck)");
    return;
  }
  const scripts = readdirSync(deploy).filter((name) => !/\.(rules|json)$/.test(name));
  const { status, stdout } = spawnSync(
    "shellcheck",
    scripts.map((name) => join(deploy, name)),
    { encoding: "utf8" },
  );
  assert.deepEqual([status, stdout], [0, ""]);
});

test("deploy-ftp.sh makes the configuration between the program and the service, and says so", (t) => {
  const checkout = mkdtempSync(join(tmpdir(), "filesync-deploy-"));
  t.after(() => rmSync(checkout, { recursive: true }));
  cpSync(join(deploy, "../package.json"), join(checkout, "package.json"));
  const dir = join(checkout, "deploy");
  cpSync(join(deploy, "deploy-ftp.sh"), join(dir, "deploy-ftp.sh"));
  writeFileSync(join(dir, "deploy-filesync.sh"), '#!/bin/bash\necho "deploy-filesync $*"\n', { mode: 0o755 });
  const run = (...args: string[]) => spawnSync("bash", [join(dir, "deploy-ftp.sh"), ...args], { encoding: "utf8" });
  assert.equal(
    run("--dry-run", "--vehicle", "a", "--replace-old", "--vehicle", "b").stdout,
    "deploy-filesync --role ground --dry-run --replace-old\n" +
      "would run: filesync init --ground --yes --config /etc/filesync/config.json --vehicle a --vehicle b\n",
  );
  assert.equal(
    run("--dry-run", "--registry").stdout,
    "deploy-filesync --role ground --dry-run\n" +
      "would run: usermod --shell /bin/sh filesync\n" +
      "would run: filesync init --ground --yes --config /etc/filesync/config.json --registry\n",
  );
  assert.equal(run("--uninstall", "--purge").stdout, "deploy-filesync --role ground --uninstall --purge\n");
  assert.equal(run("--config", "mine.json").stdout, "deploy-filesync --role ground --config mine.json\n", "that is the whole of it");
  const { status, stderr } = run("--vehicle");
  assert.deepEqual([status, stderr], [2, "deploy-ftp.sh: --vehicle needs a name\n"]);
});
