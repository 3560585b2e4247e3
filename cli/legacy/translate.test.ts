/** Each form that a configuration of the FileSync in Python had, in the words of this one; and each part that has no equal is said. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { oldKeyIn, patternOf, serverOf, translated } from "./translate.js";

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

test("an empty password is one, and needs no file; a cloud's without a user leaves no gap; a key that every object has is one that is not known", () => {
  const open = of({ source: local, target: { ...ftp, args: { host: "h", user: "u", passwd: "" } } });
  assert.deepEqual([open.devices.target, open.secrets], [{ type: "ftp", host: "h", user: "u", password: "", secure: false }, {}]);
  const { target } = of({ source: local, target: { ...webdav, args: { host: "h/dav", passwd: "x" } } }).devices;
  assert.deepEqual(Object.entries(target ?? {}), [
    ["type", "webdav"],
    ["url", "https://h/dav"],
    ["password", { credential: "target" }],
  ]);
  assert.deepEqual(of({ source: local, target: ftp, toString: 1 }).notes, ['"toString": this program knows nothing like it']);
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

test("the FTP server: all its users, at its own address; what cannot be read of it is said, and without a password nobody comes in", () => {
  const text = (address: string, ...users: string[]) =>
    `authorizer = DummyAuthorizer()\n${users.map((user) => `authorizer.add_user(${user})\n`).join("")}${address}\n`;
  const two = of(
    serverOf(
      text(
        'address=("127.0.0.1",2121)',
        `"a", "it", '/srv/f/a', perm="elradfmwM"`,
        `'b', 'pw', "/srv/f/b", perm='elrmw'`,
        '"c", "x", "/srv/f"',
      ),
    ),
  );
  assert.deepEqual(two.services.ftp, {
    type: "ftp-server",
    listen: "127.0.0.1:2121",
    root: "/srv/f",
    users: {
      a: { password: { credential: "a" }, root: "a" },
      b: { password: { credential: "b" }, root: "b", rename: false, delete: false },
      c: { password: { credential: "c" }, root: ".", write: false },
    },
  });
  assert.deepEqual([two.secrets, two.notes], [{ a: "it", b: "pw", c: "x" }, []]);
  const apart = of(serverOf(text("server = FTPServer(('::1', 2121), handler)", '"a", "p", "/srv"', '"b", "q", "/home/b"')));
  assert.deepEqual(apart.services.ftp, {
    type: "ftp-server",
    listen: "[::1]:2121",
    root: "/srv",
    users: { a: { password: { credential: "a" }, root: ".", write: false } },
  });
  assert.match(apart.notes.join("\n"), /^the FTP server's user "b": \/home\/b and \/srv have no directory in common/);
  const unread = of(
    serverOf(
      `${text("address = (HOST, 2121)", '"a", "p", "/srv"', "NAME, 'p', '/srv'", '"e", "", "/srv"')}authorizer.add_anonymous("/srv")`,
    ),
  );
  assert.equal(unread.services.ftp?.listen, "0.0.0.0:2121");
  assert.deepEqual(Object.keys(unread.services.ftp.users as object), ["a"]);
  assert.deepEqual(unread.notes, [
    "the FTP server's add_user in line 3: who may log in by it cannot be told from the text",
    "the FTP server's add_anonymous in line 6: who may log in by it cannot be told from the text",
    "the FTP server's address cannot be told from the text (address = (HOST, 2121)): it listens at all addresses, port 2121",
    'the FTP server\'s user "e" has an empty password, which lets everybody in',
  ]);
  const open = of({ ftp_server: { user: "a", passwd: "", root: "/srv" } });
  assert.deepEqual([open.services, open.secrets], [{}, {}]);
});

test("rules that are a text are a list of one; what is no rule is said", () => {
  const rules = (given: unknown) => of({ source: local, target: ftp, rules: given });
  const one = rules({ include: "*.ulg", exclude: "*.tmp" });
  assert.deepEqual(one.routes, [{ from: "source", to: ["target"], into: "", include: ["**/*.ulg"], exclude: ["**/*.tmp"] }]);
  assert.deepEqual(one.notes, []);
  assert.deepEqual(rules({ include: { a: 1 } }).notes[0], '"include": it is no list of patterns');
  assert.match(rules({ include: { a: 1 } }).notes.join("\n"), /"include": nothing of it could be taken over, so the route takes all$/);
  assert.deepEqual(rules(["*.ulg"]).notes, ['"rules": it is no object, so the route takes all']);
});

test("what is no worker, and what stands beside the workers, is said", () => {
  const now = of({ gui: true, rules: { include: ["*.ulg"] }, workers: ["x", null, { source: local, target: ftp }] });
  assert.equal(now.routes.length, 1);
  assert.deepEqual(now.notes, [
    '"gui" beside "workers": there is no window: "filesync status --watch" shows how it stands',
    '"rules" beside "workers": it stands in no worker',
    'worker 1: "x" is no worker',
    "worker 2: null is no worker",
  ]);
  assert.deepEqual(of({ workers: "x" }).notes, ['"x" is no worker']);
  const served = of({ workers: [], ftp_server: { user: "a", passwd: "p", root: "/srv" } });
  assert.deepEqual(Object.keys(served.services), ["ftp"]);
});

test('"enable" is what Python made of it, and said where it is neither true nor false', () => {
  const enabled = (enable: unknown) => of({ enable, source: local, target: ftp });
  for (const [enable, routes, note] of [
    ["false", 1, /^"enable": "false" is neither true nor false: the old one took it for on/],
    [0, 0, /^"enable": 0: its devices are here, its route is not$/],
    [null, 0, /^"enable": null: /],
    [true, 1, /^$/],
  ] as const) {
    assert.equal(enabled(enable).routes.length, routes, String(enable));
    assert.match(enabled(enable).notes.join(), note);
  }
});

test("one directory that two workers list is one device, with the shorter interval; an interval that is none is said", () => {
  const listed = (search_interval: unknown, source: unknown = local) => ({ source, target: ftp, finder: { search_interval } });
  const two = of({ workers: [listed(60), { ...listed(5), target: webdav }, { ...listed(60), target: post }] });
  assert.deepEqual(two.devices.source, { type: "local", dir: "/home/pi/worker1", interval: "5s" });
  assert.deepEqual(
    two.routes.map(({ from }) => from),
    ["source", "source", "source"],
  );
  const words = 'its source is that of another worker, with another "search_interval": one device, source, listed every 5 s';
  assert.deepEqual(two.notes, [`worker 2: ${words}`, `worker 3: ${words}`]);
  const both = of({ workers: [{ source: disk, target: local }, listed(7)] });
  assert.deepEqual(both.devices.target, { type: "local", dir: "/home/pi/worker1", interval: "7s" });
  assert.ok(!both.notes.join().includes("search_interval"));
  assert.deepEqual(of(listed("10")).devices.source?.interval, "10s");
  for (const given of [0, 0.5, -1, 1e9, "often", null, {}]) {
    const { devices, notes } = of(listed(given));
    assert.equal(devices.source?.interval, undefined);
    assert.deepEqual(notes, [`"search_interval": ${JSON.stringify(given)}: from 1 s to a day can be said here, and the default is taken`]);
  }
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

test("an old configuration is known by a key at its top; one of this program is none", () => {
  assert.equal(oldKeyIn({ enable: true, source: disk, target: ftp }), "source");
  assert.equal(oldKeyIn({ workers: [] }), "workers");
  assert.equal(oldKeyIn([{ name: "a", target: ftp, source: disk }]), "target");
  assert.equal(oldKeyIn(disk), "device_class");
  for (const none of [undefined, "source", [], {}, { routes: [] }, { devices: {}, source: "fc" }]) assert.equal(oldKeyIn(none), undefined);
});
