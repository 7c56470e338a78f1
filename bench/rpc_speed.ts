/**
 * How fast two processes talk over one connection: `deno run -A bench/rpc_speed.ts [seconds]`.
 *
 * Small calls with 1, 64 and 512 outstanding, then payloads of 1 and 4 MiB. The server is a process
 * of its own, as in a cluster. Prints one line per case, and one JSON object with all of them last.
 */
import { z } from "zod";
import { method } from "../proto/rpc.ts";
import { connectRpc } from "../roles/net/rpc_client.ts";
import type { RpcConnection } from "../roles/net/rpc_connection.ts";
import { serveRpc } from "../roles/net/rpc_server.ts";
import { service } from "../roles/net/rpc_service.ts";

const Row = z.object({ group: z.int(), epoch: z.int(), row: z.string(), column: z.string() });
const SPEED = {
  look: method(Row, z.object({ version: z.int(), size: z.int() })),
  take: method(z.object({ row: z.string() }), z.object({ size: z.int() })),
};
const IDENTITY = { secret: "speed", clusterName: "speed", onError: console.error };

const seconds = Number(Deno.args[0] ?? 2);

if (Deno.args[0] === "serve") {
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
} else {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", import.meta.filename!, "serve"],
    stdout: "piped",
  }).spawn();
  const { value } = await child.stdout.pipeThrough(new TextDecoderStream()).getReader().read();
  const port = Number(value);
  const connection = await connectRpc({ ...IDENTITY, hostname: "127.0.0.1", port, name: "client" });
  const cases: Record<string, unknown>[] = [];
  const look = (n: number) =>
    connection.call(SPEED, "look", { group: 3, epoch: n, row: `user-${n}`, column: "mail/inbox" });
  for (const outstanding of [1, 64, 512]) cases.push(await measure("look", outstanding, look));
  for (const mib of [1, 4]) {
    const payload = new Uint8Array(mib * 1024 * 1024);
    const take = () => connection.call(SPEED, "take", { row: "file" }, payload);
    cases.push(await measure("take", 4, take, payload.length));
  }
  console.log(JSON.stringify(cases));
  connection.close();
  child.kill("SIGTERM");
  await child.status;
}

async function measure(
  name: string,
  outstanding: number,
  call: (n: number) => ReturnType<RpcConnection["call"]>,
  bytes = 0,
): Promise<Record<string, unknown>> {
  const run = async (ms: number) => {
    const latenciesMs: number[] = [], endMs = performance.now() + ms;
    const worker = async () => {
      for (let now = performance.now(); now < endMs;) {
        await call(latenciesMs.length);
        const then = now;
        now = performance.now();
        latenciesMs.push(now - then);
      }
    };
    await Promise.all(Array.from({ length: outstanding }, worker));
    return latenciesMs.sort((a, b) => a - b);
  };
  await run(500);
  const latenciesMs = await run(seconds * 1000);
  const at = (share: number) => latenciesMs[Math.floor(share * (latenciesMs.length - 1))]!;
  const perSecond = latenciesMs.length / seconds;
  const result = { name, outstanding, bytes, perSecond, p50Ms: at(0.5), p99Ms: at(0.99) };
  const volume = bytes === 0 ? "" : `, ${Math.round(perSecond * bytes / 2 ** 20)} MiB/s`;
  console.log(
    `${name}, ${outstanding} outstanding: ${Math.round(perSecond)} calls/s${volume}, ` +
      `p50 ${at(0.5).toFixed(3)} ms, p99 ${at(0.99).toFixed(3)} ms`,
  );
  return result;
}
