/**
 * A client process of the bench: connects to one store and does what it is told (load_orders.ts).
 *
 * The load has processes of its own so that its work is told from the servers' and from the bench's,
 * and so that there can be several of them.
 */
import { connectEtcd } from "../clients/etcd_client.ts";
import { connectPennCloud } from "../clients/penncloud_client.ts";
import { connectRedis } from "../clients/redis_client.ts";
import { connectSketch } from "../clients/sketch_client.ts";
import type { StoreClient, StoreTarget } from "../clients/store_client.ts";
import { closedLoop } from "./closed_loop.ts";
import { fillKeys, kvOperation } from "./kv_workload.ts";
import type { LoadAnswer, LoadOrder } from "./load_orders.ts";

let client: StoreClient | null = null;

async function obey(order: LoadOrder): Promise<LoadAnswer> {
  if (order.order === "connect") {
    client = await connect(order.target);
    return { ok: true };
  }
  if (client === null) throw new Error("Not connected to a store yet");
  if (order.order === "fill") {
    await fillKeys(client, order);
    return { ok: true };
  }
  const { load, seconds } = order;
  const result = await closedLoop(kvOperation(client, load), {
    outstanding: load.outstanding,
    seconds,
  });
  return { ok: true, run: { latencies: result.latencies.parts(), seconds: result.seconds } };
}

function connect(target: StoreTarget): Promise<StoreClient> {
  switch (target.system) {
    case "penncloud":
      return connectPennCloud(target);
    case "etcd":
      return connectEtcd(target.ports);
    case "redis":
      return connectRedis(target.port);
    case "sketch":
      return connectSketch(target.port);
  }
}

let rest = "";
for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + text).split("\n");
  rest = lines.pop()!;
  for (const line of lines) {
    const answer = await obey(JSON.parse(line)).catch((error): LoadAnswer => {
      return { ok: false, error: error instanceof Error ? error.message : String(error) };
    });
    console.log(JSON.stringify(answer));
  }
}
Deno.exit(0);
