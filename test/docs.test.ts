/** What the documentation shows, held against the program: configurations load, commands and options exist, links lead somewhere. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { plugins } from "../cli/plugins.js";
import * as v from "valibot";
import { configSchema, deviceCommon, loadConfig } from "../core/config.js";
import { entriesOf } from "../core/config-problems.js";
import { routeSchema } from "../core/config-routes.js";
import { mirrorSchema, twoWaySchema } from "../core/sync/options.js";
import { runProgram } from "./faults/process.js";
import { World } from "./faults/world.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const pages = [
  ...["README.md", "CONTRIBUTING.md", "bench/README.md"],
  ...readdirSync(join(root, "docs")).flatMap((name) => (name.endsWith(".md") ? `docs/${name}` : [])),
  ...readdirSync(join(root, "docs/decisions")).map((name) => `docs/decisions/${name}`),
];
const read = (page: string) => readFileSync(join(root, page), "utf8");

/** What stands between fences, of the language where one is given. */
function blocks(text: string, language?: string): string[] {
  return [...text.matchAll(/^```(\w*)\n(.*?)^```/gms)].flatMap(([, of, body = ""]) =>
    language === undefined || of === language ? body : [],
  );
}

/** Every piece of code: fenced, and between single backquotes. */
function code(text: string): string[] {
  return [...blocks(text), ...[...text.replaceAll(/^```.*?^```/gms, "").matchAll(/`([^`\n]+)`/g)].map(([, span = ""]) => span)];
}

/** A block as a whole configuration: it shows one, a part of one, or devices; what is only hinted at is filled in. */
function whole(block: string): string {
  const text = block
    .replaceAll("SHA256:…", `SHA256:${"a".repeat(43)}`)
    .replaceAll(/\{ *"(?:file": *"[^"]*\.secret|credential": *"[^"]*)" *\}/g, '"a secret"')
    .replaceAll('"~/.ssh/id_ed25519"', '"package.json"')
    .replaceAll('"url": "…"', '"url": "udpin://127.0.0.1:14550"');
  if (text.trimStart().startsWith("{")) return text;
  if (/^"(devices|routes|services|onEvent|journal|spool)"/.test(text.trimStart())) return `{ ${text} }`;
  return `{ "devices": { ${text} } }`;
}

for (const page of pages)
  for (const [i, block] of blocks(read(page), "jsonc").entries())
    test(`${page}: its configuration ${i + 1} is right`, async () => {
      const { problems } = await loadConfig(whole(block), plugins, { baseDir: root, env: {}, hostName: "host" });
      assert.deepEqual(problems, []);
    });

test("every key of the configuration is on its page; in the tables of docs/configuration.md with its default", async () => {
  const missing: string[] = [];
  /** The row of a key in the table behind a line. */
  const row = (page: string, behind: string, key: string) =>
    read(page)
      .slice(read(page).indexOf(behind))
      .split(/\n(?![|\n])/)[0]
      ?.split("\n")
      .find((line) => line.startsWith("|") && (line.split("|")[1] ?? "").includes(`\`${key}\``));
  const tables = [
    ["At the top:", configSchema, ""],
    ["Every device and service, beside", v.strictObject(deviceCommon), ""],
    ["A copy route (", routeSchema, ""],
  ] as const;
  for (const [behind, schema] of tables)
    for (const [key, entry] of Object.entries(entriesOf(schema) ?? {})) {
      const inner = behind === "At the top:" && ["spool", "journal"].includes(key) ? Object.entries(entriesOf(entry) ?? {}) : [];
      for (const [name, one] of inner.length > 0 ? inner.map(([below, it]) => [`${key}.${below}`, it] as const) : [[key, entry] as const]) {
        const found = row("docs/configuration.md", behind, name);
        const { default: byDefault } = one as { default?: unknown };
        if (found === undefined) missing.push(`docs/configuration.md: ${name}`);
        else if ((typeof byDefault === "string" || typeof byDefault === "number") && !found.includes(`\`${byDefault}\``))
          missing.push(`docs/configuration.md: ${name} is ${byDefault} by default`);
      }
    }
  for (const type of plugins.types)
    for (const [key, entry] of Object.entries(entriesOf((await plugins.load(type, root))?.options) ?? {})) {
      // One that only says why it cannot be.
      if ((entry as { wrapped?: { type?: string } }).wrapped?.type === "never") continue;
      if (!new RegExp(`[\`"]${key}[\`".]`).test(read(`docs/${type}.md`))) missing.push(`docs/${type}.md: ${key}`);
    }
  for (const [page, schema] of [
    ["docs/mirror.md", mirrorSchema],
    ["docs/two-way.md", twoWaySchema],
  ] as const)
    for (const key of Object.keys(entriesOf(schema) ?? {})) if (!read(page).includes(key)) missing.push(`${page}: ${key}`);
  assert.deepEqual(missing, []);
});

