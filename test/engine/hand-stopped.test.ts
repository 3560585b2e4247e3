/** A hand command whose person stopped it (Ctrl-Z, a pager that waits): it keeps neither its device nor the daemon. */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test, type TestContext } from "node:test";
import { answerWith } from "../../core/commands.js";
import type { ControlRequest, Exchange } from "../../core/control.js";
import { isFault } from "../../core/errors.js";
import { patienceMs } from "../../core/hand-get.js";
import { Bench, FakeDevice, sha256, until } from "../fake-device.js";

const whole = Buffer.from("0123456789");

async function scene(t: TestContext, patient: boolean) {
  const bench = new Bench(t);
  const sleep = bench.clock.sleep.bind(bench.clock);
  t.mock.method(bench.clock, "sleep", (ms: number, signal?: AbortSignal) =>
    sleep(ms !== patienceMs ? ms : patient ? 3_600_000 : 1, signal),
  );
  const box = new FakeDevice("box", { concurrency: 1, chunk: 4 });
  const out = new FakeDevice("out", { target: { concurrency: 1 } });
  box.put("big.bin", whole, 5);
  await bench.start({ sources: [box], targets: [out] }, [{ from: "box", to: ["out"], include: ["*.txt"] }]);
  const ask = (request: ControlRequest, exchange: Partial<Exchange>) =>
    Promise.resolve(
      answerWith(bench.daemon.engine, true)(request, {
        signal: new AbortController().signal,
        say: () => undefined,
        give: () => Promise.resolve(),
        take: () => Readable.from([]),
        ...exchange,
      }),
    );
  const delivered = async () => {
    box.put("a.txt", "a");
    box.changes$.next();
    await until(bench, "a delivery", () => out.files.has("a.txt"));
  };
  return { bench, box, out, ask, delivered };
}

const entry = { path: "big.bin", kind: "file", size: whole.length, modifiedMs: 5 };
const ofPut = { command: "put", device: "out", path: "x", name: "x", size: whole.length, digest: sha256(whole), force: false };

/** Takes nothing behind its first bytes until it is let. */
function taker() {
  const got: Buffer[] = [];
  let goOn: () => void = () => undefined;
  const going = new Promise<void>((resolve) => (goOn = resolve));
  return { got, goOn, give: (bytes: Buffer) => (got.push(bytes), going) };
}

test("a get that is not taken lets others have the device, and goes on where it was once it is", async (t) => {
  const { ask, box, delivered } = await scene(t, false);
  const { got, goOn, give } = taker();
  const done = ask({ command: "get", device: "box", entry, offset: 0 }, { give });
  await delivered();
  goOn();
  await done;
  assert.equal(Buffer.concat(got).toString(), whole.toString());
  assert.deepEqual(
    box.calls.filter((call) => call.startsWith("open big.bin")),
    ["open big.bin 0", "open big.bin 4"],
  );
});

test("a get that is not taken, of a file that is written anew meanwhile, is told so", async (t) => {
  const { ask, box, delivered } = await scene(t, false);
  const { goOn, give } = taker();
  const done = ask({ command: "get", device: "box", entry, offset: 0 }, { give });
  await delivered();
  box.put("big.bin", "9876543210", 6);
  goOn();
  await assert.rejects(done, (error) => isFault(error, "changed"));
});

test("a put that sends nothing any more ends, and others have the device", async (t) => {
  const { ask, delivered } = await scene(t, false);
  const sends = async function* () {
    yield whole.subarray(0, 4);
    await new Promise(() => undefined);
  };
  await assert.rejects(
    ask(ofPut, { take: sends }),
    (error) => isFault(error, "transient") && /nothing of it was sent for 60 s/.test(error.message),
  );
  await delivered();
});

for (const what of ["get", "put"])
  test(`a ${what} that is stopped does not keep the daemon from its stop`, async (t) => {
    const { ask, bench, box, out } = await scene(t, true);
    const hangs = () => new Promise<void>(() => undefined);
    const sends = async function* () {
      yield whole.subarray(0, 4);
      await hangs();
    };
    const done = what === "get" ? ask({ command: "get", device: "box", entry, offset: 0 }, { give: hangs }) : ask(ofPut, { take: sends });
    const ended = assert.rejects(done, /the device was closed meanwhile/);
    await until(bench, "it to be under way", () => [...box.calls, ...out.calls].some((call) => /^(open big|write x)/.test(call)));
    await bench.stop();
    await ended;
  });
