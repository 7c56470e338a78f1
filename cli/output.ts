/** What commands write to standard output: text, JSON for scripts, and values byte for byte. */

export function writeLine(text: string): void {
  console.log(text);
}

export function writeJson(value: unknown): void {
  console.log(JSON.stringify(value, null, 2));
}

/** The bytes as they are; a line break is added only for people, never for pipes. */
export async function writeBytes(bytes: Uint8Array): Promise<void> {
  for (let rest = bytes; rest.length > 0;) {
    rest = rest.subarray(await Deno.stdout.write(rest));
  }
  if (Deno.stdout.isTerminal() && bytes.at(-1) !== 10) console.log("");
}

/** A value in JSON: `value` when it is text, `base64` when it is not. */
export function valueForJson(bytes: Uint8Array): { value: string } | { base64: string } {
  try {
    return { value: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch {
    return { base64: bytes.toBase64() };
  }
}

/** A value on one line of a listing: text with escapes, or its first bytes in hex. */
export function valueForLine(bytes: Uint8Array, charactersMax = 60): string {
  const shown = valueForJson(bytes);
  const text = "value" in shown
    ? JSON.stringify(shown.value).slice(1, -1)
    : `0x${bytes.subarray(0, charactersMax / 2).toHex()}`;
  return text.length > charactersMax ? `${text.slice(0, charactersMax - 1)}…` : text;
}
