/** Servers of the system whose TLS is not as the configuration has it: what a person is told to change. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { calm, expectFault } from "./clause.js";
import { ftpDevice } from "./ftp-harness.js";
import {
  ended,
  hasOpenssl,
  password,
  proftpd,
  proftpdServer,
  selfSigned,
  startSystem,
  systemUser,
  vsftpd,
  vsftpdServer,
  withLines,
  type SystemServer,
} from "./ftp-servers.js";

/** What a probe of this server says, by what "secure" is. */
async function told(t: TestContext, server: SystemServer, lines: (base: string) => readonly string[]) {
  const base = await fs.mkdtemp(join(tmpdir(), "filesync-tls-"));
  t.after(() => fs.rm(base, { recursive: true }));
  await fs.chmod(base, 0o755);
  const home = join(base, "home");
  await fs.mkdir(home);
  const user = await systemUser(home);
  t.after(() => user.remove());
  const { port, child } = await startSystem(withLines(server, lines(base)), base, user.name);
  t.after(() => ended(child));
  return async (secure: boolean | "implicit") => {
    const at = {
      port,
      user: user.name,
      password,
      dir: home,
      options: { secure },
      disk: (path: string) => Buffer.from(path),
      stop: () => Promise.resolve(),
    };
    const device = ftpDevice(at);
    try {
      return await expectFault(device.probe(calm()), "denied");
    } finally {
      await device.close();
    }
  };
}

const certificate = (base: string, cert: string, key: string) => {
  const made = selfSigned(base);
  return [`${cert}${made.cert}`, `${key}${made.key}`];
};
const wantsTls = /: the server wants TLS; set "secure": true, or "implicit" where TLS has a port of its own \(usually 990\) \(it said "/;
const skipFor = (skip: string | undefined) => skip ?? (hasOpenssl ? false : "openssl is not installed");

test("vsftpd without TLS", { skip: vsftpd.skip ?? false }, async (t) => {
  const saying = await told(t, vsftpdServer, () => []);
  assert.match(
    await saying(true),
    /: the server offers no TLS on this port \(to AUTH TLS it said "530 .*"\); set TLS up there, or set "secure"/,
  );
  assert.match(await saying("implicit"), /: what answers on this port speaks no TLS from the first byte \([a-z ]+\); set "secure": true/);
});

test("vsftpd that takes no login in clear", { skip: skipFor(vsftpd.skip) }, async (t) => {
  const saying = await told(t, vsftpdServer, (base) => [
    "ssl_enable=YES",
    "force_local_logins_ssl=YES",
    ...certificate(base, "rsa_cert_file=", "rsa_private_key_file="),
  ]);
  assert.match(await saying(false), wantsTls);
});

test("ProFTPD that takes no login in clear", { skip: skipFor(proftpd.skip) }, async (t) => {
  const modules = join(proftpdServer.program, "../../lib/proftpd");
  const saying = await told(t, proftpdServer, (base) => [
    ...[`ModulePath ${modules}`, "LoadModule mod_tls.c", "TLSEngine on", "TLSRequired on"],
    ...certificate(base, "TLSECCertificateFile ", "TLSECCertificateKeyFile "),
  ]);
  assert.match(await saying(false), wantsTls);
});
