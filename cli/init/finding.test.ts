/** What init finds, over made-up machines: ports, programs that pass MAVLink on, disks; and what it asks at which baud rate. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Answers, Silent } from "../../plugins/mavftp/look.js";
import { block, lsblk, machine } from "../machine/harness.test.js";
import { serialPorts } from "../machine/ports.js";
import { routersOn } from "../machine/routers.js";
import { aboutAutopilot, findAutopilots } from "./autopilots.js";
import { findDisks } from "./disks.js";

const process_ = (pid: number, ...args: string[]) => ({ [`/proc/${pid}/cmdline`]: `${args.join("\0")}\0` });
const px4: Answers = { autopilot: "PX4", armed: false, logs: "@MAV_LOG" };

/** Who answers at which address; the others are open and silent. */
function answering(known: Readonly<Record<string, Answers | Silent>>) {
  const asked: string[] = [];
  return {
    asked,
    look: (url: string): Promise<Answers | Silent> => {
      asked.push(url);
      return Promise.resolve(known[url] ?? { opened: true, reason: "nothing is received" });
    },
  };
}

test("a port is found once, by the name that lasts longest", (t) => {
  const { view } = machine(t, {
    "/dev/ttyACM0": "",
    "/dev/ttyACM1": "",
    "/dev/ttyUSB0": "",
    "/dev/ttyAMA0": "",
    "/dev/ttyS0": "",
    "/dev/ttyS7": "",
    "/dev/serial0": "→ ttyAMA0",
    "/dev/autopilot/3B0031-00": "→ ../ttyACM0",
    "/dev/serial/by-id/usb-PX4-if00": "→ ../../ttyACM0",
    "/dev/serial/by-id/usb-FTDI-if00": "→ ../../ttyUSB0",
    "/dev/serial/by-id/usb-gone-if00": "→ ../../ttyACM9",
  });
  assert.deepEqual(
    serialPorts(view).map(({ name, path, anyRate }) => [name, path, anyRate]),
    [
      ["/dev/autopilot/3B0031-00", "/dev/ttyACM0", true],
      ["/dev/serial/by-id/usb-FTDI-if00", "/dev/ttyUSB0", false],
      ["/dev/serial0", "/dev/ttyAMA0", false],
      ["/dev/ttyACM1", "/dev/ttyACM1", true],
      ["/dev/ttyS0", "/dev/ttyS0", false],
    ],
  );
});

test("a UART is listened at with each baud rate until somebody answers, USB with one; a port that cannot be used is not tried again", async (t) => {
  const { view } = machine(t, { "/dev/ttyACM0": "", "/dev/ttyUSB0": "", "/dev/ttyUSB1": "" });
  const held = { opened: false, reason: "/dev/ttyUSB1 is used by mavproxy.py (process 7): close it there" };
  const { asked, look } = answering({ "serial:///dev/ttyUSB0:921600": px4, "serial:///dev/ttyUSB1:57600": held });
  const { autopilots, notes } = await findAutopilots(view, look);
  assert.deepEqual(
    autopilots.map(({ url, text }) => [url, text]),
    [["serial:///dev/ttyUSB0:921600", "PX4 on /dev/ttyUSB0"]],
  );
  assert.deepEqual(notes, ["/dev/ttyACM0: nothing is received", `/dev/ttyUSB1: ${held.reason}`]);
  assert.deepEqual(asked.sort(), [
    "serial:///dev/ttyACM0:57600",
    "serial:///dev/ttyUSB0:115200",
    "serial:///dev/ttyUSB0:57600",
    "serial:///dev/ttyUSB0:921600",
    "serial:///dev/ttyUSB1:57600",
  ]);
});

