/** The plugin `disk`: a stick, a card, a drive that is plugged and pulled, as source and target. */
import { join } from "node:path";
import * as v from "valibot";
import { command, path } from "../../core/options.js";
import type { Plugin } from "../../core/plugin.js";
import type { Wanted } from "./blocks.js";
import { DiskDevice, type DiskOptions } from "./device.js";
import { thisMachine } from "./mounting.js";

const text = (what: string) => v.pipe(v.string("a text"), v.nonEmpty("not empty"), v.description(what));

const options = v.pipe(
  v.strictObject({
    uuid: v.optional(text('The UUID of its file system, as "lsblk -f" shows it: "5C3D-DD9E".')),
    label: v.optional(text("The label of its file system, instead of the UUID.")),
    any: v.optional(
      v.pipe(
        v.literal(true, "true"),
        v.description("Instead of the two: every removable disk that is plugged in, each below a directory with its UUID as name."),
      ),
    ),
    root: v.optional(
      v.pipe(
        v.string("a text"),
        v.transform((dir) => dir.replace(/^\/+|\/+$/g, "")),
        v.check((dir) => !dir.split("/").includes(".."), 'a directory of the disk, without ".."'),
        v.description("The directory on it, below which everything happens."),
      ),
      "",
    ),
    mountPoint: v.optional(
      v.pipe(path(), v.description("Where it is mounted; otherwise by udisks2 where that runs, or in the state directory.")),
    ),
    write: v.optional(
      v.pipe(
        v.boolean("true or false"),
        v.description("Mount it for writing; otherwise that is done only where a route sends to it, or deletes or archives on it."),
      ),
    ),
    gadget: v.optional(
      v.pipe(
        v.boolean("true or false"),
        v.description(
          "The device writes on its own card while it is plugged in (a camera in USB mode): it is mounted anew before each listing.",
        ),
      ),
      false,
    ),
    onSafe: v.optional(
      v.pipe(
        command(),
        v.description(
          "A command that is run when a disk may be pulled, with FILESYNC_DEVICE and FILESYNC_MEDIUM in its environment: the program, then its arguments.",
        ),
      ),
    ),
  }),
  v.check(
    ({ uuid, label, any }) => [uuid, label, any].filter((one) => one !== undefined).length === 1,
    'exactly one of "uuid", "label" and "any": it says which disk it is',
  ),
  v.check(
    ({ any, mountPoint }) => any === undefined || mountPoint === undefined,
    '"any" takes no "mountPoint": there may be several disks',
  ),
);
export type DiskConfig = v.InferOutput<typeof options>;

export const plugin: Plugin<DiskConfig> = {
  type: "disk",
  about: {
    what: "a stick, card or drive that is plugged and pulled",
    resumes: "at the byte",
    proves: "by digest: what was written is read again",
  },
  options,
  roles: ["source", "target"],
  dirOf: ({ mountPoint, root }) => (mountPoint === undefined ? undefined : join(mountPoint, root)),
  device: (given, context) => new DiskDevice(optionsOf(given), context, thisMachine),
};

export function wantedOf({ uuid, label }: Pick<DiskConfig, "uuid" | "label">): Wanted {
  return uuid !== undefined ? { uuid } : label !== undefined ? { label } : { any: true };
}

function optionsOf({ uuid, label, root, mountPoint, write, gadget, onSafe }: DiskConfig): DiskOptions {
  return {
    ...{ wanted: wantedOf({ uuid, label }), root, gadget },
    ...(mountPoint === undefined ? {} : { mountPoint }),
    ...(write === undefined ? {} : { write }),
    ...(onSafe === undefined ? {} : { onSafe }),
  };
}
