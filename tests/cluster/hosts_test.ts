/**
 * Three hosts, as cluster.hosts.toml describes them: three `penncloud up` with a data folder each,
 * on three addresses of this machine (127.0.0.1 to 127.0.0.3), joined by copying the cluster's secret.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { decodeText, put } from "../../kv/kv.ts";
import { openClusterFolder } from "../../roles/cluster_folder.ts";
import { loadConfig } from "../../roles/config_file.ts";
import { realEnv } from "../../roles/env.ts";
import { connectKv } from "../../roles/kv_connection.ts";
import { openLog } from "../../roles/log.ts";
import { eventually } from "../eventually.ts";
import { PENNCLOUD, processesOf, REPOSITORY, trySignal } from "./harness.ts";
import { freeOffset } from "./test_ports.ts";

const HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
const COPIED = ["cluster.json", "secret", "tls_cert.pem", "tls_key.pem"];

interface Host {
  readonly process: Deno.ChildProcess;
  readonly dir: string;
  /** What `up` has printed. */
  output: string;
  /** What it wrote to stderr, once it has ended. */
  complaints: string;
}

Deno.test("three hosts form one cluster, and the coordinator's aside, any of them may go", async (t) => {
  const home = await Deno.makeTempDir({ prefix: "penncloud-hosts-" });
  const configFile = join(home, "cluster.toml");
  const text = await Deno.readTextFile(join(REPOSITORY, "cluster.hosts.toml"));
  await Deno.writeTextFile(configFile, text.replaceAll("10.0.0.", "127.0.0."));
  const offset = await freeOffset(configFile);
  const { config } = await loadConfig({ path: configFile, portOffset: offset });
  const hosts: Host[] = [];
  const start = (index: number): Host => {
    const dir = join(home, `host-${index}`);
    const process = new Deno.Command(Deno.execPath(), {
      args: [
        ...PENNCLOUD,
        "up",
        "--config",
        configFile,
        "--data",
        dir,
        "--port-offset",
        String(offset),
        "--host",
        HOSTS[index]!,
      ],
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const host: Host = { process, dir, output: "", complaints: "" };
    const read = async () => {
      const decoder = new TextDecoder();
      for await (const bytes of process.stdout) host.output += decoder.decode(bytes);
    };
    void read();
    void new Response(process.stderr).text().then((said) => host.complaints = said);
    return host;
  };

  try {
    await t.step(
      "a second host without the first one's secret is told what is missing",
      async () => {
        const lost = start(1);
        assert.equal((await lost.process.status).code, 2);
        await eventually(() => lost.complaints !== "", "its complaint");
        assert.match(lost.complaints, /copy cluster\.json, secret, .* from its data folder/);
      },
    );

    await t.step("with copies of the cluster's files all three become ready", async () => {
      hosts.push(start(0));
      await eventually(() => exists(join(hosts[0]!.dir, "cluster.json")), "the first host's files");
      for (const index of [1, 2]) {
        const dir = join(home, `host-${index}`);
        await Deno.mkdir(dir, { recursive: true });
        for (const name of COPIED) {
          await Deno.copyFile(join(hosts[0]!.dir, name), join(dir, name));
        }
        hosts.push(start(index));
      }
      for (const host of hosts) {
        await eventually(() => /^ready /m.test(host.output), "ready on every host", {
          withinMs: 120_000,
        });
      }
    });

    const { secret, clusterId } = await openClusterFolder(hosts[0]!.dir, { config, create: false });
    const connection = connectKv({
      config,
      node: { ...config.node[0]!, id: 99 },
      dataDir: "",
      clusterDir: hosts[0]!.dir,
      secret,
      clusterId,
      spawnId: "",
      env: realEnv({ node: "test", log: openLog({ node: "test", threshold: "off" }) }),
    });
    const rows = ["alpha", "mike", "zulu"];

    await t.step("when a whole host goes, what was written is there and writes go on", async () => {
      for (const row of rows) await put(connection.kv, row, "column", "before");
      const gone = hosts[2]!;
      for (const pid of processesOf(gone.dir)) trySignal(pid, "SIGKILL");
      await gone.process.status;
      const patient = { deadlineMs: 60_000 };
      for (const row of rows) {
        const cell = await connection.kv.get(row, "column", patient);
        assert.equal(decodeText(cell!.value), "before");
        await put(connection.kv, row, "column", "after", patient);
      }
    });
    connection.close();

    await t.step("every host stops in good order", async () => {
      // The other hosts stop first: the coordinator's host has an order of its own.
      for (const host of [hosts[1]!, hosts[0]!]) {
        host.process.kill("SIGTERM");
        assert.equal((await host.process.status).code, 0);
        assert.deepEqual(processesOf(host.dir), []);
      }
    });
  } finally {
    for (const { dir } of hosts) for (const pid of processesOf(dir)) trySignal(pid, "SIGKILL");
    await Deno.remove(home, { recursive: true });
  }
});

const exists = (path: string): Promise<boolean> => Deno.stat(path).then(() => true, () => false);
