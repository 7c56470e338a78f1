/**
 * A supervised node's life: restarts with back-off, ends on purpose, and the lifeline.
 *
 * Real child processes stand in for nodes: small scripts that obey, crash, or ignore everything.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { NodeEntry } from "../../proto/cluster_config.ts";
import { type ExitReport, SupervisedNode } from "../../roles/supervised_node.ts";
import { complaintIn } from "../../roles/supervisor_log.ts";
import { eventually } from "../eventually.ts";

const NODE: NodeEntry = { role: "backend", id: 3, host: "127.0.0.1", port: 10_003, zone: "" };
/** Stops when its standard input ends, as every node does. */
const OBEDIENT = `console.log("up"); for await (const _ of Deno.stdin.readable); Deno.exit(0);`;
const CRASHING = `console.error("one moment\\npenncloud: no disk\\n  at x"); Deno.exit(7);`;
const STUBBORN = `Deno.addSignalListener("SIGTERM", () => {}); setInterval(() => {}, 1000);`;

interface Fixture {
  readonly node: SupervisedNode;
  readonly exits: ExitReport[];
  readonly goneSpawns: string[];
  readonly startedSpawns: (string | null)[];
  readonly logPath: string;
}

async function withNode(
  script: string,
  body: (fixture: Fixture) => Promise<void>,
  healthyAfterMs?: number,
): Promise<void> {
  const dir = await Deno.makeTempDir();
  const logPath = join(dir, "logs", "node.log");
  const exits: ExitReport[] = [], goneSpawns: string[] = [];
  const startedSpawns: (string | null)[] = [];
  const node = new SupervisedNode({
    node: NODE,
    command: { program: Deno.execPath(), args: ["eval", script], env: { NO_COLOR: "1" } },
    logPath,
    ...(healthyAfterMs === undefined ? {} : { healthyAfterMs }),
    onStarting: (node) => startedSpawns.push(node.describe().spawn),
    onGone: ({ spawn }) => goneSpawns.push(spawn),
    onExit: (report) => exits.push(report),
  });
  try {
    await body({ node, exits, goneSpawns, startedSpawns, logPath });
  } finally {
    await node.kill();
    node.close();
    await Deno.remove(dir, { recursive: true });
  }
}

const isAlive = (pid: number): boolean => {
  try {
    return !Deno.readTextFileSync(`/proc/${pid}/stat`).includes(") Z ");
  } catch {
    return false;
  }
};

Deno.test("a child that crashes is started again, each time after twice as long", () =>
  withNode(CRASHING, async ({ node, exits, goneSpawns, startedSpawns }) => {
    node.start();
    await eventually(() => exits.length >= 3, "three crashes");
    const ended = goneSpawns.length;
    assert.deepEqual(startedSpawns.slice(0, ended), goneSpawns, "each start was told of as such");
    assert.deepEqual(exits.slice(0, 3).map((exit) => exit.restartInMs), [200, 400, 800]);
    assert.equal(exits[0]!.exit, "exited with code 7");
    assert.equal(exits[0]!.crashed, true);
    assert.ok(node.describe().restarts >= 2);
    assert.equal(new Set(goneSpawns).size, goneSpawns.length, "every life has an id of its own");
  }));

Deno.test("a child that crashes after it had lived for long enough is started again at once", () =>
  withNode(
    CRASHING,
    async ({ node, exits }) => {
      node.start();
      await eventually(() => exits.length >= 3, "three crashes");
      assert.deepEqual(exits.slice(0, 3).map((exit) => exit.restartInMs), [200, 200, 200]);
    },
    1,
  ));

Deno.test("a crash is reported with the child's last words, which are also in its log", () =>
  withNode(CRASHING, async ({ node, exits, logPath }) => {
    node.start();
    await eventually(() => exits.length > 0, "a crash");
    assert.equal(exits[0]!.reason, "no disk");
    assert.match(await Deno.readTextFile(logPath), /one moment\npenncloud: no disk\n/);
  }));

Deno.test("a child that was killed on purpose stays down until it is restarted", () =>
  withNode(OBEDIENT, async ({ node, exits }) => {
    node.start();
    const { pid, spawn } = node.describe();
    await node.kill();
    assert.equal(isAlive(pid!), false);
    assert.deepEqual(exits.map(({ exit, restartInMs }) => ({ exit, restartInMs })), [
      { exit: "killed by SIGKILL", restartInMs: null },
    ]);
    assert.equal(node.describe().state, "stopped");
    assert.equal(node.describe().pid, null);
    await node.restart();
    assert.equal(node.describe().state, "starting");
    assert.notEqual(node.describe().spawn, spawn);
  }));

Deno.test("a child that dies by another hand is started again", () =>
  withNode(OBEDIENT, async ({ node, exits }) => {
    node.start();
    const { pid } = node.describe();
    Deno.kill(pid!, "SIGKILL");
    await eventually(() => exits.length === 1, "its end");
    assert.equal(exits[0]!.crashed, true);
    await eventually(() => node.describe().pid !== null, "its return");
    assert.notEqual(node.describe().pid, pid);
  }));

Deno.test("shutDown() closes the lifeline and waits for the child to end by itself", () =>
  withNode(OBEDIENT, async ({ node, exits }) => {
    node.start();
    await node.shutDown();
    assert.equal(exits[0]!.exit, "exited with code 0");
  }));

Deno.test("shutDown() kills a child that does not listen, after the grace time", () =>
  withNode(STUBBORN, async ({ node, exits }) => {
    node.start();
    await node.shutDown(300);
    assert.equal(exits[0]!.exit, "killed by SIGKILL");
  }));

Deno.test("drain() sends SIGTERM, and the child stays down when it has ended", () =>
  withNode(
    `Deno.addSignalListener("SIGTERM", () => Deno.exit(0)); console.log("up"); setInterval(() => {}, 1000);`,
    async ({ node, exits, logPath }) => {
      node.start();
      await eventually(() => fileHas(logPath, "up"), "the child's first line");
      node.drain();
      assert.equal(node.describe().state, "draining");
      await eventually(() => exits.length === 1, "its end");
      assert.equal(node.describe().state, "stopped");
      assert.equal(exits[0]!.restartInMs, null);
    },
  ));

Deno.test("a program that does not exist counts as a crash and is tried again", async () => {
  const exits: ExitReport[] = [];
  const dir = await Deno.makeTempDir();
  const node = new SupervisedNode({
    node: NODE,
    command: { program: join(dir, "no-such-program"), args: [], env: {} },
    logPath: join(dir, "node.log"),
    onGone: () => {},
    onExit: (report) => exits.push(report),
  });
  node.start();
  await eventually(() => exits.length >= 2, "two attempts");
  assert.match(exits[0]!.exit, /^could not be started: /);
  await node.kill();
  node.close();
  await Deno.remove(dir, { recursive: true });
});

const fileHas = (path: string, text: string): boolean => {
  try {
    return Deno.readTextFileSync(path).includes(text);
  } catch {
    return false;
  }
};

Deno.test("complaintIn() finds the reason of an end in what processes write", () => {
  assert.equal(
    complaintIn(`error: Uncaught (in promise) TypeError: Module not found "x.ts".`),
    `TypeError: Module not found "x.ts".`,
  );
  assert.equal(
    complaintIn(`{"level":"error","event":"fatal","error":"InvariantViolation: I3\\n  at step"}`),
    "fatal: InvariantViolation: I3",
  );
  assert.equal(complaintIn(`{"level":"info","event":"ready"}`), null);
  assert.equal(complaintIn(`{"level":"error","ev`), null);
  assert.equal(complaintIn("    at async main.ts:3:1"), null);
});
