/** Why the FTP server is our own (docs/decisions/0002): what ftp-srv does to an upload that is resumed with REST. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test } from "node:test";
import { Client } from "basic-ftp";
import { ftpSrv, ownPlain } from "../conformance/ftp-servers.js";

for (const [kind, resumes] of [
  [ftpSrv, false],
  [ownPlain, true],
] as const)
  test(`REST 6 and STOR, ${kind.name}: ${resumes ? "the upload is resumed" : "the first part is lost, without an error"}`, async () => {
    const server = await kind.start();
    const client = new Client();
    try {
      await client.access({ host: "127.0.0.1", port: server.port, user: server.user, password: server.password });
      await client.uploadFrom(Readable.from([Buffer.from("first ")]), "a");
      await client.send("REST 6");
      await client.uploadFrom(Readable.from([Buffer.from("second")]), "a");
      const text = readFileSync(join(server.dir, "a"), "latin1");
      if (resumes) assert.equal(text, "first second");
      else assert.notEqual(text, "first second", "ftp-srv resumes by now: the decision can be looked at again");
    } finally {
      client.close();
      await server.stop();
    }
  });
