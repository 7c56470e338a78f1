/** The bench as a whole, with runs of a moment: what it says, not how fast anything is. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { REPOSITORY } from "./harness.ts";

async function runBench(...args: readonly string[]) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--quiet", join(REPOSITORY, "bench/bench.ts"), ...args],
    env: { NO_COLOR: "1" },
  }).output();
  const [text, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, text: text!, errors: errors! };
}

Deno.test("bench without a name lists what there is", async () => {
  const { code, text } = await runBench();
  assert.equal(code, 0);
  for (const name of ["put", "get", "cput", "mixed95", "scan", "rpc"]) {
    assert.match(text, new RegExp(`^  ${name} .*\\w`, "m"));
  }
});

Deno.test("bench of an unknown name or with a wrong flag ends with 2 and a sentence", async () => {
  const unknown = await runBench("putt");
  assert.equal(unknown.code, 2);
  assert.match(unknown.errors, /There is no bench "putt"; there are put, get/);
  assert.equal((await runBench("put", "--outstanding", "many")).code, 2);
});

for (const workload of ["put", "cput", "scan"]) {
  Deno.test(`bench ${workload} measures PennCloud and the peers that are installed`, async () => {
    const tiny = ["--outstanding=4", "--seconds=1", "--rounds=1", "--keys=200"];
    const { code, text, errors } = await runBench(workload, ...tiny, "--json");
    assert.equal(code, 0, errors);
    const result = JSON.parse(text.trim().split("\n").at(-1)!);
    assert.equal(result.bench, workload);
    for (const peer of ["etcd", "redis"]) {
      // Either it took part or the bench says why it did not.
      const leftOut = result.notes.some((note: string) => note.startsWith(`left out: ${peer}, `));
      assert.equal(peer in result.ratio, !leftOut, errors);
    }
    for (const row of result.rows) {
      assert.ok(row.rate.median > 0 && row.maxMs >= row.p50Ms, JSON.stringify(row));
      assert.ok(row.peakBytes > 0 && row.clientCores >= 0, JSON.stringify(row));
    }
    assert.ok(result.rows.some((row: { system: string }) => row.system === "penncloud"));
  });
}

Deno.test("bench with several client processes and large values", async () => {
  const flags = ["--value=1m", "--outstanding=3", "--clients=2", "--seconds=1", "--rounds=2"];
  const { code, text, errors } = await runBench("put", ...flags, "--against=none", "--json");
  assert.equal(code, 0, errors);
  const [row] = JSON.parse(text.trim().split("\n").at(-1)!).rows;
  assert.equal(row.unit, "MB/s");
  assert.ok(row.rate.min <= row.rate.median && row.rate.median <= row.rate.max);
});

for (
  const [name, flags] of [
    ["upload", ["--size=5m"]],
    ["download", ["--size=5m"]],
    ["mailbox", ["--count=3", "--outstanding=2", "--value=1k"]],
    ["pages", ["--count=20", "--outstanding=2"]],
    ["budget", ["--outstanding=4", "--keys=100", "--profile"]],
    ["failover", ["--outstanding=4"]],
    ["scaling-tablets", ["--outstanding=4", "--count=9", "--keys=50"]],
    ["scaling-backends", ["--outstanding=4", "--count=3", "--keys=50"]],
  ] as const
) {
  Deno.test(`bench ${name} runs to its end and reports`, async () => {
    await using plots = await temporaryFolder();
    const tiny = ["--seconds=1", "--rounds=1", "--against=none", "--json"];
    const { code, text, errors } = await runBench(name, ...flags, ...tiny, "--plots", plots.path);
    assert.equal(code, 0, errors);
    const { rows, plots: files } = JSON.parse(text.trim().split("\n").at(-1)!);
    assert.equal(files.length, name.startsWith("scaling") ? 2 : 0);
    for (const file of files) assert.match(await Deno.readTextFile(file), /^<svg [^]*<\/svg>\n$/);
    assert.ok(rows.length > 0, errors);
    for (const row of rows) assert.ok(row.rate.median > 0, JSON.stringify(row));
  });
}

async function temporaryFolder() {
  const path = await Deno.makeTempDir();
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
