/** What a check says: of one thing, how bad it is, and what to type. */

/** The families of checks. */
export type Family = "configuration" | "versions" | "unit" | "daemon" | "serial" | "disks" | "devices" | "clock" | "space" | "power";

/** `bad`: keeps files from arriving, or will soon. `warn`: may. `unseen`: could not be looked at. */
export type Severity = "ok" | "warn" | "bad" | "unseen";

export interface Finding {
  readonly severity: Severity;
  readonly family: Family;
  /** What it is about: a device's name, a path, a program. */
  readonly about: string;
  /** What is so, in one line; of what is unseen, why it could not be seen. */
  readonly text: string;
  /** What to do, in this order: commands to type; what is no command begins with "# ". */
  readonly todo: readonly string[];
}

/** Makes the findings of one family. */
export function findingsOf(family: Family) {
  return (severity: Severity, about: string, text: string, ...todo: string[]): Finding => ({ severity, family, about, text, todo });
}

const words: Readonly<Record<Severity, string>> = { ok: "ok    ", warn: "WARN  ", bad: "BAD   ", unseen: "unseen" };
const order: readonly Severity[] = ["bad", "warn", "unseen", "ok"];

/** For a person: the worst first, each with what to do; one line at the end that says it all. */
export function findingsText(findings: readonly Finding[]): string {
  const lines = order.flatMap((severity) =>
    findings
      .filter((one) => one.severity === severity)
      .flatMap(({ about, text, todo }) => [`${words[severity]}  ${about}: ${text}`, ...todo.map((line) => `          ${line}`)]),
  );
  const count = (severity: Severity) => findings.filter((one) => one.severity === severity).length;
  const [bad, warn, unseen] = [count("bad"), count("warn"), count("unseen")];
  const sum = [
    bad === 0 ? "nothing is bad" : `${bad} bad`,
    ...(warn === 0 ? [] : [`${warn} to look at`]),
    ...(unseen === 0 ? [] : [`${unseen} could not be seen`]),
  ].join(", ");
  return [...lines, "", sum].join("\n");
}
