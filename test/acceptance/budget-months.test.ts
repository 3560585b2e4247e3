/** A month's budget of a real FTP server and of rsync, with the program's clock set by the test: kills, a month's end, a clock that nobody set, one that goes back. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { ask } from "../../core/control.js";
import { until } from "../conformance/clause.js";
import { vsftpd } from "../conformance/ftp-servers.js";
import { rsyncShell } from "../conformance/rsync-servers.js";
import { clockEnv, hasFakeClock } from "../faults/fake-clock.js";
import { Program } from "../faults/process.js";
import { Random } from "../faults/random.js";
import { World } from "../faults/world.js";

interface Status {
  readonly devices: readonly { readonly name: string; readonly held?: string }[];
}

const month = 2_000_000;

/** Of all that runs: its words, and what it has open. */
function processes(): { readonly words: string; readonly open: readonly string[] }[] {
  const orNot = <T>(look: () => T, none: T): T => {
    try {
      return look();
    } catch {
      // It has ended, or is another user's.
      return none;
    }
  };
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => ({
      words: orNot(() => readFileSync(`/proc/${pid}/cmdline`, "utf8"), ""),
      open: orNot(() => readdirSync(`/proc/${pid}/fd`), []).map((fd) => orNot(() => readlinkSync(`/proc/${pid}/fd/${fd}`), "")),
    }));
}

for (const { type, kind, rate, size, tellsLate } of [
  { type: "ftp", kind: vsftpd, rate: "800kB/s", size: 5_000_000, tellsLate: 0 },
  // It tells once a second what it sends; what went since, and goes until it notices that nobody listens, is not counted.
  { type: "rsync", kind: rsyncShell, rate: "400kB/s", size: 9_000_000, tellsLate: 1_000_000 },
])
  test(
    `${kind.name}: a month's budget over kills, a clock that nobody set, the month's end, and a clock that goes back a month`,
    { skip: kind.skip ?? (hasFakeClock ? false : "faketime is missing"), timeout: 240_000 },
    async (t) => {
      const server = await kind.start();
      t.after(() => server.stop());
      const world = new World(t);
      const bytes = new Random(11).bytes(size);
      world.file("in/a.bin", bytes);
      const { user, password } = { user: undefined, password: undefined, ...server };
      const config = world.config({
        devices: {
          in: { type: "local", dir: "in", settle: "0s", interval: "1h" },
          out: {
            type,
            ...{ host: "127.0.0.1", port: server.port, ...(user === undefined ? {} : { user, password }) },
            ...("seen" in server ? { root: server.seen } : {}),
            ...server.options,
            budget: { month: `${month}B` },
          },
        },
        routes: [{ from: "in", to: ["out"], into: "", maxRate: rate }],
      });
      const clock = world.path("clock");
      const env = { ...process.env, ...clockEnv(clock), TZ: "UTC" };
      const at = (time: string) => writeFileSync(clock, `${Math.round((Date.parse(time) - Date.now()) / 1000)}`.replace(/^(?!-)/, "+"));
      const run = () => {
        const program = new Program(["run", "--json", "--config", config], { env });
        t.after(() => program.kill());
        return program;
      };
      const there = () =>
        readdirSync(server.dir)
          .filter((name) => name.includes("a.bin"))
          // It may get its name just now.
          .reduce((sum, name) => sum + (statSync(join(server.dir, name), { throwIfNoEntry: false })?.size ?? 0), 0);
      // The daemon is asked itself: a program that starts for each look takes what it looks at its processor.
      const held = async () => {
        const answer = await ask(world.path("state"), { command: "status" });
        return (answer?.ok as Status | undefined)?.devices.find(({ name }) => name === "out")?.held ?? "";
      };
      // What was on its way when the budget ended is written by the other end until that ends, or closes the file.
      const isWritten = () =>
        !processes().some(
          ({ words, open }) =>
            (words.includes("--server") && words.includes(server.dir)) || open.some((path) => path.startsWith(`${server.dir}/`)),
        );
      const heldUntil = (words: RegExp) => until(`held: ${String(words)}`, async () => words.test(await held()) && isWritten());

      at("2027-03-30T12:00:00Z");
      const first = run();
      await until("some of it", () => there() > 300_000);
      await first.kill();
      const second = run();
      await until("more of it", () => there() > 900_000);
      await second.kill();
      const kills = 2;
      const program = run();
      await heldUntil(/^its budget of 2\.0 MB a month is used up; the next begins in 35 h/);
      const march = there();
      // A kill takes what was on its way, and a step of the budget; nothing gives more.
      assert.ok(march > 900_000 && march <= month + (kills + 1) * tellsLate, `${march} bytes`);

      at("2023-05-01T00:00:00Z");
      await heldUntil(/a month is used up, and nobody knows the time, so no new month begins$/);
      assert.equal(there(), march);

      at("2027-04-01T00:00:10Z");
      await until("April's", () => there() > march);
      await heldUntil(/a month is used up; the next begins in 719 h/);
      const april = there();
      assert.ok(april - march <= month + (kills + 1) * tellsLate && april < size, `${april - march} bytes`);

      at("2027-03-02T00:00:00Z");
      await heldUntil(/a month is used up; the next begins in (719|720) h/);
      assert.equal(there(), april, "March had what it has");
      await program.kill();
      const back = run();
      await heldUntil(/a month is used up/);
      assert.equal(there(), april, "also after a kill");
      at("2027-04-02T00:00:00Z");
      await heldUntil(/a month is used up; the next begins in 69\d h/);
      assert.equal(there(), april, "April too");

      const isThere = () => back.events.some(({ what }) => what === "delivered");
      for (let month = 5; month < 10 && !isThere(); month++) {
        const before = there();
        at(`2027-0${month}-01T00:00:10Z`);
        await until(`what the month ${month} gives`, async () => isThere() || (there() > before && (await held()) !== ""));
      }
      assert.ok(isThere(), "all of it, month by month");
      assert.ok(readFileSync(join(server.dir, "a.bin")).equals(bytes));
    },
  );
