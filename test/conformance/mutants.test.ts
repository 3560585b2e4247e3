/**
 * Each clause of the suites against a planted bug: a correct device, wrong in one thing. A clause that stays green with its bug in place
 * proves nothing, and fails here.
 */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { after, test } from "node:test";
import { BehaviorSubject } from "rxjs";
import { Fault, isFault } from "../../core/errors.js";
import type { Device, FileEntry, Source, Target, Tree, Upload } from "../../core/plugin.js";
import { StreamReading } from "../../core/reading.js";
import { calm, verdict, type Clause, type UnderTest } from "./clause.js";
import { ftpHarness } from "./ftp-harness.js";
import { ownPlain } from "./ftp-servers.js";
import { allSourceClauses } from "./source.js";
import type { SourceUnderTest } from "./source-under-test.js";
import { allTargetClauses } from "./target.js";
import type { TargetUnderTest } from "./target-under-test.js";
import { bytes, chunks, partialPathOf, readingOfStream, sha256 } from "./upload.js";

const correct = ftpHarness({ kind: ownPlain, promises: { exclusive: "directories", rmdirIsSafe: true } });
after(() => correct.stop());

/** `it` with some members replaced; the rest stays bound to the original. */
function but<T extends object>(it: T, changed: Partial<T>): T {
  return new Proxy(it, {
    get: (original, key) => {
      const value: unknown = key in changed ? Reflect.get(changed, key) : Reflect.get(original, key, original);
      return typeof value === "function" && !(key in changed) ? (value as (...args: unknown[]) => unknown).bind(original) : value;
    },
  });
}

type Bug<T> = (under: T) => Partial<T>;
const target =
  (bug: (target: Target, under: TargetUnderTest) => Partial<Target>): Bug<TargetUnderTest> =>
  (under) => {
    const { device } = under;
    assert.ok(device.target);
    return { device: but(device, { target: but(device.target, bug(device.target, under)) }) };
  };
const source =
  (bug: (source: Source, under: SourceUnderTest) => Partial<Source>): Bug<SourceUnderTest> =>
  (under) => {
    const { device } = under;
    assert.ok(device.source);
    return { device: but(device, { source: but(device.source, bug(device.source, under)) }) };
  };
const tree =
  (bug: (tree: Tree, under: SourceUnderTest) => Partial<Tree>): Bug<SourceUnderTest> =>
  (under) => {
    const { device } = under;
    assert.ok(device.tree);
    return { device: but(device, { tree: but(device.tree, bug(device.tree, under)) }) };
  };
const device =
  (bug: (device: Device) => Partial<Device>) =>
  (under: UnderTest): Partial<UnderTest> => ({ device: but(under.device, bug(under.device)) });

const written = (it: Upload, content: Buffer): Upload => ({
  ...it,
  read: () => chunks(content),
  chunks: () => readingOfStream(chunks(content)),
});
const whole = async (it: Upload): Promise<Buffer> => buffer(it.read(0, calm()));
/** Takes the bytes, and keeps the last ones for itself. */
const cropped = (it: Upload, by: number): Upload => ({
  ...it,
  size: it.size - by,
  digest: undefined,
  read: (offset, signal) => it.read(offset, signal),
});
const forgetsNothing: Bug<TargetUnderTest> = target(() => ({ discard: () => Promise.resolve() }));

const renamed = (how: (path: string) => string): Bug<TargetUnderTest> =>
  target((it) => ({
    commit: async (upload, signal) => {
      const done = await it.commit({ ...upload, path: how(upload.path) }, signal);
      return "occupied" in done ? done : { ...done, path: upload.path };
    },
  }));

/** The correct device has a server that copies nothing: here the harness does it. */
const copying = target((it, under) => {
  const held = async (path: string): Promise<Buffer> => {
    const there = path.startsWith("../") ? Promise.reject(new Fault("rejected", "outside")) : under.read(path);
    const content = await there;
    if (content === undefined) throw new Fault("missing", "it is not there");
    return content;
  };
  return {
    get features() {
      return { ...it.features, splices: "ranges" as const };
    },
    splice: async (upload, { path, offset, length }, at, signal) => {
      const bytes = (await held(path)).subarray(offset, offset + length);
      if (bytes.length < length) throw new Fault("changed", "it is shorter");
      if ((await it.offset(upload, signal)) !== at) throw new Fault("conflict", "the partial has another size");
      await it.write({ ...written(upload, bytes), size: at + length }, at, signal, () => undefined);
    },
    prove: async (upload) => {
      if (sha256(await held(upload.partialPath)) !== upload.digest) throw new Fault("mismatch", "it is another content");
    },
  };
});

