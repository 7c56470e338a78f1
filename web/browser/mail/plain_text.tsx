/** Plain text as people read it: links that can be followed, quoted parts folded away. */
import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import { Icon } from "../../ui/components/icon.tsx";

const LINK = /\b(https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]}']|[\w.+-]+@[\w-]+(?:\.[\w-]+)+)/g;

/** Runs of quoted and unquoted lines, in order. */
export function textBlocks(text: string): { quoted: boolean; text: string }[] {
  const blocks: { quoted: boolean; lines: string[] }[] = [];
  for (const line of text.replaceAll("\r\n", "\n").trimEnd().split("\n")) {
    const quoted = line.startsWith(">");
    const last = blocks.at(-1);
    if (last?.quoted === quoted) last.lines.push(line);
    else blocks.push({ quoted, lines: [line] });
  }
  return blocks.map(({ quoted, lines }) => ({ quoted, text: lines.join("\n") }));
}

export function PlainText({ text }: { text: string }): JSX.Element {
  return (
    <div class="plain-text">
      {textBlocks(text).map((block, index) =>
        block.quoted
          ? <QuotedText key={index} text={block.text} />
          : <div key={index} class="plain-text__own">{withLinks(block.text)}</div>
      )}
    </div>
  );
}

function QuotedText({ text }: { text: string }): JSX.Element {
  const short = text.split("\n").length <= 3;
  const [open, setOpen] = useState(short);
  return (
    <div class="quoted">
      {!short && (
        <button
          type="button"
          class="quoted__toggle"
          aria-expanded={open ? "true" : "false"}
          onClick={() => setOpen(!open)}
        >
          <Icon name="text-quote" size="small" />
          {open ? "Hide quoted text" : "Show quoted text"}
        </button>
      )}
      {open && (
        <blockquote class="quoted__text">
          {withLinks(text.replaceAll(/^> ?/gm, ""))}
        </blockquote>
      )}
    </div>
  );
}

function withLinks(text: string): ComponentChildren[] {
  const parts: ComponentChildren[] = [];
  let at = 0;
  for (const match of text.matchAll(LINK)) {
    const [found] = match;
    parts.push(text.slice(at, match.index));
    const href = found.startsWith("http") ? found : `mailto:${found}`;
    parts.push(<a href={href} target="_blank" rel="noopener noreferrer">{found}</a>);
    at = match.index + found.length;
  }
  parts.push(text.slice(at));
  return parts;
}
