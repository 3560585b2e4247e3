/** Installed, at work, upgraded. */
import { compare } from "../evidence.js";
import { pause } from "../sessions.js";
import { fill, makeStick, treeIn } from "../sticks.js";
import { deploy, indented, type Installed, mib, mostAgain, port, unit } from "./installed.js";

/** From nothing to delivered files by one script; said twice it changes nothing; a dry run neither. */
export async function bare(on: Installed): Promise<void> {
  const m = on.machine;
  await m.must(`timeout 60 sh -c "until [ -e ${port} ]; do sleep 0.2; done"`);
  await m.must("install -d /srv/flights");
  await m.writeFile("/root/config.json", on.config());
  const before = await on.files();
  const dry = await m.must(`${deploy} --config /root/config.json --dry-run`);
  on.results.row(
    "bare",
    "a dry run names what it would do, and changes nothing",
    dry.split("\n").length - 1,
    (await on.files()) === before,
  );

  const begun = performance.now();
  const said = await m.must(`${deploy} --config /root/config.json`);
  const installed = performance.now();
  on.given.say(indented(said));
  // The directory of a target is the user's own to give.
  await m.must("chown filesync: /srv/flights");
  await on.delivered("bare");
  const seconds = (from: number) => `${((performance.now() - from) / 1000).toFixed(0)} s`;
  on.results.row(
    "bare",
    "from a bare machine to ready; to all logs delivered (under emulation)",
    `${((installed - begun) / 1000).toFixed(0)} s; ${seconds(begun)}`,
  );
  await on.judgeTree("bare");

  const rules = await m.must("udevadm test $(udevadm info -q path -n /dev/ttyUSB0) 2>&1 | grep 60-filesync");
  on.results.row(
    "bare",
    "udev reads the rules, and has nothing to say of them",
    rules.trim().split("\n").length,
    /^Reading rules file: \S+$/.test(rules.trim()),
  );

  const was = await on.files();
  const pid = await on.pid();
  const again = await m.must(deploy);
  on.results.row(
    "bare",
    "said twice: the same files, the same process",
    again.trim().split("\n").at(-1) ?? "",
    (await on.files()) === was && (await on.pid()) === pid,
  );
  on.results.row("bare", "belongs to", await m.must("stat -c '%U:%G %a' /etc/filesync/config.json /var/lib/filesync | paste -sd,"));
}