const anyDevice: Readonly<Record<string, Bug<UnderTest>>> = {
  "presence$ gives the present state on subscribe": device(() => ({ presence$: new BehaviorSubject({ state: "detached" as const }) })),
  "probe is content with a usable root": device(() => ({ probe: () => Promise.reject(new Fault("denied", "no")) })),
  "close leaves no handle, and may be called twice": device((it) => ({
    close: () => {
      setTimeout(() => void it.close(), 4000).unref();
      return Promise.resolve();
    },
  })),
};

const telltale: Bug<UnderTest & { readonly stranger?: () => Promise<Device> }> = (under) => ({
  stranger: async () => {
    const real = await under.stranger?.();
    assert.ok(real);
    return but(real, { probe: () => Promise.reject(new Fault("denied", "the server does not take wrong-pass-4712")) });
  },
});

const secretClause = "a login that is refused is denied, and no secret is in the message";

const targetBugs: Readonly<Record<string, Bug<TargetUnderTest>>> = {
  ...anyDevice,
  [secretClause]: telltale,
  "the whole bytes arrive": target((it) => ({
    write: async (upload, _offset, signal, onBytes) => {
      const content = await whole(upload);
      content[1000] = (content[1000] ?? 0) ^ 1;
      await it.write(written(upload, content), 0, signal, onBytes);
    },
    commit: (upload, signal) => it.commit({ ...upload, digest: undefined }, signal),
  })),
  "an empty file arrives": target((it) => ({
    write: (upload, ...rest) => (upload.size === 0 ? Promise.resolve() : it.write(upload, ...rest)),
  })),
  "a name with spaces": renamed((path) => path.replaceAll(" ", "_")),
  "a name with a leading and a trailing space": renamed((path) => path.trim()),
  "a name with quotes and a backslash": renamed((path) => path.replaceAll('"', "")),
  "a name with other scripts": renamed((path) =>
    Buffer.from(path)
      .toString("latin1")
      .replaceAll(/\p{Cc}/gu, "?"),
  ),
  "a name with a leading dash": renamed((path) => path.replace(/^-/, "")),
  "a name with patterns": renamed((path) => path.replace("*", "x")),
  "a name with signs of URLs and shells": renamed((path) => decodeURIComponent(path.replace("%41", "A"))),
  "a name with a newline, as core writes it": renamed((path) => path.replace("\u201b0A", "")),
  "a name with 255 bytes": renamed((path) => path.slice(1)),
  "a name with a deep directory": renamed((path) => path.split("/").slice(-2).join("/")),
  "the offset of what is not known is 0": target(() => ({ offset: () => Promise.reject(new Fault("missing", "no such file")) })),
  "nothing is visible before the commit": target((it) => ({
    write: (upload, ...rest) => it.write({ ...upload, partialPath: `${upload.path}.uploading` }, ...rest),
    offset: (upload, signal) => it.offset({ ...upload, partialPath: `${upload.path}.uploading` }, signal),
  })),
  "a resume sends no prefix again": target((it) => ({
    write: async (upload, offset, signal, onBytes) => {
      if (offset > 0) await it.discard(upload, signal);
      await it.write(upload, 0, signal, onBytes);
    },
  })),
  "a write at another offset than the partial's size is a conflict": target((it) => ({
    write: async (upload, _offset, signal, onBytes) => it.write(upload, await it.offset(upload, signal), signal, onBytes),
  })),
  "a commit of too few bytes publishes nothing, and the rest can be sent": target((it) => ({
    commit: async (upload, signal) => it.commit({ ...upload, size: await it.offset(upload, signal), digest: undefined }, signal),
  })),
  "a commit of nothing is a conflict": target(() => ({
    commit: (upload) => Promise.resolve({ path: upload.path, size: upload.size, proof: "size" as const }),
  })),
  "a commit twice gives the same receipt": target((it) => {
    const done = new Set<string>();
    return {
      commit: async (upload, signal) => {
        if (done.has(upload.id)) throw new Fault("conflict", "the partial has gone");
        done.add(upload.id);
        return it.commit(upload, signal);
      },
    };
  }),
  "what the peer holds is spliced without being sent, and stays as it is": target((it, under) => ({
    splice: async (upload, from, at, signal) => {
      await it.splice?.(upload, from, at, signal);
      await under.remove(from.path);
    },
  })),
  "any bytes of a file are spliced between what is sent, and what was cut goes on": target((it) => ({
    splice: async (upload, from, at, signal) => it.splice?.(upload, { ...from, offset: 0 }, at, signal),
  })),
  "a splice at another offset than the partial's size is a conflict, and of what is not there nothing is copied": target((it) => ({
    splice: async (upload, from, _at, signal) => it.splice?.(upload, from, await it.offset(upload, signal), signal),
  })),
  "what was spliced and is another content is a mismatch, and is not published": target((it) => ({
    prove: () => Promise.resolve(),
    commit: (upload, signal) => it.commit({ ...upload, digest: undefined }, signal),
  })),
  "what was lost before its name was asked for is not another's file that has it": target((it) => ({
    commit: (upload, signal) =>
      it.commit(upload, signal).catch(async (error: unknown) => {
        const there = await it.look?.(upload, signal);
        if (!isFault(error, "conflict") || there?.size !== upload.size) throw error;
        return { path: upload.path, size: there.size, proof: "size" };
      }),
  })),
  "what another put under the name stays, and is told": target((it, under) => ({
    commit: async (upload, signal) => {
      await under.remove(upload.path).catch((error: unknown) => assert.ok(error));
      return it.commit(upload, signal);
    },
  })),
  "our own earlier version is replaced, and nothing else": target((it) => ({
    commit: (upload, signal) => it.commit({ ...upload, expect: { kind: "absent" } }, signal),
  })),
  "our own earlier version has the size of the one that replaces it: where the partial has gone it is not taken for that": target((it) => ({
    commit: (upload, signal) =>
      it.commit(upload, signal).catch((error: unknown) => {
        if (!isFault(error, "conflict")) throw error;
        return { path: upload.path, size: upload.size, proof: "size" as const };
      }),
  })),
  "look tells what is there": target(() => ({ look: () => Promise.resolve(undefined) })),
  "discard forgets the partial, and nothing there is success": forgetsNothing,
  "where the device has a tree a partial may be in another directory than its name": target((it) => ({
    write: (upload, ...rest) => it.write({ ...upload, partialPath: partialPathOf(upload.path, upload.id) }, ...rest),
    offset: (upload, signal) => it.offset({ ...upload, partialPath: partialPathOf(upload.path, upload.id) }, signal),
  })),
  "discard where a directory above has become a file is success: nothing is there": target((it) => ({
    discard: (upload, signal) =>
      upload.path.startsWith("was-a-directory/")
        ? Promise.reject(new Fault("missing", "a part of the path is not a directory"))
        : it.discard(upload, signal),
  })),
  "a path that leaves the root is rejected": target((it) => ({
    write: (upload, ...rest) => it.write({ ...upload, path: "safe.bin", partialPath: ".safe.bin.part" }, ...rest),
  })),
  "an abort ends a write within 2 s, and it can go on": target((it) => ({
    write: (upload, offset, _signal, onBytes) => it.write(upload, offset, calm(), onBytes),
  })),
  "a signal that was given before stops everything, with its reason": target((it) => ({ offset: (upload) => it.offset(upload, calm()) })),
  "as many uploads at once as it says": target((it) => {
    let running = 0;
    return {
      write: async (...args) => {
        if (++running > 1) throw new Fault("transient", "busy");
        await it.write(...args).finally(() => (running -= 1));
      },
    };
  }),
  "wrong bytes are a mismatch where the target can tell, and are not published": target((it) => ({
    commit: (upload, signal) => it.commit({ ...upload, digest: undefined }, signal),
  })),
  "a stream that ends early is never a whole file": target((it) => ({
    write: (upload, offset, signal, onBytes) => it.write(cropped(upload, 1), offset, signal, onBytes),
  })),
  "a slow stream arrives whole": target((it) => ({
    write: (upload, offset, signal, onBytes) => {
      const hurry = AbortSignal.timeout(50);
      return it.write(upload, offset, AbortSignal.any([signal, hurry]), onBytes);
    },
  })),
  "the Fault that withdraws the bytes is the Fault of the write, and what came is kept": target((it) => ({
    write: (...args) =>
      it.write(...args).catch(() => {
        throw new Fault("transient", "it broke");
      }),
  })),
  "the time of the file is kept": target((it) => ({
    commit: (upload, signal) => it.commit({ ...upload, modifiedMs: undefined }, signal),
  })),
  "beyond 4 GiB it goes on at the byte": target((it) => ({
    offset: async (upload, signal) => (await it.offset(upload, signal)) % 2 ** 32,
  })),
};

