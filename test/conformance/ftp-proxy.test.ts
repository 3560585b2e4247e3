/** The plugin "ftp" behind a NAT and through a proxy that delays, cuts and half-closes, with each real server behind it. */
import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { isFault } from "../../core/errors.js";
import type { Device, FileEntry } from "../../core/plugin.js";
import { RoughRelay } from "../faults/campaign/relay.js";
import { calm, until } from "./clause.js";
import { ftpDevice } from "./ftp-harness.js";
import { ftpSrv, ownPlain, proftpd, pureFtpd, vsftpd, type FtpServerUnderTest } from "./ftp-servers.js";
import { isReceipt } from "./target-under-test.js";
import { bytes, upload } from "./upload.js";

/** Larger than what the sockets between two programs hold. */
const large = bytes(24_000_000, 3);
const small = bytes(300_000, 4);

for (const kind of [ownPlain, vsftpd, proftpd, pureFtpd, ftpSrv])
  describe(`${kind.name}, through a proxy`, { skip: kind.skip ?? false }, () => {
    let server: FtpServerUnderTest;
    let relay: RoughRelay;
    let device: Device;
    before(async () => {
      server = await kind.start();
      relay = await RoughRelay.start(
        server.port,
        () => 0,
        () => 0,
      );
      device = ftpDevice({ ...server, port: relay.port }, { timeout: "3s" });
    });
    after(async () => {
      await device.close();
      await relay.close();
      await server.stop();
    });
    const target = () => device.target ?? assert.fail();
    const source = () => device.source ?? assert.fail();
    const put = async (name: string, content: Buffer) => {
      await fs.writeFile(join(server.dir, name), content);
      await fs.chmod(join(server.dir, name), 0o644);
    };
    const sent = async (name: string, content: Buffer) => {
      const it = upload(name, content);
      await target().write(it, await target().offset(it, calm()), calm(), () => undefined);
      const receipt = await target().commit(it, calm());
      assert.ok(isReceipt(receipt));
      assert.ok((await fs.readFile(join(server.dir, name))).equals(content));
    };
    const found = async (name: string): Promise<FileEntry> => (await source().stat(name, calm())) ?? assert.fail(`${name} is not there`);
    const read = async (name: string, offset = 0) => buffer(await source().open(await found(name), offset, calm()));
    const kindOf = async (work: Promise<unknown>): Promise<string> => {
      const error: unknown = await work.then(
        () => assert.fail("it did not fail"),
        (it: unknown) => it,
      );
      assert.ok(isFault(error), String(error));
      return error.kind;
    };
    /** A connection was lost: it is tried again, nothing is taken for changed, and what is there is a beginning of the file. */
    const interrupted = async (name: string, harm: () => void, heal: () => void = () => undefined) => {
      const it = upload(name, large);
      let told = 0;
      let harmed = false;
      const fault = await kindOf(
        target()
          .write(it, 0, calm(), (n) => {
            told += n;
            if (harmed || told < large.length / 3) return;
            harmed = true;
            harm();
          })
          // A proxy may have answered for what it swallowed.
          .then(() => target().commit(it, calm())),
      );
      assert.ok(["transient", "offline"].includes(fault), fault);
      heal();
      // A server may still take what was under way.
      let held = -1;
      await until("the offset to stay", async () => {
        const before = held;
        held = await target().offset(it, calm());
        return held === before;
      });
      assert.ok(held <= told, `${held} bytes are there, and ${told} were sent`);
      // ftp-srv takes a broken upload away.
      const there = held === 0 ? Buffer.alloc(0) : await fs.readFile(join(server.dir, it.partialPath));
      assert.ok(there.equals(large.subarray(0, held)), "what is there is not its beginning");
      it.reading.offsets.length = 0;
      await target().write(it, held, calm(), () => undefined);
      assert.deepEqual(it.reading.offsets, [held], "it did not go on there");
      assert.ok(isReceipt(await target().commit(it, calm())));
      assert.ok((await fs.readFile(join(server.dir, name))).equals(large));
    };

    test("behind a NAT: the address in the answer to PASV is where nobody is, and EPSV is not known", async () => {
      relay.nat = relay.noEpsv = true;
      const natted = ftpDevice({ ...server, port: relay.port }, { timeout: "3s" });
      try {
        const it = upload("nat.bin", small);
        await natted.target?.write(it, 0, calm(), () => undefined);
        await natted.target?.commit(it, calm());
        assert.ok((await fs.readFile(join(server.dir, "nat.bin"))).equals(small));
        const names: string[] = [];
        for await (const entry of natted.source?.list(calm()) ?? []) names.push(entry.path);
        assert.ok(names.includes("nat.bin"), names.join(" "));
        const entry = (await natted.source?.stat("nat.bin", calm())) ?? assert.fail();
        assert.ok((await buffer((await natted.source?.open(entry, 1000, calm())) ?? assert.fail())).equals(small.subarray(1000)));
      } finally {
        relay.nat = relay.noEpsv = false;
        await natted.close();
      }
    });

    test("delayed: everything arrives", async () => {
      relay.delay(20);
      try {
        await sent("slow.bin", small);
        assert.ok((await read("slow.bin")).equals(small));
      } finally {
        relay.delay(0);
      }
    });

    test("an upload whose connections are all reset goes on where it was", () => interrupted("reset.bin", () => relay.cut()));
    test("an upload whose data connection is reset goes on where it was", () => interrupted("data.bin", () => relay.cut("data")));
    test("an upload that the server takes for complete, half way, goes on where it was", async () => {
      relay.closeAfter("up", 5_000_000);
      await interrupted("half.bin", () => undefined);
    });
    test("an upload into a black hole ends by itself, and goes on where it was", () => {
      return interrupted(
        "hole.bin",
        () => relay.swallow(["up", "down"]),
        () => relay.swallow([]),
      );
    });

    for (const [what, harm] of [
      ["all connections are reset", () => relay.cut()],
      ["the data connection is reset", () => relay.cut("data")],
      ["the data connection ends early, and the server says that all was well", () => undefined],
    ] as const)
      test(`a download when ${what}: it is tried again, not taken for a file that changed`, async () => {
        await put("down.bin", large);
        const entry = await found("down.bin");
        if (what.includes("early")) relay.closeAfter("down", 5_000_000);
        const stream = await source().open(entry, 0, calm());
        const parts: Buffer[] = [];
        let got = 0;
        let harmed = false;
        const fault = await kindOf(
          (async () => {
            for await (const chunk of stream) {
              parts.push(chunk as Buffer);
              got += (chunk as Buffer).length;
              if (harmed || got < 2_000_000) continue;
              harmed = true;
              harm();
            }
          })(),
        );
        assert.ok(["transient", "offline"].includes(fault), fault);
        assert.ok(Buffer.concat(parts).equals(large.subarray(0, got)));
        assert.ok((await read("down.bin", got)).equals(large.subarray(got)));
      });
  });
