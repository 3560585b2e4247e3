/** `import-legacy`: the configuration of the FileSync in Python → one of this program, with what it cannot take over said. */
import { findNodeAtLocation, getNodeValue, parseTree, type Node, type ParseError } from "jsonc-parser";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { loadConfig, withoutMark } from "../core/config.js";
import { problemText, syntaxProblem } from "../core/config-problems.js";
import { faultOfErrno } from "../core/errors.js";
import { UsageError } from "./config.js";
import { placeConfig, isUntouched } from "./edit-config.js";
import { nextSteps, settingOf, withSecrets } from "./init/setting.js";
import { configText } from "./init/text.js";
import { serverOf, type Told, translated, type Translated, without } from "./legacy/translate.js";
import { plugins } from "./plugins.js";
import { packageRoot } from "./version.js";

/** 0: all was taken over; 3: some of it was not. */
export async function importLegacyCommand(old: string, config: string | undefined): Promise<number> {
  const write = (line: string) => void process.stdout.write(`${line}\n`);
  const from = resolve(old);
  const { given, placeOf } = readOld(from);
  const setting = await settingOf(config);
  const { path, schema, stateDir, dir } = setting;
  const over = existsSync(path);
  if (over && (path === from || !isUntouched(readFileSync(path, "utf8"))))
    throw new UsageError(
      `${path} is there already, and ${path === from ? "is the old one itself" : "is not replaced"}: name another file with --config FILE`,
    );
  const head = `What ${basename(old)} of the FileSync in Python said, in the words of this one. Every key there is: ${join(packageRoot, "config.example.json")}`;
  const textOf = ({ devices, routes, services, notes }: Translated) =>
    configText({
      head: [head, ...notes.map((note) => `Not taken over: ${note}`)],
      schema,
      vehicle: hostname(),
      stateDir,
      devices,
      routes,
      noRoutes: ["The old one named no source with a target, or none that could be taken over."],
      services,
    });
  let taken = translated(given, dirname(from), new Set(namesOfSecrets(dir)));
  if (taken.devices.length + taken.services.length === 0)
    throw new UsageError(
      [
        `${old} holds no configuration of the old FileSync: no "source", "target" or FTP server that could be taken over is in it`,
        ...taken.notes,
      ].join("\n"),
    );
  // What cannot be used is left out, so that the rest is not lost with it. Its passwords are not in their places yet.
  const around = { baseDir: dir, env: process.env, hostName: hostname(), secrets: "unread" } as const;
  for (let less: Translated | undefined = taken; less !== undefined;) {
    taken = less;
    less = without(taken, (await loadConfig(textOf(taken), plugins, around)).problems, placeOf);
  }
  const { devices, services, secrets, notes } = taken;
  if (devices.length + services.length === 0) throw new UsageError(`nothing of ${old} can be used:\n${notes.join("\n")}`);
  const text = textOf(taken);
  const { fresh } = await withSecrets(setting, secrets, () => placeConfig(path, text, { over }));
  write(`Written: ${[path, ...fresh].join(", ")}`);
  if (notes.length > 0) write("Not taken over:");
  for (const note of notes) write(`  ${note}`);
  for (const line of await nextSteps(setting)) write(line);
  return notes.length === 0 ? 0 : 3;
}

function namesOfSecrets(dir: string): string[] {
  const place = join(dir, "credentials");
  return existsSync(place) ? readdirSync(place) : [];
}

/** What is in the old file; and "FILE:LINE" of a place in it, nearer where that has something of this `key`. */
interface Old {
  readonly given: unknown;
  readonly placeOf: (at: Told["at"], key: string | undefined) => string;
}

/** ftp_server.py; JSON, or the pieces of it that its documentation has: without the outer braces, and with a comma at the end. Throws UsageError. */
function readOld(path: string): Old {
  let text: string;
  try {
    text = withoutMark(readFileSync(path, "utf8"));
  } catch (error) {
    throw new UsageError(faultOfErrno(error, `cannot read ${path}`).message);
  }
  const server = serverOf(text);
  if (server !== undefined) return { given: server, placeOf: () => path };
  const errors: ParseError[] = [];
  for (const before of ["", "{"]) {
    const found: ParseError[] = [];
    const whole = before === "" ? text : `{${text}}`;
    const tree = parseTree(whole, found, { allowTrailingComma: true });
    if (found.length === 0 && (tree?.type === "object" || tree?.type === "array")) {
      const placeOf = (at: Told["at"], key: string | undefined) =>
        `${path}:${whole.slice(0, nodeAt(tree, at, key).offset).split("\n").length}`;
      return { given: getNodeValue(tree) as unknown, placeOf };
    }
    errors.push(...found.slice(0, 1).map((error) => ({ ...error, offset: Math.min(text.length, error.offset - before.length) })));
  }
  // The form that it was meant in is the one that goes further.
  const [first] = errors.sort((one, other) => other.offset - one.offset);
  throw new UsageError(
    `${first === undefined ? `${path} is no JSON` : problemText(path, syntaxProblem(text, first))}; nor is it ftp_server.py`,
  );
}

/** The argument that has this key, or one like it ("uploader_url"); else what stands at the place itself. */
function nodeAt(tree: Node, at: Told["at"], key: string | undefined): Node {
  const node = findNodeAtLocation(tree, [...at]) ?? tree;
  const args = findNodeAtLocation(node, ["args"])?.children ?? [];
  const named = args.find(({ children: [name] = [] }) => key !== undefined && String(name?.value).includes(key));
  return named ?? node;
}
