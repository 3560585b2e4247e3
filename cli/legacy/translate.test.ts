/** Each form that a configuration of the FileSync in Python had, in the words of this one; and each part that has no equal is said. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { patternOf, serverOf, translated } from "./translate.js";

const none = new Set<string>();

function of(old: unknown, taken: ReadonlySet<string> = none) {
  const { devices, routes, services, secrets, notes } = translated(old, "/opt/old", taken);
  const named = (parts: typeof devices) => Object.fromEntries(parts.map(({ name, value }) => [name, value]));
  return { devices: named(devices), routes: routes.map(({ value }) => value), services: named(services), secrets, notes };
}

const disk = { device_class: "DISK", module_path: "device_disk", args: { uuid: "D1C6-0146", mount_point: "/mnt" } };
const ftp = { device_class: "FTP", module_path: "device_ftp", args: { host: "192.168.20.131", user: "test-1", passwd: "passwd" } };
const local = { device_class: "LOCAL", module_path: "device_local", args: { dir: "/home/pi/worker1" } };
const post = {
  device_class: "POST",
  module_path: "device_post",
  args: {
    uploader_url: "https://logs.px4.io/upload",
    values: { description: "", additional_feedback: "", email: "email@test.com", allow_for_analysis: false, obfuscated: false },
  },
};
const webdav = {
  device_class: "WEBDAV",
  module_path: "device_webdav",
  args: { host: "https://webdav.yandex.ru", user: "login", passwd: "passwd" },
};

test("a card to an FTP server: the password goes into a file of its own; /mnt itself is nobody's own place", () => {
  assert.deepEqual(of({ source: disk, target: ftp }), {
    devices: {
      source: { type: "disk", uuid: "D1C6-0146" },
      target: { type: "ftp", host: "192.168.20.131", user: "test-1", password: { credential: "target" }, secure: false },
    },
    routes: [{ from: "source", to: ["target"], into: "" }],
    services: {},
    secrets: { target: "passwd" },
    notes: ['"mount_point": "/mnt" of the source: it is mounted at a place of its own, below stateDir or by udisks2'],
  });
});

test("a directory to Flight Review, whose fields have other names, and to a cloud", () => {
  const review = of({ source: local, target: post });
  assert.deepEqual(review.devices, {
    source: { type: "local", dir: "/home/pi/worker1" },
    target: { type: "post", preset: "flight-review", url: "https://logs.px4.io/upload", fields: { email: "email@test.com" } },
  });
  assert.deepEqual(review.notes, []);
  const said = { ...post, args: { ...post.args, values: { additional_feedback: "good", allow_for_analysis: true, what: "x" } } };
  const more = of({ source: local, target: said });
  assert.deepEqual((more.devices.target as { fields: unknown }).fields, { feedback: "good", allowForAnalysis: "true" });
  assert.deepEqual(more.notes, ['"what" of the target (post): this server knows no such field']);
  assert.deepEqual(of({ source: local, target: webdav }).devices.target, {
    type: "webdav",
    url: "https://webdav.yandex.ru",
    user: "login",
    password: { credential: "target" },
  });
});

test("an autopilot through mavros: its address is said to be a guess", () => {
  const { devices, notes } = of({ source: { device: "device_mavftp", args: {} }, target: ftp });
  assert.deepEqual(devices.autopilot, { type: "mavftp", url: "udpin://127.0.0.1:14551" });
  assert.match(notes.join(), /went through mavros: "url" is a guess/);
});

const worker = {
  enable: true,
  gui: true,
  name: "worker_1",
  mover_count: 4,
  logger: { log_path: "./temp/worker_1.log", log_level: "ERROR", console_output: true },
  finder: { searching_times: 0, search_interval: 10, mkdir_times: 0, mkdir_interval: 1 },
  db_backup: { db_path: "./temp/worker_1.json", autosave_interval: 5 },
  db: { default_record: { source_path: "", downloaded: false, dropped: false, uploaded: false }, key: "source_path" },
  rules: { include: ["*"], exclude: ["/files/*", "*.tiff"] },
  source: { device: "device_local", args: { mount_point: "./temp/source" } },
  target: { device: "device_local", args: { mount_point: "./temp/target" } },
};

test("a whole worker: rules, interval and relative places; what has no equal is named, and why", () => {
  const now = of(worker);
  assert.deepEqual(now.devices, {
    source: { type: "local", dir: "/opt/old/temp/source", interval: "10s" },
    target: { type: "local", dir: "/opt/old/temp/target" },
  });
  assert.deepEqual(now.routes, [{ from: "source", to: ["target"], into: "", exclude: ["files/**", "**/*.tiff"] }]);
  assert.deepEqual(
    now.notes.map((note) => note.split(":")[0]),
    ['"gui"', '"mover_count"', '"logger"'],
  );
  assert.match(translated(worker, "/", none).routes[0]?.comment.join() ?? "", /deleted at the source.*"afterDelivery": "delete"/);
});

