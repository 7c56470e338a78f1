/**
 * The coordinator's records go back in time, as when somebody restores an old copy of its folder. It
 * must notice from what the nodes report, say so, and keep its hands off; data goes on being served.
 */
import { join } from "node:path";
import { eventually } from "../eventually.ts";
import type { FaultCluster } from "./fault_cluster.ts";
import { GuaranteeBroken, type Nemesis } from "./nemesis.ts";

const COORDINATOR = "coordinator/0";
const NOTICE_WITHIN_MS = 30_000;
const WHOLE_WITHIN_MS = 60_000;

export const rollback: Nemesis = {
  name: "rollback",
  about: "the coordinator starts on an older copy of its records, and must refuse to use it",
  combines: false,
  plan: async (cluster, random) => {
    const folder = new MetadataFolder(cluster);
    // Taken now, and put in place after every group's configuration has changed.
    await folder.copyTo("old");
    await changeEveryGroup(cluster);
    return {
      what: `${COORDINATOR} starts on an older copy of its records`,
      victims: [],
      gaps: { other: "coordinator on an older copy" },
      harmless: true,
      holdMs: random.integer(4_000),
      begin: async () => {
        await folder.copyTo("new");
        await folder.replaceBy("old");
        await expectNoticed(cluster);
      },
      end: () => folder.replaceBy("new"),
    };
  },
};

class MetadataFolder {
  readonly #cluster: FaultCluster;
  readonly #dir: string;

  constructor(cluster: FaultCluster) {
    this.#cluster = cluster;
    this.#dir = cluster.dataDirOf(COORDINATOR);
  }

  /** Stops the coordinator for it, so that the copy is a whole one. */
  async copyTo(name: string): Promise<void> {
    await this.#cluster.killNode(COORDINATOR);
    await copyFolder(this.#dir, this.#aside(name));
    await this.#cluster.startNode(COORDINATOR);
  }

  async replaceBy(name: string): Promise<void> {
    await this.#cluster.killNode(COORDINATOR);
    await copyFolder(this.#aside(name), this.#dir);
    await this.#cluster.startNode(COORDINATOR);
  }

  #aside(name: string): string {
    return join(this.#cluster.dir, `metadata-${name}`);
  }
}

async function copyFolder(from: string, to: string): Promise<void> {
  await Deno.remove(to, { recursive: true }).catch(() => {});
  await Deno.mkdir(to);
  for await (const { name, isFile } of Deno.readDir(from)) {
    if (isFile) await Deno.copyFile(join(from, name), join(to, name));
  }
}

/** Crashes backends until each group is at a newer epoch than it was. */
async function changeEveryGroup(cluster: FaultCluster): Promise<void> {
  await cluster.waitWhole({ withinMs: WHOLE_WITHIN_MS });
  const before = await epochsOf(cluster);
  for (const name of cluster.backends) {
    const now = await epochsOf(cluster);
    if ([...before].every(([group, epoch]) => now.get(group)! > epoch)) return;
    cluster.sigkill(await cluster.pidOf(name));
    await eventually(async () => (await cluster.process(name)).state !== "running", "a crash");
    await cluster.waitWhole({ withinMs: WHOLE_WITHIN_MS });
  }
}

async function epochsOf(cluster: FaultCluster): Promise<Map<number, number>> {
  const { tablets } = await cluster.status();
  return new Map(tablets.map(({ groupId, epoch }) => [groupId, epoch]));
}

async function expectNoticed(cluster: FaultCluster): Promise<void> {
  let said: readonly string[] = [];
  const noticed = async () => {
    said = (await cluster.status().catch(() => null))?.problems ?? [];
    return cluster.groups.every(({ id }) =>
      said.some((problem) => problem.includes(`Tablet ${id}.`) && /went back in time/.test(problem))
    );
  };
  await eventually(noticed, "", { withinMs: NOTICE_WITHIN_MS, everyMs: 100 }).catch(() => {
    throw new GuaranteeBroken(
      `the coordinator did not notice that its records are old; it says: ${said.join("; ")}`,
    );
  });
}
