/** Our FTP server under rclone and basic-ftp, in clear and with TLS: upload, resume, listing, rename, delete, odd names, many at once; and names that no server may take. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { Client } from "basic-ftp";
import type { FtpServer } from "../../plugins/ftp-server/server.js";
import { filesBelow } from "./files.js";
import { hasOpenssl, selfSigned, startOwn } from "./ftp-servers.js";
import { RawFtp } from "./raw-ftp.js";
import { bytes } from "./upload.js";

const run = promisify(execFile);
const content = bytes(3_000_000);
const odd = [`odd 'name' "q" #1 полёт.bin`, "-dash.bin", "[a] {b}.bin", "~$HOME;&|.bin", "100%41.bin"];
let base = "";
let server: FtpServer;

before(async () => {
  base = await fs.mkdtemp(join(tmpdir(), "filesync-clients-"));
  const tls = hasOpenssl ? selfSigned(base) : undefined;
  const users = Object.fromEntries(["rclone", "rclone-tls", "basic", "basic-tls", "raw"].map((it) => [it, { password: "p w" }]));
  server = await startOwn({ root: join(base, "srv"), users, ...(tls === undefined ? {} : { tls: { cert: tls.cert, key: tls.key } }) });
});
after(async () => {
  await server.close();
  await fs.rm(base, { recursive: true });
});

const real = (user: string, path: string): string => join(base, "srv", user, path);
const hasRclone = (process.env.PATH ?? "").split(":").some((dir) => existsSync(join(dir, "rclone")));

for (const tls of [false, true]) {
  const noTls = tls && !hasOpenssl ? "openssl is not installed" : false;
  const where = tls ? "with TLS" : "in clear";

  test(
    `rclone ${where}: copies in parallel, lists, goes over what is there, renames, deletes`,
    { skip: hasRclone ? noTls : "rclone is not installed" },
    async () => {
      const user = tls ? "rclone-tls" : "rclone";
      const { stdout: secret } = await run("rclone", ["obscure", "p w"]);
      const rclone = async (...args: string[]): Promise<string> => {
        const login = ["--ftp-host", "127.0.0.1", "--ftp-port", `${server.port ?? 0}`, "--ftp-user", user, "--ftp-pass", secret.trim()];
        const secure = tls ? ["--ftp-explicit-tls", "--ftp-no-check-certificate"] : [];
        return (await run("rclone", [...args, "--config", "/dev/null", "--retries", "1", ...login, ...secure], { maxBuffer: 1e8 })).stdout;
      };
      const up = join(base, `up-${user}`);
      await fs.mkdir(join(up, "sub dir"), { recursive: true });
      for (const [n, name] of odd.entries()) await fs.writeFile(join(up, name), bytes(n * 70_000, n));
      for (let n = 0; n < 40; n++) await fs.writeFile(join(up, "sub dir", `log ${n}.bin`), bytes(n * 5000, n));
      await rclone("copy", up, ":ftp:tree", "--transfers", "8");
      assert.deepEqual(await filesBelow(real(user, "tree")), await filesBelow(up));
      for (const name of await filesBelow(up))
        assert.ok((await fs.readFile(real(user, `tree/${name}`))).equals(await fs.readFile(join(up, name))), name);
      const listed = JSON.parse(await rclone("lsjson", "-R", ":ftp:tree")) as {
        Path: string;
        Size: number;
        IsDir: boolean;
        ModTime: string;
      }[];
      assert.equal(listed.filter(({ IsDir }) => !IsDir).length, 45);
      assert.equal(listed.find(({ Path }) => Path === odd[4])?.Size, 280_000);
      // A half of it is there: rclone does not continue, it goes over it.
      await fs.truncate(real(user, `tree/${odd[4]}`), 1000);
      await rclone("copy", up, ":ftp:tree");
      assert.equal((await fs.stat(real(user, `tree/${odd[4]}`))).size, 280_000);
      await rclone("moveto", `:ftp:tree/${odd[1]}`, ":ftp:tree/moved.bin");
      assert.ok((await fs.readFile(real(user, "tree/moved.bin"))).equals(bytes(70_000, 1)));
      await rclone("check", join(up, "sub dir"), ":ftp:tree/sub dir", "--download");
      await rclone("deletefile", ":ftp:tree/moved.bin");
      await rclone("purge", ":ftp:tree");
      assert.deepEqual(await fs.readdir(real(user, "")), []);
    },
  );

  test(`basic-ftp ${where}: uploads, goes on, lists, reads from an offset, renames, deletes, many at once`, { skip: noTls }, async () => {
    const user = tls ? "basic-tls" : "basic";
    const client = async (): Promise<Client> => {
      const it = new Client(10_000);
      await it.access({
        host: "127.0.0.1",
        port: server.port ?? 0,
        user,
        password: "p w",
        secure: tls,
        secureOptions: { rejectUnauthorized: false },
      });
      return it;
    };
    const clients = await Promise.all(Array.from({ length: 8 }, client));
    try {
      await Promise.all(
        clients.map(async (it, n) => {
          await it.ensureDir(`/dir ${n}/деep`);
          for (const name of odd) {
            await it.uploadFrom(Readable.from([content.subarray(0, 1_000_000)]), name);
            await it.appendFrom(Readable.from([content.subarray(1_000_000)]), name);
          }
          const listed = await it.list();
          assert.deepEqual(listed.map(({ name }) => name).sort(), [...odd].sort());
          assert.ok(listed.every(({ size, isFile }) => size === content.length && isFile));
          const down = join(base, `down-${user}-${n}`);
          await fs.writeFile(down, content.subarray(0, 2_000_000));
          await it.downloadTo(down, odd[0] ?? "", 2_000_000);
          assert.ok((await fs.readFile(down)).equals(content));
          await it.rename(odd[1] ?? "", "renamed.bin");
          await it.remove("renamed.bin");
        }),
      );
      for (let n = 0; n < clients.length; n++)
        for (const name of odd.filter((it) => it !== odd[1]))
          assert.ok((await fs.readFile(real(user, `dir ${n}/деep/${name}`))).equals(content), name);
      const [first] = clients;
      for (let n = 0; n < clients.length; n++) await first?.removeDir(`/dir ${n}`);
      assert.deepEqual(await fs.readdir(real(user, "")), []);
    } finally {
      for (const it of clients) it.close();
    }
  });
}

test("a name with CR, LF or NUL makes nothing, and what follows a line end is a command of its own", async () => {
  const ftp = new RawFtp(server.port ?? 0);
  assert.match(await ftp.answer(), /^220/);
  await ftp.ask("USER raw");
  assert.match(await ftp.ask("PASS p w"), /^230/);
  for (const verb of ["MKD", "DELE", "RNFR", "SIZE"]) assert.match(await ftp.ask(Buffer.from(`${verb} a\rb`)), /^5\d\d/, verb);
  assert.match(await ftp.ask(Buffer.from("MKD a\0b")), /^5\d\d/);
  // "MKD in" and "side": two lines, of which the second is nonsense.
  assert.match(await ftp.ask(Buffer.from("MKD in\nside")), /^257/);
  assert.match(await ftp.answer(), /^500/);
  assert.deepEqual(await fs.readdir(real("raw", "")), ["in"]);
  ftp.close();
});
