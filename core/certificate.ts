/** A certificate of a server's own, by openssl: EC P-256, signed by itself, for 20 years. Who connects pins its fingerprint. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Fault, faultOfErrno } from "./errors.js";
import type { RunCommand } from "./program.js";

const days = 7305;

/** Both PEM, for the host of this name. Throws Fault "config" with what to install. */
export async function newCertificate(run: RunCommand, name: string): Promise<{ readonly cert: string; readonly key: string }> {
  const work = await mkdtemp(join(tmpdir(), "filesync-")).catch((error: unknown) => {
    throw new Fault(
      "config",
      `${faultOfErrno(error, `the certificate is made in ${tmpdir()}`).message}; set TMPDIR to a directory that may be written`,
    );
  });
  try {
    const [cert, key] = [join(work, "crt"), join(work, "key")];
    const { code, complaint } = await run("openssl", [
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256", "-days", String(days)],
      ...["-subj", `/CN=${name.slice(0, 64)}`, "-addext", `subjectAltName=DNS:${name}`, "-keyout", key, "-out", cert],
    ]);
    if (code !== 0)
      throw new Fault(
        "config",
        /ENOENT/.test(complaint)
          ? "openssl is missing, which makes the certificate: sudo apt install openssl"
          : `openssl made no certificate: ${complaint}`,
      );
    return { cert: await readFile(cert, "utf8"), key: await readFile(key, "utf8") };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
