/** The independent checker: it shares no code with the engine. Trees are compared byte for byte, receipts are held against what is there. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, lstatSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Path → "size sha256" of every file below a directory; names as Latin-1 text, so that no byte is lost. */
export function treeOf(dir: string): Map<string, string> {
  const files = new Map<string, string>();
  const walk = (at: Buffer, path: string) => {
    for (const name of readdirSync(at, { encoding: "buffer" })) {
      const full = Buffer.concat([at, Buffer.from("/"), name]);
      const below = path === "" ? name.toString("latin1") : `${path}/${name.toString("latin1")}`;
      if (lstatSync(full).isDirectory()) walk(full, below);
      else {
        const bytes = readFileSync(full);
        files.set(below, `${bytes.length} ${createHash("sha256").update(bytes).digest("hex")}`);
      }
    }
  };
  if (existsSync(dir)) walk(Buffer.from(dir), "");
  return files;
}

/** Fails with the first differences. */
export function assertSameTree(actual: ReadonlyMap<string, string>, expected: ReadonlyMap<string, string>, what: string): void {
  const wrong: string[] = [];
  for (const [path, content] of expected)
    if (actual.get(path) !== content) wrong.push(`${path}: ${actual.get(path) ?? "is missing"}, expected ${content}`);
  for (const path of actual.keys()) if (!expected.has(path)) wrong.push(`${path}: should not be there`);
  assert.deepEqual(wrong.slice(0, 10), [], `${what}: ${wrong.length} differences`);
}

interface ReceiptLine {
  readonly delivery: string;
  readonly to: string;
  readonly path: string;
  readonly size: number;
  readonly digest?: string;
}

/** Every receipt is true of what is at its target. Returns the deliveries that have one. */
export function assertReceiptsTrue(stateDir: string, roots: Readonly<Record<string, string>>): Map<string, ReceiptLine> {
  const receipts = new Map<string, ReceiptLine>();
  for (const line of readFileSync(join(stateDir, "receipts.jsonl"), "utf8").split("\n")) {
    if (!line.startsWith("{") || !line.endsWith("}")) continue;
    const receipt = JSON.parse(line) as ReceiptLine;
    receipts.set(receipt.delivery, receipt);
  }
  for (const { to, path, size, digest } of receipts.values()) {
    const root = roots[to];
    if (root === undefined) continue;
    const bytes = readFileSync(join(root, path));
    assert.equal(bytes.length, size, `the receipt for ${to}:${path} says ${size} bytes`);
    if (digest !== undefined)
      assert.equal(`sha256:${createHash("sha256").update(bytes).digest("hex")}`, digest, `the receipt for ${to}:${path}`);
  }
  return receipts;
}
