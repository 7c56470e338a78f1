/**
 * `penncloud up` as people meet it: real processes, a household cluster, real signals.
 *
 * One cluster serves most tests, one after the other; those that end it come last.
 */
import assert from "node:assert/strict";
import { decodeText, put } from "../../kv/kv.ts";
import { eventually } from "../eventually.ts";
import {
  PENNCLOUD,
  processesOf,
  REPOSITORY,
  runPenncloud,
  startCluster,
  type TestCluster,
} from "./harness.ts";

Deno.test("penncloud up, from the first start to the last signal", async (t) => {
  const dir = await Deno.makeTempDir({ prefix: "penncloud-up-" });
  try {
    const cluster = await startCluster({ dir });
    try {
      await firstStart(t, cluster);
      await commandLine(t, cluster);
      await supervision(t, cluster);
    } finally {
      await cluster.stop();
    }
    await secondStart(t, dir, cluster.portOffset);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

async function firstStart(t: Deno.TestContext, cluster: TestCluster): Promise<void> {
  await t.step("it says what it does, ends with ready and a URL, and shows a password once", () => {
    const events = cluster.events.map((event) => event.event);
    assert.equal(events[0], "starting");
    assert.equal(events.filter((event) => event === "node-ready").length, 7);
    assert.deepEqual(events.slice(-3), ["nodes", "admin", "ready"]);
    assert.match(cluster.adminPassword ?? "", /^[a-z2-9-]{20}$/);
    assert.equal(cluster.events.at(-1)!.url, cluster.baseUrl);
  });

  await t.step("the admin's password works at the front door", async () => {
    const response = await fetch(`${cluster.opsUrl("frontend/0")}/api/v1/session`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ username: "admin", password: cluster.adminPassword }),
    });
    assert.equal(response.status, 200);
    assert.equal((await response.json()).admin, true);
  });

  await t.step("a second `up` on the same folder is refused with the process id", async () => {
    const again = await cluster.penncloud(["up"]);
    assert.equal(again.code, 2);
    assert.match(
      again.stderr,
      new RegExp(`in use by a running .penncloud up. \\(process ${cluster.pid}\\)`),
    );
  });

  await t.step("an `up` on taken ports names port and node, and says what to do", async () => {
    const other = await Deno.makeTempDir();
    try {
      const result = await runPenncloud([
        "up",
        "--config",
        cluster.configFile,
        "--data",
        other,
        "--port-offset",
        String(cluster.portOffset),
      ]);
      assert.equal(result.code, 2);
      const { port } = cluster.node("backend/1");
      assert.match(
        result.stderr,
        new RegExp(`Port ${port} is taken by another program; backend/1 needs it`),
      );
      assert.match(result.stderr, /--port-offset/);
    } finally {
      await Deno.remove(other, { recursive: true });
    }
  });
}

async function commandLine(t: Deno.TestContext, cluster: TestCluster): Promise<void> {
  const kv = (...args: string[]) => cluster.penncloud(["kv", ...args]);

  await t.step("kv put, get, cput, delete and scan keep their exit statuses", async () => {
    assert.equal((await kv("put", "cli", "a", "one")).code, 0);
    const got = await kv("get", "cli", "a");
    assert.deepEqual([got.code, got.stdout], [0, "one"]);
    assert.equal((await kv("get", "cli", "nothing")).code, 1);
    assert.equal((await kv("cput", "cli", "a", "one", "two")).code, 0);
    const refused = await kv("cput", "cli", "a", "one", "three");
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /^Not applied: the value is another one now/);
    assert.equal((await kv("cput", "--absent", "cli", "b", "new")).code, 0);
    const scanned = JSON.parse((await kv("scan", "cli", "--json")).stdout);
    assert.deepEqual(
      scanned.cells.map((cell: { column: string; value: string }) => [cell.column, cell.value]),
      [["a", "two"], ["b", "new"]],
    );
    assert.equal((await kv("delete", "cli", "b")).code, 0);
    assert.equal((await kv("delete", "cli", "b")).code, 1);
    assert.equal((await kv("put", "", "a", "x")).code, 2);
  });

  await t.step("kv put --file and get carry any bytes", async () => {
    const file = await Deno.makeTempFile();
    try {
      const bytes = crypto.getRandomValues(new Uint8Array(60_000));
      await Deno.writeFile(file, bytes);
      assert.equal((await kv("put", "cli", "file", "--file", file)).code, 0);
      const found = await cluster.kv.get("cli", "file");
      assert.deepEqual(found?.value, bytes);
    } finally {
      await Deno.remove(file);
    }
  });

  await t.step("admin status finds every node live and every tablet healthy", async () => {
    await eventually(
      async () => {
        const { stdout } = await cluster.penncloud(["admin", "status", "--json"]);
        const { nodes, tablets } = JSON.parse(stdout);
        return nodes.length === 7 && tablets.length === 3 &&
          nodes.every((node: { state: string }) => node.state === "live") &&
          tablets.every((tablet: { state: string }) => tablet.state === "healthy");
      },
      "a healthy cluster",
      { everyMs: 300 },
    );
    await eventually(
      async () => {
        const { stdout } = await cluster.penncloud(["admin", "status"]);
        return /7 of 7 nodes live, 3 of 3 tablets healthy/.test(stdout);
      },
      "the same in words",
      { everyMs: 300 },
    );
  });

  await t.step(
    "admin rows shows what a backend holds; verify finds the replicas equal",
    async () => {
      const rows = await cluster.penncloud([
        "admin",
        "rows",
        "backend/0",
        "--start",
        "cli",
        "--json",
      ]);
      assert.equal(JSON.parse(rows.stdout).cells[0].row, "cli");
      const wrong = await cluster.penncloud(["admin", "rows", "frontend/0"]);
      assert.equal(wrong.code, 2);
      await eventually(
        async () => (await cluster.penncloud(["admin", "verify"])).code === 0,
        "all replicas to be equal",
        { everyMs: 300 },
      );
    },
  );

  await t.step("user add, list, passwd and admin go through the accounts' rules", async () => {
    const user = (args: string[], input: string) =>
      cluster.penncloud(["user", ...args, "--password-stdin"], input);
    assert.equal((await user(["add", "carol"], "a decent password\n")).code, 0);
    assert.equal((await user(["add", "carol"], "a decent password\n")).code, 1);
    assert.equal((await user(["add", "dave"], "short\n")).code, 2);
    assert.equal((await user(["passwd", "carol"], "another fine password\n")).code, 0);
    assert.equal((await user(["passwd", "nobody"], "another fine password\n")).code, 1);
    assert.equal((await cluster.penncloud(["user", "admin", "carol"])).code, 0);
    const { stdout } = await cluster.penncloud(["user", "list", "--json"]);
    const names = JSON.parse(stdout).map((
      it: { username: string; admin: boolean },
    ) => [it.username, it.admin]);
    assert.deepEqual(names, [["admin", true], ["carol", true]]);
  });
}

