/** The plugin "local" held to the contract: on the file system of this machine, on a small ext4 and an exFAT (by FUSE) of their own; full and read-only ones. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, test, type TestContext } from "node:test";
import { faultOfErrno } from "../../core/errors.js";
import type { Device } from "../../core/plugin.js";
import { filter, firstValueFrom } from "../../core/rxjs.js";
import { noName } from "../../plugins/local/place.js";
import { plugin } from "../../plugins/local/plugin.js";
import { calm, expectFault, until } from "./clause.js";
import { filesBelow, onMedium } from "./files.js";
import { cut } from "./readers.js";
import { sourceClauses } from "./source.js";
import type { SourceUnderTest } from "./source-under-test.js";
import { targetClauses } from "./target.js";
import { isReceipt, type TargetUnderTest } from "./target-under-test.js";
import { bytes, context, upload } from "./upload.js";
import { mountExfat, mountSmall, unmount } from "../small-disk.js";

function deviceAt(dir: string): Device {
  return plugin.device?.({ dir, inPlace: true, create: false }, context()) ?? assert.fail("the plugin makes no device");
}

/** A harness below a directory that exists. */
function below(parent: () => Promise<string>, exfat = false) {
  return async (): Promise<TargetUnderTest & SourceUnderTest> => {
    const base = await fs.mkdtemp(join(await parent(), "filesync-local-"));
    const dir = join(base, "root");
    await fs.mkdir(dir);
    const device = deviceAt(dir);
    await firstValueFrom(device.presence$.pipe(filter(({ state }) => state === "attached")));
    return {
      device,
      ...onMedium(dir, exfat),
      outside: async () => (await filesBelow(base)).filter((path) => !path.startsWith("root/")),
      close: async () => {
        await device.close();
        await fs.rm(base, { recursive: true });
      },
    };
  };
}

const make = below(() => Promise.resolve(tmpdir()));
targetClauses({ name: "target: local", make });
sourceClauses({ name: "source: local", make });

test("local: a directory that comes after the start is watched from then on", async (t) => {
  const base = await fs.mkdtemp(join(tmpdir(), "filesync-local-"));
  const device = deviceAt(join(base, "root"));
  t.after(async () => {
    await device.close();
    await fs.rm(base, { recursive: true });
  });
  let hints = 0;
  const states: string[] = [];
  device.presence$.subscribe(({ state }) => states.push(state));
  device.source?.changes$?.subscribe(() => (hints += 1));
  await until("that it is away", () => states.at(-1) === "detached");
  await fs.mkdir(join(base, "root"));
  await until("that it is there", () => states.at(-1) === "attached");
  await fs.writeFile(join(base, "root", "a"), "content of a");
  await until("a hint", () => hints > 0);
});

/** Directories that are mounted over themselves just now. */
const bound = new Set<string>();

interface Medium {
  readonly dir: string;
  readonly skip: string | false;
}

/** A file system of its own; taken away at the end. */
async function medium(name: string, mount: (image: string, dir: string) => string | undefined): Promise<Medium> {
  const base = await fs.mkdtemp(join(tmpdir(), `filesync-${name}-`));
  const dir = join(base, "medium");
  after(async () => {
    unmount(dir);
    await fs.rm(base, { recursive: true });
  });
  await fs.mkdir(dir);
  return { dir, skip: mount(join(base, "image"), dir) ?? false };
}

const ext4 = await medium("ext4", (image, dir) => mountSmall(image, dir, 64));
const small = await medium("small", (image, dir) => mountSmall(image, dir, 16));
const exfat = await medium("exfat", mountExfat);

for (const [name, { dir, skip }] of [
  ["local on an ext4 of its own", ext4],
  ["local on exFAT", exfat],
] as const) {
  const on = { make: below(() => Promise.resolve(dir), name.endsWith("exFAT")), ...(skip === false ? {} : { skip }) };
  targetClauses({ name: `target: ${name}`, ...on });
  sourceClauses({ name: `source: ${name}`, ...on });
}

