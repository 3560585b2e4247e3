/** What is wrong with a configuration, in words: the place, the value, the nearest right word. */
import { createScanner, findNodeAtLocation, printParseErrorCode, type Node, type ParseError } from "jsonc-parser";
import * as v from "valibot";
import { isPath, secretKey, secretWords, unseen } from "./options.js";

/** The keys that lead to a place: "routes", 1, "to". */
export type At = readonly (string | number)[];

export interface ConfigProblem {
  /** 1-based; 0 when the file has no such place. */
  readonly line: number;
  /** "devices.ground.port", "routes[1].to". */
  readonly path: string;
  readonly message: string;
  /** Whoever looked may not see it: it may be right for who will run it. */
  readonly unseen?: true;
}

/** One line for a person. */
export function problemText(file: string, problem: ConfigProblem): string {
  return `${file}:${problem.line}: ${problem.path === "" ? "" : `${problem.path}: `}${problem.message}`;
}

/** "line 3: devices.ground.port: …", where it is known which file is meant. */
export function placeText({ line, path, message }: ConfigProblem): string {
  return `${line === 0 ? "" : `line ${line}: `}${path === "" ? "" : `${path}: `}${message}`;
}

/** "2 mistakes (the first: line 3: …)" */
export function mistakesText(problems: readonly ConfigProblem[]): string {
  const first = problems[0] === undefined ? "" : placeText(problems[0]);
  return problems.length === 1 ? `a mistake (${first})` : `${problems.length} mistakes (the first: ${first})`;
}

/** What is wrong of a configuration of which the rest runs, and what therefore does not happen: in one line. */
export function wrongText({
  problems,
  therefore,
}: {
  readonly problems: readonly ConfigProblem[];
  readonly therefore: readonly string[];
}): string {
  return `the configuration has ${mistakesText(problems)}${therefore.length === 0 ? "" : `: ${therefore.join("; ")}`}`;
}

/** Why a text cannot be read, of the first place where it cannot: what follows is mostly its consequence. */
export function syntaxProblem(text: string, { error, offset }: ParseError): ConfigProblem {
  if (text.includes("\0")) return { line: 1, path: "", message: "this is no text in UTF-8, perhaps one in UTF-16: save it as UTF-8" };
  const before = text.slice(0, Math.max(0, offset)).split("\n");
  return {
    line: before.length,
    path: "",
    message: `this is no JSON: ${readable(printParseErrorCode(error))} (column ${(before.at(-1) ?? "").length + 1})`,
  };
}

const deepest = 100;

/** Where more lists and objects are in one another than anybody writes: whoever goes down there by calls comes to the end of the stack. */
export function tooDeep(text: string): ConfigProblem | undefined {
  const scanner = createScanner(text, true);
  for (let depth = 0; scanner.getPosition() < text.length;) {
    scanner.scan();
    const token = text.charAt(scanner.getTokenOffset());
    if (token === "{" || token === "[") depth += 1;
    else if (token === "}" || token === "]") depth -= 1;
    if (depth > deepest)
      return { line: scanner.getTokenStartLine() + 1, path: "", message: `more than ${deepest} lists and objects are in one another here` };
  }
  return undefined;
}

