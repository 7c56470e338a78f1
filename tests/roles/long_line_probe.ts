/**
 * A program: a stranger sends a line of 100 MB while an honest connection goes on, with nothing else
 * in the process, so that its own size can be looked at. Prints what it saw as one line of JSON.
 */
import { CHAT, openPair, shakenHands, until } from "./net_pair.ts";

const LINE_BYTES = 100_000_000;
const PIECE_BYTES = 64 * 1024;

export interface LongLineFigures {
  /** What the server said of it. */
  readonly error: string;
  /** How much the process grew meanwhile, in bytes. */
  readonly grown: number;
}

if (import.meta.main) console.log(JSON.stringify(await sendLongLine()));

async function sendLongLine(): Promise<LongLineFigures> {
  await using pair = openPair();
  const honest = await pair.connect();
  using client = await shakenHands(pair);
  const before = Deno.memoryUsage().rss;
  let peak = before;
  const piece = new Uint8Array(PIECE_BYTES).fill(0x61);
  try {
    for (let sent = 0; sent < LINE_BYTES; sent += PIECE_BYTES) {
      await client.write(piece);
      peak = Math.max(peak, Deno.memoryUsage().rss);
      if (sent % (64 * PIECE_BYTES) === 0) {
        await honest.call(CHAT, "echo", { words: "still there" });
      }
    }
  } catch {
    // The server hung up, which is what it should do.
  }
  await until(() => pair.server.connections.size === 1, "the connection is gone");
  return { error: String(pair.serverErrors[0]), grown: peak - before };
}
