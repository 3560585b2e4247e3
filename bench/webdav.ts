/** Pushing to a real Apache mod_dav beside rclone and curl with 4 connections each: the same files, our default settings; each cell the best of three. */
import { mkdirSync, chmodSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { apache, password, user } from "../test/conformance/dav-servers.js";
import { mainJs } from "../test/faults/process.js";
import { heading, inTempDir } from "./measure.js";
import { compare, type Cell } from "./push.js";

const connections = 4;

const cells: readonly Cell[] = [
  { name: "1 × 1 GiB", dirs: 1, files: 1, bytes: 2 ** 30 },
  { name: "200 × 5 MB", dirs: 1, files: 200, bytes: 5e6 },
  { name: "5,000 × 20 kB", dirs: 50, files: 5000, bytes: 20_000 },
];

type Peer = (from: string, url: string, dir: string) => readonly string[];

const peers: Readonly<Record<string, Peer>> = {
  rclone: (from, url) => [
    "sh",
    "-c",
    `exec rclone --config /dev/null copy --transfers ${connections} "${from}" ":webdav,url='${url}',user=${user},pass=$(rclone obscure "${password}"):to"`,
  ],
  // curl makes no directories; they are there before it is measured.
  curl: (from, url, dir) => {
    const lines = readdirSync(from).flatMap((below) =>
      readdirSync(join(from, below)).map((name) => `upload-file = "${join(from, below, name)}"\nurl = "${url}/to/${below}/${name}"`),
    );
    writeFileSync(join(dir, "curl"), `user = "${user}:${password}"\n${lines.join("\n")}\n`);
    return ["curl", "-sS", "-Z", "--parallel-max", `${connections}`, "-K", join(dir, "curl")];
  },
  FileSync: (from, url, dir) => {
    rmSync(join(dir, "state"), { recursive: true, force: true });
    const config = join(dir, "config.json");
    writeFileSync(
      config,
      JSON.stringify({
        stateDir: join(dir, "state"),
        devices: { in: { type: "local", dir: from }, dav: { type: "webdav", url, user, password } },
        routes: [{ from: "in", to: ["dav"], into: "to" }],
      }),
    );
    return [process.execPath, mainJs, "run", "--once", "--json", "--config", config];
  },
};

export async function webdav(): Promise<void> {
  heading("webdav");
  if (apache.skip !== undefined) {
    console.log(`${apache.skip}\n`);
    return;
  }
  const server = await apache.start();
  const to = join(server.dir, "to");
  const prepare = (from: string) => {
    for (const dir of ["", ...readdirSync(from)]) {
      mkdirSync(join(to, dir), { recursive: true });
      chmodSync(join(to, dir), 0o777);
    }
  };
  try {
    for (const cell of cells)
      await inTempDir((dir) =>
        compare(
          cell,
          dir,
          { name: apache.name, to },
          Object.entries(peers).map(([name, peer]) => [
            name,
            (from) => {
              if (name === "curl") prepare(from);
              return peer(from, server.url, dir);
            },
          ]),
        ),
      );
  } finally {
    await server.stop();
  }
}
