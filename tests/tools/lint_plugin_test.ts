/** The house rules report what they should and leave the rest alone. */
import assert from "node:assert/strict";
import plugin from "../../tools/lint_plugin.ts";

const messages = (path: string, source: string): string[] =>
  Deno.lint.runPlugin(plugin, path, source).map((diagnostic) => diagnostic.message);

Deno.test("kv/ and apps/ may not read a clock, roll a die or set a timer", () => {
  const source = `
    Date.now(); Math.random(); performance.now(); crypto.randomUUID(); new Date();
    setTimeout(() => {}, 1); Deno.readTextFile("x");`;
  for (const path of ["/repo/kv/tablet.ts", "/repo/apps/mail/outbox.ts"]) {
    assert.equal(messages(path, source).length, 7, path);
  }
});

Deno.test("roles/, kv/disk/ and tests may", () => {
  const source = `Date.now(); Deno.openSync("x"); setTimeout(() => {}, 1);`;
  for (const path of ["/repo/roles/env.ts", "/repo/kv/disk/wal.ts", "/repo/tests/kv/x_test.ts"]) {
    assert.deepEqual(messages(path, source), [], path);
  }
});

Deno.test("words that only look alike are left alone", () => {
  assert.deepEqual(
    messages("/repo/kv/tablet.ts", `new Date(0); env.random(); this.now(); Math.max(1, 2);`),
    [],
  );
});

Deno.test("imports point from main and roles down to proto", () => {
  const upward = `import { x } from "../roles/env.ts";`;
  assert.deepEqual(messages("/repo/kv/client.ts", upward), ["kv/ must not import from roles/"]);
  assert.deepEqual(messages("/repo/proto/rpc.ts", `import { x } from "../kv/kv.ts";`), [
    "proto/ must not import from kv/",
  ]);
  const downward = `import { x } from "../../kv/kv.ts"; import { y } from "./keys.ts";`;
  assert.deepEqual(messages("/repo/apps/mail/outbox.ts", downward), []);
});

Deno.test("only tests turn a deliberate bug on", () => {
  const forbidden = [
    `import { armMutant } from "./mutant.ts";`,
    `import { armMutant as x } from "./mutant.ts";`,
    `import * as mutants from "../kv/mutant.ts";`,
    `import all from "../kv/mutant.ts";`,
    `await import("../kv/mutant.ts");`,
    `export { armMutant } from "../kv/mutant.ts";`,
    `export * from "../kv/mutant.ts";`,
  ];
  for (const source of forbidden) {
    assert.equal(messages("/repo/kv/replica.ts", source).length, 1, source);
    assert.deepEqual(messages("/repo/tests/sim/run.ts", source), [], source);
  }
  const allowed =
    `import { mutated, type MutantName } from "../kv/mutant.ts"; mutated("no-lease");`;
  assert.deepEqual(messages("/repo/roles/backend_group.ts", allowed), []);
});
