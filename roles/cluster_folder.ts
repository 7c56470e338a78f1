/**
 * The folder in which one host keeps its part of a cluster.
 *
 *     cluster.json    {"format":1,"clusterId","name","createdMs","adminMade"}   written last
 *     secret          64 hex digits: what nodes prove to each other
 *     tls_cert.pem, tls_key.pem   self-signed, made again when it is about to expire
 *     up.lock         held by the running `penncloud up`; says its process and port offset
 *     logs/           one log per node, size-limited
 *     backend-4/ …    one folder per node, which only that node touches
 *
 * The first `up` makes the first four; other hosts of the same cluster get copies of them. Files with
 * secrets are readable by their owner only.
 */
import { join } from "node:path";
import { z } from "zod";
import type { ClusterConfig, NodeEntry } from "../proto/cluster_config.ts";
import { importLater } from "./import_later.ts";

export const TLS_CERT_FILE = "tls_cert.pem";
export const TLS_KEY_FILE = "tls_key.pem";
const CLUSTER_FILE = "cluster.json";
const SECRET_FILE = "secret";
const UP_LOCK_FILE = "up.lock";
const SECRET_BYTES = 32;
/** Apple's limit; browsers and mail programs refuse longer ones. */
const CERTIFICATE_DAYS = 825;
const RENEW_BEFORE_MS = 60 * 86_400_000;
/** What a folder may hold before cluster.json is written, and what no program of ours put there. */
const KNOWN_BEFORE_FORMAT = new Set([
  SECRET_FILE,
  TLS_CERT_FILE,
  TLS_KEY_FILE,
  UP_LOCK_FILE,
  "cluster.lock",
  "logs",
  "lost+found",
]);

const ClusterFile = z.object({
  format: z.literal(1),
  clusterId: z.uuid(),
  name: z.string(),
  createdMs: z.number(),
  /** False until the `admin` account exists. */
  adminMade: z.boolean(),
});
type ClusterFile = z.infer<typeof ClusterFile>;

/** The folder cannot be used as it is. The message says what to do. */
export class ClusterFolderError extends Error {
  override readonly name = "ClusterFolderError";
}

export interface ClusterFolder {
  readonly dir: string;
  readonly clusterId: string;
  readonly secret: Uint8Array;
  readonly adminMade: boolean;
  /** This call made the cluster. */
  readonly created: boolean;
}

/** A node's own folder. */
export const nodeDir = (clusterDir: string, node: Pick<NodeEntry, "role" | "id">): string =>
  join(clusterDir, `${node.role}-${node.id}`);

/**
 * Opens the folder of the cluster that `config` describes; with `create`, makes a new cluster in a
 * folder that is missing or empty.
 *
 * @throws {ClusterFolderError} it belongs to another cluster, holds something else, or is damaged
 */
export async function openClusterFolder(
  dir: string,
  options: { readonly config: ClusterConfig; readonly create: boolean },
): Promise<ClusterFolder> {
  const { config, create } = options;
  if (!create) return { ...await readFolder(dir, config), created: false };
  try {
    await Deno.mkdir(dir, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new ClusterFolderError(
      `Cannot make the data folder "${dir}": ${(error as Error).message}`,
    );
  }
  if (await readClusterFile(dir) === null) await refuseForeign(dir);
  // Nodes started by hand at the same moment must not each make a secret of their own.
  using guard = await Deno.open(join(dir, "cluster.lock"), { write: true, create: true });
  await guard.lock(true);
  const created = await readClusterFile(dir) === null;
  if (created) await format(dir, config);
  const folder = await readFolder(dir, config);
  await renewCertificate(dir, config);
  return { ...folder, created };
}

/** Whether a cluster was made in this folder, or copied to it. */
export async function isClusterFolder(dir: string): Promise<boolean> {
  return await readClusterFile(dir) !== null;
}

/** Remembers that the `admin` account exists, so that no later start tries to make it. */
export async function markAdminMade(dir: string): Promise<void> {
  const file = await readClusterFile(dir);
  if (file !== null) {
    await writeWhole(join(dir, CLUSTER_FILE), toJson({ ...file, adminMade: true }));
  }
}

async function readFolder(
  dir: string,
  config: ClusterConfig,
): Promise<Omit<ClusterFolder, "created">> {
  const file = await readClusterFile(dir);
  if (file === null) {
    throw new ClusterFolderError(
      `No cluster in "${dir}": start one with \`penncloud up\`, or name its folder with --data`,
    );
  }
  if (file.name !== config.cluster.name) {
    throw new ClusterFolderError(
      `The data folder "${dir}" belongs to the cluster "${file.name}", and the configuration is for ` +
        `"${config.cluster.name}": use another folder (--data) or the file of that cluster (--config)`,
    );
  }
  let secret: Uint8Array;
  try {
    secret = Uint8Array.fromHex((await Deno.readTextFile(join(dir, SECRET_FILE))).trim());
  } catch (error) {
    throw new ClusterFolderError(
      `Cannot read the cluster's secret "${join(dir, SECRET_FILE)}": ${
        (error as Error).message
      }; ` +
        "copy it from another host of the cluster",
    );
  }
  if (secret.length !== SECRET_BYTES) {
    throw new ClusterFolderError(
      `The cluster's secret "${join(dir, SECRET_FILE)}" is damaged: expected ${SECRET_BYTES * 2} ` +
        "hex digits; copy it from another host of the cluster",
    );
  }
  return { dir, clusterId: file.clusterId, secret, adminMade: file.adminMade };
}

async function readClusterFile(dir: string): Promise<ClusterFile | null> {
  const path = join(dir, CLUSTER_FILE);
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw new ClusterFolderError(`Cannot read "${path}": ${(error as Error).message}`);
  }
  try {
    return ClusterFile.parse(JSON.parse(text));
  } catch {
    throw new ClusterFolderError(
      `"${path}" is not what \`penncloud up\` writes: it is damaged or of another release`,
    );
  }
}

