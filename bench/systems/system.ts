/**
 * A store under test: PennCloud or a peer, started by the bench on a fresh data folder, as its own
 * manual says for durable replication on three nodes.
 */
import type { StoreTarget } from "../clients/store_client.ts";
import type { KvWorkload } from "../load/kv_workload.ts";

export interface RunningSystem {
  readonly name: string;
  /** Version and set-up in one line. */
  readonly about: string;
  readonly target: StoreTarget;
  /** Of all servers. */
  pids(): number[];
  /** Counters of the servers from their start on, such as `fsyncs`; empty where it has none. */
  counters(): Promise<Readonly<Record<string, number>>>;
  stop(): Promise<void>;
}

export interface System {
  readonly name: string;
  /** One sentence why it cannot take part; null when it can. */
  whyNot(workload?: KvWorkload): Promise<string | null>;
  /** @param dir an empty folder on the disk that is to be used */
  start(dir: string): Promise<RunningSystem>;
}

/** The version that a program prints, or null where it is not installed. */
export async function versionOf(
  program: string,
  args: readonly string[],
  pattern: RegExp,
): Promise<string | null> {
  try {
    const { stdout } = await new Deno.Command(program, { args: [...args], stderr: "null" })
      .output();
    return new TextDecoder().decode(stdout).match(pattern)?.[1] ?? null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** `count` ports that are free now. */
export function freePorts(count: number): number[] {
  const listeners = Array.from({ length: count }, () => {
    return Deno.listen({ hostname: "127.0.0.1", port: 0 });
  });
  const ports = listeners.map(({ addr }) => (addr as Deno.NetAddr).port);
  for (const listener of listeners) listener.close();
  return ports;
}

/** A server of a peer: its output goes to a file in its folder. */
export function spawnServer(
  program: string,
  args: readonly string[],
  logFile: string,
): Deno.ChildProcess {
  // A shell redirects, so that nobody has to read the output; exec leaves the server's own pid.
  const quoted = [program, ...args].map((arg) => `'${arg.replaceAll("'", "'\\''")}'`).join(" ");
  return new Deno.Command("/bin/sh", {
    args: ["-c", `exec ${quoted} >>'${logFile}' 2>&1`],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
}

/** Asks until `check` gives something else than null; a check that throws is not there yet. */
export async function until<T>(
  check: () => Promise<T | null>,
  what: string,
  withinMs = 20_000,
): Promise<T> {
  const untilMs = performance.now() + withinMs;
  for (let last: unknown = null;;) {
    try {
      const found = await check();
      if (found !== null) return found;
    } catch (error) {
      last = error;
    }
    if (performance.now() > untilMs) {
      throw new Error(`Waited ${withinMs} ms in vain for ${what}`, { cause: last });
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export async function endProcess(child: Deno.ChildProcess): Promise<void> {
  try {
    child.kill("SIGKILL");
  } catch {
    // It has ended already.
  }
  await child.status;
}