/** What systemd does for it: killed, hung, misconfigured; how it is fenced in, and what it costs. */
export async function service(on: Installed): Promise<void> {
  const m = on.machine;
  await m.must("kill -9 $(systemctl show -P MainPID filesync)");
  await on.ready();
  on.results.row("service", "killed (9): restarted, ready", `restarts: ${(await m.must(`systemctl show -P NRestarts ${unit}`)).trim()}`);

  await m.pullPort(on.port);
  await m.must("systemctl stop filesync && modprobe -r ftdi_sio usbserial && systemctl start filesync");
  await m.plugPort(on.port);
  on.fly(mib);
  await on.delivered("service");
  on.results.row("service", "a port that is plugged in after the start, whose driver was not loaded then", "files arrive");

  // A loop that hangs: in the program itself, through the door that Node.js has for a debugger.
  await m.must(
    `mkdir -p /run/systemd/system/${unit}.d && printf '[Service]\\nWatchdogSec=20\\n' >/run/systemd/system/${unit}.d/soon.conf && systemctl daemon-reload && systemctl restart filesync`,
  );
  const pid = await on.pid();
  await m.must(`kill -USR1 ${pid}`);
  const debugging = "/run/debugging";
  await m.run(
    `: >${debugging}; (for n in $(seq 200); do grep -q 'debug>' ${debugging} && break; sleep 0.2; done; echo 'exec("for(;;);")'; sleep 60) | timeout 60 /opt/filesync/current/node/bin/node inspect -p ${pid} >${debugging} 2>&1`,
  );
  await on.until("that the watchdog ends it", async () => (await on.pid()) !== pid, 120);
  await on.ready();
  const journal = await m.must(`journalctl -q --no-pager -o cat -u ${unit} -n 50`);
  on.results.row(
    "service",
    "a loop that hangs: ended by the watchdog, ready again",
    /[Ww]atchdog.*/.exec(journal)?.[0] ?? "no word of it",
    /[Ww]atchdog/.test(journal),
  );
  await m.must(`rm -r /run/systemd/system/${unit}.d && systemctl daemon-reload && systemctl restart filesync`);

  const kept = await m.must("cat /etc/filesync/config.json");
  await m.writeFile(
    "/etc/filesync/config.json",
    '{\n  "devices": { "pixhawk": { "type": "mavftp", "urll": "serial:///dev/x" } },\n  "routes": [\n}\n',
  );
  await m.run("systemctl restart filesync");
  const status = (await m.run(`systemctl status --no-pager ${unit}`)).out;
  on.results.row(
    "service",
    "a configuration that does not parse, in systemctl status",
    /Status: .*/.exec(status)?.[0] ?? status,
    /Status: .*config\.json:\d+/.test(status) && status.includes("failed"),
  );
  await m.writeFile("/etc/filesync/config.json", kept);
  await m.must("systemctl restart filesync");
  await on.ready();

  const secret = "p4ssword-of-the-ground";
  await m.must(`printf '%s\\n' ${secret} >/etc/filesync/credentials/ground && chmod 600 /etc/filesync/credentials/ground`);
  const withSecret = { ...(JSON.parse(kept) as { devices: object }) };
  withSecret.devices = {
    ...withSecret.devices,
    ground: { type: "ftp", host: "127.0.0.1", port: 1, user: "u", password: { credential: "ground" }, secure: false },
  };
  await m.writeFile("/etc/filesync/config.json", JSON.stringify(withSecret));
  await m.must("systemctl restart filesync");
  const { devices } = await on.status();
  on.results.row(
    "service",
    "a secret by systemd's credentials",
    devices.some(({ name }) => name === "ground") ? "yes" : "the device was left out",
    devices.some(({ name }) => name === "ground"),
  );
  on.results.row(
    "service",
    "an ordinary user cannot read it",
    "yes",
    (await m.run("setpriv --reuid=65534 --regid=65534 --clear-groups cat /etc/filesync/credentials/ground")).code !== 0,
  );
  await m.writeFile("/etc/filesync/config.json", kept);
  await m.must("systemctl restart filesync");
  await on.ready();
}

/** With nothing to do, an autopilot plugged that is listed every 5 s. */
export async function idle(on: Installed): Promise<void> {
  const { machine: m, given } = on;
  for (const name of ["filesync.service", "filesync-ground.service"]) {
    const level = /([\d.]+) \w+ \S*$/.exec((await m.must(`systemd-analyze security --no-pager ${name} | tail -n 1`)).trim())?.[1];
    on.results.row("idle", `systemd-analyze security ${name} (at most 2.0)`, level ?? "?", Number(level) <= 2);
  }
  await m.must(
    `mkdir -p /run/systemd/system/${unit}.d && printf '[Service]\\nIOAccounting=yes\\n' >/run/systemd/system/${unit}.d/io.conf && systemctl daemon-reload && systemctl restart filesync`,
  );
  await on.ready();
  await pause(30_000);
  const asked = "systemctl show -P MemoryCurrent -P CPUUsageNSec -P IOWriteBytes filesync | paste -sd' '";
  const look = async () => (await m.must(asked)).trim().split(" ").map(Number);
  const [, cpu0 = 0, io0 = 0] = await look();
  const memory: number[] = [];
  const begun = performance.now();
  for (let left = given.idleMinutes; left > 0; left--) {
    await pause(60_000);
    memory.push((await look())[0] ?? 0);
  }
  const seconds = (performance.now() - begun) / 1000;
  const [, cpu1 = 0, io1 = 0] = await look();
  const [first = 0, last = 0] = [memory[0], memory.at(-1)];
  const mebibytes = [first, Math.max(...memory), last].map((bytes) => (bytes / mib).toFixed(1)).join(", ");
  on.results.row(
    "idle",
    `${given.idleMinutes} min: memory of the unit after a minute, at most, at the end; of one processor (emulated); written`,
    `${mebibytes} MiB; ${((cpu1 - cpu0) / 1e7 / seconds).toFixed(1)} %; ${io1 - io0} bytes`,
  );
  await m.must(`rm -r /run/systemd/system/${unit}.d && systemctl daemon-reload && systemctl restart filesync`);
  await on.ready();
}