const mapped = (how: (entry: FileEntry) => FileEntry): Bug<SourceUnderTest> =>
  source((it) => ({
    list: async function* (signal, options) {
      for await (const entry of it.list(signal, options)) yield how(entry);
    },
  }));
const misnamed = (how: (path: string) => string): Bug<SourceUnderTest> => mapped((entry) => ({ ...entry, path: how(entry.path) }));
/** Opens whatever is there now, without a look at what was listed. */
const blind: Bug<SourceUnderTest> = source((it) => ({
  open: async (entry, offset, signal) => {
    const now = await it.stat(entry.path, signal);
    return now === undefined ? Readable.from([]) : it.open(now, Math.min(offset, now.size), signal);
  },
}));

const sourceBugs: Readonly<Record<string, Bug<SourceUnderTest>>> = {
  ...anyDevice,
  [secretClause]: telltale,
  "an empty root lists nothing": source(() => ({
    list: async function* () {
      yield await Promise.resolve({ path: ".", kind: "file" as const, size: 0 });
    },
  })),
  "each file is listed once, with its size": source((it) => ({
    list: async function* (signal, options) {
      for await (const entry of it.list(signal, options)) yield* entry.path.startsWith("dir 1") ? [entry, entry] : [entry];
    },
  })),
  "enter leaves out a directory with all below it": source((it) => ({ list: (signal) => it.list(signal) })),
  "a list ends with its signal": source((it) => ({ list: (_signal, options) => it.list(calm(), options) })),
  "a symbolic link is unreadable, and costs only itself": mapped((entry) =>
    entry.kind === "unreadable" ? { ...entry, kind: "file" } : entry,
  ),
  "a name with spaces is listed and read": misnamed((path) => path.split(" ").at(-1) ?? ""),
  "a name with a leading and a trailing space is listed and read": misnamed((path) => path.trim()),
  "a name with quotes and a backslash is listed and read": misnamed((path) => path.replace("\\", "/")),
  "a name with other scripts is listed and read": misnamed((path) => Buffer.from(path).toString("latin1")),
  "a name with a leading dash is listed and read": misnamed((path) => path.replace(/^-/, "")),
  "a name with patterns is listed and read": misnamed((path) => path.replace("*", "")),
  "a name with an arrow, as links are listed is listed and read": misnamed((path) => path.replace(/ -> .*/, "")),
  "a name with bytes that are no UTF-8 is listed and read": misnamed((path) => path.replace("\u201bE9", "\ufffd")),
  "a name with 255 bytes is listed and read": misnamed((path) => path.slice(0, 250)),
  "a name with a deep directory is listed and read": misnamed((path) => path.split("/").at(-1) ?? ""),
  "open at 0, in the middle and at the size gives what is there": source((it) => ({
    open: (entry, _offset, signal) => it.open(entry, 0, signal),
  })),
  "an empty file gives an empty stream": source((it) => ({
    open: (entry, offset, signal) => (entry.size === 0 ? Promise.reject(new Fault("missing", "empty")) : it.open(entry, offset, signal)),
  })),
  "an offset past the size is changed": blind,
  "a file that grew gives no byte beyond the size that was listed": blind,
  "a file that became shorter is changed": blind,
  "a file that has gone is missing": blind,
  "in place it gives the bytes from an offset, and the digest of all": source((it) => ({
    readInPlace: (entry, _offset, signal, how) => new StreamReading(it, entry, 0, signal, how),
  })),
  "in place: written, cut or removed while it is read, it has no end": source((it) => ({
    readInPlace: (entry, offset, signal, how) =>
      new StreamReading(but(it, { stat: () => Promise.resolve(entry) }), entry, offset, signal, how),
  })),
  "in place: one that grew while it is read may end, when that is asked for, where its beginning is still what was given": source((it) => ({
    readInPlace: (entry, offset, signal, how) => new StreamReading(it, entry, offset, signal, { ...how, exact: false }),
  })),
  "in place: an abort ends it, and a reading that nobody ends can be left": source((it) => ({
    readInPlace: (entry, offset, _signal, how) => new StreamReading(it, entry, offset, calm(), how),
  })),
  "stat tells the same as the list": source((it) => ({
    stat: async (path, signal) => {
      const entry = await it.stat(path, signal);
      return entry === undefined ? undefined : { ...entry, modifiedMs: (entry.modifiedMs ?? 0) + 3_600_000 };
    },
  })),
  "the source's own digest is that of the bytes": source(() => ({ digest: () => Promise.resolve(sha256(bytes(1))) })),
  "an abort ends an open stream within 2 s, and the device goes on": source((it) => ({
    open: (entry, offset) => it.open(entry, offset, calm()),
  })),
  "a stream that nobody reads to its end can be left": source((it) => {
    let opened = 0;
    return {
      open: (...args) =>
        ++opened > it.features.concurrency ? Promise.reject(new Fault("transient", "no connection left")) : it.open(...args),
    };
  }),
  "a slow reader gets all": source((it) => ({
    open: async (...args) => {
      const stream = await it.open(...args);
      const out = new Readable({ read: () => undefined });
      // Gives on what the reader has room for, and loses the rest.
      stream.on("data", (chunk: Buffer) => out.readableLength > 64 * 1024 || out.push(chunk));
      stream.once("end", () => out.push(null));
      return out;
    },
  })),
  "as many files at once as it says, while it lists and looks": source((it) => {
    let open = 0;
    return {
      open: async (...args) => {
        const stream = await it.open(...args);
        open += 1;
        stream.once("close", () => (open -= 1));
        return stream;
      },
      stat: (...args) => (open > 0 ? Promise.reject(new Fault("transient", "busy")) : it.stat(...args)),
    };
  }),
  "beyond 4 GiB it reads at the byte": source((it) => ({ open: (entry, offset, signal) => it.open(entry, offset % 2 ** 32, signal) })),
  "unplugged in the middle it says so within 5 s, and comes back as it was": source((it) => ({
    open: async (...args) => {
      const stream = await it.open(...args);
      // Ends as if all had come.
      const out = new Readable({ read: () => undefined });
      stream.on("data", (chunk) => out.push(chunk));
      stream.once("error", () => out.push(null));
      stream.once("end", () => out.push(null));
      return out;
    },
  })),
  "tree: one directory is listed, files and directories": tree((it) => ({
    list: async function* (dir, signal) {
      for await (const entry of it.list(dir, signal)) if (entry.kind === "file") yield entry;
    },
  })),
  "tree: remove takes only the file that was meant, and twice is success": tree((it) => ({
    remove: async (path, _expect, signal) => {
      const now = await it.stat(path, signal);
      if (now !== undefined) await it.remove(path, now, signal);
    },
  })),
  "tree: a directory is not taken for the file that was meant": tree((it) => ({
    remove: async (path, expect, signal) => {
      if ((await it.stat(path, signal))?.kind !== "directory") await it.remove(path, expect, signal);
    },
  })),
  "tree: where times are asked for, a listing and a look tell the same; what has another time is not the file that was meant": tree(
    (it) => ({
      move: (from, to, expect, signal) => it.move(from, to, expect === "directory" ? expect : { size: expect.size }, signal),
    }),
  ),
  "tree: move makes directories, goes over nothing, and takes only the file that was meant": tree((it, under) => ({
    move: async (from, to, expect, signal) => {
      if ((await it.stat(to, signal)) !== undefined) await under.remove(to);
      await it.move(from, to, expect, signal);
    },
  })),
  "tree: a move that is to make no directory finds none where it has got another name": tree((it) => ({
    move: (from, to, expect, signal) => it.move(from, to, expect, signal),
  })),
  "tree: mkdir makes parents, and twice is success": tree((it) => ({
    mkdir: async (path, signal) => {
      if ((await it.stat(path, signal)) !== undefined) throw new Fault("conflict", "it exists");
      await it.mkdir(path, signal);
    },
  })),
  "tree: a source lists directories where they are wanted, each before what is in it": source((it) => ({
    list: async function* (signal, options) {
      const late: FileEntry[] = [];
      for await (const entry of it.list(signal, options)) {
        if (entry.kind === "directory") late.push(entry);
        else yield entry;
      }
      yield* late;
    },
  })),
  "tree: a link is neither entered, moved nor removed as what it leads to": source((it) => ({
    list: async function* (signal, options) {
      for await (const entry of it.list(signal, options)) yield entry.kind === "unreadable" ? { ...entry, kind: "directory" } : entry;
    },
  })),
  "tree: an identity is the thing's, whatever it is called, and no other's": (under) => {
    const { source: from, tree: of } = under.device;
    assert.ok(from && of);
    const named = (entry: FileEntry): FileEntry => ({ ...entry, identity: entry.path });
    return {
      device: but(under.device, {
        source: but(from, {
          list: async function* (signal, options) {
            for await (const entry of from.list(signal, options)) yield named(entry);
          },
        }),
        tree: but(of, {
          stat: async (path, signal) => {
            const entry = await of.stat(path, signal);
            return entry === undefined ? undefined : named(entry);
          },
        }),
      }),
    };
  },
  "tree: a directory moves with all that is in it, over nothing, and only where a directory is meant": tree((it) => ({
    move: async (from, to, expect, signal) => {
      // As rename(2) does.
      if (expect === "directory") await it.rmdir(to, signal).catch(() => undefined);
      await it.move(from, to, expect, signal);
    },
  })),
  "tree: nothing is moved into itself, and the root stays": tree((it) => ({
    rmdir: (path, signal) => (path === "" ? Promise.resolve() : it.rmdir(path, signal)),
  })),
  "tree: rmdir takes only an empty directory, and twice is success": tree((it) => ({
    rmdir: async (path, signal) => {
      for await (const entry of path === "dir" ? it.list(path, signal) : [])
        if (entry.kind === "file") await it.remove(entry.path, entry, signal);
      await it.rmdir(path, signal);
    },
  })),
  "tree: what is there is synced, whatever it is, and so is that it has gone": tree((it) => ({
    sync: async (path, size, signal) => {
      if ((await it.stat(path, signal)) === undefined) throw new Fault("missing", "it is no longer there");
      await it.sync?.(path, size, signal);
    },
  })),
  "tree: makeNew tells who made a directory": tree((it) => ({
    makeNew: async (path, signal) => {
      if ((await it.stat(path, signal))?.kind === "file") return false;
      await it.mkdir(path, signal);
      return true;
    },
  })),
  "tree: of several who move to one name at once one wins": (under) => ({
    promises: { exclusive: "names", rmdirIsSafe: true },
    ...tree((it) => ({
      move: (from, to, expect, signal) =>
        it.move(from, to, expect, signal).catch((error: unknown) => {
          if (!isFault(error, "conflict")) throw error;
        }),
    }))(under),
  }),
  "tree: what is tried out is what is known of this server, and nothing is left of it": tree((it) => ({
    tryOut: async (dir, signal) => {
      await it.mkdir(`${dir}/.filesync-try-0`, signal);
      return it.tryOut(dir, signal);
    },
  })),
};

