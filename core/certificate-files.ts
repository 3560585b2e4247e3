/** The certificate that a server shows and its key, in files: whoever renews them need not know who shows them. */
import { X509Certificate } from "node:crypto";
import { promises as fs } from "node:fs";
import { createSecureContext, type SecureContext } from "node:tls";
import { codeOf, Fault, faultOfErrno } from "./errors.js";
import { fingerprintOf } from "./net.js";
import type { PluginContext } from "./plugin.js";
import { fileStamp } from "./stat.js";

export interface Shown {
  /** PEM. */
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly context: SecureContext;
  readonly fingerprint: string;
}

/** For what OpenSSL says by a number. */
const words: Readonly<Record<string, string>> = {
  ERR_OSSL_X509_KEY_VALUES_MISMATCH:
    "the key is not that of the first certificate; the server's own is the first in its file, and those that signed it follow",
  ERR_OSSL_PEM_NO_START_LINE: 'the certificate is not in PEM, which is text that begins with "-----BEGIN CERTIFICATE-----"',
  ERR_OSSL_UNSUPPORTED: 'the key is not in PEM, which is text that begins with "-----BEGIN … PRIVATE KEY-----"',
};

export class CertificateFiles {
  /** Of the files that were read last. */
  #stamp: string | undefined;
  #shown: Shown | undefined;
  #wrong = "";

  constructor(
    readonly cert: string,
    readonly key: string,
  ) {}

  /** As they are now, to be shown. Throws Fault "config" or "denied". */
  async read(): Promise<Shown> {
    return (this.#shown = await this.#load());
  }

  /** What is to be shown, as they may have been renewed since they were read. Another one is told; what cannot be used is told once, and the one of before stays. */
  async renewed(say: PluginContext["say"]): Promise<Shown | undefined> {
    const stamp = await this.#stampNow();
    if (stamp !== undefined && stamp === this.#stamp) return this.#shown;
    try {
      const shown = await this.#load();
      const { fingerprint } = shown;
      // Of two who ask at once both may have read it.
      const isOther = fingerprint !== this.#shown?.fingerprint;
      this.#shown = shown;
      this.#wrong = "";
      if (isOther) say("info", `another certificate is shown from now on; its fingerprint is ${fingerprint}`, { fingerprint });
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (why !== this.#wrong) say("warn", `${why}; until then the certificate of before is shown`);
      this.#wrong = why;
    }
    return this.#shown;
  }

  async #load(): Promise<Shown> {
    const stamp = await this.#stampNow();
    // One after the other: with both missing the message always names the certificate first.
    const again = '"filesync init --ground --yes" makes the one of a ground station anew';
    const cert = await readPem(this.cert, `put the certificate there; ${again}`);
    const key = await readPem(this.key, `put the key there; where it is lost, take ${this.cert} away too: ${again}`);
    try {
      const context = createSecureContext({ cert, key, minVersion: "TLSv1.2" });
      const shown = { cert, key, context, fingerprint: fingerprintOf(new X509Certificate(cert).raw) };
      this.#stamp = stamp;
      return shown;
    } catch (error) {
      const why = key.includes("ENCRYPTED")
        ? `the key has a passphrase, which nobody can type here: "openssl pkey -in ${this.key} -out NEW" writes one without`
        : (words[codeOf(error)] ?? (error instanceof Error ? error.message : String(error)));
      throw new Fault("config", `the certificate ${this.cert} and key ${this.key} cannot be used: ${why}`, { cause: error });
    }
  }

  /** undefined: reading them says why. */
  async #stampNow(): Promise<string | undefined> {
    try {
      const stats = await Promise.all([this.cert, this.key].map((path) => fs.stat(path, { bigint: true })));
      return stats.map(fileStamp).join(" ");
    } catch {
      return undefined;
    }
  }
}

/** `missing`: what to do where it is not there. */
async function readPem(path: string, missing: string): Promise<Buffer> {
  try {
    return await fs.readFile(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") throw new Fault("config", `there is no ${path}: ${missing}`, { cause: error });
    throw new Fault("denied", faultOfErrno(error, `cannot read ${path}`).message, { cause: error });
  }
}