/** A stick, by the helper: the service is no root, and this machine has no udisks2. */
export async function disk(on: Installed): Promise<void> {
  const m = on.machine;
  for (const fs of ["vfat", "exfat", "ext4"] as const) {
    const stick = makeStick(m, { name: `stick-${fs}`, fs, mib: 64 });
    const tree = await fill(m, stick, on.random, 6 * mib);
    const config = JSON.parse(on.config()) as { devices: object; routes: object[] };
    await m.writeFile(
      "/etc/filesync/config.json",
      JSON.stringify({
        ...config,
        devices: { ...config.devices, [fs]: { type: "disk", uuid: stick.uuid } },
        routes: [...config.routes, { from: fs, to: ["out"] }],
      }),
    );
    await m.must("systemctl reload filesync");
    await m.plug(stick);
    await on.until(
      `that ${fs} is safe to be removed`,
      async () => (await on.status()).devices.some(({ name, safe }) => name === fs && safe === true),
      180,
    );
    const { lost, wrong } = compare(await treeIn(m, `/srv/flights/v/${fs}`), tree);
    on.results.row(
      "disk",
      `${fs}, mounted by the helper: lost, wrong of ${tree.size}`,
      `${lost.length}, ${wrong.length}`,
      lost.length + wrong.length === 0,
    );
    const by = await m.must("journalctl -q --no-pager -o cat -t filesync-mount | grep -c mounted || true");
    on.results.row("disk", "mounts that the helper tells of so far", by.trim(), Number(by) > 0);
    await m.pull(stick);
    await on.until(
      "that no mount is left",
      async () => (await m.run("findmnt -rno TARGET | grep -c /run/filesync/disks")).out.trim() === "0",
      60,
    );
  }
  await m.writeFile("/etc/filesync/config.json", on.config());
  await m.must("systemctl reload filesync");
}

