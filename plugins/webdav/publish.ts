/** What the ways have in common when a file gets its name: what is there, how it is proved, and that nothing is gone over. */
import { createHash } from "node:crypto";
import { Fault, isFault } from "../../core/errors.js";
import type { Digest, Occupant, Proof, Receipt, Upload } from "../../core/plugin.js";
import { isAlike } from "../../core/remote.js";
import type { WebdavOptions } from "./options.js";
import type { DavServer } from "./server.js";

export interface Proved {
  readonly proof: Proof;
  readonly digest?: Digest;
}

export class Publisher {
  readonly server: DavServer;
  readonly #verify: WebdavOptions["verify"];

  constructor(server: DavServer, { verify }: Pick<WebdavOptions, "verify">) {
    this.server = server;
    this.#verify = verify;
  }

  /** What is under a name. */
  async occupant(upload: Upload, name: string, signal: AbortSignal): Promise<Occupant | undefined> {
    const there = await this.server.look(name, signal, `cannot look at ${upload.path}`);
    if (there === undefined) return undefined;
    const { size, collection } = there;
    if (collection || size !== upload.size || this.#verify !== "readback") return { occupied: true, size };
    return { occupied: true, size, digest: await this.#digest(name, upload.path, signal), proof: "readback" };
  }

  /** Whether what is there is our own earlier version, as far as can be told. */
  async replaceable({ expect, path }: Upload, name: string, there: Occupant, signal: AbortSignal): Promise<boolean> {
    if (expect.kind !== "replaces" || expect.size !== there.size) return false;
    if (expect.digest === undefined || this.#verify !== "readback") return true;
    return (there.digest ?? (await this.#digest(name, path, signal))) === expect.digest;
  }

  /** What is at `at` is the upload, as configured, or by all of it where its size says nothing. Throws "mismatch". */
  async prove(upload: Upload, at: string, signal: AbortSignal, all = false): Promise<Proved> {
    const reads = all || this.#verify === "readback" || (this.#verify === "auto" && upload.spliced === true);
    if (!reads || upload.digest === undefined) return { proof: "size" };
    const digest = await this.#digest(at, upload.path, signal);
    if (digest !== upload.digest) throw new Fault("mismatch", `the server holds ${digest}, not ${upload.digest}`);
    return { proof: "readback", digest };
  }

  /** What was to be published has gone: then it was published before, or it was never whole. */
  async published(upload: Upload, name: string, signal: AbortSignal, unnamed = false): Promise<Receipt> {
    const there = await this.server.look(name, signal, `cannot look at ${upload.path}`);
    if (there !== undefined && !there.collection && there.size === upload.size) {
      const replacesAlike = isAlike(upload);
      const proved = await this.prove(upload, name, signal, replacesAlike).catch((error: unknown) => {
        if (isFault(error, "mismatch")) return undefined;
        throw error;
      });
      if (proved !== undefined && !((unnamed || replacesAlike) && proved.proof === "size")) return this.receipt(upload, proved);
    }
    throw new Fault("conflict", "the partial at the server has gone, and the file is not under its name");
  }

  receipt({ path, size }: Upload, proved: Proved): Receipt {
    return { path, size, ...proved };
  }

  /** Moves to a name of core. What was there instead, when something was. Throws what a refusal means. */
  async move(upload: Upload, from: string, over: boolean, signal: AbortSignal): Promise<Occupant | undefined> {
    const { server } = this;
    const what = `cannot publish ${upload.path}`;
    const name = server.at(upload.path);
    const headers = {
      Destination: server.destination(name),
      Overwrite: over ? "T" : "F",
      "OC-Total-Length": upload.size,
      ...timeHeader(upload),
    };
    upload.naming?.();
    const said = await server.said({ method: "MOVE", at: from, what, headers, slow: true }, signal);
    if (said.status === 412) {
      const there = await this.occupant(upload, name, signal);
      if (there === undefined) throw new Fault("transient", `${what}: the server says that the name is taken, and nothing is there`);
      return there;
    }
    if (said.status !== 201 && said.status !== 204) {
      server.forgetDirs();
      const fault = server.refusal(said, what);
      throw fault.kind === "missing" ? new Fault("transient", fault.message, { cause: fault }) : fault;
    }
    const there = await server.look(name, signal, what);
    if (there?.size === upload.size) return undefined;
    throw new Fault(
      "transient",
      `${what}: the server says that it is done, and ${there === undefined ? "nothing" : `a file of ${there.size} bytes`} is there`,
    );
  }

  async #digest(at: string, path: string, signal: AbortSignal): Promise<Digest> {
    const hash = createHash("sha256");
    await this.server.get(at, `cannot read ${path} back`, signal, (bytes) => hash.update(bytes));
    return `sha256:${hash.digest("hex")}`;
  }
}

/** Nextcloud and its relatives set the time by it; to others it says nothing. */
export function timeHeader({ modifiedMs }: Upload): { "X-OC-MTime"?: string } {
  return modifiedMs === undefined || modifiedMs < 0 ? {} : { "X-OC-MTime": String(Math.floor(modifiedMs / 1000)) };
}
