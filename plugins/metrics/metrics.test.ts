/** The service "metrics" over HTTP: format, health, what is refused, slow and many clients. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import * as v from "valibot";
import { Fault, isFault } from "../../core/errors.js";
import type { Figures } from "../../core/plugin.js";
import { context } from "../../test/conformance/upload.js";
import { readMetrics } from "../../test/prometheus.js";
import { plugin } from "./plugin.js";
import { MetricsServer } from "./server.js";
import { metricsText } from "./text.js";

const figures: Figures = {
  summary: "all is well",
  mistakes: 20,
  devices: [
    { name: "cam", type: "disk", attached: true },
    { name: "ground", type: "ftp", attached: false },
  ],
  deliveries: { waiting: 1, active: 2, parked: 3, delivered: 4 },
  parked: { mismatch: 2, denied: 1 },
  bytes: { onSource: 5, here: 6, delivered: 7 },
  moved: { pulled: 8, pushed: 9 },
  transfers: [
    { from: "cam", to: "spool", bytesPerSecond: 10.5 },
    { from: "cam", to: "spool", bytesPerSecond: 1 },
    { from: "cam", to: "ground", bytesPerSecond: 0 },
  ],
  spool: { usedBytes: 11, maxBytes: 12, freeBytes: 13 },
  journalBytes: 14,
  events: { debug: 15, info: 16, warn: 17, error: 18 },
  lastDeliveryMs: 1_700_000_000_500,
};
const ours = { residentBytes: 1, cpuSeconds: 0.5, startSeconds: 1.7e9, lagSeconds: { p50: 0.001, p99: 0.002, max: 0.003 } };

test("the format is the one of Prometheus, whatever a device's type is called", () => {
  const odd = metricsText({ ...figures, devices: [{ name: "a", type: 'x"\\\n', attached: true }] }, ours);
  assert.deepEqual([...(readMetrics(odd).get("filesync_device_attached")?.samples ?? [])], [[String.raw`device="a",type="x\"\\\n"`, 1]]);
  const read = readMetrics(metricsText(figures, ours));
  const at = (name: string, labels = "") => read.get(name)?.samples.get(labels);
  assert.equal(at("filesync_deliveries", 'state="parked"'), 3);
  assert.equal(at("filesync_parked_deliveries", 'fault="mismatch"'), 2);
  assert.equal(at("filesync_files_bytes", 'place="here"'), 6);
  assert.equal(at("filesync_pushed_bytes_total"), 9);
  assert.equal(at("filesync_device_attached", 'device="ground",type="ftp"'), 0);
  assert.equal(at("filesync_configuration_mistakes"), 20);
  assert.equal(at("filesync_transfers", 'from="cam",to="spool"'), 2);
  assert.equal(at("filesync_transfer_bytes_per_second", 'from="cam",to="spool"'), 11.5);
  assert.equal(at("filesync_spool_free_bytes"), 13);
  assert.equal(at("filesync_events_total", 'level="error"'), 18);
  assert.equal(at("filesync_last_delivery_timestamp_seconds"), 1_700_000_000.5);
  const { lastDeliveryMs, ...never } = figures;
  assert.ok(lastDeliveryMs);
  assert.equal(readMetrics(metricsText(never, ours)).get("filesync_last_delivery_timestamp_seconds")?.samples.size, 0);
});

test("promtool finds nothing to say about it", (t) => {
  const { error, status, stdout, stderr } = spawnSync("promtool", ["check", "metrics"], {
    input: metricsText(figures, ours),
    encoding: "utf8",
  });
  if (error !== undefined) {
    t.skip("promtool is not installed (package prometheus)");
    return;
  }
  assert.equal(status, 0, stdout + stderr);
});

test("the alarms that the page shows go off when they should, and only then", (t) => {
  const page = readFileSync(new URL("../../../docs/metrics.md", import.meta.url), "utf8");
  const rules = /^```yaml\n(.*?)^```/ms.exec(page)?.[1] ?? "";
  const names = [...rules.matchAll(/^- alert: (\w+)$/gm)].map(([, name]) => name);
  assert.deepEqual(names, ["FileSyncParked", "FileSyncStuck", "FileSyncMistaken"]);
  const dir = mkdtempSync(join(tmpdir(), "filesync-alarms-"));
  t.after(() => rmSync(dir, { recursive: true }));
  writeFileSync(join(dir, "rules.yml"), `groups:\n- name: filesync\n  rules:\n${rules.replaceAll(/^/gm, "  ")}`);
  const labels = 'instance="plane:9470",job="filesync"';
  // Two hours of a vehicle, and of another that is well beside it; JSON is YAML.
  const series = (name: string, more: string, values: string, well: string) => [
    { series: `${name}{${labels}${more}}`, values: `${values}x120` },
    { series: `${name}{${labels.replace("plane", "other")}${more}}`, values: `${well}x120` },
  ];
  const life = (waiting: number, pushed: string, parked: number, mistakes: number) => [
    ...series("filesync_deliveries", ',state="waiting"', `${waiting}+0`, "1+0"),
    ...series("filesync_deliveries", ',state="delivered"', "4+0", "4+0"),
    ...series("filesync_pushed_bytes_total", "", pushed, "0+100"),
    ...series("filesync_parked_deliveries", ',fault="denied"', `${parked}+0`, "0+0"),
    ...series("filesync_configuration_mistakes", "", `${mistakes}+0`, "0+0"),
  ];
  const plane = { instance: "plane:9470", job: "filesync" };
  const goesOff = (input: object[], alertname: string, exp_labels?: object) => ({
    interval: "1m",
    input_series: input,
    alert_rule_test: [{ eval_time: "2h", alertname, exp_alerts: exp_labels === undefined ? [] : [{ exp_labels }] }],
  });
  const tests = [
    goesOff(life(3, "7+0", 0, 0), "FileSyncStuck", { ...plane, state: "waiting" }),
    goesOff(life(0, "7+0", 0, 0), "FileSyncStuck"),
    goesOff(life(3, "7+10", 0, 0), "FileSyncStuck"),
    goesOff(life(0, "7+0", 2, 0), "FileSyncParked", { instance: plane.instance }),
    goesOff(life(3, "7+0", 0, 0), "FileSyncParked"),
    goesOff(life(0, "7+0", 0, 1), "FileSyncMistaken", plane),
    goesOff(life(3, "7+0", 2, 0), "FileSyncMistaken"),
  ];
  writeFileSync(join(dir, "tests.yml"), JSON.stringify({ rule_files: ["rules.yml"], evaluation_interval: "1m", tests }));
  const { error, status, stdout, stderr } = spawnSync("promtool", ["test", "rules", "tests.yml"], { cwd: dir, encoding: "utf8" });
  if (error !== undefined) {
    t.skip("promtool is not installed (package prometheus)");
    return;
  }
  assert.equal(status, 0, stdout + stderr);
});

test("the reader refuses what is no such format", () => {
  const good = "# HELP a_total b\n# TYPE a_total counter\na_total 1\n";
  readMetrics(good);
  for (const bad of [
    good.slice(0, -1),
    good.replace("# HELP a_total b\n", ""),
    `${good}a_total 2\n`,
    good.replaceAll("a_total", "a"),
    good.replace("counter", "gauge"),
    good.replace(" 1\n", " NaN\n"),
    good.replace("a_total 1", 'a_total{b="c"d="e"} 1'),
    good.replace("a_total 1", 'a_total{b="c",b="e"} 1'),
    good.replace("a_total 1", 'a_total{b="""} 1'),
    good.replace("a_total 1", 'a_total{quantile="0.5"} 1'),
    `${good}${good}`,
    `${good}\n`,
  ])
    assert.throws(() => readMetrics(bad), Error, bad);
});

async function served(t: TestContext, ask: () => Promise<Figures>): Promise<{ service: MetricsServer; port: number }> {
  const made = context();
  const service = new MetricsServer(v.parse(plugin.options, { listen: "127.0.0.1:0" }), { ...made, figures: ask });
  t.after(() => service.close());
  await service.start(new AbortController().signal);
  return { service, port: service.port ?? 0 };
}

async function get(
  port: number,
  path: string,
  method = "GET",
): Promise<{ code?: number | undefined; body: string; type?: string | undefined; allow?: string | undefined }> {
  const asking = request({ host: "127.0.0.1", port, path, method, agent: false }).end();
  const [response] = (await once(asking, "response")) as [import("node:http").IncomingMessage];
  let body = "";
  for await (const part of response) body += String(part);
  return { code: response.statusCode, body, type: response.headers["content-type"], allow: response.headers.allow };
}

test("GET /metrics and GET /health, and nothing else", async (t) => {
  const { port } = await served(t, () => Promise.resolve(figures));
  const metrics = await get(port, "/metrics?x=1");
  assert.equal(metrics.type, "text/plain; version=0.0.4; charset=utf-8");
  const read = readMetrics(metrics.body);
  assert.ok((read.get("process_resident_memory_bytes")?.samples.get("") ?? 0) > 1e6);
  const health = await get(port, "/health");
  assert.equal(health.code, 200);
  assert.deepEqual(JSON.parse(health.body), { ready: true, summary: "all is well" });
  for (const path of ["/", "/metrics/", "/../metrics", "/etc/passwd"]) assert.equal((await get(port, path)).code, 404, path);
  for (const method of ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"]) {
    const { code, allow } = await get(port, "/health", method);
    assert.deepEqual([code, allow], [405, "GET"], method);
  }
});

test("an event loop that is held for a second was late by nine tenths at least; one that rests is not late", async (t) => {
  const { port } = await served(t, () => Promise.resolve(figures));
  const lag = async () => {
    const { body } = await get(port, "/metrics");
    const read = readMetrics(body);
    return (part: string) => read.get(`filesync_event_loop_lag_${part}_seconds`)?.samples.get("") ?? NaN;
  };
  // The first look begins to measure.
  await setTimeout(300);
  const end = performance.now() + 1000;
  while (performance.now() < end);
  await setTimeout(300);
  const held = await lag();
  assert.ok(held("max") >= 0.9 && held("max") < 30, String(held("max")));
  // Half of many looks: a machine under load is late now and then.
  await setTimeout(2000);
  const rested = (await lag())("p50");
  assert.ok(rested < 0.09, `half of the time it was ${rested} s late: that is the time between two looks`);
});

test("what fails is 503 with the reason; it is well again with the next answer", async (t) => {
  let well = false;
  const { port } = await served(t, () => (well ? Promise.resolve(figures) : Promise.reject(new Fault("transient", "the journal is full"))));
  const health = await get(port, "/health");
  assert.equal(health.code, 503);
  assert.deepEqual(JSON.parse(health.body), { ready: false, reason: "the journal is full" });
  assert.equal((await get(port, "/metrics")).code, 503);
  well = true;
  for (let code; code !== 200;) ({ code } = await get(port, "/health"));
});

test("many who ask at once are one question; a question that is not answered is asked no second time", async (t) => {
  let asked = 0;
  let answer: (figures: Figures) => void = () => undefined;
  const { port } = await served(t, () => {
    asked += 1;
    return asked > 1 ? Promise.resolve(figures) : new Promise((resolve) => (answer = resolve));
  });
  for (const { code, body } of await Promise.all(Array.from({ length: 10 }, () => get(port, "/health")))) {
    assert.equal(code, 503);
    assert.match(body, /has not answered for 5 s/);
  }
  assert.equal(asked, 1);
  answer(figures);
  assert.equal((await get(port, "/health")).code, 200);
  assert.equal(asked, 2, "that answer is old");
});

test("a crowd is refused beyond its bound, a client that says nothing is closed, and close leaves nothing open", async (t) => {
  const { service, port } = await served(t, () => Promise.resolve(figures));
  const sockets: Socket[] = [];
  const ended = Array.from({ length: 40 }, () => {
    const socket = connect(port, "127.0.0.1").on("error", () => undefined);
    sockets.push(socket);
    return once(socket.resume(), "close");
  });
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  // Those beyond 16 at once, the rest for their silence.
  await Promise.all(ended);
  assert.equal((await get(port, "/health")).code, 200, "it serves all the same");
  const idle = connect(port, "127.0.0.1").on("error", () => undefined);
  t.after(() => idle.destroy());
  await once(idle, "connect");
  const over = once(idle.resume(), "close");
  await service.close();
  await over;
});

test("a port that is held is said as a fault that is tried again", async (t) => {
  const { port } = await served(t, () => Promise.resolve(figures));
  const other = new MetricsServer(v.parse(plugin.options, { listen: `127.0.0.1:${port}` }), context());
  t.after(() => other.close());
  const signal = new AbortController().signal;
  await assert.rejects(
    other.probeStart(signal),
    (error) => isFault(error, "transient") && /is held by another program/.test(error.message),
  );
  await assert.rejects(other.start(signal), (error) => isFault(error, "transient"));
});