test("a console, and a Pi's Bluetooth, are left alone", async (t) => {
  const { view } = machine(t, {
    "/dev/ttyS0": "",
    "/dev/serial0": "→ ttyS0",
    "/dev/ttyAMA0": "",
    "/dev/serial1": "→ ttyAMA0",
    "/proc/cmdline": "console=serial0,115200 root=/dev/x",
  });
  const { asked, look } = answering({});
  const { notes } = await findAutopilots(view, look);
  assert.deepEqual(asked, []);
  assert.match(
    notes.join("\n"),
    /serial0: the kernel's console is on it; "filesync doctor".*\n.*ttyAMA0: it is the UART of this Pi's Bluetooth/,
  );
});

test("mavlink-router: its TCP server, with what config.d says last; none of its own where another waits at its UDP port", async (t) => {
  const main = "[General]\nTcpServerPort=5790\n[UdpEndpoint a]\nMode=Normal\nAddress=127.0.0.1\nPort=14550\n";
  const files = { ...process_(9, "/usr/bin/mavlink-routerd"), "/etc/mavlink-router/main.conf": main };
  const urls = async (more: Record<string, string>) => (await routersOn(machine(t, { ...files, ...more }).view))[0]?.urls;
  assert.deepEqual(await urls({}), ["tcpout://127.0.0.1:5790", "udpin://127.0.0.1:14550"]);
  assert.deepEqual(await urls({ "/etc/mavlink-router/config.d/20-own.conf": "[General]\nTcpServerPort=0\n" }), ["udpin://127.0.0.1:14550"]);
  // 0x38D6 is 14550, 0x38D7 is 14551.
  const udp = "  sl  local_address\n  1: 0100007F:38D6 00000000:0000 07\n  2: 0100007F:38D7 00000000:0000 07\n";
  const taken = machine(t, { ...files, "/etc/mavlink-router/config.d/20-own.conf": "[General]\nTcpServerPort=0\n", "/proc/net/udp": udp });
  const [router] = await routersOn(taken.view);
  assert.deepEqual(router?.urls, []);
  assert.deepEqual(router?.own.lines, ["[UdpEndpoint filesync]", "Mode = Normal", "Address = 127.0.0.1", "Port = 14552"]);
  const { autopilots, notes } = await findAutopilots(taken.view, answering({}).look);
  assert.deepEqual(
    autopilots.map(({ url }) => url),
    ["udpin://127.0.0.1:14552"],
  );
  assert.match(
    notes.join("\n"),
    /mavlink-router \(process 9\) has no endpoint for FileSync: add to \/etc\/mavlink-router\/main\.conf.*\n {4}\[UdpEndpoint filesync\]\n/,
  );
});

test("MAVProxy, mavros with its launcher, and BlueOS are found by what they run as; editors of their files are not", async (t) => {
  const { view } = machine(t, {
    ...process_(1, "python3", "/usr/bin/mavproxy.py", "--master=/dev/ttyACM0", "--out", "127.0.0.1:14560"),
    ...process_(2, "/usr/bin/python3", "/opt/ros/noetic/bin/roslaunch", "mavros", "px4.launch", "gcs_url:=udp://@127.0.0.1:14570"),
    ...process_(3, "/opt/ros/noetic/lib/mavros/mavros_node", "__name:=mavros"),
    ...process_(4, "/usr/bin/mavlink-server"),
    ...process_(5, "vim", "/etc/mavlink-router/mavros.launch"),
    ...process_(6, "tail", "-f", "mavproxy.log"),
  });
  assert.deepEqual(
    (await routersOn(view)).map(({ name, urls }) => [name, urls]),
    [
      ["MAVProxy", ["udpin://127.0.0.1:14560"]],
      ["mavros", ["udpin://127.0.0.1:14570"]],
      ["BlueOS", ["tcpout://127.0.0.1:5777"]],
    ],
  );
  assert.deepEqual(await routersOn(machine(t, process_(5, "vim", "/etc/mavlink-router/mavros.launch")).view), []);
});

