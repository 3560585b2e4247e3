/** Chunked uploads against a double of Nextcloud (test/doubles/nextcloud.ts), with its limits and what users report of it. */
import assert from "node:assert/strict";
import { mkdtempSync, promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { Device } from "../../core/plugin.js";
import { NextcloudDouble } from "../doubles/nextcloud.js";
import { calm, expectFault } from "./clause.js";
import { davDevice } from "./dav-harness.js";
import { password } from "./dav-servers.js";
import { cut } from "./readers.js";
import { isReceipt, send } from "./target-under-test.js";
import { bytes, upload } from "./upload.js";

const user = "me@example.org";

async function scene(t: TestContext, given: Readonly<Record<string, unknown>> = {}, path = "") {
  const dir = mkdtempSync(join(tmpdir(), "filesync-dav-"));
  const double = await new NextcloudDouble(dir, { user, password }).start();
  const device = davDevice(`${double.url}${path}`, { user, root: "drone", chunkSize: "64KiB", answerTimeout: "20s", ...given });
  t.after(async () => {
    await device.close();
    await double.stop();
    await fs.rm(dir, { recursive: true });
  });
  return { double, device, target: device.target ?? assert.fail() };
}

const chunkPuts = (double: NextcloudDouble) => double.asked.flatMap((it) => /^PUT .*\/uploads\/.*\/(\d+)$/.exec(it)?.[1] ?? []);

test("it is found behind each of its addresses, also for a user whose id is another than the login", async (t) => {
  for (const path of ["", "/", "/remote.php/webdav", "/remote.php/dav/files/tester-id", "/remote.php/dav/files/tester-id/"]) {
    const { double, device, target } = await scene(t, {}, path);
    await device.probe(calm());
    assert.deepEqual([target.features.resume, target.features.granule], [true, 65_536]);
    await send(target, upload("a b/log.ulg", bytes(200_000)));
    assert.ok((await fs.readFile(join(double.files, "drone/a b/log.ulg"))).equals(bytes(200_000)));
    assert.deepEqual(await fs.readdir(double.uploads), [], "the upload's directory is left behind");
    assert.ok(!double.asked.some((it) => it.startsWith("PUT") && it.endsWith(".part")), "a name that Nextcloud keeps for itself");
  }
});

test("it is found also where it, or a portal in its place, answered something else first", async (t) => {
  for (const answer of [502, 503, 200]) {
    const { double, device, target } = await scene(t);
    double.instead = (exchange) => {
      if (exchange.path.endsWith("/status.php") || answer === 200) double.say(exchange, answer, "<html>");
      else if (exchange.method === "OPTIONS") double.say(exchange, 200);
      else return false;
      return true;
    };
    await assert.rejects(device.probe(calm()));
    double.instead = () => false;
    await device.probe(calm());
    assert.equal(target.features.granule, 65_536);
  }
});

test("after a break only the chunk that broke off goes again", async (t) => {
  const { double, target } = await scene(t);
  const content = bytes(600_000);
  const it = upload("log.ulg", content);
  await expectFault(
    target.write(upload(it.path, content, { id: it.id, read: cut(content, 300_000) }), 0, calm(), () => undefined),
    "changed",
  );
  const held = await target.offset(it, calm());
  assert.equal(held, 4 * 65_536);
  double.asked.length = 0;
  double.receivedBytes = 0;
  await target.write(it, held, calm(), () => undefined);
  assert.deepEqual(chunkPuts(double), ["00005", "00006", "00007", "00008", "00009", "00010"]);
  assert.ok(double.receivedBytes < content.length - held + 10_000, `${double.receivedBytes} bytes came in`);
  assert.ok(isReceipt(await target.commit(it, calm())));
  assert.ok((await fs.readFile(join(double.files, "drone/log.ulg"))).equals(content));
});

test("the last MOVE answers 504, then 423, while the file is put together: the name is looked at, and nothing is sent again", async (t) => {
  for (const status of [504, 423, 502]) {
    const { double, target } = await scene(t);
    double.merging.push(status);
    const content = bytes(300_000);
    const it = upload("log.ulg", content);
    const receipt = await send(target, it);
    assert.equal(receipt.size, content.length);
    assert.equal(double.asked.filter((one) => one.startsWith("MOVE")).length, 1);
    assert.equal(chunkPuts(double).length, 5);
    assert.ok((await fs.readFile(join(double.files, "drone/log.ulg"))).equals(content));
    assert.deepEqual(await target.commit(it, calm()), receipt);
  }
});

test("our own earlier version has the size of the one that replaces it: while the server puts that together what is under the name is not it", async (t) => {
  for (const status of [504, 423, 500]) {
    const { double, target } = await scene(t);
    const before = bytes(300_000, 1);
    const receipt = await send(target, upload("log.ulg", before));
    double.merging.push(status);
    const content = bytes(300_000, 2);
    const it = upload("log.ulg", content, { expect: { kind: "replaces", size: receipt.size } });
    await target.write(it, 0, calm(), () => undefined);
    if (status === 500) await expectFault(target.commit(it, calm()), "transient");
    else assert.ok(isReceipt(await target.commit(it, calm())));
    const there = await fs.readFile(join(double.files, "drone/log.ulg"));
    assert.ok(there.equals(status === 500 ? before : content), `a receipt for what the server did not have yet (${status})`);
  }
});

test("the answer to the last MOVE was lost, and the server still takes the chunks away: what has the name is ours", async (t) => {
  for (const gone of [[], ["00001"]]) {
    const { double, target } = await scene(t);
    const content = bytes(300_000);
    const it = upload("log.ulg", content);
    await target.write(it, 0, calm(), () => undefined);
    await fs.writeFile(join(double.files, "drone/log.ulg"), content);
    const dir = join(double.uploads, (await fs.readdir(double.uploads))[0] ?? "");
    for (const name of gone) await fs.rm(join(dir, name));
    const removed = setTimeout(() => void fs.rm(dir, { recursive: true }), 700);
    t.after(() => clearTimeout(removed));
    assert.ok(isReceipt(await target.commit(it, calm())), "taken for another's");
  }
});

test("a merge that never ends is said after answerTimeout, and the commit can come again", async (t) => {
  const { double, target } = await scene(t, { answerTimeout: "1500ms" });
  double.merging.push(504);
  double.mergeLooks = 4;
  const it = upload("log.ulg", bytes(300_000));
  await target.write(it, 0, calm(), () => undefined);
  await expectFault(target.commit(it, calm()), "transient");
  assert.ok(isReceipt(await target.commit(it, calm())));
});

test("the quota is reached half way: full, what came stays, and it goes on when there is space", async (t) => {
  const { double, target } = await scene(t);
  double.quota = 200_000;
  const content = bytes(600_000);
  const it = upload("log.ulg", content);
  await expectFault(
    target.write(it, 0, calm(), () => undefined),
    "full",
  );
  assert.equal(await target.offset(it, calm()), 3 * 65_536);
  double.quota = 1e9;
  double.asked.length = 0;
  assert.equal((await send(target, it)).size, content.length);
  assert.equal(chunkPuts(double)[0], "00004");
});

test("an upload that Nextcloud forgot, or of other chunks, is begun again", async (t) => {
  const { double, target } = await scene(t);
  const content = bytes(600_000);
  const it = upload("log.ulg", content);
  await expectFault(
    target.write(upload(it.path, content, { id: it.id, read: cut(content, 300_000) }), 0, calm(), () => undefined),
    "changed",
  );
  const other: Device = davDevice(double.url, { user, root: "drone", chunkSize: "100KiB" });
  t.after(() => other.close());
  assert.equal(await other.target?.offset(it, calm()), 0, "chunks of another size are no whole ones of these");
  await fs.rm(double.uploads, { recursive: true });
  await fs.mkdir(double.uploads);
  assert.equal(await target.offset(it, calm()), 0);
  await send(target, it);
});

test("on S3 a chunk has at least 5 MiB: the default has", async (t) => {
  const { double, target } = await scene(t, { chunkSize: "8MiB" });
  double.leastChunk = 5 * 2 ** 20;
  await send(target, upload("log.ulg", bytes(17_000_000)));
});

test("more than 10,000 chunks are rejected before anything is sent", async (t) => {
  const { double, target } = await scene(t, { chunkSize: "1KiB" });
  const it = upload("log.ulg", bytes(10), { size: 10_000 * 1024 + 1 });
  assert.match(
    await expectFault(
      target.write(it, 0, calm(), () => undefined),
      "rejected",
    ),
    /chunkSize/,
  );
  assert.deepEqual(chunkPuts(double), []);
});

test("beyond 4 GiB it goes on at the chunk", async (t) => {
  const { double, target } = await scene(t, { chunkSize: "1GiB" });
  const rest = bytes(100_000);
  const held = 5 * 2 ** 30;
  const it = upload("huge.bin", rest, { size: held + rest.length, read: () => cut(rest, rest.length)(0) });
  const dir = join(double.uploads, `filesync-0a1b2c3d-${it.id}`);
  await fs.mkdir(dir);
  for (let n = 1; n <= 5; n++) {
    await fs.writeFile(join(dir, String(n)), "");
    await fs.truncate(join(dir, String(n)), 2 ** 30);
  }
  assert.equal(await target.offset(it, calm()), held);
  await target.write(it, held, calm(), () => undefined);
  assert.equal(await target.offset(it, calm()), it.size);
  assert.deepEqual(it.reading.offsets, [held]);
  await target.discard(it, calm());
});
