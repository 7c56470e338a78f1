/**
 * Wrong use of the command line: one clear message, and exit status 2. Real processes, no cluster.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { REPOSITORY, runPenncloud } from "../cluster/harness.ts";

const cases: readonly {
  readonly name: string;
  readonly args: readonly string[];
  readonly code: number;
  readonly message: RegExp;
}[] = [
  {
    name: "an unknown command is answered with the nearest one",
    args: ["admin", "statu"],
    code: 2,
    message: /unknown command 'statu'\n\(Did you mean status\?\)/,
  },
  {
    name: "an unknown flag is answered with the nearest one",
    args: ["up", "--jsn"],
    code: 2,
    message: /unknown option '--jsn'\n\(Did you mean --json\?\)/,
  },
  {
    name: "an unknown role names the roles",
    args: ["--role=bakend", "--id=1"],
    code: 2,
    message: /--role: expected one of coordinator, backend, .*, got bakend/,
  },
  {
    name: "a role without an id says so",
    args: ["--role=backend"],
    code: 2,
    message: /--id: expected a whole number, got nothing/,
  },
  {
    name: "an id that the configuration does not have names those that it has",
    args: ["--role=frontend", "--id=7", "--config", join(REPOSITORY, "cluster.toml")],
    code: 2,
    message: /--id: expected one of 0, 1, 2, got 7/,
  },
  {
    name: "a flag that a node does not take is answered with the nearest one",
    args: ["--role=backend", "--id=1", "--confg=x"],
    code: 2,
    message: /did you mean --config\?/,
  },
  {
    name: "a configuration that is missing is named with its flag",
    args: ["up", "--config", "no_such.toml"],
    code: 2,
    message: /--config no_such.toml: expected a readable file/,
  },
  {
    name: "a port offset that is no number is refused",
    args: ["up", "--port-offset", "many"],
    code: 2,
    message: /Expected a whole number from 0 to 65535/,
  },
  {
    name: "a command on a data folder without a cluster says how to start one",
    args: ["kv", "get", "row", "column", "--data", "/nonexistent"],
    code: 2,
    message: /No cluster in "\/nonexistent": start one with `penncloud up`/,
  },
  {
    name: "a value and a file at once are refused",
    args: ["kv", "put", "row", "column", "value", "--file", "x"],
    code: 2,
    message: /Expected either a VALUE or --file FILE/,
  },
  {
    name: "a file that cannot be read is named",
    args: ["kv", "put", "row", "column", "--file", "/nonexistent/file"],
    code: 2,
    message: /--file \/nonexistent\/file: expected a readable file/,
  },
  { name: "no command at all shows the help", args: [], code: 2, message: /Usage: penncloud/ },
];

for (const { name, args, code, message } of cases) {
  Deno.test(`penncloud: ${name}`, async () => {
    const result = await runPenncloud(args);
    assert.match(result.stderr, message);
    assert.equal(result.code, code);
    assert.doesNotMatch(result.stderr, /\n\s+at /, "no stack trace");
  });
}

Deno.test("penncloud: a bad cluster.toml lists file, key and expectation", async () => {
  const path = await Deno.makeTempFile({ suffix: ".toml" });
  try {
    const text = await Deno.readTextFile(join(REPOSITORY, "cluster.toml"));
    await Deno.writeTextFile(path, text.replace("lease_ms = 1200", 'lease_ms = "long"'));
    const { code, stderr } = await runPenncloud(["up", "--config", path]);
    assert.equal(code, 2);
    assert.match(
      stderr,
      /^penncloud: \w+\.toml: store\.lease_ms: expected a number, got "long" \(line \d+\)\n$/,
    );
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("penncloud --version says what it is, --help lists the commands", async () => {
  const version = await runPenncloud(["--version"]);
  assert.match(version.stdout, /^penncloud \d+\.\d+\.\d+ \(protocol \d+\)\n$/);
  const help = await runPenncloud(["--help"]);
  assert.equal(help.code, 0);
  for (const word of ["up", "admin", "user", "kv", "--role=ROLE"]) {
    assert.ok(help.stdout.includes(word));
  }
});