test("several workers share a device that both name; one that is off has no route; unknown keys are said", () => {
  const two = {
    workers: [
      { ...worker, gui: false },
      { name: "b", enable: false, source: worker.target, target: ftp, colour: "red" },
    ],
  };
  const now = of(two);
  assert.deepEqual(Object.keys(now.devices), ["source", "target", "target-2"]);
  assert.equal(now.routes.length, 1);
  assert.match(now.notes.join("\n"), /worker b: "enable": false: its devices are here, its route is not/);
  assert.match(now.notes.join("\n"), /worker b: "colour": this program knows nothing like it/);
  const shared = of({
    workers: [
      { source: local, target: ftp },
      { source: disk, target: ftp },
    ],
  });
  assert.deepEqual(
    shared.routes.map(({ from, to }) => [from, to]),
    [
      ["source", ["target"]],
      ["source-2", ["target"]],
    ],
  );
});

test("a list of devices alone; a device that is unknown, and one that lacks its place", () => {
  assert.deepEqual(of([local, webdav]).devices.local, { type: "local", dir: "/home/pi/worker1" });
  assert.deepEqual(of({ source: { device: "device_tape", args: {} } }).notes, ['the source is a device "tape", of which nothing is known']);
  assert.deepEqual(of({ source: { device: "device_disk", args: {} } }).notes, ['the source (disk) has no "uuid"']);
});

test("a credential that is there already keeps its name", () => {
  assert.deepEqual(of({ source: local, target: ftp }, new Set(["target"])).secrets, { "target-2": "passwd" });
});

test("the FTP server, from its text: commented lines do not count; a port that only root may have becomes 2121", () => {
  const text = `    # authorizer.add_user(environ['FTP_USER'],
    authorizer.add_user("test-1", "passwd", "temp", perm='elradfmwM')
    #address = ('', int(environ['FTP_PORT']))
    address = ('', 21)\n`;
  const { services, secrets, notes } = of(serverOf(text));
  assert.deepEqual(services.ftp, {
    type: "ftp-server",
    listen: "0.0.0.0:2121",
    root: "/opt/old/temp",
    users: { "test-1": { password: { credential: "test-1" }, root: "." } },
  });
  assert.deepEqual(secrets, { "test-1": "passwd" });
  assert.match(notes.join(), /port 21: .*2121/);
  assert.equal(serverOf("{}"), undefined);
});

test("patterns: * matched directories too", () => {
  const now = {
    "*": "**",
    "/*": "**",
    "*.ulg": "**/*.ulg",
    "/a/*": "a/**",
    "/a/b.txt": "a/b.txt",
    "*/tmp/*": "**/tmp/**",
    "/l?g.[0-9]": "l?g.[0-9]",
  };
  for (const [old, pattern] of Object.entries(now)) assert.equal(patternOf(old), pattern, old);
  assert.equal(patternOf("/a*b/c"), undefined);
  assert.equal(patternOf("a.txt"), undefined, "it never matched");
});