/** What is wrong, in words. `written`: what stands there. `beside`: keys that an object beside these of `schema` may have. `modesWith`: modes of routes that have a key. */
export function messageOf(
  issue: v.BaseIssue<unknown>,
  schema: v.GenericSchema,
  inner: (string | number)[],
  written: unknown,
  beside: readonly string[],
  modesWith: (key: string) => readonly string[],
): string {
  const key = String(inner.at(-1) ?? "");
  const entries = entriesAt(schema, inner.slice(0, -1));
  const isRoute = entries !== undefined && "from" in entries;
  if (isUnknownKey(issue) && isRoute && beside.includes(key)) return `unknown key "${key}" in a route: it belongs to a device`;
  const modes = isUnknownKey(issue) && isRoute ? modesWith(key) : [];
  if (modes.length > 0)
    return `unknown key "${key}" in a route of this mode: it belongs to "mode": ${modes.map((mode) => `"${mode}"`).join(" or ")}`;
  if (isUnknownKey(issue) && entries !== undefined)
    return `unknown key "${key}"${suggestion(key, [...Object.keys(entries), ...(inner.length === 1 && !isRoute && !("devices" in entries) ? beside : [])])}`;
  if (issue.received === "undefined") {
    const help = entries?.[key] === undefined ? undefined : v.getDescription(entries[key]);
    return `"${key}" is missing${help === undefined ? "" : `: ${help}`}`;
  }
  const wanted = issue.message.startsWith("Invalid")
    ? (issue.expected ?? "another value").replace(/^Array$/, "a list").replace(/^Object$/, "an object")
    : issue.message;
  const words =
    issue.type === "picklist" && typeof issue.input === "string"
      ? [...(issue.expected ?? "").matchAll(/"([^"]+)"/g)].map((match) => match[1] ?? "")
      : [];
  if (isUnseen(issue)) return `expected ${wanted}`;
  // In the place of an object under a name that a person chose there may be a password, as under a user's.
  const isNamed = entries === undefined && isOfObject(issue);
  if (typeof issue.input === "string" && !isPath(issue.input) && (isNamed || inner.some((it) => secretKey.test(String(it)))))
    return `expected ${wanted}`;
  return `expected ${wanted}${given(issue, written)}${typeof issue.input === "string" ? suggestion(issue.input, words) : ""}`;
}

/** Of an object with keys that are unknown only the first is told: one of each. */
export function eachUnknown(issue: v.BaseIssue<unknown>, schema: v.GenericSchema): v.BaseIssue<unknown>[] {
  const path = issue.path ?? [];
  const last = path.at(-1);
  const above = path.slice(0, -1);
  const entries = entriesAt(
    schema,
    above.map(({ key }) => key as string | number),
  );
  if (!isUnknownKey(issue) || entries === undefined || !isObject(last?.input)) return [issue];
  const unknown = Object.keys(last.input).filter((key) => !Object.hasOwn(entries, key));
  return unknown.map((key) => ({ ...issue, path: [...above, { ...last, key }] as unknown as typeof issue.path }));
}

const isOfObject = ({ type }: v.BaseIssue<unknown>) => type.endsWith("object") || type === "record";

const isUnknownKey = ({ type, expected }: v.BaseIssue<unknown>) => type === "strict_object" && expected === "never";

export function isUnseen({ received }: v.BaseIssue<unknown>): boolean {
  return received === unseen;
}

/** What stands there, where it helps: an object says nothing, and a length is not what was written. A bound sees "20s" as 20000. */
function given({ input: seen, type, message }: v.BaseIssue<unknown>, written: unknown): string {
  // A password without its quotes is one all the same.
  if (message === secretWords) return "";
  const input = type === "min_value" || type === "max_value" ? written : seen;
  if (typeof input === "number") return `, got ${input}`;
  if (Array.isArray(input)) return type === "min_length" ? "" : ", got a list";
  if (typeof input === "object") return "";
  return `, got ${masked(JSON.stringify(input) ?? "")}`;
}

