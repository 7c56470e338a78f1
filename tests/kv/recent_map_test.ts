import assert from "node:assert/strict";
import fc from "fast-check";
import { RecentMap } from "../../kv/recent_map.ts";

/** Takes all there is, in the order in which it goes. */
function emptied<V>(map: RecentMap<V>): V[] {
  const taken: V[] = [];
  for (let value; (value = map.takeOldest()) !== undefined;) taken.push(value);
  return taken;
}

function mapOf(keys: readonly string[]): RecentMap<string> {
  const map = new RecentMap<string>();
  for (const key of keys) map.set(key, key);
  return map;
}

Deno.test("RecentMap gives entries back in the order in which they came", () => {
  const map = mapOf(["a", "b", "c"]);
  map.set("a", "a2");
  assert.deepEqual(emptied(map), ["a2", "b", "c"]);
  assert.equal(map.size, 0);
});

Deno.test("RecentMap lets an entry that was asked for stay once more", () => {
  const map = mapOf(["a", "b", "c"]);
  map.get("a");
  assert.equal(map.takeOldest(), "b");
  assert.equal(map.takeOldest(), "c");
  map.set("d", "d");
  assert.deepEqual(emptied(map), ["a", "d"]);
});

Deno.test("RecentMap gives something even when everything was asked for", () => {
  const keys = Array.from({ length: 1000 }, (_, n) => `${n}`), map = mapOf(keys);
  for (const key of keys) map.get(key);
  assert.notEqual(map.takeOldest(), undefined);
  assert.equal(map.size, 999);
});

Deno.test("RecentMap goes on where it was, whatever comes and goes meanwhile", () => {
  const map = mapOf(["a", "b", "c"]);
  assert.equal(map.takeOldest(), "a");
  assert.equal(map.delete("b"), "b");
  assert.equal(map.delete("b"), undefined);
  assert.deepEqual(emptied(map), ["c"]);
  // It has come to its end once.
  map.set("d", "d");
  map.set("e", "e");
  assert.deepEqual(emptied(map), ["d", "e"]);
});

Deno.test("RecentMap holds what a map holds, less what it gave away", () => {
  const key = fc.integer({ min: 0, max: 20 }).map(String);
  const step = fc.oneof(
    fc.record({ what: fc.constant("set" as const), key }),
    fc.record({ what: fc.constant("get" as const), key }),
    fc.record({ what: fc.constant("delete" as const), key }),
    fc.record({ what: fc.constant("take" as const), key }),
  );
  fc.assert(fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
    const map = new RecentMap<string>(), model = new Map<string, string>();
    for (const [at, { what, key }] of steps.entries()) {
      const value = `${key} ${at}`;
      if (what === "set") {
        map.set(key, value);
        model.set(key, value);
      } else if (what === "get") {
        assert.equal(map.get(key), model.get(key));
      } else if (what === "delete") {
        assert.equal(map.delete(key), model.get(key));
        model.delete(key);
      } else {
        const taken = map.takeOldest();
        assert.equal(taken === undefined, model.size === 0);
        const [held] = (taken ?? "").split(" ");
        if (taken === undefined) continue;
        assert.equal(model.get(held!), taken);
        model.delete(held!);
      }
      assert.equal(map.size, model.size);
      assert.deepEqual([...map.keys()].sort(), [...model.keys()].sort());
    }
  }));
});
