/** A Target under test, and its files by another way. */
import assert from "node:assert/strict";
import type { Device, Occupant, Receipt, Target, Upload } from "../../core/plugin.js";
import { calm, type Clause, type Harness, type UnderTest } from "./clause.js";
import { cut } from "./readers.js";
import { sha256, upload, type TestUpload } from "./upload.js";

/** A device, and its files by another way. Paths are those of core, below the device's root. */
export interface TargetUnderTest extends UnderTest {
  /** The real content; undefined when nothing is there. */
  read(path: string): Promise<Buffer | undefined>;
  /** Puts a file there by another hand, with its directories. */
  put(path: string, content: Buffer): Promise<void>;
  /** Takes a file away by another hand. */
  remove(path: string): Promise<void>;
  /** Paths of all files below the root, also hidden ones. */
  list(): Promise<string[]>;
  /** The size of a file; undefined when nothing is there. */
  size(path: string): Promise<number | undefined>;
  /** The time of a file, where this target keeps the one of the upload. */
  modifiedMs?(path: string): Promise<number>;
  /** Makes a file of `size` bytes that takes no space; where the medium can. */
  sparse?(path: string, size: number): Promise<void>;
  /** Makes a target that believes only its own notes believe that it holds so much of an upload. */
  vouch?(upload: Upload, bytes: number): Promise<void>;
  /** A device of the same server with wrong credentials. */
  readonly stranger?: () => Promise<Device>;
  /** What no message may hold. */
  readonly secrets?: readonly string[];
  /** Names that this server cannot hold, with the reason. */
  readonly refuses?: Readonly<Record<string, string>>;
  /** What is beside and above the root, as far as the harness can see: an escape would show there. */
  outside?(): Promise<string[]>;
}

export type TargetHarness = Harness<TargetUnderTest>;
export type TargetClause = Clause<TargetUnderTest>;

/** Of a target that believes what it wrote itself, and ended itself. */
export function vouching({ target }: Device): NonNullable<TargetUnderTest["vouch"]> {
  return async ({ id, path, size }, held) => {
    const withdrawn = upload(path, Buffer.alloc(0), { id, size, read: (offset) => cut(Buffer.alloc(0), offset)(offset) });
    await target?.write(withdrawn, held, calm(), () => undefined).catch(() => undefined);
  };
}

export function targetOf(under: UnderTest): Target {
  assert.ok(under.device.target, "the device has no target");
  return under.device.target;
}

export function isReceipt(result: Receipt | Occupant): result is Receipt {
  return !("occupied" in result);
}

/** Writes from where the target is, and publishes. */
export async function send(target: Target, it: TestUpload): Promise<Receipt> {
  const offset = await target.offset(it, calm());
  await target.write(it, offset, calm(), () => undefined);
  const result = await target.commit(it, calm());
  assert.ok(isReceipt(result), `the name was occupied: ${JSON.stringify(result)}`);
  return result;
}

/** Publishes what is whole there, and looks at it by the other way. */
export async function commit(under: TargetUnderTest, it: TestUpload, content: Buffer): Promise<void> {
  const result = await targetOf(under).commit(it, calm());
  assert.ok(isReceipt(result));
  await expectPublished(under, it, content, result);
}

export async function expectPublished(under: TargetUnderTest, it: TestUpload, content: Buffer, receipt: Receipt): Promise<void> {
  assert.equal(receipt.path, it.path);
  assert.equal(receipt.size, content.length);
  if (receipt.proof === "digest" || receipt.proof === "readback") assert.equal(receipt.digest, sha256(content));
  const shown = receipt.shown === undefined ? undefined : await under.device.tree?.stat(it.path, calm());
  if (shown !== undefined) assert.deepEqual({ size: shown.size, modifiedMs: shown.modifiedMs }, receipt.shown);
  const there = await under.read(it.path);
  assert.ok(there !== undefined, "nothing is under the final name");
  assert.ok(there.equals(content), `${there.length} bytes are there, and they are not the ones that were sent (${content.length})`);
}

/** Sends the first part and is cut: what the target then holds. */
const hidden = /(^|\/)\.[^/]*\.part$/;
export const visible = (paths: readonly string[]): string[] => paths.filter((path) => !hidden.test(path)).sort();
