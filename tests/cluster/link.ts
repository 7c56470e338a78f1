/**
 * A TCP connection's way from one process to another, in the hands of a test: it passes bytes on,
 * and counts lines, until it is told to cut, stall or slow them down. Stalling can be done to one
 * direction alone, as by a switch that has lost half of its mind.
 */

/** there: from the one who called to the one who was called. */
export type Direction = "there" | "back";

const NEWLINE = 10;
const CHUNK_BYTES = 64 * 1024;

export class Link {
  readonly #listener: Deno.TcpListener;
  readonly #target: { readonly hostname: string; readonly port: number };
  readonly #conns = new Set<Deno.Conn>();
  #cut = false;
  readonly #stalls = new Map<Direction, PromiseWithResolvers<void>>();
  #delayMs = 0;
  /** Lines that passed, in both directions together. */
  lineCount = 0;
  byteCount = 0;

  private constructor(
    listener: Deno.TcpListener,
    target: { readonly hostname: string; readonly port: number },
  ) {
    this.#listener = listener;
    this.#target = target;
  }

  static open(targetPort: number, hostname = "127.0.0.1"): Link {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const link = new Link(listener, { hostname, port: targetPort });
    void link.#accept();
    return link;
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  /** Breaks all connections in the middle of whatever they carry, and lets no new one through. */
  cut(): void {
    this.#cut = true;
    this.#flow();
    for (const conn of this.#conns) closeQuietly(conn);
  }

  /** Holds everything back; connections stay open, as when a cable is pulled. */
  stall(directions: readonly Direction[] = ["there", "back"]): void {
    for (const direction of directions) {
      if (!this.#stalls.has(direction)) this.#stalls.set(direction, Promise.withResolvers<void>());
    }
  }

  slow(delayMs: number): void {
    this.#delayMs = delayMs;
  }

  heal(): void {
    this.#cut = false;
    this.#delayMs = 0;
    this.#flow();
  }

  close(): void {
    this.cut();
    closeQuietly(this.#listener);
  }

  #flow(): void {
    for (const stall of this.#stalls.values()) stall.resolve();
    this.#stalls.clear();
  }

  async #accept(): Promise<void> {
    for (;;) {
      let near: Deno.Conn;
      try {
        near = await this.#listener.accept();
      } catch {
        return; // The listener was closed.
      }
      void this.#join(near);
    }
  }

  async #join(near: Deno.Conn): Promise<void> {
    if (this.#cut) return closeQuietly(near);
    this.#conns.add(near);
    let far: Deno.Conn;
    try {
      far = await Deno.connect(this.#target);
    } catch {
      this.#conns.delete(near);
      return closeQuietly(near);
    }
    this.#conns.add(far);
    if (this.#cut) closeQuietly(far);
    await Promise.all([this.#carry(near, far, "there"), this.#carry(far, near, "back")]);
    for (const conn of [near, far]) {
      this.#conns.delete(conn);
      closeQuietly(conn);
    }
  }

  async #carry(from: Deno.Conn, to: Deno.Conn, direction: Direction): Promise<void> {
    const buffer = new Uint8Array(CHUNK_BYTES);
    try {
      for (let count; (count = await from.read(buffer)) !== null;) {
        if (this.#delayMs > 0) await new Promise((wake) => setTimeout(wake, this.#delayMs));
        await this.#stalls.get(direction)?.promise;
        const bytes = buffer.subarray(0, count);
        this.byteCount += count;
        for (let at = -1; (at = bytes.indexOf(NEWLINE, at + 1)) >= 0;) this.lineCount++;
        for (let at = 0; at < count;) at += await to.write(bytes.subarray(at));
      }
    } catch {
      // One end broke: so does the other.
    }
    // Nor does the news of an end get through a cable that is pulled.
    await this.#stalls.get(direction)?.promise;
    closeQuietly(to);
    closeQuietly(from);
  }
}

function closeQuietly(closable: { close(): void }): void {
  try {
    closable.close();
  } catch {
    // Closed already.
  }
}
