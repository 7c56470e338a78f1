/**
 * One node in this process: `penncloud --role=ROLE --id=N`.
 *
 * Opens the node's folder, loads the one role that was asked for, and ends it in good order on
 * SIGTERM (a drain), on SIGINT, or when its supervisor is gone. What the role does is its own file.
 */
import { join } from "node:path";
import type { NodeEntry, Role } from "../proto/cluster_config.ts";
import { ClusterFolderError, nodeDir, openClusterFolder } from "./cluster_folder.ts";
import type { LoadedConfig } from "./config_file.ts";
import { realEnv } from "./env.ts";
import { importLater } from "./import_later.ts";
import type { RoleContext, RunningRole, StopReason } from "./role_context.ts";

/** After this the process ends without having finished. */
const STOP_MAX_MS: Record<StopReason, number> = { shutdown: 5_000, drain: 28_000 };

type RunRole = (context: RoleContext) => Promise<RunningRole>;

/** Each role is loaded by the process that runs it and by no other. */
const LOADERS: Record<Role, () => Promise<RunRole>> = {
  coordinator: async () =>
    (await importLater<typeof import("./coordinator.ts")>("./coordinator.ts", import.meta.url))
      .runCoordinator,
  backend: async () =>
    (await importLater<typeof import("./backend.ts")>("./backend.ts", import.meta.url)).runBackend,
  frontend: async () =>
    (await importLater<typeof import("./frontend.ts")>("./frontend.ts", import.meta.url))
      .runFrontend,
  balancer: async () =>
    (await importLater<typeof import("./balancer.ts")>("./balancer.ts", import.meta.url))
      .runBalancer,
  mail: async () =>
    (await importLater<typeof import("./mail.ts")>("./mail.ts", import.meta.url)).runMail,
};

/** Runs until something ends it. Resolves with the exit status. */
export async function runNode(
  loaded: LoadedConfig,
  name: { readonly role: Role; readonly id: number },
): Promise<number> {
  const spawn = Deno.env.get("PENNCLOUD_SPAWN");
  const asked = waitForStop({ supervised: spawn !== undefined });
  const node = findNode(loaded, name);
  const label = `${node.role}/${node.id}`;
  const env = realEnv({ node: label });
  const folder = await openClusterFolder(loaded.clusterDir, {
    config: loaded.config,
    create: spawn === undefined, // under a supervisor it exists already
  });
  const dataDir = nodeDir(folder.dir, node);
  await Deno.mkdir(dataDir, { recursive: true });
  using _lock = await lockFolder(dataDir, label);
  const run = await LOADERS[node.role]();
  const running = await run({
    config: loaded.config,
    node,
    dataDir,
    clusterDir: folder.dir,
    secret: folder.secret,
    clusterId: folder.clusterId,
    spawnId: spawn ?? crypto.randomUUID(),
    env,
  });
  const failed = running.ready.then(
    () => {
      env.log("info", "ready", { port: node.port });
      return new Promise<never>(() => {});
    },
    (error: unknown) => ({ error }),
  );
  const outcome = await Promise.race([asked, failed]);
  if (typeof outcome === "object") {
    env.log("error", "cannot start", { error: String(outcome.error) });
    await withinMs(running.stop("shutdown"), STOP_MAX_MS.shutdown);
    return 1;
  }
  env.log("info", "stopping", { reason: outcome });
  const finished = await withinMs(running.stop(outcome), STOP_MAX_MS[outcome]);
  env.log(finished ? "info" : "warning", finished ? "stopped" : "stopped without finishing");
  return 0;
}

function findNode(
  { config, source }: LoadedConfig,
  { role, id }: { readonly role: Role; readonly id: number },
): NodeEntry {
  const node = config.node.find((entry) => entry.role === role && entry.id === id);
  if (node !== undefined) return node;
  const ids = config.node.filter((entry) => entry.role === role).map((entry) => entry.id);
  throw new ClusterFolderError(
    `--id: expected ${
      ids.length === 0 ? "another role" : `one of ${ids.join(", ")}`
    }, got ${id}: ` +
      `${source} has no ${role}/${id}`,
  );
}

/** Two processes on one folder would destroy each other's data. */
async function lockFolder(dataDir: string, label: string): Promise<Deno.FsFile> {
  const path = join(dataDir, "node.lock");
  const file = await Deno.open(path, { write: true, create: true });
  if (await file.tryLock(true)) return file;
  file.close();
  throw new ClusterFolderError(
    `${label} runs already: another process holds "${path}"; stop that one first`,
  );
}

function waitForStop({ supervised }: { readonly supervised: boolean }): Promise<StopReason> {
  return new Promise((resolve) => {
    Deno.addSignalListener("SIGTERM", () => resolve("drain"));
    // Ctrl-C in a terminal reaches all processes at once; under a supervisor, it decides the order.
    Deno.addSignalListener("SIGINT", () => supervised || resolve("shutdown"));
    Deno.addSignalListener("SIGHUP", () => supervised || resolve("shutdown"));
    if (!supervised) return;
    // The lifeline: it ends when the supervisor closes it or is no more.
    const untilEnd = async () => {
      try {
        for await (const _ of Deno.stdin.readable);
      } catch {
        // Unreadable is as good as ended.
      }
      resolve("shutdown");
    };
    void untilEnd();
  });
}

/** False when `work` took longer, or failed. */
async function withinMs(work: Promise<void>, ms: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  const done = work.then(() => true, () => false);
  const finished = await Promise.race([done, late]);
  clearTimeout(timer);
  return finished;
}
