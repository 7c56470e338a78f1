/**
 * Makes the HTML of a stranger's mail harmless, on the server, so that every reader of the API gets
 * it safe.
 *
 * It works by rebuilding: a tolerant parser reports what it sees, and only tags, attributes and
 * style properties on the lists below are written out again, with everything escaped anew. What is
 * not known is left out: scripts, frames, forms, SVG, MathML, `<style>`, handlers, `javascript:`.
 * The browser gets the result in a sandboxed frame whose policy forbids scripts once more.
 *
 * Remote images are left out (their `src` goes into `data-remote-src`) unless `remoteImages`: each
 * one would tell its sender when and where the mail was read. Pictures that came with the mail
 * (`cid:`) are put in as `data:` URLs, because a sandboxed frame has no cookie to fetch them with.
 */
import { Parser } from "htmlparser2";

export interface SafeHtmlOptions {
  readonly remoteImages?: boolean;
  /** The `data:` URL of an inline picture by its Content-ID without brackets. */
  readonly inlineImage?: (contentId: string) => string | undefined;
}

export interface SafeHtml {
  readonly html: string;
  /** How many remote pictures there are, shown or not. */
  readonly remoteImageCount: number;
}

const HTML_LENGTH_MAX = 2 * 1024 * 1024;
const DEPTH_MAX = 200;

const words = (text: string): Set<string> => new Set(text.split(/\s+/));
const TAGS = words(`a abbr address article b bdi bdo big blockquote br caption center cite code col
  colgroup dd del details dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr
  i img ins kbd li main mark nav ol p pre q s samp section small span strike strong sub summary sup
  table tbody td tfoot th thead time tr tt u ul var wbr`);
const VOID_TAGS = words("br col hr img wbr");
/** Their content is not for reading, so it goes with them. */
const DROPPED_WITH_CONTENT = words(`script style title head noscript template iframe frame frameset
  object embed applet svg math audio video canvas textarea xmp plaintext noembed noframes`);
const ATTRIBUTES = words(`align alt bgcolor border cellpadding cellspacing color colspan dir face
  height lang rowspan size span start title valign width style`);
const STYLE_PROPERTIES = words(`background-color border border-bottom border-bottom-color
  border-bottom-style border-bottom-width border-collapse border-color border-left
  border-left-color border-left-style border-left-width border-radius border-right
  border-right-color border-right-style border-right-width border-spacing border-style border-top
  border-top-color border-top-style border-top-width border-width box-sizing clear color direction
  display float font font-family font-size font-style font-variant font-weight height
  letter-spacing line-height list-style list-style-type margin margin-bottom margin-left
  margin-right margin-top max-height max-width min-height min-width opacity overflow padding
  padding-bottom padding-left padding-right padding-top table-layout text-align text-decoration
  text-indent text-transform vertical-align white-space width word-break word-spacing word-wrap
  overflow-wrap`);