test("commands that the documentation names exist, with these options", async () => {
  const help = async (...words: string[]) => (await runProgram([...words, "--help"])).out;
  const commands = new Set([...(await help()).matchAll(/^ {2}([a-z][a-z-]*) /gm)].map(([, name = ""]) => name));
  assert.ok(commands.has("status") && commands.has("mount-helper"), [...commands].join(" "));
  const options = new Map<string, string>();
  const wrong: string[] = [];
  for (const page of pages)
    for (const piece of code(read(page)))
      for (const [, command = "", rest = ""] of piece.matchAll(/(?:^|[\s;(])(?:npx |sudo )*filesync ([a-z][a-z-]*)([^\n#;|]*)/g)) {
        if (!commands.has(command)) {
          wrong.push(`${page}: filesync ${command}`);
          continue;
        }
        if (!options.has(command)) options.set(command, await help(command));
        for (const [option] of rest.matchAll(/--[a-z][a-z-]*/g))
          if (!options.get(command)?.includes(option)) wrong.push(`${page}: filesync ${command} ${option}`);
      }
  assert.deepEqual(wrong, []);
  assert.ok(options.size > 15, `only ${options.size} commands are shown`);
});

test("what ready and doctor say in docs/commands.md is what they say", async (t) => {
  const world = new World(t);
  world.file("card/a.ulg", Buffer.alloc(300_000, 1));
  const config = world.config({
    spool: { keepFree: "1MiB", maxSize: "50.3MB" },
    devices: {
      card: { type: "local", dir: "card", inPlace: false },
      ground: { type: "ftp", host: "127.0.0.1", port: 1, user: "u", password: "p" },
    },
    routes: [{ from: "card", to: ["ground"] }],
  });
  assert.equal((await runProgram(["run", "--once", "--config", config])).code, 3);
  const [doctor = "", ready = ""] = blocks(read("docs/commands.md"), "text");
  const masked = (text: string) => text.replaceAll(/card: [\d.]+ [GT]B free/g, "card: SIZE free").trim();
  const said = await runProgram(["ready", "--need", "20MB", "--config", config]);
  assert.equal(said.code, 0);
  assert.equal(masked(said.out).replace("127.0.0.1:1:", "127.0.0.1:21:"), masked(ready));
  const found = (await runProgram(["doctor", "--config", config])).out
    .replaceAll(config, "/etc/filesync/config.json")
    .replaceAll(world.path("state"), "/var/lib/filesync");
  for (const line of doctor.trim().split("\n")) assert.ok(found.split("\n").includes(line), `${line}\nis not in\n${found}`);
});

test("scripts that the documentation names exist, with these options", () => {
  const wrong: string[] = [];
  let seen = 0;
  for (const page of pages)
    for (const piece of code(read(page)))
      for (const [, script = "", rest = ""] of piece.matchAll(/(?:^|[\s/])((?:deploy|make)-[a-z]+\.sh)([^\n#;|]*)/g)) {
        seen += 1;
        const path = join(root, "deploy", script);
        if (!existsSync(path)) wrong.push(`${page}: ${script}`);
        else
          for (const [option] of rest.matchAll(/--[a-z][a-z-]*/g))
            if (!scriptHelp(path).includes(option)) wrong.push(`${page}: ${script} ${option}`);
      }
  assert.deepEqual(wrong, []);
  assert.ok(seen > 5);
});

const helps = new Map<string, string>();
function scriptHelp(path: string): string {
  const text = helps.get(path) ?? execFileSync("bash", [path, "--help"], { encoding: "utf8" });
  helps.set(path, text);
  return text;
}

test("no drop-in that the documentation shows keeps the service down where a path of it is missing", () => {
  const paths = pages.flatMap((page) =>
    [...read(page).matchAll(/^(?:ReadWrite|ReadOnly|Bind)\w*Paths=(.*)$/gm)].map(([, path = ""]) => path),
  );
  assert.ok(paths.length > 0);
  assert.deepEqual(
    paths.filter((path) => !path.startsWith("-")),
    [],
    "systemd ends such a start with 226/NAMESPACE",
  );
});

test("a comma in the API's description is in quotes, or stands between keys", () => {
  let left = read("docs/registry-api.yaml").replaceAll(/"[^"\n]*"/g, "text");
  const wrong: string[] = [];
  for (let before = ""; before !== left;) {
    before = left;
    left = left.replace(/(?<!\/)\{([^{}[\]]*)\}|\[([^{}[\]]*)\]/, (whole, keys: string | undefined) => {
      if (keys?.split(",").some((part) => !/^\s*($|[$\w/-]+:)/.test(part))) wrong.push(whole);
      return "text";
    });
  }
  assert.deepEqual(wrong, []);
});

test("scripts of npm that the documentation names exist", () => {
  const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
  const wrong: string[] = [];
  for (const page of pages)
    for (const piece of code(read(page)))
      for (const [, name = ""] of piece.matchAll(/\bnpm run ([\w:-]+)/g)) if (!(name in scripts)) wrong.push(`${page}: npm run ${name}`);
  assert.deepEqual(wrong, []);
});

test("links lead to files and headings that are there", () => {
  const slug = (heading: string) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-");
  const wrong: string[] = [];
  for (const page of pages)
    for (const [, to = ""] of read(page)
      .replaceAll(/^```.*?^```/gms, "")
      .matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^(https?|mailto):/.test(to)) continue;
      const [file = "", heading] = to.split("#");
      const path = file === "" ? join(root, page) : resolve(root, dirname(page), file);
      if (!existsSync(path)) wrong.push(`${page}: ${to}`);
      else if (heading !== undefined) {
        const headings = [...readFileSync(path, "utf8").matchAll(/^#+ (.*)$/gm)].map(([, text = ""]) => slug(text));
        if (!headings.includes(heading)) wrong.push(`${page}: ${to}`);
      }
    }
  assert.deepEqual(wrong, []);
});