/** Another version while files move: nothing is lost, nothing begins from zero, and it is the other version that goes on. */
export async function upgrade(on: Installed): Promise<void> {
  await on.version("upgraded", "");
  for (let n = 0; n < 3; n++) on.fly(6 * mib);
  await on.until("that a log is on its way", async () => ((await on.transfer())?.offset ?? 0) > mib, 180);
  const before = (await on.status()).transfers.filter(({ to }) => to === "spool");
  const said = await on.machine.must("/root/upgraded/deploy/deploy-filesync.sh");
  on.given.say(indented(said));
  await on.delivered("upgrade");
  const words = await on.machine.must(`journalctl -q --no-pager -o cat -u ${unit}`);
  const again = before.map(({ path, offset }) => {
    const at = words.match(new RegExp(`pixhawk:${path}: goes on at byte (\\d+)`, "g"))?.at(-1);
    // Whole by the time of the stop: nothing of it was moved again.
    return at === undefined ? 0 : offset - Number(/\d+$/.exec(at)?.[0]);
  });
  const worst = Math.max(0, ...again);
  on.results.row(
    "upgrade",
    `during a transfer at byte ${before.map(({ offset }) => offset).join(", ")}; moved again`,
    `${(worst / mib).toFixed(2)} MiB`,
    before.length > 0 && worst <= mostAgain,
  );
  on.results.row("upgrade", "runs now", await on.current(), (await on.current()).startsWith("0.0.1-upgraded"));
  await on.judgeTree("upgrade");

  await on.version("second", "");
  await on.machine.must("/root/second/deploy/deploy-filesync.sh");
  const loose = () => on.machine.must("find /etc/systemd /usr/local/lib/systemd \\( -lname '/opt/*' -o -lname '*filesync*' -xtype l \\)");
  on.results.row("upgrade", "twice: the unit is that of", await on.unitOf(), (await on.unitOf()) === "second");
  await on.machine.powerCut();
  await on.machine.boot();
  await on.ready();
  on.results.row("upgrade", "after a reboot the unit is that of", await on.unitOf(), (await on.unitOf()) === "second");
  on.results.none("upgrade", "links of systemd to a version, or to nothing", (await loose()).split("\n").filter(Boolean));

  // As FileSync was enabled before: by links of links, to a version that is deleted two upgrades later.
  await on.machine.must(
    [
      "for unit in filesync.service filesync-mount.socket; do ln -sf /opt/filesync/current/systemd/$unit /usr/local/lib/systemd/system/; done",
      `systemctl -q reenable ${unit} filesync-mount.socket && readlink /etc/systemd/system/${unit} | grep /opt/filesync/versions/`,
      `find /etc/systemd/system -lname '/opt/*' -printf '%p %f\\n' | while read -r link name; do ln -sfn /opt/filesync/versions/gone/systemd/$name $link; done`,
      "sync",
    ].join(" && "),
  );
  await on.machine.powerCut();
  await on.machine.boot();
  const without = await on.machine.run(`systemctl cat ${unit}`);
  on.results.row(
    "upgrade",
    "units of an earlier version that is gone: systemd knows none",
    `exit ${String(without.code)}`,
    without.code !== 0,
  );
  await on.version("third", "");
  await on.machine.must("/root/third/deploy/deploy-filesync.sh");
  on.results.row("upgrade", "after the next upgrade the unit is that of", await on.unitOf(), (await on.unitOf()) === "third");
  on.results.none("upgrade", "links of systemd to a version, or to nothing, then", (await loose()).split("\n").filter(Boolean));
  await on.machine.must("rm -rf /root/second /root/third");
}

const endsWith2 = 'console.error("it ends with 2"); process.exit(2);';

/** What ends with 2 is not started again by systemd: on trial, and nobody there, the version before is; but not of what was stopped, nor in turns. */
async function alone(on: Installed): Promise<void> {
  const m = on.machine;
  const good = await on.current();
  const goodUnit = await on.unitOf();
  const installed = (code: string) =>
    on.version("broken", code).then(() => m.must("/root/broken/deploy/deploy-filesync.sh --no-start && sync"));
  const row = async (what: string, ok: boolean, value = "") =>
    on.results.row("broken", what, `${value}${await on.current()}, unit of ${await on.unitOf()}`, ok);
  const isGood = async () => (await on.current()) === good && (await on.unitOf()) === goodUnit;
  const times = async () => `${(await m.must("journalctl -b -q --no-pager -o cat | grep -c '^it ends with 2' || true")).trim()} starts; `;

  await installed(endsWith2);
  await m.powerCut();
  await m.boot();
  await on.ready();
  const seen = await times();
  await row("ends with 2 at a boot, nobody there: back by itself, at its first start", seen === "1 starts; " && (await isGood()), seen);

  await installed(
    "process.on('SIGTERM', () => process.exit(2)); console.error('it can be stopped'); await new Promise(() => setInterval(() => undefined, 1000));",
  );
  await m.must("systemctl restart --no-block filesync");
  await on.until(
    "that it can be stopped",
    async () => (await m.run("journalctl -b -q --no-pager -o cat | grep -q '^it can be stopped'")).code === 0,
    120,
  );
  await m.must("systemctl stop filesync");
  const ended = (await m.must("systemctl show -P ExecMainStatus -P ActiveState filesync | paste -sd' '")).trim();
  await row("stopped on trial, with 2: it stays", ended === "2 failed" && !(await isGood()), `${ended}; `);

  const kept = await m.must("cat /etc/filesync/config.json");
  await installed(endsWith2);
  await m.writeFile("/etc/filesync/config.json", "{");
  await m.run("systemctl restart filesync");
  await on.until("that both have ended", async () => (await isGood()) && (await m.run("systemctl -q is-failed filesync")).code === 0, 120);
  await pause(10_000);
  const stays = (await m.must("systemctl show -P ExecMainStatus -P ActiveState filesync | paste -sd' '")).trim();
  await row("a configuration that neither can use: the one before stays ended", stays === "2 failed" && (await isGood()), `${stays}; `);
  await m.writeFile("/etc/filesync/config.json", kept);
  await m.must("systemctl restart filesync");
  await on.ready();
}

