/**
 * A link that breaks as a file gets its name, and a source that has the file no more when the link is back: what the server holds, whole and without a name, is the last copy there is. It gets its name.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { apache, nginx, password, user } from "../conformance/dav-servers.js";
import { ownPlain, startOwn, proftpd, pureFtpd, vsftpd } from "../conformance/ftp-servers.js";
import { bytes } from "../conformance/upload.js";
import { join as joined, pass, reset } from "../faults/joined.js";
import { Program } from "../faults/process.js";
import { assertSameTree, treeOf } from "../faults/trees.js";
import { World } from "../faults/world.js";

/** A link that goes down at the moment at which a client says `word`, which does not arrive. */
class Link {
  readonly broke: Promise<void>;
  port = 0;
  #isMended = false;
  readonly #sockets = new Set<Socket>();
  readonly #server;

  private constructor(toPort: number, word: string) {
    let breaks: () => void = () => undefined;
    this.broke = new Promise((resolve) => (breaks = resolve));
    this.#server = createServer((client) => {
      const server = connect(toPort, "127.0.0.1");
      client.on("data", (chunk) => {
        if (this.#isMended || !chunk.includes(word)) return;
        this.cut();
        breaks();
      });
      pass(client, server, 0);
      pass(server, client, 0);
      joined(client, server, 0, this.#sockets);
    });
  }

  static async start(t: TestContext, toPort: number, word: string): Promise<Link> {
    const link = new Link(toPort, word);
    await link.#listen();
    t.after(() => link.cut());
    return link;
  }

  cut(): void {
    this.#server.close();
    for (const socket of this.#sockets) reset(socket);
  }

  async mend(): Promise<void> {
    this.#isMended = true;
    await this.#listen();
  }

  async #listen(): Promise<void> {
    this.#server.listen(this.port, "127.0.0.1");
    await once(this.#server, "listening");
    this.port = (this.#server.address() as AddressInfo).port;
  }
}

const ftp = [vsftpd, pureFtpd, proftpd, ownPlain].map((kind) => ({
  name: kind.name,
  skip: kind.skip,
  start: async (t: TestContext) => {
    const server = await kind.start();
    t.after(() => server.stop());
    const link = await Link.start(t, server.port, "RNFR ");
    const device = { type: "ftp", host: "127.0.0.1", port: link.port, user: server.user, password: server.password, ...server.options };
    return { dir: server.dir, link, device };
  },
}));

const dav = [apache, nginx].map((kind) => ({
  name: kind.name,
  skip: kind.skip,
  start: async (t: TestContext) => {
    const server = await kind.start();
    t.after(() => server.stop());
    const url = new URL(server.url);
    const link = await Link.start(t, Number(url.port), "MOVE /");
    url.port = `${link.port}`;
    return { dir: server.dir, link, device: { type: "webdav", url: url.href, user, password, ...server.options } };
  },
}));

const content = bytes(300_000, 7);

function scene(t: TestContext): { world: World; sha: string; run: (config: object) => Program } {
  const world = new World(t);
  world.file("in/log.ulg", content);
  const sha = treeOf(world.path("in")).get("log.ulg") ?? assert.fail();
  return { world, sha, run: (config) => new Program(["run", "--json", "--config", world.config(config)]) };
}

for (const kind of [...ftp, ...dav]) {
  const skip = kind.skip ?? false;

  for (const killed of [false, true])
    test(
      `${kind.name}: what is read where it lies, and went${killed ? " while the program was killed" : ""}: its last copy gets its name`,
      { skip },
      async (t) => {
        const { dir, link, device } = await kind.start(t);
        const { world, sha, run } = scene(t);
        const config = {
          devices: { in: { type: "local", dir: "in", interval: "1s" }, ground: device },
          routes: [{ from: "in", to: ["ground"], into: "box" }],
        };
        let program = run(config);
        await link.broke;
        rmSync(world.path("in/log.ulg"));
        if (killed) {
          await program.kill();
          program = run(config);
        }
        await link.mend();
        await program.until(({ what }) => what === "delivered", "a delivery");
        assertSameTree(treeOf(dir), new Map([["box/log.ulg", sha]]), "the server");
      },
    );

  // That a server is away is believed after a while: one of each sort.
  if (![vsftpd, proftpd, apache].some(({ name }) => name === kind.name)) continue;
  test(`${kind.name}: the copy here makes room, and its source loses it: the last one gets its name`, { skip }, async (t) => {
    const { dir, link, device } = await kind.start(t);
    const { world, sha, run } = scene(t);
    world.mkdir("out");
    const camera = await startOwn({ root: world.dir, users: { in: { password } } });
    t.after(() => camera.close());
    const program = run({
      spool: { maxSize: "400kB", keepFree: "1MiB" },
      devices: {
        cam: { type: "ftp", host: "127.0.0.1", port: camera.port, user: "in", password, interval: "1s" },
        ground: device,
        out: { type: "local", dir: "out" },
      },
      routes: [
        { from: "cam", to: ["ground"], into: "box", include: ["*.ulg"] },
        { from: "cam", to: ["out"], into: "", include: ["*.jpg"] },
      ],
    });
    await link.broke;
    world.file("in/photo.jpg", content);
    await program.until(({ what }) => what === "given-up", "a word that the log makes room");
    rmSync(world.path("in/log.ulg"));
    await program.until(({ what, message }) => what === "delivered" && message.includes("photo.jpg"), "the photo");
    await link.mend();
    await program.until(({ what, message }) => what === "delivered" && message.includes("log.ulg"), "the log");
    assertSameTree(treeOf(dir), new Map([["box/log.ulg", sha]]), "the server");
  });
}