function planted<T extends UnderTest>(
  suite: string,
  clauses: readonly Clause<T>[],
  bugs: Readonly<Record<string, Bug<T>>>,
  make: () => Promise<T>,
): void {
  test(`${suite}: each clause has its planted bug`, () => {
    assert.deepEqual(clauses.map((clause) => clause.name).sort(), Object.keys(bugs).sort());
  });
  for (const clause of clauses)
    test(`${suite}: a planted bug turns it red: ${clause.name}`, async () => {
      const bug = bugs[clause.name];
      assert.ok(bug);
      const buggy = async (): Promise<T> => {
        const under = await make();
        return { ...under, ...bug(under) };
      };
      const result = await verdict(clause, { name: "planted", make: buggy }, 8000);
      assert.ok(result instanceof Error, `the clause ${typeof result === "string" ? `does not apply: ${result}` : "stayed green"}`);
    });
}

planted("target", allTargetClauses, targetBugs, async () => {
  const under = await correct.target.make();
  return { ...under, ...copying(under) };
});
test("target: the device that has no bug passes what was added to it", async () => {
  for (const clause of allTargetClauses.filter(({ name }) => name.includes("splice"))) {
    const make = async () => {
      const under = await correct.target.make();
      return { ...under, ...copying(under) };
    };
    assert.equal(await verdict(clause, { name: "correct", make }), undefined);
  }
});
planted("source", allSourceClauses, sourceBugs, () => correct.source.make());
