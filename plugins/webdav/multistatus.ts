/**
 * Reads the answer to a PROPFIND (RFC 4918 §13) as it comes: a directory of any length takes no more memory than its longest entry.
 *
 * What is no XML, has another root or a document type (the way to all tricks of XML), or ends early throws NoMultistatus: a portal's page is
 * never taken for an empty directory.
 */
import sax, { type QualifiedTag, type SAXOptions } from "sax";

export interface DavResponse {
  readonly href: string;
  readonly collection: boolean;
  readonly size: number | undefined;
  readonly modifiedMs: number | undefined;
  /** The href of DAV:current-user-principal, where it was asked for. */
  readonly principal: string | undefined;
  /** DAV:quota-available-bytes, where it was asked for; what is negative is a server's word for none or unknown (Nextcloud). */
  readonly available: number | undefined;
  /** Of the whole response, where it has one: 404 for what is not there. */
  readonly status: number | undefined;
}

export class NoMultistatus extends Error {}

const mostText = 65_536;
const options: SAXOptions & { readonly strictEntities: boolean } = { xmlns: true, strictEntities: true, position: false };

interface Building {
  href?: string;
  status?: number;
  props: Props;
}

interface Props {
  collection?: boolean;
  size?: number;
  modifiedMs?: number;
  principal?: string;
  available?: number;
}

export async function* readMultistatus(bytes: AsyncIterable<unknown>): AsyncGenerator<DavResponse> {
  const parser = sax.parser(true, options);
  const done: DavResponse[] = [];
  const path: string[] = [];
  let text = "";
  let response: Building = { props: {} };
  let propstat: { props: Props; status: number } = { props: {}, status: 200 };
  let whole = false;
  const refuse = (why: string) => {
    throw new NoMultistatus(why);
  };
  parser.onerror = (error) => refuse(error.message.split("\n", 1)[0] ?? "");
  parser.ondoctype = () => refuse("it has a document type");
  parser.onopentag = (tag) => {
    const { uri, local } = tag as QualifiedTag;
    const name = uri === "DAV:" ? local : `{${uri}}${local}`;
    if (path.length === 0 && name !== "multistatus") refuse(`it is <${local}>`);
    if (path.length > 64) refuse("it is nested too deeply");
    path.push(name);
    text = "";
    if (path.length === 2 && name === "response") response = { props: {} };
    if (path.length === 3 && name === "propstat") propstat = { props: {}, status: 200 };
    if (path.join("/").endsWith("prop/resourcetype/collection")) propstat.props.collection = true;
  };
  parser.ontext = parser.oncdata = (more) => {
    if (text.length + more.length > mostText) refuse("a text in it is too long");
    text += more;
  };
  parser.onclosetag = () => {
    const where = path.slice(1).join("/");
    path.pop();
    const value = text.trim();
    text = "";
    switch (where) {
      case "":
        whole = true;
        break;
      case "response/href":
        response.href ??= value;
        break;
      case "response/status":
        response.status = statusOf(value);
        break;
      case "response/propstat/status":
        propstat.status = statusOf(value) ?? 0;
        break;
      case "response/propstat/prop/getcontentlength":
        if (/^\d+$/.test(value) && Number.isSafeInteger(Number(value))) propstat.props.size = Number(value);
        break;
      case "response/propstat/prop/getlastmodified":
        if (!Number.isNaN(Date.parse(value))) propstat.props.modifiedMs = Date.parse(value);
        break;
      case "response/propstat/prop/quota-available-bytes":
        if (/^\d+$/.test(value)) propstat.props.available = Number(value);
        break;
      case "response/propstat/prop/current-user-principal/href":
        propstat.props.principal = value;
        break;
      case "response/propstat":
        if (propstat.status >= 200 && propstat.status < 300) response.props = { ...response.props, ...propstat.props };
        break;
      case "response": {
        const { href, status, props } = response;
        if (href === undefined) return refuse("a response in it has no href");
        const { collection = false, size, modifiedMs, principal, available } = props;
        done.push({ href, collection, size, modifiedMs, principal, available, status });
        break;
      }
    }
  };
  const decoder = new TextDecoder();
  for await (const chunk of bytes) {
    parser.write(decoder.decode(chunk as Buffer, { stream: true }));
    yield* done.splice(0);
  }
  if (!whole) refuse("it ends early");
  parser.close();
  yield* done.splice(0);
}

function statusOf(line: string): number | undefined {
  const match = /^HTTP\/\S+ (\d{3})/.exec(line);
  return match === null ? undefined : Number(match[1]);
}
