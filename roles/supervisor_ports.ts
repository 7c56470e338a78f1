/** Which nodes belong to this host, and whether the ports they need are free. */
import { type ClusterConfig, type NodeEntry, opsPort } from "../proto/cluster_config.ts";

/** The nodes that `up` starts here: those whose host is one of `hosts` or an address of this machine. */
export function nodesOfThisHost(config: ClusterConfig, hosts: readonly string[]): NodeEntry[] {
  const own = new Set(
    hosts.length > 0 ? hosts : [
      "localhost",
      "0.0.0.0",
      "::",
      Deno.hostname(),
      ...Deno.networkInterfaces().map((network) => network.address),
    ],
  );
  return config.node.filter((node) =>
    own.has(node.host) || (hosts.length === 0 && node.host.startsWith("127."))
  );
}

export interface TakenPort {
  readonly port: number;
  /** What wanted it: `backend/3`, `the ops port of backend/3`, `mail submission`. */
  readonly wantedBy: string;
}

interface WantedPort extends TakenPort {
  readonly host: string;
}

/** Every port that `nodes` and their supervisor need. */
export function portsOf(config: ClusterConfig, nodes: readonly NodeEntry[]): WantedPort[] {
  const wanted = nodes.flatMap((node) => {
    const name = `${node.role}/${node.id}`;
    const ports = [{ host: node.host, port: node.port, wantedBy: name }];
    const add = (port: number, wantedBy: string) => ports.push({ host: node.host, port, wantedBy });
    if (opsPort(node) !== node.port) add(opsPort(node), `the ops port of ${name}`);
    if (node.role === "mail") {
      add(config.mail.submission_port, `${name} (submission)`);
      add(config.mail.submissions_port, `${name} (submission over TLS)`);
    }
    return ports;
  });
  const host = nodes[0]?.host ?? "127.0.0.1", { supervisor_port: port } = config.cluster;
  wanted.push({ host, port, wantedBy: "the supervisor" });
  wanted.push({ host, port: port + 1000, wantedBy: "the ops port of the supervisor" });
  return wanted;
}

/** Tries to listen on every port that is needed, and lets go of it again. */
export function takenPorts(config: ClusterConfig, nodes: readonly NodeEntry[]): TakenPort[] {
  return portsOf(config, nodes).filter(({ host, port }) => !isFree(host, port));
}

function isFree(hostname: string, port: number): boolean {
  try {
    Deno.listen({ hostname, port }).close();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) return false;
    throw new Error(`Cannot listen on ${hostname}:${port}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
