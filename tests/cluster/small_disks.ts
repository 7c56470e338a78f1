/**
 * A cluster whose backends keep their data on small disks of their own (tmpfs), which a test can
 * make full and roomy again at any moment. Mounting needs rights that not everybody has:
 * `whyNoMounts()` says whether a test can run.
 */
import { join } from "node:path";
import { openClusterFolder } from "../../roles/cluster_folder.ts";
import { loadConfig } from "../../roles/config_file.ts";
import { freeOffset, REPOSITORY, startCluster, type TestCluster } from "./harness.ts";

export const CONFIG = "tests/cluster/three_doors.toml";

/** Null when tmpfs can be mounted here, otherwise the reason why not. */
export async function whyNoMounts(): Promise<string | null> {
  if (Deno.build.os !== "linux") return "small disks are tmpfs mounts, which only Linux has";
  const dir = await Deno.makeTempDir({ prefix: "penncloud-mount-" });
  try {
    await run("mount", ["-t", "tmpfs", "-o", "size=1m", "penncloud-test", dir]);
    await run("umount", [dir]);
    return null;
  } catch (error) {
    return `mounting a small disk is not allowed here: ${(error as Error).message}`;
  } finally {
    await Deno.remove(dir).catch(() => {});
  }
}

export class SmallDisks {
  constructor(
    readonly cluster: TestCluster,
    readonly dir: string,
    readonly mounts: readonly string[],
    readonly diskMib: number,
  ) {}

  /** Leaves so many bytes free on each disk, as if other programs had filled them. */
  async fill(leaveBytes: number): Promise<void> {
    await Promise.all(this.mounts.map(async (mount) => {
      for (let attempt = 1;; attempt++) {
        const usedKib = Math.ceil(await usedBytes(mount) / 1024);
        try {
          return await resize(mount, `${usedKib + Math.ceil(leaveBytes / 1024)}k`);
        } catch (error) {
          // A disk cannot be smaller than what was written to it since we looked.
          if (attempt === 20) throw error;
        }
      }
    }));
  }

  async makeRoom(): Promise<void> {
    for (const mount of this.mounts) await resize(mount, `${this.diskMib}m`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.cluster.stop();
    } finally {
      for (const mount of this.mounts) await run("umount", ["-l", mount]).catch(() => {});
      await Deno.remove(this.dir, { recursive: true }).catch(() => {});
    }
  }
}

export async function startOnSmallDisks({ diskMib = 256 } = {}): Promise<SmallDisks> {
  const dir = await Deno.makeTempDir({ prefix: "penncloud-" });
  const configFile = join(REPOSITORY, CONFIG);
  const portOffset = await freeOffset(configFile);
  const { config } = await loadConfig({ path: configFile, portOffset });
  await openClusterFolder(dir, { config, create: true });
  const mounts: string[] = [];
  try {
    for (const { role, id } of config.node) {
      if (role !== "backend") continue;
      const mount = join(dir, `backend-${id}`);
      await Deno.mkdir(mount);
      await run("mount", ["-t", "tmpfs", "-o", `size=${diskMib}m`, "penncloud-test", mount]);
      mounts.push(mount);
    }
    const cluster = await startCluster({ config: CONFIG, dir });
    return new SmallDisks(cluster, dir, mounts, diskMib);
  } catch (error) {
    for (const mount of mounts) await run("umount", ["-l", mount]).catch(() => {});
    await Deno.remove(dir, { recursive: true }).catch(() => {});
    throw error;
  }
}

async function resize(mount: string, size: string): Promise<void> {
  await run("mount", ["-o", `remount,size=${size}`, mount]);
}

async function usedBytes(mount: string): Promise<number> {
  const { stdout } = await run("df", ["--block-size=1", "--output=used", mount]);
  return Number(stdout.trim().split("\n").at(-1));
}

async function run(command: string, args: readonly string[]): Promise<{ stdout: string }> {
  const { code, stdout, stderr } = await new Deno.Command(command, {
    args: [...args],
    stdout: "piped",
    stderr: "piped",
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  if (code !== 0) throw new Error(`${command} ${args.join(" ")}: ${text(stderr).trim()}`);
  return { stdout: text(stdout) };
}
