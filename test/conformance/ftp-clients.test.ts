/** Our FTP server under clients that people have: curl, lftp and Python's ftplib, each in clear and with TLS. A missing one is skipped by name. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import type { FtpServer } from "../../plugins/ftp-server/server.js";
import { hasOpenssl, selfSigned, startOwn } from "./ftp-servers.js";
import { bytes } from "./upload.js";

const run = promisify(execFile);
const content = bytes(3_000_000);
let base = "";
let server: FtpServer;

before(async () => {
  base = await fs.mkdtemp(join(tmpdir(), "filesync-clients-"));
  const tls = hasOpenssl ? selfSigned(base) : undefined;
  const users = Object.fromEntries(
    ["curl", "lftp", "python"].flatMap((it) => [
      [it, { password: "p w" }],
      [`${it}-tls`, { password: "p w" }],
    ]),
  );
  server = await startOwn({ root: join(base, "srv"), users, ...(tls === undefined ? {} : { tls: { cert: tls.cert, key: tls.key } }) });
  await fs.writeFile(join(base, "whole.bin"), content);
  await fs.writeFile(join(base, "half.bin"), content.subarray(0, 1_234_567));
});
after(async () => {
  await server.close();
  await fs.rm(base, { recursive: true });
});

function missing(program: string): string | false {
  const there = (process.env.PATH ?? "").split(":").some((dir) => existsSync(join(dir, program)));
  return there ? false : `${program} is not installed`;
}

const real = (user: string, path: string): string => join(base, "srv", user, path);
const odd = `odd 'name' "q" #1 полёт -x.bin`;

for (const tls of [false, true]) {
  const noTls = tls && !hasOpenssl ? "openssl is not installed" : false;
  const where = tls ? "with TLS" : "in clear";

  test(`curl ${where}: upload, resume, list, download from an offset, rename, delete`, { skip: missing("curl") || noTls }, async () => {
    const user = tls ? "curl-tls" : "curl";
    const url = (path: string): string => `ftp://127.0.0.1:${server.port ?? 0}/${path.split("/").map(encodeURIComponent).join("/")}`;
    const curl = async (...args: string[]): Promise<Buffer> => {
      const secure = tls ? ["--ssl-reqd", "-k"] : [];
      const all = ["-sS", "--user", `${user}:p w`, ...secure, ...args];
      return (await run("curl", all, { encoding: "buffer", maxBuffer: 1e8 })).stdout;
    };
    await curl("--ftp-create-dirs", "-T", join(base, "half.bin"), url(`new dir/${odd}`));
    await curl("-C", "-", "-T", join(base, "whole.bin"), url(`new dir/${odd}`));
    assert.deepEqual(await fs.readFile(real(user, `new dir/${odd}`)), content);
    assert.match((await curl(url("new dir/"))).toString(), / 3000000 .*odd 'name' "q" #1 полёт -x\.bin\r?\n/);
    assert.equal((await curl("--list-only", url("new dir/"))).toString(), `${odd}\n`);
    assert.deepEqual(await curl("-C", "2999000", url(`new dir/${odd}`)), content.subarray(2_999_000));
    assert.deepEqual(await curl("-r", "100-199", url(`new dir/${odd}`)), content.subarray(100, 200));
    await curl("-Q", `RNFR new dir/${odd}`, "-Q", "RNTO moved.bin", url(""));
    assert.deepEqual(await fs.readFile(real(user, "moved.bin")), content);
    await curl("--append", "-T", join(base, "half.bin"), url("moved.bin"));
    assert.equal((await fs.stat(real(user, "moved.bin"))).size, 4_234_567);
    await curl("-Q", "DELE moved.bin", "-Q", "RMD new dir", url(""));
    assert.deepEqual(await fs.readdir(real(user, "")), []);
  });

  test(`lftp ${where}: mirror up, resume, list, rename, delete, mirror down`, { skip: missing("lftp") || noTls }, async () => {
    const user = tls ? "lftp-tls" : "lftp";
    const lftp = async (script: string): Promise<string> => {
      const set = `set ssl:verify-certificate no; set ftp:ssl-force ${tls}; set ftp:ssl-allow ${tls}; set ftp:ssl-protect-data ${tls}; set net:max-retries 2; set cmd:fail-exit yes`;
      const all = `${set}; open -u ${user},"p w" ftp://127.0.0.1:${server.port ?? 0}; ${script}; bye`;
      return (await run("lftp", ["--norc", "-c", all], { env: { ...process.env, HOME: base, LANG: "C.UTF-8" }, maxBuffer: 1e8 })).stdout;
    };
    const up = join(base, `up-${user}`);
    await fs.mkdir(join(up, "sub dir"), { recursive: true });
    for (let i = 0; i < 20; i++) await fs.writeFile(join(up, "sub dir", `log ${i}.bin`), bytes(i * 5000, i));
    await fs.writeFile(join(up, "полёт.bin"), bytes(100));
    await lftp(`mirror -R --parallel=4 "${up}" logs`);
    for (let i = 0; i < 20; i++) assert.deepEqual(await fs.readFile(real(user, `logs/sub dir/log ${i}.bin`)), bytes(i * 5000, i));
    const { mtimeMs } = await fs.stat(join(up, "полёт.bin"));
    assert.equal(
      Math.trunc((await fs.stat(real(user, "logs/полёт.bin"))).mtimeMs / 1000),
      Math.trunc(mtimeMs / 1000),
      "the time was not set",
    );
    await fs.writeFile(real(user, "big.bin"), content.subarray(0, 1_234_567));
    await lftp(`put -c "${join(base, "whole.bin")}" -o big.bin`);
    assert.deepEqual(await fs.readFile(real(user, "big.bin")), content);
    assert.match(await lftp("cls -l"), / 3000000 .* big\.bin/);
    await lftp(`mv big.bin "other name.bin"; rm "other name.bin"; mv logs moved`);
    await lftp(`mirror --parallel=4 moved "${join(base, `down-${user}`)}"`);
    for (let i = 0; i < 20; i++)
      assert.deepEqual(await fs.readFile(join(base, `down-${user}`, "sub dir", `log ${i}.bin`)), bytes(i * 5000, i));
    await lftp("rm -r moved");
    assert.deepEqual(await fs.readdir(real(user, "")), []);
  });

  test(
    `Python's ftplib ${where}: store, resume, MLSD, SIZE, HASH, abort, rename, delete`,
    { skip: missing("python3") || noTls },
    async () => {
      const user = tls ? "python-tls" : "python";
      const script = `
import ftplib, io, os, ssl, sys
port, user, whole, name, tls = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5] == "true"
data = open(whole, "rb").read()
if tls:
    context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
    ftp = ftplib.FTP_TLS(context=context, encoding="utf-8")
else:
    ftp = ftplib.FTP(encoding="utf-8")
ftp.connect("127.0.0.1", port); ftp.login(user, "p w")
if tls: ftp.prot_p()
ftp.mkd('a "b"'); ftp.cwd('a "b"'); assert ftp.pwd() == '/a "b"', ftp.pwd()
print(ftp.storbinary("STOR " + name, io.BytesIO(data[:1000000])))
print(ftp.storbinary("STOR " + name, io.BytesIO(data[1000000:]), rest=1000000))
assert ftp.size(name) == len(data)
try:
    ftp.storbinary("STOR " + name, io.BytesIO(b"x"), rest=5); raise SystemExit("a hole was allowed")
except ftplib.error_perm as error:
    assert str(error).startswith("554"), error
print(ftp.sendcmd("HASH " + name))
facts = dict(ftp.mlsd()); assert facts[name]["size"] == str(len(data)), facts
got = io.BytesIO(); ftp.retrbinary("RETR " + name, got.write, rest=2000000); assert got.getvalue() == data[2000000:]
assert ftp.nlst() == [name]
data = ftp.transfercmd("STOR cut.bin"); data.sendall(b"x" * 1000)
# Of what nothing had come no name is kept.
while not (os.path.exists(sys.argv[6]) and os.path.getsize(sys.argv[6]) > 0): pass
assert ftp.abort().startswith("426"); data.close(); assert ftp.voidresp().startswith("226"); assert 0 < ftp.size("cut.bin") <= 1000; ftp.delete("cut.bin")
ftp.rename(name, "new.bin"); ftp.delete("new.bin"); ftp.cwd(".."); ftp.rmd('a "b"'); assert ftp.nlst() == []
print(ftp.quit())
`;
      const file = join(base, "client.py");
      await fs.writeFile(file, script);
      const words = [`${server.port ?? 0}`, user, join(base, "whole.bin"), odd, `${tls}`, real(user, 'a "b"/cut.bin')];
      const { stdout } = await run("python3", [file, ...words]);
      assert.match(stdout, new RegExp(`213 SHA-256 0-3000000 ${createHash("sha256").update(content).digest("hex")}`));
      assert.match(stdout, /221 /);
      assert.deepEqual(await fs.readdir(real(user, "")), []);
    },
  );
}
