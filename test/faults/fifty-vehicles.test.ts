/** Fifty vehicles send at once into one station, which is a process: nothing is lost, nobody starves, and its memory stays. Each vehicle is its device in this process, with real ssh and rsync. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { setMaxListeners } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import * as v from "valibot";
import { ask } from "../../core/control.js";
import { isFault } from "../../core/errors.js";
import type { Upload } from "../../core/plugin.js";
import { RegistryClient } from "../../plugins/apsync/client.js";
import { ApsyncDevice } from "../../plugins/apsync/device.js";
import { newKey, readKey } from "../../plugins/apsync/key.js";
import { options } from "../../plugins/apsync/options.js";
import { freePort } from "../conformance/ftp-servers.js";
import { context, memo, realClock } from "../conformance/upload.js";
import { Program } from "./process.js";

const missing = ["sshd", "rsync", "rrsync", "ssh"].filter(
  (program) => spawnSync("sh", ["-c", `PATH=$PATH:/usr/sbin command -v ${program}`]).status !== 0,
);
const vehicles = 50;
const bytes = 512 * 1024;
/** More of them by hand: whether it grows with each. */
const flights = Number(process.env["FILESYNC_TEST_FLIGHTS"] ?? 1);
const signal = new AbortController().signal;
// All of them listen to it at once.
setMaxListeners(0, signal);

test(
  "fifty vehicles at once: all arrives, and the station is no larger for it",
  { skip: missing.length > 0 ? `${missing.join(", ")} not installed` : false },
  async (t) => {
    const dir = mkdtempSync(join(tmpdir(), "filesync-fifty-"));
    const devices: ApsyncDevice[] = [];
    t.after(async () => {
      await Promise.all(devices.map((device) => device.close()));
      await Program.killBelow(dir);
      rmSync(dir, { recursive: true, force: true });
    });
    const [port, doorPort] = [await freePort(), await freePort()];
    const config = join(dir, "config.json");
    // "proxy": without TLS.
    const registry = {
      ...{ type: "registry", listen: `127.0.0.1:${port}`, proxy: true, root: "vehicles", keepFree: 0 },
      door: { listen: `127.0.0.1:${doorPort}` },
    };
    writeFileSync(config, JSON.stringify({ stateDir: "state", services: { registry } }));
    const station = new Program(["run", "--json", "--config", config]);
    await station.until(({ facts }) => facts?.doorPort !== undefined, "the registry's start");
    const url = `http://127.0.0.1:${port}`;

    const clock = realClock();
    const fleet: { readonly device: ApsyncDevice; readonly id: string; readonly own: string }[] = [];
    for (let n = 0; n < vehicles; n++) {
      const own = join(dir, `plane-${n}`);
      mkdirSync(own);
      const privateKey = join(own, "key");
      writeFileSync(privateKey, newKey("x"), { mode: 0o600 });
      // Each from an address of its own, as behind the proxy.
      const signer = () => readKey(privateKey);
      const client = new RegistryClient({ url, tls: {}, timeout: 30_000, headers: { "X-Forwarded-For": `192.0.2.${n}` } }, clock, signer);
      const asked = await client.register({ email: `owner-${n}@example.org`, vehicle: `plane ${n}` }, signal);
      await ask(join(dir, "state"), { command: "order", type: "registry", words: ["confirm", asked.id] });
      const { access } = await client.registration(asked.id, signal);
      client.close();
      assert.ok(access);
      const { station: id, user, hostKey } = access;
      const given = v.parse(options, { url, station: id, host: "127.0.0.1", port: doorPort, user, hostKey, privateKey });
      const device = new ApsyncDevice(given, context({ stateDir: join(own, "state") }));
      devices.push(device);
      fleet.push({ device, id: access.vehicleId, own });
    }
    const rssOf = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${station.pid}/status`, "utf8"))?.[1] ?? 0) / 1024;
    const had = [rssOf()];
    for (let flight = 1; flight <= flights; flight++) {
      const beganMs = performance.now();
      await Promise.all(fleet.map((one) => fly(one, `log-${flight}.bin`)));
      had.push(rssOf());
      const mib = had.map((it) => Math.round(it)).join(", ");
      t.diagnostic(`${vehicles} vehicles in ${Math.round(performance.now() - beganMs)} ms; the station had ${mib} MiB`);
    }
    for (const { id, own } of fleet) {
      const [owner] = readdirSync(join(dir, "vehicles")).filter((it) => existsSync(join(dir, "vehicles", it, id)));
      const at = join(dir, "vehicles", owner ?? "", id);
      const slots = readdirSync(at);
      assert.equal(slots.length, 1);
      for (let flight = 1; flight <= flights; flight++)
        assert.ok(readFileSync(join(at, slots[0] ?? "", `log-${flight}.bin`)).equals(readFileSync(join(own, `log-${flight}.bin`))));
    }
    const [before = 0] = had;
    assert.ok(rssOf() - before < 60, `${Math.round(before)} MiB became ${Math.round(rssOf())} MiB`);
  },
);

async function fly({ device, own }: { readonly device: ApsyncDevice; readonly own: string }, name: string): Promise<void> {
  const content = randomBytes(bytes);
  writeFileSync(join(own, name), content);
  const upload = uploadOf(name, join(own, name), createHash("sha256").update(content).digest("hex"));
  for (;;)
    try {
      await device.target.offset(upload, signal);
      await device.target.write(upload, 0, signal, () => undefined);
      const receipt = await device.target.commit(upload, signal);
      assert.ok(!("occupied" in receipt) && receipt.proof === "digest");
      return;
    } catch (error) {
      // As core does: again, a moment later.
      if (!isFault(error, "offline", "transient", "throttled")) throw error;
      await realClock().sleep(1000, signal);
    }
}

function uploadOf(path: string, localPath: string, digest: string): Upload {
  const never = () => {
    throw new Error("it is sent from its path");
  };
  const id = randomBytes(8).toString("hex");
  return {
    ...{ id, path, partialPath: `.${path}.0a1b2c3d-${id}.part`, size: bytes, expect: { kind: "absent" }, sealed: true },
    ...{ digest: `sha256:${digest}`, localPath, memo: memo(), read: never, chunks: never },
  };
}
