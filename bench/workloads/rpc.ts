/**
 * How fast two processes talk over one connection of roles/net, with nothing behind it: the ceiling
 * of everything that goes through the store. Small calls, then payloads of 1 and 4 MiB.
 *
 * The server is a process of its own, as in a cluster: this file, run as a program.
 */
import { z } from "zod";
import { method } from "../../proto/rpc.ts";
import { connectRpc } from "../../roles/net/rpc_client.ts";
import { serveRpc } from "../../roles/net/rpc_server.ts";
import { service } from "../../roles/net/rpc_service.ts";
import type { Bench, BenchRun } from "../bench_run.ts";
import { closedLoop } from "../load/closed_loop.ts";
import { CostMeter } from "../measure.ts";
import { bytesText, type Row } from "../report.ts";
import { medianOf, spreadOf } from "../statistics.ts";

const Place = z.object({ group: z.int(), epoch: z.int(), row: z.string(), column: z.string() });
const SPEED = {
  look: method(Place, z.object({ version: z.int(), size: z.int() })),
  take: method(z.object({ row: z.string() }), z.object({ size: z.int() })),
};
const IDENTITY = { secret: "speed", clusterName: "speed", onError: console.error };
const LARGE_OUTSTANDING = 4;

export const rpc: Bench = {
  name: "rpc",
  about: "calls between two processes over one connection, with nothing behind them",
  run: async (run) => {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", "--quiet", import.meta.filename!],
      stdout: "piped",
    }).spawn();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const port = Number((await reader.read()).value);
    const connection = await connectRpc({
      ...IDENTITY,
      hostname: "127.0.0.1",
      port,
      name: "client",
    });
    try {
      const rows: Row[] = [];
      const look = () =>
        connection.call(SPEED, "look", { group: 3, epoch: 7, row: "user-7", column: "mail/inbox" });
      for (const outstanding of run.options.outstanding) {
        const name = `call, ${outstanding} outstanding`;
        rows.push(await measure(run, { name, outstanding, call: look, pid: child.pid }));
      }
      for (const mib of [1, 4]) {
        const payload = new Uint8Array(mib * 1024 ** 2), bytes = payload.length;
        const call = () => connection.call(SPEED, "take", { row: "file" }, payload);
        const name = `payload of ${bytesText(bytes)}, ${LARGE_OUTSTANDING} outstanding`;
        const outstanding = LARGE_OUTSTANDING;
        rows.push(await measure(run, { name, outstanding, call, bytes, pid: child.pid }));
      }
      return { rows, peers: [], notes: run.notes };
    } finally {
      connection.close();
      child.kill("SIGTERM");
      await reader.cancel();
      await child.status;
    }
  },
};

async function measure(run: BenchRun, { name, outstanding, call, bytes, pid }: {
  name: string;
  outstanding: number;
  call: () => Promise<unknown>;
  bytes?: number;
  pid: number;
}): Promise<Row> {
  const { seconds, rounds } = run.options;
  await closedLoop(call, { outstanding, seconds: Math.min(0.5, seconds) });
  const samples = [];
  for (let round = 0; round < rounds; round++) {
    await run.untilIdle();
    const client = new CostMeter([Deno.pid]), server = new CostMeter([pid]);
    const result = await closedLoop(call, { outstanding, seconds });
    const { count } = result.latencies;
    samples.push({
      rate: count / result.seconds * (bytes === undefined ? 1 : bytes / 1e6),
      p50Ms: result.latencies.quantileMs(0.5),
      p99Ms: result.latencies.quantileMs(0.99),
      maxMs: result.latencies.maxMs,
      clientCores: client.read().cpuSeconds / result.seconds,
      serverCpuUsPerOp: server.read().cpuSeconds * 1e6 / count,
    });
  }
  return {
    system: "penncloud",
    case: name,
    rate: spreadOf(samples.map(({ rate }) => rate)),
    unit: bytes === undefined ? "call/s" : "MB/s",
    p50Ms: medianOf(samples.map(({ p50Ms }) => p50Ms)),
    p99Ms: medianOf(samples.map(({ p99Ms }) => p99Ms)),
    maxMs: Math.max(...samples.map(({ maxMs }) => maxMs)),
    clientCores: medianOf(samples.map(({ clientCores }) => clientCores)),
    serverCpuUsPerOp: medianOf(samples.map(({ serverCpuUsPerOp }) => serverCpuUsPerOp)),
  };
}

if (import.meta.main) {
  const server = serveRpc({
    ...IDENTITY,
    hostname: "127.0.0.1",
    port: 0,
    name: "backend/0",
    services: service(SPEED, {
      look: (body) => ({ version: body.epoch, size: body.row.length }),
      take: (_body, payload) => ({ size: payload.length }),
    }),
  });
  console.log(server.port);
}
