/** A ground station with a registry, from nothing: a vehicle in the same machine registers, and sends by rsync through the door below the hardened unit. */
import type { Machine } from "../machine.js";
import { indented, type Installed, mib, mostAgain } from "./installed.js";

const service = "filesync-ground.service";
const root = "/srv/filesync-vehicles";
const bytes = 24 * mib;

export async function registry(on: Installed): Promise<void> {
  const m = on.machine;
  const row = (what: string, value: string, ok?: boolean) => on.results.row("registry", what, value, ok);
  const said = await m.must("/root/filesync/deploy/deploy-ftp.sh --registry");
  on.given.say(indented(said));
  const fingerprint = /--fingerprint (SHA256:\S+) /.exec(said)?.[1] ?? "none";
  const shell = (await m.must("getent passwd filesync")).trim().split(":").at(-1) ?? "";
  row("the service; the shell of its user", `${await state(m)}; ${shell}`, (await state(m)) === "active" && shell === "/bin/sh");
  const probe = await m.run("filesync check --probe");
  row("check --probe, beside it", probe.code === 0 ? "nothing is wrong" : probe.out + probe.err);

  await m.must(`mkdir -p /root/plane/in && head -c ${bytes} /dev/urandom >/root/plane/in/a.ulg`);
  await m.writeFile(
    "/root/plane/config.json",
    JSON.stringify({
      vehicle: "plane-1",
      stateDir: "state",
      devices: { in: { type: "local", dir: "in", settle: "0s", archiveDir: "archive" } },
      routes: [],
    }),
  );
  const register = `cd /root/plane && filesync register --config config.json --server https://127.0.0.1:8443 --fingerprint ${fingerprint} --email you@example.org --vehicle plane-1`;
  await m.must(`(${register}) >/root/plane/register.log 2>&1 </dev/null & echo started`);
  let waiting = "";
  await on.until(
    "that the registration waits",
    async () => {
      const { waiting: all } = JSON.parse(await m.must("filesync registry list --json")) as { waiting: { id: string }[] };
      waiting = all[0]?.id ?? "";
      return waiting !== "";
    },
    120,
  );
  await m.must(`filesync registry confirm ${waiting}`);
  await on.until("that the vehicle knows", async () => (await m.must("cat /root/plane/config.json")).includes('"apsync"'), 120);
  row("registered, and confirmed by the operator", (await m.must("grep ^Registered /root/plane/register.log")).trim());

  // So slow that the power can be cut in the middle of it.
  await m.must(`sed -i 's/"type": *"apsync"/"type": "apsync", "maxRate": "1MiB\\/s"/' /root/plane/config.json`);
  await send(m);
  await come(on, 10 * mib);
  const had = await incoming(m);
  await m.powerCut();
  await m.boot();
  await on.until("that the station is ready", async () => (await state(m)) === "active", 600);
  const kept = await incoming(m);
  row(
    `the power is cut at ${(had / mib).toFixed(1)} MiB of 24 or later; what the station has of it then`,
    `${(kept / mib).toFixed(1)} MiB`,
    had - kept <= mostAgain,
  );
  await send(m);
  await come(on, Math.max(14 * mib, kept + 2 * mib));
  await m.must(`systemctl restart ${service}`);
  await on.until("that the log is archived", async () => (await m.run("test -e /root/plane/in/a.ulg")).code !== 0, 600);
  const slots = (await m.must(`ls ${root}/*/plane-1-*/`)).trim().split("\n");
  const same = await m.run(`cmp /root/plane/in/archive/*/a.ulg ${root}/*/plane-1-*/*/in/a.ulg`);
  row(
    "a restart of the station in the middle too; slots, and the log there and in the archive",
    `${slots.length}; ${same.code === 0 ? "equal" : same.out + same.err}`,
    slots.length === 1 && same.code === 0,
  );

  await m.must(`head -c ${bytes} /dev/urandom >/root/plane/in/b.ulg`);
  await come(on, mib);
  const begun = performance.now();
  await m.must("filesync registry revoke plane-1");
  const after = await incoming(m);
  await m.must("sleep 3");
  row(
    "revoked in the middle of an upload; what came after the command had ended",
    `${((await incoming(m)) - after).toString()} bytes; the command took ${((performance.now() - begun) / 1000 - 3).toFixed(1)} s`,
    (await incoming(m)) === after,
  );
  await on.until("that the vehicle says why", async () => /revoked/.test((await m.run("cd /root/plane && filesync status")).out), 120);
  const left = await m.must("pkill -f '[r]un --config /root/plane/config.json'; ps -u filesync -o args= | grep -c '[s]shd' || true");
  const denied = await m.run(`journalctl -q --no-pager -o cat -b -k | grep -c 'audit.*filesync' || true`);
  row("sshd of it that are left; system calls that the unit refused, in the journal", `${left.trim()}; ${denied.out.trim()}`);
  await m.must("rm -r /root/plane");
  await m.must("/opt/filesync/current/deploy/deploy-ftp.sh --uninstall --purge");
}

async function state(m: Machine): Promise<string> {
  return (await m.run(`systemctl is-active ${service}`)).out.trim();
}

async function send(m: Machine): Promise<void> {
  await m.must("(filesync run --config /root/plane/config.json) >>/root/plane/run.log 2>&1 </dev/null & echo started");
}

/** Bytes that wait in a slot, wherever rsync has them. */
async function incoming(m: Machine): Promise<number> {
  return Number(
    (await m.must(`find ${root} -path '*/.incoming/*' -type f -printf '%s\\n' | awk '{ n += $1 } END { print n + 0 }'`)).trim(),
  );
}

function come(on: Installed, atLeast: number): Promise<void> {
  return on.until(`that ${atLeast} bytes came`, async () => (await incoming(on.machine)) >= atLeast, 300);
}
