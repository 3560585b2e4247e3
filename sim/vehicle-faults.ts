/** What happens to the vehicle, its card and its link, at a scripted moment or from the start. */
import type { FaultRow, World } from "./faults.js";
import { bytesOf, isBytes, isTime, parseWhen, time, whenForm, type When } from "./script.js";

/** "3s@open:2" as what and when; without "@" from the start. */
interface Scripted {
  readonly what: string;
  readonly when: When | undefined;
}

export function scripted(value: string): Scripted | undefined {
  const at = value.lastIndexOf("@");
  if (at === -1) return { what: value, when: undefined };
  const when = parseWhen(value.slice(at + 1));
  return when === undefined ? undefined : { what: value.slice(0, at), when };
}

function checks(what: (text: string) => boolean): (value: string) => boolean {
  return (value) => {
    const parsed = scripted(value);
    return parsed !== undefined && what(parsed.what);
  };
}

function runs(run: (what: string, world: World) => void): (value: string, world: World) => void {
  return (value, world) => {
    const parsed = scripted(value);
    if (parsed !== undefined) world.script.at(parsed.when, () => run(parsed.what, world));
  };
}

/** A row whose value is one or more moments, with commas between. */
function moments(name: string, form: string, run: (world: World) => void): FaultRow {
  return {
    name,
    form: `${form}, at ${whenForm}; more with commas between`,
    check: (value) => value.split(",").every((text) => parseWhen(text) !== undefined),
    start: (value, world) => {
      for (const text of value.split(",")) world.script.at(parseWhen(text), () => run(world));
    },
  };
}

/** A row whose value is a time, and when it begins. */
function spell(name: string, form: string, run: (ms: number, world: World) => void): FaultRow {
  return {
    name,
    form: `${form}, for a time from the start or from ${whenForm}: 3s@open:2`,
    check: checks(isTime),
    start: runs((what, world) => run(time(what), world)),
  };
}

const logWords = ["armed", "same", "rotate"];

export const vehicleFaults: readonly FaultRow[] = [
  moments("reboot", "power goes and comes back", (world) => world.reboot()),
  moments("arm", "the vehicle is armed", (world) => world.setArmed(true)),
  moments("disarm", "the vehicle is disarmed", (world) => world.setArmed(false)),
  {
    name: "unplug",
    form: `the cable is pulled for a time, at ${whenForm}: 2s@500kB; put back under another name: 2s,/tmp/ttyOTHER@500kB`,
    check: checks((what) => isTime(what.split(",")[0] ?? "") && what.split(",").length <= 2),
    start: runs((what, world) => {
      const [ms, at] = what.split(",");
      world.unplug(time(ms ?? "0s"), at);
    }),
  },
  spell("busy", "the card does not answer", (ms, world) => world.pause(ms)),
  spell("no-log", "no log is written", (ms, world) => world.failLog(ms)),
  spell("exhaust", "others have every file session", (ms, world) => world.exhaust(ms)),
  {
    name: "eio",
    form: `a byte of files that cannot be read, from the start or from ${whenForm}: 500kB, or only three times 500kB,3`,
    check: checks((what) => /^[^,]+(,[1-9]\d*)?$/.test(what) && isBytes(what.split(",")[0] ?? "")),
    start: runs((what, world) => {
      const [offset, times] = what.split(",");
      world.breakAt(bytesOf(offset ?? "0"), times === undefined ? Infinity : Number(times));
    }),
  },
  {
    name: "full",
    form: `the card takes only so many more bytes, from the start or from ${whenForm}: 20kB@write:5`,
    check: checks(isBytes),
    start: runs((what, world) => world.fill(bytesOf(what))),
  },
  {
    name: "grow",
    form: `the newest log grows, bytes a second: 20kB; only while armed, as a new log: 20kB,armed; the same one: 20kB,armed,same; a new one after each disarm: 20kB,rotate`,
    check: (value) => {
      const [rate, ...words] = value.split(",");
      return isBytes(rate ?? "") && words.every((word) => logWords.includes(word));
    },
    start: (value, world) => {
      const [rate, ...words] = value.split(",");
      const armed = words.includes("armed");
      world.log({ bytesPerSecond: bytesOf(rate ?? "0"), armed, rotates: armed ? !words.includes("same") : words.includes("rotate") });
    },
  },
  {
    name: "second-client",
    form: `a ground station loads its parameters, at ${whenForm}; over a link of its own: 500kB,own`,
    check: (value) => parseWhen(value.replace(/,own$/, "")) !== undefined,
    start: (value, world) => world.script.at(parseWhen(value.replace(/,own$/, "")), () => world.load(value.endsWith(",own"))),
  },
  {
    name: "crc",
    form: "how fast a checksum reads the card, bytes a second: 50kB",
    check: (value) => isBytes(value) && bytesOf(value) > 0,
    board: (value) => ({ crcBytesPerSecond: bytesOf(value) }),
  },
  {
    name: "short",
    form: "the most bytes that a read gives: 48",
    check: (value) => /^[1-9]\d{0,2}$/.test(value) && Number(value) <= 239,
    board: (value) => ({ readMost: Number(value) }),
  },
  {
    name: "radio",
    form: `what a radio tells of its buffer: own (how full it is), or percent free and how long, from the start or from ${whenForm}: 20,2s@read:100`,
    check: checks((what) => what === "own" || (/^(100|\d{1,2}),/.test(what) && isTime(what.slice(what.indexOf(",") + 1)))),
    start: runs((what, world) => {
      const [free, ms] = what.split(",");
      if (ms === undefined) world.radioSpeaks();
      else world.radioClaims(Number(free), time(ms));
    }),
  },
  {
    name: "noise",
    form: "telemetry beside the files, bytes a second: 20kB",
    check: isBytes,
    start: (value, world) => {
      const perTick = bytesOf(value) / 50;
      const beat = (): void => {
        world.telemetry(perTick);
        world.after(20, beat);
      };
      beat();
    },
  },
];
