/** Asks for a password without showing it, or takes it from standard input for scripts. */
import { UsageError } from "./exit_status.ts";

/** Longer than any password that is accepted. */
const PASSWORD_BYTES_MAX = 4096;

export async function readPassword(
  { fromStdin }: { readonly fromStdin: boolean },
): Promise<string> {
  if (fromStdin) return await firstLine();
  if (!Deno.stdin.isTerminal()) {
    throw new UsageError("Cannot ask for a password without a terminal: use --password-stdin");
  }
  const password = ask("Password: ");
  if (ask("Once more: ") !== password) throw new UsageError("The two passwords differ");
  return password;
}

async function firstLine(): Promise<string> {
  let text = "";
  for await (const part of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    text += part;
    if (text.includes("\n") || text.length > PASSWORD_BYTES_MAX) break;
  }
  return text.split("\n")[0]!.replace(/\r$/, "");
}

/** Reads keys one by one, because a terminal in its usual mode would show them. */
function ask(question: string): string {
  const write = (text: string) => Deno.stderr.writeSync(new TextEncoder().encode(text));
  write(question);
  Deno.stdin.setRaw(true);
  const bytes: number[] = [], key = new Uint8Array(1);
  try {
    while (Deno.stdin.readSync(key) !== null) {
      const [byte = 0] = key;
      if (byte === 13 || byte === 10) break;
      if (byte === 3) throw new UsageError("Nothing changed");
      if (byte === 127 || byte === 8) {
        // One character may be several bytes: take the trailing ones and the first.
        while ((bytes.at(-1) ?? 0) >> 6 === 2) bytes.pop();
        bytes.pop();
      } else if (bytes.length < PASSWORD_BYTES_MAX) bytes.push(byte);
    }
  } finally {
    Deno.stdin.setRaw(false);
    write("\n");
  }
  return new TextDecoder().decode(Uint8Array.from(bytes));
}
