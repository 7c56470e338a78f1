/** One value of the store, as text, as indented JSON, or byte by byte. */
import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { ApiFailure } from "../../ui/api.ts";
import { Notice } from "../../ui/components/notice.tsx";
import { Segments } from "../../ui/components/segments.tsx";
import { formatCount, formatSize } from "../../ui/format.ts";
import { type DataCell, fetchValue } from "./admin_api.ts";

/** More is for saving, not for looking at. */
const SHOWN_BYTES_MAX = 64 * 1024;
const HEX_BYTES_MAX = 4 * 1024;

type Form = "json" | "text" | "hex";

export function ValueView({ cell }: { cell: DataCell }): JSX.Element {
  const [bytes, setBytes] = useState(() => inlineBytes(cell));
  const [problem, setProblem] = useState<string | null>(null);
  const [chosen, setChosen] = useState<Form | null>(null);

  useEffect(() => {
    if (!cell.truncated || cell.link === null) return;
    const leaving = new AbortController();
    fetchValue(cell.link, { bytesMax: SHOWN_BYTES_MAX, signal: leaving.signal }).then(
      setBytes,
      (error) => {
        if (leaving.signal.aborted) return;
        setProblem(error instanceof ApiFailure ? error.message : String(error));
      },
    );
    return () => leaving.abort(new Error("closed"));
  }, [cell.link]);

  const whole = bytes.length >= cell.size || cell.secret;
  const text = textOf(bytes), json = whole && text !== null ? jsonOf(text) : null;
  const form = chosen ?? (json !== null ? "json" : text !== null ? "text" : "hex");
  return (
    <div class="value">
      <div class="value__bar">
        <Segments
          label="How to show the value"
          value={form}
          options={[
            ...(json === null ? [] : [{ value: "json" as const, label: "JSON" }]),
            { value: "text", label: "Text" },
            { value: "hex", label: "Hex" },
          ]}
          onChange={setChosen}
        />
        <span class="muted">
          {formatCount(cell.size)}{" "}
          bytes{whole ? "" : `, the first ${formatSize(bytes.length)} shown`}
        </span>
        {cell.secret && <span class="muted">Secrets are hidden</span>}
        {cell.link !== null && (
          <a class="button button--secondary button--small value__save" href={cell.link} download>
            Save
          </a>
        )}
      </div>
      {problem !== null && <Notice tone="danger">{problem}</Notice>}
      <pre class="value__text" tabIndex={0} aria-label="Value">
        {form === "hex" ? hexOf(bytes) : form === "json" ? json : text ?? readable(bytes)}
      </pre>
    </div>
  );
}

/** One line that tells a value from others. */
export function preview(cell: DataCell): string {
  if (cell.large) return "in a file of its own";
  if (cell.size === 0) return "empty";
  if (cell.text !== undefined) return cell.text.replaceAll(/\s+/g, " ").slice(0, 200);
  const bytes = inlineBytes(cell).subarray(0, 24);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

function inlineBytes(cell: DataCell): Uint8Array<ArrayBuffer> {
  if (cell.text !== undefined) return new TextEncoder().encode(cell.text);
  return Uint8Array.from(atob(cell.base64 ?? ""), (char) => char.charCodeAt(0));
}

function textOf(bytes: Uint8Array): string | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
    // deno-lint-ignore no-control-regex -- control characters are what we look for
    return /[\u0000-\u0008\u000b\u000c\u000e-\u001f]/.test(text) ? null : text;
  } catch {
    return null;
  }
}

function jsonOf(text: string): string | null {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && value !== null ? JSON.stringify(value, null, 2) : null;
  } catch {
    return null;
  }
}

/** Bytes that are no text, with a mark in place of what cannot be read. */
function readable(bytes: Uint8Array): string {
  // deno-lint-ignore no-control-regex -- control characters are what we look for
  return new TextDecoder().decode(bytes).replaceAll(/[\u0000-\u0008\u000b-\u001f]/g, "\ufffd");
}

/** Sixteen bytes a line: place, bytes, letters. */
function hexOf(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < Math.min(bytes.length, HEX_BYTES_MAX); at += 16) {
    const line = bytes.subarray(at, at + 16);
    const hex = Array.from(line, (byte) => byte.toString(16).padStart(2, "0"));
    const letters = Array.from(
      line,
      (byte) => byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "·",
    );
    const left = hex.slice(0, 8).join(" "), right = hex.slice(8).join(" ");
    lines.push(
      `${at.toString(16).padStart(6, "0")}  ${left.padEnd(23)}  ${right.padEnd(23)}  ${
        letters.join("")
      }`,
    );
  }
  if (bytes.length > HEX_BYTES_MAX) {
    lines.push(`… ${formatSize(bytes.length - HEX_BYTES_MAX)} more`);
  }
  return lines.join("\n");
}
