/** What a program said, with what differs from run to run masked. */
export function masked(text: string, dir: string): string {
  return text
    .replaceAll(dir, "DIR")
    .replace(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ/g, (time) => (time.startsWith("2026-05-28") ? time : "TIME"))
    .replace(/\b[0-9a-f]{16}\b/g, "ID")
    .replace(/ in (less than 1 s|(\d+ min )?\d+ s, [\d.]+ [kMG]?B\/s)/g, " in TIME")
    .replace(/\bin \d+ s/g, "in N s")
    .trimEnd();
}
