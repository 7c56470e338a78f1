import assert from "node:assert/strict";
import { readOptions, UsageError } from "../../bench/options.ts";

Deno.test("flags: lists, units and defaults are read", () => {
  const { name, options } = readOptions([
    "put",
    "--against",
    "redis",
    "--outstanding",
    "1,16",
    "--value=100,64k,1m",
    "--seconds=0.5",
    "--idle=60",
    "--json",
  ]);
  assert.equal(name, "put");
  assert.deepEqual(options.against, ["redis"]);
  assert.deepEqual(options.outstanding, [1, 16]);
  assert.deepEqual(options.valueBytes, [100, 65_536, 1_048_576]);
  assert.equal(options.seconds, 0.5);
  assert.equal(options.idleWaitMs, 60_000);
  assert.equal(options.json, true);
  assert.deepEqual([options.rounds, options.keyCount, options.checkClient], [3, null, true]);
});

Deno.test("without a name there is none, and peers can be left out", () => {
  assert.equal(readOptions([]).name, null);
  assert.deepEqual(readOptions(["put", "--against=none"]).options.against, []);
});

Deno.test("wrong use is told in one sentence that says what is expected", () => {
  const cases: readonly [args: string[], message: RegExp][] = [
    [["put", "get"], /One bench at a time/],
    [["put", "--against=mysql"], /etcd, redis, sketch or none, not "mysql"/],
    [["put", "--outstanding=0"], /whole numbers from 1 on, not "0"/],
    [["put", "--outstanding=1,,2"], /whole numbers from 1 on, not ""/],
    [["put", "--value=1t"], /as in 100, 64k or 1m, not "1t"/],
    [["put", "--value=0"], /takes bytes/],
    [["put", "--seconds=-1"], /above 0, not "-1"/],
    [["put", "--groups=two"], /all or one, not "two"/],
    [["put", "--loud"], /--loud/],
  ];
  for (const [args, message] of cases) {
    assert.throws(() => readOptions(args), (error) => {
      assert.ok(error instanceof UsageError, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
});
