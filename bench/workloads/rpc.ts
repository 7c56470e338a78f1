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
import { type LoopCase, loopRow, sampleLoop } from "../loop_bench.ts";
import { bytesText, type Row } from "../report.ts";

const Place = z.object({ group: z.int(), epoch: z.int(), row: z.string(), column: z.string() });
const SPEED = {
  look: method(Place, z.object({ version: z.int(), size: z.int() })),
  take: method(z.object({ row: z.string() }), z.object({ size: z.int() })),
};
const IDENTITY = { secret: "speed", clusterName: "speed", onError: console.error };
const LARGE_OUTSTANDING = 4;
const WARM_UP_SECONDS = 0.5;

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
      const common = { system: "penncloud", pids: [child.pid] };
      const look = () =>
        connection.call(SPEED, "look", { group: 3, epoch: 7, row: "user-7", column: "mail/inbox" });
      for (const outstanding of run.options.outstanding) {
        const name = `call, ${outstanding} outstanding`;
        rows.push(await measure(run, { ...common, name, outstanding, operation: look }));
      }
      for (const mib of [1, 4]) {
        const payload = new Uint8Array(mib * 1024 ** 2), bytes = payload.length;
        const operation = () => connection.call(SPEED, "take", { row: "file" }, payload);
        const name = `payload of ${bytesText(bytes)}, ${LARGE_OUTSTANDING} outstanding`;
        const outstanding = LARGE_OUTSTANDING;
        rows.push(await measure(run, { ...common, name, outstanding, operation, bytes }));
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

async function measure(run: BenchRun, loop: LoopCase): Promise<Row> {
  const { seconds, rounds } = run.options, { operation, outstanding } = loop;
  await closedLoop(operation, { outstanding, seconds: Math.min(WARM_UP_SECONDS, seconds) });
  const samples = [];
  for (let round = 0; round < rounds; round++) samples.push(await sampleLoop(run, loop));
  return loopRow(loop, samples);
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