test("local on exFAT: a name that it cannot hold is set aside, and the medium stays usable", { skip: exfat.skip }, async () => {
  const device = deviceAt(exfat.dir);
  try {
    const target = device.target ?? assert.fail();
    for (const path of ["12:30.bin", "new dir/what?.bin"]) {
      const it = upload(path, bytes(100));
      const said = await expectFault(
        target.write(it, 0, calm(), () => undefined),
        "rejected",
      );
      assert.match(said, /does not take the name/);
    }
    const good = upload("new dir/good.bin", bytes(100));
    await target.write(good, 0, calm(), () => undefined);
    assert.ok(isReceipt(await target.commit(good, calm())));
  } finally {
    await device.close();
  }
});

for (const [name, { dir, skip }] of [
  ["local on an ext4 of 16 MiB", small],
  ["local on exFAT", exfat],
] as const) {
  test(`${name}: full is full, what came is kept, and it goes on when there is space`, { skip }, async () => {
    const root = join(dir, "full");
    await fs.mkdir(root);
    const device = deviceAt(root);
    try {
      const ballast = join(dir, "ballast");
      const { bavail, bsize } = await fs.statfs(dir);
      await fs.writeFile(ballast, Buffer.alloc(bavail * bsize - 4_000_000));
      const content = bytes(6_000_000);
      const it = upload("large.bin", content);
      const target = device.target ?? assert.fail();
      await expectFault(
        target.write(it, 0, calm(), () => undefined),
        "full",
      );
      const held = await target.offset(it, calm());
      assert.ok(held > 1_000_000, `${held} bytes were kept`);
      await fs.rm(ballast);
      await target.write(it, held, calm(), () => undefined);
      assert.deepEqual(it.reading.offsets, [0, held]);
      assert.ok(isReceipt(await target.commit(it, calm())));
      assert.ok((await fs.readFile(join(root, "large.bin"))).equals(content));
    } finally {
      await device.close();
      await fs.rm(root, { recursive: true });
    }
  });

  test(`${name}: mounted read-only it says so, can be read, and goes on where it was`, { skip }, async () => {
    const root = join(dir, "readonly");
    await fs.mkdir(root);
    await fs.writeFile(join(root, "there.bin"), bytes(5000));
    const content = bytes(3_000_000);
    const before = upload("later.bin", content, { read: cut(content, 2_000_000) });
    const device = deviceAt(root);
    const target = device.target ?? assert.fail();
    await expectFault(
      target.write(before, 0, calm(), () => undefined),
      "changed",
    );
    const held = await target.offset(before, calm());
    remount(dir, "ro");
    try {
      const again = { ...upload("later.bin", content, { id: before.id }), memo: before.memo };
      assert.match(
        await expectFault(
          target.write(again, held, calm(), () => undefined),
          "denied",
        ),
        /read-only/,
      );
      assert.match(await expectFault(target.discard(again, calm()), "denied"), /read-only/);
      assert.equal(await target.offset(again, calm()), held);
      const found: string[] = [];
      for await (const entry of device.source?.list(calm()) ?? []) found.push(`${entry.path} ${entry.size}`);
      assert.deepEqual(found, ["there.bin 5000"]);
      remount(dir, "rw");
      await target.write(again, held, calm(), () => undefined);
      assert.ok(isReceipt(await target.commit(again, calm())));
      assert.ok((await fs.readFile(join(root, "later.bin"))).equals(content));
    } finally {
      remount(dir, "rw");
      await device.close();
      await fs.rm(root, { recursive: true });
    }
  });
}

/** A bind mount over itself is what can be made read-only while files of it were open, on FUSE as well. */
function remount(dir: string, how: "ro" | "rw"): void {
  if (how === "ro") {
    bound.add(dir);
    assert.equal(spawnSync("mount", ["--bind", dir, dir]).status, 0);
    assert.equal(spawnSync("mount", ["-o", "remount,bind,ro", dir]).status, 0);
  } else if (bound.delete(dir)) spawnSync("umount", [dir]);
}