/** Versions that do not become ready: the one before runs again, with the script watching and with nobody there. */
export async function broken(on: Installed): Promise<void> {
  const good = await on.current();
  const goodUnit = await on.unitOf();
  const ways = {
    "does not start": "throw new Error('broken');",
    "ends soon after its start": "setTimeout(() => process.exit(1), 300);",
    "never gets ready": "await new Promise((resolve) => setInterval(() => undefined, 1000));",
    "ends with 2": endsWith2,
  };
  await alone(on);
  for (const [way, code] of Object.entries(ways)) {
    await on.version("broken", code);
    const { code: exit, err } = await on.machine.run("/root/broken/deploy/deploy-filesync.sh");
    await on.ready();
    const asGood = (await on.current()) === good && (await on.unitOf()) === goodUnit;
    on.results.row("broken", `${way}: ${err.trim().split("\n").at(-1) ?? ""}`, `exit ${String(exit)}`, exit === 1 && asGood);
  }
  // As if the power had gone right after the script switched over: nobody watches.
  await on.version("broken", ways["does not start"]);
  await on.machine.must("/root/broken/deploy/deploy-filesync.sh --no-start && sync");
  await on.machine.powerCut();
  await on.machine.boot();
  await on.ready();
  const back = `${await on.current()}, unit of ${await on.unitOf()}`;
  on.results.row("broken", "found at a boot, nobody there: back by itself", back, back === `${good}, unit of ${goodUnit}`);
  on.fly(mib);
  await on.delivered("broken");
  await on.judgeTree("broken");

  const upgrades = Math.max(2, Math.ceil(on.given.cuts / 5));
  const ended: string[] = [];
  for (let n = 1; n <= upgrades; n++) {
    await on.version(`cut${n}`, "");
    const upgrading = on.machine.run(`/root/cut${n}/deploy/deploy-filesync.sh`);
    await pause(on.random.between(500, 25_000));
    await on.machine.powerCut();
    await upgrading;
    await on.machine.boot();
    await on.ready();
    const runs = await on.current();
    ended.push(runs.includes(`cut${n}`) ? "new" : "old");
    const half = (
      await on.machine.must(
        "cd /opt/filesync && sha256sum --quiet -c current/SHA256SUMS 2>&1 | grep -v observer | head -3; (cd current && sha256sum --quiet -c SHA256SUMS) 2>&1 | head -3; true",
      )
    ).trim();
    if (half !== "" && !half.startsWith("sha256sum")) on.given.say(indented(half));
    await on.machine.must(`rm -rf /root/cut${n}`);
  }
  on.results.row("broken", `power cut at a random moment of an upgrade, ${upgrades} times: ready after the boot, as`, ended.join(" "));
  const last = await on.machine.must(`${deploy} && ls /opt/filesync/versions`);
  on.results.row("broken", "then upgraded once more; versions that are kept", last.trim().split("\n").slice(-2).join(" "));
  await on.judgeTree("broken, after the cuts");
}
