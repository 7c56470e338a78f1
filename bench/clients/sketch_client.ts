/** A client of the sketch: newline JSON, the requests of one turn in one write. */
import { z } from "zod";
import { eachRead, writeAll } from "../systems/sketch_node.ts";
import type { StoreClient } from "./store_client.ts";

const Answer = z.object({
  id: z.int(),
  ok: z.literal(true).optional(),
  value: z.string().nullable().optional(),
});
/** A character for each byte. */
const decoder = new TextDecoder("latin1");

export async function connectSketch(port: number): Promise<StoreClient> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  conn.setNoDelay(true);
  const waiting = new Map<number, (answer: z.infer<typeof Answer>) => void>();
  let outgoing = "", lastId = 0;
  void eachRead(conn, (lines) => {
    for (const line of lines) {
      const answer = Answer.parse(JSON.parse(line));
      waiting.get(answer.id)!(answer);
      waiting.delete(answer.id);
    }
  }).catch(() => {});
  const call = (request: object) => {
    const { promise, resolve } = Promise.withResolvers<z.infer<typeof Answer>>();
    const id = ++lastId;
    waiting.set(id, resolve);
    if (outgoing === "") queueMicrotask(send);
    outgoing += `${JSON.stringify({ ...request, id })}\n`;
    return promise;
  };
  const send = () => {
    void writeAll(conn, outgoing);
    outgoing = "";
  };
  const notKnown = () => Promise.reject(new Error("The sketch knows only put and get"));
  return {
    async put(key, value) {
      await call({ k: "put", key, value: decoder.decode(value) });
    },
    async get(key) {
      return (await call({ k: "get", key })).value?.length ?? null;
    },
    compareAndPut: notKnown,
    scan: notKnown,
    close: () => conn.close(),
  };
}
