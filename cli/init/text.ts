/** A configuration as it is written for somebody: each part with what it is, and where more is said. */
import { memberText, valueText } from "../edit-config.js";

export interface Part {
  readonly name: string;
  readonly comment: readonly string[];
  readonly value: Readonly<Record<string, unknown>>;
}

export interface RoutePart {
  readonly comment: readonly string[];
  readonly value: Readonly<Record<string, unknown>>;
}

export interface Whole {
  readonly head: readonly string[];
  readonly schema: string;
  readonly vehicle: string;
  readonly stateDir: string;
  readonly devices: readonly Part[];
  readonly routes: readonly RoutePart[];
  /** Said where there are no routes. */
  readonly noRoutes?: readonly string[];
  readonly services?: readonly Part[];
}

export function configText({ head, schema, vehicle, stateDir, devices, routes, noRoutes = [], services = [] }: Whole): string {
  const blocks = [
    [
      ...comments(head, "  "),
      `  ${memberText("$schema", schema)},`,
      `  ${memberText("vehicle", vehicle)},`,
      ...comments(["Journal and spool: what was pulled and is not everywhere yet."], "  "),
      `  ${memberText("stateDir", stateDir)}`,
    ],
    parts("devices", devices),
    list(routes, noRoutes),
    ...(services.length === 0 ? [] : [parts("services", services)]),
  ];
  return `{\n${blocks.map((lines) => lines.join("\n")).join(",\n\n")}\n}\n`;
}

function parts(key: string, all: readonly Part[]): string[] {
  if (all.length === 0) return [`  ${JSON.stringify(key)}: {}`];
  const members = all.map(({ name, comment, value }) =>
    [...comments(comment, "    "), `    ${memberText(name, value, "    ")}`].join("\n"),
  );
  return [`  ${JSON.stringify(key)}: {`, members.join(",\n"), "  }"];
}

function list(routes: readonly RoutePart[], none: readonly string[]): string[] {
  if (routes.length === 0) return [...comments(none, "  "), '  "routes": []'];
  const items = routes.map(({ comment, value }) => [...comments(comment, "    "), `    ${valueText(value, "    ")}`].join("\n"));
  return ['  "routes": [', items.join(",\n"), "  ]"];
}

function comments(lines: readonly string[], indent: string): string[] {
  // A name that somebody gave ends no comment.
  return lines.map((line) => `${indent}// ${line.replaceAll(/[\r\n]+/g, " ")}`);
}
