/** What clients send into the bundled FTP server, and what core does with it there. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { why } from "../../core/why.js";
import { until as untilTold } from "../conformance/clause.js";
import { startOwn } from "../conformance/ftp-servers.js";
import { RawFtp } from "../conformance/raw-ftp.js";
import { Bench, FakeDevice, until } from "../fake-device.js";

async function served(t: TestContext) {
  const dir = mkdtempSync(join(tmpdir(), "filesync-inbox-"));
  const server = await startOwn({ root: dir, users: { tester: { password: "p", root: "." } } });
  const client = await RawFtp.login(server.port ?? 0, "tester", "p");
  t.after(async () => {
    client.socket.destroy();
    await server.close();
    rmSync(dir, { recursive: true });
  });
  const box = Object.assign(new FakeDevice("box"), { device: () => server });
  return { dir, client, box, bench: new Bench(t), out: new FakeDevice("out") };
}

for (const how of [
  "in place",
  "by its name",
  "behind a longer one",
  "behind a shorter one",
  "once it was deleted",
  "once it was renamed",
  "once its directory was renamed",
  "in a directory that gets the name of its own",
])
  test(`what a client puts over a file while that is delivered, ${how}, with its size and time (no clock), is not deleted for it: it arrives, too`, async (t) => {
    const { dir, client, box, bench, out } = await served(t);
    const rename = async (from: string, to: string) => {
      assert.match(await client.ask(`RNFR ${from}`), /^350/);
      assert.match(await client.ask(`RNTO ${to}`), /^250/);
    };
    assert.match(await client.ask("MKD day"), /^257/);
    let file = "day/a.raw";
    const put = async (text: string) => {
      const name = how === "by its name" ? "day/.a.part" : file;
      assert.match(await client.store(`STOR ${name}`, Buffer.from(text)), /^226/);
      assert.match(await client.ask(`MFMT 19800101000000 ${name}`), /^213/);
      if (name !== file) await rename(name, file);
    };
    await put("first");
    let isCommitting = false;
    let go: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (go = resolve));
    out.before = (call) => {
      if (!call.startsWith("commit")) return undefined;
      isCommitting = true;
      return held;
    };
    await bench.start({ sources: [box], targets: [out] }, [{ from: "box", to: ["out"], afterDelivery: "delete" }]);
    await until(bench, "it is being given its name", () => isCommitting);
    if (how === "once it was deleted") assert.match(await client.ask(`DELE ${file}`), /^250/);
    else if (how === "once it was renamed") await rename(file, ".old.part");
    else if (how === "once its directory was renamed") {
      await rename("day", "old");
      assert.match(await client.ask("MKD day"), /^257/);
    } else if (how === "in a directory that gets the name of its own") {
      await rename("day", "old");
      assert.match(await client.ask("MKD new"), /^257/);
      file = "new/a.raw";
    } else await put(how === "behind a longer one" ? "second" : how === "behind a shorter one" ? "2nd" : "2nd..");
    await put("other");
    if (file === "new/a.raw") await rename("new", "day");
    out.before = () => undefined;
    go();
    // Of a directory's new name no word comes.
    if (file === "new/a.raw") bench.daemon.engine.relist$.next("box");
    await until(bench, "it is deleted", () => !existsSync(join(dir, "day/a.raw")));
    const arrived = [...out.files.values()].map(({ bytes }) => bytes.toString());
    assert.ok(arrived.includes("other"), arrived.join());
  });

test("what a client sends once more, as it never had the answer, and was deleted here meanwhile, is sent to nobody again, and deleted", async (t) => {
  const { dir, client, box, bench, out } = await served(t);
  await bench.start({ sources: [box], targets: [out] }, [{ from: "box", to: ["out"], afterDelivery: "delete" }]);
  const deleted = () => bench.events.filter(({ message }) => message.endsWith("deleted at its source")).length;
  for (const times of [1, 2, 3]) {
    assert.match(await client.store("STOR .a.raw.part", Buffer.from("first")), /^226/);
    assert.match(await client.ask("MFMT 20260501000000 .a.raw.part"), /^213/);
    assert.match(await client.ask("RNFR .a.raw.part"), /^350/);
    assert.match(await client.ask("RNTO a.raw"), /^250/);
    await until(bench, "it is deleted", () => deleted() === times && !existsSync(join(dir, "a.raw")));
  }
  assert.deepEqual([...out.files.keys()], ["a.raw"]);
  assert.equal(out.calls.filter((call) => call.startsWith("commit")).length, 1);
});

for (const how of ["APPE", "REST"])
  test(`an upload that goes on where the file ends, and brings nothing more (${how}), makes no other file of it: it would be sent anew each time`, async (t) => {
    const { client, box, bench, out } = await served(t);
    assert.match(await client.store("STOR a.raw", Buffer.from("first")), /^226/);
    await bench.start({ sources: [box], targets: [out] }, [{ from: "box", to: ["out"] }]);
    await until(bench, "it is there", () => out.files.size === 1);
    if (how === "REST") assert.match(await client.ask("REST 5"), /^350/);
    assert.match(await client.store(how === "REST" ? "STOR a.raw" : "APPE a.raw", Buffer.alloc(0)), /^226/);
    const { engine } = bench.daemon;
    const listings = () => engine.finders.get("box")?.listings ?? 0;
    const before = listings();
    engine.relist$.next("box");
    await until(bench, "it was listed", () => listings() > before);
    assert.equal(bench.events.filter(({ what }) => what === "found").length, 1);
  });

test("why: an upload that broke off is told so, and is not said to be written still", async (t) => {
  const { dir, client, box, bench, out } = await served(t);
  const data = await client.data();
  assert.match(await client.ask("STOR a.raw"), /^150/);
  data.write("begun");
  await until(bench, "its bytes to be there", () => existsSync(join(dir, "a.raw")) && statSync(join(dir, "a.raw")).size === 5);
  await bench.start({ sources: [box], targets: [out] }, [{ from: "box", to: ["out"] }]);
  const reasons = async () =>
    (await why(bench.daemon.engine, "a.raw", true, new AbortController().signal)).flatMap(({ reasons }) => reasons.map(({ text }) => text));
  const tells = (text: string) => async () => (await reasons()).includes(text);
  await untilTold("it is seen", tells("it is still being written, says box (5 B so far)"));
  data.resetAndDestroy();
  assert.match(await client.answer(), /^426/);
  await untilTold("it is told", tells("it is not complete, says box: its upload broke off; its client may go on with it (5 B so far)"));
});
