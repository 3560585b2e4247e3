import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test, type TestContext } from "node:test";
import { NotifySocket } from "../test/notify-socket.js";
import { Supervisor, type Health } from "./supervisor.js";

describe("what systemd is told", () => {
  let dir: string;
  let socket: NotifySocket | string;
  const troubles: string[] = [];

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), "filesync-notify-"));
    troubles.length = 0;
    socket = await NotifySocket.open(join(dir, "notify"));
    if (typeof socket !== "string") process.env.NOTIFY_SOCKET = socket.path;
  });
  afterEach(async () => {
    delete process.env.NOTIFY_SOCKET;
    if (typeof socket !== "string") await socket.close();
    rmSync(dir, { recursive: true });
  });

  function begin(t: TestContext, env: Record<string, string> = {}): { socket: NotifySocket; supervisor: Supervisor } | undefined {
    if (typeof socket === "string") {
      t.skip(socket);
      return undefined;
    }
    const supervisor = Supervisor.of({ NOTIFY_SOCKET: socket.path, ...env }, (message) => troubles.push(message));
    assert(supervisor !== undefined);
    return { socket, supervisor };
  }

  test("nobody waits for word: there is no supervisor", () => {
    assert.equal(
      Supervisor.of({}, () => undefined),
      undefined,
    );
  });

  test("not ready, ready, alive, with what it says of itself on one line", async (t) => {
    const begun = begin(t, { WATCHDOG_USEC: "300000" });
    if (begun === undefined) return;
    let ready = false;
    const unwatch = begun.supervisor.watch(() => Promise.resolve({ ready, summary: "2 files\n  wait" }));
    t.after(unwatch);
    assert.deepEqual(await begun.socket.until("EXTEND_TIMEOUT_USEC="), ["EXTEND_TIMEOUT_USEC=90000000", "STATUS=2 files wait"]);
    ready = true;
    assert.deepEqual(await begun.socket.until("READY=1"), ["READY=1", "STATUS=2 files wait"]);
    assert.deepEqual(await begun.socket.until("WATCHDOG=1"), ["WATCHDOG=1", "STATUS=2 files wait"]);
    assert.equal(begun.socket.told.filter(([first]) => first === "READY=1").length, 1);
    assert.deepEqual(troubles, []);
  });

  test("a unit without a watchdog, or with another process's: only the status, each half minute", (t) => {
    for (const env of [{}, { WATCHDOG_USEC: "300000", WATCHDOG_PID: "1" }]) {
      const begun = begin(t, env as Record<string, string>);
      if (begun === undefined) return;
      assert.equal(begun.supervisor.everyMs, 30_000);
    }
  });

  test("what does not answer, or says that it is not well, is no sign of life; the trouble is told once", async (t) => {
    const begun = begin(t, { WATCHDOG_USEC: "60000" });
    if (begun === undefined) return;
    let looks = 0;
    let look = (): Promise<Health> => Promise.resolve({ ready: true, summary: "well" });
    const unwatch = begun.supervisor.watch(() => {
      looks += 1;
      return look();
    });
    t.after(unwatch);
    await begun.socket.until("WATCHDOG=1");
    look = () => Promise.reject(new Error("the loop of workers ended"));
    const before = looks;
    while (looks < before + 4) await new Promise((resolve) => setTimeout(resolve, 20));
    const told = begun.socket.told.length;
    while (looks < before + 8) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(begun.socket.told.length, told);
    assert.deepEqual(troubles, ["the daemon does not answer itself: the loop of workers ended"]);

    // Well again; then it hangs, and is not asked twice.
    look = () => Promise.resolve({ ready: true, summary: "well again" });
    await begun.socket.until("STATUS=well again", told);
    look = () => new Promise(() => undefined);
    const asked = looks;
    while (looks === asked) await new Promise((resolve) => setTimeout(resolve, 20));
    const [hung, last] = [looks, begun.socket.told.length];
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(looks, hung);
    assert.equal(begun.socket.told.length, last);
  });

  test("systemd-notify is not there: told once, nothing is thrown", async (t) => {
    const begun = begin(t);
    if (begun === undefined) return;
    const { PATH } = process.env;
    t.after(() => (process.env.PATH = PATH));
    process.env.PATH = dir;
    await begun.supervisor.stopping();
    await begun.supervisor.stopping();
    assert.equal(troubles.length, 1);
    assert.match(troubles[0] ?? "", /^systemd cannot be told how it is: .*ENOENT/);
  });
});
