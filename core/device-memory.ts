/** What a device learned and wants to know after a restart: its rows of the table "memory". */
import type { Journal } from "./journal.js";
import type { Memo } from "./plugin.js";

/** Nobody else writes them: they are read once, and a name that is not among them costs nothing. */
export function deviceMemory(journal: Pick<Journal, "all" | "commit" | "run">, device: string): Memo {
  let read: Map<string, string> | undefined;
  const known = () =>
    (read ??= new Map(
      journal
        .all<{ key: string; value: string }>("SELECT key, value FROM memory WHERE device = ?", device)
        .map(({ key, value }) => [key, value]),
    ));
  return {
    get: (key) => {
      const value = known().get(key);
      return value === undefined ? undefined : (JSON.parse(value) as unknown);
    },
    set: (key, value) =>
      journal.commit(() => {
        const rows = known();
        if (value === undefined) {
          journal.run("DELETE FROM memory WHERE device = ? AND key = ?", device, key);
          rows.delete(key);
        } else {
          const text = JSON.stringify(value);
          journal.run(
            "INSERT INTO memory VALUES (?, ?, ?) ON CONFLICT (device, key) DO UPDATE SET value = excluded.value",
            device,
            key,
            text,
          );
          rows.set(key, text);
        }
      }),
  };
}
