import assert from "node:assert/strict";
import { FATAL_EXIT_STATUS, realEnv } from "../../roles/env.ts";
import { openLog } from "../../roles/log.ts";

Deno.test("a log line is one JSON object with time, level, node, event and the fields", () => {
  const lines: string[] = [];
  const log = openLog({ node: "backend/4", threshold: "info", write: (line) => lines.push(line) });
  log("info", "ready", { port: 10004, note: "two\nlines", node: "forged", ready: true });
  assert.equal(lines.length, 1);
  assert.match(lines[0]!, /^[^\n]*\n$/);
  const { time, ...rest } = JSON.parse(lines[0]!);
  assert.match(time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  assert.deepEqual(rest, {
    level: "info",
    node: "backend/4",
    event: "ready",
    port: 10004,
    note: "two\nlines",
    ready: true,
  });
});

Deno.test("PENNCLOUD_LOG sets the least level; an unknown one means info", () => {
  const written = (threshold: string) => {
    const levels: string[] = [];
    const log = openLog({
      node: "x",
      threshold,
      write: (line) => levels.push(JSON.parse(line).level),
    });
    for (const level of ["debug", "info", "warning", "error"] as const) log(level, "event");
    return levels.join(" ");
  };
  assert.equal(written("debug"), "debug info warning error");
  assert.equal(written("warning"), "warning error");
  assert.equal(written("off"), "");
  assert.equal(written("loud"), "info warning error");
});

Deno.test("a field of any length makes a line of bounded length", () => {
  let length = 0;
  const log = openLog({ node: "x", threshold: "info", write: (line) => length = line.length });
  log("error", "event", { error: "x".repeat(1_000_000) });
  assert.ok(length < 5000);
});

Deno.test("realEnv: sleep ends after its time or with the signal's reason", async () => {
  const env = realEnv({ node: "x", log: () => {} });
  const startMs = env.monotonicMs();
  await env.sleep(20);
  assert.ok(env.monotonicMs() - startMs >= 19);
  const abort = new AbortController();
  const sleep = env.sleep(60_000, abort.signal);
  abort.abort(new Error("enough"));
  await assert.rejects(sleep, /enough/);
  await assert.rejects(env.sleep(1, abort.signal), /enough/);
});

Deno.test("realEnv: a timer can be taken back, and a very long one does not fire at once", async () => {
  const env = realEnv({ node: "x", log: () => {} });
  let fired = 0;
  const cancel = env.timer(1, () => fired++);
  cancel();
  const cancelLong = env.timer(2 ** 40, () => fired++);
  await env.sleep(20);
  cancelLong();
  assert.equal(fired, 0);
});

Deno.test("realEnv: secretBytes gives as many as asked, above what the system gives at once", () => {
  const bytes = realEnv({ node: "x", log: () => {} }).secretBytes(100_000);
  assert.equal(bytes.length, 100_000);
  assert.ok(bytes.subarray(99_000).some((byte) => byte !== 0));
});

Deno.test("realEnv: fatal logs the error and ends the process with 70", async () => {
  const module = new URL("../../roles/env.ts", import.meta.url).href;
  const script = `import { realEnv } from "${module}";
    realEnv({ node: "backend/4" }).fatal(new Error("commit fell"));`;
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--no-check", script],
    env: { PENNCLOUD_LOG: "error" },
  }).output();
  assert.equal(code, FATAL_EXIT_STATUS);
  const line = JSON.parse(new TextDecoder().decode(stderr).trim());
  assert.deepEqual([line.level, line.node, line.event], ["error", "backend/4", "fatal"]);
  assert.match(line.error, /commit fell/);
});
