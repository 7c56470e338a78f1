/** The data folder's lock and identity. */
import assert from "node:assert/strict";
import { CorruptionError } from "../../../kv/errors.ts";
import { DataFolderError, openDataFolder } from "../../../kv/disk/identity.ts";

async function withDir(run: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await run(`${dir}/data/backend-1`);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

Deno.test("openDataFolder() formats a new folder and counts every start of it", () =>
  withDir(async (dir) => {
    const first = await openDataFolder({ dir, clusterId: "home" });
    assert.ok(first.isNew && !first.hostRestarted);
    assert.equal(first.identity.bootCount, 1);
    await first.close();
    const second = await openDataFolder({ dir, clusterId: "home" });
    assert.ok(!second.isNew && !second.hostRestarted);
    assert.equal(second.identity.bootCount, 2);
    assert.equal(second.identity.storeId, first.identity.storeId);
    await second.close();
    const { crc: _, ...stored } = JSON.parse(await Deno.readTextFile(`${dir}/IDENTITY`));
    assert.deepEqual(stored, { ...second.identity });
  }));

Deno.test("openDataFolder() refuses a folder that is in use, here or in another process", () =>
  withDir(async (dir) => {
    const holder = await openDataFolder({ dir, clusterId: "home" });
    const inUse = (error: unknown) =>
      error instanceof DataFolderError && /another process is using it/.test(error.message);
    await assert.rejects(openDataFolder({ dir, clusterId: "home" }), inUse);
    const module = new URL("../../../kv/disk/identity.ts", import.meta.url).href;
    const code = `import { openDataFolder } from ${JSON.stringify(module)};
      try { await openDataFolder({ dir: ${JSON.stringify(dir)}, clusterId: "home" }); }
      catch (error) { console.log(error.name); Deno.exit(0); }
      console.log("opened"); Deno.exit(0);`;
    const run = async () => {
      const { stdout } = await new Deno.Command(Deno.execPath(), {
        args: ["eval", "--ext=ts", code],
        cwd: new URL("../../../", import.meta.url).pathname,
      }).output();
      return new TextDecoder().decode(stdout).trim();
    };
    assert.equal(await run(), "DataFolderError");
    await holder.close();
    assert.equal(await run(), "opened");
    const next = await openDataFolder({ dir, clusterId: "home" });
    assert.equal(next.identity.bootCount, 3, "the other process has exited and left its lock");
    await next.close();
  }));

Deno.test("openDataFolder() refuses another cluster's folder and leaves it as it is", () =>
  withDir(async (dir) => {
    await (await openDataFolder({ dir, clusterId: "home" })).close();
    const before = await Deno.readTextFile(`${dir}/IDENTITY`);
    await assert.rejects(
      openDataFolder({ dir, clusterId: "work" }),
      /belongs to cluster "home", not to "work"/,
    );
    assert.equal(await Deno.readTextFile(`${dir}/IDENTITY`), before);
    await (await openDataFolder({ dir, clusterId: "home" })).close();
  }));

Deno.test("openDataFolder() notices that the machine was restarted", () =>
  withDir(async (dir) => {
    await (await openDataFolder({ dir, clusterId: "home" })).close();
    const folder = await openDataFolder({ dir, clusterId: "home", kernelBootId: "another boot" });
    assert.ok(folder.hostRestarted);
    assert.equal(folder.identity.kernelBootId, "another boot");
    await folder.close();
  }));

Deno.test("openDataFolder() refuses a damaged identity, and one that is gone while data is there", () =>
  withDir(async (dir) => {
    await (await openDataFolder({ dir, clusterId: "home" })).close();
    const text = await Deno.readTextFile(`${dir}/IDENTITY`);
    const fewerBoots = text.replace('"bootCount": 1', '"bootCount": 0');
    assert.notEqual(fewerBoots, text);
    for (const damaged of ["", text.slice(0, 20), text.replace("storeId", "storeIt"), fewerBoots]) {
      await Deno.writeTextFile(`${dir}/IDENTITY`, damaged);
      await assert.rejects(openDataFolder({ dir, clusterId: "home" }), CorruptionError);
    }
    await Deno.remove(`${dir}/IDENTITY`);
    await Deno.mkdir(`${dir}/wal`);
    await assert.rejects(openDataFolder({ dir, clusterId: "home" }), CorruptionError);
    await Deno.remove(`${dir}/wal`);
    const folder = await openDataFolder({ dir, clusterId: "home" });
    assert.ok(folder.isNew);
    await folder.close();
  }));
