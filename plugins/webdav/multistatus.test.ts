import assert from "node:assert/strict";
import { test } from "node:test";
import { nameOf, partsOf, hrefOf } from "./hrefs.js";
import { NoMultistatus, readMultistatus, type DavResponse } from "./multistatus.js";

async function read(text: string, piece = 7): Promise<DavResponse[]> {
  const bytes = Buffer.from(text);
  const pieces = async function* () {
    for (let at = 0; at < bytes.length; at += piece) yield await Promise.resolve(bytes.subarray(at, at + piece));
  };
  const found: DavResponse[] = [];
  for await (const response of readMultistatus(pieces())) found.push(response);
  return found;
}

const apache = `<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:" xmlns:ns0="DAV:">
<D:response xmlns:lp1="DAV:" xmlns:lp2="http://apache.org/dav/props/"><D:href>/a%20b/</D:href>
<D:propstat><D:prop><lp1:resourcetype><D:collection/></lp1:resourcetype><lp1:getlastmodified>Fri, 20 Nov 2026 10:00:00 GMT</lp1:getlastmodified></D:prop>
<D:status>HTTP/1.1 200 OK</D:status></D:propstat>
<D:propstat><D:prop><D:getcontentlength>17</D:getcontentlength></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response>
<D:response><D:href>/a%20b/полёт &amp; &#x31;.ulg</D:href><D:propstat><D:prop><lp1:resourcetype xmlns:lp1="DAV:"/>
<lp1:getcontentlength xmlns:lp1="DAV:">5000000000</lp1:getcontentlength></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
</D:multistatus>`;

test("whatever the prefixes, however it is cut: each response with the properties that are there", async () => {
  for (const piece of [1, 7, 100_000]) {
    const [dir, file, ...more] = await read(apache, piece);
    assert.deepEqual(more, []);
    assert.deepEqual([dir?.href, dir?.collection, dir?.size, dir?.modifiedMs], ["/a%20b/", true, undefined, Date.UTC(2026, 10, 20, 10)]);
    assert.deepEqual([file?.href, file?.collection, file?.size], ["/a%20b/полёт & 1.ulg", false, 5_000_000_000]);
  }
});

test("a status of the whole response is told; a size that is no number is none", async () => {
  const [gone, odd] = await read(
    `<multistatus xmlns="DAV:"><response><href>/x</href><status>HTTP/1.1 404 Not Found</status></response>
     <response><href>/y</href><propstat><prop><getcontentlength>-5</getcontentlength></prop><status>HTTP/1.1 200 OK</status></propstat></response></multistatus>`,
  );
  assert.deepEqual([gone?.status, odd?.size, odd?.status], [404, undefined, undefined]);
});

const bombs = Array.from({ length: 10 }, (_, n) => `<!ENTITY l${n + 1} "${`&l${n};`.repeat(10)}">`).join("");
const wrong: Readonly<Record<string, string>> = {
  nothing: "",
  "a portal's page": "<!DOCTYPE html><html><body>Log in</body></html>",
  "a page without a document type": "<html><body>Log in</body></html>",
  "no XML": "Internal error",
  JSON: '{"a":1}',
  "another namespace": '<multistatus xmlns="urn:x"/>',
  "entities within entities": `<!DOCTYPE m [<!ENTITY l0 "ha">${bombs}]><m>&l10;</m>`,
  "an entity that nobody knows": '<multistatus xmlns="DAV:"><response><href>&nbsp;</href></response></multistatus>',
  "cut in the middle": apache.slice(0, 700),
  "cut before its end": apache.replace("</D:multistatus>", ""),
  "a tag that is not closed": '<multistatus xmlns="DAV:"><response><href>/a</response></multistatus>',
  "an endless text": `<multistatus xmlns="DAV:"><response><href>${"a".repeat(200_000)}</href></response></multistatus>`,
  "an endless depth": `<multistatus xmlns="DAV:">${"<a>".repeat(100_000)}`,
  "no href": '<multistatus xmlns="DAV:"><response/></multistatus>',
};

for (const [what, text] of Object.entries(wrong))
  test(`refused: ${what}`, async () => {
    for (const piece of [13, 100_000_000]) await assert.rejects(read(text, piece), NoMultistatus);
  });

test("names go into URLs and come back, whatever is in them", () => {
  for (const path of ["a b/ü ✈.ulg", "100%41 & #1;?a=b+c|d.bin", "caf\u201bE9.bin", "it's \\ (1)!*.bin", "a\u201b0Ab"]) {
    assert.match(hrefOf(path), /^[\w%\-.~/]+$/);
    const parts = partsOf(`https://host:1${hrefOf(path)}/`);
    assert.equal(parts.map(nameOf).join("/"), path);
  }
  for (const path of ["../a", "a//b", "/a", "a/.", "nul\0", "new\nline"]) assert.throws(() => hrefOf(path), { kind: "rejected" }, path);
  for (const href of ["%2e%2e", "a%2Fb", "."]) assert.equal(nameOf(partsOf(href)[0] ?? ""), undefined, href);
});

test("free space is a number; a server's word for none or unknown is none", async () => {
  const said = (value: string) =>
    read(`<d:multistatus xmlns:d="DAV:"><d:response><d:href>/</d:href><d:propstat><d:prop><d:quota-available-bytes>${value}</d:quota-available-bytes></d:prop>
<d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response></d:multistatus>`);
  assert.equal((await said("5368709120"))[0]?.available, 5_368_709_120);
  for (const none of ["-3", "", "much"]) assert.equal((await said(none))[0]?.available, undefined);
});
