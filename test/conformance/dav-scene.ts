/** A double of a WebDAV server and a device at it, for one test. */
import assert from "node:assert/strict";
import { mkdtempSync, promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { Device, Source, Target } from "../../core/plugin.js";
import { DavDouble } from "../doubles/dav.js";
import { calm } from "./clause.js";
import { davDevice } from "./dav-harness.js";
import { memo } from "./upload.js";

export interface Scene<T extends DavDouble> {
  readonly double: T;
  readonly device: Device;
}

export async function scene<T extends DavDouble>(
  t: TestContext,
  make: (dir: string) => T,
  given: Readonly<Record<string, unknown>> = {},
  memory = memo(),
): Promise<Scene<T>> {
  const dir = mkdtempSync(join(tmpdir(), "filesync-dav-"));
  const double = await make(dir).start();
  const device = davDevice(double.url, given, { memory });
  t.after(async () => {
    await device.close();
    await double.stop();
    await fs.rm(dir, { recursive: true });
  });
  return { double, device };
}

export const plain = (dir: string) => new DavDouble(dir);
export const target = (device: Device): Target => device.target ?? assert.fail();
export const source = (device: Device): Source => device.source ?? assert.fail();

export async function listed(device: Device): Promise<string[]> {
  const paths: string[] = [];
  for await (const entry of source(device).list(calm())) paths.push(`${entry.kind} ${entry.path} ${entry.size}`);
  return paths.sort();
}
