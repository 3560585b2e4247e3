/** The target role: uploads by the plugin `local`, on a medium that is in. With several (`any`) a path says which. */
import { Fault } from "../../core/errors.js";
import type { Occupant, Part, Receipt, Target, TargetFeatures, Upload } from "../../core/plugin.js";
import type { LocalTarget } from "../local/target.js";
import type { Disks } from "./device.js";
import { timed } from "./media.js";
import type { Medium } from "./medium.js";

export class DiskTarget implements Target {
  readonly features: TargetFeatures = {
    ...{ needs: "stream", resume: true, splices: "whole", atomic: true, singleShot: false, digests: ["sha256"] },
    // A stick takes no more from several at once, and syncs slower.
    concurrency: 2,
  };

  constructor(readonly disks: Disks) {}

  offset(upload: Upload, signal: AbortSignal): Promise<number> {
    return this.#on(upload, signal, (target, inner, on) => target.offset(inner, on));
  }

  write(upload: Upload, offset: number, signal: AbortSignal, onBytes: (n: number) => void): Promise<void> {
    return this.#on(upload, signal, (target, inner, on) => target.write(inner, offset, on, onBytes));
  }

  splice(upload: Upload, from: Part, at: number, signal: AbortSignal): Promise<void> {
    const source = this.disks.at(from.path);
    if (source.medium !== this.disks.at(upload.path).medium)
      return Promise.reject(new Fault("rejected", `${from.path} is on another medium than ${upload.path}`));
    return this.#on(upload, signal, (target, inner, on) => target.splice(inner, { ...from, path: source.inner }, at, on));
  }

  commit(upload: Upload, signal: AbortSignal): Promise<Receipt | Occupant> {
    return this.#on(upload, signal, async (target, inner, on, medium) => {
      const done = await target.commit(inner, on);
      await medium.expectAlive();
      return "occupied" in done ? done : { ...done, path: upload.path };
    });
  }

  discard(upload: Upload, signal: AbortSignal): Promise<void> {
    return this.#on(upload, signal, (target, inner, on) => target.discard(inner, on));
  }

  look(upload: Upload, signal: AbortSignal): Promise<Occupant | undefined> {
    return this.#on(upload, signal, async (target, inner, on, medium) => {
      const there = await target.look(inner, on);
      if (there === undefined) await medium.expectAlive();
      return there;
    });
  }

  #on<T>(
    upload: Upload,
    signal: AbortSignal,
    work: (target: LocalTarget, upload: Upload, signal: AbortSignal, medium: Medium) => Promise<T>,
  ): Promise<T> {
    const { medium, inner } = this.disks.at(upload.path);
    return medium.use(true, signal, ({ target }, on) => work(target, this.#below(medium, upload, inner), on, medium));
  }

  /** With its paths below the medium, and its time as that tells it. */
  #below(medium: Medium, upload: Upload, inner: string): Upload {
    if (inner === upload.path && medium.aheadMs === 0) return upload;
    const partialPath = upload.partialPath.slice(this.disks.pathOf(medium, "").length);
    const { modifiedMs } = timed(upload, medium.aheadMs);
    // Its `expect` may be decided while it runs.
    return Object.create(upload, {
      path: { value: inner },
      partialPath: { value: partialPath },
      modifiedMs: { value: modifiedMs },
    }) as Upload;
  }
}