for (const [what, gone] of [
  ["a directory in it", (dir: string, seen: string) => join(dir, seen === "a" ? "b" : "a")],
  ["the directory itself", (dir: string) => dir],
] as const)
  test(`a listing for a mirror during which ${what} goes tells nothing of that as unreadable`, async (t) => {
    const above = await fs.mkdtemp(join(tmpdir(), "filesync-gone-"));
    const dir = join(above, "root");
    for (const name of ["a", "b"]) await fs.mkdir(join(dir, name), { recursive: true });
    const device = deviceAt(dir);
    t.after(async () => {
      await device.close();
      await fs.rm(above, { recursive: true });
    });
    const seen: string[] = [];
    const listed = async () => {
      for await (const { path, kind } of device.source?.list(calm(), { directories: true }) ?? []) {
        seen.push(`${kind} ${path}`);
        await fs.rm(gone(dir, path), { recursive: true });
      }
    };
    if (what === "the directory itself") assert.match(await expectFault(listed(), "transient"), /while it was listed$/);
    else await listed();
    assert.equal(seen.length, 1, seen.join());
  });

test("a directory in whose place another one is put while it is listed for a mirror was not seen, rather than gone", async (t) => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-put-"));
  for (const name of ["a", "b", "c"]) await fs.mkdir(join(dir, name));
  const device = deviceAt(dir);
  t.after(async () => {
    await device.close();
    await fs.rm(dir, { recursive: true });
  });
  const listed = async (meanwhile: (path: string) => Promise<void>) => {
    const seen: string[] = [];
    for await (const { path, kind } of device.source?.list(calm(), { directories: true }) ?? []) {
      seen.push(kind === "directory" ? path : `${kind} ${path}`);
      await meanwhile(path);
    }
    return seen;
  };
  const [first = "", second = "", third = ""] = await listed(() => Promise.resolve());
  const seen = await listed(async (path) => {
    if (path === first) await fs.rmdir(join(dir, second));
    if (path === third) await fs.mkdir(join(dir, second));
  });
  assert.deepEqual(seen, [first, third, `unreadable ${second}`]);
});

test(
  "a listing for a mirror in which something was mounted, or unmounted, is none: what it shows of two file systems would count as gone",
  { skip: process.getuid?.() === 0 ? false : "needs root to mount" },
  async (t) => {
    const dir = await fs.mkdtemp(join(tmpdir(), "filesync-mounted-"));
    for (const name of ["a", "b"]) await fs.mkdir(join(dir, name));
    const [at, device] = [join(dir, "a"), deviceAt(dir)];
    t.after(async () => {
      unmount(at);
      await device.close();
      await fs.rm(dir, { recursive: true });
    });
    const listed = async (meanwhile: () => void) => {
      for await (const { path } of device.source?.list(calm(), { directories: true }) ?? []) if (path === "b") meanwhile();
    };
    const mount = () => assert.equal(spawnSync("mount", ["-t", "tmpfs", "none", at]).status, 0);
    assert.match(await expectFault(listed(mount), "transient"), /^something was mounted or unmounted in \S+ while it was listed$/);
    await listed(() => undefined);
    assert.match(
      await expectFault(
        listed(() => {
          unmount(at);
        }),
        "transient",
      ),
      /while it was listed$/,
    );
  },
);

test("a listing for a mirror during which the directory becomes another one, as when the disk above it is unmounted, tells nothing as gone", async (t) => {
  const above = await fs.mkdtemp(join(tmpdir(), "filesync-another-"));
  const [dir, aside] = [join(above, "root"), join(above, "aside")];
  for (const name of ["a", "b"]) await fs.mkdir(join(dir, name), { recursive: true });
  const device = deviceAt(dir);
  t.after(async () => {
    await device.close();
    await fs.rm(above, { recursive: true });
  });
  const listed = async () => {
    for await (const _ of device.source?.list(calm(), { directories: true }) ?? []) {
      await fs.rename(dir, aside);
      await fs.mkdir(dir);
    }
  };
  assert.match(await expectFault(listed(), "transient"), /while it was listed$/);
});

