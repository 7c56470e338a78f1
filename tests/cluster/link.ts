/**
 * A TCP connection's way from one process to another, in the hands of a test: it passes bytes on,
 * and counts lines, until it is told to cut, stall or slow them down.
 */

const NEWLINE = 10;
const CHUNK_BYTES = 64 * 1024;

export class Link {
  readonly #listener: Deno.TcpListener;
  readonly #targetPort: number;
  readonly #conns = new Set<Deno.Conn>();
  #cut = false;
  #stall: PromiseWithResolvers<void> | null = null;
  #delayMs = 0;
  /** Lines that passed, in both directions together. */
  lineCount = 0;
  byteCount = 0;

  private constructor(listener: Deno.TcpListener, targetPort: number) {
    this.#listener = listener;
    this.#targetPort = targetPort;
  }

  static open(targetPort: number): Link {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const link = new Link(listener, targetPort);
    void link.#accept();
    return link;
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  /** Breaks all connections in the middle of whatever they carry, and lets no new one through. */
  cut(): void {
    this.#cut = true;
    this.#stall?.resolve();
    this.#stall = null;
    for (const conn of this.#conns) closeQuietly(conn);
  }

  /** Holds everything back; connections stay open, as when a cable is pulled. */
  stall(): void {
    this.#stall ??= Promise.withResolvers<void>();
  }

  slow(delayMs: number): void {
    this.#delayMs = delayMs;
  }

  heal(): void {
    this.#cut = false;
    this.#delayMs = 0;
    this.#stall?.resolve();
    this.#stall = null;
  }

  close(): void {
    this.cut();
    closeQuietly(this.#listener);
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
      far = await Deno.connect({ hostname: "127.0.0.1", port: this.#targetPort });
    } catch {
      this.#conns.delete(near);
      return closeQuietly(near);
    }
    this.#conns.add(far);
    if (this.#cut) closeQuietly(far);
    await Promise.all([this.#carry(near, far), this.#carry(far, near)]);
    for (const conn of [near, far]) {
      this.#conns.delete(conn);
      closeQuietly(conn);
    }
  }

  async #carry(from: Deno.Conn, to: Deno.Conn): Promise<void> {
    const buffer = new Uint8Array(CHUNK_BYTES);
    try {
      for (let count; (count = await from.read(buffer)) !== null;) {
        if (this.#delayMs > 0) await new Promise((wake) => setTimeout(wake, this.#delayMs));
        await this.#stall?.promise;
        const bytes = buffer.subarray(0, count);
        this.byteCount += count;
        for (let at = -1; (at = bytes.indexOf(NEWLINE, at + 1)) >= 0;) this.lineCount++;
        for (let at = 0; at < count;) at += await to.write(bytes.subarray(at));
      }
    } catch {
      // One end broke: so does the other.
    }
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
