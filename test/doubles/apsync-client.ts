/**
 * A vehicle with the client of APSync (SamuelDudley/APSyncWeb, 2017). That needs Python 2, which is not to be had any more; this does what it does, read off its source
 * (`modules/APSync_dfsync`, `utils/requests_utils.py`): the same requests (forms, the cookie kept for as long as the process lives), the same command line of rsync by a shell, a file moved to the
 * archive where that ends with 0, and any answer but 200 taken for "not now". What it does not have: the page for people, the look at MAVLink, the waiting (3 s after a "not now"). And the list of
 * known hosts is its own, not that of who runs the tests.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";

export interface Answered {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

export interface Cloud {
  /** Of the HTTP side, behind a proxy that speaks TLS: here without. */
  readonly webPort: number;
  /** `cloudsync_port`, `cloudsync_user`, `cloudsync_address`. */
  readonly sshPort: number;
  readonly user: string;
}

export class ApsyncClient {
  readonly logs: string;
  readonly archive: string;
  readonly identity: string;
  /** What rsync said when it failed. */
  errors = "";
  #cookie = "";
  rsync: ChildProcess | undefined;

  /** Makes its key as it did: `ssh-keygen -t rsa`. */
  constructor(
    readonly dir: string,
    readonly cloud: Cloud,
    key: readonly string[] = ["-t", "rsa"],
  ) {
    this.logs = join(dir, "dflogger");
    this.archive = join(this.logs, "dataflash-archive");
    mkdirSync(this.archive, { recursive: true });
    this.identity = join(dir, "id_apsync");
    execFileSync("ssh-keygen", ["-q", ...key, "-f", this.identity, "-N", ""]);
  }

  get publicKey(): string {
    return readFileSync(`${this.identity}.pub`, "utf8").trim();
  }

  get fingerprint(): string {
    return execFileSync("ssh-keygen", ["-lf", `${this.identity}.pub`], { encoding: "utf8" }).split(" ")[1] ?? "";
  }

  register(email: string): Promise<Answered> {
    return this.#post("/register", { email, public_key: Buffer.from(this.publicKey).toString("base64") });
  }

  verify(fingerprint = this.fingerprint): Promise<Answered> {
    return this.#post("/verify", { public_key_fingerprint: Buffer.from(fingerprint).toString("base64") });
  }

  upload(fingerprint = this.fingerprint): Promise<Answered> {
    return this.#post("/upload", { public_key_fingerprint: Buffer.from(fingerprint).toString("base64") });
  }

  /** One round of its main loop: the newest log, if it may. Its name in the archive; undefined where there was none, or it was not taken. */
  async round(): Promise<string | undefined> {
    const names = readdirSync(this.logs).filter((name) => statSync(join(this.logs, name)).isFile());
    const [newest] = names.sort((a, b) => statSync(join(this.logs, b)).mtimeMs - statSync(join(this.logs, a)).mtimeMs);
    if (newest === undefined) return undefined;
    const { status, body } = await this.upload();
    if (status !== 200) return undefined;
    const { sshPort, user } = this.cloud;
    const file = join(this.logs, newest);
    const ssh = `ssh -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -F /dev/null -i ${this.identity} -p ${sshPort} -o UserKnownHostsFile=${join(this.dir, "known_hosts")}`;
    const child = spawn(`rsync -ahHzv --progress -e "${ssh}" "${file}" ${user}@127.0.0.1:~`, {
      shell: true,
      env: { PATH: process.env["PATH"] },
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.rsync = child;
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (this.errors += text));
    const [code] = (await once(child, "close")) as [number | null];
    if (code !== 0) return undefined;
    const folder = join(this.archive, String(body["archive_folder"]));
    mkdirSync(folder, { recursive: true });
    renameSync(file, join(folder, newest));
    return join(String(body["archive_folder"]), newest);
  }

  async #post(path: string, fields: Readonly<Record<string, string>>): Promise<Answered> {
    if (this.#cookie === "") await this.ask("GET", "/");
    return this.ask("POST", path, { ...fields, _xsrf: this.#cookie });
  }

  /** Any request with its cookie, which it keeps from the first answer that sets it. */
  ask(method: string, path: string, fields: Readonly<Record<string, string>> = {}, cookie = this.#cookie): Promise<Answered> {
    const body = method === "POST" ? new URLSearchParams(fields).toString() : "";
    const headers = {
      ...(cookie === "" ? {} : { Cookie: `_xsrf=${cookie}` }),
      ...(method === "POST" ? { "Content-Type": "application/x-www-form-urlencoded", "Content-Length": Buffer.byteLength(body) } : {}),
    };
    return new Promise((resolve, reject) => {
      request({ host: "127.0.0.1", port: this.cloud.webPort, path, method, headers, agent: false }, (answer) => {
        const set = /^_xsrf=([^;]+)/.exec(answer.headers["set-cookie"]?.[0] ?? "")?.[1];
        if (set !== undefined) this.#cookie = set;
        let text = "";
        answer.setEncoding("utf8").on("data", (more: string) => (text += more));
        answer.once("close", () => reject(new Error(`the answer to ${method} ${path} was cut off`)));
        answer.on("end", () => {
          const isJson = answer.headers["content-type"]?.startsWith("application/json") === true;
          resolve({ status: answer.statusCode ?? 0, body: isJson ? (JSON.parse(text) as Record<string, unknown>) : {} });
        });
      })
        .on("error", reject)
        .end(body);
    });
  }
}