async function supervision(t: Deno.TestContext, cluster: TestCluster): Promise<void> {
  await t.step("a node that dies by kill -9 is started again and serves", async () => {
    const before = await cluster.pidOf("backend/1");
    await cluster.crash("backend/1");
    await cluster.waitReady("backend/1");
    assert.notEqual(await cluster.pidOf("backend/1"), before);
    assert.equal((await cluster.process("backend/1")).restarts, 1);
  });

  await t.step("admin kill ends a node for good, and writes go on", async () => {
    const { port } = cluster.node("backend/2");
    const killed = await cluster.penncloud(["admin", "kill", String(port)]);
    assert.equal(killed.code, 0);
    assert.equal((await cluster.process("backend/2")).state, "stopped");
    for (const row of ["aaa", "kkk", "zzz"]) await put(cluster.kv, row, "column", "while killed");
    assert.equal((await cluster.process("backend/2")).pid, null);
  });

  await t.step("admin restart brings it back", async () => {
    assert.equal((await cluster.penncloud(["admin", "restart", "backend/2"])).code, 0);
    await cluster.waitReady("backend/2");
  });

  await t.step("admin drain lets a node stop by itself, and it stays down", async () => {
    const drained = await cluster.penncloud(["admin", "drain", "frontend/0", "--json"]);
    assert.equal(drained.code, 0);
    assert.deepEqual(
      [JSON.parse(drained.stdout).state, JSON.parse(drained.stdout).lastExit],
      ["stopped", "exited with code 0"],
    );
    await cluster.restart("frontend/0");
    await cluster.waitReady("frontend/0");
  });
}

async function secondStart(t: Deno.TestContext, dir: string, offset: number): Promise<void> {
  await t.step(
    "a second `up` on the same folder finds all data and shows no password",
    async () => {
      await using cluster = await startCluster({ dir, offset });
      assert.equal(cluster.adminPassword, null);
      assert.equal(decodeText((await cluster.kv.get("cli", "a"))!.value), "two");
      assert.equal(decodeText((await cluster.kv.get("zzz", "column"))!.value), "while killed");
    },
  );

  await t.step("when `up` itself dies by kill -9, its nodes notice and go", async () => {
    const cluster = await startCluster({ dir, offset });
    Deno.kill(cluster.pid, "SIGKILL");
    await cluster.upStatus;
    await cluster.cleanUp(); // fails when a process is left after 10 s
  });

  await t.step("the next `up` works as if nothing had happened, even at once", async () => {
    const cut = await startCluster({ dir, offset });
    Deno.kill(cut.pid, "SIGKILL");
    await cut.upStatus;
    await using cluster = await startCluster({ dir, offset });
    assert.equal(decodeText((await cluster.kv.get("cli", "a"))!.value), "two");
  });

  await t.step("without a running cluster kv says so, with exit status 3", async () => {
    const config = `${REPOSITORY}/cluster.small.toml`;
    const args = ["kv", "get", "cli", "a", "--config", config, "--data", dir];
    const result = await runPenncloud([...args, "--port-offset", String(offset)]);
    assert.equal(result.code, 3);
    assert.doesNotMatch(result.stderr, /\n\s+at /);
  });

  await t.step("Ctrl-C while starting ends everything as well", async () => {
    const up = new Deno.Command(Deno.execPath(), {
      args: [
        ...PENNCLOUD,
        "up",
        "--config",
        `${REPOSITORY}/cluster.small.toml`,
        "--data",
        dir,
        "--port-offset",
        String(offset),
      ],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    await eventually(() => processesOf(dir).length > 4, "the first children");
    up.kill("SIGINT");
    assert.equal((await up.status).code, 0);
    assert.deepEqual(processesOf(dir), []);
  });
}
