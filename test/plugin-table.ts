/** The README's table of plugins, made from what each declares. */
import type { Plugin, Role } from "../core/plugin.js";
import { builtIn } from "../plugins/index.js";

const columns = ["type", "source", "target", "goes on after a break", "proof in the receipt", ""] as const;

export async function pluginTable(): Promise<string> {
  const plugins = await Promise.all(Object.values(builtIn).map((load) => load() as Promise<unknown> as Promise<Plugin<unknown>>));
  return tableOf([columns, ...plugins.map(rowOf)]);
}

/** `text` with what stands between the markers replaced. */
export function withTable(text: string, table: string): string {
  return text.replace(
    /(<!-- plugins -->\n\n).*?(\n\n<!-- end of plugins -->)/s,
    (_, begin: string, end: string) => `${begin}${table}${end}`,
  );
}

function rowOf({ type, roles, about }: Plugin<unknown>): string[] {
  if (about === undefined) throw new Error(`the plugin ${type} says nothing about itself`);
  const has = (role: Role, words = "yes") => (roles.includes(role) ? words : "");
  const kind = has("service", " (service)");
  const { what, target, resumes, proves } = about;
  const page = `docs/${type}.md`;
  const asTarget = has("target", target);
  return [
    `\`${type}\`${kind}`,
    has("source"),
    asTarget,
    asTarget === "" ? "" : (resumes ?? "no"),
    proves ?? "",
    `${what}: [${page}](${page})`,
  ];
}

/** As the formatter wants it. */
function tableOf(rows: readonly (readonly string[])[]): string {
  const widths = columns.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  const lines = rows.map((row) => `| ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" | ")} |`);
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  return [lines[0], rule, ...lines.slice(1)].join("\n");
}
