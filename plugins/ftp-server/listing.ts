/**
 * Directory entries as lines: MLSD and MLST (RFC 3659), and LIST as `ls -l` writes it, in UTC.
 *
 * Pure functions. Names come out as UTF-8 without control characters (`wireName`).
 */
import type { Stats } from "node:fs";
import { timeOf } from "../../core/stat.js";
import { wireName } from "./root.js";

export const factNames = ["type", "size", "modify", "unique", "perm"] as const;
export type Fact = (typeof factNames)[number];

/** What the protocol cannot tell is told as the beginning of 1970. */
function dateOf({ mtimeMs }: Pick<Stats, "mtimeMs">): Date {
  return new Date(timeOf(Math.trunc(mtimeMs)).modifiedMs ?? 0);
}

/** YYYYMMDDHHMMSS in UTC, with milliseconds where there are some. */
export function ftpTime(stats: Pick<Stats, "mtimeMs">): string {
  const text = dateOf(stats).toISOString();
  const fraction = text.slice(20, 23);
  return text.slice(0, 19).replace(/[-T:]/g, "") + (fraction === "000" ? "" : `.${fraction}`);
}

/** Milliseconds of YYYYMMDDHHMMSS[.sss]; undefined for anything else. */
export function parseFtpTime(text: string): number | undefined {
  const match = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.(\d{1,9}))?$/.exec(text);
  if (match === null) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [number, number, number, number, number, number];
  const ms = Date.UTC(year, month - 1, day, hour, minute, second) + Math.trunc(Number(`0.${match[7] ?? "0"}`) * 1000);
  return month > 12 || month < 1 || new Date(ms).getUTCDate() !== day ? undefined : ms;
}

function kindOf(stats: Stats): "file" | "dir" | "OS.unix=symlink" | "OS.unix=other" {
  if (stats.isFile()) return "file";
  if (stats.isDirectory()) return "dir";
  return stats.isSymbolicLink() ? "OS.unix=symlink" : "OS.unix=other";
}

/** Facts and name, as a line of MLSD without its end. */
export function factLine(name: string, stats: Stats, facts: ReadonlySet<Fact>, perm: string): string {
  let line = "";
  if (facts.has("type")) line += `type=${kindOf(stats)};`;
  if (facts.has("size") && stats.isFile()) line += `size=${stats.size};`;
  if (facts.has("modify")) line += `modify=${ftpTime(stats)};`;
  if (facts.has("unique")) line += `unique=${stats.dev.toString(16)}g${stats.ino.toString(16)};`;
  if (facts.has("perm")) line += `perm=${perm};`;
  return `${line} ${name}`;
}

const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const halfYearMs = 182 * 864e5;

/** A line of LIST without its end. `nowMs` decides between the time of day and the year. */
export function listLine(name: Buffer, stats: Stats, nowMs: number): string {
  const kind = stats.isDirectory() ? "d" : stats.isSymbolicLink() ? "l" : stats.isFile() ? "-" : "s";
  const bits = ["r", "w", "x", "r", "w", "x", "r", "w", "x"].map((c, i) => ((stats.mode >> (8 - i)) & 1 ? c : "-")).join("");
  const date = dateOf(stats);
  const day = `${months[date.getUTCMonth()] ?? "Jan"} ${String(date.getUTCDate()).padStart(2)}`;
  const old = nowMs - date.getTime() > halfYearMs || date.getTime() - nowMs > 864e5;
  const when = old ? ` ${date.getUTCFullYear()}` : date.toISOString().slice(11, 16);
  return `${kind}${bits} ${String(stats.nlink).padStart(4)} ftp      ftp      ${String(stats.size).padStart(12)} ${day} ${when} ${wireName(name)}`;
}