/** A password in a URL is not said again, nor what may be a token. */
function masked(text: string): string {
  return text
    .replace(/\/\/[^/@\s]*@/, "//***@")
    .replace(/^"[^/@\s]*:[^/@\s]*@/, '"***@')
    .replace(/(:\/[^?#]*[?#])[^"]+/, "$1***");
}

type Entries = Readonly<Record<string, v.GenericSchema>>;

/** The entries of an object schema, through what wraps it. */
export function entriesOf(schema: unknown): Entries | undefined {
  const node = schema as { entries?: Entries; wrapped?: unknown; pipe?: readonly unknown[]; options?: readonly unknown[] };
  if (node.entries !== undefined) return node.entries;
  if (node.wrapped !== undefined) return entriesOf(node.wrapped);
  if (Array.isArray(node.options)) for (const option of node.options) if (typeof option === "object") return entriesOf(option) ?? undefined;
  return undefined;
}

function entriesAt(schema: unknown, at: (string | number)[]): Entries | undefined {
  let node: unknown = schema;
  for (const key of at) {
    let inner = node as { wrapped?: unknown; value?: unknown; item?: unknown };
    while (inner.wrapped !== undefined) inner = inner.wrapped as typeof inner;
    node = entriesOf(inner)?.[key] ?? inner.value ?? inner.item;
    if (node === undefined) return undefined;
  }
  return entriesOf(node);
}

/** Where a list stands and an object is wanted, in words: to the schema it would be an object without any of its keys. */
export function* listsForObjects(schema: unknown, written: unknown, at: At = []): Generator<{ readonly at: At; readonly wanted: string }> {
  const node = schema as { type?: string; message?: unknown; wrapped?: unknown; value?: unknown; item?: unknown; options?: unknown };
  if (node.wrapped !== undefined) yield* listsForObjects(node.wrapped, written, at);
  else if (node.type === "array" && Array.isArray(written))
    for (const [n, one] of written.entries()) yield* listsForObjects(node.item, one, [...at, n]);
  else if (node.type === "union" && isObject(written))
    for (const option of node.options as readonly unknown[]) yield* listsForObjects(option, written, at);
  else if (node.type?.endsWith("object") === true || node.type === "record") {
    if (Array.isArray(written)) yield { at, wanted: typeof node.message === "string" ? node.message : "an object" };
    else if (isObject(written))
      for (const [key, one] of Object.entries(written)) {
        const entries = entriesOf(node);
        const inner = entries !== undefined && Object.hasOwn(entries, key) ? entries[key] : node.value;
        if (inner !== undefined) yield* listsForObjects(inner, one, [...at, key]);
      }
  }
}

/** `; did you mean "port"?` when one of the words is near. */
export function suggestion(given: string, words: readonly string[]): string {
  const near = words
    .map((word) => ({ word, away: distance(given.toLowerCase(), word.toLowerCase()) }))
    .filter(({ word, away }) => away <= Math.max(1, Math.floor(Math.max(word.length, given.length) / 3)))
    .sort((a, b) => a.away - b.away)[0];
  return near === undefined ? "" : `; did you mean "${near.word}"?`;
}

/** Edit distance where two neighbours that changed places count once. */
function distance(a: string, b: string): number {
  const rows: number[][] = Array.from({ length: a.length + 1 }, (_, i) => [i]);
  const at = (i: number, j: number) => rows[i]?.[j] ?? Infinity;
  for (let j = 0; j <= b.length; j++) rows[0]![j] = j; // eslint-disable-line @typescript-eslint/no-non-null-assertion
  for (let i = 1; i <= a.length; i++)
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? at(i - 2, j - 2) + 1 : Infinity;
      rows[i]![j] = Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + same, swapped); // eslint-disable-line @typescript-eslint/no-non-null-assertion
    }
  return at(a.length, b.length);
}

export function lineOf(tree: Node, at: At, lineAt: (offset: number) => number): number {
  for (let n = at.length; n >= 0; n--) {
    const node = findNodeAtLocation(tree, at.slice(0, n));
    // The property rather than its value: an object may begin lines below its key.
    if (node !== undefined) return lineAt(node.parent?.type === "property" ? node.parent.offset : node.offset);
  }
  return 0;
}

export function duplicateKeys(node: Node, found: (node: Node, key: string) => void): void {
  const seen = new Set<string>();
  for (const child of node.children ?? []) {
    if (child.type === "property") {
      const key = String(child.children?.[0]?.value);
      if (seen.has(key)) found(child, key);
      seen.add(key);
    }
    duplicateKeys(child, found);
  }
}

/** Keys that JavaScript has a meaning for: what stands at one would be left out without a word. */
const reserved: ReadonlySet<unknown> = new Set(["__proto__", "prototype", "constructor"]);

export function reservedKeys(node: Node, found: (node: Node, key: string) => void): void {
  for (const child of node.children ?? []) {
    const key: unknown = child.type === "property" ? child.children?.[0]?.value : undefined;
    if (reserved.has(key)) found(child, String(key));
    reservedKeys(child, found);
  }
}

/** Texts, keys too, that were not read as they were written: bytes that are no UTF-8. Comments may be as they are. */
export function strangeTexts(node: Node, found: (node: Node) => void): void {
  if (node.type === "string" && String(node.value).includes("\uFFFD")) found(node);
  for (const child of node.children ?? []) strangeTexts(child, found);
}

export function asText(at: At): string {
  return at.reduce<string>((text, key) => (typeof key === "number" ? `${text}[${key}]` : text === "" ? key : `${text}.${key}`), "");
}

function readable(code: string): string {
  return code.replace(/([a-z])([A-Z])/g, (_, a: string, b: string) => `${a} ${b.toLowerCase()}`).toLowerCase();
}

/** An object of JSON: no list. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
