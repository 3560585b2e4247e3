/** The checks of `doctor`, each over a made-up machine. */
import assert from "node:assert/strict";
import { chownSync, chmodSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { checkClock } from "./clock.js";
import { certificateFindings } from "./devices.js";
import { checkDisks } from "./disks.js";
import type { Finding } from "./finding.js";
import { checkPower, throttledText } from "./power.js";
import { checkSerial } from "./serial.js";
import { checkSpace, type Figures } from "./space.js";
import { block, lsblk, machine, now, pi, root } from "../machine/harness.test.js";
import { checkUnit } from "./unit.js";
import { barredFrom, unreadable } from "../machine/rights.js";
import { daemonUser, forUnit, hiddenText, unitOf } from "../machine/unit.js";
import { checkVersions } from "./versions.js";

const state = "/var/lib/filesync";

const said = (findings: readonly Finding[], severity: Finding["severity"]) =>
  findings.filter((one) => one.severity === severity).map(({ about, text, todo }) => `${about}: ${text} [${todo.join(" | ")}]`);

const usb = "/dev/serial/by-id/usb-3D_Robotics_PX4_FMU_v5.x_0-if00";
const plugged = { [usb]: "→ ../../ttyACM0", "/dev/ttyACM0": "" };
const autopilot = [{ name: "pixhawk", path: usb }];

test("a directory is judged by the rights of the daemon's user, on the whole way to it", (t) => {
  const { view, path } = machine(t, { "/srv/in/a": "", "/srv/closed/logs/a": "" });
  for (const dir of ["/", "/srv", "/srv/closed/logs"]) chmodSync(path(join(dir, ".")), 0o755);
  const device = (dir: string, more = {}) => ({ name: "d", type: "local", options: { dir, ...more } });
  type Routes = Parameters<typeof barredFrom>[2];
  const reads: Routes = { routes: [], syncs: [] };
  const to = { routes: [{ from: "x", to: [{ device: "d" }] }], syncs: [] } as unknown as Routes;
  const leaves = { routes: [{ from: "d", to: [], afterDelivery: "delete" }], syncs: [] } as unknown as Routes;
  chmodSync(path("/srv/closed/."), 0o700);
  chmodSync(path("/srv/in/."), 0o755);
  const closed = {
    words: "pi may not use /srv/closed/logs: no right to enter /srv/closed",
    todo: "namei -l /srv/closed/logs   # the rights on the way",
  };
  const given = { words: "pi may not write in /srv/in", todo: "sudo chgrp 1000 /srv/in && sudo chmod g+rwx /srv/in" };
  assert.deepEqual(barredFrom(view, device("/srv/closed/logs"), reads, pi), closed);
  assert.equal(barredFrom(view, device("/srv/in"), reads, pi), undefined);
  assert.deepEqual(barredFrom(view, device("/srv/in"), to, pi), given);
  assert.deepEqual(barredFrom(view, device("/srv/in"), leaves, pi), {
    ...given,
    words: `"afterDelivery" takes away there what was delivered, and ${given.words}`,
  });
  assert.equal(barredFrom(view, device("/srv/closed/logs"), to, root), undefined, "who asks tries it out");
  assert.equal(barredFrom(view, device("/srv/none"), to, pi), undefined, "that it is missing is said by its probe");
  assert.deepEqual(barredFrom(view, device("/srv/in/none", { create: true }), to, pi), {
    words: "pi may not make /srv/in/none",
    todo: "sudo install -d -o pi /srv/in/none",
  });
  chownSync(path("/srv/in/."), 7, 1000);
  chmodSync(path("/srv/in/."), 0o770);
  assert.equal(barredFrom(view, device("/srv/in"), to, pi), undefined, "by its group");
});

test("what the configuration names, and its user cannot read, is told with what to type", (t) => {
  const config = "/etc/filesync/config.json";
  const text = `{ // a comment
    "devices": { "a": { "password": { "file": "a.secret" } }, "b": { "privateKey": "/etc/keys/b", "root": "config.json" } },
    "services": { "c": { "tls": { "cert": "c.crt", "key": "none.key" } } } }`;
  const files = {
    [config]: text,
    "/etc/filesync/a.secret": "",
    "/etc/filesync/c.crt": "",
    "/etc/keys/b": "",
    "/etc/group": "pi:x:1000:\n",
  };
  const { view, path } = machine(t, files);
  for (const [name, mode] of [
    ["/", 0o755],
    ["/etc", 0o755],
    ["/etc/filesync", 0o755],
    ["/etc/keys", 0o700],
  ] as const)
    chmodSync(path(join(name, ".")), mode);
  for (const [name, mode] of [
    [config, 0o600],
    ["/etc/filesync/a.secret", 0o640],
    ["/etc/filesync/c.crt", 0o644],
  ] as const)
    chmodSync(path(name), mode);
  assert.deepEqual(
    unreadable(view, config, text, pi).map(({ path: file, words, todo }) => [file, words, todo]),
    [
      [config, "pi may not read it", `sudo chgrp pi ${config} && sudo chmod g+r ${config}`],
      ["/etc/filesync/a.secret", "pi may not read it", "sudo chgrp pi /etc/filesync/a.secret && sudo chmod g+r /etc/filesync/a.secret"],
      ["/etc/keys/b", "pi may not read it: no right to enter /etc/keys", "namei -l /etc/keys/b"],
    ],
  );
  assert.deepEqual(unreadable(view, config, text, root), [], "who asks reads it");
});

test("serial: a port that is missing is bad, with the names of those that are there", async (t) => {
  const { view } = machine(t, { ...plugged, "/dev/ttyS0": "" });
  const found = await checkSerial(view, [{ name: "pixhawk", path: "/dev/ttyACM3" }], root, state);
  const [bad = ""] = said(found, "bad");
  assert.match(
    bad,
    /^pixhawk: the port \/dev\/ttyACM3 is missing: .*there are \/dev\/serial\/by-id\/usb-3D_Robotics\S+ \(\/dev\/ttyACM0\), \/dev\/ttyS0/,
  );
  assert.match(bad, /# in the configuration of pixhawk: "url": "serial:\/\/\/dev\/serial\/by-id\/usb-3D/);
});

test("serial: a port that is well is one finding; a name that may change is told", async (t) => {
  const { view } = machine(t, plugged);
  assert.deepEqual(
    (await checkSerial(view, autopilot, root, state)).map(({ severity }) => severity),
    ["ok", "ok"],
  );
  const [warn = ""] = said(await checkSerial(view, [{ name: "pixhawk", path: "/dev/ttyACM0" }], root, state), "warn");
  assert.match(warn, /\/dev\/ttyACM0 is another port once something else is plugged in first .*by-id\/usb-3D/);
});

test("serial: who holds the port is named, each with what to do about it; the daemon itself is nobody", async (t) => {
  const holder = (pid: number, args: string) => ({
    [`/proc/${pid}/cmdline`]: `${args.replaceAll(" ", "\0")}\0`,
    [`/proc/${pid}/comm`]: `${args.split(" ")[0]?.split("/").at(-1) ?? ""}\n`,
    [`/proc/${pid}/fd/5`]: "→ /dev/ttyACM0",
    [`/proc/${pid}/fdinfo/5`]: "pos:\t0\nflags:\t0100002\n",
  });
  const { view } = machine(t, {
    ...plugged,
    ...holder(41, "/usr/sbin/gpsd -N"),
    ...holder(42, "/usr/sbin/ModemManager"),
    ...holder(43, "python3 /usr/bin/mavproxy.py --master=/dev/ttyACM0"),
    ...holder(44, "/usr/bin/mavlink-routerd"),
    ...holder(45, "node scripts/start.mjs"),
    "/proc/45/fd/9": `→ ${state}/lock`,
    [`${state}/lock`]: "",
    "/run/udev/data/c166:0": "E:ID_MM_DEVICE_IGNORE=1\n",
    "/sys/class/tty/ttyACM0/dev": "166:0\n",
  });
  const bad = said(await checkSerial(view, autopilot, root, state), "bad");
  assert.equal(bad.length, 4, bad.join("\n"));
  assert.match(bad.join("\n"), /used by gpsd \(process 41\).*disable --now gpsd\.socket gpsd/);
  assert.match(bad.join("\n"), /used by ModemManager \(process 42\).*disable --now ModemManager/);
  assert.match(bad.join("\n"), /used by mavproxy\.py \(process 43\).*--out=udpout:127\.0\.0\.1:14551/);
  assert.match(bad.join("\n"), /used by mavlink-routerd \(process 44\).*tcpout:\/\/127\.0\.0\.1:5760.*systemctl stop mavlink-router/);
});

test("serial: an ordinary user is told that the open files of others were hidden", async (t) => {
  const { view } = machine(t, plugged, {}, pi);
  chmodSync(join(view.root, "dev/ttyACM0"), 0o666);
  assert.match(
    said(await checkSerial(view, autopilot, pi, state), "unseen").join("\n"),
    /open files of other users are hidden from pi \[sudo fuser -v/,
  );
});

test("serial: a user outside the port's group is told the command that mends it; one in it is well", async (t) => {
  const { view, path } = machine(t, { ...plugged, "/etc/group": "dialout:x:20:\npi:x:1000:\n" });
  chmodSync(path("/dev/ttyACM0"), 0o660);
  chownSync(path("/dev/ttyACM0"), 0, 20);
  const [bad = ""] = said(await checkSerial(view, autopilot, pi, state), "bad");
  assert.match(bad, /pi may not use .*: it belongs to the group dialout \[sudo usermod -aG dialout pi \|/);
  assert.deepEqual(said(await checkSerial(view, autopilot, { ...pi, groups: [1000, 20] }, state), "bad"), []);
});

test("serial: a console and a login on the port are bad; Bluetooth is told only of ports that it shares", async (t) => {
  const board = {
    "/dev/serial0": "→ ttyS0",
    "/dev/ttyS0": "",
    "/dev/serial1": "→ ttyAMA0",
    "/dev/ttyAMA0": "",
    "/proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "/boot/firmware/cmdline.txt": "console=serial0,115200 console=tty1 root=/dev/mmcblk0p2\n",
    "/boot/firmware/config.txt": "",
    "/usr/bin/raspi-config": "",
    "/etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service": "",
  };
  const { view } = machine(t, board);
  const found = await checkSerial(view, [{ name: "fc", path: "/dev/serial0" }], root, state);
  const [bad = ""] = said(found, "bad");
  assert.match(
    bad,
    /the kernel's console is on it \(\/boot\/firmware\/cmdline\.txt\), and a login waits on it \(serial-getty@ttyS0\.service\)/,
  );
  assert.match(bad, /disable --now serial-getty@ttyS0\.service \| sudo raspi-config nonint do_serial_cons 1 \| sudo reboot/);
  assert.match(said(found, "warn").join(), /small UART .*dtoverlay=disable-bt \| sudo tee -a \/boot\/firmware\/config\.txt/);
  assert.match(
    said(await checkSerial(view, [{ name: "fc", path: "/dev/ttyAMA0" }], root, state), "warn").join(),
    /is the UART of this Pi's Bluetooth/,
  );
  const other = machine(t, { ...board, ...plugged });
  assert.deepEqual(said(await checkSerial(other.view, autopilot, root, state), "warn"), [], "nothing of it concerns a USB port");
});

test("serial: ModemManager that runs is told, unless udev tells it to keep off the port or its USB device", async (t) => {
  const files = {
    ...plugged,
    "/proc/77/comm": "ModemManager\n",
    "/sys/devices/usb1/1-1/dev": "189:5\n",
    "/sys/devices/usb1/1-1/1-1:1.0/x": "",
    "/sys/class/tty/ttyACM0/dev": "166:0\n",
    "/sys/class/tty/ttyACM0/device": "→ ../../../devices/usb1/1-1/1-1:1.0",
    "/run/udev/data/c166:0": "E:ID_VENDOR=3D\n",
  };
  const { view } = machine(t, files);
  assert.match(said(await checkSerial(view, autopilot, root, state), "warn").join(), /ModemManager runs, and was not told to keep off/);
  const told = machine(t, { ...files, "/run/udev/data/c189:5": "E:ID_MM_DEVICE_IGNORE=1\n" });
  assert.deepEqual(said(await checkSerial(told.view, autopilot, root, state), "warn"), []);
});

const flir = [{ name: "flir", wanted: { uuid: "5c3ddd9e" } }];

test("disks: one that is away is told with those that are in; one that is in is well where it can be mounted", async (t) => {
  const away = machine(t, {}, { lsblk: lsblk(block({ uuid: "AAAA-BBBB" })) });
  assert.match(
    said(await checkDisks(away.view, flir, root), "warn").join(),
    /no disk with the UUID 5c3ddd9e is plugged in; there is \/dev\/sda1 \(exfat, uuid AAAA-BBBB, label "FLIR"\)/,
  );
  const there = machine(t, { "/proc/filesystems": "nodev\tproc\n\texfat\n" }, { lsblk: lsblk(block({})) });
  assert.deepEqual(said(await checkDisks(there.view, flir, root), "ok"), ["flir: /dev/sda1 is in (exfat), to be mounted by mount []"]);
  assert.ok(
    there.ran.every((line) => /^(lsblk|udisksctl status)/.test(line)),
    "it only looks",
  );
});

test("disks: without a driver, and without a way to mount, there is a command to type", async (t) => {
  const { view } = machine(t, { "/proc/filesystems": "\text4\n" }, { lsblk: lsblk(block({})) });
  assert.match(
    said(await checkDisks(view, flir, root), "bad").join(),
    /\/dev\/sda1 has exfat, which nothing here can read \[sudo apt install exfat-fuse\]/,
  );
  const bad = said(await checkDisks(view, flir, pi), "bad").join("\n");
  assert.match(bad, /pi has no way to mount it: .*\[sudo systemctl enable --now filesync-mount\.socket/);
  const helped = machine(
    t,
    { "/proc/filesystems": "\texfat\n", "/run/filesync/mount.sock": "", "/etc/group": "filesync:x:990:\n" },
    { lsblk: lsblk(block({})) },
  );
  chownSync(join(helped.view.root, "run/filesync/mount.sock"), 0, 990);
  assert.match(said(await checkDisks(helped.view, flir, pi), "bad").join(), /not in the group filesync.*usermod -aG filesync pi/);
  assert.deepEqual(said(await checkDisks(helped.view, flir, { ...pi, groups: [990] }), "ok"), [
    "flir: /dev/sda1 is in (exfat), to be mounted by helper []",
  ]);
});

test("clock: in step is well, not yet set is told, a year that cannot be is bad", (t) => {
  const set = machine(t, { "/run/systemd/timesync/synchronized": "" });
  assert.match(said(checkClock(set.view), "ok").join(), /in step with a time server/);
  const unset = machine(t, { "/run/systemd/timesync/x": "" });
  assert.match(said(checkClock(unset.view), "warn").join(), /was not set since this machine started.*timedatectl set-ntp true/);
  assert.match(said(checkClock({ ...set.view, nowMs: 5000 }), "bad").join(), /1970-01-01T00:00:05Z, which cannot be/);
  const chrony = machine(t, { "/proc/9/comm": "chronyd\n" });
  assert.match(said(checkClock(chrony.view), "ok").join(), /set by chronyd/);
});

const GiB = 2 ** 30;
const spool = { stateDir: "/var/lib/filesync", spool: { maxSize: 16 * GiB, keepFree: GiB, keep: 0 } };
const disk =
  (free: number, total = 32 * GiB, ffree = 1e6): Figures =>
  () =>
    Promise.resolve({ bsize: 4096, bavail: free / 4096, blocks: total / 4096, files: 2e6, ffree });
const mounted = (options: string) => ({
  "/proc/self/mountinfo": `20 1 179:2 / / ${options} shared:1 - ext4 /dev/mmcblk0p2 ${options}\n`,
  "/var/lib/filesync/journal.db": "",
});

test("space: what is left is held against keepFree and maxSize; a disk without names, or read-only, is bad", async (t) => {
  const { view } = machine(t, mounted("rw"), { dmesg: "" });
  assert.deepEqual(said(await checkSpace(view, spool, root, disk(20 * GiB)), "bad"), []);
  assert.match(
    said(await checkSpace(view, spool, root, disk(GiB / 2)), "bad").join(),
    /537 MB are free .* "spool.keepFree" leaves 1\.1 GB free: nothing is pulled/,
  );
  assert.match(said(await checkSpace(view, spool, root, disk(1.5 * GiB)), "warn").join(), /1\.6 GB are free/);
  assert.match(
    said(await checkSpace(view, spool, root, disk(5 * GiB, 8 * GiB)), "warn").join(),
    /"spool\.maxSize" is 17 GB, and its disk has 8\.6 GB in all/,
  );
  assert.match(
    said(await checkSpace(view, spool, root, disk(20 * GiB, 32 * GiB, 3)), "bad").join(),
    /no names are left on its disk \(3 inodes\)/,
  );
  const fixed = machine(t, mounted("ro"), { dmesg: "" });
  assert.match(said(await checkSpace(fixed.view, spool, root, disk(20 * GiB)), "bad").join(), /\/dev\/mmcblk0p2 at \/\) is read-only/);
});

test("space: what the kernel complains of the card is told; another disk's is not; a log that is hidden is said to be", async (t) => {
  const log =
    "[1.0] I/O error, dev sdb, sector 8\n[2.0] mmc0: Timeout waiting for hardware interrupt.\n[3.0] I/O error, dev mmcblk0, sector 77 op 0x1\n";
  const bad = machine(t, mounted("rw"), { dmesg: log });
  assert.match(
    said(await checkSpace(bad.view, spool, root, disk(20 * GiB)), "bad").join(),
    /complained 2 times of this disk since it started, last: \[3\.0\] I\/O error, dev mmcblk0/,
  );
  const other = machine(t, mounted("rw"), { dmesg: log.split("\n").slice(0, 1).join("\n") });
  assert.deepEqual(said(await checkSpace(other.view, spool, root, disk(20 * GiB)), "bad"), []);
  const hidden = machine(t, mounted("rw"), { dmesg: 1 });
  assert.match(
    said(await checkSpace(hidden.view, spool, root, disk(20 * GiB)), "unseen").join(),
    /whether the kernel complains of this disk: it refuses/,
  );
});

test("space: a state directory of another user's is bad", async (t) => {
  const { view } = machine(t, mounted("rw"), { dmesg: "" });
  assert.match(
    said(await checkSpace(view, spool, pi, disk(20 * GiB)), "bad").join(),
    /belongs to the user with id 0, and the daemon is pi \[sudo chown -R pi/,
  );
});

test("power: the bits are told in words, now and since the start", async (t) => {
  assert.deepEqual(throttledText(0x50005), {
    now: ["the supply voltage is too low", "the processor is throttled"],
    before: [],
  });
  assert.deepEqual(throttledText(0x90000).before, ["the supply voltage was too low", "the soft limit of the temperature was reached"]);
  const file = "/sys/devices/platform/soc/soc:firmware/get_throttled";
  assert.match(said(await checkPower(machine(t, { [file]: "50005\n" }).view), "bad").join(), /now the supply voltage is too low/);
  assert.match(
    said(await checkPower(machine(t, { [file]: "50000\n" }).view), "warn").join(),
    /since it started the supply voltage was too low/,
  );
  const model = { "/proc/device-tree/model": "Raspberry Pi 5\0" };
  assert.match(said(await checkPower(machine(t, model, { vcgencmd: "throttled=0x0\n" }).view), "ok").join(), /its power is enough/);
  assert.match(said(await checkPower(machine(t, model).view), "unseen").join(), /vcgencmd is not there/);
  assert.deepEqual(await checkPower(machine(t, {}).view), [], "nothing is said of a machine that is no Pi");
});

test("certificates: what expires soon, has expired, or is not valid yet is told; a pinned one has no time", () => {
  const one = (from: number, until: number, pinned = false) =>
    certificateFindings(
      "ground",
      { name: "ground", fromMs: now + from * 864e5, untilMs: now + until * 864e5, fingerprint: "SHA256:x", pinned },
      now,
    );
  assert.match(said(one(-10, 5.5), "warn").join(), /expires in 5 days, on 2026-11-26/);
  assert.match(said(one(-10, -1), "bad").join(), /expired on 2026-11-20, 1 day ago/);
  assert.match(said(one(1, 90), "bad").join(), /valid from 2026-11-22, and it is 2026-11-21 here \[timedatectl/);
  assert.equal(one(-10, 90)[0]?.severity, "ok");
  assert.equal(one(-10, -1, true)[0]?.severity, "ok");
});

test("unit: what systemd says of it, and as which user the daemon is", async (t) => {
  const show = (more: string) =>
    `LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nResult=success\nNRestarts=0\nUser=filesync\nSupplementaryGroups=dialout\n${more}`;
  const files = {
    "/run/systemd/system/x": "",
    "/etc/passwd": "filesync:x:990:990::/:/bin/false\n",
    "/etc/group": "filesync:x:990:\ndialout:x:20:\nvideo:x:44:filesync\n",
  };
  const well = machine(t, files, { systemctl: show("") });
  const unit = await unitOf(well.view);
  assert.deepEqual(daemonUser(well.view, unit), { name: "filesync", uid: 990, groups: [990, 44, 20] });
  assert.equal((await checkUnit(well.view, unit, true))[0]?.severity, "ok");
  const failed = machine(t, files, {
    systemctl: show("ActiveState=failed\nResult=exit-code\nExecMainStatus=2\n"),
    journalctl: "filesync: there is no /x\n",
  });
  assert.match(
    said(await checkUnit(failed.view, await unitOf(failed.view), false), "bad").join(),
    /it failed \(exit-code, exit status 2\); it said last: filesync: there is no \/x/,
  );
  const off = machine(t, files, { systemctl: show("UnitFileState=disabled\nActiveState=inactive\n") });
  assert.equal(said(await checkUnit(off.view, await unitOf(off.view), false), "warn").length, 2);
  const ground = machine(t, files, {
    "systemctl show filesync.service": show("UnitFileState=disabled\nActiveState=inactive\n"),
    "systemctl show filesync-ground.service": show("NRestarts=2\n"),
  });
  assert.match(
    said(await checkUnit(ground.view, await unitOf(ground.view), true), "warn").join(),
    /^filesync-ground\.service.*started again 2 times.*journalctl -u filesync-ground /,
  );
  const none = machine(t, files, { systemctl: "LoadState=not-found\n" });
  assert.match(said(await checkUnit(none.view, await unitOf(none.view), false), "warn").join(), /there is no such unit/);
  assert.deepEqual(await checkUnit(machine(t, {}).view, undefined, false), []);
});

test("unit: what is typed names the one that this machine has; a directory that it sees another one of is told", async (t) => {
  const show = (more: string) => `LoadState=loaded\nUnitFileState=${more}\nPrivateTmp=yes\n`;
  const on = async (vehicle: string, ground: string) =>
    unitOf(
      machine(
        t,
        { "/run/systemd/system/x": "" },
        { "systemctl show filesync.service": show(vehicle), "systemctl show filesync-ground.service": show(ground) },
      ).view,
    );
  const ground = await on("disabled", "enabled");
  for (const [line, words] of [
    ["filesync run   # or: sudo systemctl restart filesync", "filesync run   # or: sudo systemctl restart filesync-ground"],
    ["journalctl -u filesync -n 50 --no-pager", "journalctl -u filesync-ground -n 50 --no-pager"],
    ["sudo systemctl enable --now filesync-mount.socket", "sudo systemctl enable --now filesync-mount.socket"],
    ["journalctl -u filesync-ground -n 50", "journalctl -u filesync-ground -n 50"],
  ] as const) {
    assert.equal(forUnit(ground, line), words);
    assert.equal(forUnit(await on("enabled", "disabled"), line), line);
  }
  assert.match(hiddenText(ground, "/var/tmp/logs") ?? "", /has a \/var\/tmp of its own.*elsewhere for \/var\/tmp\/logs/);
  for (const dir of ["/tmpfs", "/srv/tmp", undefined]) assert.equal(hiddenText(ground, dir), undefined);
});

test("versions: an old Node is bad, a daemon of another version is told", (t) => {
  const { view } = machine(t, { "/etc/os-release": 'PRETTY_NAME="Raspbian"\n', "/proc/sys/kernel/osrelease": "6.6\n" });
  const versions = { filesync: "1.1.0", node: "20.19.0", arch: "arm64", daemon: undefined };
  assert.deepEqual(said(checkVersions(view, versions), "ok"), ["versions: FileSync 1.1.0, Node 20.19.0 (arm64), kernel 6.6, Raspbian []"]);
  assert.equal(checkVersions(view, versions).length, 1);
  assert.match(said(checkVersions(view, { ...versions, node: "20.18.9" }), "bad").join(), /FileSync needs 20\.19 or newer/);
  assert.match(
    said(checkVersions(view, { ...versions, daemon: "1.0.0" }), "warn").join(),
    /runs is FileSync 1\.0\.0, the one that is installed 1\.1\.0/,
  );
});
