/**
 * Ports for clusters of tests that run beside each other: none is given to two of them.
 *
 * To look whether a port is free is not enough, for a node that is down on purpose does not listen, and
 * wants its port again. So what was given out is written down, in one file for the whole machine, until
 * it is released, its process has ended, or it is older than any test.
 */
import { loadConfig } from "../../roles/config_file.ts";
import { portsOf, takenPorts } from "../../roles/supervisor_ports.ts";

const REGISTRY = "/tmp/penncloud-test-ports.json";
/** Ports stay below those that the system gives to outgoing connections (32768 and up). */
const OFFSET_MIN = 200, OFFSET_MAX = 21_500;
const FORGOTTEN_AFTER_MS = 30 * 60_000;
const ATTEMPTS = 200;

interface Reservation {
  readonly pid: number;
  readonly atMs: number;
  readonly offset: number;
  readonly ports: readonly number[];
}

/** An offset with which every port of the configuration is free, and is given to nobody else. */
export async function freeOffset(configFile: string): Promise<number> {
  return await withRegistry(async (reservations) => {
    const reserved = new Set(reservations.flatMap(({ ports }) => ports));
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const offset = OFFSET_MIN + Math.floor(Math.random() * (OFFSET_MAX - OFFSET_MIN));
      const { config } = await loadConfig({ path: configFile, portOffset: offset });
      const ports = portsOf(config, config.node).map(({ port }) => port);
      if (ports.some((port) => reserved.has(port))) continue;
      if (takenPorts(config, config.node).length > 0) continue;
      reservations.push({ pid: Deno.pid, atMs: Date.now(), offset, ports });
      return offset;
    }
    throw new Error("No port offset found with free ports");
  });
}

/** The cluster is gone for good. */
export async function releaseOffset(offset: number): Promise<void> {
  await withRegistry((reservations) => {
    const at = reservations.findIndex((it) => it.pid === Deno.pid && it.offset === offset);
    if (at >= 0) reservations.splice(at, 1);
  });
}

async function withRegistry<T>(run: (reservations: Reservation[]) => T | Promise<T>): Promise<T> {
  using file = await Deno.open(REGISTRY, { read: true, write: true, create: true });
  await file.lock(true);
  const reservations = (await read(file)).filter(isAlive);
  try {
    return await run(reservations);
  } finally {
    const bytes = new TextEncoder().encode(JSON.stringify(reservations));
    await file.truncate();
    await file.seek(0, Deno.SeekMode.Start);
    for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
  }
}

async function read(file: Deno.FsFile): Promise<Reservation[]> {
  const bytes = new Uint8Array((await file.stat()).size);
  for (let at = 0; at < bytes.length;) at += await file.read(bytes.subarray(at)) ?? bytes.length;
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    // New, or its writer was killed in the middle.
    return [];
  }
}

function isAlive({ pid, atMs }: Reservation): boolean {
  if (Date.now() - atMs > FORGOTTEN_AFTER_MS) return false;
  try {
    Deno.statSync(`/proc/${pid}`);
    return true;
  } catch {
    return false;
  }
}
