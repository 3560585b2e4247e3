/** The one page of the registry: its button confirms. A look at it changes nothing. */
import { createHash } from "node:crypto";
import type { Pending } from "./catalogue.js";
import { nameOf } from "./registrations.js";

const style =
  "body{font:18px/1.5 system-ui,sans-serif;max-width:36em;margin:3em auto;padding:0 1em;color:#222;background:#fff}code{overflow-wrap:anywhere}" +
  "button{font:inherit;padding:.6em 1.4em;border:0;border-radius:.4em;background:#0a58ca;color:#fff}" +
  "@media(prefers-color-scheme:dark){body{color:#eee;background:#181818}}";

/** No script, nothing from elsewhere, in no frame, told to nobody. */
export const pageHeaders: Readonly<Record<string, string>> = {
  "Content-Type": "text/html; charset=utf-8",
  "Content-Security-Policy": `default-src 'none'; style-src 'sha256-${createHash("sha256").update(style).digest("base64")}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'`,
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
  "X-Robots-Tag": "noindex",
  "Cache-Control": "no-store",
};

export function confirmPage(pending: Pending): string {
  return page(
    pending.renew ? "Confirm a new key" : "Confirm a vehicle",
    `<p>${
      pending.renew
        ? `Somebody asks for ${text(nameOf(pending))} of <strong>${text(pending.email)}</strong>. The key that it has now ends with that.`
        : `Logs of ${text(nameOf(pending))} are to come here, for <strong>${text(pending.email)}</strong>.`
    }</p>
<p>Its key has the fingerprint<br><code>${text(pending.fingerprint)}</code><br>which the vehicle shows where it was registered.</p>
<form method="post"><button type="submit">Yes, this vehicle is mine</button></form>
<p>If it is not yours, close this page.</p>`,
  );
}

export function saidPage(title: string, said: string): string {
  return page(title, `<p>${text(said)}</p>`);
}

function page(title: string, body: string): string {
  return `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${text(title)}</title><style>${style}</style></head>
<body><h1>${text(title)}</h1>
${body}
</body></html>
`;
}

function text(raw: string): string {
  return raw.replace(/[&<>"']/g, (it) => `&#${it.charCodeAt(0)};`);
}
