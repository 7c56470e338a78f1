/**
 * Asks a node's `/readyz` over a bare connection. `fetch` would do the same for ten megabytes of TLS
 * and connection pools, in a process that asks only its own children.
 */

const TIMEOUT_MS = 2_000;
const REQUEST = "GET /readyz HTTP/1.0\r\nHost: node\r\nConnection: close\r\n\r\n";

/** Whether the node at `hostname:port` (its ops port) says that it can serve. */
export async function saysReady(hostname: string, port: number): Promise<boolean> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let conn: Deno.TcpConn | null = null;
  const hangUp = () => {
    try {
      conn?.close();
    } catch {
      // Closed already.
    }
  };
  timeout.addEventListener("abort", hangUp);
  try {
    conn = await Deno.connect({ hostname, port, transport: "tcp", signal: timeout });
    await conn.write(new TextEncoder().encode(REQUEST));
    const answer = new Uint8Array(64);
    const count = await conn.read(answer) ?? 0;
    return /^HTTP\/1\.[01] 2\d\d /.test(new TextDecoder().decode(answer.subarray(0, count)));
  } catch {
    return false; // not listening yet, or busy
  } finally {
    timeout.removeEventListener("abort", hangUp);
    hangUp();
  }
}
