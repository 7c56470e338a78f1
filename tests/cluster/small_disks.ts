/**
 * A cluster whose backends keep their data on small disks of their own (tmpfs), which a test can
 * make full and roomy again at any moment. Mounting needs rights that not everybody has:
 * `whyNoMounts()` says whether a test can run.
 */
import { join } from "node:path";
import { openClusterFolder } from "../../roles/cluster_folder.ts";
import { loadConfig } from "../../roles/config_file.ts";
import { REPOSITORY, startCluster, type TestCluster } from "./harness.ts";
import { freeOffset } from "./test_ports.ts";

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

/** A tmpfs that can be made full and roomy again while it is in use. */
export class SmallDisk {
  private constructor(readonly mount: string, readonly mib: number) {}

  /** Mounts it on a new folder at `path`. */
  static async mount(path: string, mib: number): Promise<SmallDisk> {
    await Deno.mkdir(path);
    await run("mount", ["-t", "tmpfs", "-o", `size=${mib}m`, "penncloud-test", path]);
    return new SmallDisk(path, mib);
  }

  /** Leaves so many bytes free, as if other programs had filled the rest. */
  async fill(leaveBytes: number): Promise<void> {
    for (let attempt = 1;; attempt++) {
      const usedKib = Math.ceil(await usedBytes(this.mount) / 1024);
      try {
        return await resize(this.mount, `${usedKib + Math.ceil(leaveBytes / 1024)}k`);
      } catch (error) {
        // A disk cannot be smaller than what was written to it since we looked.
        if (attempt === 20) throw error;
      }
    }
  }

  async makeRoom(): Promise<void> {
    await resize(this.mount, `${this.mib}m`);
  }

  /** Everything on it is gone. */
  async unmount(): Promise<void> {
    await run("umount", ["-l", this.mount]).catch(() => {});
  }
}

export class SmallDisks {
  constructor(
    readonly cluster: TestCluster,
    readonly dir: string,
    readonly disks: readonly SmallDisk[],
  ) {}

  async fill(leaveBytes: number): Promise<void> {
    await Promise.all(this.disks.map((disk) => disk.fill(leaveBytes)));
  }

  async makeRoom(): Promise<void> {
    for (const disk of this.disks) await disk.makeRoom();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.cluster.stop();
    } finally {
      for (const disk of this.disks) await disk.unmount();
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
  const disks: SmallDisk[] = [];
  try {
    for (const { role, id } of config.node) {
      if (role !== "backend") continue;
      disks.push(await SmallDisk.mount(join(dir, `backend-${id}`), diskMib));
    }
    const cluster = await startCluster({ config: CONFIG, dir });
    return new SmallDisks(cluster, dir, disks);
  } catch (error) {
    for (const disk of disks) await disk.unmount();
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
