/**
 * The packaged program, as somebody has it who has nothing else: one file in an empty folder, an
 * empty environment, and `up`. Always the self-extracting form; whether `deno compile` works depends
 * on a download, and what it makes is the same program.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { eventually } from "../eventually.ts";
import { processesOf, REPOSITORY } from "./harness.ts";
import { freeOffset } from "./test_ports.ts";

const COMPILE_TIMEOUT_MS = 300_000;

Deno.test("the single file runs a cluster from an empty folder with an empty environment", async (t) => {
  const built = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "tools/compile.ts", "--single-file"],
    cwd: REPOSITORY,
    signal: AbortSignal.timeout(COMPILE_TIMEOUT_MS),
  }).output();
  assert.ok(built.success, new TextDecoder().decode(built.stderr));

  const home = await Deno.makeTempDir({ prefix: "penncloud-single-" });
  const cwd = join(home, "empty"), dataDir = join(home, "data");
  await Deno.mkdir(cwd);
  const program = join(home, "penncloud");
  await Deno.copyFile(join(REPOSITORY, "dist/penncloud"), program);
  // All that is set is where it may unpack, so that the test leaves nothing in /tmp.
  const command = (args: readonly string[]) =>
    new Deno.Command(program, {
      args: [...args],
      cwd,
      clearEnv: true,
      env: { XDG_CACHE_HOME: join(home, "cache") },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
  const run = async (...args: string[]) => {
    const { code, stdout, stderr } = await command(args).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code, stdout: text(stdout), stderr: text(stderr) };
  };

  try {
    await t.step("four first starts at once unpack once and say their version", async () => {
      const results = await Promise.all([1, 2, 3, 4].map(() => run("--version")));
      for (const result of results) assert.match(result.stdout, /^penncloud \d/, result.stderr);
      const unpacked = [...Deno.readDirSync(join(home, "cache/penncloud"))]
        .map((entry) => entry.name).filter((name) => name !== "deno");
      assert.equal(unpacked.length, 1, unpacked.join(" "));
    });

    const offset = await freeOffset(join(REPOSITORY, "cluster.toml"));
    const flags = ["--data", dataDir, "--port-offset", String(offset)];
    const up = command(["up", "--json", ...flags]).spawn();
    let output = "";
    const reading = (async () => {
      const decoder = new TextDecoder();
      for await (const bytes of up.stdout) output += decoder.decode(bytes, { stream: true });
    })();
    const errors = new Response(up.stderr).text();
    try {
      await t.step("up starts the built-in nine-backend cluster", async () => {
        await eventually(() => output.includes('"event":"ready"'), "ready", { withinMs: 120_000 });
      });

      await t.step("its pages and their scripts are there", async () => {
        const page = await fetch(`http://127.0.0.1:${8000 + offset}/login`);
        const html = await page.text();
        assert.equal(page.status, 200);
        const asset = html.match(/\/static\/[^"]+/)?.[0];
        assert.ok(asset !== undefined, "a style sheet or script on the page");
        const response = await fetch(`http://127.0.0.1:${8000 + offset}${asset}`);
        await response.body?.cancel();
        assert.equal(response.status, 200);
      });

      await t.step("its commands speak to it", async () => {
        assert.equal((await run("kv", "put", "row", "column", "packed", ...flags)).code, 0);
        assert.equal((await run("kv", "get", "row", "column", ...flags)).stdout, "packed");
      });
    } finally {
      up.kill("SIGTERM");
      const status = await up.status;
      await reading;
      assert.equal(status.code, 0, `${output}\n${await errors}`);
    }
    assert.deepEqual(processesOf(dataDir), []);
    assert.deepEqual([...Deno.readDirSync(cwd)], [], "the working folder stays empty");
  } finally {
    await Deno.remove(home, { recursive: true });
  }
});
