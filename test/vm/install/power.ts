/** What years on a card bring: cut power, clocks, a full card, a root that may only be read. */
import { putObserver } from "../daemon.js";
import { movedAgain } from "../evidence.js";
import { pause } from "../sessions.js";
import { makeStick } from "../sticks.js";
import { type Installed, mib, mostAgain, unit } from "./installed.js";

/** The power cut at random moments of real work. */
export async function cuts(on: Installed): Promise<void> {
  const { machine, daemon, random, given } = on;
  await putObserver(machine);
  await machine.must(
    `mkdir -p /etc/systemd/system/${unit}.d && printf '[Service]\\nExecStart=\\nExecStart=/opt/filesync/current/bin/filesync run --json --config /etc/filesync/config.json\\n' >/etc/systemd/system/${unit}.d/json.conf && systemctl daemon-reload && rm -rf /srv/flights/*`,
  );
  await daemon.start(JSON.parse(on.config()) as object);
  const slow: number[] = [];
  for (let n = 1; n <= given.cuts; n++) {
    on.fly(random.between(1, 4) * mib);
    await pause(random.between(0, 12_000));
    const at = daemon.moved?.transfers.map(({ from, to, offset }) => `${from} → ${to} at ${(offset / mib).toFixed(1)} MiB`).join(", ");
    await machine.powerCut();
    given.say(`  cut ${n} of ${given.cuts}: ${at === undefined || at === "" ? "nothing ran" : at}`);
    const begun = performance.now();
    await machine.boot();
    await daemon.observe();
    await on.ready();
    slow.push((performance.now() - begun) / 1000);
  }
  await on.delivered("cuts", 1200);
  on.results.row(
    "cuts",
    "power cuts; each time it booted, and was ready (the slowest, emulated)",
    `${given.cuts}; ${Math.max(...slow).toFixed(0)} s`,
  );
  const again = movedAgain(daemon.seen, () => true);
  const worst = again.reduce((most, one) => Math.max(most, one.bytes), 0);
  on.results.row("cuts", "moved again of one transfer after one of them, at most", `${(worst / mib).toFixed(2)} MiB`, worst <= mostAgain);
  await on.judgeTree("cuts");
  await daemon.stop();
  await machine.must(`rm -r /etc/systemd/system/${unit}.d && systemctl daemon-reload && systemctl -q enable --now filesync`);
  await on.ready();
}

/** What comes in years on a card: a clock that jumps, a card that is full at the boot, a root that may only be read, no network. */
export async function years(on: Installed): Promise<void> {
  const m = on.machine;
  const year = Number((await m.must("date +%Y")).trim());
  for (const to of [year + 12, 2001]) {
    on.fly(4 * mib);
    await on.until("that a log is on its way", async () => (await on.transfer()) !== undefined, 120);
    await m.must(`date -s '${to}-06-01 12:00:00'`);
    await on.delivered("years");
    const { queue } = await on.status();
    on.results.row(
      "years",
      `the clock jumps to ${to} during a transfer; restarts; set aside`,
      `${(await m.must(`systemctl show -P NRestarts ${unit}`)).trim()}; ${queue.parked}`,
      queue.parked === 0,
    );
    await m.must("systemctl restart filesync");
    await on.ready();
  }
  await m.must(`date -s '@${Math.round(Date.now() / 1000)}'`);

  await m.must("fallocate -l $(($(stat -f -c '%a*%S' /) - 200000)) /fill; sync");
  on.fly(2 * mib);
  await m.powerCut();
  await m.boot();
  await on.until("that it says so", async () => /waits for space/.test(await m.must(`systemctl show -P StatusText ${unit}`)), 180);
  const said = (await m.must(`systemctl show -P StatusText ${unit}`)).trim();
  await m.must("rm /fill");
  await on.delivered("years");
  on.results.row("years", "a full card at the boot; with room again it goes on by itself", said);

  const stick = makeStick(m, { name: "state", fs: "ext4", mib: 256 });
  await m.plug(stick);
  await m.must(
    [
      `until [ -e /dev/disk/by-uuid/${stick.uuid} ]; do sleep 0.2; done; systemctl stop filesync`,
      `mkdir -p /mnt/rw && mount /dev/disk/by-uuid/${stick.uuid} /mnt/rw && cp -a /var/lib/filesync /mnt/rw/state && cp -a /srv/flights /mnt/rw/flights && umount /mnt/rw`,
      `cp /etc/fstab /etc/fstab.before && echo 'UUID=${stick.uuid} /mnt/rw ext4 defaults 0 2' >>/etc/fstab`,
      "for one in state:/var/lib/filesync flights:/srv/flights; do echo /mnt/rw/${one%%:*} ${one#*:} none bind 0 0 >>/etc/fstab; done",
      "for dir in /tmp /var/tmp /var/log /var/lib/systemd; do echo tmpfs $dir tmpfs defaults 0 0 >>/etc/fstab; done",
      "sed -i 's#^/dev/vda / ext4 defaults#/dev/vda / ext4 ro#' /etc/fstab",
      // The network comes once the service is ready, and would never come if that waited for it.
      `printf '[Service]\nType=oneshot\nTimeoutStartSec=infinity\nExecStart=/bin/sh -c "until systemctl -q is-active ${unit}; do sleep 1; done; systemctl start systemd-networkd"\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/late.service`,
      "systemctl -q disable systemd-networkd.service systemd-networkd.socket && systemctl -q enable late.service && sync",
    ].join(" && "),
  );
  on.fly(2 * mib);
  await m.powerCut();
  await m.boot();
  await on.ready();
  await on.delivered("years");
  const root = (await m.must("for dir in / /var/lib/filesync; do findmnt -no OPTIONS $dir | cut -d, -f1; done | paste -sd' '")).trim();
  on.results.row("years", "a root that may only be read, one directory that may be written", root, root === "ro rw");
  const since = async (name: string) => Number(await m.must(`systemctl show -P ActiveEnterTimestampMonotonic ${name}`)) / 1e6;
  const [service, network] = [await since(unit), await since("systemd-networkd")];
  on.results.row(
    "years",
    "no network at the boot: the service is ready, the network is there, after",
    `${service.toFixed(0)} s, ${network.toFixed(0)} s`,
    service < network,
  );
  await on.judgeTree("years");
  await m.must(
    "systemctl stop filesync && mount -o remount,rw / && mv /etc/fstab.before /etc/fstab && systemctl -q disable late.service && systemctl -q enable systemd-networkd.service && rm /etc/systemd/system/late.service",
  );
  await m.must(
    "umount /srv/flights /var/lib/filesync && rm -rf /srv/flights /var/lib/filesync && cp -a /mnt/rw/flights /srv/flights && cp -a /mnt/rw/state /var/lib/filesync && umount /mnt/rw && rmdir /mnt/rw && systemctl daemon-reload && sync",
  );
  await m.pull(stick);
  await m.must("systemctl start filesync");
  await on.ready();
}