/** Somebody else's folder is refused before anything is written to it. */
async function refuseForeign(dir: string): Promise<void> {
  for await (const entry of Deno.readDir(dir)) {
    if (!KNOWN_BEFORE_FORMAT.has(entry.name) && !entry.name.endsWith(".new")) {
      throw new ClusterFolderError(
        `The data folder "${dir}" holds "${entry.name}" and no cluster: use an empty folder (--data)`,
      );
    }
  }
}

async function format(dir: string, config: ClusterConfig): Promise<void> {
  const secret = crypto.getRandomValues(new Uint8Array(SECRET_BYTES));
  await writeWhole(join(dir, SECRET_FILE), `${secret.toHex()}\n`);
  await writeCertificate(dir, config);
  // Last: a folder without it counts as never used, so a start cut short here is simply repeated.
  await writeWhole(
    join(dir, CLUSTER_FILE),
    toJson({
      format: 1,
      clusterId: crypto.randomUUID(),
      name: config.cluster.name,
      createdMs: Date.now(),
      adminMade: false,
    }),
  );
}

async function writeCertificate(dir: string, config: ClusterConfig): Promise<void> {
  const { mail_domain: domain } = config.cluster;
  const publicName = config.web.public_host.replace(/:\d+$/, "");
  const hosts = config.node.map((node) => node.host);
  const names = [domain, "localhost", "127.0.0.1", publicName, ...hosts]
    .filter((name) => !["", "0.0.0.0", "::"].includes(name));
  const { makeSelfSignedCertificate } = await loadCertificates();
  const pair = await makeSelfSignedCertificate({
    names: [...new Set(names)],
    // A day back, for clients whose clocks are behind.
    notBefore: new Date(Date.now() - 86_400_000),
    days: CERTIFICATE_DAYS,
  });
  await writeWhole(join(dir, TLS_KEY_FILE), pair.privateKey);
  await writeWhole(join(dir, TLS_CERT_FILE), pair.certificate);
}

async function renewCertificate(dir: string, config: ClusterConfig): Promise<void> {
  try {
    const pem = await Deno.readTextFile(join(dir, TLS_CERT_FILE));
    const { expiryMs } = await loadCertificates();
    if (expiryMs(pem) - Date.now() > RENEW_BEFORE_MS) return;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  await writeCertificate(dir, config);
}

/** Only who makes a cluster needs them; a node finds everything made. */
const loadCertificates = () =>
  importLater<typeof import("./supervisor_certificate.ts")>(
    "./supervisor_certificate.ts",
    import.meta.url,
  );

const toJson = (file: ClusterFile): string => `${JSON.stringify(file, null, 2)}\n`;

/** After a crash the file holds either what it held before or all of `text`. */
async function writeWhole(path: string, text: string): Promise<void> {
  const unfinished = `${path}.new`;
  await Deno.writeTextFile(unfinished, text, { mode: 0o600 });
  using file = await Deno.open(unfinished, { write: true });
  await file.sync();
  await Deno.rename(unfinished, path);
}

/** What the running `up` tells others about itself. */
const UpLock = z.object({ pid: z.int(), portOffset: z.int(), startedMs: z.number() });
export type UpLock = z.infer<typeof UpLock>;

/** Held for as long as `up` runs; the system lets go of it when the process dies, however it dies. */
export class UpLockFile {
  readonly #file: Deno.FsFile;
  /** The former `up` was killed, so its nodes may need a moment to notice and go. */
  readonly formerWasCutShort: boolean;

  private constructor(file: Deno.FsFile, formerWasCutShort: boolean) {
    this.#file = file;
    this.formerWasCutShort = formerWasCutShort;
  }

  /** @throws {ClusterFolderError} another `up` runs on this folder */
  static async take(dir: string, portOffset: number): Promise<UpLockFile> {
    const path = join(dir, UP_LOCK_FILE);
    const file = await Deno.open(path, { read: true, write: true, create: true, mode: 0o600 });
    if (!await file.tryLock(true)) {
      file.close();
      const holder = await readUpLock(dir);
      const who = holder === null ? "" : ` (process ${holder.pid})`;
      throw new ClusterFolderError(
        `The data folder "${dir}" is in use by a running \`penncloud up\`${who}: stop that one, or ` +
          "name another folder with --data and other ports with --port-offset",
      );
    }
    const formerWasCutShort = await readUpLock(dir) !== null;
    await file.truncate(0);
    const lock: UpLock = { pid: Deno.pid, portOffset, startedMs: Date.now() };
    await file.write(new TextEncoder().encode(JSON.stringify(lock)));
    return new UpLockFile(file, formerWasCutShort);
  }

  async release(): Promise<void> {
    await this.#file.truncate(0);
    this.#file.close();
  }
}

/** What the last `up` on this folder wrote, and null when it ended in good order or never ran. */
export async function readUpLock(dir: string): Promise<UpLock | null> {
  try {
    return UpLock.parse(JSON.parse(await Deno.readTextFile(join(dir, UP_LOCK_FILE))));
  } catch {
    return null;
  }
}
