/** What people read when `cluster.toml` is wrong, and that the three files in the repository are right. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { planGroups } from "../../proto/cluster_config.ts";
import { ConfigError, loadConfig, parseConfig } from "../../roles/config_file.ts";
import { nearestWord } from "../../roles/nearest_word.ts";

const repository = dirname(dirname(import.meta.dirname!));
const file = (name: string) => join(repository, name);
const defaultText = await Deno.readTextFile(file("cluster.toml"));

/** The number of the line that holds `text`; of its last occurrence if there are several. */
const lineOf = (text: string) =>
  defaultText.slice(0, defaultText.lastIndexOf(text)).split("\n").length;

function problemsOf(text: string): readonly string[] {
  try {
    parseConfig(text, "cluster.toml");
  } catch (error) {
    assert(error instanceof ConfigError);
    return error.problems;
  }
  return [];
}

Deno.test("cluster.toml is the nine-backend cluster of three trios", async () => {
  const { config } = await loadConfig({ path: file("cluster.toml") });
  const groups = planGroups(config);
  assert.equal(groups.length, 9);
  assert.deepEqual(groups[0], { id: 1, startKey: "", endKey: "d", members: [0, 1, 2] });
  assert.deepEqual(groups[5], { id: 6, startKey: "p", endKey: "s", members: [5, 3, 4] });
  assert.deepEqual(groups[8], { id: 9, startKey: "x", endKey: null, members: [8, 6, 7] });
});

for (const name of ["cluster.toml", "cluster.small.toml", "cluster.hosts.toml"]) {
  Deno.test(`${name} shows every setting, and shows it with its default`, async () => {
    const text = await Deno.readTextFile(file(name));
    const { config } = await loadConfig({ path: file(name) });
    const bare = parseConfig(
      text.slice(text.indexOf("[[node]]")),
      name,
    );
    for (const section of ["store", "coordinator", "balancer", "mail", "drive", "web"] as const) {
      for (const key of Object.keys(bare[section])) {
        assert.match(text, new RegExp(`^${key} = `, "m"), `${section}.${key}`);
      }
      const { split_keys: _, ...settings } = config[section] as Record<string, unknown>;
      assert.deepEqual(settings, bare[section]);
    }
  });
}

Deno.test("loadConfig() adds the port offset to every port", async () => {
  const { config } = await loadConfig({ path: file("cluster.toml"), portOffset: 100 });
  assert.equal(config.cluster.supervisor_port, 10_098);
  assert.equal(config.mail.submission_port, 2687);
  assert.equal(config.node.find((node) => node.role === "balancer")?.port, 9100);
});

Deno.test("loadConfig() names the highest offset that fits", async () => {
  await assert.rejects(
    loadConfig({ path: file("cluster.toml"), portOffset: 60_000 }),
    /--port-offset: expected at most 54527, got 60000/,
  );
});

Deno.test("a missing file is named together with the flag that asked for it", async () => {
  await assert.rejects(
    loadConfig({ path: "no_such.toml" }),
    /--config no_such.toml: expected a readable file: there is no such file/,
  );
});

Deno.test("a value out of range is named by key, expectation, value and line", () => {
  assert.deepEqual(
    problemsOf(defaultText.replace("message_max_bytes = 26214400", "message_max_bytes = 5")),
    [
      `cluster.toml: mail.message_max_bytes: expected at least 65536, got 5 (line ${
        lineOf("message_max_bytes =")
      })`,
    ],
  );
});

Deno.test("a value of the wrong type is answered with the type that is meant", () => {
  const text = defaultText.replace('signup = "open"', "signup = true");
  assert.deepEqual(problemsOf(text), [
    `cluster.toml: web.signup: expected "open" or "closed", got true (line ${lineOf("signup =")})`,
  ]);
});

Deno.test("a mistyped key is answered with the key that was meant", () => {
  assert.deepEqual(problemsOf(defaultText.replace("lease_ms =", "lease_mss =")), [
    `cluster.toml: store.lease_mss: unknown key, did you mean "lease_ms"? (line ${
      lineOf("lease_ms =")
    })`,
  ]);
  assert.deepEqual(problemsOf(defaultText.replace("[web]", "[webb]")), [
    `cluster.toml: webb: unknown key, did you mean "web"? (line ${lineOf("[web]")})`,
  ]);
});

Deno.test("a syntax error is named by line and column and quotes the line", () => {
  assert.deepEqual(problemsOf('[cluster]\nname = "home\n'), [
    'cluster.toml:2:13: not valid TOML: control characters are not allowed in strings: "name = \\"home"',
  ]);
});

Deno.test("two nodes on one port, or of one name, are refused", () => {
  assert.deepEqual(problemsOf(defaultText.replace("port = 8001", "port = 8000")), [
    `cluster.toml: node[3].port: expected a port that no other node on 127.0.0.1 has, got 8000 (line ${
      lineOf("port = 8001")
    })`,
  ]);
  assert.deepEqual(problemsOf(defaultText.replace("id = 8", "id = 7")), [
    `cluster.toml: node[14].id: expected an id that no other backend has, got 7 (line ${
      lineOf("id = 8")
    })`,
  ]);
});

Deno.test("a node's port on another node's ops port is refused", async () => {
  const path = await Deno.makeTempFile({ suffix: ".toml" });
  try {
    await Deno.writeTextFile(path, defaultText.replace("port = 8001", "port = 10999"));
    await assert.rejects(
      loadConfig({ path }),
      /frontend\/1: expected a port that nothing else uses, got 10999, also used by the ops port of coordinator\/0/,
    );
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a grace period that two primaries could share is refused", () => {
  const [problem] = problemsOf(defaultText.replace("grace_ms = 1800", "grace_ms = 1200"));
  assert.match(
    problem!,
    /store\.grace_ms: expected at least lease_ms \* 1\.03 \+ 60 \(1296\), got 1200/,
  );
});

Deno.test("an empty file, and one full of nonsense, are answered with a short list", () => {
  assert.deepEqual(problemsOf(""), ["cluster.toml: node: expected a list, got nothing"]);
  const many = Array.from({ length: 50 }, (_, i) => `[[node]]\nrole = "backend"\nid = "${i}"`);
  assert.equal(problemsOf(many.join("\n")).length, 11);
});

Deno.test("nearestWord() finds what was mistyped and does not guess wildly", () => {
  assert.equal(nearestWord("prot", ["host", "port", "role"]), "port");
  assert.equal(nearestWord("statsu", ["status", "kill"]), "status");
  assert.equal(nearestWord("elephant", ["host", "port", "role"]), null);
});

Deno.test("disks that are not trusted need two copies of every write", () => {
  const text = defaultText.replace("trust_fsync = true", "trust_fsync = false");
  assert.deepEqual(problemsOf(text), []);
  assert.deepEqual(problemsOf(text.replace("min_in_sync = 2", "min_in_sync = 1")), [
    `cluster.toml: store.trust_fsync: expected true, or store.min_in_sync of at least 2: one copy ` +
    `proves nothing, got false (line ${lineOf("trust_fsync =")})`,
  ]);
});