test("one that is set up and does not run is told, and not taken: by its unit, and by its configuration", async (t) => {
  const unit = machine(t, {
    "/etc/systemd/system/multi-user.target.wants/proxy.service": "→ /lib/systemd/system/proxy.service",
    "/lib/systemd/system/proxy.service": "[Service]\nExecStart=/usr/bin/python3 /usr/local/bin/mavproxy.py --master=/dev/ttyACM0\n",
    "/etc/mavlink-router/main.conf": "",
  });
  const { autopilots, notes } = await findAutopilots(unit.view, answering({}).look);
  assert.deepEqual(autopilots, []);
  assert.deepEqual(notes, ["MAVProxy is set up here, and does not run now", "mavlink-router is set up here, and does not run now"]);
});

test("the first address of a router that answers is taken; who answers comes before who does not", async (t) => {
  const { view } = machine(t, { ...process_(1, "mavproxy.py", "--out=127.0.0.1:14560"), ...process_(4, "/usr/bin/mavlink-server") });
  const { autopilots, notes } = await findAutopilots(view, answering({ "tcpout://127.0.0.1:5777": px4 }).look);
  assert.deepEqual(
    autopilots.map(({ url }) => url),
    ["tcpout://127.0.0.1:5777", "udpin://127.0.0.1:14560"],
  );
  assert.deepEqual(notes, ["MAVProxy (process 1): nothing is received"]);
});

test("what is written of an autopilot says where its logs are, or why nobody could ask", () => {
  const at = { url: "tcpout://127.0.0.1:5760", text: "" };
  assert.match(aboutAutopilot({ ...at, answers: px4 }), /with PX4\. Its logs are in @MAV_LOG: that is found by itself/);
  const armed = { autopilot: "ArduPilot", armed: true, why: "the vehicle is armed" };
  assert.match(aboutAutopilot({ ...at, answers: armed }), /with ArduPilot\. .*could not be asked now \(the vehicle is armed\)/);
  assert.match(aboutAutopilot(at), /at 127\.0\.0\.1:5760, which did not answer yet/);
});

test("disks: what can be taken out, with a file system; whether it has photos where it is mounted", async (t) => {
  const disks = lsblk(
    block({}),
    block({ path: "/dev/sdb1", kname: "sdb1", "maj:min": "8:17", uuid: "AAAA-0001", label: null, mountpoint: "/media/pi/A" }),
    block({ path: "/dev/sdc1", kname: "sdc1", "maj:min": "8:33", uuid: "AAAA-0002", label: "TOOLS", mountpoint: "/media/pi/B" }),
    block({ path: "/dev/sdd1", kname: "sdd1", "maj:min": "8:49", uuid: "fixed", rm: false, hotplug: false }),
    block({ path: "/dev/mmcblk0p2", kname: "mmcblk0p2", "maj:min": "179:2", uuid: "system", mountpoint: "/" }),
    block({ path: "/dev/sde1", kname: "sde1", "maj:min": "8:65", uuid: "locked", fstype: "crypto_LUKS" }),
  );
  const mount = (id: number, device: string, dir: string, from: string) => `${id} 1 ${device} / ${dir} rw - exfat ${from} rw\n`;
  const { view } = machine(
    t,
    {
      "/media/pi/A/DCIM/x": "",
      "/media/pi/B/x": "",
      "/proc/self/mountinfo": mount(30, "8:17", "/media/pi/A", "/dev/sdb1") + mount(31, "8:33", "/media/pi/B", "/dev/sdc1"),
    },
    { lsblk: disks },
  );
  assert.deepEqual(
    (await findDisks(view)).map(({ uuid, photos, text }) => [uuid, photos, text]),
    [
      ["5C3D-DD9E", undefined, '/dev/sda1 (exfat, "FLIR", 64 GB)'],
      ["AAAA-0001", true, "/dev/sdb1 (exfat, 64 GB)"],
      ["AAAA-0002", false, '/dev/sdc1 (exfat, "TOOLS", 64 GB)'],
    ],
  );
});
