/** The programs that people would use instead, and ours, as commands that push one tree to one FTP server. */
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mainJs } from "../test/faults/process.js";

/** Each peer's, where it can choose, and our default. */
const connections = 4;

/** An FTP server, perhaps behind a relay. */
export interface Place {
  readonly port: number;
  readonly user: string;
  readonly password: string;
}

/** How each pushes the tree `from` to the directory `to`; ours gets a new state directory each time. */
export type Peer = (from: string, to: string, server: Place, dir: string) => readonly string[];

const lftp =
  (settings: string): Peer =>
  (from, to, server) => [
    "lftp",
    "-c",
    `set ftp:ssl-allow no; ${settings} open -u ${server.user},"${server.password}" ftp://127.0.0.1:${server.port}; mirror -R --parallel=${connections} ${from} ${to}`,
  ];

/** Ours with default settings; state that is there is gone on with. */
export const ours: Peer = (from, to, server, dir) => {
  const config = join(dir, "config.json");
  writeFileSync(
    config,
    JSON.stringify({
      stateDir: join(dir, "state"),
      devices: {
        in: { type: "local", dir: from },
        ftp: { type: "ftp", host: "127.0.0.1", port: server.port, user: server.user, password: server.password },
      },
      routes: [{ from: "in", to: ["ftp"], into: to }],
    }),
  );
  return [process.execPath, mainJs, "run", "--once", "--json", "--config", config];
};

export const peers: Readonly<Record<string, Peer>> = {
  rclone: (from, to, server) => [
    "sh",
    "-c",
    `exec rclone --config /dev/null copy --transfers ${connections} "${from}" ":ftp,host=127.0.0.1,port=${server.port},user=${server.user},pass=$(rclone obscure "${server.password}"):${to}"`,
  ],
  lftp: lftp(""),
  "lftp, temporary names": lftp("set xfer:use-temp-file yes;"),
  curl: (from, to, server, dir) => {
    const files = readdirSync(from, { withFileTypes: true }).flatMap((dir) =>
      readdirSync(join(from, dir.name)).map((name) => join(dir.name, name)),
    );
    const config = files
      .map((file) => `upload-file = "${join(from, file)}"\nurl = "ftp://127.0.0.1:${server.port}/${to}/${file}"`)
      .join("\n");
    writeFileSync(join(dir, "curl"), `user = "${server.user}:${server.password}"\n${config}\n`);
    return ["curl", "-sS", "-Z", "--parallel-max", `${connections}`, "--ftp-create-dirs", "-K", join(dir, "curl")];
  },
  FileSync: (from, to, server, dir) => {
    rmSync(join(dir, "state"), { recursive: true, force: true });
    return ours(from, to, server, dir);
  },
};
