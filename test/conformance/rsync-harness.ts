/**
 * Harnesses of the target suite for the plugin "rsync". It takes a file by its path: what a clause gives as bytes is put into a file first, and bytes that break off
 * are a transfer that broke off there, of a real partial by the real rsync.
 */
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { addAbortSignal, type Readable } from "node:stream";
import { abortedFault } from "../../core/errors.js";
import { bytesFromName } from "../../core/names.js";
import type { Device, Target, Upload } from "../../core/plugin.js";
import { plugin } from "../../plugins/rsync/plugin.js";
import { calm } from "./clause.js";
import { files } from "./files.js";
import { deviceOf, served, type Served } from "./served.js";
import type { SftpServerKind } from "./sftp-servers.js";
import { context, type TestContext, type TestUpload } from "./upload.js";

/** A device of the plugin "rsync" at a port of this machine, with its state below `stateDir`. */
export function rsyncDevice(port: number, given: Readonly<Record<string, unknown>>, ctx: TestContext): Device {
  return deviceOf(plugin, { host: "127.0.0.1", port, timeout: "10s", ...given }, ctx);
}

interface Came {
  readonly bytes: Buffer;
  readonly error?: Error;
}

async function all(stream: Readable, signal: AbortSignal): Promise<Came> {
  const parts: Buffer[] = [];
  try {
    for await (const part of addAbortSignal(signal, stream)) parts.push(Buffer.from(part as Buffer));
    return { bytes: Buffer.concat(parts) };
  } catch (error) {
    return { bytes: Buffer.concat(parts), error: signal.aborted ? abortedFault(signal) : (error as Error) };
  }
}

/** The target, given paths of files below `dir`. */
export function byPath(target: Target, dir: string): Target {
  const paths = new Map<string, string>();
  const late = new Map<string, Promise<void>>();
  const at = async <T extends Upload>(upload: T): Promise<T> => {
    await late.get(upload.id);
    const localPath = paths.get(upload.id);
    return localPath === undefined ? upload : { ...upload, localPath };
  };
  const put = async (upload: Upload, bytes: Buffer): Promise<void> => {
    const path = join(dir, upload.id);
    await fs.writeFile(path, bytes);
    // As a file in the place where it was made.
    if (upload.modifiedMs !== undefined) await fs.utimes(path, upload.modifiedMs / 1000, upload.modifiedMs / 1000);
    paths.set(upload.id, path);
  };
  return {
    get features() {
      return target.features;
    },
    offset: async (upload, signal) => target.offset(await at(upload), signal),
    write: async (upload, offset, signal, onBytes) => {
      const { reading, open } = upload as TestUpload;
      if (signal.aborted) return target.write(await at(upload), offset, signal, onBytes);
      const { bytes, error } = await all(open(0, signal), signal);
      reading.offsets.push(offset);
      await put(upload, bytes);
      if (bytes.length < upload.size) {
        const part = { ...(await at(upload)), size: bytes.length };
        const broken = target.write(part, offset, calm(), () => undefined);
        // Of one that was stopped it goes on behind: how soon rsync itself ends is asked in a test of its own.
        if (signal.aborted) late.set(upload.id, broken);
        else await broken;
      }
      if (error !== undefined) throw error;
      await target.write(await at(upload), offset, signal, (n) => {
        reading.given += n;
        onBytes(n);
      });
    },
    commit: async (upload, signal) => target.commit(await at(upload), signal),
    discard: async (upload, signal) => target.discard(await at(upload), signal),
    ...(target.look === undefined ? {} : { look: async (upload: Upload, signal: AbortSignal) => target.look!(await at(upload), signal) }),
  };
}

/** Of the target suite only: it is no source. */
export function rsyncHarness(
  kind: SftpServerKind,
  given: Readonly<Record<string, unknown>> = {},
  name = kind.name,
): Pick<Served, "target" | "stop"> {
  return served(kind, { name }, async (running, dir, clause) => {
    const root = `${running.seen}/${clause}`;
    const local = await fs.mkdtemp(join(tmpdir(), "filesync-local-"));
    const own = (more: object) => rsyncDevice(running.port, { root, ...more, ...given }, context({ stateDir: join(local, "state") }));
    const device = own(running.options);
    const { sparse: _, ...rest } = files(dir, bytesFromName);
    return {
      device: {
        presence$: device.presence$,
        probe: (signal) => device.probe(signal),
        close: () => device.close(),
        ...(device.target === undefined ? {} : { target: byPath(device.target, local) }),
      },
      ...rest,
      secrets: running.secrets,
      stranger: () => Promise.resolve(own(running.wrong)),
      close: async () => {
        await device.close();
        await fs.rm(local, { recursive: true });
      },
    };
  });
}
