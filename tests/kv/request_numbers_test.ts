import assert from "node:assert/strict";
import { OUTSTANDING_MAX } from "../../kv/completions.ts";
import { RequestNumbers } from "../../kv/request_numbers.ts";

const NEVER = () => new Promise<void>(() => {});

Deno.test("RequestNumbers ascend, and say which is the lowest without an answer", async () => {
  const numbers = new RequestNumbers();
  assert.deepEqual(await numbers.take(NEVER), { seq: 1, firstIncomplete: 1 });
  assert.deepEqual(await numbers.take(NEVER), { seq: 2, firstIncomplete: 1 });
  numbers.release(1);
  assert.deepEqual(await numbers.take(NEVER), { seq: 3, firstIncomplete: 2 });
});

Deno.test("RequestNumbers never lie further apart than a group remembers outcomes", async () => {
  const numbers = new RequestNumbers();
  await numbers.take(NEVER); // It waits for a failover while others pass it by.
  for (let i = 1; i < OUTSTANDING_MAX; i++) numbers.release((await numbers.take(NEVER)).seq);
  const order: number[] = [];
  const waiting = Array.from({ length: 3 }, async () => {
    const { seq, firstIncomplete } = await numbers.take(NEVER);
    order.push(seq);
    assert.ok(seq - firstIncomplete < OUTSTANDING_MAX);
  });
  await Promise.resolve();
  assert.deepEqual(order, [], "no room until the first is answered");
  numbers.release(1);
  await Promise.all(waiting);
  assert.deepEqual(order, [1, 2, 3].map((n) => OUTSTANDING_MAX + n));
});

Deno.test("RequestNumbers refuse whoever has waited too long, and leave no gap", async () => {
  const numbers = new RequestNumbers();
  await numbers.take(NEVER);
  for (let i = 1; i < OUTSTANDING_MAX; i++) numbers.release((await numbers.take(NEVER)).seq);
  await assert.rejects(numbers.take(() => Promise.resolve()), { code: "unavailable" });
  const reason = new Error("the caller left");
  await assert.rejects(numbers.take(() => Promise.reject(reason)), reason);
  numbers.release(1);
  assert.equal((await numbers.take(NEVER)).seq, OUTSTANDING_MAX + 1);
});