for (const [below, text] of [
  [undefined, "missing"],
  ["another", "changed, though the mount point has another file of that name"],
] as const)
  test(
    `a file whose disk was unmounted since it was listed is away, and not ${text}`,
    { skip: process.getuid?.() === 0 ? false : "needs root to mount" },
    async (t) => {
      const dir = await fs.mkdtemp(join(tmpdir(), "filesync-mounted-"));
      const device = deviceAt(dir);
      t.after(async () => {
        unmount(dir);
        await device.close();
        await fs.rm(dir, { recursive: true });
      });
      if (below !== undefined) await fs.writeFile(join(dir, "a"), below);
      assert.equal(spawnSync("mount", ["-t", "tmpfs", "none", dir]).status, 0);
      await fs.writeFile(join(dir, "a"), "content of a");
      const source = device.source ?? assert.fail();
      for await (const entry of source.list(calm())) {
        const read = async () => (await source.open(entry, 0, calm())).toArray();
        assert.equal((await read()).toString(), "content of a");
        unmount(dir);
        assert.match(await expectFault(read(), "offline"), /is not mounted/);
      }
    },
  );

/** Ends the program that is the file system at `dir`. */
async function endProgram(dir: string): Promise<void> {
  for (const pid of await fs.readdir("/proc")) {
    const words = await fs.readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (words.startsWith("mount.exfat-fuse\0") && words.includes(`\0${dir}`)) process.kill(Number(pid), "SIGKILL");
  }
  await until("that it has ended", () =>
    fs.stat(dir).then(
      () => false,
      () => true,
    ),
  );
}

/** A device on a file system that is a program; undefined: there is none here, and the test is skipped. */
async function byProgram(t: TestContext): Promise<{ readonly dir: string; readonly device: Device } | undefined> {
  const { dir, skip } = await medium("ended", mountExfat);
  if (skip !== false) {
    t.skip(skip);
    return undefined;
  }
  const device = deviceAt(dir);
  t.after(() => device.close());
  return { dir, device };
}

test("once the program that is a file system has ended, what is on it is away, and what was being read ends alone", async (t) => {
  const served = await byProgram(t);
  if (served === undefined) return;
  const { dir, device } = served;
  for (const name of ["a", "b"]) await fs.writeFile(join(dir, name), bytes(4_000_000));
  const source = device.source ?? assert.fail();
  const reading = (path: string) =>
    source.readInPlace?.({ path, kind: "file", size: 4_000_000 }, 0, calm(), { digest: false, exact: true, mayGo: true }) ?? assert.fail();
  const a = reading("a");
  await a.next();
  await endProgram(dir);
  a.close();
  assert.match(await expectFault(reading("b").next(), "offline"), /^cannot open b: the program that is its file system has ended$/);
});

test("a target whose file system was a program that ended while it was written to is away", async (t) => {
  const served = await byProgram(t);
  if (served === undefined) return;
  const { dir, device } = served;
  const content = bytes(200_000);
  async function* cut() {
    yield content.subarray(0, 100_000);
    await endProgram(dir);
    yield content.subarray(100_000);
  }
  const it = { ...upload("a", content), read: () => Readable.from(cut(), { objectMode: false }) };
  const writing = device.target?.write(it, 0, calm(), () => undefined) ?? assert.fail();
  assert.match(await expectFault(writing, "offline"), /the program that is its file system has ended$/);
});

test("what the program that is a file system did not answer any more is away, as is what it is asked once it has ended", () => {
  const { kind, message } = faultOfErrno(Object.assign(new Error("write"), { code: "ECONNABORTED" }), "cannot write a");
  assert.deepEqual([kind, message], ["offline", "cannot write a: the program that is its file system has ended"]);
});

