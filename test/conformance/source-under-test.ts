/** What the clauses of sources and of trees stand on: a device, its files by another way, and the reading of both. */
import assert from "node:assert/strict";
import { buffer } from "node:stream/consumers";
import type { Device, FileEntry, Source, TreePromises } from "../../core/plugin.js";
import { calm, type Clause, type Harness, type UnderTest } from "./clause.js";

/** A device, and its files by another way. Paths are those of core, below the device's root. */
export interface SourceUnderTest extends UnderTest {
  /** Puts a file there, with its directories. */
  put(path: string, content: Buffer): Promise<void>;
  append(path: string, content: Buffer): Promise<void>;
  remove(path: string): Promise<void>;
  read(path: string): Promise<Buffer | undefined>;
  /** Makes a symbolic link; where the medium has them. */
  link?(path: string, to: string): Promise<void>;
  /** Makes a file of `size` bytes that takes no space; where the medium can. */
  sparse?(path: string, size: number): Promise<void>;
  /** Takes the device away, and gives it back. */
  unplug?(): Promise<void>;
  replug?(): Promise<void>;
  /** How many files were open at the device at most, where the harness can count them. */
  mostOpen?(): number;
  /** A device of the same server with wrong credentials. */
  readonly stranger?: () => Promise<Device>;
  readonly secrets?: readonly string[];
  /** Names that this server cannot hold, with the reason. */
  readonly refuses?: Readonly<Record<string, string>>;
  /** What can be relied on there, where the device has a tree. */
  readonly promises?: TreePromises;
}

export type SourceHarness = Harness<SourceUnderTest>;
export type SourceClause = Clause<SourceUnderTest>;

export function sourceOf(under: UnderTest): Source {
  assert.ok(under.device.source, "the device has no source");
  return under.device.source;
}

export async function all(source: Source, options?: Parameters<Source["list"]>[1]): Promise<FileEntry[]> {
  const entries: FileEntry[] = [];
  for await (const entry of source.list(calm(), options)) entries.push(entry);
  return entries.sort((a, b) => (a.path < b.path ? -1 : 1));
}

export async function found(under: SourceUnderTest, path: string, content?: Buffer): Promise<FileEntry> {
  if (content !== undefined) await under.put(path, content);
  const entry = (await all(sourceOf(under))).find((it) => it.path === path);
  assert.ok(entry, `${path} is not listed`);
  return entry;
}

export async function bytesOf(source: Source, entry: FileEntry, offset: number): Promise<Buffer> {
  return buffer(await source.open(entry, offset, calm()));
}

/** Opens and reads to the end: for a fault that may come at either. */
export async function readAll(source: Source, entry: FileEntry, offset = 0): Promise<number> {
  return (await bytesOf(source, entry, offset)).length;
}