export function safeHtml(source: string, options: SafeHtmlOptions = {}): SafeHtml {
  let html = "", remoteImageCount = 0;
  const open: string[] = [];
  let skipping = "", skipDepth = 0;

  const image = (attributes: Record<string, string>): string => {
    const src = (attributes.src ?? "").trim();
    if (/^cid:/i.test(src)) {
      const url = options.inlineImage?.(decodeCid(src.slice(4)));
      return url === undefined ? "" : ` src="${escapeHtml(url)}"`;
    }
    if (/^data:image\/(png|jpeg|gif|webp);base64,[a-z0-9+/=\s]*$/i.test(src)) {
      return ` src="${escapeHtml(src)}"`;
    }
    const remote = remoteUrl(src);
    if (remote === null) return "";
    remoteImageCount++;
    const name = options.remoteImages === true ? "src" : "data-remote-src";
    return ` ${name}="${escapeHtml(remote)}" referrerpolicy="no-referrer" loading="lazy"`;
  };

  const parser = new Parser({
    onopentag(name, attributes) {
      if (skipping !== "") {
        if (name === skipping) skipDepth++;
        return;
      }
      if (DROPPED_WITH_CONTENT.has(name)) {
        skipping = name;
        skipDepth = 1;
        return;
      }
      if (!TAGS.has(name) || html.length > HTML_LENGTH_MAX || open.length >= DEPTH_MAX) return;
      let tag = `<${name}`;
      for (const [key, value] of Object.entries(attributes)) {
        if (!ATTRIBUTES.has(key)) continue;
        const safe = key === "style" ? safeStyle(value) : value.slice(0, 500);
        if (safe !== "") tag += ` ${key}="${escapeHtml(safe)}"`;
      }
      if (name === "img") tag += image(attributes);
      if (name === "a") tag += safeLink(attributes.href ?? "");
      html += `${tag}>`;
      if (!VOID_TAGS.has(name)) open.push(name);
    },
    ontext(text) {
      if (skipping === "" && html.length <= HTML_LENGTH_MAX) html += escapeHtml(text);
    },
    onclosetag(name) {
      if (skipping !== "") {
        if (name === skipping && --skipDepth === 0) skipping = "";
        return;
      }
      const at = open.lastIndexOf(name);
      if (at === -1) return;
      // Whatever is still open inside is closed with it, so the result is always well nested.
      for (const inner of open.splice(at).reverse()) html += `</${inner}>`;
    },
  }, { decodeEntities: true, lowerCaseTags: true });
  parser.write(source.length > HTML_LENGTH_MAX ? source.slice(0, HTML_LENGTH_MAX) : source);
  parser.end();
  for (const name of open.reverse()) html += `</${name}>`;
  return { html, remoteImageCount };
}

export function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;").replaceAll("'", "&#39;").replaceAll("\0", "");
}

function safeLink(href: string): string {
  // deno-lint-ignore no-control-regex -- browsers skip these within a scheme, so they go first
  const clean = href.replaceAll(/[\u0000-\u0020]+/g, "");
  if (!/^(https?:\/\/|mailto:|tel:)/i.test(clean)) return "";
  return ` href="${escapeHtml(clean)}" target="_blank" rel="noopener noreferrer nofollow"`;
}

function remoteUrl(src: string): string | null {
  const text = src.startsWith("//") ? `https:${src}` : src;
  try {
    const url = new URL(text);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
  } catch {
    return null;
  }
}

function decodeCid(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Only known properties, only plain values: no `url()`, no escapes, no way out of the attribute. */
function safeStyle(style: string): string {
  return style.slice(0, 4000).split(";").flatMap((declaration) => {
    const colon = declaration.indexOf(":");
    const property = declaration.slice(0, colon).trim().toLowerCase();
    const value = declaration.slice(colon + 1).trim();
    if (colon === -1 || !STYLE_PROPERTIES.has(property)) return [];
    if (value.length > 200 || !/^[\w\s#.,%()'"!+-]+$/.test(value)) return [];
    if (/url|expression|image|attr|var\s*\(/i.test(value)) return [];
    return [`${property}: ${value}`];
  }).join("; ");
}

const BLOCKS = words(`address article blockquote center dd div dl dt figure footer h1 h2 h3 h4 h5 h6
  header hr li main ol p pre section table tr ul`);

/** What a reader would see of the HTML, as lines of text; for snippets, search and replies. */
export function htmlToText(source: string): string {
  let text = "", skipping = "", skipDepth = 0;
  const parser = new Parser({
    onopentag(name) {
      if (skipping !== "") {
        if (name === skipping) skipDepth++;
      } else if (DROPPED_WITH_CONTENT.has(name)) {
        skipping = name;
        skipDepth = 1;
      } else if (name === "br" || BLOCKS.has(name)) text += "\n";
      else if (name === "td" || name === "th") text += " ";
    },
    ontext(part) {
      if (skipping === "") text += part.replaceAll(/\s+/g, " ");
    },
    onclosetag(name) {
      if (skipping !== "") {
        if (name === skipping && --skipDepth === 0) skipping = "";
      } else if (BLOCKS.has(name)) text += "\n";
    },
  }, { decodeEntities: true });
  parser.write(source.slice(0, HTML_LENGTH_MAX));
  parser.end();
  return text.replaceAll(/[ \t]*\n[ \t]*/g, "\n").replaceAll(/\n{3,}/g, "\n\n").trim();
}
