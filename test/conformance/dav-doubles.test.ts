/** The plugin "webdav" held to the contract on doubles of Nextcloud and Yandex Disk: their habits as they are told, not the real ones. */
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import type { DavDouble } from "../doubles/dav.js";
import { NextcloudDouble } from "../doubles/nextcloud.js";
import { YandexDouble } from "../doubles/yandex.js";
import { davHarness } from "./dav-harness.js";
import { password, user, type DavServerKind } from "./dav-servers.js";
import { sourceClauses } from "./source.js";
import { targetClauses } from "./target.js";

function kindOf<T extends DavDouble>(name: string, make: (dir: string) => T, files: (double: T) => string): DavServerKind {
  return {
    name,
    start: async () => {
      const dir = await fs.mkdtemp(join(tmpdir(), "filesync-dav-"));
      const double = await make(dir).start();
      return {
        url: double.url,
        dir: files(double),
        unplug: () => double.stop(),
        replug: async () => {
          await double.start();
        },
        stop: async () => {
          await double.stop();
          await fs.rm(dir, { recursive: true });
        },
      };
    },
  };
}

const login = { user, password };
const nextcloud = kindOf(
  "webdav on a double of Nextcloud",
  (dir) => new NextcloudDouble(dir, login),
  (double) => double.files,
);
const yandex = kindOf(
  "webdav on a double of Yandex",
  (dir) => new YandexDouble(dir, login),
  (double) => double.dir,
);
const notUtf8 = { "caf\u201bE9.bin": "the doubles know names only as text" };

const promises = { exclusive: "directories", rmdirIsSafe: false } as const;

for (const harness of [
  davHarness({
    kind: nextcloud,
    promises,
    given: { chunkSize: 20_000 },
    keepsTimes: true,
    refuses: notUtf8,
    known: {
      "beyond 4 GiB it goes on at the byte":
        "what it holds are chunks, not a partial beside the file: test/conformance/dav-nextcloud.test.ts",
    },
  }),
  davHarness({
    kind: nextcloud,
    promises,
    given: { chunkSize: 20_000, verify: "readback" },
    keepsTimes: true,
    name: `${nextcloud.name}, read back`,
    refuses: notUtf8,
    known: {
      "beyond 4 GiB it goes on at the byte":
        "what it holds are chunks, not a partial beside the file: test/conformance/dav-nextcloud.test.ts",
    },
  }),
  davHarness({ kind: yandex, promises, refuses: notUtf8 }),
]) {
  targetClauses(harness.target);
  sourceClauses(harness.source);
  after(() => harness.stop());
}
