/**
 * Hints that names came or went in a directory in which udev names what is plugged in (`/dev/disk/by-uuid`, `/dev/serial/by-id`), by inotify. udev removes
 * it with the last name in it, so what is above is watched as long as it is not there. A hint may be missed or come for nothing: whoever hears it
 * looks, and looks now and then without one.
 */
import { watch, type FSWatcher } from "node:fs";
import { dirname } from "node:path";

/** What comes together is one hint: udev renames its links into place. */
const gatherMs = 50;

export class NameWatch {
  #watchers: FSWatcher[] = [];
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(
    readonly dir: string,
    readonly hint: () => void,
  ) {
    this.#begin();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#end();
  }

  /** The directory and the two above it (/dev/disk/by-uuid, /dev/disk, /dev). From above, so that none can come unseen in between. */
  #begin(): void {
    this.#end();
    for (const at of [dirname(dirname(this.dir)), dirname(this.dir), this.dir]) {
      let watcher: FSWatcher;
      try {
        watcher = watch(at, { persistent: false }, () => this.#heard());
      } catch {
        // It is not there now: what is above it tells when it comes.
        return;
      }
      watcher.on("error", () => this.#heard());
      // The ones above tell only of its coming.
      this.#end();
      this.#watchers.push(watcher);
    }
  }

  #end(): void {
    for (const watcher of this.#watchers.splice(0)) watcher.close();
  }

  #heard(): void {
    if (this.#closed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      // A directory that was removed and made again is another one.
      this.#begin();
      this.hint();
    }, gatherMs);
  }
}