test("a directory that hangs once its file system has answered is told to hang, and looked at again once it answers", async (t) => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-local-"));
  const device =
    plugin.device?.({ dir, inPlace: true, create: false, mounted: false }, context()) ?? assert.fail("the plugin makes no device");
  t.after(async () => {
    await device.close();
    await fs.rm(dir, { recursive: true });
  });
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let goOn = (): void => undefined;
  const held = new Promise<void>((resolve) => (goOn = resolve));
  const { stat } = fs;
  const asked = t.mock.method(fs, "stat", async (...given: Parameters<typeof stat>) => {
    await held;
    return stat(...given);
  });
  const seen: string[] = [];
  device.presence$.subscribe(({ state, reason = "" }) => seen.push(`${state} ${reason}`));
  await until("that it hangs", () => asked.mock.callCount() > 0);
  t.mock.timers.tick(30_000);
  await until("that this is told", () => seen.at(-1) === `detached ${dir} does not answer: its file system hangs`);
  goOn();
  await until("that it is there", () => seen.at(-1) === "attached ");
});

test("a file system that tells only at the close that there is no room (NFS): full, and what was not synced is not believed to be there", async (t) => {
  const dir = await fs.mkdtemp(join(tmpdir(), "filesync-local-"));
  const device = deviceAt(dir);
  t.after(async () => {
    await device.close();
    await fs.rm(dir, { recursive: true });
  });
  const target = device.target ?? assert.fail("it is no target");
  const content = bytes(100_000);
  const it = upload("a.bin", content);
  const { open } = fs;
  const opening = t.mock.method(fs, "open", async (...given: Parameters<typeof open>) => {
    const handle = await open(...given);
    const close = handle.close.bind(handle);
    handle.close = async () => {
      await close();
      throw Object.assign(new Error("EDQUOT: disk quota exceeded, close"), { code: "EDQUOT" });
    };
    return handle;
  });
  assert.match(
    await expectFault(
      target.write(it, 0, calm(), () => undefined),
      "full",
    ),
    /^cannot write .*quota/,
  );
  opening.mock.restore();
  assert.equal(await target.offset(it, calm()), 0);
  await target.write(it, 0, calm(), () => undefined);
  assert.ok(isReceipt(await target.commit(it, calm())));
});

test("a name that the file system cannot hold is told as such, whichever of its two answers it gives", async () => {
  const refused = (code: string, path: string) => noName(tmpdir(), path, Object.assign(new Error(code), { code }));
  for (const code of ["ENOENT", "EINVAL"])
    assert.match(String(await refused(code, "12:30.bin")), /the file system of .* does not take the name 12:30\.bin/);
  assert.equal(await refused("ENOENT", "no such directory/a"), undefined);
  assert.equal(await refused("EACCES", "a"), undefined);
});

test(
  "into a directory that may be written and not read, which could not be synced, nothing is moved",
  { skip: process.getuid?.() === 0 ? false : "needs root to become somebody else" },
  async (t) => {
    const dir = await fs.mkdtemp(join(tmpdir(), "filesync-local-"));
    const device = deviceAt(dir);
    t.after(async () => {
      process.seteuid?.(0);
      await device.close();
      await fs.rm(dir, { recursive: true });
    });
    const tree = device.tree ?? assert.fail("it has no tree");
    await fs.writeFile(join(dir, "a"), "content");
    await fs.mkdir(join(dir, "archive"));
    await fs.chmod(join(dir, "archive"), 0o333);
    await fs.chmod(dir, 0o777);
    const { size, modifiedMs } = (await tree.stat("a", calm())) ?? assert.fail("it is not there");
    process.seteuid?.(65534);
    await expectFault(tree.move("a", "archive/a", { size, modifiedMs }, calm()), "denied");
    process.seteuid?.(0);
    assert.deepEqual(await filesBelow(dir), ["a"]);
  },
);
