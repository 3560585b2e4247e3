/** What a daemon keeps of each file: the heap of a vehicle's and of the ground's that it sends to, after a collection, while small files come and leave their source again. */
import { mkdirSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startGround } from "../test/faults/ground.js";
import { Program } from "../test/faults/process.js";
import { heading, inTempDir, mb, table } from "./measure.js";

const batch = 5000;
const batches = 5;

/** Says its heap when it is asked by a signal. */
const telling = `
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc");
process.on("SIGUSR2", () => {
  gc();
  console.log(JSON.stringify({ level: "debug", what: "heap", message: String(process.memoryUsage().heapUsed) }));
});`;
const wrap = ["env", `NODE_OPTIONS=--import=data:text/javascript,${encodeURIComponent(telling)}`];

async function heapOf(program: Program): Promise<number> {
  const asked = program.events.length;
  program.signal("SIGUSR2");
  const { message } = await program.until((event) => event.what === "heap" && program.events.indexOf(event) >= asked, "its heap");
  return Number(message);
}

export async function growth(): Promise<void> {
  heading("growth");
  const rows: string[][] = [];
  await inTempDir(async (dir) => {
    const ground = await startGround(join(dir, "ground"), 0, { wrap });
    const from = join(dir, "in");
    mkdirSync(from);
    const config = join(dir, "vehicle.json");
    writeFileSync(
      config,
      JSON.stringify({
        stateDir: "state",
        devices: {
          in: { type: "local", dir: "in", settle: "0s", interval: "1s" },
          ground: { type: "ftp", host: "127.0.0.1", port: ground.port, user: "plane", password: "secret" },
        },
        routes: [{ from: "in", to: ["ground"] }],
      }),
    );
    const vehicle = new Program(["run", "--json", "--config", config], { wrap });
    let delivered = 0;
    for (let done = 0; done < batch * batches; done += batch) {
      for (let n = done; n < done + batch; n++) {
        const path = join(from, `f${String(n).padStart(6, "0")}.bin`);
        writeFileSync(path, `file ${n}`);
        utimesSync(path, 1_780_000_000, 1_780_000_000);
      }
      let seen = 0;
      const all = () => {
        for (; seen < vehicle.events.length; seen++) if (vehicle.events[seen]?.what === "delivered") delivered += 1;
        return delivered >= done + batch;
      };
      await vehicle.until(all, "all to be delivered", 600_000);
      vehicle.events.length = ground.program.events.length = 0;
      for (const name of readdirSync(from)) rmSync(join(from, name));
      rows.push([String(done + batch), mb(await heapOf(vehicle)), mb(await heapOf(ground.program))]);
    }
    await Promise.all([vehicle.kill(), ground.program.kill()]);
  });
  table(["files so far", "vehicle, MB of heap", "ground, MB of heap"], rows);
}
